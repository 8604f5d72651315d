# SPDX-License-Identifier: Apache-2.0
"""What a search does on a GPU, compiled by a C compiler, against the compiled search of the CPU."""

import copy
import pickle
import shutil

import numpy as np
import pytest
import torch
from chains import FIVE, chain, write
from example_robots import ROBOTS
from oracles import Judge

import meanflow_ik_core as mik
from meanflow_ik_core.cuda.goal_kernels import Candidates, goal_kernels
from meanflow_ik_core.cuda.search import DeviceSearch
from meanflow_ik_core.kernels import selection
from meanflow_ik_core.kernels.counter_stream import fill_normal, keys_of_poses
from meanflow_ik_core.kernels.descent import SLIDE_AT_ONCE, STAY
from meanflow_ik_core.kernels.refinement import COARSE_ITERATIONS, refine_starts
from meanflow_ik_core.kernels.search import Plan, Weights, search
from meanflow_ik_core.samplers.meanflow import MeanFlowSampler
from meanflow_ik_core.solving.robot_arrays import packed
from meanflow_ik_core.solving.solver import IKSolver

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
CPU = torch.device("cpu")
WEIGHTS = Weights(error=1000.0, distance=1.0, separation=0.01, near=0.1)
PLAN = Plan(
    seeded=0, sliding=0, first=32, own=32, largest=1024, budget=1024, rounds=-1, solutions=6,
    diverse=0, recombining=1, starts_per_pass=4096,
)  # fmt: skip
X, Y, Z, RX, RY, RZ = np.eye(6)
# What is asked of the tips, (T, 6) or of one for all.
GOALS = {
    "panda": ("panda", None),
    "dual_panda": ("dual_panda", None),
    "torso_two_arms": ("torso_two_arms", None),  # prismatic, continuous, mimic, shared joints
    "base_on_a_moving_link": ("base_on_a_moving_link", None),
    "position": ("panda", X + Y + Z),
    "one free position axis": ("panda", X + Z + RX + RY + RZ),
    "one free turn": ("panda", X + Y + Z + RX + RY),
    "one turn": ("panda", X + Y + Z + RY),
    "one of two tips": ("dual_panda", np.array([np.zeros(6), np.ones(6)])),
    "weights": ("torso_two_arms", np.array([0.5 * np.ones(6), X + 2 * Y + Z + RX + RY])),
}


def load(name):
    return ROBOTS[name]() if name in ROBOTS else mik.load_robot(name)


def draw(robot, count, seed):
    return np.random.default_rng(seed).uniform(
        robot.lower, robot.upper, (count, robot.num_joints)
    )  # fmt: skip


@pytest.fixture(params=GOALS)
def goal(request):
    name, asked = GOALS[request.param]
    robot = load(name)
    asked = None if asked is None else np.atleast_2d(asked)
    arrays = packed(robot, 1e-5, 1e-5, asked)
    return robot, asked, arrays, robot.forward(draw(robot, 20, 0)), draw(robot, 20, 1)


@pytest.mark.parametrize("sliding", [STAY, SLIDE_AT_ONCE])
def test_the_same_starts_converge_to_the_same_configurations(goal, sliding):
    robot, asked, arrays, targets, reference = goal
    starts = draw(robot, 20 * 25, 2).reshape(20, 25, -1)
    starts[3, 4, 0] = np.nan
    q, errors, valid = DeviceSearch(robot, CPU).refined(
        starts, targets, reference, arrays, sliding, False
    )
    expected = starts.copy()
    known, good = refine_starts(
        expected, targets, reference, *arrays, sliding, False, COARSE_ITERATIONS
    )
    # Where the last joint turns the tip about its free axis, rounding alone moves it.
    assert (valid == good).mean() > 0.96
    assert good.mean() > 0.15
    both = valid & good
    # Rounding moves them along the solutions of a pose, which only slides pin down.
    assert np.median(np.abs(q - expected)[both]) < 1e-5
    assert np.median(errors[both]) < 1e-9
    assert np.isinf(errors[3, 4]).any() and np.isnan(q[3, 4, 0])
    exact = np.isfinite(known) & np.isfinite(errors)
    same = exact & (np.abs(q - expected).max(-1) < 1e-9)[..., None, None]
    np.testing.assert_allclose(errors[same], known[same], atol=1e-8)
    if asked is None:
        judge = Judge(robot)
        for b, n in np.argwhere(valid)[::20]:
            assert judge.accepts(q[b, n], targets[b])


