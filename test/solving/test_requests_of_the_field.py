# SPDX-License-Identifier: Apache-2.0
"""Requests as they are found: loose tolerances, joint states, rounded poses, wrong types."""

import logging
import time

import numpy as np
import pinocchio as pin
import pytest
from chains import FIVE, SIX, chain, write
from oracles import Judge, reachable

import meanflow_ik_core as mik
from meanflow_ik_core.solving import inputs


@pytest.fixture(scope="module")
def five(tmp_path_factory) -> mik.IKSolver:
    path = write(tmp_path_factory.mktemp("five"), chain(FIVE))
    return mik.load_solver(mik.load_robot(path), sampler="uniform")


def moved(T: np.ndarray, angle: float, metres: float, seed: int) -> np.ndarray:
    """A pose turned about a random axis and shifted in a random direction."""
    axis, shift = np.random.default_rng(seed).normal(size=(2, 3))
    result = T.copy()
    result[:3, :3] = T[:3, :3] @ pin.exp3(angle * axis / np.linalg.norm(axis))
    result[:3, 3] += metres * shift / np.linalg.norm(shift)
    return result


@pytest.mark.parametrize(
    ("metres", "radians", "shift", "angle"),
    [(1e-3, 0.35, 0, 0.3), (1e-2, 0.1, 0.009, 0.09), (1e-5, 1e-3, 0, 9e-4), (1e-2, 1e-5, 9e-3, 0)],
)
@pytest.mark.parametrize("seeded", [True, False])
def test_what_lies_within_the_tolerances_is_a_solution(five, metres, radians, shift, angle, seeded):
    """For an arm of five joints, to which no exact one exists."""
    robot, judge = five.robot, Judge(five.robot)
    for k in range(30):
        unit = 0.1 + 0.8 * np.random.default_rng(k).random(5)
        q = robot.lower + unit * (robot.upper - robot.lower)
        target = moved(judge.poses(q)[0], angle, shift, k)
        for max_solutions in (1, 16):
            result = five.solve(
                target[None], max_solutions=max_solutions, seed=k,
                seed_state=q if seeded else None,
                position_tolerance=metres, orientation_tolerance=radians,
            )  # fmt: skip
            assert result.valid.any()
            for row in result.joint_positions[result.valid]:
                position, rotation = judge.errors(row, target[None])
                assert position[0] <= metres * (1 + 1e-9) and rotation[0] <= radians * (1 + 1e-9)
                assert robot.within_limits(row)


@pytest.mark.parametrize("options", [{}, {"timeout": 1.0}])
def test_a_seed_within_the_tolerances_is_a_solution_where_no_step_finds_one(five, options):
    """Position and orientation that differ by 20,000 in their tolerances: steps may end outside."""
    rng, judge = np.random.default_rng(0), Judge(five.robot)
    tolerances = {"position_tolerance": 1e-5, "orientation_tolerance": 2.5}
    for k in range(100):
        q = rng.uniform(-2.4, 2.4, 5)
        target = moved(judge.poses(q)[0], 2.4, 0.0, k)
        result = five.solve(
            target[None], seed_state=q, seed=0, max_solutions=1, max_rounds=1, **tolerances,
            **options,
        )  # fmt: skip
        assert result.valid.all()
        position, rotation = judge.errors(result.joint_positions[0, 0], target[None])
        assert position[0] <= 1e-5 and rotation[0] <= 2.5


def test_exact_solutions_stay_exact_within_loose_tolerances(uniform):
    targets = reachable(uniform.robot, 10, 4)
    loose = {"position_tolerance": 1e-3, "orientation_tolerance": 0.05}
    result = uniform.solve(targets, seed=0, max_solutions=8, **loose)
    assert result.valid.all()
    assert result.position_error.max() < 1e-8 and result.orientation_error.max() < 1e-8


def test_a_target_outside_of_the_tolerances_has_no_solution(five):
    target = moved(reachable(five.robot, 1, 0)[0, 0], 0.0, 3.0, 0)
    result = five.solve(target[None], seed=0, position_tolerance=0.05, orientation_tolerance=0.5)
    assert not result.valid.any()


@pytest.fixture(scope="module")
def turning(tmp_path_factory) -> mik.IKSolver:
    kinds = {"j1": "continuous", "j4": "continuous"}
    path = write(tmp_path_factory.mktemp("six"), chain(SIX, kinds=kinds))
    return mik.load_solver(mik.load_robot(path), sampler="uniform")


