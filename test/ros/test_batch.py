# SPDX-License-Identifier: Apache-2.0
"""The batch service: what goes in, what comes out, and what is refused."""

import math

import numpy as np
import pytest
import torch
from example_robots import TORSO, TORSO_TIPS
from meanflow_ik_ros.srv import GetIKSolutionsBatch
from oracles import Judge, reachable
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from ros_user import make_node, pose_array
from sensor_msgs.msg import JointState

import meanflow_ik_core as mik
from meanflow_ik_ros.messages.batch_answers import answers_from_response
from meanflow_ik_ros.services import batch

Codes = GetIKSolutionsBatch.Response
OUT_OF_REACH = np.array([3.0, 0.0, 0.5])


pytestmark = pytest.mark.usefixtures("ros")


@pytest.fixture(scope="module")
def torso_node(ros, tmp_path_factory):
    file = tmp_path_factory.mktemp("batch") / "torso.yaml"
    file.write_text(f"urdf: {TORSO}\ntips: [{', '.join(TORSO_TIPS)}]\n")
    node = make_node("torso", robot=str(file))
    yield node
    node.destroy_node()


def rows_of(response, target):
    joints = len(response.joint_names)
    rows = slice(response.offsets[target], response.offsets[target + 1])
    return np.array(response.positions).reshape(-1, joints)[rows], np.array(response.valid)[rows]


def ask(node, **fields) -> GetIKSolutionsBatch.Response:
    return batch.answer(node.desk, GetIKSolutionsBatch.Request(**fields), Codes())


def test_every_row_of_every_target_is_a_solution_by_pinocchio(panda_node):
    robot = panda_node.desk.robot
    targets = reachable(robot, 40)
    response = ask(
        panda_node, targets=pose_array(targets[:, 0], robot.base), max_solutions=8, num_samples=64
    )
    assert response.error_code == Codes.SUCCESS, response.message
    assert response.message == ""
    assert list(response.joint_names) == list(robot.joint_names)
    assert len(response.offsets) == 41
    judge = Judge(robot)
    for index, target in enumerate(targets):
        q, valid = rows_of(response, index)
        assert 1 <= len(q) <= 8 and valid.all()
        for row in q:
            assert judge.accepts(row, target)
    total = response.offsets[-1]
    assert len(response.positions) == 7 * total
    for field in ("position_error", "orientation_error", "distance", "cost", "valid"):
        assert len(getattr(response, field)) == total
    assert max(response.position_error) <= 1e-5 and max(response.orientation_error) <= 1e-5
    assert response.total_time > response.refine_time > 0


def test_a_target_without_a_solution_has_its_nearest_miss_and_is_named(panda_node):
    robot = panda_node.desk.robot
    targets = reachable(robot, 3)
    targets[1, 0, :3, 3] = OUT_OF_REACH
    request = {"targets": pose_array(targets[:, 0], robot.base), "max_solutions": 4}
    response = ask(panda_node, **request)
    assert response.error_code == Codes.SUCCESS
    assert response.message.startswith("1 of 3 targets have no solution: 1 (1: ")
    assert list(response.status) == [Codes.SOLVED, Codes.BEYOND_REACH, Codes.SOLVED]
    q, valid = rows_of(response, 1)
    assert len(q) == 1 and not valid.any()
    reached = Judge(robot).poses(q[0])[0, :3, 3]
    error = response.position_error[response.offsets[1]]
    assert error == pytest.approx(np.linalg.norm(reached - OUT_OF_REACH), abs=1e-9)

    request["targets"] = pose_array(targets[[1, 1], 0], robot.base)
    response = ask(panda_node, **request)
    assert response.error_code == Codes.NO_IK_SOLUTION
    assert list(response.offsets) == [0, 1, 2] and not any(response.valid)


def test_targets_with_fewer_solutions_than_asked_for_are_named_with_the_reason(panda_node):
    robot = panda_node.desk.robot
    targets = pose_array(reachable(robot, 2)[:, 0], robot.base)
    response = ask(panda_node, targets=targets, max_solutions=2000, num_samples=8)
    assert response.error_code == Codes.SUCCESS
    assert list(response.status) == [Codes.FEWER_THAN_ASKED] * 2
    first = response.offsets[1] - response.offsets[0]
    assert response.message.startswith(
        f"2 of 2 targets have fewer than asked for: 0, 1 (0: {first} solutions of the 2000"
    )


