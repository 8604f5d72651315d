# SPDX-License-Identifier: Apache-2.0
"""How the node starts and stops, alone and in a process of its own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from example_robots import TORSO, TORSO_TIPS
from meanflow_ik_ros.srv import GetIKSolutions
from oracles import Judge
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from ros_user import DEADLINE_S, MANY, SHARED, Q, make_node, overrides, start_node

import meanflow_ik_core as mik
from meanflow_ik_ros.messages.poses import pose_message
from meanflow_ik_ros.node import MeanFlowIKNode
from meanflow_ik_ros.parameters import NodeParameters
from meanflow_ik_ros.services import solutions

Codes = GetIKSolutions.Response
CLIENT = Path(__file__).with_name("killed_client.py")
KEPT = Path(__file__).with_name("kept_memory.py")
pytestmark = pytest.mark.usefixtures("ros")


def test_bad_parameters_stop_the_start_with_a_named_error(ros, tmp_path):
    broken = tmp_path / "broken.urdf"
    broken.write_text("<robot name='x'><link name='a'></robot>")
    cases = [
        ({"robot": "r2d2"}, mik.RobotError, "r2d2.*panda"),
        ({"robot": str(broken)}, mik.RobotError, "broken.urdf"),
        ({"sampler": "magic"}, mik.OptionError, "magic.*meanflow, uniform"),
        ({"device": "abacus", "sampler": "uniform"}, mik.OptionError, "abacus"),
        ({"tip_link": "nose", "sampler": "uniform"}, mik.LinkError, "nose.*panda_link8"),
        ({"checkpoint": str(tmp_path / "none.safetensors")}, mik.CheckpointError, "none"),
        ({"nm_samples": 3}, mik.ConfigError, r"nm_samples; did you mean num_samples\?"),
        ({"num_samples": 0}, mik.ConfigError, "num_samples"),
        ({"timeout": 1}, mik.ConfigError, "timeout.*DOUBLE"),
        ({"position_tolerance": float("nan")}, mik.ConfigError, "position_tolerance.*nan"),
    ]
    for values, kind, words in cases:
        with pytest.raises(kind, match=words):
            MeanFlowIKNode(parameter_overrides=overrides(**values))


@pytest.mark.parametrize("tips", [TORSO_TIPS[:1], TORSO_TIPS], ids=["one arm", "two arms"])
def test_other_robots_and_several_tips_are_solved(ros, tmp_path, capfd, tips):
    """One arm: a URDF and tip_link. Two arms: a YAML file that names both tips."""
    values = {"robot": str(TORSO), "tip_link": tips[0]}
    if len(tips) == 2:
        file = tmp_path / "torso.yaml"
        file.write_text(yaml.safe_dump({"urdf": str(TORSO), "tips": tips}))
        values = {"robot": str(file)}
    node = make_node(**values, sampler=NodeParameters().sampler)
    try:
        assert capfd.readouterr().err.count("sampler uniform (no checkpoint)") == 1
        robot = mik.load_robot(TORSO, tips=tips)
        q = np.random.default_rng(0).uniform(robot.lower, robot.upper)
        targets = robot.forward(q)
        request = GetIKSolutions.Request(
            targets=[pose_message(pose, robot.base) for pose in targets[::-1]],
            tip_links=tips[::-1],
        )
        response = solutions.answer(node.desk, request, GetIKSolutions.Response())
        assert response.error_code == Codes.SUCCESS, response.message
        for solution in response.solutions:
            assert list(solution.joint_state.name) == list(robot.joint_names)
            assert len(solution.position_error) == len(tips)
            assert Judge(robot).accepts(np.array(solution.joint_state.position), targets)
    finally:
        node.destroy_node()


def test_the_network_gets_the_threads_of_the_parameter(ros):
    before = torch.get_num_threads()
    try:
        for given, used in ((3, 3), (0, 3), (1, 1)):  # 0 leaves the number as it is
            make_node(num_threads=given).destroy_node()
            assert torch.get_num_threads() == used
    finally:
        torch.set_num_threads(before)


def start_heard(*ros_arguments: str) -> subprocess.Popen:
    return start_node(*ros_arguments, stderr=subprocess.PIPE, text=True)


def test_a_damaged_checkpoint_and_a_bad_file_end_with_one_line_and_an_exit_code(tmp_path):
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(os.urandom(1000))
    unknown = tmp_path / "unknown.yaml"
    unknown.write_text("/**:\n  ros__parameters:\n    robott: panda\n")
    garbage = tmp_path / "garbage.yaml"
    garbage.write_text("meanflow_ik: [1, {")
    processes = {
        "damaged.safetensors": start_heard("-p", f"checkpoint:={damaged}"),
        "unknown parameter robott; did you mean robot?": start_heard("--params-file", str(unknown)),
        "garbage.yaml": start_heard("--params-file", str(garbage)),
    }
    for words, process in processes.items():
        _, errors = process.communicate(timeout=DEADLINE_S)
        fatal = [line for line in errors.splitlines() if "[FATAL]" in line]
        assert process.returncode == 1, errors
        assert len(fatal) == 1, errors
        assert words in fatal[0]
        assert "Traceback" not in errors


@pytest.fixture
def process(compiled, tmp_path):
    """The node in its own process and namespace, started from a parameter file."""
    file = tmp_path / "node.yaml"
    file.write_text("/**:\n  ros__parameters:\n    sampler: uniform\n    num_samples: 64\n")
    process = start_heard("--params-file", str(file), "-r", "__ns:=/alone")
    yield process
    if process.poll() is None:
        process.kill()
        process.communicate()


@contextmanager
def client_of(process: subprocess.Popen, namespace: str):
    """A client of the service of a process, once that is there, and the executor of its node."""
    user = Node("other_user")
    executor = SingleThreadedExecutor()
    executor.add_node(user)
    service = user.create_client(
        GetIKSolutions, f"{namespace}/meanflow_ik/get_ik_solutions", qos_profile=MANY
    )
    until_answered(process, executor, service, GetIKSolutions.Request())
    yield service, executor
    executor.shutdown()
    user.destroy_node()


@pytest.fixture
def alone(process):
    with client_of(process, "/alone") as client:
        yield client


@pytest.fixture
def shared(shared_node):
    with client_of(shared_node, "/own") as client:
        yield client


def until_answered(process, executor, client, request) -> None:
    """Ask until an answer comes.

    A client that finds a service may not be known to it yet: then the middleware drops the answer
    after 100 ms, which a busy machine needs at times.
    """
    deadline = time.monotonic() + DEADLINE_S
    while not client.wait_for_service(0.2):
        assert process.poll() is None and time.monotonic() < deadline, client.srv_name
    while not spin_for(executor, client.call_async(request).done, 2.0):
        assert process.poll() is None and time.monotonic() < deadline, client.srv_name


def spin_for(executor, condition: Callable[[], bool], seconds: float = DEADLINE_S) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        executor.spin_once(0.02)
    return condition()


def test_a_burst_of_200_is_answered_and_sigint_refuses_what_is_queued(process, alone, panda):
    service, executor = alone
    pose = panda.forward(Q)[0]
    request = GetIKSolutions.Request(targets=[pose_message(pose, "panda_link0")])
    futures = [service.call_async(request) for _ in range(200)]
    assert spin_for(executor, lambda: all(future.done() for future in futures))
    assert {future.result().error_code for future in futures} == {Codes.SUCCESS}

    futures = [service.call_async(request) for _ in range(200)]
    assert spin_for(executor, futures[0].done)
    for _ in range(20):  # twice under a launch file
        process.send_signal(signal.SIGINT)
    assert spin_for(executor, lambda: process.poll() is not None)
    spin_for(executor, lambda: all(future.done() for future in futures), 5.0)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    answers = [future.result() for future in futures if future.done()]
    assert len(answers) == 200
    refused = [answer for answer in answers if answer.error_code == Codes.FAILURE]
    assert {answer.message for answer in refused} <= {"the node is shutting down"}
    assert {answer.error_code for answer in answers} <= {Codes.SUCCESS, Codes.FAILURE}
    assert refused


def test_sigterm_ends_an_idle_node_with_exit_code_0(process):
    # the service is there before the last line of the start: wait for the line, not for the service
    lines = []
    for line in process.stderr:
        lines.append(line)
        if "ready:" in line:
            break
    assert "ready: robot panda with 7 joints" in "".join(lines)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors


SIGNALLED_AS_THREADS_START = """
import os, signal, threading
from meanflow_ik_ros import node, own_thread