def test_steps_lead_into_tolerances_where_no_exact_configuration_is_near(tmp_path):
    robot = mik.load_robot(write(tmp_path, chain(FIVE)))
    tolerances = 5e-3, 0.05
    arrays = packed(robot, *tolerances)
    targets = robot.forward(draw(robot, 40, 0))
    targets[..., :3, 3] += 0.004 * np.array([1.0, -1.0, 1.0])  # five joints cannot follow
    starts = draw(robot, 800, 1).reshape(40, 20, -1)
    reference = starts[:, 0].copy()
    q, errors, valid = DeviceSearch(robot, CPU).refined(
        starts, targets, reference, arrays, STAY, False
    )
    expected = starts.copy()
    _, good = refine_starts(
        expected, targets, reference, *arrays, STAY, False, COARSE_ITERATIONS
    )  # fmt: skip
    assert (valid == good).mean() > 0.99
    assert good.mean() > 0.15
    assert errors[valid].max() > 1e-4  # by steps into the tolerances, not by exact ones
    judge = Judge(robot)
    for b, n in np.argwhere(valid)[::20]:
        found = np.ravel(judge.errors(q[b, n], targets[b]))
        assert (found <= np.multiply(tolerances, 1 + 1e-9)).all()


@pytest.mark.parametrize("name", ["dual_panda", "torso_two_arms"])
def test_a_tip_out_of_reach_leaves_the_others_exact_where_they_share_no_joint(name):
    robot = load(name)
    arrays = packed(robot, 1e-5, 1e-5)
    targets, starts = robot.forward(draw(robot, 8, 0)), draw(robot, 320, 1).reshape(8, 40, -1)
    targets[:, 1, :3, 3] += 5.0
    reference = starts[:, 0].copy()
    _, errors, valid = DeviceSearch(robot, CPU).refined(
        starts, targets, reference, arrays, STAY, True
    )
    expected = starts.copy()
    known, _ = refine_starts(
        expected, targets, reference, *arrays, STAY, True, COARSE_ITERATIONS
    )  # fmt: skip
    assert not valid.any()
    near = (errors[:, :, 0] <= 1e-5).all(-1)
    np.testing.assert_allclose(near.mean(), (known[:, :, 0] <= 1e-5).all(-1).mean(), atol=0.05)
    assert near.any() == (name == "dual_panda")


@pytest.mark.parametrize("diverse", [0, 1])
def test_a_search_takes_the_starts_of_the_cpu_and_returns_its_rows(goal, diverse):
    robot, asked, arrays, targets, reference = goal
    keys = keys_of_poses(targets, np.uint64(3))
    plan = PLAN._replace(diverse=diverse, seeded=1)
    question = targets, reference, arrays, plan, WEIGHTS, keys
    of_gpu, as_cpu = DeviceSearch(robot, CPU), DeviceSearch(robot, CPU)
    as_cpu._growth = 1  # rounds as large as those of the CPU
    rows, used, own = as_cpu.search(*question)
    none = np.empty((len(targets), 0, robot.num_joints), np.float32)
    theirs = search(
        targets, reference, none, *arrays, np.array(plan, np.int64), np.array(WEIGHTS), keys
    )
    assert (used == theirs[-1]).mean() >= 0.75 and not own.any()
    assert abs(rows.valid.mean() - theirs[3].mean()) < 0.04
    if not diverse:  # what is farthest depends on the last digit
        known = np.where(theirs[3], theirs[5], -1.0)[:, None]
        found = (np.abs(rows.cost[..., None] - known) < 0.02).any(-1)
        # The last joint turns the tip about its free axis, so the errors do not pull it. In float
        # rounding does, where the others are at their limits.
        turns_freely = asked is not None and asked.tolist() == [[1, 1, 1, 1, 1, 0]]
        assert found[rows.valid].mean() > (0.8 if turns_freely else 0.96)
    assert (np.diff(rows.cost, axis=1)[rows.valid[:, 1:]] >= 0).all()
    assert robot.within_limits(rows.q[rows.valid]).all()
    more, used_more, _ = of_gpu.search(*question)
    assert (more.valid >= rows.valid).all() and (used_more >= used).all()


