# SPDX-License-Identifier: Apache-2.0
"""Latency beside other solvers: peers are asked rightly, and wrong answers are found out."""

import builtins
import dataclasses
import json
import time

import numpy as np
import pytest
from example_robots import draw

import meanflow_ik_core as mik
from meanflow_ik_core.bench import BENCHES, latency, peers
from meanflow_ik_core.bench.judge import Judge, different
from meanflow_ik_core.bench.peers import PEERS, Peer, Stopwatch, TracIK
from meanflow_ik_core.bench.report import TABLES
from meanflow_ik_core.bench.result import BenchResult
from meanflow_ik_core.bench.solve import TOLERANCE

SMALL = {"robots": "panda", "poses": 3, "batches": 1, "batch": 5}


@pytest.fixture(params=PEERS)
def peer(request, panda, monkeypatch) -> Peer:
    monkeypatch.setattr(peers, "TIMEOUT", 0.05)  # by the clock, of a machine that does more
    try:
        return PEERS[request.param](panda, Judge(panda), 0)
    except ImportError:
        pytest.skip(f"{request.param} is not installed")


def test_a_peer_solves_within_the_limits_and_its_time_is_taken(panda, peer):
    judge, q = Judge(panda), draw(panda, 20, 1).numpy()
    near = np.clip(q + np.random.default_rng(2).normal(0, 0.02, q.shape), panda.lower, panda.upper)
    starts, targets = draw(panda, 20, 3).numpy(), panda.forward(q)
    solved = {"one": 0, "near": 0, "nearest": 0}
    for row, target in enumerate(targets):
        for method, start in (("one", starts[row]), ("near", near[row]), ("nearest", starts[row])):
            watch = Stopwatch()
            found = getattr(peer, method)(watch, target, start)
            assert watch.busy > 0 and watch.clock > 0
            assert len(found) <= 1
            solved[method] += judge.accepts(found, target, TOLERANCE, TOLERANCE).sum()
    # frankik misses some by its sweep, and is wrong at times.
    assert min(solved.values()) >= 14, solved
    assert [len(found) for found in peer.batch(Stopwatch(), targets[:3], starts[:3])] == [1, 1, 1]


def test_a_peer_finds_different_solutions(panda, peer):
    target = panda.forward(draw(panda, 1, 3).numpy())[0]
    watch = Stopwatch()
    found = peer.several(watch, target, 0.5 * (panda.lower + panda.upper), 5)
    assert len(found) == len(different(found)) == 5 and watch.busy > 0
    assert Judge(panda).accepts(found, target, TOLERANCE, TOLERANCE).all()


def test_a_peer_finds_nothing_beyond_reach(panda, peer):
    target = panda.forward(draw(panda, 1, 3).numpy())[0]
    target[0, :3, 3] += 5.0
    assert peer.one(Stopwatch(), target, panda.upper).shape == (0, 7)


def test_restarts_from_the_same_start_are_no_different_solutions(panda):
    pytest.importorskip("pytracik")
    peer, middle = TracIK(panda, Judge(panda), 0), 0.5 * (panda.lower + panda.upper)

    class SameStart:
        def uniform(self, lower, upper):
            return middle

    peer._random = SameStart()
    assert len(peer.several(Stopwatch(), panda.forward(middle), middle, 3)) == 1


def test_a_stopwatch_tells_work_from_waiting():
    watch = Stopwatch()
    watch(time.sleep, 0.1)
    assert watch.busy < 0.05 < 0.1 <= watch.clock


def test_a_missing_peer_is_named_with_the_command_that_brings_it(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **options):
        if name.partition(".")[0] in ("ssik", "frankik", "optik", "pytracik"):
            raise ImportError(name)
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    result = BENCHES["latency"](**SMALL)
    assert result.options["missing"].split(", ") == [
        "pip install ssik", "pip install frankik", "pip install optik-py", "pip install pytracik",
    ]  # fmt: skip
    with pytest.raises(mik.OptionError, match="pip install optik-py"):
        BENCHES["latency"](**SMALL, peers="optik")


