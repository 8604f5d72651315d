# SPDX-License-Identifier: Apache-2.0
"""Many answers for one pose: raw samples of one network call, and different valid solutions."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from ..robot.robot import Robot
from ..solving.solver import load_solver
from .judge import Judge
from .result import BenchResult, Measure, at_least_one, environment, torch_threads
from .solve import TOLERANCE
from .tracik import MIN_SEPARATION, count_different


def run(
    *,
    robot: str | Robot = "panda",
    sampler: str = "auto",
    checkpoint: str | None = None,
    device: str = "cpu",
    samples: int = 1000,
    solutions: int = 100,
    starts: int = 128,
    repetitions: int = 50,
    threads: int = 0,
    seed: int = 0,
) -> BenchResult:
    """Times of `sample` and of `solve` for one pose, each repetition another pose.

    Args:
        samples: raw samples of one call.
        solutions: different valid solutions asked for, found from so many ``starts`` and more
            where those do not suffice; judged by Pinocchio.
        threads: of torch; 0 leaves its number.
    """
    at_least_one(samples=samples, solutions=solutions, starts=starts, repetitions=repetitions)
    solver = load_solver(robot, checkpoint=checkpoint, device=device, sampler=sampler)
    generator = torch.Generator().manual_seed(seed)
    q = solver.robot.random_configurations(repetitions, generator).numpy()
    T_base_tip = solver.robot.forward(q)[:, None]
    judge = Judge(solver.robot)
    seconds, solving = np.zeros((2, repetitions))
    short = 0

    def solve(target: np.ndarray, seed: int) -> np.ndarray:
        result = solver.solve(
            target, num_samples=starts, max_solutions=solutions, seed=seed,
            position_tolerance=TOLERANCE, orientation_tolerance=TOLERANCE,
            min_separation=MIN_SEPARATION,
        )  # fmt: skip
        return result.joint_positions[0][result.valid[0]]

    with torch_threads(threads or torch.get_num_threads()):
        used = torch.get_num_threads()
        for _ in range(3):
            solver.sample(T_base_tip[0], samples, seed=seed)
            solve(T_base_tip[0], seed)
        for row, target in enumerate(T_base_tip):
            started = time.perf_counter()
            # A GPU has finished once an array comes back.
            solver.sample(target, samples, seed=seed + row)
            seconds[row] = time.perf_counter() - started
        for row, target in enumerate(T_base_tip):
            started = time.perf_counter()
            found = solve(target, seed + row)
            solving[row] = time.perf_counter() - started
            right = judge.accepts(found, target[0], TOLERANCE, TOLERANCE)
            short += not (right.all() and count_different(found) == solutions)
    learned = solver.sampler == "meanflow"
    measures = (
        Measure("median time", _ms(np.median(seconds)), "ms", at_most=5.0 if learned else None),
        Measure("fastest", _ms(seconds.min()), "ms"),
        Measure("95 % time", _ms(np.quantile(seconds, 0.95)), "ms"),
        Measure("different solutions, median time", _ms(np.median(solving)), "ms", at_most=2.0),
        Measure("different solutions, 95 % time", _ms(np.quantile(solving, 0.95)), "ms"),
        Measure("different solutions, short of what was asked for", float(short), "poses"),
        Measure("torch threads", float(used)),
    )
    options = {
        "robot": solver.robot.name, "sampler": solver.sampler, "checkpoint": checkpoint,
        "device": device,
        "samples": samples, "solutions": solutions, "starts": starts, "repetitions": repetitions,
        "threads": used, "seed": seed,
    }  # fmt: skip
    return BenchResult("raw", measures, options, environment())


def _ms(seconds: Any) -> float:
    return 1e3 * float(seconds)