def test_the_answers_of_targets_are_what_the_solver_found_for_each(torso_node):
    """Two tips, an unreachable target, and objectives: nothing is of another row or target."""
    robot = torso_node.desk.robot
    targets = reachable(robot, 3)
    targets[1, :, :3, 3] = OUT_OF_REACH
    response = ask(
        torso_node,
        targets=pose_array(targets.reshape(-1, 4, 4), robot.base),
        max_solutions=4,
        objectives=["manipulability", "posture"],
    )
    answers, judge = answers_from_response(response), Judge(robot)
    assert [answer.status for answer in answers] == list(response.status)
    for answer, target in zip(answers, targets, strict=True):
        for row, q in enumerate(answer.joint_positions):
            position, orientation = judge.errors(q, target)
            np.testing.assert_allclose(answer.position_error[row], position, atol=1e-9)
            np.testing.assert_allclose(answer.orientation_error[row], orientation, atol=1e-7)
            assert judge.accepts(q, target) == answer.valid[row]
        assert answer.objective_values.shape == (len(answer.valid), 2)
        assert answer.clearance is None and answer.world_clearance is None
    assert len(answers[1].valid) == 1 and not answers[1].valid.any()
    assert sum(len(answer.cost) for answer in answers) == response.offsets[-1]


def test_an_answer_without_rows_has_none_for_each_target():
    response = Codes(joint_names=["a", "b"], offsets=[0, 0, 0], status=[Codes.TIME_USED_UP] * 2)
    for answer in answers_from_response(response):
        assert answer.joint_positions.shape == (0, 2) and answer.position_error.shape[0] == 0
        assert answer.status == Codes.TIME_USED_UP and answer.objective_values is None


def test_the_numbers_of_status_are_those_of_the_core():
    assert all(getattr(Codes, one.name) == one for one in mik.Status)


def test_targets_that_a_timeout_leaves_out_have_no_rows_and_are_named(panda_node):
    robot = panda_node.desk.robot
    targets = reachable(robot, 400)
    (changed,) = panda_node.set_parameters([Parameter("timeout", value=1e-4)])
    assert changed.successful
    try:
        response = ask(
            panda_node, targets=pose_array(targets[:, 0], robot.base), max_solutions=2,
            num_samples=64,
        )  # fmt: skip
    finally:
        panda_node.set_parameters([Parameter("timeout", value=0.0)])
    assert response.error_code == Codes.SUCCESS
    assert "of 400 targets have no solution: " in response.message
    assert "the time was used up after 0 starts" in response.message
    assert response.status[-1] == GetIKSolutionsBatch.Response.TIME_USED_UP
    count = np.diff(response.offsets)
    assert len(count) == 400 and count[0] == 2 and count[-1] == 0
    assert np.isfinite(response.positions).all()
    judge = Judge(robot)
    for index in np.flatnonzero(count):
        for row, valid in zip(*rows_of(response, index), strict=True):
            assert valid == judge.accepts(row, targets[index])


@pytest.mark.parametrize("links", [[], TORSO_TIPS[::-1]], ids=["own order", "other order"])
def test_several_tips_are_solved_together(torso_node, links):
    robot = torso_node.desk.robot
    targets = reachable(robot, 5)
    sent = targets[:, ::-1] if links else targets
    response = ask(
        torso_node,
        targets=pose_array(sent.reshape(-1, 4, 4), robot.base),
        tip_links=links,
        num_samples=256,
        max_solutions=3,
    )
    assert response.error_code == Codes.SUCCESS, response.message
    judge = Judge(robot)
    for index, target in enumerate(targets):
        for row, valid in zip(*rows_of(response, index), strict=True):
            assert judge.accepts(row, target) == valid
    assert len(response.position_error) == 2 * response.offsets[-1]


def test_a_link_fixed_to_the_tip_reaches_the_target(panda_node):
    robot = panda_node.desk.robot
    targets = reachable(robot, 4)[:, 0]
    hand = mik.load_robot("panda", tips=["panda_hand"])
    _, T_tip_hand = robot.tip_offset("panda_hand")
    response = ask(
        panda_node,
        targets=pose_array(targets @ T_tip_hand, robot.base),
        tip_links=["panda_hand"],
        max_solutions=2,
    )
    assert response.error_code == Codes.SUCCESS, response.message
    for index, target in enumerate(targets @ T_tip_hand):
        for row in rows_of(response, index)[0]:
            assert Judge(hand).accepts(row, target[None])


def test_the_same_seed_gives_the_same_answer(panda_node):
    targets = pose_array(reachable(panda_node.desk.robot, 5)[:, 0], panda_node.desk.robot.base)
    first, second = (ask(panda_node, targets=targets) for _ in range(2))
    assert first.positions == second.positions and first.offsets == second.offsets


def test_a_seed_state_ranks_the_solutions(panda_node):
    robot = panda_node.desk.robot
    q = robot.random_configurations(1, torch.Generator().manual_seed(4)).numpy()
    state = JointState(name=list(robot.joint_names), position=q[0].tolist())
    targets = pose_array(robot.forward(q)[:, 0], robot.base)
    response = ask(panda_node, targets=targets, seed_state=state)
    np.testing.assert_allclose(rows_of(response, 0)[0][0], q[0], atol=1e-4)
    assert list(response.cost) == sorted(response.cost)


