# SPDX-License-Identifier: Apache-2.0
"""The measurements of all robots mean what they say."""

import dataclasses
import json
from collections import defaultdict
from pathlib import Path

import pytest
import torch
from example_robots import TORSO, TORSO_TIPS

import meanflow_ik_core as mik
from meanflow_ik_core.bench import BENCHES, robots
from meanflow_ik_core.bench.judge import Judge
from meanflow_ik_core.bench.report import robots_table
from meanflow_ik_core.bench.result import BenchResult
from meanflow_ik_core.bench.targets import reachable_targets, target_generator
from meanflow_ik_core.collision.self_collision import SelfCollision
from meanflow_ik_core.network.checkpoint import available_checkpoints

DOCS = Path(__file__).parents[2] / "docs" / "robots.md"
SMALL = {
    "poses": 3, "success_poses": 5, "tuning_poses": 2, "samples": 20, "solutions": 2,
    "starts": "16,64",
}  # fmt: skip


@pytest.fixture(scope="module")
def result() -> BenchResult:
    return BENCHES["robots"](robots="panda,dual_panda", **SMALL)


def test_ratios_are_those_of_the_measures(result):
    share = "valid after 5 steps"
    ratio = result[f"panda, meanflow: {share}"] / result[f"panda, uniform: {share}"]
    assert result[f"panda, ratio: {share}"] == pytest.approx(ratio)
    for other, name in (("uniform", "uniform starts"), ("restarts", "plain restarts")):
        for kind, measure in (
            ("median", "median time"),
            ("mean", "mean time"),
            ("median of processor time", "median processor time"),
        ):
            theirs, ours = (
                result[f"dual_panda, {side}: 2 solutions, {measure}"]
                for side in (other, "meanflow")
            )
            found = result[f"dual_panda, ratio: faster than {name} to 2, {kind}"]
            assert found == pytest.approx(theirs / ours)


def test_raw_errors_of_uniform_starts_are_those_of_chance(result):
    for robot in ("panda", "dual_panda"):
        assert 500 < result[f"{robot}, uniform: raw position error"] < 1500
        assert 115 < result[f"{robot}, uniform: raw rotation error"] < 140
    assert result["panda, meanflow: raw position error"] < 100


def test_plain_restarts_are_measured_where_tips_share_no_joint(result):
    names = [measure.what for measure in result.measures]
    assert any(name.startswith("dual_panda, restarts: ") for name in names)
    assert not any(name.startswith("panda, restarts: ") for name in names)


class Timed:
    """The true solver, whose calls take as long as the test says, by clocks that count no others.

    ``seconds_of`` gets a call's targets and options; it returns seconds and processor seconds.
    """

    def __init__(self, solver, seconds_of, shift=0.0):
        self._solver, self._seconds_of, self._shift = solver, seconds_of, shift
        self._seconds, self._busy = 0.0, 0.0
        self.robot, self.sample, self.warm_up = solver.robot, solver.sample, solver.warm_up

    def solve(self, targets, **options):
        seconds, busy = self._seconds_of(targets, options)
        self._seconds += seconds
        self._busy += busy
        result = self._solver.solve(targets, **{**options, "timeout": None})
        return dataclasses.replace(result, joint_positions=result.joint_positions + self._shift)

    def perf_counter(self) -> float:
        return self._seconds

    def process_time(self) -> float:
        return self._busy


@pytest.mark.parametrize(
    ("seconds", "shift", "solved", "solved_busy"),
    [(0.019, 0.0, 1, 1), (0.021, 0.0, 0, 1), (0.01, 0.1, 0, 0)],
    ids=["in time", "late", "wrong"],
)
def test_a_pose_that_is_solved_late_or_wrongly_is_not_solved(
    uniform, monkeypatch, seconds, shift, solved, solved_busy
):
    timed = Timed(uniform, lambda targets, options: (seconds, 0.001), shift)
    monkeypatch.setattr(robots, "load_solver", lambda *args, **options: timed)
    monkeypatch.setattr(robots, "time", timed)
    result = BENCHES["robots"](robots="panda", **SMALL)
    assert result["panda, uniform: solved in 20 ms"] == solved
    assert result["panda, uniform: within 20 ms of processor time"] == solved_busy
    median = result["panda, uniform: first solution, median time"]
    assert median == pytest.approx(1e3 * seconds)


