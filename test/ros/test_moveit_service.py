# SPDX-License-Identifier: Apache-2.0
"""~/solve_ik of the node: off without moveit_msgs, and called for real where it is there."""

import sys

import numpy as np
import pinocchio as pin
import pytest
from builtin_interfaces.msg import Duration
from geometry_msgs.msg import PoseStamped
from meanflow_ik_ros.srv import GetIKSolutions
from moveit_messages import HAS_MOVEIT
from oracles import Judge
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from ros_user import DEADLINE_S, make_node
from sensor_msgs.msg import JointState

from meanflow_ik_core.collision.self_collision import SelfCollision
from meanflow_ik_ros.node import MeanFlowIKNode

Codes = GetIKSolutions.Response
SERVICE = "/left/meanflow_ik/solve_ik"
needs_moveit = pytest.mark.skipif(
    not HAS_MOVEIT,
    reason="moveit_msgs is not installed, so ~/solve_ik is off; test_moveit.py tests what it does",
)


pytestmark = pytest.mark.usefixtures("ros")


def moveit_node() -> MeanFlowIKNode:
    return make_node("left", moveit_group="panda_arm")


def is_served(node) -> bool:
    return SERVICE in [service.service_name for service in node.services]


def start_and_stop(capfd) -> tuple[bool, list[str]]:
    """Whether a node serves ~/solve_ik, and what it says about MoveIt while it starts."""
    capfd.readouterr()
    node = moveit_node()
    served = is_served(node)
    node.destroy_node()
    return served, [line for line in capfd.readouterr().err.splitlines() if "MoveIt" in line]


@pytest.fixture
def without_moveit(monkeypatch):
    """As if no module of moveit_msgs had been imported yet, nor will be by the test."""

    def loaded() -> list[str]:
        return [name for name in sys.modules if name.split(".")[0] == "moveit_msgs"]

    for name in loaded():
        monkeypatch.delitem(sys.modules, name)
    yield monkeypatch
    for name in loaded():
        del sys.modules[name]


def test_without_moveit_msgs_one_line_says_that_the_service_is_off(capfd, without_moveit):
    without_moveit.setitem(sys.modules, "moveit_msgs", None)
    served, lines = start_and_stop(capfd)
    assert not served
    assert len(lines) == 1 and "[INFO]" in lines[0]
    assert f"{SERVICE} for MoveIt is off: moveit_msgs is not installed" in lines[0]


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        ("class GetPositionIK:\n    pass\n", "AttributeError"),
        ("import shape_msgs_that_are_missing\n", "shape_msgs_that_are_missing"),
    ],
    ids=["another build", "half installed"],
)
def test_moveit_msgs_that_cannot_be_used_do_no_harm(
    capfd, without_moveit, tmp_path, module, reason
):
    package = tmp_path / "moveit_msgs" / "srv"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    (package / "__init__.py").write_text(module)
    without_moveit.syspath_prepend(str(tmp_path))
    served, lines = start_and_stop(capfd)
    assert not served
    assert len(lines) == 1 and "[WARN]" in lines[0]
    assert "moveit_msgs cannot be used" in lines[0] and reason in lines[0]


def test_the_log_tells_the_truth_about_this_installation(capfd):
    served, lines = start_and_stop(capfd)
    assert served == HAS_MOVEIT
    state = "on, group panda_arm" if HAS_MOVEIT else "off: moveit_msgs is not installed"
    assert len(lines) == 1 and lines[0].endswith(f"{SERVICE} for MoveIt is {state}")


class Plugin:
    """Asks as MoveIt's SrvKinematicsPlugin does."""

    def __init__(self, node):
        from moveit_msgs.srv import GetPositionIK

        self.kind = GetPositionIK
        self.node = Node("move_group")
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(node)
        self.executor.add_node(self.node)
        self.client = self.node.create_client(GetPositionIK, SERVICE)
        assert self.client.wait_for_service(DEADLINE_S)

    def request(self, T_base_tip, seed):
        """T_base_tip (4, 4), seed (7,)."""
        request = self.kind.Request()
        asked = request.ik_request
        asked.group_name = "panda_arm"
        asked.avoid_collisions = True
        asked.ik_link_name = "panda_link8"
        asked.pose_stamped = pose = PoseStamped()
        pose.header.frame_id = "panda_link0"
        position, orientation = pose.pose.position, pose.pose.orientation
        position.x, position.y, position.z = T_base_tip[:3, 3].tolist()
        quat_xyzw = pin.Quaternion(T_base_tip[:3, :3]).coeffs().tolist()
        orientation.x, orientation.y, orientation.z, orientation.w = quat_xyzw
        names = [f"panda_joint{i}" for i in range(1, 8)]
        fingers = ["panda_finger_joint1", "panda_finger_joint2"]
        asked.robot_state.joint_state = JointState(
            name=names + fingers, position=[*seed.tolist(), 0.035, 0.035]
        )
        asked.robot_state.joint_state.header.frame_id = "world"
        return request

    def call(self, request):
        future = self.client.call_async(request)
        self.executor.spin_until_future_complete(future, timeout_sec=DEADLINE_S)
        assert future.done(), "no answer"
        return future.result()

    def close(self):
        self.executor.shutdown()
        self.node.destroy_node()


