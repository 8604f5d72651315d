# SPDX-License-Identifier: Apache-2.0
"""The managed node: its transitions, what it says on /diagnostics, and QoS from outside."""

import shutil
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from example_robots import TORSO, TORSO_TIPS
from lifecycle_msgs.srv import ChangeState, GetState
from meanflow_ik_ros.srv import GetIKPath, GetIKSolutions, GetIKSolutionsBatch
from oracles import Judge
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import ReliabilityPolicy
from ros_user import DEADLINE_S, MANY, Q, make_node, pose_array, wait_until
from sensor_msgs.msg import JointState

import meanflow_ik_core as mik
from meanflow_ik_core.network.checkpoint import CHECKPOINT_FOLDER
from meanflow_ik_ros.fair_lock import FairLock
from meanflow_ik_ros.messages.poses import pose_message
from meanflow_ik_ros.node import MeanFlowIKNode
from meanflow_ik_ros.process import spin_until
from meanflow_ik_ros.request_statistics import (
    RECENT,
    Outcome,
    RequestStatistics,
    outcome_from_response,
)
from meanflow_ik_ros.topics.diagnostics import diagnostic_status

Codes = GetIKSolutions.Response
RCLPY = int(version("rclpy").partition(".")[0])
pytestmark = pytest.mark.usefixtures("ros")


def request_for(robot: mik.Robot) -> GetIKSolutions.Request:
    return GetIKSolutions.Request(targets=[pose_message(robot.forward(Q)[0], robot.base)])


class Running:
    """A node that is spun as its own main function does, and a user who talks to it."""

    def __init__(self, namespace: str = "", **values):
        self.node = make_node(namespace, **values)
        self.prefix = self.node.get_fully_qualified_name()
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=spin_until, args=(self.node, self.stopped))
        self.thread.start()
        self.user = Node("user", namespace=namespace)
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.user)

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        wait_until(self.executor, condition, what)

    def call(self, kind: type, name: str, request) -> Any:
        client = self.user.create_client(kind, f"{self.prefix}/{name}", qos_profile=MANY)
        try:
            self.wait(client.service_is_ready, name)
            future = client.call_async(request)
            self.wait(future.done, f"an answer of {name}")
            return future.result()
        finally:
            self.user.destroy_client(client)

    def client(self, kind: type, name: str) -> Any:
        """A client that the service knows: before, answers would be lost."""
        client = self.user.create_client(kind, f"{self.prefix}/{name}", qos_profile=MANY)
        self.wait(client.service_is_ready, name)
        for _ in range(5):
            known = client.call_async(kind.Request())
            with suppress(AssertionError):
                wait_until(self.executor, known.done, name, 2.0)
                break
        return client

    def change(self, label: str) -> tuple[bool, str]:
        """Whether the transition succeeded, and the state after it."""
        request = ChangeState.Request()
        request.transition.label = label
        success = self.call(ChangeState, "change_state", request).success
        return success, self.call(GetState, "get_state", GetState.Request()).current_state.label

    def ask(self, robot: mik.Robot) -> GetIKSolutions.Response:
        return self.call(GetIKSolutions, "get_ik_solutions", request_for(robot))

    def services(self) -> list[str]:
        return [name for name, _ in self.node.get_service_names_and_types()]

    def close(self) -> None:
        self.stopped.set()
        self.thread.join(DEADLINE_S)
        assert not self.thread.is_alive()
        self.executor.shutdown()
        self.user.destroy_node()
        self.node.destroy_node()


@pytest.fixture
def start():
    started = []

    def start(*args, **kwargs) -> Running:
        started.append(Running(*args, **kwargs))
        return started[-1]

    yield start
    for running in started:
        running.close()


def test_a_managed_node_goes_through_its_states_and_answers_in_one(start, panda):
    running = start(autostart=False)
    service = f"{running.prefix}/get_ik_solutions"
    assert service not in running.services()
    assert running.change("activate") == (False, "unconfigured")
    assert running.change("configure") == (True, "inactive")
    refused = running.ask(panda)
    assert refused.error_code == Codes.FAILURE and "not active" in refused.message
    assert running.change("activate") == (True, "active")
    assert running.ask(panda).error_code == Codes.SUCCESS
    assert running.change("deactivate") == (True, "inactive")
    assert running.ask(panda).error_code == Codes.FAILURE
    assert running.change("cleanup") == (True, "unconfigured")
    running.wait(lambda: service not in running.services(), "the end of the service")
    assert running.change("configure") == (True, "inactive")
    assert running.change("activate") == (True, "active")
    assert running.ask(panda).error_code == Codes.SUCCESS
    assert running.change("shutdown") == (True, "finalized")
    running.wait(lambda: service not in running.services(), "the end of the service")