class Thread(threading.Thread):
    def start(self):
        os.kill(os.getpid(), signal.SIGTERM)
        super().start()

class Threading:
    Thread = Thread
    def __getattr__(self, name): return getattr(threading, name)

own_thread.threading = Threading()
node.main()
"""


def test_sigterm_ends_a_node_whose_threads_are_just_starting():
    process = subprocess.Popen(
        [sys.executable, "-c", SIGNALLED_AS_THREADS_START], stderr=subprocess.PIPE, text=True
    )
    _, errors = process.communicate(timeout=DEADLINE_S)
    assert "ready:" in errors and "Traceback" not in errors
    assert process.returncode == 0, errors


def test_a_client_killed_in_mid_call_leaves_the_node_answering_others(shared_node, shared, panda):
    service, executor = shared
    for _ in range(2):
        doomed = subprocess.Popen([sys.executable, CLIENT], stdout=subprocess.PIPE, text=True)
        assert doomed.stdout is not None and doomed.stdout.readline() == "asked\n"
        doomed.kill()
        doomed.communicate()
        pose = panda.forward(Q)[0]
        request = GetIKSolutions.Request(targets=[pose_message(pose, "panda_link0")])
        futures = [service.call_async(request) for _ in range(10)]
        assert spin_for(executor, lambda futures=futures: all(f.done() for f in futures))
        assert {future.result().error_code for future in futures} == {Codes.SUCCESS}
    assert shared_node.poll() is None


def test_parameters_changed_under_load_take_effect_between_requests(shared_node, shared, panda):
    service, executor = shared
    setter = executor.get_nodes()[0].create_client(
        SetParametersAtomically, "/own/meanflow_ik/set_parameters_atomically", qos_profile=MANY
    )
    until_answered(shared_node, executor, setter, SetParametersAtomically.Request())

    def change(count: int, tolerance: float):
        values = overrides(max_solutions=count, position_tolerance=tolerance)
        parameters = [value.to_parameter_msg() for value in values]
        return setter.call_async(SetParametersAtomically.Request(parameters=parameters))

    request = GetIKSolutions.Request(targets=[pose_message(panda.forward(Q)[0], panda.base)])
    answers, changes = [], []
    for index in range(100):
        count = (5, 9)[index % 2]
        changes.append(change(count, 1e-5 / count))
        answers.append(service.call_async(request))
    changes.append(change(SHARED["max_solutions"], NodeParameters().position_tolerance))
    spin_for(executor, lambda: all(future.done() for future in (*answers, *changes)))
    unanswered = [sum(not future.done() for future in some) for some in (answers, changes)]
    assert unanswered == [0, 0], f"requests and changes without an answer: {unanswered}"
    assert all(future.result().result.successful for future in changes)
    assert {future.result().error_code for future in answers} == {Codes.SUCCESS}
    counts = [len(future.result().solutions) for future in answers]
    assert set(counts) <= {5, 9, SHARED["max_solutions"]} and {5, 9} & set(counts)
    # each answer was made with one set of values, not a mixture
    for answer in answers:
        solutions = answer.result().solutions
        for solution in solutions:
            if len(solutions) != SHARED["max_solutions"]:
                assert max(solution.position_error) <= 1e-5 / len(solutions)


@pytest.mark.parametrize("own", [False, True], ids=["of the package", "of the user"])
def test_the_memory_of_large_messages_is_given_back(own, tmp_path):
    """Unless the user has a configuration of Fast DDS."""
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith(("FASTDDS", "FASTRTPS", "RMW_FAST"))
    }
    if own:
        environment["FASTDDS_DEFAULT_PROFILES_FILE"] = str(tmp_path / "none.xml")
    done = subprocess.run(
        [sys.executable, KEPT], env=environment, capture_output=True, text=True, check=True
    )
    kept = float(done.stdout)  # of 100 MB that were sent
    assert kept > 50 if own else kept < 10
    assert "warn" not in done.stderr.lower()
