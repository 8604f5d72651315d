# SPDX-License-Identifier: Apache-2.0
"""The running node of an arm that stands beside joints which it does not solve for."""

import numpy as np
import pytest
from meanflow_ik_ros.msg import AttachedWorldObject
from meanflow_ik_ros.srv import GetIKSolutions
from oracles import Judge
from ros_user import Q, make_node, pose_array, spun
from sensor_msgs.msg import JointState
from test_world_node import Client, rows, stamped
from world_messages import box

import meanflow_ik_core as mik

Codes = GetIKSolutions.Response


def say_joints(client, node, **positions):
    """Publish joint_states and wait until the node has heard them."""
    states = client.node.create_publisher(JointState, "/joint_states", 10)
    client.wait(lambda: states.get_subscription_count() > 0, "a listener")
    message = JointState(name=list(positions), position=list(map(float, positions.values())))
    states.publish(message)
    state = node.desk.current_state
    client.wait(lambda: positions.items() <= {**state.others, **solved(node)}.items(), "joints")
    client.node.destroy_publisher(states)


def solved(node) -> dict[str, float]:
    return dict(zip(node.desk.robot.joint_names, node.desk.current_state.q.tolist(), strict=True))


@pytest.fixture(scope="module")
def both():
    return mik.load_solver("dual_panda", sampler="uniform")


@pytest.fixture
def left(ros, both):
    """The node of the left arm alone, and its client."""
    node = make_node(
        robot=str(both.robot.urdf_path), base_frame="base", tip_link="left_panda_link8",
        max_solutions=16,
    )  # fmt: skip
    with spun(node):
        client = Client()
        yield node, client
        client.close()
    node.destroy_node()


@pytest.fixture(scope="module")
def in_the_way(both) -> tuple[np.ndarray, np.ndarray]:
    """A configuration of the left arm, and one of the right arm that touches it wherever it
    reaches the same pose."""
    robot, rng = both.robot, np.random.default_rng(0)
    for q in robot.random_configurations(2000, rng):
        if not both.self_collision.in_collision(q):
            continue
        alone = mik.load_robot(robot.urdf_path, base="base", tips=["left_panda_link8"])
        world = mik.World(alone)
        world.hold(dict(zip(robot.joint_names[7:], q[7:], strict=True)))
        solver = mik.load_solver(alone, sampler="uniform")
        found = solver.solve(
            alone.forward(q[:7])[None], 64, 16, seed=0, avoid_self_collision=True, world=world
        )
        free = solver.solve(alone.forward(q[:7])[None], 64, 16, seed=0, avoid_self_collision=True)
        if free.valid.all() and not found.valid.any():
            return q[:7], q[7:]
    raise AssertionError("no such pair was found")


def test_self_collision_is_with_joints_where_joint_states_has_them(left, both, in_the_way):
    node, client = left
    q, other = in_the_way
    target = Judge(node.desk.robot).poses(q)
    asked = stamped(target, "base")
    ask = {"avoid_self_collision": True}
    say_joints(client, node, **dict(zip(both.robot.joint_names[7:], other, strict=True)))
    for avoid_world in (True, False):
        ask["avoid_world"] = avoid_world
        answer = client.call("get_ik_solutions", targets=asked, **ask)
        assert answer.error_code == Codes.NO_IK_SOLUTION and "touches the robot" in answer.message
        batch = client.call("get_ik_solutions_batch", targets=pose_array(target, "base"), **ask)
        assert not any(batch.valid)
        path = client.call("get_ik_path", waypoints=pose_array(target[[0, 0]], "base"), **ask)
        assert path.error_code == Codes.NO_IK_SOLUTION and not path.trajectory.points
    away = dict.fromkeys(both.robot.joint_names[7:], 0.0)
    away |= {"right_panda_joint4": -1.5, "right_panda_joint6": 1.6}
    say_joints(client, node, **away)
    answer = client.call("get_ik_solutions", targets=asked, **ask)
    found = rows(answer)
    assert answer.error_code == Codes.SUCCESS and len(found)
    whole = np.concatenate([found, np.tile(list(away.values()), (len(found), 1))], 1)
    assert not both.self_collision.in_collision(whole).any()


def test_links_stand_where_joints_between_them_do(running, panda):
    client = Client()
    try:
        say_joints(client, running, **dict(zip(panda.joint_names, Q, strict=True)))
        target = stamped(panda.forward(Q))
        finger = {"targets": target, "tip_links": ["panda_leftfinger"]}
        say_joints(client, running, panda_finger_joint1=0.04)
        assert client.call("get_ik_solutions", **finger).error_code == Codes.SUCCESS
        say_joints(client, running, panda_finger_joint1=0.0)
        answer = client.call("get_ik_solutions", **finger)
        assert answer.error_code == Codes.INVALID_LINK_NAME
        assert "say that panda_finger_joint1 is at 0" in answer.message
        pin = box("pin", (0.01, 0.01, 0.01), (0.0, 0.0, 0.0), "panda_leftfinger")
        attached = AttachedWorldObject(link_name="panda_hand", object=pin)
        assert client.call("apply_world", attached_objects=[attached], is_diff=True).error_code == 1
        (held,) = client.call("get_world").attached_objects
        assert abs(held.object.pose.position.y) < 1e-9  # 0.04 where the finger is open
    finally:
        client.call("apply_world")
        say_joints(client, running, panda_finger_joint1=0.04)
        client.close()


def test_a_batch_with_objectives_is_answered_the_same_every_time(running, panda):
    client = Client()
    targets = pose_array(
        panda.forward(panda.random_configurations(40, np.random.default_rng(1)))[:, 0], panda.base
    )
    try:
        answers = [
            client.call("get_ik_solutions_batch", targets=targets, objectives=["joint_limits"])
            for _ in range(3)
        ]
    finally:
        client.close()
    assert answers[0].error_code == Codes.SUCCESS
    for other in answers[1:]:
        assert list(other.positions) == list(answers[0].positions)