def test_each_side_takes_the_starts_that_serve_it_best_for_one_solution_and_for_several(
    monkeypatch,
):
    best = {(True, 1): 16, (True, 2): 64, (False, 1): 64, (False, 2): 16}

    tried = defaultdict(set)

    def seconds_of(targets, options):
        tried[targets.tobytes()].add(options["num_samples"])
        wanted = best[options["recombining"], options["max_solutions"]]
        return 0.001 * (1 + abs(options["num_samples"] - wanted)), 0.001

    timed = Timed(mik.load_solver("dual_panda", sampler="uniform"), seconds_of)
    monkeypatch.setattr(robots, "load_solver", lambda *args, **options: timed)
    monkeypatch.setattr(robots, "time", timed)
    result = BENCHES["robots"](robots="dual_panda", **SMALL)
    for side in ("uniform", "meanflow"):
        assert result[f"dual_panda, {side}: starts for the first solution"] == 16
        assert result[f"dual_panda, {side}: starts for 2 solutions"] == 64
    assert result["dual_panda, restarts: starts for 2 solutions"] == 16
    assert list(tried.values())[: SMALL["tuning_poses"]] == [{16, 64}] * SMALL["tuning_poses"]


def test_robots_are_coupled_when_a_joint_moves_two_tips(torso):
    assert robots.is_coupled(torso)
    assert not robots.is_coupled(mik.load_robot("dual_panda"))
    assert not robots.is_coupled(mik.load_robot(TORSO, tips=TORSO_TIPS, base="waist"))


def test_targets_are_reachable_free_and_no_start_is_their_answer(dual_panda):
    targets = reachable_targets(dual_panda, 5, 0, SelfCollision(dual_panda))
    solver = mik.load_solver(dual_panda, sampler="uniform")
    found = solver.solve(targets, max_solutions=1, avoid_self_collision=True, seed=1)
    assert found.valid.all()
    for seed in range(5):
        starts = solver.sample(targets, 5, seed=seed)
        position, _ = Judge(dual_panda).errors(starts[0], targets[0])
        assert position.max(-1).min() > 1e-2


def test_seeds_of_targets_are_none_of_starts_in_any_bit_that_torch_looks_at():
    seeds = [target_generator(seed).initial_seed() for seed in range(50)]
    assert len(set(seeds)) == 50
    assert min(seed % 2**32 for seed in seeds) > 10_000
    # as an offset by 2^40 is not
    draws = [torch.rand(4, generator=torch.Generator().manual_seed(s)) for s in (3, 3 + 2**40)]
    assert torch.equal(*draws)
    assert not torch.equal(draws[0], torch.rand(4, generator=target_generator(3)))


def test_the_tables_have_a_row_for_each_robot(result, tmp_path):
    (tmp_path / "robots.json").write_text(json.dumps(result.as_dict()))
    overview, samples, first, several = robots_table(tmp_path).split("\n\n")
    for table in (overview, samples, first, several):
        head, rule, dual, single = table.splitlines()
        assert head.count("|") == rule.count("|") == dual.count("|") == single.count("|")
        assert {dual.split(" | ")[0], single.split(" | ")[0]} == {"| dual_panda", "| panda"}
    single, dual = overview.splitlines()[2:]
    assert dual.startswith("| dual_panda | 14 | 2 | ") and " MB | " in dual
    assert single.count(" in 20 ms") == 1 and single.endswith(" ms |")
    head, _, single, dual = (
        [cell.strip() for cell in line.split("|")[1:-1]] for line in several.splitlines()
    )
    restarts = slice(head.index("plain restarts: starts"), None)
    own = [title.startswith("times faster than uniform") for title in head].index(True)
    assert all(dual)
    assert not any(single[restarts][:5]) and all(single[own : own + 3])


def test_the_documentation_names_the_robots_that_have_a_checkpoint():
    lines = DOCS.read_text().splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if "|" in line]
    named = {row[0].strip("`"): row[5] for row in rows if len(row) == 7 and row[0][0] == "`"}
    assert set(named) == set(mik.available_robots())
    assert {name for name, cell in named.items() if cell == "yes"} == set(available_checkpoints())
