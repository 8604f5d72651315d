# SPDX-License-Identifier: Apache-2.0
"""Latency of the tasks of every day: wrong answers are found out, and slow ones are slow."""

import dataclasses
import json
import time

import numpy as np
import pytest

from meanflow_ik_core.bench import BENCHES, latency
from meanflow_ik_core.bench.peer_solvers import ours
from meanflow_ik_core.bench.report import TABLES
from meanflow_ik_core.bench.result import BenchResult

SMALL = {"robots": "panda", "poses": 3, "batches": 1, "batch": 5}


class Tampered:
    """The true solver, whose answers are changed before they are handed out."""

    def __init__(self, solver, change):
        self._solver, self._change = solver, change
        self.robot, self.sampler = solver.robot, solver.sampler

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
    monkeypatch.setattr(ours, "load_solver", lambda *args, **options: tampered)
    monkeypatch.setattr(latency, "available_checkpoints", list)
    result = BENCHES["latency"](**SMALL)
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
    monkeypatch.setattr(ours, "load_solver", lambda *args, **options: far)
    monkeypatch.setattr(latency, "available_checkpoints", list)
    found = shares(BENCHES["latency"](**{**SMALL, "poses": 10}))
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


def test_the_tables_have_a_row_for_each_task_and_a_column_for_each_sampler(tmp_path):
    result = BENCHES["latency"](**{**SMALL, "poses": 1})
    (tmp_path / "latency.json").write_text(json.dumps(result.as_dict()))
    head, _, *rows = TABLES["latency"](tmp_path).splitlines()
    assert head == "| robot | task | bar | `uniform` | network |"
    assert len(rows) == 9 and all(len(row.split("|")) == 7 for row in rows)
    first = [cell.strip() for cell in rows[0].split("|")[1:-1]]
    assert first[:3] == ["panda", "one solution", "≤ 0.1 / 0.3"]
    for name, cell in zip(("uniform", "meanflow"), first[3:], strict=True):
        assert cell.startswith(f"{result[f'panda, one solution: {name}, median']:.2g} / ")
    choice = TABLES["sampler"](tmp_path)
    assert choice.splitlines()[2].split(" | ")[2] == first[3].removesuffix(" **missed**")