def test_the_choice_is_that_of_the_cpu():
    robot = load("torso_two_arms")
    kernels = goal_kernels(robot, packed(robot, 1e-5, 1e-5), CPU)
    rng = np.random.default_rng(0)
    batch, count, most = 30, 50, 30
    q = np.repeat(draw(robot, batch * 25, 1).reshape(batch, 25, -1), 2, 1)  # each one twice
    q[:, ::2] += rng.choice([0, 1e-3], (batch, 25, 1)) * robot.continuous
    cost, valid = rng.uniform(size=(batch, count)), rng.uniform(size=(batch, count)) < 0.6
    errors = rng.uniform(size=(batch, count, robot.num_tips, 2))
    start = np.broadcast_to(np.arange(count, dtype=np.int32), (batch, count)).copy()
    candidates = Candidates(
        *map(torch.from_numpy, (q, errors, 2 * cost, cost, valid.astype(np.uint8), start))
    )
    settings = torch.from_numpy(kernels.settings(WEIGHTS))
    for diverse in (False, True):
        results = [torch.empty(batch, most, n, dtype=torch.float64) for n in
                   (robot.num_joints, robot.num_tips, robot.num_tips, 4)]  # fmt: skip
        kernels.choose(settings, candidates, diverse, tuple(results))
        joints, position, orientation, numbers = (one.numpy() for one in results)
        for b in range(batch):
            rows, num_valid = selection.choose(
                q[b], cost[b], valid[b], robot.continuous, most, WEIGHTS.separation, diverse
            )
            assert len(rows) == most and 0 < num_valid < most
            np.testing.assert_array_equal(numbers[b, :, 3], rows)
            np.testing.assert_array_equal(joints[b], q[b, rows])
            np.testing.assert_array_equal(position[b], errors[b, rows, :, 0])
            np.testing.assert_array_equal(orientation[b], errors[b, rows, :, 1])
            np.testing.assert_array_equal(numbers[b, :, 2], valid[b, rows])
            np.testing.assert_array_equal(numbers[b, :, 0], 2 * cost[b, rows])


def generated(solver: IKSolver) -> IKSolver:
    """The solver as it is on a GPU, on the CPU."""
    solver = copy.copy(solver)
    solver._device_search = DeviceSearch(solver.robot, CPU)
    return solver


def same(a, b):
    names = ("joint_positions", "position_error", "valid", "distance", "cost", "origin")
    for name in names:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    return a.starts == b.starts


def test_an_answer_does_not_depend_on_the_batch_or_the_passes(uniform):
    solver = generated(uniform)
    targets = solver.robot.forward(draw(solver.robot, 30, 0))
    targets[::9, :, :3, 3] += 3.0  # some are beyond reach
    for options in ({"max_solutions": 1}, {"num_samples": 32, "select": "diverse"}):
        together = solver.solve(targets, seed=3, **options)
        assert together.valid[1:9].any(1).all() and not together.valid[::9].any()
        few = generated(solver)
        few._device_search._most_rows = 100
        assert same(together, few.solve(targets, seed=3, **options))
        alone = solver.solve(targets[4:5], seed=3, **options)
        np.testing.assert_array_equal(alone.joint_positions[0], together.joint_positions[4])


def test_passes_get_smaller_where_memory_is_short_and_then_it_is_said(uniform, monkeypatch):
    solver = generated(uniform)
    targets = solver.robot.forward(draw(solver.robot, 12, 0))
    expected = solver.solve(targets, 40, 4, seed=0)
    kernels = goal_kernels(solver.robot, packed(solver.robot, 1e-5, 1e-5), CPU)
    draw_starts, most = kernels.draw, 100

    def draw_few(keys, seeds, given, first, count):
        if len(keys) * count > most:
            raise torch.OutOfMemoryError("out of memory")
        return draw_starts(keys, seeds, given, first, count)

    monkeypatch.setattr(kernels, "draw", draw_few)
    assert same(expected, solver.solve(targets, 40, 4, seed=0))
    with pytest.raises(mik.OptionError, match=r"too little memory for 101 starts.*cpu"):
        solver.solve(targets, 101, 4, seed=0)


