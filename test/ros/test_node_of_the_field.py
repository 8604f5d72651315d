# SPDX-License-Identifier: Apache-2.0
"""The node with robots as they are found: described by a text or a topic, with few joints."""

import numpy as np
import pytest
from chains import FIVE, chain, write
from geometry_msgs.msg import PoseStamped
from meanflow_ik_ros.msg import IKSolutionArray
from meanflow_ik_ros.srv import GetIKSolutions
from oracles import Judge
from rclpy.node import Node
from ros_user import LATCHED, MANY, User, make_node, spun
from std_msgs.msg import String
from visualization_msgs.msg import MarkerArray

import meanflow_ik_core as mik
from meanflow_ik_ros import node as node_module
from meanflow_ik_ros.messages.poses import pose_message
from meanflow_ik_ros.services import solutions

Codes = GetIKSolutions.Response
pytestmark = pytest.mark.usefixtures("ros")
UNREACHABLE_TURN = np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])


@pytest.fixture(scope="module")
def five(tmp_path_factory) -> Judge:
    path = write(tmp_path_factory.mktemp("five"), chain(FIVE))
    return Judge(mik.load_robot(path))


def target(judge: Judge) -> np.ndarray:
    """A position that the arm reaches, with an orientation that it does not."""
    T = judge.poses(np.array([0.3, -0.4, 0.5, 0.6, -0.7]))[0]
    T[:3, :3] = UNREACHABLE_TURN
    return T


def test_goals_on_a_topic_may_be_positions_only(five):
    node = make_node(robot_description=chain(FIVE), free_axes=["rx ry rz"])
    assert node.desk.robot.name == "arm"
    with spun(node):
        user = User({"candidates": (IKSolutionArray, MANY), "markers": (MarkerArray, LATCHED)})
        goals = user.node.create_publisher(PoseStamped, "/meanflow_ik/goal_pose", MANY)
        user.meet(goals)
        found = user.show(goals, pose_message(target(five), "link0")).solutions
    assert len(found) > 1 and all(solution.valid for solution in found)
    for solution in found:
        reached = five.poses(np.array(solution.joint_state.position))[0]
        np.testing.assert_allclose(reached[:3, 3], target(five)[:3, 3], atol=1e-5)
    user.close()
    node.destroy_node()


def test_the_robot_is_taken_from_a_topic_or_the_node_says_what_did_not_come(five, monkeypatch):
    publisher = Node("describer")
    latched = publisher.create_publisher(String, "/robot_description", LATCHED)
    latched.publish(String(data=chain(FIVE)))
    node = make_node(robot_description_topic="/robot_description")
    request = GetIKSolutions.Request(
        targets=[pose_message(target(five), "link0")], free_axes=["rx ry rz"]
    )
    answer = solutions.answer(node.desk, request, GetIKSolutions.Response())
    assert answer.error_code == Codes.SUCCESS, answer.message
    node.destroy_node()
    publisher.destroy_node()
    monkeypatch.setattr(node_module, "DESCRIPTION_TIMEOUT_S", 0.1)
    with pytest.raises(mik.RobotError, match=r"no URDF came on /nobody in 0\.1 s"):
        make_node(robot_description_topic="nobody")


def test_a_missing_collision_mesh_does_not_keep_the_node_from_starting(tmp_path):
    shape = '<collision><geometry><mesh filename="gone.stl"/></geometry></collision>'
    text = chain(FIVE).replace('<link name="link2"/>', f'<link name="link2">{shape}</link>')
    node = make_node(robot=str(write(tmp_path, text)))
    q = np.array([0.3, -0.4, 0.5, 0.6, -0.7])
    pose = pose_message(node.desk.robot.forward(q)[0], "link0")
    for avoid, code in ((False, Codes.SUCCESS), (True, Codes.FAILURE)):
        request = GetIKSolutions.Request(targets=[pose], avoid_self_collision=avoid)
        answer = solutions.answer(node.desk, request, GetIKSolutions.Response())
        assert answer.error_code == code and ("gone.stl" in answer.message) == avoid
    node.destroy_node()
