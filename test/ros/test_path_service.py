# SPDX-License-Identifier: Apache-2.0
"""The path service's messages: what is taken from a request, what comes back, what is refused."""

import math

import numpy as np
import pytest
from example_robots import TORSO_TIPS
from meanflow_ik_ros.srv import GetIKPath
from oracles import Judge
from ros_user import pose_array
from sensor_msgs.msg import JointState

import meanflow_ik_core as mik
from meanflow_ik_ros.messages.errors import RequestError, response_from_error
from meanflow_ik_ros.parameters import NodeParameters
from meanflow_ik_ros.services.path import (
    find_path,
    query_from_request,
    response_from_result,
    trajectory_message,
)
from meanflow_ik_ros.topics.frames import Frames

READY = np.array([0.0, -0.4, 0.0, -2.0, 0.0, 1.6, 0.8])
PARAMETERS = NodeParameters(num_samples=64)
Codes = GetIKPath.Response


def line(robot, waypoints=12, metres=0.1) -> np.ndarray:
    """(W, 4, 4) of the first tip, to the side."""
    T_base_tip = np.tile(Judge(robot).poses(READY)[0], (waypoints, 1, 1))
    T_base_tip[:, 1, 3] += np.linspace(0, metres, waypoints)
    return T_base_tip


def state_of(robot, q) -> JointState:
    """The joints in another order than the robot's."""
    return JointState(name=list(robot.joint_names)[::-1], position=np.flip(q).tolist())


def query_of(solver, parameters=PARAMETERS, **fields):
    robot = solver.robot
    if "waypoints" not in fields:
        fields["waypoints"] = pose_array(line(robot), robot.base)
    lookup = Frames(robot).T_base_frame
    current = 0.5 * (robot.lower + robot.upper)
    return query_from_request(GetIKPath.Request(**fields), robot, parameters, lookup, current)


def ask(solver, parameters=PARAMETERS, **fields) -> GetIKPath.Response:
    query = query_of(solver, parameters, **fields)
    result = find_path(solver, query, parameters, 0)
    return response_from_result(query, result, solver.robot, parameters, 0.25)


def positions_of(response) -> np.ndarray:
    return np.array([point.positions for point in response.trajectory.points])


def test_an_empty_request_but_for_waypoints_takes_the_parameters(uniform):
    query = query_of(uniform)
    np.testing.assert_allclose(query.targets[:, 0], line(uniform.robot), atol=1e-12)
    np.testing.assert_allclose(query.T_tip_link, np.eye(4)[None])
    assert query.start_state is None and query.times is None
    assert query.num_samples == 64
    assert query.max_joint_step == PARAMETERS.max_joint_step
    assert query.avoid_self_collision is False


def test_every_field_of_a_request_is_taken(uniform):
    query = query_of(
        uniform,
        start_state=state_of(uniform.robot, READY),
        times=(0.5 + np.arange(12)).tolist(),
        num_samples=17,
        max_joint_step=0.25,
        avoid_self_collision=True,
    )
    assert query.start_state is not None and query.times is not None
    np.testing.assert_allclose(query.start_state, READY)
    np.testing.assert_allclose(query.times, 0.5 + np.arange(12))
    assert (query.num_samples, query.max_joint_step) == (17, 0.25)
    assert query.avoid_self_collision is True


def test_the_trajectory_passes_every_waypoint_at_its_time(uniform):
    robot = uniform.robot
    times = 1.25 + 0.5 * np.arange(12)
    response = ask(uniform, start_state=state_of(robot, READY), times=times.tolist())
    assert response.error_code == Codes.SUCCESS, response.message
    assert response.message == "" and response.failed_waypoint == -1
    assert response.total_time == 0.25
    trajectory = response.trajectory
    assert list(trajectory.joint_names) == list(robot.joint_names)
    assert trajectory.header.frame_id == robot.base
    assert (trajectory.header.stamp.sec, trajectory.header.stamp.nanosec) == (0, 0)
    q, judge = positions_of(response), Judge(robot)
    for row, pose in zip(q, line(robot), strict=True):
        assert judge.accepts(row, pose[None])
    np.testing.assert_allclose(q[0], READY, atol=1e-5)
    assert response.largest_step == pytest.approx(np.abs(np.diff(q, axis=0)).max())
    stamps = [point.time_from_start for point in trajectory.points]
    np.testing.assert_allclose([stamp.sec + 1e-9 * stamp.nanosec for stamp in stamps], times)


