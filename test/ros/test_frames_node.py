# SPDX-License-Identifier: Apache-2.0
"""The running node with targets in frames that only TF knows, and with the source of TF killed."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pinocchio as pin
import pytest
from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseStamped
from meanflow_ik_ros.msg import IKSolutionArray
from meanflow_ik_ros.srv import GetIKSolutions
from oracles import Judge
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from ros_user import DEADLINE_S, MANY, Q, wait_until
from sensor_msgs.msg import JointState

import meanflow_ik_core as mik
from meanflow_ik_ros.messages.poses import pose_message

Codes = GetIKSolutions.Response
HERE = Path(__file__).parent
T_BASE_CAMERA = pin.SE3(pin.exp3(np.array([0.4, -1.1, 0.7])), np.array([0.6, -0.4, 0.9]))


@pytest.fixture(scope="module")
def tf2_folder():
    """Where tf2_ros is taken from in another process; importable here for this file."""
    if importlib.util.find_spec("tf2_ros") is not None:
        yield None
        return
    folder = str(HERE / "tf2_stand_in")
    sys.path.insert(0, folder)
    yield folder
    sys.path.remove(folder)
    sys.modules.pop("tf2_ros", None)


@pytest.fixture(scope="module")
def running(tf2_folder, running):
    return running


class User:
    """A user's node."""

    def __init__(self):
        self.node = Node("tf_user")
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.service = self.node.create_client(
            GetIKSolutions, "/meanflow_ik/get_ik_solutions", qos_profile=MANY
        )
        self.goals = self.node.create_publisher(PoseStamped, "/meanflow_ik/goal_pose", MANY)
        self.states = self.node.create_publisher(JointState, "/joint_states", MANY)
        self.candidates: list[IKSolutionArray] = []
        self.node.create_subscription(
            IKSolutionArray, "/meanflow_ik/candidates", self.candidates.append, MANY
        )

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        wait_until(self.executor, condition, what)

    def ask(self, target: PoseStamped) -> GetIKSolutions.Response:
        request = GetIKSolutions.Request(targets=[target], tip_links=["panda_hand_tcp"])
        future = self.service.call_async(request)
        self.wait(future.done, "an answer")
        return future.result()


@pytest.fixture
def user(running):
    before = running.frames.timeout_s, running.frames.max_age_s
    user = User()
    user.wait(user.service.service_is_ready, "the service")
    user.wait(
        lambda: (
            user.goals.get_subscription_count() == 1
            and user.states.get_subscription_count() == 1
            and user.node.count_publishers("/meanflow_ik/candidates") == 1
        ),
        "the topics",
    )
    yield user
    running.frames.timeout_s, running.frames.max_age_s = before
    user.executor.shutdown()
    user.node.destroy_node()


@pytest.fixture
def start_source(tf2_folder):
    """Starts a process that publishes the camera's place; whatever is left is killed at the end."""
    processes = []

    def start(frame_id: str) -> subprocess.Popen:
        environment = dict(os.environ)
        if tf2_folder:
            paths = [tf2_folder, environment.get("PYTHONPATH")]
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        place = [*T_BASE_CAMERA.translation, *pin.Quaternion(T_BASE_CAMERA.rotation).coeffs()]
        command = [sys.executable, HERE / "tf_source.py", "panda_link0", frame_id, *map(str, place)]
        processes.append(subprocess.Popen(command, env=environment))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()


def tcp_place(robot: mik.Robot, q) -> pin.SE3:
    """The finger tips in the base by Pinocchio."""
    return Judge(robot).link(np.asarray(q), "panda_hand_tcp")


def target_in(frame_id: str, robot: mik.Robot, stamp: Time | None = None) -> PoseStamped:
    """Where the finger tips are at Q, seen from the camera or, of another name, from the base."""
    place = tcp_place(robot, Q)
    if frame_id != "panda_link0":
        place = T_BASE_CAMERA.inverse() * place
    target = pose_message(place.homogeneous, frame_id)
    target.header.stamp = stamp or Time()
    return target


def assert_reached(solutions, robot: mik.Robot) -> None:
    wanted = tcp_place(robot, Q)
    assert solutions
    for solution in solutions:
        reached = tcp_place(robot, solution.joint_state.position)
        error = pin.log6(wanted.actInv(reached)).vector
        assert np.abs(error).max() < 2e-5


def test_a_target_for_the_finger_tips_in_the_frame_of_a_camera_is_solved(
    user, running, start_source
):
    running.frames.timeout_s = DEADLINE_S  # for the source to start
    start_source("camera")
    response = user.ask(target_in("camera", running.desk.robot))
    assert response.error_code == Codes.SUCCESS, response.message
    assert_reached(response.solutions, running.desk.robot)
    assert {s.joint_state.header.frame_id for s in response.solutions} == {"panda_link0"}
    stamp = user.node.get_clock().now().to_msg()
    response = user.ask(target_in("camera", running.desk.robot, stamp))
    assert response.error_code == Codes.SUCCESS, response.message

    goal = pose_message(
        (T_BASE_CAMERA.inverse() * pin.SE3(running.desk.robot.forward(Q)[0])).homogeneous, "camera"
    )
    goal.header.stamp = user.node.get_clock().now().to_msg()
    user.goals.publish(goal)
    user.wait(lambda: bool(user.candidates), "candidates")
    (candidates,) = user.candidates
    assert candidates.targets == [goal] and candidates.header.frame_id == "panda_link0"
    for solution in candidates.solutions:
        assert Judge(running.desk.robot).accepts(
            np.array(solution.joint_state.position), running.desk.robot.forward(Q)
        )


def test_a_source_of_tf_that_is_gone_is_an_answer_and_the_node_goes_on(user, running, start_source):
    running.frames.timeout_s = DEADLINE_S
    source = start_source("drone")
    response = user.ask(target_in("drone", running.desk.robot))
    assert response.error_code == Codes.SUCCESS, response.message
    source.kill()
    source.wait()
    running.frames.timeout_s = 0.1
    stamp = user.node.get_clock().now().to_msg()
    stamp.sec += 1  # later than the last transform, whatever was still under way
    response = user.ask(target_in("drone", running.desk.robot, stamp))
    assert response.error_code == Codes.FRAME_TRANSFORM_FAILURE
    assert "'drone' to 'panda_link0'" in response.message
    # the latest transform does for as long as it is young enough
    running.frames.max_age_s = 0.5
    user.wait(
        lambda: (
            user.ask(target_in("drone", running.desk.robot)).error_code
            == Codes.FRAME_TRANSFORM_FAILURE
        ),
        "the last transform to be too old",
    )
    response = user.ask(target_in("panda_link0", running.desk.robot))
    assert response.error_code == Codes.SUCCESS, response.message


def test_joint_states_are_heard_while_a_request_waits_for_a_transform(user, running, start_source):
    running.frames.timeout_s = DEADLINE_S
    request = GetIKSolutions.Request(
        targets=[target_in("late_camera", running.desk.robot)], tip_links=["panda_hand_tcp"]
    )
    future = user.service.call_async(request)
    for step in range(3):
        q = Q + 0.01 * step
        state = JointState(name=list(running.desk.robot.joint_names), position=q.tolist())
        user.states.publish(state)
        user.wait(lambda q=q: np.array_equal(running.desk.current_state.q, q), "the state")
    assert not future.done()
    start_source("late_camera")
    user.wait(future.done, "an answer")
    assert future.result().error_code == Codes.SUCCESS, future.result().message
    assert_reached(future.result().solutions, running.desk.robot)
