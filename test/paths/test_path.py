# SPDX-License-Identifier: Apache-2.0
"""Joint paths: exact at every waypoint, steps as small as brute force finds, honest breaks."""

import itertools

import numpy as np
import pytest
import torch
from oracles import Judge

import meanflow_ik_core as mik
from meanflow_ik_core.kernels.banded import solve_banded
from meanflow_ik_core.paths import joint_steps, pieces, search
from meanflow_ik_core.paths.continuation import follow
from meanflow_ik_core.paths.joint_steps import BEYOND, StepLimits, step_limits
from meanflow_ik_core.paths.smoothing import smooth

READY = np.array([0.0, -0.4, 0.0, -2.0, 0.0, 1.6, 0.8])
TOLERANCES = (1e-5, 1e-5)


@pytest.fixture(scope="module", params=["learned", "uniform"])
def solver(request) -> mik.IKSolver:
    return request.getfixturevalue(request.param)


def line(robot, metres, waypoints=100) -> np.ndarray:
    """(W, 1, 4, 4) to the side, the hand as in the ready position."""
    T_base_tip = np.tile(Judge(robot).poses(READY), (waypoints, 1, 1, 1))
    T_base_tip[:, 0, 1, 3] += np.linspace(0, metres, waypoints)
    return T_base_tip


def circle(robot, radius, waypoints=100) -> np.ndarray:
    T_base_tip = np.tile(Judge(robot).poses(READY), (waypoints, 1, 1, 1))
    angle = np.linspace(0, 2 * np.pi, waypoints)
    T_base_tip[:, 0, 1, 3] += radius * np.sin(angle)
    T_base_tip[:, 0, 2, 3] += radius * (np.cos(angle) - 1)
    return T_base_tip


def joint_motion(robot, seed, waypoints=100) -> tuple[np.ndarray, np.ndarray]:
    """A straight motion between random configurations, (W, J), and its poses (W, T, 4, 4)."""
    generator = torch.Generator().manual_seed(seed)
    a, b = robot.random_configurations(2, generator).numpy()
    q = a + np.linspace(0, 1, waypoints)[:, None] * (b - a)
    judge = Judge(robot)
    return q, np.stack([judge.poses(row) for row in q])


def assert_path(robot, result, T_base_tip):
    """Exact, within limits, and reported as it is."""
    judge = Judge(robot)
    count = len(result.joint_positions)
    for q, pose in zip(result.joint_positions, T_base_tip[:count], strict=True):
        assert judge.accepts(q, pose)
    steps = np.abs(np.diff(result.joint_positions, axis=0)).max(initial=0.0)
    assert result.largest_step == pytest.approx(steps, abs=1e-12)
    assert result.position_error.shape == (count, robot.num_tips)
    assert result.position_error.max(initial=0.0) <= 1e-5
    assert result.orientation_error.max(initial=0.0) <= 1e-5
    assert result.valid == (count == len(T_base_tip))
    assert result.failed_waypoint == (-1 if result.valid else count)
    assert bool(result.message) != result.valid
    assert set(result.timing) == {"sample", "follow", "choose", "smooth"}


# -- steps and chains


def brute_force(limits, q, valid):
    """Of all chains: (dearest cost, length) of the best."""
    best = (np.inf, np.inf)
    for chain in itertools.product(range(q.shape[1]), repeat=len(q)):
        rows = q[np.arange(len(q)), chain]
        if not valid[np.arange(len(q)), chain].all():
            continue
        dearest, length = 0.0, 0.0
        for w in range(len(q) - 1):
            delta = np.abs(rows[w + 1] - rows[w])
            turned = np.minimum(delta % (2 * np.pi), 2 * np.pi - delta % (2 * np.pi))
            delta = np.where(limits.continuous, turned, delta)
            share = (delta / limits.allowed[w]).max()
            dearest = max(dearest, delta.max() if share <= 1 else BEYOND * share)
            length += np.sqrt((delta**2).sum())
        best = min(best, (dearest, length))
    return best


