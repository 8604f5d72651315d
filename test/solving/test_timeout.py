# SPDX-License-Identifier: Apache-2.0
"""When a search ends: `timeout` and `max_rounds` of `solve`."""

from dataclasses import fields

import numpy as np
import pytest
import torch
from example_robots import TORSO, TORSO_TIPS
from oracles import Judge, reachable

import meanflow_ik_core as mik
from meanflow_ik_core.collision.self_collision import SelfCollision
from meanflow_ik_core.collision.world_distance import WorldDistance
from meanflow_ik_core.objectives import Objective
from meanflow_ik_core.samplers import Sampler
from meanflow_ik_core.solving.refinement import Refinement
from meanflow_ik_core.solving.search import Search

BEYOND_REACH = np.eye(4) + np.array([[0, 0, 0, 3.0], [0] * 4, [0] * 4, [0] * 4])


class Clock:
    """Stands still but for what the test says takes time."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


class SlowSampler(Sampler):
    """Uniform starts; every call takes a second."""

    def __init__(self, robot: mik.Robot, clock: Clock):
        self._robot, self._clock = robot, clock
        self.calls = []

    @classmethod
    def build(cls, robot, checkpoint, device):
        raise NotImplementedError

    def sample(self, T_base_tip, count, generator, given=None):
        self._clock.now += 1.0
        self.calls.append((len(T_base_tip), count))
        q = self._robot.random_configurations(len(T_base_tip) * count, generator, torch.float32)
        return q.view(len(T_base_tip), count, -1)


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(mik.IKSolver, "clock", staticmethod(clock.perf_counter))
    return clock


@pytest.fixture
def slow(uniform, clock) -> tuple[mik.IKSolver, SlowSampler]:
    sampler = SlowSampler(uniform.robot, clock)
    solver = mik.IKSolver(uniform.robot, sampler, "uniform")
    solver.starts_per_pass = 100
    return solver, sampler


def seconds_per_check(clock: Clock, monkeypatch) -> list[int]:
    """From now on a check for self-collision takes a second per configuration; returned is how
    many each call asked for."""
    asked, exact = [], SelfCollision.in_collision

    def slowly(self, q):
        asked.append(len(q))
        clock.now += len(q)
        return exact(self, q)

    monkeypatch.setattr(SelfCollision, "in_collision", slowly)
    return asked


@pytest.mark.parametrize(("timeout", "passes"), [(1e-9, 1), (1.0, 1), (2.5, 3), (99.0, 5)])
def test_the_first_round_ends_between_two_passes_and_has_at_least_one(
    uniform, slow, timeout, passes
):
    solver, sampler = slow
    result = solver.solve(reachable(uniform.robot, 1, 0), 500, 4, timeout=timeout, seed=0)
    assert sampler.calls == passes * [(1, 100)]
    assert result.starts == {"uniform": passes * 100}
    assert result.valid.all()


def test_further_rounds_end_as_well(uniform, slow):
    solver, sampler = slow
    result = solver.solve(BEYOND_REACH[None], 100, 4, timeout=6.5, seed=0)
    assert sampler.calls == 7 * [(1, 100)]
    assert result.starts == {"uniform": 700} and not result.valid.any()
    assert np.isfinite(result.joint_positions[0]).all()


def test_each_of_many_targets_has_its_share_of_the_time(uniform, slow):
    solver, sampler = slow
    targets, judge = reachable(uniform.robot, 6, 1), Judge(uniform.robot)
    result = solver.solve(targets, 500, 2, timeout=11.5, seed=0)
    assert len(sampler.calls) == 12
    assert result.valid.all()
    for problem, row in np.argwhere(result.valid):
        assert judge.accepts(result.joint_positions[problem, row], targets[problem])


def test_targets_of_one_pass_are_refined_together(uniform, clock, monkeypatch):
    batches = []

    def refined(self, robot, starts, goal, sliding):
        batches.append(len(goal))
        clock.now += 1.0
        return exact(self, robot, starts, goal, sliding)

    exact = Refinement.refined
    monkeypatch.setattr(Refinement, "refined", refined)
    targets = reachable(uniform.robot, 45, 1)
    result = uniform.solve(targets, 100, 2, timeout=8.0, seed=0)
    assert result.valid.all() and batches == [40, 5]


def test_time_that_some_targets_do_not_need_goes_to_the_others(uniform, slow):
    solver, sampler = slow
    targets = reachable(uniform.robot, 4, 1)
    targets[1:, :, :3, 3] += 3.0  # only the first has solutions
    result = solver.solve(targets, 100, 2, timeout=9.5, seed=0)
    assert result.valid.all(1).tolist() == [True, False, False, False]
    assert sampler.calls == 10 * [(1, 100)]


def test_targets_that_were_not_reached_in_time_have_no_candidates(uniform, slow):
    solver, sampler = slow
    result = solver.solve(reachable(uniform.robot, 6, 1), 500, 2, timeout=2.5, seed=0)
    assert len(sampler.calls) == 3
    np.testing.assert_array_equal(result.valid.all(1), np.arange(6) < 3)
    assert np.isnan(result.joint_positions[3:]).all()
    assert np.isinf(result.position_error[3:]).all() and np.isinf(result.cost[3:]).all()
    assert (result.origin[3:] == "").all()


@pytest.mark.parametrize("select", ["best", "diverse"])
def test_self_collision_checks_end_and_what_is_unchecked_is_not_returned(
    uniform, clock, monkeypatch, select
):
    target = reachable(uniform.robot, 1, 2)
    touching = uniform.self_collision.in_collision
    full = uniform.solve(target, 512, 40, seed=0, select=select, avoid_self_collision=True)
    asked = seconds_per_check(clock, monkeypatch)
    options = {"seed": 0, "select": select, "avoid_self_collision": True, "max_rounds": 1}
    short = uniform.solve(target, 512, 40, timeout=9.5, **options)
    assert sum(asked) == 12  # the clock is looked at every 4
    assert full.valid.sum() == 40 > 12 >= short.valid.sum() > 0
    assert not touching(short.joint_positions[short.valid]).any()
    first = uniform.solve(target, 512, 40, timeout=1e-9, **options)
    assert 0 < first.valid.sum() <= 4


def test_checks_are_not_repeated_in_later_passes(uniform, clock, monkeypatch):
    monkeypatch.setattr(uniform, "starts_per_pass", 100)
    asked = seconds_per_check(clock, monkeypatch)
    result = uniform.solve(
        reachable(uniform.robot, 1, 2), 1000, 8, seed=0, avoid_self_collision=True, max_rounds=1
    )
    assert result.valid.all()
    # Of numbers that come in any order, the 8 best so far change some 8 ln(10) times.
    assert 8 <= sum(asked) < 60


@pytest.mark.parametrize("select", ["best", "diverse"])
def test_few_checks_give_the_rows_that_all_checks_give(uniform, clock, monkeypatch, select):
    def check_all(search, problem, pool, deadline):
        search._set_valid(pool, np.flatnonzero(~pool.checked), deadline)
        return pool

    targets = reachable(uniform.robot, 10, 4)
    options = {"seed": 0, "select": select, "min_separation": 0.3, "avoid_self_collision": True}
    monkeypatch.setattr(uniform, "starts_per_pass", 640)  # later rounds find pools as well
    asked = seconds_per_check(clock, monkeypatch)
    quick = uniform.solve(targets, 64, 16, **options)
    few = sum(asked)
    monkeypatch.setattr(Search, "_checked", check_all)
    thorough = uniform.solve(targets, 64, 16, **options)
    np.testing.assert_array_equal(quick.joint_positions, thorough.joint_positions)
    np.testing.assert_array_equal(quick.valid, thorough.valid)
    assert few < 0.9 * (sum(asked) - few)


def test_null_space_steps_end_in_time_and_lose_no_solution(uniform, clock):
    target = reachable(uniform.robot, 1, 3)

    def reach(q, robot):
        if q.requires_grad:  # a step; the ranking and the samples take no time
            clock.now += 1.0
        return q[..., 0] ** 2

    goal = {"name": "custom", "function": reach}
    options = {"num_samples": 64, "max_solutions": 8, "seed": 0, "guidance_choices": 1}
    plain, full = (
        uniform.solve(target, objectives=[goal], objective_steps=steps, **options)
        for steps in (0, 10)
    )
    took = clock.now
    values = [plain.objective_values[0, :, 0].min()]
    for timeout, steps in ((1e-9, 1), (3.5, 4), (1e3, took)):
        clock.now = 0.0
        result = uniform.solve(target, objectives=[goal], timeout=timeout, **options)
        assert clock.now == steps
        assert result.valid.sum() == plain.valid.sum() == 8
        values.append(result.objective_values[0, :, 0].min())
    assert values[0] == pytest.approx(values[1]) and values[1] > values[2] >= values[3], values
    np.testing.assert_array_equal(result.joint_positions, full.joint_positions)


def test_no_null_space_steps_are_taken_where_the_time_is_over(uniform, slow):
    solver, _ = slow
    target = reachable(uniform.robot, 1, 3)
    options = {"num_samples": 100, "max_solutions": 8, "seed": 0, "objectives": ["posture"]}
    plain = solver.solve(target, objective_steps=0, **options)
    result = solver.solve(target, timeout=0.5, **options)
    np.testing.assert_array_equal(result.joint_positions, plain.joint_positions)


def test_time_is_kept_to_check_what_the_null_space_gives(uniform, clock, monkeypatch):
    target = reachable(uniform.robot, 1, 3)
    asked = seconds_per_check(clock, monkeypatch)

    def reach(q, robot):
        clock.now += 3.0 * q.requires_grad
        return q[..., 0] ** 2

    result = uniform.solve(
        target, 64, 8, seed=0, guidance_choices=1, avoid_self_collision=True, timeout=100.0,
        objectives=[{"name": "custom", "function": reach}], objective_steps=1000,
    )  # fmt: skip
    assert result.valid.all() and sum(asked) >= 16
    assert clock.now <= 100.0 + 3.0


ROBOTS = {"panda": ("panda", None), "torso": (TORSO, TORSO_TIPS)}
SETTINGS = {
    "plain": {},
    "many passes": {"num_samples": 5000},
    "diverse": {"select": "diverse", "num_samples": 5000},
    "collision": {"avoid_self_collision": True},
    "collision, diverse": {"avoid_self_collision": True, "select": "diverse"},
    "objective": {"objectives": ["joint_limits"], "avoid_self_collision": True},
    "adam": {"refinement": "adam", "position_tolerance": 1.0, "orientation_tolerance": 4.0},
}


@pytest.mark.parametrize("name", ROBOTS)
@pytest.mark.parametrize("setting", SETTINGS)
def test_a_timeout_that_is_not_hit_changes_nothing(name, setting):
    urdf, tips = ROBOTS[name]
    solver = mik.load_solver(mik.load_robot(urdf, tips=tips), sampler="uniform")
    targets = reachable(solver.robot, 3, 4)
    middle = 0.5 * (solver.robot.lower + solver.robot.upper)
    options = {"num_samples": 300, "max_solutions": 1, "seed_state": middle, "seed": 5}
    options |= SETTINGS[setting]
    free, bound = (solver.solve(targets, timeout=timeout, **options) for timeout in (None, 600.0))
    assert free.valid.all()
    for field in fields(free):
        if field.name not in ("timing", "_evidence"):
            np.testing.assert_array_equal(getattr(free, field.name), getattr(bound, field.name))


def test_learned_starts_are_the_same_with_a_timeout_that_is_not_hit(learned):
    targets = reachable(learned.robot, 30, 4)
    free, bound = (
        learned.solve(targets, 200, 4, seed=1, timeout=timeout) for timeout in (None, 600.0)
    )
    assert free.valid.all()
    np.testing.assert_array_equal(free.joint_positions, bound.joint_positions)


def test_a_call_of_very_many_starts_is_cut_short_and_returns_solutions(learned):
    target, judge = reachable(learned.robot, 1, 6), Judge(learned.robot)
    result = learned.solve(target, 200_000, seed=0, timeout=0.05)
    assert result.starts["meanflow"] < 100_000
    assert result.valid.all()
    assert all(judge.accepts(q, target[0]) for q in result.joint_positions[0])


def test_the_seed_is_among_the_starts_of_a_call_without_time(uniform):
    q = uniform.robot.random_configurations(1, torch.Generator().manual_seed(7)).numpy()
    result = uniform.solve(uniform.robot.forward(q), seed_state=q, seed=0, timeout=1e-9)
    assert result.starts == {"seed": 1, "uniform": 128}
    np.testing.assert_allclose(result.joint_positions[0, 0], q[0], atol=1e-6)


@pytest.mark.parametrize(("rounds", "starts"), [(1, 64), (2, 128), (3, 256), (None, 1024)])
def test_rounds_can_be_limited(uniform, rounds, starts):
    result = uniform.solve(BEYOND_REACH[None], 64, seed=0, max_rounds=rounds)
    assert result.starts["uniform"] == starts
    # One solution begins with fewer, but the first round has as many starts.
    one = uniform.solve(BEYOND_REACH[None], 64, 1, seed=0, max_rounds=rounds)
    assert one.starts["uniform"] == starts
    world = mik.World(uniform.robot)
    world.add_sphere("far", 0.1, xyz=(9.0, 0.0, 0.0))
    far = uniform.solve(BEYOND_REACH[None], 64, 1, seed=0, max_rounds=rounds, world=world)
    assert far.starts["uniform"] == starts


@pytest.mark.parametrize("solutions", [1, 4])
def test_targets_of_a_world_that_were_not_begun_in_time_say_so(uniform, solutions):
    world = mik.World(uniform.robot)
    world.add_sphere("far", 0.1, xyz=(9.0, 0.0, 0.0))
    targets = reachable(uniform.robot, 300, 8)
    result = uniform.solve(targets, 64, solutions, seed=0, timeout=1e-3, world=world)
    missed = ~result.valid.any(1)
    assert missed.any() and (result.status[missed] == mik.Status.TIME_USED_UP).all()
    assert "the time was used up after" in result.explain(int(missed.argmax()))


class Counted(Objective):
    """Says the same of every configuration; a thousand take a second."""

    def __init__(self, robot: mik.Robot, clock: Clock):
        super().__init__(robot, 1.0)
        self._clock, self.rows = clock, 0

    def value(self, q):
        self._clock.now += 1e-3 * q[..., 0].numel()
        self.rows += q[..., 0].numel()
        return torch.zeros_like(q[..., 0])


@pytest.mark.parametrize("select", ["best", "diverse"])
@pytest.mark.parametrize("num_objectives", [1, 32])
@pytest.mark.parametrize("in_world", [False, True])
def test_many_starts_with_objectives_end_at_the_limit_and_come_in_parts(
    uniform, clock, in_world, num_objectives, select
):
    objective, pieces = Counted(uniform.robot, clock), [0]
    world = mik.World(uniform.robot) if in_world else None
    if world is not None:
        world.add_sphere("far", 0.1, xyz=(5, 0, 0))

    def between():
        pieces.append(objective.rows)

    result = uniform.solve(
        reachable(uniform.robot, 1, 0), 20_000, 20_000, seed=0, world=world, select=select,
        objectives=[objective] * num_objectives, time_limit=30.0, between=between,
    )  # fmt: skip
    pieces.append(objective.rows)
    # Four choices for each of 256 starts of up to four objectives, and what follows of these.
    assert np.diff(pieces).max() <= 2 * 4 * 256 * 4
    assert 30 <= clock.now < 40 and result.valid.any()
    known = np.isfinite(result.objective_values[0][result.valid[0]])
    assert known[: 256 * 4 // max(4, num_objectives)].all()


def test_distances_of_many_candidates_are_found_in_parts(uniform, clock, monkeypatch):
    asked, exact = [], WorldDistance.of

    def counted(self, q, *arguments, **options):
        asked.append(len(q))
        clock.now += 1e-3 * len(q)
        return exact(self, q, *arguments, **options)

    monkeypatch.setattr(WorldDistance, "of", counted)
    world = mik.World(uniform.robot)
    world.add_sphere("far", 0.1, xyz=(5, 0, 0))
    target = reachable(uniform.robot, 1, 0)
    result = uniform.solve(target, 20_000, 20_000, seed=0, world=world, time_limit=1.0)
    assert max(asked) <= 256 and clock.now < 2 and result.valid.any()
