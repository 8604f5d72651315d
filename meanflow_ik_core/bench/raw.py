# SPDX-License-Identifier: Apache-2.0
"""Raw samples of one pose: one call of the sampler."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from ..progress import tracked
from ..robot.robot import Robot
from ..solving.solver import load_solver
from .result import BenchResult, Measure, at_least_one, torch_threads


def run(
    *,
    robot: str | Robot = "panda",
    sampler: str = "auto",
    checkpoint: str | None = None,
    device: str = "cpu",
    samples: int = 1000,
    repetitions: int = 50,
    threads: int = 0,
    seed: int = 0,
) -> BenchResult:
    """Time of `sample` for one pose, each repetition another pose.

    Args:
        samples: raw samples of one call.
        threads: of torch; 0 leaves its number.
    """
    at_least_one(samples=samples, repetitions=repetitions)
    solver = load_solver(robot, checkpoint=checkpoint, device=device, sampler=sampler)
    generator = torch.Generator().manual_seed(seed)
    q = solver.robot.random_configurations(repetitions, generator).numpy()
    T_base_tip = solver.robot.forward(q)[:, None]
    seconds = np.zeros(repetitions)
    with torch_threads(threads or torch.get_num_threads()):
        used = torch.get_num_threads()
        for _ in range(3):
            solver.sample(T_base_tip[0], samples, seed=seed)
        for row, target in enumerate(tracked(T_base_tip, "poses")):
            started = time.perf_counter()
            # A GPU has finished once an array comes back.
            solver.sample(target, samples, seed=seed + row)
            seconds[row] = time.perf_counter() - started
    learned = solver.sampler == "meanflow"
    measures = (
        Measure("median time", _ms(np.median(seconds)), "ms", at_most=5.0 if learned else None),
        Measure("fastest", _ms(seconds.min()), "ms"),
        Measure("95 % time", _ms(np.quantile(seconds, 0.95)), "ms"),
        Measure("torch threads", float(used)),
    )
    return BenchResult.of_solver(
        "raw", measures, solver,
        checkpoint=checkpoint, device=device, samples=samples, repetitions=repetitions,
        threads=used, seed=seed,
    )  # fmt: skip


def _ms(seconds: Any) -> float:
    return 1e3 * float(seconds)
