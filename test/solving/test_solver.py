# SPDX-License-Identifier: Apache-2.0
"""What `sample` and `solve` promise, judged by Pinocchio."""

import numpy as np
import pytest
import torch
from oracles import Judge, reachable

import meanflow_ik_core as mik
from meanflow_ik_core.cuda.search import DeviceSearch

SOLVERS = ("learned", "uniform", "torso_solver")


@pytest.fixture(scope="module", params=SOLVERS)
def solver(request) -> mik.IKSolver:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module", params=["learned", "uniform"])
def redundant(request) -> mik.IKSolver:
    """A robot with more joints than a target has numbers, so with a continuum of solutions."""
    return request.getfixturevalue(request.param)


def test_every_row_called_valid_is_an_exact_solution_within_the_limits(solver):
    judge, targets = Judge(solver.robot), reachable(solver.robot, 100, 0)
    result = solver.solve(targets, max_solutions=16, seed=0)
    assert result.valid[:, 0].all()
    for problem, row in np.argwhere(result.valid):
        assert judge.accepts(result.joint_positions[problem, row], targets[problem])


def test_reported_errors_are_the_true_ones(solver):
    judge, targets = Judge(solver.robot), reachable(solver.robot, 5, 1)
    targets[:, 0, :3, 3] += 10.0
    result = solver.solve(targets, max_solutions=4, seed=0)
    assert not result.valid.any()
    for problem in range(5):
        for row in range(4):
            position, angle = judge.errors(result.joint_positions[problem, row], targets[problem])
            np.testing.assert_allclose(result.position_error[problem, row], position, atol=1e-9)
            np.testing.assert_allclose(result.orientation_error[problem, row], angle, atol=1e-9)


def test_rows_are_ranked_valid_first_then_by_cost_and_differ(solver):
    targets = reachable(solver.robot, 20, 2)
    result = solver.solve(targets, num_samples=64, max_solutions=100, seed=0)
    assert (np.diff(result.valid.astype(int), axis=1) <= 0).all()
    for problem in range(20):
        valid = result.valid[problem]
        assert (np.diff(result.cost[problem][valid]) >= 0).all()
        q = result.joint_positions[problem][valid]
        turn = np.abs(q[:, None] - q[None])
        turn = np.where(solver.robot.continuous, np.minimum(turn, 2 * np.pi - turn), turn)
        apart = turn.max(-1) + np.eye(len(q))
        assert (apart >= 0.01).all()


def test_the_result_has_the_documented_shapes_and_types(solver):
    robot, targets = solver.robot, reachable(solver.robot, 3, 3)
    result = solver.solve(targets, num_samples=20, max_solutions=5, seed=0)
    tips = robot.num_tips
    assert result.joint_positions.shape == (3, 5, robot.num_joints)
    assert result.joint_positions.dtype == np.float64
    assert result.position_error.shape == result.orientation_error.shape == (3, 5, tips)
    assert result.valid.shape == result.distance.shape == result.origin.shape == (3, 5)
    assert set(result.timing) == {"sample", "refine", "select"}
    assert all(seconds > 0 for seconds in result.timing.values())


def test_the_same_seed_gives_the_same_answer_and_another_seed_another(solver):
    targets = reachable(solver.robot, 2, 4)
    for call in (solver.sample, lambda *a, **k: solver.solve(*a, **k).joint_positions):
        first, again, other = (call(targets, 16, seed=seed) for seed in (5, 5, 6))
        np.testing.assert_array_equal(first, again)
        assert not np.array_equal(first, other)
        assert not np.array_equal(call(targets, 16), call(targets, 16))


def test_samples_have_the_documented_shape_kind_and_limits(solver):
    targets = reachable(solver.robot, 3, 5)
    q = solver.sample(targets, num_samples=40, seed=0)
    assert isinstance(q, np.ndarray) and q.shape == (3, 40, solver.robot.num_joints)
    assert q.dtype == np.float32
    assert solver.robot.within_limits(q, 1e-6).all()
    tensor = solver.sample(torch.from_numpy(targets), num_samples=40, seed=0)
    np.testing.assert_array_equal(tensor.numpy(), q)