@pytest.mark.parametrize("allowed", [np.inf, 2.0, 0.3])
@pytest.mark.parametrize("seed", range(20))
def test_the_chain_is_the_best_of_all(seed, allowed):
    random = np.random.default_rng(seed)
    waypoints, count, joints = 4, 5, 2
    q = random.uniform(-3, 3, (waypoints, count, joints)).round(seed % 3)  # rounded: with ties
    valid = random.random((waypoints, count)) < 0.7
    valid[np.arange(waypoints), random.integers(count, size=waypoints)] = True
    allowed = allowed * random.uniform(0.5, 1.5, (waypoints - 1, joints))
    limits = StepLimits(np.array([False, True]), allowed)
    chosen, dearest = limits.chain(q, valid)
    rows = np.arange(waypoints)
    assert valid[rows, chosen].all()
    steps = limits.along(q[rows, chosen])
    found = limits.costs(steps).max(), np.linalg.norm(steps, axis=-1).sum()
    assert found == pytest.approx(brute_force(limits, q, valid), rel=1e-9, abs=1e-12)
    assert dearest[-1].min() == pytest.approx(found[0])


def test_what_is_said_of_the_way_to_each_candidate_is_the_least():
    random = np.random.default_rng(0)
    q = random.uniform(-3, 3, (4, 4, 2))
    valid = np.ones((4, 4), bool)
    valid[[0, 1, 2, 3], [0, 1, 2, 3]] = False  # so that no column is a path by itself
    limits = StepLimits(np.zeros(2, bool), np.full((3, 2), np.inf))
    _, dearest = limits.chain(q, valid)
    for waypoint, candidate in np.argwhere(valid):
        if waypoint == 0:
            continue
        only = valid[: waypoint + 1].copy()
        only[waypoint] = np.arange(4) == candidate
        expected = brute_force(limits, q[: waypoint + 1], only)[0]
        assert dearest[waypoint, candidate] == pytest.approx(expected)
    assert np.isinf(dearest[~valid]).all()


@pytest.mark.parametrize("seed", range(10))
def test_the_shortest_chain_is_the_shortest_of_all(seed):
    random = np.random.default_rng(seed)
    q = random.uniform(-3, 3, (4, 5, 2))
    valid = random.random((4, 5)) < 0.7
    valid[:, 0] = True
    limits = StepLimits(np.zeros(2, bool), np.full((3, 2), 0.1))
    chosen = limits.shortest_chain(q, valid)
    rows = np.arange(4)
    assert valid[rows, chosen].all()
    lengths = [
        np.linalg.norm(np.diff(q[rows, chain], axis=0), axis=-1).sum()
        for chain in itertools.product(range(5), repeat=4)
        if valid[rows, chain].all()
    ]
    found = np.linalg.norm(np.diff(q[rows, chosen], axis=0), axis=-1).sum()
    assert found == pytest.approx(min(lengths))


