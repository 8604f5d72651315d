# SPDX-License-Identifier: Apache-2.0
"""`solve` and `sample` on a GPU, transfers included, beside one core of the CPU.

On a machine without a CUDA device there is nothing to measure, which is said in a line.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

from ..errors import RobotError
from ..progress import tracked
from ..solving.solver import IKSolver, load_solver
from .judge import Judge
from .result import (
    BenchResult,
    Measure,
    NothingToMeasure,
    at_least_one,
    environment,
    torch_threads,
)
from .targets import reachable_targets

TOLERANCE = 1e-5  # m and rad
_JUDGED = 200  # poses of a row
_ON_CPU = 10_000  # poses times solutions, of which the time of all is told


class Row(NamedTuple):
    """A question, and how long its answer may take on an H100 or H200."""

    name: str
    robot: str
    poses: int
    num_samples: int
    solutions: int  # of each pose; 0: samples
    most_ms: float


ROWS = (
    Row("Panda, 100 poses, one solution each", "panda", 100, 128, 1, 2.0),
    Row("Panda, 1,000 poses, 32 different solutions each", "panda", 1000, 128, 32, 12.0),
    Row("Panda, 100,000 poses, one solution each", "panda", 100_000, 128, 1, 60.0),
    Row("two Pandas, 1,000 poses, one solution each", "dual_panda", 1000, 128, 1, 10.0),
    Row("G1, 1,000 poses, one solution each", "g1", 1000, 128, 1, 40.0),
    Row("Panda, 1,000 samples of each of 1,000 poses", "panda", 1000, 1000, 0, 5.0),
)


def run(
    *,
    device: str = "cuda",
    sampler: str = "meanflow",
    share: float = 1.0,
    repetitions: int = 20,
    seed: int = 0,
) -> BenchResult:
    """Median time of a call for each row; ``share`` is that of the poses."""
    at_least_one(repetitions=repetitions)
    if device == "cuda" and not torch.cuda.is_available():
        raise NothingToMeasure("there is no CUDA device")
    measures = [
        measure
        for row in tracked(ROWS, "rows")
        for measure in measure_row(row, device, sampler, share, repetitions, seed)
    ]
    options = {
        "device": device, "sampler": sampler, "share": share, "repetitions": repetitions,
        "seed": seed, "tolerance": TOLERANCE,
    }  # fmt: skip
    return BenchResult("gpu", tuple(measures), options, environment())


def measure_row(
    row: Row, device: str, sampler: str, share: float, repetitions: int, seed: int
) -> list[Measure]:
    """The times of a row on both devices, and what Pinocchio says; nothing without the robot."""
    try:
        solver = load_solver(row.robot, device=device, sampler=sampler)
    except RobotError:  # of a package that is not installed
        return []
    cpu = load_solver(solver.robot, sampler=sampler)
    poses = max(1, round(share * row.poses))
    T_base_tip = reachable_targets(solver.robot, poses, seed)
    bar = row.most_ms if device == "cuda" and share == 1 else None
    seconds, answer = _timed(row, solver, T_base_tip, repetitions, seed)
    few = max(1, min(poses, _ON_CPU // max(1, row.solutions)))
    with torch_threads(1):
        cpu_seconds, _ = _timed(row, cpu, T_base_tip[:few], 1, seed)
    measures = [
        Measure(f"{row.name}: {device}", seconds * 1e3, "ms", at_most=bar),
        Measure(f"{row.name}: one core", cpu_seconds * poses / few * 1e3, "ms"),
    ]
    if row.solutions:
        right, wrong = _judged(solver, answer, T_base_tip)
        measures += [
            Measure(f"{row.name}: poses solved", float(answer.valid[:, 0].mean()), at_least=0.99),
            Measure(f"{row.name}: solutions of a pose", right),
            Measure(f"{row.name}: wrong claims", wrong, "solutions", at_most=0),
        ]
    return measures


def _timed(
    row: Row, solver: IKSolver, T_base_tip: np.ndarray, repetitions: int, seed: int
) -> tuple[float, Any]:
    """Median seconds of a call, the first two apart, and its answer.

    The first one compiles, the second one captures what comes again.
    """
    call: Callable[[], Any] = lambda: solver.sample(T_base_tip, row.num_samples, seed)  # noqa: E731
    if row.solutions:
        call = lambda: solver.solve(  # noqa: E731
            T_base_tip, row.num_samples, row.solutions, seed=seed,
            position_tolerance=TOLERANCE, orientation_tolerance=TOLERANCE,
        )  # fmt: skip
    for _ in range(2):
        call()
    answer, seconds = None, []
    for _ in range(repetitions):
        began = time.perf_counter()
        answer = call()
        seconds.append(time.perf_counter() - began)
    return float(np.median(seconds)), answer


def _judged(solver: IKSolver, answer: Any, T_base_tip: np.ndarray) -> tuple[float, float]:
    """Mean number of right solutions of some poses, and how many claims are wrong."""
    judge = Judge(solver.robot)
    some = np.linspace(0, len(T_base_tip) - 1, min(len(T_base_tip), _JUDGED)).astype(int)
    counts = [judge.count(answer, b, T_base_tip[b], TOLERANCE, TOLERANCE) for b in some]
    right, wrong = np.array(counts).T
    return float(right.mean()), float(wrong.sum())
