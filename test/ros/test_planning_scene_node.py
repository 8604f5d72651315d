# SPDX-License-Identifier: Apache-2.0
"""The running node follows MoveIt's planning scene over real ROS, where moveit_msgs is there."""

import numpy as np
import pytest
from geometry_msgs.msg import PoseStamped
from meanflow_ik_ros.srv import GetIKSolutions
from moveit_messages import HAS_MOVEIT, MOVE, Messages
from oracles import Judge
from rclpy.executors import MultiThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.node import Node
from ros_user import Q, make_node, pose_array, wait_until
from sensor_msgs.msg import JointState
from world_messages import pose_at

import meanflow_ik_core as mik
from meanflow_ik_ros.parameters import SCENE_TOPICS

Codes = GetIKSolutions.Response
pytestmark = pytest.mark.skipif(
    not HAS_MOVEIT,
    reason="moveit_msgs is not installed, so that the node hears of no planning scene; "
    "test_planning_scene.py tests what it does with one",
)
SMALL = (0.1, 0.1, 0.1)


class MoveGroup:
    """Publishes a scene and answers for it as move_group does, and asks for IK."""

    def __init__(self, scene):
        from moveit_msgs import msg
        from moveit_msgs.srv import GetPlanningScene, GetPositionIK

        self.messages = Messages(True)
        self.scene, self.asked = scene(self.messages), 0
        self.node = Node("move_group")
        self.executor = MultiThreadedExecutor(2)
        self.executor.add_node(self.node)
        self.publishers = {
            topic: self.node.create_publisher(getattr(msg, kind), topic, 100)
            for topic, kind in SCENE_TOPICS.items()
        }
        self.states = self.node.create_publisher(JointState, "joint_states", 100)
        self.kind = GetPlanningScene
        self.service = None
        self.ik_kind = GetPositionIK
        self.ik = self.node.create_client(GetPositionIK, "/meanflow_ik/solve_ik")

    def serve(self):
        self.service = self.node.create_service(self.kind, "get_planning_scene", self.answer)

    def answer(self, request, response):
        self.asked += 1
        response.scene = self.scene
        return response

    def solve(self, pose, avoid_collisions=True, attached=()):
        request = self.ik_kind.Request()
        array = pose_array(pose, "panda_link0")
        request.ik_request.pose_stamped = PoseStamped(header=array.header, pose=array.poses[0])
        request.ik_request.avoid_collisions = avoid_collisions
        request.ik_request.robot_state.attached_collision_objects = list(attached)
        future = self.ik.call_async(request)
        wait_until(self.executor, future.done, "solve_ik")
        return future.result()

    def close(self):
        self.executor.shutdown()
        self.node.destroy_node()


@pytest.fixture
def both(ros):
    """A node that is active before move_group has its service, and that."""
    node = make_node()
    group = MoveGroup(lambda m: m.scene(m.box("table", SMALL, (1, 0, 0.2)), diff=False))
    group.executor.add_node(node)
    for publisher in [*group.publishers.values(), group.states]:
        wait_until(group.executor, lambda p=publisher: p.get_subscription_count() == 1, "topics")
    yield node, group
    group.executor.remove_node(node)
    node.destroy_node()
    group.close()


def ids(node) -> list:
    return list(node.desk.world.content.objects)


def test_the_scene_is_asked_for_and_followed_on_every_topic(both):
    node, group = both
    assert ids(node) == []
    group.serve()
    wait_until(group.executor, lambda: ids(node) == ["table"], "the scene of the service")
    make, publish = group.messages, group.publishers
    publish["monitored_planning_scene"].publish(make.scene(make.box("a", SMALL, (1, 0, 1))))
    publish["planning_scene"].publish(make.scene(make.box("b", SMALL, (1, 0, 1))))
    publish["collision_object"].publish(make.box("c", SMALL, (1, 0, 1)))
    can = make.box("can", SMALL, (0, 0, 0.1), "panda_hand")
    publish["attached_collision_object"].publish(make.attached("panda_hand", can))
    wait_until(
        group.executor, lambda: set(ids(node)) == {"table", "a", "b", "c", "can"}, "the topics"
    )
    assert node.desk.world.content.objects["can"].link == "panda_hand"
    publish["planning_scene_world"].publish(make.scene(make.box("d", SMALL, (1, 0, 1))).world)
    wait_until(group.executor, lambda: set(ids(node)) == {"can", "d"}, "planning_scene_world")
    assert group.asked == 1
    # Once the node is active again, it asks anew.
    assert node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    wait_until(group.executor, looked(node), "a look while it is not active")
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    wait_until(group.executor, lambda: ids(node) == ["table"], "the scene once more")


def looked(node):
    """Whether the node has seen that it is not active."""
    (topics,) = [part.__self__ for part in node._close if is_scene(part)]
    return lambda: not topics._answered


def is_scene(close) -> bool:
    return type(getattr(close, "__self__", None)).__name__ == "PlanningSceneTopics"