@pytest.mark.parametrize("seed", range(3))
def test_chains_are_the_same_whatever_the_parts_of_the_work(seed, monkeypatch):
    random = np.random.default_rng(seed)
    q = random.uniform(-3, 3, (30, 7, 2)).round(1)  # with ties
    valid = random.random((30, 7)) < 0.7
    valid[:, 0] = True
    limits = StepLimits(np.array([False, True]), np.full((29, 2), 0.5))
    whole = *limits.chain(q, valid), limits.shortest_chain(q, valid)
    calls = []

    def between():
        calls.append(1)

    for size in (1, 150, 500):
        monkeypatch.setattr(joint_steps, "_PAIRS_AT_ONCE", size)
        monkeypatch.setattr(joint_steps, "_STEPS_AT_ONCE", size)
        calls.clear()
        parts = *limits.chain(q, valid, between), limits.shortest_chain(q, valid, between)
        assert len(calls) >= 2 * 29 // max(1, size // 49)
        for one, other in zip(parts, whole, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kind", ["plain", "self", "world"])
def test_a_path_is_the_same_whatever_the_parts_of_the_work(uniform, kind, monkeypatch):
    robot = uniform.robot
    along = np.linspace(0, 3, 40)[:, None]
    q = 0.5 * (robot.lower + robot.upper) + 0.6 * np.sin(along + np.arange(7))
    options = {"seed": 1, "avoid_self_collision": kind != "plain"}
    if kind == "world":
        options["world"] = mik.World(robot)
        options["world"].add_box("box", size=(0.2, 0.2, 0.2), xyz=(-0.5, 0.0, 0.5))
    whole = mik.solve_path(uniform, robot.forward(q), **options)
    for module, name in (
        (joint_steps, "_PAIRS_AT_ONCE"), (joint_steps, "_STEPS_AT_ONCE"),
        (pieces, "_STARTS_AT_ONCE"), (pieces, "_CHECKS_AT_ONCE"), (search, "_VALUES_AT_ONCE"),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, 7)
    parts = mik.solve_path(uniform, robot.forward(q), **options)
    assert whole.valid
    np.testing.assert_array_equal(parts.joint_positions, whole.joint_positions)


def test_continuous_joints_go_on_beyond_a_turn_from_the_start():
    limits = StepLimits(np.array([True, False]), np.full((3, 2), np.inf))
    q = np.array([[3.0, 3.0], [-3.0, -3.0], [0.0, 0.0], [3.1, 3.0]])
    turn = 2 * np.pi
    expected = np.array([[3.0, 3.0], [turn - 3, -3.0], [turn, 0.0], [turn + 3.1, 3.0]])
    expected[2:, 0] = [turn - 3 + 3.0, turn - 3 + 6.1]
    np.testing.assert_allclose(limits.unwrapped(q, None), expected)
    begun = limits.unwrapped(q, np.array([-3.2, 0.0]))
    np.testing.assert_allclose(begun[:, 0], expected[:, 0] - turn)
    np.testing.assert_allclose(begun[:, 1], expected[:, 1])
    assert limits.unwrapped(q[:0], None).shape == (0, 2)


def test_steps_are_limited_by_the_smaller_of_step_and_speed(uniform):
    robot = uniform.robot
    limits = step_limits(robot, 3, 0.3, np.array([0.0, 0.1, 1.1]))
    np.testing.assert_allclose(limits.allowed[0], np.minimum(0.1 * robot.velocity_limit, 0.3))
    np.testing.assert_allclose(limits.allowed[1], 0.3)
    assert np.isinf(step_limits(robot, 3, None, None).allowed).all()


# -- parts of the search


def test_tracks_are_solutions_where_they_say_so_and_stay_close(uniform):
    robot = uniform.robot
    T_base_tip, anchors = line(robot, 0.2, 30), np.array([0, 12, 29])
    found = uniform.solve(T_base_tip[anchors], max_solutions=4, select="diverse", seed=0)
    q, valid = follow(robot, T_base_tip, anchors, found.joint_positions, TOLERANCES)
    assert q.shape == (30, 12, 7) and valid.mean() > 0.8
    judge = Judge(robot)
    for waypoint, track in np.ndindex(*valid.shape):
        accepted = judge.accepts(q[waypoint, track], T_base_tip[waypoint])
        assert accepted == valid[waypoint, track]
    np.testing.assert_allclose(q[12, 4:8], found.joint_positions[1], atol=1e-6)
    steps = np.abs(np.diff(q, axis=0)).max(-1)[valid[1:] & valid[:-1]]
    assert np.median(steps) < 0.05


def test_smoothing_takes_out_a_jump_from_one_strand_to_another(uniform):
    robot = uniform.robot
    T_base_tip, limits = line(robot, 0.2, 60), step_limits(robot, 60, None, None)
    found = uniform.solve(T_base_tip[:1], max_solutions=16, seed=0, seed_state=READY)
    q, valid = follow(robot, T_base_tip, np.array([0]), found.joint_positions, TOLERANCES)
    whole = np.flatnonzero(valid.all(0))
    apart = np.abs(q[:, whole] - q[:, whole[:1]]).max((0, 2))
    other = whole[(apart > 0.1).argmax()]  # on the same branch, the nearest come first
    jump = np.where(np.arange(60)[:, None] < 30, q[:, whole[0]], q[:, other])
    before = np.abs(limits.along(jump)).max()
    assert before > 0.1
    after = smooth(robot, T_base_tip, jump, limits, TOLERANCES)
    judge = Judge(robot)
    assert all(judge.accepts(row, pose) for row, pose in zip(after, T_base_tip, strict=True))
    assert np.abs(limits.along(after)).max() < 0.5 * before
    held = smooth(robot, T_base_tip, jump, limits, TOLERANCES, hold_first=True)
    assert (held[0] == jump[0]).all() and np.abs(limits.along(held)).max() < before


def test_smoothing_goes_nowhere_where_there_is_a_collision(uniform):
    robot = uniform.robot
    T_base_tip, limits = line(robot, 0.2, 20), step_limits(robot, 20, None, None)
    path = follow(robot, T_base_tip, np.array([0]), READY[None, None], TOLERANCES)[0][:, 0]
    rest = path[10][None, None] + 0.2
    path[10:] = follow(robot, T_base_tip[10:], np.array([0]), rest, TOLERANCES)[0][:, 0]
    free = smooth(robot, T_base_tip, path, limits, TOLERANCES)
    assert np.abs(limits.along(free)).max() < 0.8 * np.abs(limits.along(path)).max()

    def half_space(q):
        return q[:, 0] > np.median(free[:, 0])

    assert half_space(free).any()
    kept = smooth(robot, T_base_tip, path, limits, TOLERANCES, in_collision=half_space)
    assert not half_space(kept).any()
    assert np.abs(limits.along(kept)).max() < 0.8 * np.abs(limits.along(path)).max()
    everywhere = smooth(
        robot, T_base_tip, path, limits, TOLERANCES, in_collision=lambda q: np.ones(len(q), bool)
    )
    assert (everywhere == path).all()


@pytest.mark.parametrize("seed", range(3))
def test_the_banded_system_is_solved(seed):
    random = np.random.default_rng(seed)
    count, width = 6, 3
    half = random.normal(size=(count, width, 2))
    blocks = half @ half.swapaxes(1, 2)
    weight = random.uniform(0.1, 1, (count - 1, width))
    diagonal = np.full((count, width), 0.01)
    diagonal[:-1] += weight
    diagonal[1:] += weight
    right = random.normal(size=(count, width))
    dense = np.diag(diagonal.ravel())
    for p in range(count):
        own = slice(p * width, (p + 1) * width)
        dense[own, own] += blocks[p]
        if p:
            before = slice((p - 1) * width, p * width)
            dense[own, before] = dense[before, own] = -np.diag(weight[p - 1])
    expected = np.linalg.solve(dense, right.ravel()).reshape(count, width)
    np.testing.assert_allclose(solve_banded(blocks, diagonal, weight, right), expected)


# -- paths


@pytest.mark.parametrize("shape", ["line", "circle"])
def test_a_smooth_path_of_the_hand_is_one_of_small_joint_steps(solver, shape):
    robot = solver.robot
    T_base_tip = line(robot, 0.3) if shape == "line" else circle(robot, 0.1)
    result = mik.solve_path(solver, T_base_tip, seed=0)
    assert result.valid, result.message
    assert_path(robot, result, T_base_tip)
    assert result.largest_step < 0.03  # the hand moves 3 mm and 6 mm


@pytest.mark.parametrize("seed", range(5))
def test_steps_are_about_as_small_as_those_of_a_motion_known_to_exist(solver, seed):
    q, T_base_tip = joint_motion(solver.robot, seed)
    result = mik.solve_path(solver, T_base_tip, seed=0)
    assert_path(solver.robot, result, T_base_tip)
    assert result.largest_step < 2 * np.abs(np.diff(q, axis=0)).max()


@pytest.mark.parametrize("seed", range(3))
def test_two_tips_move_together(torso_solver, seed):
    q, T_base_tip = joint_motion(torso_solver.robot, seed, 60)
    result = mik.solve_path(torso_solver, T_base_tip, num_samples=256, seed=0)
    assert result.valid, result.message
    assert_path(torso_solver.robot, result, T_base_tip)
    assert result.largest_step < 2 * np.abs(np.diff(q, axis=0)).max()


def test_a_continuous_joint_goes_on_beyond_a_turn(torso_solver):
    q, _ = joint_motion(torso_solver.robot, 0)
    q[:] = q[0]
    q[:, 1] += np.linspace(0, 9, 100)
    judge = Judge(torso_solver.robot)
    T_base_tip = np.stack([judge.poses(row) for row in q])
    result = mik.solve_path(
        torso_solver, T_base_tip, num_samples=256, seed=0, start_state=q[0] + 0.0
    )
    assert result.valid, result.message
    assert_path(torso_solver.robot, result, T_base_tip)
    np.testing.assert_allclose(result.joint_positions[[0, -1], 1], q[[0, -1], 1], atol=1e-3)


def test_poses_far_apart_are_joined_when_any_step_will_do(solver):
    generator = torch.Generator().manual_seed(2)
    q = solver.robot.random_configurations(12, generator).numpy()
    T_base_tip = solver.robot.forward(q)
    result = mik.solve_path(solver, T_base_tip, max_joint_step=None, seed=0)
    assert result.valid, result.message
    assert_path(solver.robot, result, T_base_tip)
    assert mik.solve_path(solver, T_base_tip, max_joint_step=0.5, seed=0).failed_waypoint >= 1


@pytest.mark.parametrize("waypoints", [1, 2, 3])
def test_short_paths(uniform, waypoints):
    T_base_tip = line(uniform.robot, 0.01, waypoints)
    result = mik.solve_path(uniform, T_base_tip[:, 0], seed=0, start_state=READY)
    assert result.valid and len(result.joint_positions) == waypoints
    assert_path(uniform.robot, result, T_base_tip)


def test_a_hand_at_rest_needs_no_step(uniform):
    result = mik.solve_path(uniform, line(uniform.robot, 0.0, 10), seed=0)
    assert result.valid and result.largest_step < 1e-6


def test_the_same_seed_gives_the_same_path(solver):
    T_base_tip = line(solver.robot, 0.2, 40)
    first, second, other = (
        mik.solve_path(solver, T_base_tip, seed=seed).joint_positions for seed in (3, 3, 4)
    )
    assert (first == second).all() and first.shape == other.shape


# -- the start


def test_a_path_begins_where_the_robot_is_when_that_is_a_solution(solver):
    T_base_tip = line(solver.robot, 0.2)
    start = READY
    result = mik.solve_path(solver, T_base_tip, start_state=start, seed=0)
    assert_path(solver.robot, result, T_base_tip)
    np.testing.assert_allclose(result.joint_positions[0], start, atol=1e-6)
    elsewhere = mik.solve_path(solver, T_base_tip, seed=0).joint_positions[0]
    assert np.abs(elsewhere - start).max() > 1e-3


def test_a_path_begins_at_the_solution_nearest_to_the_robot(uniform):
    T_base_tip = line(uniform.robot, 0.1, 20)
    many = uniform.solve(T_base_tip[:1], num_samples=4000, max_solutions=4000, seed=1)
    solutions = many.joint_positions[0][many.valid[0]]
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        start = uniform.robot.random_configurations(1, generator).numpy()[0]
        result = mik.solve_path(uniform, T_base_tip, start_state=start, seed=0)
        assert_path(uniform.robot, result, T_base_tip)
        own = np.abs(result.joint_positions[0] - start).max()
        assert own < np.abs(solutions - start).max(1).min() + 0.3


# -- breaks


@pytest.mark.parametrize("start_state", [None, READY])
def test_a_waypoint_out_of_reach_is_named(solver, start_state):
    T_base_tip = line(solver.robot, 0.2)
    T_base_tip[41:60, 0, 0, 3] += 3.0
    result = mik.solve_path(solver, T_base_tip, start_state=start_state, seed=0)
    assert_path(solver.robot, result, T_base_tip)
    assert result.failed_waypoint == 41
    assert (
        "waypoint 41 has no IK solution" in result.message and "beyond its reach" in result.message
    )


def test_nothing_comes_before_a_first_waypoint_out_of_reach(uniform):
    T_base_tip = line(uniform.robot, 0.2, 10)
    T_base_tip[..., 0, 3] += 3.0
    result = mik.solve_path(uniform, T_base_tip, seed=0)
    assert result.failed_waypoint == 0 and result.joint_positions.shape == (0, 7)
    assert not result.valid and result.largest_step == 0.0


def test_a_leap_of_the_hand_is_named_with_the_smallest_step_found(solver):
    T_base_tip = line(solver.robot, 0.1)
    T_base_tip[30:, 0, 2, 3] -= 0.3
    result = mik.solve_path(solver, T_base_tip, max_joint_step=0.1, seed=0)
    assert_path(solver.robot, result, T_base_tip)
    assert result.failed_waypoint == 30
    assert result.largest_step <= 0.1
    assert "waypoint 30 has IK solutions" in result.message
    smallest = float(result.message.split(" by ")[1].split(",")[0])
    free = mik.solve_path(solver, T_base_tip, max_joint_step=None, seed=0)
    assert free.valid and smallest == pytest.approx(free.largest_step, rel=0.2)
    enough = mik.solve_path(solver, T_base_tip, max_joint_step=1.5 * smallest, seed=0)
    assert enough.valid, enough.message


def test_a_break_before_a_waypoint_out_of_reach_is_named_first(uniform):
    T_base_tip = line(uniform.robot, 0.1)
    T_base_tip[30:, 0, 2, 3] -= 0.3
    T_base_tip[70, 0, 0, 3] += 3.0
    result = mik.solve_path(uniform, T_base_tip, max_joint_step=0.1, seed=0)
    assert result.failed_waypoint == 30
    result = mik.solve_path(uniform, T_base_tip, max_joint_step=None, seed=0)
    assert result.failed_waypoint == 70


def test_no_joint_is_faster_than_its_limit(solver):
    robot = solver.robot
    T_base_tip = circle(robot, 0.15)
    free = mik.solve_path(solver, T_base_tip, seed=0)
    times = 2.0 + np.arange(100) * 1.1 * free.largest_step / robot.velocity_limit.min()
    timed = mik.solve_path(solver, T_base_tip, times=times, seed=0)
    assert timed.valid, timed.message
    assert_path(robot, timed, T_base_tip)
    speed = np.abs(np.diff(timed.joint_positions, axis=0)) / np.diff(times)[:, None]
    assert (speed <= robot.velocity_limit * (1 + 1e-6)).all()

    hasty = times.copy()
    hasty[50:] -= 0.95 * (times[50] - times[49])
    broken = mik.solve_path(solver, T_base_tip, times=hasty, seed=0)
    assert broken.failed_waypoint == 50 and "speed limit" in broken.message
    words = broken.message.replace(",", "").replace(")", "").split()
    name, step, allowed = (words[words.index(word) + 1] for word in ("moves", "by", "are"))
    limit = robot.velocity_limit[robot.joint_names.index(name)]
    assert float(words[-1]) == pytest.approx(limit, rel=1e-3)
    assert float(allowed) == pytest.approx(limit * (hasty[50] - hasty[49]), rel=1e-2)
    assert float(step) > float(allowed)
    assert_path(robot, broken, T_base_tip)


def test_the_start_cannot_be_left_faster_than_the_joints_move(uniform):
    T_base_tip = line(uniform.robot, 0.1, 20)
    start = READY + np.eye(7)[0]
    times = 0.1 + np.arange(20)
    result = mik.solve_path(uniform, T_base_tip, start_state=start, times=times, seed=0)
    assert result.failed_waypoint == 0 and "start state in 0.1 s" in result.message
    assert mik.solve_path(
        uniform, T_base_tip, start_state=start, times=times + 5.0, seed=0
    ).valid  # fmt: skip
    assert mik.solve_path(uniform, T_base_tip, start_state=start, times=times - 0.1, seed=0).valid


@pytest.mark.parametrize("name", ["tiago_pro", "pr2"])
def test_a_slow_joint_that_need_not_move_much_does_not_break_a_path(name):
    """Of one arm: among drawn solutions the slow torso is nearly always too far from the start."""
    robot, tip = mik.load_robot(name), [mik.load_robot(name).tips[0]]
    judge, solver = Judge(robot), mik.load_solver(robot, sampler="uniform")
    random, times = np.random.default_rng(7), 0.1 + np.linspace(0, 4, 25)
    low = np.where(robot.continuous, -2, robot.lower)
    high = np.where(robot.continuous, 2, robot.upper)
    found = 0
    for seed in range(6):
        begin = low + (high - low) * random.uniform(0.2, 0.8, len(low))
        end = np.clip(begin + random.normal(0, 0.5, len(low)), low, high)
        way = (end - begin) * min(1, 0.8 * 4 / (np.abs(end - begin) / robot.velocity_limit).max())
        poses = np.stack([judge.poses(begin + share * way) for share in np.linspace(0, 1, 25)])[
            :, :1
        ]
        start = np.clip(begin + random.normal(0, 0.003, len(low)), low, high)
        path = mik.solve_path(
            solver, poses, start_state=start, times=times, tips=tip, seed=seed
        )  # fmt: skip
        if not path.valid:
            assert "from the start state" in path.message
            continue
        found += 1
        q = np.concatenate([start[None], path.joint_positions])
        allowed = robot.velocity_limit * np.diff(times, prepend=0.0)[:, None]
        assert (np.abs(np.diff(q, axis=0)) <= allowed + 1e-9).all()
        for pose, one in zip(poses, path.joint_positions, strict=True):
            assert np.abs(judge.poses(one)[0] - pose[0]).max() < 2e-5
    assert found >= 5


def test_a_path_avoids_self_collision_when_asked(uniform):
    touches = uniform.self_collision.in_collision
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        q = uniform.robot.random_configurations(1, generator).numpy()[0]
        if touches(q):
            T_base_tip = np.tile(uniform.robot.forward(q), (15, 1, 1, 1))
            T_base_tip[:, 0, 2, 3] += np.linspace(0, 0.02, 15)
            options = {"start_state": q, "seed": 0}
            free = mik.solve_path(uniform, T_base_tip, **options)
            if free.valid and touches(free.joint_positions).any():
                result = mik.solve_path(uniform, T_base_tip, avoid_self_collision=True, **options)
                if result.valid:
                    break
    else:
        pytest.fail("no such path")
    assert_path(uniform.robot, result, T_base_tip)
    assert not touches(result.joint_positions).any()


# -- bad input


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"waypoints": np.empty((0, 4, 4))}, mik.TargetError, "at least one"),
        ({"waypoints": np.zeros((3, 4, 4))}, mik.TargetError, "rigid"),
        ({"waypoints": np.eye(4)}, mik.TargetError, "shape"),
        ({"start_state": READY[:6]}, mik.SeedError, "shape"),
        ({"start_state": READY + 9}, mik.SeedError, "limits"),
        ({"times": [0.0, 1.0]}, mik.OptionError, "3 waypoints"),
        ({"times": [0.0, 1.0, 1.0]}, mik.OptionError, "rising"),
        ({"times": [-1.0, 0.0, 1.0]}, mik.OptionError, "not negative"),
        ({"times": [0.0, 1.0, np.nan]}, mik.OptionError, "finite"),
        ({"times": "abc"}, mik.OptionError, "numbers"),
        ({"num_samples": 0}, mik.OptionError, "num_samples"),
        ({"num_samples": True}, mik.OptionError, "num_samples is True"),
        ({"max_joint_step": "a"}, mik.OptionError, "max_joint_step is 'a'"),
        ({"orientation_tolerance": "a"}, mik.OptionError, "orientation_tolerance is 'a'"),
        ({"seed": 0.5}, mik.OptionError, "seed is 0.5"),
        ({"max_joint_step": 0.0}, mik.OptionError, "max_joint_step"),
        ({"max_joint_step": np.nan}, mik.OptionError, "max_joint_step"),
        ({"position_tolerance": 0.0}, mik.OptionError, "position_tolerance"),
        ({"orientation_tolerance": -1.0}, mik.OptionError, "orientation_tolerance"),
    ],
)
def test_bad_input_is_an_error_that_says_so(uniform, options, error, words):
    options = {"waypoints": line(uniform.robot, 0.1, 3), **options}
    with pytest.raises(error, match=words):
        mik.solve_path(uniform, **options)
