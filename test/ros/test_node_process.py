# SPDX-License-Identifier: Apache-2.0
"""How the node starts and stops, alone and in a process of its own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import pytest
import rclpy
import torch
import yaml
from example_robots import TORSO, TORSO_TIPS
from meanflow_ik_ros.srv import GetIKSolutions
from oracles import Judge
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile

import meanflow_ik_core as mik
from meanflow_ik_ros.messages.poses import pose_message
from meanflow_ik_ros.node import MeanFlowIKNode
from meanflow_ik_ros.services import solutions

Codes = GetIKSolutions.Response
DEADLINE_S = 60.0
MANY = QoSProfile(depth=1000)
Q = np.array([0.3, 0.2, -0.2, -1.7, 0.4, 2.0, 0.5])


@pytest.fixture(scope="module", autouse=True)
def ros():
    rclpy.init()
    yield
    rclpy.try_shutdown()


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
        overrides = [Parameter(name, value=value) for name, value in values.items()]
        with pytest.raises(kind, match=words):
            MeanFlowIKNode(parameter_overrides=overrides)


@pytest.mark.parametrize("tips", [TORSO_TIPS[:1], TORSO_TIPS], ids=["one arm", "two arms"])
def test_other_robots_and_several_tips_are_solved(ros, tmp_path, tips):
    """One arm: a URDF and tip_link. Two arms: a YAML file that names both tips."""
    values = {"robot": str(TORSO), "tip_link": tips[0]}
    if len(tips) == 2:
        file = tmp_path / "torso.yaml"
        file.write_text(yaml.safe_dump({"urdf": str(TORSO), "tips": tips}))
        values = {"robot": str(file)}
    values["sampler"] = "uniform"
    overrides = [Parameter(name, value=value) for name, value in values.items()]
    node = MeanFlowIKNode(parameter_overrides=overrides)
    try:
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
            values = {"num_threads": given, "sampler": "uniform"}
            overrides = [Parameter(name, value=value) for name, value in values.items()]
            MeanFlowIKNode(parameter_overrides=overrides).destroy_node()
            assert torch.get_num_threads() == used
    finally:
        torch.set_num_threads(before)


def start_node(*ros_arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "meanflow_ik_ros.node", "--ros-args", *ros_arguments]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def test_a_damaged_checkpoint_and_a_bad_file_end_with_one_line_and_an_exit_code(tmp_path):
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(os.urandom(1000))
    unknown = tmp_path / "unknown.yaml"
    unknown.write_text("/**:\n  ros__parameters:\n    robott: panda\n")
    garbage = tmp_path / "garbage.yaml"
    garbage.write_text("meanflow_ik: [1, {")
    processes = {
        "damaged.safetensors": start_node("-p", f"checkpoint:={damaged}"),
        "unknown parameter robott; did you mean robot?": start_node("--params-file", str(unknown)),
        "garbage.yaml": start_node("--params-file", str(garbage)),
    }
    for words, process in processes.items():
        _, errors = process.communicate(timeout=DEADLINE_S)
        fatal = [line for line in errors.splitlines() if "[FATAL]" in line]
        assert process.returncode == 1, errors
        assert len(fatal) == 1, errors
        assert words in fatal[0]
        assert "Traceback" not in errors


@pytest.fixture
def process(ros, tmp_path):
    """The node in its own process and namespace, started from a parameter file."""
    file = tmp_path / "node.yaml"
    file.write_text("/**:\n  ros__parameters:\n    sampler: uniform\n    num_samples: 64\n")
    process = start_node("--params-file", str(file), "-r", "__ns:=/own")
    yield process
    if process.poll() is None:
        process.kill()
        process.communicate()


@pytest.fixture
def other(process):
    """A node and client for the service of `process`, once that is there."""
    user = Node("other_user")
    executor = SingleThreadedExecutor()
    executor.add_node(user)
    service = user.create_client(
        GetIKSolutions, "/own/meanflow_ik/get_ik_solutions", qos_profile=MANY
    )
    until_answered(process, executor, service, GetIKSolutions.Request())
    yield service, executor
    executor.shutdown()
    user.destroy_node()


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


def test_a_burst_of_200_is_answered_and_sigint_refuses_what_is_queued(process, other):
    service, executor = other
    pose = mik.load_robot("panda").forward(Q)[0]
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


KILLED = """
import rclpy, sys
from meanflow_ik_ros.srv import GetIKSolutions
from meanflow_ik_ros.messages.poses import pose_message
import meanflow_ik_core as mik

rclpy.init()
node = rclpy.create_node("doomed")
client = node.create_client(GetIKSolutions, "/own/meanflow_ik/get_ik_solutions")
assert client.wait_for_service(60)
robot = mik.load_robot("panda")
target = robot.forward([0.3, 0.2, -0.2, -1.7, 0.4, 2.0, 0.5])[0]
target[0, 3] += 3.0  # out of reach: long work
request = GetIKSolutions.Request(targets=[pose_message(target, robot.base)], num_samples=20_000)
futures = [client.call_async(request) for _ in range(5)]
rclpy.spin_once(node, timeout_sec=0.05)
print("asked", flush=True)
rclpy.spin(node)
"""


def test_a_client_killed_in_mid_call_leaves_the_node_answering_others(process, other):
    service, executor = other
    for _ in range(2):
        doomed = subprocess.Popen([sys.executable, "-c", KILLED], stdout=subprocess.PIPE, text=True)
        assert doomed.stdout is not None and doomed.stdout.readline() == "asked\n"
        doomed.kill()
        doomed.communicate()
        pose = mik.load_robot("panda").forward(Q)[0]
        request = GetIKSolutions.Request(targets=[pose_message(pose, "panda_link0")])
        futures = [service.call_async(request) for _ in range(10)]
        assert spin_for(executor, lambda futures=futures: all(f.done() for f in futures))
        assert {future.result().error_code for future in futures} == {Codes.SUCCESS}
    assert process.poll() is None


def test_parameters_changed_under_load_take_effect_between_requests(process, other):
    service, executor = other
    setter = executor.get_nodes()[0].create_client(
        SetParametersAtomically, "/own/meanflow_ik/set_parameters_atomically", qos_profile=MANY
    )
    until_answered(process, executor, setter, SetParametersAtomically.Request())
    pose = mik.load_robot("panda").forward(Q)[0]
    request = GetIKSolutions.Request(targets=[pose_message(pose, "panda_link0")])
    answers, changes = [], []
    for index in range(100):
        count = (5, 9)[index % 2]
        values = {"max_solutions": count, "position_tolerance": 1e-5 / count}
        parameters = [Parameter(k, value=v).to_parameter_msg() for k, v in values.items()]
        changes.append(setter.call_async(SetParametersAtomically.Request(parameters=parameters)))
        answers.append(service.call_async(request))
    spin_for(executor, lambda: all(future.done() for future in (*answers, *changes)))
    unanswered = [sum(not future.done() for future in some) for some in (answers, changes)]
    assert unanswered == [0, 0], f"requests and changes without an answer: {unanswered}"
    assert all(future.result().result.successful for future in changes)
    counts = [len(future.result().solutions) for future in answers]
    assert set(counts) <= {5, 9, 32} and {future.result().error_code for future in answers} == {
        Codes.SUCCESS
    }
    # each answer was made with one set of values, not a mixture
    for answer in answers:
        solutions = answer.result().solutions
        for solution in solutions:
            if len(solutions) != 32:
                assert max(solution.position_error) <= 1e-5 / len(solutions)