def test_without_times_the_points_have_none(uniform):
    response = ask(uniform)
    assert response.error_code == Codes.SUCCESS, response.message
    for point in response.trajectory.points:
        assert (point.time_from_start.sec, point.time_from_start.nanosec) == (0, 0)


@pytest.mark.parametrize(
    ("seconds", "sec", "nanosec"),
    [(0.0, 0, 0), (1.999999999, 1, 999_999_999), (2.9999999999, 3, 0), (0.1, 0, 100_000_000)],
)
def test_times_are_rounded_to_nanoseconds(uniform, seconds, sec, nanosec):
    message = trajectory_message(READY[None], np.array([seconds]), uniform.robot)
    stamp = next(iter(message.points)).time_from_start
    assert (stamp.sec, stamp.nanosec) == (sec, nanosec)


@pytest.mark.parametrize("links", [[], TORSO_TIPS[::-1]], ids=["own order", "other order"])
def test_several_tips_come_tip_by_tip(torso_solver, links):
    robot, judge = torso_solver.robot, Judge(torso_solver.robot)
    a = 0.5 * (robot.lower + robot.upper)
    q = a + np.linspace(0, 0.2, 8)[:, None] * (robot.upper - a)
    targets = np.stack([judge.poses(row) for row in q])
    sent = targets[:, ::-1] if links else targets
    response = ask(
        torso_solver,
        waypoints=pose_array(sent.reshape(-1, 4, 4), robot.base),
        tip_links=links,
        num_samples=512,
    )
    assert response.error_code == Codes.SUCCESS, response.message
    for row, pose in zip(positions_of(response), targets, strict=True):
        assert judge.accepts(row, pose)


def test_a_link_fixed_to_the_tip_goes_through_the_waypoints(uniform):
    hand = mik.load_robot("panda", tips=["panda_hand"])
    waypoints = np.tile(Judge(hand).poses(READY)[0], (6, 1, 1))
    waypoints[:, 1, 3] += np.linspace(0, 0.05, 6)
    response = ask(
        uniform,
        waypoints=pose_array(waypoints, uniform.robot.base),
        tip_links=["panda_hand"],
    )
    assert response.error_code == Codes.SUCCESS, response.message
    judge = Judge(hand)
    for row, pose in zip(positions_of(response), waypoints, strict=True):
        assert judge.accepts(row, pose[None])


def test_waypoints_of_a_tool_may_leave_its_orientation_open(uniform):
    robot, judge = uniform.robot, Judge(uniform.robot)
    T_base_tool = np.tile(judge.link(READY, "panda_hand_tcp").homogeneous, (12, 1, 1))
    T_base_tool[:, 1, 3] += np.linspace(0, 0.1, 12)
    response = ask(
        uniform,
        waypoints=pose_array(T_base_tool, robot.base),
        tip_links=["panda_hand_tcp"],
        free_axes=["rx ry rz"],
        start_state=JointState(name=["finger", "panda_joint2"], position=[0.0, -0.4]),
    )
    assert response.error_code == Codes.SUCCESS, response.message
    turned = 0.0
    for q, T in zip(positions_of(response), T_base_tool, strict=True):
        reached = judge.link(q, "panda_hand_tcp")
        np.testing.assert_allclose(reached.translation, T[:3, 3], atol=1e-5)
        turned = max(turned, np.abs(reached.rotation - T[:3, :3]).max())
    assert turned > 1e-3


def test_a_continuous_joint_goes_on_in_the_turn_that_it_is_in(torso_solver):
    robot, judge = torso_solver.robot, Judge(torso_solver.robot)
    start = 0.5 * (robot.lower + robot.upper)
    start[1] = 7.0
    q = np.tile(start, (10, 1))
    q[:, 1] += np.linspace(0, 0.5, 10)
    targets = np.stack([judge.poses(row) for row in q])
    response = ask(
        torso_solver,
        waypoints=pose_array(targets.reshape(-1, 4, 4), robot.base),
        start_state=state_of(robot, start),
    )
    assert response.error_code == Codes.SUCCESS, response.message
    np.testing.assert_allclose(positions_of(response)[:, 1], q[:, 1], atol=1e-2)