def test_avoid_collisions_is_about_the_scene_and_tells_its_codes(both):
    node, group = both
    make, publish = group.messages, group.publishers["collision_object"]
    world, pose = node.desk.world, Judge(mik.load_robot("panda")).poses(Q)
    block = make.box("block", (0.3, 0.3, 0.3), tuple(pose[0, :3, 3]))
    publish.publish(block)
    wait_until(group.executor, lambda: ids(node) == ["block"], "the block")
    answer = group.solve(pose)
    assert answer.error_code.val == Codes.GOAL_IN_COLLISION and "block" in answer.error_code.message
    assert group.solve(pose, avoid_collisions=False).error_code.val == Codes.SUCCESS

    post = make.box("block", (0.06, 0.06, 0.9), (0.35, -0.15, 0.45))
    publish.publish(post)
    wait_until(group.executor, lambda: size(node) == (0.06, 0.06, 0.9), "the post")
    answer = group.solve(pose)
    assert answer.error_code.val == Codes.SUCCESS
    q = np.array(answer.solution.joint_state.position[:7])
    assert not node.desk.world.content.world.in_collision(q)

    for message, code in (
        (make.box("cup", SMALL, (1, 0, 1), "moon"), Codes.FRAME_TRANSFORM_FAILURE),
        (make.object("mug", operation=MOVE, pose=pose_at(0, 0, 0)), -19),
        (make.object("jar"), -22),
    ):
        publish.publish(message)
        wait_until(group.executor, lambda: bool(world.content.problems), f"code {code}")
        answer = group.solve(pose)
        assert answer.error_code.val == code and f"'{message.id}'" in answer.error_code.message
        assert group.solve(pose, avoid_collisions=False).error_code.val == Codes.SUCCESS
        publish.publish(make.box(message.id, SMALL, (1, 0, 1)))
        wait_until(group.executor, lambda: not world.content.problems, "it is known again")
    assert group.solve(pose).error_code.val == Codes.SUCCESS


def size(node) -> tuple:
    return node.desk.world.content.world.obstacle("block").shape.sizes


def test_what_could_not_be_taken_is_asked_for_again(both, monkeypatch):
    from meanflow_ik_ros.topics import planning_scene

    monkeypatch.setattr(planning_scene, "ASK_AGAIN_S", 0.2)
    node, group = both
    group.serve()
    wait_until(group.executor, lambda: ids(node) == ["table"], "the scene")
    group.publishers["planning_scene"].publish(
        group.messages.scene(group.messages.object("lost", operation=MOVE))
    )
    wait_until(group.executor, lambda: group.asked > 1, "another question")
    content = node.desk.world
    wait_until(group.executor, lambda: not content.content.problems, "the scene is known")
    assert ids(node) == ["table"]


def test_topics_can_be_left_out_and_unknown_ones_are_refused(ros):
    node = make_node(planning_scene_topics=["/arm/collision_object"], planning_scene_service="")
    topics = {subscription.topic_name for subscription in node.subscriptions}
    clients = {client.srv_name for client in node.clients}
    node.destroy_node()
    assert "/arm/collision_object" in topics and "/planning_scene" not in topics
    assert not any("get_planning_scene" in name for name in clients)


def test_fingers_on_joint_states_count_in_the_next_request(both):
    node, group = both
    robot = mik.load_robot("panda")
    pose = Judge(robot).poses(Q)
    tcp = Judge(robot).link(Q, "panda_hand").homogeneous @ (0, 0, 0.1034, 1)
    ball = group.messages.box("ball", (0.03,) * 3, tuple(tcp[:3]))
    group.publishers["collision_object"].publish(ball)
    wait_until(group.executor, lambda: ids(node) == ["ball"], "the ball")
    assert group.solve(pose).error_code.val == Codes.SUCCESS
    group.states.publish(JointState(name=["panda_finger_joint1"], position=[0.01]))
    state = node.desk.current_state
    wait_until(group.executor, lambda: bool(state.others), "joint_states")
    answer = group.solve(pose)
    assert answer.error_code.val == Codes.GOAL_IN_COLLISION
    assert "finger" in answer.error_code.message


def test_what_a_request_attaches_counts_for_that_request(both):
    node, group = both
    make, pose = group.messages, Judge(mik.load_robot("panda")).poses(Q)
    wall = make.box("wall", (1.0, 1.0, 0.02), tuple(pose[0, :3, 3] - (0, 0, 0.4)))
    group.publishers["collision_object"].publish(wall)
    wait_until(group.executor, lambda: ids(node) == ["wall"], "the wall")
    long = make.box("rod", (0.02, 0.02, 0.8), (0, 0, 0.5), "panda_hand")
    rod = make.attached("panda_hand", long, ("panda_leftfinger", "panda_rightfinger"))
    answer = group.solve(pose, attached=[rod])
    assert answer.error_code.val == Codes.GOAL_IN_COLLISION
    assert "rod and wall" in answer.error_code.message
    assert group.solve(pose).error_code.val == Codes.SUCCESS and ids(node) == ["wall"]
    lost = make.attached("nose", long)
    assert group.solve(pose, attached=[lost]).error_code.val == Codes.INVALID_LINK_NAME