@pytest.mark.parametrize("options", [{}, {"timeout": 5.0}, {"objectives": ["posture"]}])
@pytest.mark.parametrize("turns", [0, 1, -3])
def test_continuous_joints_are_on_the_turn_of_the_seed(turning, options, turns):
    judge = Judge(turning.robot)
    seed_state = np.array([3.1, 0.3, 0.4, 3.0, 0.6, 0.1])
    seed_state[[0, 3]] += 2 * np.pi * turns
    wanted = seed_state + np.array([0.1, 0, 0, 0.2, 0, 0.02])
    targets = judge.poses(wanted)[None]
    result = turning.solve(targets, seed_state=seed_state, seed=0, max_solutions=4, **options)
    q = result.joint_positions[0][result.valid[0]]
    assert (np.abs(q - seed_state)[:, [0, 3]] <= np.pi + 1e-9).all()
    np.testing.assert_allclose(q[0], wanted, atol=1e-4)
    np.testing.assert_allclose(
        result.distance[result.valid], np.linalg.norm(q - seed_state, axis=1), atol=1e-9
    )
    assert all(judge.accepts(row, targets[0]) for row in q)


def test_without_a_seed_continuous_joints_are_within_a_turn(turning):
    result = turning.solve(reachable(turning.robot, 5, 0), seed=0)
    q = result.joint_positions[result.valid]
    assert (np.abs(q[:, turning.robot.continuous]) <= np.pi).all()


@pytest.mark.parametrize("beyond", [2e-6, 0.04])
def test_a_seed_a_little_outside_a_limit_is_clipped(uniform, beyond):
    seed_state = np.array([0.0, -0.4, 0.0, -2.0, 0.0, uniform.robot.upper[5] + beyond, 0.8])
    at_limit = uniform.robot.clipped(seed_state)
    targets = reachable(uniform.robot, 3, 0)
    result = uniform.solve(targets, seed_state=seed_state, seed=0)
    clipped = uniform.solve(targets, seed_state=at_limit, seed=0)
    np.testing.assert_array_equal(result.joint_positions, clipped.joint_positions)
    np.testing.assert_array_equal(result.distance, clipped.distance)


@pytest.mark.parametrize("decimals", [3, 4, 5])
def test_a_rounded_pose_is_made_rigid_and_that_is_said_once(uniform, caplog, decimals):
    inputs._say_that_poses_are_rounded.cache_clear()
    exact = reachable(uniform.robot, 3, 1)
    rounded = np.round(exact, decimals)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            result = uniform.solve(rounded, seed=0, max_solutions=2)
    assert caplog.text.count("rounded") == (decimals < 5)
    for target, own in zip(rounded, result.joint_positions, strict=True):
        u, _, vt = np.linalg.svd(target[0, :3, :3])
        rigid = target.copy()
        rigid[0, :3, :3] = u @ vt
        assert Judge(uniform.robot).accepts(own[0], rigid)


def test_a_pose_rounded_to_two_decimals_is_refused(uniform):
    with pytest.raises(mik.TargetError, match=r"allowed 0.001"):
        uniform.solve(np.round(reachable(uniform.robot, 1, 1), 2))


T = np.eye(4)[None]


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda s: s.solve(T.astype(complex)), mik.TargetError, "complex"),
        (lambda s: s.solve(T, avoid_self_collision=np.ones(2)), mik.OptionError, "True or False"),
        (lambda s: s.solve(T, recombining="no"), mik.OptionError, "recombining is 'no'"),
        (lambda s: s.solve(T, approximate=1), mik.OptionError, "approximate is 1"),
        (lambda s: s.solve(T, refinement=[]), mik.OptionError, "refinement"),
        (lambda s: s.solve(T, max_solutions=10**12), mik.OptionError, "max_solutions"),
        (lambda s: s.solve(T, tips=[3]), mik.LinkError, "3"),
        (lambda s: s.solve(T, tips=["panda_link3"]), mik.LinkError, "panda_link3"),
        (lambda s: s.solve(T, seed_state="x"), mik.SeedError, "numbers"),
        (lambda s: s.robot.forward("x"), mik.RobotError, "7 joints"),
        (lambda s: s.robot.forward(["x"] * 7), mik.RobotError, "numbers"),
        (lambda s: s.robot.jacobian([[0.0], [0.0, 1.0]]), mik.RobotError, "numbers"),
        (lambda s: s.robot.tip_offset(3), mik.LinkError, "3"),
        (lambda s: s.robot.base_offset([]), mik.LinkError, r"\[\]"),
        (lambda s: mik.read_objectives([], s.robot), mik.OptionError, "path"),
        (
            lambda s: mik.solve_path(s, T, avoid_self_collision=np.array([1, 2])),
            mik.OptionError, "True or False",
        ),
    ],
)  # fmt: skip
def test_a_wrong_type_is_an_error_that_says_what_came(uniform, call, error, words):
    with pytest.raises(error, match=words):
        call(uniform)