def test_by_default_the_node_is_active_at_once_and_can_be_managed_all_the_same(start, panda):
    running = start()
    assert running.ask(panda).error_code == Codes.SUCCESS
    assert running.change("deactivate") == (True, "inactive")
    assert running.ask(panda).error_code == Codes.FAILURE


def test_a_checkpoint_replaced_on_disk_counts_from_the_next_configuration(
    start, panda, tmp_path, capfd
):
    checkpoint = tmp_path / "net.safetensors"
    shutil.copy(CHECKPOINT_FOLDER / "panda.safetensors", checkpoint)
    running = start(sampler="meanflow", checkpoint=str(checkpoint))
    before = running.ask(panda)
    with checkpoint.open("r+b") as file:  # in place, and shorter: what is mapped would be gone
        file.write(b"\xff" * 100_000)
        file.truncate(100_000)
    after = running.ask(panda)
    assert after.error_code == before.error_code == Codes.SUCCESS
    assert [s.joint_state.position for s in after.solutions] == [
        s.joint_state.position for s in before.solutions
    ]
    running.change("deactivate")
    running.change("cleanup")
    capfd.readouterr()
    assert running.change("configure") == (False, "unconfigured")
    assert "net.safetensors is damaged" in capfd.readouterr().err
    shutil.copy(CHECKPOINT_FOLDER / "panda.safetensors", checkpoint)
    assert running.change("configure") == (True, "inactive")
    assert running.change("activate") == (True, "active")
    assert running.ask(panda).error_code == Codes.SUCCESS


def test_two_nodes_with_two_robots_live_side_by_side(start, panda, tmp_path):
    left = start(namespace="/left")
    right = start(namespace="/right", robot=str(TORSO), tip_link=TORSO_TIPS[0])
    other = mik.load_robot(TORSO, tips=TORSO_TIPS[:1])
    q = 0.25 * other.lower + 0.75 * other.upper
    pose = pose_message(other.forward(q)[0], other.base)
    answer = right.call(GetIKSolutions, "get_ik_solutions", GetIKSolutions.Request(targets=[pose]))
    assert answer.error_code == Codes.SUCCESS, answer.message
    assert list(answer.solutions[0].joint_state.name) == list(other.joint_names)
    states = left.user.create_publisher(JointState, "/left/joint_states", MANY)
    left.wait(lambda: states.get_subscription_count() == 1, "joint_states of the left node")
    states.publish(JointState(name=list(panda.joint_names), position=Q.tolist()))
    left.wait(
        lambda: np.array_equal(left.node.desk.current_state.q, Q), "the state of the left arm"
    )
    answer = left.ask(panda)
    assert list(answer.solutions[0].joint_state.name) == list(panda.joint_names)
    assert right.node.desk.current_state.ages() is None


def values_of(status: DiagnosticStatus) -> dict[str, str]:
    return {value.key: value.value for value in status.values}


def test_diagnostics_tell_what_the_node_does(start, panda):
    running = start(sampler="meanflow", diagnostics_period=0.05)
    heard: list[DiagnosticStatus] = []
    running.user.create_subscription(
        DiagnosticArray, "/diagnostics", lambda array: heard.extend(array.status), MANY
    )

    def last(condition: Callable[[DiagnosticStatus], bool], what: str) -> dict[str, str]:
        running.wait(lambda: bool(heard) and condition(heard[-1]), what)
        return values_of(heard[-1])

    fresh = last(lambda status: True, "/diagnostics")
    assert fresh["requests"] == "0" and fresh["latency p50 [ms]"] == "-"
    assert fresh["joint_states age [ms]"] == "never heard"
    assert heard[-1].name == "meanflow_ik: solver" and heard[-1].hardware_id == "panda"
    assert heard[-1].level == DiagnosticStatus.OK
    running.ask(panda)
    running.call(GetIKSolutions, "get_ik_solutions", GetIKSolutions.Request())  # no target
    values = last(lambda status: values_of(status)["requests"] == "2", "both requests")
    assert values["share solved"] == "0.5000"
    assert 0 < float(values["latency p50 [ms]"]) <= float(values["latency p95 [ms]"])
    assert float(values["valid solutions per request"]) == 16.0  # 32 and 0
    assert values["checkpoint"].endswith("panda.safetensors")
    assert len(values["checkpoint sha256"]) == 64
    assert (values["sampler"], values["device"]) == ("meanflow", "cpu")
    states = running.user.create_publisher(JointState, "/joint_states", MANY)
    running.wait(lambda: states.get_subscription_count() == 1, "joint_states")
    states.publish(JointState(name=list(panda.joint_names), position=Q.tolist()))
    running.wait(lambda: values_of(heard[-1])["joint_states age [ms]"] != "never heard", "the age")
    running.change("deactivate")
    last(lambda status: status.level == DiagnosticStatus.WARN, "the warning")
    assert heard[-1].message.startswith("inactive")
    running.change("cleanup")
    last(lambda status: status.message.startswith("unconfigured"), "the next warning")