@pytest.mark.parametrize("sampler", ["meanflow", "uniform"])
def test_a_device_is_another_way_to_exact_solutions(sampler, monkeypatch):
    """The way that goals take on a GPU, on a device that is there everywhere."""
    solver = mik.load_solver("panda", sampler=sampler)
    device = "cpu:0"  # by this name it is none of the compiled way
    monkeypatch.setattr(solver, "device", device)
    monkeypatch.setattr(solver, "_device_search", DeviceSearch(solver.robot, device))
    if sampler == "meanflow":
        monkeypatch.setattr(solver._samplers[sampler], "_device", device)
        monkeypatch.setattr(solver._samplers[sampler], "_compiled", None)
    judge, targets = Judge(solver.robot), reachable(solver.robot, 4, 11)
    q = solver.robot.random_configurations(4, np.random.default_rng(0))
    for options in ({}, {"seed_state": q}, {"objectives": ["joint_limits"]}):
        result = solver.solve(targets, 64, 4, seed=0, **options)
        assert result.valid[:, 0].all()
        for problem, row in np.argwhere(result.valid):
            assert judge.accepts(result.joint_positions[problem, row], targets[problem])
    drawn = solver.sample(torch.from_numpy(targets), 5, seed=0)
    assert isinstance(drawn, torch.Tensor) and drawn.dtype == torch.float32
    np.testing.assert_array_equal(solver.sample(targets, 5, seed=0), drawn.numpy())


def test_learned_samples_are_nearer_to_the_target_than_random_ones(learned, uniform):
    targets = reachable(uniform.robot, 50, 6)
    miss = []
    for solver in (learned, uniform):
        q = solver.sample(targets, num_samples=50, seed=0)
        reached = uniform.robot.forward(q)[..., 0, :3, 3]
        miss.append(np.linalg.norm(reached - targets[:, :, :3, 3], axis=-1).mean())
    assert miss[0] < 0.5 * miss[1]


def test_the_current_joints_come_back_first_when_they_already_solve_it(uniform):
    judge = Judge(uniform.robot)
    current = uniform.robot.random_configurations(1, torch.Generator().manual_seed(7))[0].numpy()
    result = uniform.solve(judge.poses(current), seed_state=current, seed=0)
    np.testing.assert_allclose(result.joint_positions[0, 0], current, atol=1e-6)
    assert result.origin[0, 0] == "seed" and result.distance[0, 0] < 1e-5
    deltas = result.joint_positions[0] - current
    np.testing.assert_allclose(result.distance[0], np.linalg.norm(deltas, axis=-1))


def test_a_seed_per_target_is_taken_row_by_row(uniform):
    q = uniform.robot.random_configurations(6, torch.Generator().manual_seed(8)).numpy()
    result = uniform.solve(uniform.robot.forward(q), seed_state=q, seed=0)
    np.testing.assert_allclose(result.joint_positions[:, 0], q, atol=1e-6)


def test_too_few_solutions_are_topped_up_and_the_result_says_from_where(redundant):
    targets = reachable(redundant.robot, 1, 9)
    result = redundant.solve(targets, num_samples=2, max_solutions=40, seed=0)
    assert result.valid.all()
    assert sum(result.starts.values()) > 40
    assert result.starts["uniform"] > 0
    assert sum(result.origin_counts().values()) == 40
    assert set(result.origin_counts()) <= {"uniform", "meanflow"}


def test_a_longer_timeout_searches_longer_and_ends(uniform):
    target = np.eye(4)[None]
    target[0, :3, 3] = (3.0, 0.0, 0.0)
    starts = [
        uniform.solve(target, timeout=seconds, seed=0).starts["uniform"] for seconds in (1e-9, 0.2)
    ]
    assert starts[0] == 128 < starts[1]


def test_diverse_solutions_are_farther_apart_than_the_best_ones(redundant):
    targets = reachable(redundant.robot, 10, 10)
    nearest = {}
    for select in ("best", "diverse"):
        result = redundant.solve(targets, 256, 8, seed=0, select=select)
        assert result.valid.all()
        assert (np.diff(result.cost, axis=1) >= 0).all()
        q = result.joint_positions
        apart = np.linalg.norm(q[:, :, None] - q[:, None], axis=-1) + 1e3 * np.eye(8)
        nearest[select] = apart.min((1, 2)).mean()
    assert nearest["diverse"] > 2 * nearest["best"]


def test_solutions_free_of_self_collision_are_the_only_valid_ones_when_asked(uniform):
    targets = reachable(uniform.robot, 60, 11)
    plain = uniform.solve(targets, seed=0)
    careful = uniform.solve(targets, seed=0, avoid_self_collision=True)
    touching = uniform.self_collision.in_collision
    assert touching(plain.joint_positions[plain.valid]).any()
    assert not touching(careful.joint_positions[careful.valid]).any()


def test_a_batch_gives_as_many_solutions_as_single_calls(uniform):
    targets = reachable(uniform.robot, 8, 12)
    together = uniform.solve(targets, num_samples=64, max_solutions=4, seed=0)
    assert together.valid.all()
    for target in targets:
        assert uniform.solve(target[None], num_samples=64, max_solutions=4, seed=0).valid.all()