def test_limits_are_asked_of_tensors_too(uniform):
    torch = pytest.importorskip("torch")
    q = torch.tensor(np.stack((uniform.robot.lower, uniform.robot.upper + 1)))
    np.testing.assert_array_equal(uniform.robot.within_limits(q), [True, False])


@pytest.mark.parametrize(
    "options",
    [
        {"refinement": "adam"},
        {"objectives": ["clearance"], "guidance_choices": 64},
        {"objectives": ["manipulability"], "guidance_steps": 5},
    ],
)
@pytest.mark.parametrize("count", [1, 100])
def test_a_short_timeout_is_kept_where_starts_are_dear(learned, options, count):
    """By the time of this thread's work; the least of some, for others work here as well."""
    targets = np.repeat(reachable(learned.robot, 1, 3), count, 0)
    spent = []
    for _ in range(4):
        began = time.thread_time()
        learned.solve(targets, timeout=0.02, max_solutions=64, **options)
        spent.append(time.thread_time() - began)
    assert min(spent) < 0.035


@pytest.mark.parametrize("options", [{}, {"avoid_self_collision": True}, {"max_solutions": 1}])
def test_the_nearest_configuration_is_an_answer_where_it_is_asked_for(uniform, options):
    robot, judge = uniform.robot, Judge(uniform.robot)
    targets = reachable(robot, 3, 2)
    targets[1:, 0, 2, 3] += 3.0
    options = {"seed": 0, "seed_state": np.array([0, -0.4, 0, -2, 0, 1.6, 0.8]), **options}
    plain = uniform.solve(targets, **options)
    result = uniform.solve(targets, approximate=True, **options)
    assert plain.approximate is None and not result.valid[1:].any()
    assert result.approximate[:, 0].tolist() == [False, True, True]
    assert not result.approximate[:, 1:].any()
    np.testing.assert_array_equal(result.joint_positions[0], plain.joint_positions[0])
    for b in (1, 2):
        q = result.joint_positions[b, 0]
        errors = judge.errors(q, targets[b])
        np.testing.assert_allclose(errors[0], result.position_error[b, 0], atol=1e-12)
        np.testing.assert_allclose(errors[1], result.orientation_error[b, 0], atol=1e-8)
        assert robot.within_limits(q)
        best = (plain.position_error[b] + plain.orientation_error[b]).min()
        assert errors[0][0] + errors[1][0] <= best + 1e-9


def test_a_point_of_a_tool_may_have_a_free_orientation(learned):
    judge = Judge(learned.robot)
    q = np.array([0.0, -0.4, 0.0, -2.0, 0.0, 1.6, 0.8])
    target = judge.link(q, "panda_hand_tcp").homogeneous
    free = {"panda_hand_tcp": "rx ry rz"}
    result = learned.solve(target[None], tips=["panda_hand_tcp"], free_axes=free, seed=0)
    assert result.valid.all() and set(result.origin.ravel().tolist()) == {"uniform"}
    poses = [judge.link(row, "panda_hand_tcp") for row in result.joint_positions[0]]
    for pose in poses:
        np.testing.assert_allclose(pose.translation, target[:3, 3], atol=1e-5)
    assert np.ptp([pose.rotation[0, 0] for pose in poses]) > 0.5
    complete = learned.solve(target[None], tips=["panda_hand_tcp"], seed=0)
    assert set(complete.origin.ravel().tolist()) == {"meanflow"}
    for row in complete.joint_positions[0]:
        np.testing.assert_allclose(judge.link(row, "panda_hand_tcp").homogeneous, target, atol=1e-5)


def test_two_frames_of_one_tip_are_refused(uniform):
    targets = np.tile(np.eye(4), (1, 2, 1, 1))
    with pytest.raises(mik.LinkError, match="tip 'panda_link8' is named twice"):
        uniform.solve(targets, tips=["panda_hand_tcp", "panda_hand"])


def test_a_path_of_a_point_may_turn(uniform):
    judge = Judge(uniform.robot)
    q = np.array([0.0, -0.4, 0.0, -2.0, 0.0, 1.6, 0.8])
    waypoints = np.tile(judge.link(q, "panda_hand_tcp").homogeneous, (10, 1, 1))
    waypoints[:, 0, 3] += np.linspace(0, 0.1, 10)
    path = mik.solve_path(
        uniform, waypoints, q, tips=["panda_hand_tcp"],
        free_axes={"panda_hand_tcp": "rx ry rz"}, seed=0,
    )  # fmt: skip
    assert path.valid, path.message
    whole = mik.solve_path(uniform, waypoints, q, tips=["panda_hand_tcp"], seed=0)
    assert whole.valid and path.largest_step < whole.largest_step
    for row, target in zip(path.joint_positions, waypoints, strict=True):
        reached = judge.link(row, "panda_hand_tcp")
        np.testing.assert_allclose(reached.translation, target[:3, 3], atol=1e-5)