def test_one_solution_near_a_seed_is_as_near_as_on_the_cpu(uniform):
    robot = uniform.robot
    targets, seeds = robot.forward(draw(robot, 40, 2)), draw(robot, 40, 3)
    options = {"seed_state": seeds, "max_solutions": 1, "seed": 0}
    ours, theirs = generated(uniform).solve(targets, **options), uniform.solve(targets, **options)
    assert ours.valid.all()
    assert (ours.distance < theirs.distance + 0.02).mean() > 0.95


def test_other_questions_are_answered_too(uniform):
    solver = generated(uniform)
    robot, judge = solver.robot, Judge(solver.robot)
    targets = robot.forward(draw(robot, 3, 4))
    for options in (
        {"avoid_self_collision": True},
        {"timeout": 5.0, "avoid_self_collision": True, "max_solutions": 1},
        {"objectives": ["joint_limits"]},
        {"refinement": "adam", "position_tolerance": 0.5, "orientation_tolerance": 1.0},
    ):
        result = solver.solve(targets, **{"num_samples": 32, "max_solutions": 3} | options)
        assert result.valid[:, 0].any()
        for b in range(3) if "refinement" not in options else ():
            assert judge.accepts(result.joint_positions[b, 0], targets[b])
    nothing = solver.solve(targets[:0], max_solutions=3)
    assert nothing.joint_positions.shape == (0, 3, robot.num_joints)
    copies = copy.deepcopy(solver), pickle.loads(pickle.dumps(solver))
    expected = solver.solve(targets, 32, 4, seed=0)
    assert all(same(expected, one.solve(targets, 32, 4, seed=0)) for one in copies)


@pytest.fixture(params=["panda", "dual_panda"])
def learned_on_a_device(request):
    """A solver whose sampler draws as it does on a GPU."""
    solver = mik.load_solver(request.param)
    sampler = solver._samplers[solver.sampler]
    assert isinstance(sampler, MeanFlowSampler)
    sampler._compiled = None
    return generated(solver)


def test_the_numbers_of_learned_starts_are_those_of_the_cpu(learned_on_a_device):
    solver, other = learned_on_a_device, mik.load_solver(learned_on_a_device.robot)
    robot = solver.robot
    targets = robot.forward(draw(robot, 6, 5))
    keys = keys_of_poses(targets, np.uint64(1))
    sampler, theirs = solver._samplers["meanflow"], other._samplers["meanflow"]
    ours = sampler.numbered(targets, 3, 10, keys)
    expected = theirs.numbered(targets, 3, 10, keys)
    # The network of the CPU may be in bfloat16.
    assert np.median(np.abs(ours.numpy() - expected)) < 0.02
    noise = np.empty((6, 10, robot.num_joints), np.float32)
    fill_normal(keys, 3, noise)
    exact = sampler._on_device(torch.from_numpy(noise), torch.from_numpy(targets))
    lower, upper = robot.limits(torch.float32)
    drawn = lower + 0.5 * (exact.clamp(-1, 1) + 1) * (upper - lower)
    torch.testing.assert_close(ours, drawn, rtol=0, atol=1e-4)


def test_learned_starts_are_refined_and_told_from_uniform_ones(learned_on_a_device):
    solver = learned_on_a_device
    robot, judge = solver.robot, Judge(solver.robot)
    targets = robot.forward(draw(robot, 10, 6))
    result = solver.solve(targets, num_samples=2, max_solutions=24, seed=0)
    assert result.valid.all()
    assert result.starts["meanflow"] >= 20 and result.starts["uniform"] > 0
    assert set(result.origin.ravel()) == {"meanflow", "uniform"}
    for b in range(10):
        assert judge.accepts(result.joint_positions[b, -1], targets[b])
    one = solver.solve(targets, max_solutions=1, seed=0)
    assert one.valid.all() and 320 <= one.starts["meanflow"] < 640
    partial = solver.solve(
        targets, 16, 2, seed=0, free_axes={robot.tips[0]: "rz"}, seed_state=draw(robot, 10, 7)
    )
    assert partial.valid.all()