def broken_pose(**changes):
    def change(poses):
        for name, value in changes.items():
            part = poses.poses[1].position if name in "xyz" else poses.poses[1].orientation
            setattr(part, name[-1], value)

    return change


@pytest.mark.parametrize(
    ("change", "fields", "code", "words"),
    [
        (broken_pose(x=math.nan), {}, Codes.INVALID_GOAL_CONSTRAINTS, ["pose 1 of 3", "nan"]),
        (broken_pose(qw=9.0), {}, Codes.INVALID_GOAL_CONSTRAINTS, ["pose 1 of 3", "length"]),
        (lambda p: p.poses.clear(), {}, Codes.INVALID_GOAL_CONSTRAINTS, ["0 poses"]),
        (
            lambda p: setattr(p.header, "frame_id", "moon"),
            {},
            Codes.FRAME_TRANSFORM_FAILURE,
            ["moon", "panda_link0"],
        ),
        (None, {"tip_links": ["nose"]}, Codes.INVALID_LINK_NAME, ["nose", "panda_link8"]),
        (
            None,
            {"num_samples": 20_001},
            Codes.INVALID_GOAL_CONSTRAINTS,
            ["20001", "max_num_samples", "20000"],
        ),
        (
            None,
            {"seed_state": JointState(name=["elbow"], position=[0.0])},
            Codes.INVALID_ROBOT_STATE,
            ["elbow"],
        ),
    ],
)
def test_bad_batches_are_refused_with_a_code_and_a_reason(panda_node, change, fields, code, words):
    targets = pose_array(reachable(panda_node.desk.robot, 3)[:, 0], panda_node.desk.robot.base)
    if change is not None:
        change(targets)
    response = ask(panda_node, targets=targets, **fields)
    assert response.error_code == code
    assert all(word in response.message for word in words), response.message
    assert not response.positions and not response.offsets


def test_a_batch_beyond_the_limit_of_starts_is_refused(ros):
    node = make_node(max_batch_samples=100)
    try:
        targets = pose_array(reachable(node.desk.robot, 4)[:, 0], node.desk.robot.base)
        few = {"num_samples": 25, "max_solutions": 25}
        assert ask(node, targets=targets, **few).error_code == Codes.SUCCESS
        for name in few:  # an answer has to fit into memory as well
            response = ask(node, targets=targets, **{**few, name: 26})
            assert response.error_code == Codes.INVALID_GOAL_CONSTRAINTS
            assert "max_batch_samples allows 100" in response.message
    finally:
        node.destroy_node()


def test_a_batch_of_too_many_targets_is_refused(ros):
    node = make_node(max_batch_targets=3)
    try:
        targets = reachable(node.desk.robot, 4)[:, 0]
        few = {"num_samples": 4, "max_solutions": 1}
        response = ask(node, targets=pose_array(targets[:3], node.desk.robot.base), **few)
        assert response.error_code == Codes.SUCCESS
        response = ask(node, targets=pose_array(targets, node.desk.robot.base), **few)
        assert response.error_code == Codes.INVALID_GOAL_CONSTRAINTS
        assert "max_batch_targets allows 3" in response.message
    finally:
        node.destroy_node()


def test_an_odd_number_of_poses_for_two_tips_is_refused(torso_node):
    targets = pose_array(reachable(torso_node.desk.robot, 2).reshape(-1, 4, 4)[:3], "world")
    response = ask(torso_node, targets=targets)
    assert response.error_code == Codes.INVALID_GOAL_CONSTRAINTS
    assert "3 poses" in response.message and "2 tip links" in response.message


def test_the_service_answers_over_ros(panda_node):
    user = Node("batch_user")
    executor = SingleThreadedExecutor()
    executor.add_node(panda_node)
    executor.add_node(user)
    try:
        client = user.create_client(
            GetIKSolutionsBatch,
            "/meanflow_ik/get_ik_solutions_batch",
            qos_profile=QoSProfile(depth=100),
        )
        targets = reachable(panda_node.desk.robot, 10)
        assert client.wait_for_service(60.0)
        future = client.call_async(
            GetIKSolutionsBatch.Request(
                targets=pose_array(targets[:, 0], panda_node.desk.robot.base)
            )
        )
        executor.spin_until_future_complete(future, timeout_sec=60.0)
        response = future.result()
        assert response.error_code == Codes.SUCCESS
        judge = Judge(panda_node.desk.robot)
        assert all(
            judge.accepts(row, target)
            for index, target in enumerate(targets)
            for row in rows_of(response, index)[0]
        )
    finally:
        executor.shutdown()
        user.destroy_node()
