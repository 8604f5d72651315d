# SPDX-License-Identifier: Apache-2.0
"""The measurements of all robots mean what they say."""

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
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

RECORDS = Path(__file__).parents[2] / "docs" / "benchmarks" / "robots"
DOCS = Path(__file__).parents[2] / "docs" / "robots.md"
SMALL = {
    "poses": 3, "success_poses": 5, "tuning_poses": 2, "samples": 20, "solutions": 2,
    "starts": "16,64",
}  # fmt: skip


@pytest.fixture(scope="module")
def result() -> BenchResult:
    return BENCHES["robots"](robots="panda,dual_panda", **SMALL)


@pytest.fixture(scope="module")
def panda() -> mik.IKSolver:
    return mik.load_solver("panda", sampler="uniform")


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


def answer_in(seconds_of, q):
    """In place of `_solve`: valid solutions after the seconds that ``seconds_of`` says."""

    def solve(side, target, count, starts, limit, seed):
        return np.repeat(q[None], count, 0), *seconds_of(count, starts)

    return solve


def always(q, target):
    return np.ones(len(q), dtype=bool)


@pytest.mark.parametrize(
    ("seconds", "right", "solved"),
    [(0.019, True, True), (0.021, True, False), (0.01, False, False)],
)
def test_a_pose_that_is_solved_late_or_wrongly_is_not_solved(monkeypatch, seconds, right, solved):
    monkeypatch.setattr(
        robots, "_solve", answer_in(lambda count, starts: (seconds, 0.001), np.zeros(7))
    )
    tally = robots._Tally(starts_for_one=16)
    valid = always if right else lambda q, target: ~always(q, target)
    robots._first(None, tally, np.eye(4)[None], 0.02, 0, valid)
    assert (tally.solved, tally.first) == ([solved], [seconds])
    assert tally.solved_busy == [right]


def test_each_side_takes_the_starts_that_serve_it_best_for_one_solution_and_for_several(
    panda, monkeypatch
):
    best = {(True, 1): 16, (True, 10): 64, (False, 1): 32, (False, 10): 16}
    asked = defaultdict(set)

    def solve(side, target, count, starts, limit, seed):
        asked[target.tobytes()].add(starts)
        return np.zeros((0, 7)), abs(starts - best[side.recombining, count]) + 1.0, 0.0

    monkeypatch.setattr(robots, "_solve", solve)
    sides = {"a": robots._Side(panda), "b": robots._Side(panda, recombining=False)}
    tallies = {name: robots._Tally() for name in sides}
    plan = robots._Plan(1, 1, 1, 10, (16, 32, 64), 2, 0)
    targets = panda.robot.forward(np.array([[0.0] * 7, [0.1] * 7]))
    robots._choose_starts(sides, tallies, targets, plan, 0.02)
    assert [(t.starts_for_one, t.starts) for t in tallies.values()] == [(16, 64), (32, 16)]
    assert list(asked.values()) == [{16, 32, 64}, {16, 32, 64}]


def test_robots_are_coupled_when_a_joint_moves_two_tips():
    torso = mik.load_robot(TORSO, tips=TORSO_TIPS)
    assert robots.is_coupled(torso)
    assert not robots.is_coupled(mik.load_robot("dual_panda"))
    assert not robots.is_coupled(mik.load_robot(TORSO, tips=TORSO_TIPS, base="waist"))


def test_targets_are_reachable_free_and_no_start_is_their_answer():
    robot = mik.load_robot("dual_panda")
    targets = reachable_targets(robot, 5, 0, SelfCollision(robot))
    solver = mik.load_solver(robot, sampler="uniform")
    found = solver.solve(targets, max_solutions=1, avoid_self_collision=True, seed=1)
    assert found.valid.all()
    for seed in range(5):
        starts = solver.sample(targets, 5, seed=seed)
        position, _ = Judge(robot).errors(starts[0], targets[0])
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


def test_the_tables_of_the_documentation_are_those_of_the_record():
    _, marked = DOCS.read_text().split("<!-- robots -->\n")
    assert marked.split("\n<!-- end -->")[0] == robots_table(RECORDS)


def test_the_documentation_names_the_robots_that_have_a_checkpoint():
    lines = DOCS.read_text().splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if "|" in line]
    named = {row[0].strip("`"): row[5] for row in rows if len(row) == 7 and row[0][0] == "`"}
    assert set(named) == set(mik.available_robots())
    assert {name for name, cell in named.items() if cell == "yes"} == set(available_checkpoints())