def test_statistics_count_all_and_judge_the_last():
    statistics = RequestStatistics()
    for _ in range(RECENT):
        statistics.add(Outcome(1.0, solved=False, valid=0, failed=True))
    for index in range(RECENT):
        statistics.add(Outcome(1e-3 * (index + 1), solved=True, valid=3))
    values = statistics.values()
    assert values["requests"] == str(2 * RECENT)
    assert values["share solved"] == "0.5000"
    assert float(values["latency p50 [ms]"]) == pytest.approx(500.5)
    assert float(values["latency p95 [ms]"]) == pytest.approx(950.05, abs=0.1)
    assert float(values["valid solutions per request"]) == 3.0
    assert statistics.failures() == 0


def test_an_exception_is_an_error_on_diagnostics():
    statistics = RequestStatistics()
    statistics.add(outcome_from_response(Codes(error_code=Codes.FAILURE), 0.1, failed=True))
    status = diagnostic_status(
        "/a/meanflow_ik", "panda", "active", statistics.failures(), statistics.values()
    )
    assert status.level == DiagnosticStatus.ERROR and "1 of the last" in status.message
    assert status.name == "a/meanflow_ik: solver"


def test_quality_of_service_can_be_overridden_from_outside(start):
    prefix = "qos_overrides./meanflow_ik"
    running = start(
        **{
            f"{prefix}/candidates.publisher.reliability": "best_effort",
            f"{prefix}/goal_pose.subscription.depth": 7,
            "qos_overrides./joint_states.subscription.reliability": "best_effort",
        }
    )
    topics = ("/meanflow_ik/candidates", "/meanflow_ik/best_candidate")
    running.wait(
        lambda: (
            all(map(running.node.count_publishers, topics))
            and bool(running.node.count_subscribers("/joint_states"))
        ),
        "the topics",
    )
    (candidates,) = running.node.get_publishers_info_by_topic(topics[0])
    assert candidates.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT
    (best,) = running.node.get_publishers_info_by_topic(topics[1])
    assert best.qos_profile.reliability == ReliabilityPolicy.RELIABLE
    (states,) = running.node.get_subscriptions_info_by_topic("/joint_states")
    assert states.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT
    depth = running.node.get_parameter(f"{prefix}/goal_pose.subscription.depth").value
    assert depth == 7


@pytest.mark.parametrize("value", ["sometimes", 3])
def test_a_bad_quality_of_service_stops_the_start_with_its_name(value):
    name = "qos_overrides./meanflow_ik/candidates.publisher.reliability"
    overrides = [Parameter("sampler", value="uniform"), Parameter(name, value=value)]
    with pytest.raises(mik.ConfigError, match=r"/meanflow_ik/candidates.*reliability"):
        MeanFlowIKNode(parameter_overrides=overrides)


def test_paths_are_answered_by_the_running_node(start, panda):
    running = start(seed=1)
    q = Q + np.linspace(0, 0.3, 15)[:, None] * np.array([1, -1, 0.5, 1, -0.5, 1, 1])
    request = GetIKPath.Request(start_state=JointState(name=list(panda.joint_names)))
    request.start_state.position = Q.tolist()
    request.waypoints.header.frame_id = panda.base
    request.waypoints.poses = [pose_message(T[0], panda.base).pose for T in panda.forward(q)]
    response = running.call(GetIKPath, "get_ik_path", request)
    assert response.error_code == GetIKPath.Response.SUCCESS, response.message
    judge = Judge(panda)
    found = np.array([point.positions for point in response.trajectory.points])
    assert all(judge.accepts(a, b) for a, b in zip(found, panda.forward(q), strict=True))
    steps = np.abs(np.diff(found, axis=0)).max()
    assert steps == pytest.approx(response.largest_step) and steps < 0.1
    assert response.failed_waypoint == -1

    request.waypoints.poses[4].position.x = 4.0
    broken = running.call(GetIKPath, "get_ik_path", request)
    assert broken.error_code == GetIKPath.Response.NO_IK_SOLUTION
    assert broken.failed_waypoint == 4 and not broken.trajectory.points
    request.waypoints.poses.clear()
    refused = running.call(GetIKPath, "get_ik_path", request)
    assert refused.error_code == GetIKPath.Response.INVALID_GOAL_CONSTRAINTS
    assert refused.failed_waypoint == -1 and refused.message