def test_a_path_that_breaks_is_named_and_has_no_trajectory(uniform):
    waypoints = line(uniform.robot)
    waypoints[5, 0, 3] += 3.0
    response = ask(uniform, waypoints=pose_array(waypoints, uniform.robot.base))
    assert response.error_code == Codes.NO_IK_SOLUTION
    assert response.failed_waypoint == 5 and "waypoint 5" in response.message
    assert not response.trajectory.points and not response.trajectory.joint_names
    assert 0 < response.largest_step < 0.5


def broken(**changes):
    def change(poses):
        for name, value in changes.items():
            part = poses.poses[2].position if name in "xyz" else poses.poses[2].orientation
            setattr(part, name[-1], value)

    return change


@pytest.mark.parametrize(
    ("change", "fields", "code", "words"),
    [
        (broken(x=math.nan), {}, Codes.INVALID_GOAL_CONSTRAINTS, ["pose 2 of 12", "nan"]),
        (broken(qw=9.0), {}, Codes.INVALID_GOAL_CONSTRAINTS, ["pose 2 of 12", "length"]),
        (lambda p: p.poses.clear(), {}, Codes.INVALID_GOAL_CONSTRAINTS, ["0 poses"]),
        (
            lambda p: setattr(p.header, "frame_id", "moon"),
            {},
            Codes.FRAME_TRANSFORM_FAILURE,
            ["moon", "panda_link0"],
        ),
        (None, {"tip_links": ["nose"]}, Codes.INVALID_LINK_NAME, ["nose", "panda_link8"]),
        (None, {"num_samples": 20_001}, Codes.INVALID_GOAL_CONSTRAINTS, ["20001", "20000"]),
        (
            None,
            {"start_state": JointState(name=["elbow"], position=[0.0])},
            Codes.INVALID_ROBOT_STATE,
            ["start_state", "elbow"],
        ),
        (None, {"times": [0.0, 1.0]}, Codes.INVALID_GOAL_CONSTRAINTS, ["(2,)", "12 waypoints"]),
        (None, {"times": [1.0] * 12}, Codes.INVALID_GOAL_CONSTRAINTS, ["rising"]),
        (None, {"times": [math.nan] * 12}, Codes.INVALID_GOAL_CONSTRAINTS, ["nan"]),
        (None, {"times": [*range(11), 1e12]}, Codes.INVALID_GOAL_CONSTRAINTS, ["1e+12"]),
        (None, {"max_joint_step": -1.0}, Codes.INVALID_GOAL_CONSTRAINTS, ["max_joint_step", "-1"]),
        (
            None,
            {"max_joint_step": math.nan},
            Codes.INVALID_GOAL_CONSTRAINTS,
            ["max_joint_step", "nan"],
        ),
    ],
)
def test_bad_requests_are_refused_with_a_code_and_a_reason(uniform, change, fields, code, words):
    waypoints = pose_array(line(uniform.robot), uniform.robot.base)
    if change is not None:
        change(waypoints)
    with pytest.raises(RequestError) as refusal:
        ask(uniform, waypoints=waypoints, **fields)
    response = response_from_error(refusal.value, GetIKPath.Response())
    assert response.error_code == code
    assert all(word in response.message for word in words), response.message
    assert response.failed_waypoint == -1 and not response.trajectory.points


def test_more_starts_together_than_the_node_allows_are_refused(uniform):
    parameters = NodeParameters(max_batch_samples=12 * 64 - 1, num_samples=64)
    with pytest.raises(RequestError, match="max_batch_samples"):
        query_of(uniform, parameters)
    assert query_of(uniform, parameters, num_samples=63).num_samples == 63


def test_more_waypoints_than_the_node_allows_are_refused(uniform):
    with pytest.raises(RequestError, match=r"12 targets.*max_batch_targets allows 11"):
        query_of(uniform, NodeParameters(max_batch_targets=11))


def test_a_path_that_begins_elsewhere_says_so(uniform):
    near, far = state_of(uniform.robot, READY), state_of(uniform.robot, READY + 0.2)
    for start, words in ((near, ""), (far, "away from the start state in panda_joint")):
        query = query_of(uniform, PARAMETERS, start_state=start)
        result = find_path(uniform, query, PARAMETERS, seed=0)
        response = response_from_result(query, result, uniform.robot, PARAMETERS, 0.0)
        assert response.error_code == Codes.SUCCESS
        assert (words in response.message) if words else response.message == ""
