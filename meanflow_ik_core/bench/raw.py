# SPDX-License-Identifier: Apache-2.0
"""Raw samples of one pose: one network call, no refinement."""

from __future__ import annotations

import time

import numpy as np
import torch

from ..robot import Robot
from ..solver import load_solver
from .result import BenchResult, Measure, at_least_one, environment, torch_threads


def run(
    *,
    robot: str | Robot = "panda",
    sampler: str = "meanflow",
    checkpoint: str | None = None,
    device: str = "cpu",
    samples: int = 1000,
    repetitions: int = 50,
    threads: int = 0,
    seed: int = 0,
) -> BenchResult:
    """Time of `sample` for one pose; ``threads`` = 0 leaves torch's number."""
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
        for row, target in enumerate(T_base_tip):
            started = time.perf_counter()
            # an array comes back, so a GPU has finished
            solver.sample(target, samples, seed=seed + row)
            seconds[row] = time.perf_counter() - started
    measures = (
        Measure("median time", float(np.median(seconds) * 1e3), "ms"),
        Measure("fastest", float(seconds.min() * 1e3), "ms"),
        Measure("95 % time", float(np.quantile(seconds, 0.95) * 1e3), "ms"),
        Measure("torch threads", float(used)),
    )
    options = {
        "robot": solver.robot.name, "sampler": sampler, "checkpoint": checkpoint, "device": device,
        "samples": samples, "repetitions": repetitions, "threads": used, "seed": seed,
    }  # fmt: skip
    return BenchResult("raw", measures, options, environment())