def test_transitions_under_load_end_no_node(start, panda):
    running = start()
    client = running.user.create_client(
        GetIKSolutions, f"{running.prefix}/get_ik_solutions", qos_profile=MANY
    )
    running.wait(client.service_is_ready, "the service")
    futures = []
    for _ in range(4):
        futures += [client.call_async(request_for(panda)) for _ in range(20)]
        running.wait(futures[0].done, "the first answer")
        for label in ("deactivate", "cleanup", "configure", "activate"):
            assert running.change(label)[0], label
    assert running.ask(panda).error_code == Codes.SUCCESS
    assert running.thread.is_alive()
    answers = [future.result() for future in futures if future.done()]
    assert answers and {answer.error_code for answer in answers} <= {Codes.SUCCESS, Codes.FAILURE}
    running.user.destroy_client(client)


def test_the_fair_lock_goes_to_whoever_came_first():
    lock, order, threads = FairLock(), [], []

    def take(number: int) -> None:
        with lock:
            order.append(number)

    lock.acquire()
    for number in range(20):
        threads.append(threading.Thread(target=take, args=(number,)))
        threads[-1].start()
        deadline = time.monotonic() + DEADLINE_S
        while len(lock._waiting) <= number:  # it is in the queue before the next one starts
            assert time.monotonic() < deadline
    assert lock.locked() and not order
    lock.release()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert order == list(range(20)) and not lock.locked()


def test_a_callback_that_fails_ends_no_node(start, panda, capfd):
    running = start()

    def fail(message: JointState) -> None:
        raise ZeroDivisionError("not my day")

    running.node.create_subscription(JointState, "poison", fail, MANY)
    poison = running.user.create_publisher(JointState, "poison", MANY)
    running.wait(lambda: poison.get_subscription_count() == 1, "the subscription")
    for _ in range(3):
        poison.publish(JointState())
        assert running.ask(panda).error_code == Codes.SUCCESS
    # a transition that does not exist from here
    request = ChangeState.Request()
    request.transition.id = 3
    client = running.user.create_client(ChangeState, f"{running.prefix}/change_state")
    running.wait(client.service_is_ready, "change_state")
    answer = client.call_async(request)
    assert running.ask(panda).error_code == Codes.SUCCESS
    if RCLPY > 7:  # that of Jazzy, 7, warns of it and gives no answer
        running.wait(answer.done, "an answer of change_state")
        assert not answer.result().success
    assert running.thread.is_alive() and not running.stopped.is_set()
    assert "not my day" in capfd.readouterr().err


def test_an_override_that_nothing_takes_is_warned_about(start, capfd):
    start(**{"qos_overrides./meanflow_ik/candidate.publisher.depth": 7})
    assert "candidate.publisher.depth" in capfd.readouterr().err


@pytest.mark.parametrize(
    "labels", [["deactivate"], ["deactivate", "cleanup"], ["shutdown"]], ids=str
)
def test_transitions_end_what_is_in_progress_and_answer_all_of_it(start, panda, labels):
    running = start()
    desk = running.node.desk
    targets = panda.forward(panda.random_configurations(4000, 0).numpy())[:, 0]
    batch = GetIKSolutionsBatch.Request(num_samples=200, max_solutions=64)
    batch.targets = pose_array(targets, panda.base)
    for _ in range(3):
        batches = running.client(GetIKSolutionsBatch, "get_ik_solutions_batch")
        asked = [batches.call_async(batch) for _ in range(2)]
        # One is solved, the other waits aside or for its turn.
        running.wait(lambda: desk._in_progress == 2, "both in progress")
        began = time.monotonic()
        for label in labels:
            assert running.change(label)[0], label
        assert not desk._in_progress
        running.wait(lambda asked=asked: all(one.done() for one in asked), "all answers")
        assert time.monotonic() - began < 8
        answers = [one.result() for one in asked]
        assert {answer.error_code for answer in answers} == {Codes.FAILURE}
        assert "the node is being deactivated" in {answer.message for answer in answers}
        running.user.destroy_client(batches)
        if labels == ["shutdown"]:
            break
        for label in ("configure", "activate") if "cleanup" in labels else ("activate",):
            assert running.change(label)[0], label
        assert running.ask(panda).error_code == Codes.SUCCESS