def test_adam_brings_learned_starts_nearer_and_claims_no_more_than_it_reached(learned):
    judge, targets = Judge(learned.robot), reachable(learned.robot, 10, 13)
    options = {"num_samples": 32, "max_solutions": 16, "seed": 0, "position_tolerance": 0.02}
    result = learned.solve(targets, refinement="adam", orientation_tolerance=0.2, **options)
    assert result.valid.any()
    for problem, row in np.argwhere(result.valid):
        position, angle = judge.errors(result.joint_positions[problem, row], targets[problem])
        assert position[0] <= 0.02 + 1e-9 and angle[0] <= 0.2 + 1e-9


def test_no_targets_give_an_empty_result(uniform):
    result = uniform.solve(np.zeros((0, 4, 4)))
    assert result.joint_positions.shape == (0, 32, 7)


HALF_TURN_MIRRORED = np.diag([1.0, 1.0, -1.0, 1.0])


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (np.full((1, 4, 4), np.nan), "not finite"),
        (np.eye(4)[None] + 1e300 * np.eye(4, k=3), r"1e\+300 m away; 1e\+12 m is the farthest"),
        (np.diag([1.0, 1.0, 1.0, np.inf])[None], "not finite"),
        (np.eye(4), r"shape \(4, 4\)"),
        (np.eye(3)[None], r"shape \(1, 3, 3\)"),
        (np.stack([np.eye(4)] * 2)[None], "panda_link8"),
        (2 * np.eye(4)[None], "not rigid"),
        (HALF_TURN_MIRRORED[None], "determinant"),
        ("pose", "not an array"),
        ([[[1.0], [2.0, 3.0]]], "not an array"),
    ],
)
def test_targets_that_are_no_poses_are_refused(uniform, targets, message):
    for call in (uniform.solve, uniform.sample):
        with pytest.raises(mik.TargetError, match=message):
            call(targets)


@pytest.mark.parametrize(
    ("seed_state", "message"),
    [
        (np.zeros(6), r"\(6,\).*\(7,\)"),
        (np.full(7, np.nan), "not finite"),
        (np.zeros(7), "panda_joint4 = 0"),
        (["a"] * 7, "not an array"),
    ],
)
def test_seed_states_that_are_no_configurations_are_refused(uniform, seed_state, message):
    with pytest.raises(mik.SeedError, match=message):
        uniform.solve(reachable(uniform.robot, 1, 0), seed_state=seed_state)


@pytest.mark.parametrize(
    "option",
    [
        {"num_samples": 0}, {"num_samples": 2.5}, {"max_solutions": 0}, {"select": "all"},
        {"refinement": "newton"},
        {"timeout": -1.0}, {"timeout": float("nan")}, {"position_tolerance": 0.0},
        {"orientation_tolerance": -1.0}, {"error_weight": -1.0}, {"distance_weight": np.nan},
        {"min_separation": -0.1}, {"max_rounds": 0}, {"max_rounds": 1.5},
        {"num_samples": True}, {"max_solutions": True}, {"objective_steps": 1.5},
        {"timeout": "a"}, {"error_weight": "a"}, {"min_separation": None},
        {"seed": "abc"}, {"seed": 1.5}, {"seed": 2**70}, {"free_axes": {"panda_link8": 5}},
        {"position_tolerance": "a"}, {"orientation_tolerance": True},
    ],
)  # fmt: skip
def test_options_out_of_range_are_refused_by_name(uniform, option):
    with pytest.raises(mik.OptionError, match=next(iter(option))):
        uniform.solve(reachable(uniform.robot, 1, 0), **option)


@pytest.mark.parametrize("option", [{"num_samples": "a"}, {"num_samples": 10.0}, {"seed": "a"}])
def test_options_of_samples_are_refused_by_name(uniform, option):
    with pytest.raises(mik.OptionError, match=next(iter(option))):
        uniform.sample(reachable(uniform.robot, 1, 0), **option)


def test_unknown_samplers_devices_and_robots_are_refused():
    with pytest.raises(mik.OptionError, match=r"'gauss'.*meanflow, uniform"):
        mik.load_solver("panda", sampler="gauss")
    with pytest.raises(mik.OptionError, match="'tpu'"):
        mik.load_solver("panda", device="tpu", sampler="uniform")
    with pytest.raises(mik.RobotError, match="'nobody'"):
        mik.load_solver("nobody")


def test_many_targets_are_refined_in_slices_that_fit_into_memory(panda):
    solver = mik.load_solver(panda, sampler="uniform")
    judge, targets = Judge(panda), reachable(panda, 30, 5)
    targets[::7, :, :3, 3] += 5.0  # some are topped up without success
    solver.starts_per_pass = 100
    result = solver.solve(targets, num_samples=32, max_solutions=4, seed=0)
    away = np.isin(np.arange(30), np.arange(0, 30, 7))
    np.testing.assert_array_equal(result.valid.any(1), ~away)
    for problem, row in np.argwhere(result.valid):
        assert judge.accepts(result.joint_positions[problem, row], targets[problem])