class Tampered:
    """The true solver, whose answers are changed before they are handed out."""

    def __init__(self, solver, change):
        self._solver, self._change = solver, change
        self.robot, self.sampler = solver.robot, solver.sampler
        self.self_collision = solver.self_collision

    def solve(self, *args, **options):
        return self._change(self._solver.solve(*args, **options))


def shifted(result):
    return dataclasses.replace(result, joint_positions=result.joint_positions + 1e-3)


def all_claimed(result):
    q = np.nan_to_num(result.joint_positions)
    return dataclasses.replace(result, joint_positions=q, valid=np.ones_like(result.valid))


def repeated(result):
    q = np.repeat(result.joint_positions[:, :1], result.joint_positions.shape[1], 1)
    return dataclasses.replace(result, joint_positions=q)


def slow(result):
    began = time.process_time()
    while time.process_time() - began < 0.02:
        pass
    return result


def shares(result: BenchResult) -> dict[str, float]:
    return {m.what: m.value for m in result.measures if m.what.endswith(", solved")}


@pytest.mark.parametrize(
    ("change", "unsolved"),
    [
        (shifted, {*("one solution", "seeded near it", "nearest to a random seed"),
                   *("32 different", "100 different", "100 diverse of 1,000 starts"),
                   *("5 poses, one each", "one solution, free of self-collision")}),
        (all_claimed, {"beyond reach"}),
        (repeated, {"32 different", "100 different", "100 diverse of 1,000 starts"}),
        (slow, set()),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)  # fmt: skip
def test_wrong_answers_are_not_solved_and_slow_ones_are_slow(
    panda, uniform, monkeypatch, change, unsolved
):
    tampered = Tampered(uniform, change)
    monkeypatch.setattr(latency, "load_solver", lambda *args, **options: tampered)
    result = BENCHES["latency"](**SMALL, peers="none")
    found = shares(result)
    assert {what.split(": ")[0] for what, share in found.items() if share == 0} >= {
        f"panda, {task}" for task in unsolved
    }
    if change is slow:
        medians = [m for m in result.measures if m.what.endswith(", median")]
        assert len(medians) == 9 and min(m.value for m in medians) >= 20
        assert found["panda, one solution: uniform, solved"] == 1


def test_a_solution_far_from_the_seed_is_not_the_nearest(panda, uniform, monkeypatch):
    def without_seed(*args, seed_state=None, **options):
        return uniform.solve(*args, **options)

    far = Tampered(uniform, lambda result: result)
    far.solve = without_seed
    monkeypatch.setattr(latency, "load_solver", lambda *args, **options: far)
    found = shares(BENCHES["latency"](**{**SMALL, "poses": 10}, peers="none"))
    assert found["panda, one solution: uniform, solved"] == 1
    assert found["panda, seeded near it: uniform, solved"] < 0.5
    assert found["panda, nearest to a random seed: uniform, solved"] < 0.5


def test_robots_of_several_arms_are_asked_for_one_solution():
    result = BENCHES["latency"](**{**SMALL, "robots": "dual_panda"})
    tasks = {measure.what.split(": ")[0] for measure in result.measures}
    assert tasks == {
        "dual_panda, one solution", "dual_panda, one solution, free of self-collision",
    }  # fmt: skip
    assert set(shares(result).values()) == {1.0}


def test_the_tables_have_a_row_for_each_task_and_a_column_for_each_solver(tmp_path):
    result = BENCHES["latency"](**{**SMALL, "poses": 1})
    (tmp_path / "latency.json").write_text(json.dumps(result.as_dict()))
    head, rule, *rows = TABLES["latency"](tmp_path).splitlines()
    solvers = {m.what.split(": ")[1].split(", ")[0] for m in result.measures if ", med" in m.what}
    assert len(head.split("|")) == len(rule.split("|")) == 5 + len(solvers)
    assert len(rows) == 9 and all(len(row.split("|")) == 5 + len(solvers) for row in rows)
    first = [cell.strip() for cell in rows[0].split("|")[1:-1]]
    assert first[:3] == ["panda", "one solution", "≤ 0.1 / 0.3"]
    value = result["panda, one solution: uniform, median"]
    assert first[3].startswith(f"{value:.2g} / ")
    choice = TABLES["sampler"](tmp_path)
    assert choice.splitlines()[2].split(" | ")[2] == first[3].removesuffix(" **missed**")
