# SPDX-License-Identifier: Apache-2.0
"""One damped least-squares step of every sample: the SIMD kernel against eager torch.

Both are given the same float64 samples in turn, on one thread, and must come to the same place.
"""

from __future__ import annotations

import time

import numpy as np
import torch

from ..kernels.entry import compile_all
from ..kernels.step_settings import StepSettings
from ..progress import tracked
from ..robot.robot import Robot, load_robot
from ..solving.least_squares import iterate
from .result import BenchResult, Measure, at_least_one, environment, torch_threads
from .torch_step import lm_step

_NEVER = 1e-15  # m and rad; a tolerance that no start is within
_SAME = 1e-8  # rad; a step divides rounding errors by a damping of at least 1e-9
_MANY = 20  # iterations of the run that shows the time of one more


def run(
    *,
    robot: str | Robot = "panda",
    batch: int = 1000,
    repetitions: int = 200,
    seed: int = 0,
) -> BenchResult:
    """Ratio of the median times; the kernel's includes checking the errors after the step."""
    at_least_one(batch=batch, repetitions=repetitions)
    arm = robot if isinstance(robot, Robot) else load_robot(robot)
    generator = torch.Generator().manual_seed(seed)
    q = arm.random_configurations(batch, generator)
    T_base_tip = arm.forward(arm.random_configurations(batch, generator))
    settings = StepSettings()
    compile_all()
    kernel, more, eager = np.zeros((3, repetitions))
    by_kernel, by_torch = q.numpy(), q
    with torch_threads(1), torch.inference_mode():
        for _ in range(3):
            lm_step(arm, q, T_base_tip, settings)
        for repetition in tracked(range(repetitions), "repetitions"):
            kernel[repetition], by_kernel = _time_kernel(arm, q, T_base_tip, 1, settings)
            more[repetition], _ = _time_kernel(arm, q, T_base_tip, 1 + _MANY, settings)
            started = time.perf_counter()
            by_torch, _, _ = lm_step(arm, q, T_base_tip, settings)
            eager[repetition] = time.perf_counter() - started
    difference = float(np.abs(by_kernel - by_torch.numpy()).max())
    kernel_time, eager_time = float(np.median(kernel)), float(np.median(eager))
    one_more = (float(np.median(more)) - kernel_time) / _MANY
    measures = (
        Measure("times faster than eager torch", eager_time / kernel_time, "x", at_least=10),
        Measure("times faster, one step among many", eager_time / one_more, "x"),
        Measure("largest difference of the results", difference, "rad", at_most=_SAME),
        Measure("kernel, per sample and step", kernel_time / batch * 1e6, "us"),
        Measure("kernel, per sample and step among many", one_more / batch * 1e6, "us"),
        Measure("eager torch, per sample and step", eager_time / batch * 1e6, "us"),
    )
    options = {"robot": arm.name, "batch": batch, "repetitions": repetitions, "seed": seed}
    return BenchResult("kernel", measures, options, environment())


def _time_kernel(
    robot: Robot, q: torch.Tensor, T_base_tip: torch.Tensor, steps: int, settings: StepSettings
) -> tuple[float, np.ndarray]:
    """Seconds for so many steps of q (N, J), each with its own target, and where they end."""
    stepped = q.numpy()[:, None].copy()
    targets = T_base_tip.numpy()
    todo = np.arange(len(q))
    started = time.perf_counter()
    iterate(robot, stepped, targets, todo, steps, _NEVER, _NEVER, settings)
    return time.perf_counter() - started, stepped[:, 0]