@pytest.fixture(scope="module")
def node(ros):
    node = moveit_node()
    yield node
    node.destroy_node()


@pytest.fixture(scope="module")
def plugin(node):
    plugin = Plugin(node)
    yield plugin
    plugin.close()


@needs_moveit
def test_moveits_plugin_gets_the_solution_nearest_to_its_seed(node, plugin):
    robot, check, judge = node.desk.robot, SelfCollision(node.desk.robot), Judge(node.desk.robot)
    random = np.random.default_rng(0)
    solved = 0
    for seed in random.uniform(robot.lower, robot.upper, (30, 7)):
        goal = np.clip(seed + random.uniform(-0.2, 0.2, 7), robot.lower, robot.upper)
        if check.in_collision(goal):
            continue
        target = judge.poses(goal)
        response = plugin.call(plugin.request(target[0], seed))
        assert response.error_code.val == Codes.SUCCESS, response.error_code
        state = response.solution.joint_state
        found = np.array(state.position[:7])
        assert judge.accepts(found, target)
        assert not check.in_collision(found)
        # The goal is a solution too, and some solution near the seed must have been found.
        assert np.abs(found - seed).max() < 1.0
        assert list(state.name[:7]) == list(robot.joint_names)
        assert state.name[7:] == ["panda_finger_joint1", "panda_finger_joint2"]
        assert list(state.position[7:]) == [0.035, 0.035]
        assert state.header.frame_id == "world"
        solved += 1
    assert solved >= 20


@needs_moveit
def test_refusals_arrive_with_moveits_codes_and_a_reason(node, plugin):
    from moveit_msgs.msg import JointConstraint, MoveItErrorCodes

    q = 0.5 * (node.desk.robot.lower + node.desk.robot.upper)
    target = Judge(node.desk.robot).poses(q)[0]
    far = target.copy()
    far[:3, 3] = 3.0, 0.0, 0.5

    group, frame, link, bound = (plugin.request(target, q) for _ in range(4))
    group.ik_request.group_name = "hand"
    frame.ik_request.pose_stamped.header.frame_id = "moon"
    link.ik_request.ik_link_name = "nose"
    bound.ik_request.constraints.joint_constraints = [JointConstraint()]
    beyond = plugin.request(far, q)
    beyond.ik_request.timeout = Duration(nanosec=50_000_000)
    for request, code, words in (
        (group, MoveItErrorCodes.INVALID_GROUP_NAME, "panda_arm"),
        (frame, MoveItErrorCodes.FRAME_TRANSFORM_FAILURE, "moon"),
        (link, MoveItErrorCodes.INVALID_LINK_NAME, "nose"),
        (bound, MoveItErrorCodes.INVALID_GOAL_CONSTRAINTS, "joint_constraints"),
        (beyond, MoveItErrorCodes.NO_IK_SOLUTION, "beyond its reach"),
    ):
        response = plugin.call(request)
        assert response.error_code.val == code, response.error_code
        assert not response.solution.joint_state.name
        if hasattr(response.error_code, "message"):
            assert words in response.error_code.message
            assert response.error_code.source == "/left/meanflow_ik"


@needs_moveit
def test_a_seed_beyond_the_limits_is_answered_with_a_warning(node, plugin, capfd):
    q = 0.5 * (node.desk.robot.lower + node.desk.robot.upper)
    target = Judge(node.desk.robot).poses(q)[0]
    q[3] = node.desk.robot.upper[3] + 0.01
    capfd.readouterr()
    response = plugin.call(plugin.request(target, q))
    assert response.error_code.val == Codes.SUCCESS
    assert "seed taken at the limit: panda_joint4" in capfd.readouterr().err


@needs_moveit
def test_an_inactive_node_says_so(node, plugin):
    q = 0.5 * (node.desk.robot.lower + node.desk.robot.upper)
    request = plugin.request(Judge(node.desk.robot).poses(q)[0], q)
    node.trigger_deactivate()
    try:
        response = plugin.call(request)
    finally:
        node.trigger_activate()
    assert response.error_code.val == Codes.FAILURE
    assert not response.solution.joint_state.name
    assert plugin.call(request).error_code.val == Codes.SUCCESS


@needs_moveit
def test_cleaning_up_takes_the_service_down_and_configuring_opens_it_again(ros):
    node = moveit_node()
    try:
        assert is_served(node)
        node.trigger_deactivate()
        node.trigger_cleanup()
        assert not is_served(node)
        node.trigger_configure()
        assert is_served(node)
    finally:
        node.destroy_node()
