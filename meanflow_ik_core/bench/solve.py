# SPDX-License-Identifier: Apache-2.0
"""`solve` on random reachable poses, one pose a call, judged by Pinocchio."""

from __future__ import annotations

import time

import numpy as np

from ..progress import tracked
from ..robot.robot import Robot
from ..solving.solver import IKSolver, load_solver
from .judge import Judge
from .result import BenchResult, Measure, at_least_one
from .targets import reachable_targets

TOLERANCE = 1e-5  # m and rad


def run(
    *,
    robot: str | Robot = "panda",
    sampler: str = "auto",
    checkpoint: str | None = None,
    poses: int = 2000,
    num_samples: int = 128,
    max_solutions: int = 32,
    seed: int = 0,
) -> BenchResult:
    """Share of solved poses, valid solutions per pose, time per pose."""
    at_least_one(poses=poses)
    solver = load_solver(robot, checkpoint=checkpoint, sampler=sampler)
    T_base_tip = reachable_targets(solver.robot, poses, seed)
    measures = measure_solver(solver, T_base_tip, num_samples, max_solutions, seed, 1.0)
    return BenchResult.of_solver(
        "solve", measures, solver,
        checkpoint=checkpoint, poses=poses, num_samples=num_samples, max_solutions=max_solutions,
        seed=seed, tolerance=TOLERANCE,
    )  # fmt: skip


def measure_solver(
    solver: IKSolver,
    T_base_tip: np.ndarray,
    num_samples: int,
    max_solutions: int,
    seed: int,
    share_wanted: float,
) -> tuple[Measure, ...]:
    """Solve each target (T, 4, 4) of T_base_tip (N, T, 4, 4) by itself, and judge the answers."""
    judge = Judge(solver.robot)
    solver.warm_up()
    right = np.zeros(len(T_base_tip), dtype=int)
    wrong = np.zeros(len(T_base_tip), dtype=int)
    seconds, busy = np.zeros((2, len(T_base_tip)))
    for row, target in enumerate(tracked(T_base_tip, "poses")):
        started, busy_started = time.perf_counter(), time.process_time()
        result = solver.solve(
            target[None], num_samples=num_samples, max_solutions=max_solutions, seed=seed + row,
            position_tolerance=TOLERANCE, orientation_tolerance=TOLERANCE,
        )  # fmt: skip
        seconds[row] = time.perf_counter() - started
        busy[row] = time.process_time() - busy_started
        right[row], wrong[row] = judge.count(result, 0, target, TOLERANCE, TOLERANCE)
    return (
        Measure("share of poses solved", float((right > 0).mean()), at_least=share_wanted),
        Measure("wrong claims", float(wrong.sum()), "solutions", at_most=0),
        Measure("mean valid solutions per pose", float(right.mean())),
        Measure("median time per pose", float(np.median(seconds) * 1e3), "ms"),
        Measure("median processor time per pose", float(np.median(busy) * 1e3), "ms"),
        Measure("99 % time per pose", float(np.quantile(seconds, 0.99) * 1e3), "ms"),
    )
