# SPDX-License-Identifier: Apache-2.0
"""How good a sampler is on fresh poses: one judgement for every sampler and robot."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .checkpoint import load_checkpoint
from .errors import OptionError
from .robot import Robot, load_robot
from .samplers import Sampler, build_sampler
from .validation import measure_samples

_DEGREES = 180 / np.pi
# What a table shows of the metrics: metric, label, unit, factor from metres, radians and shares.
_ROWS = (
    ("position_error_mean", "position error, mean", "mm", 1e3),
    ("position_error_median", "position error, median", "mm", 1e3),
    ("position_error_95", "position error, 95 %", "mm", 1e3),
    ("orientation_error_mean", "rotation error, mean", "deg", _DEGREES),
    ("orientation_error_median", "rotation error, median", "deg", _DEGREES),
    ("orientation_error_95", "rotation error, 95 %", "deg", _DEGREES),
    ("inside_limits", "inside the limits before clamping", "%", 1e2),
    ("recall_median", "recall: distance to the true joints, median", "rad", 1.0),
    ("spread", "spread: standard deviation per joint", "rad", 1.0),
    ("refined_success", "valid after refinement", "%", 1e2),
    ("sample_time", "time of sampling, per pose", "ms", 1e3),
)
# Values of joints at a time; bounds the memory of the network.
_SAMPLES_PER_CALL = 20_000


@dataclass(frozen=True)
class Evaluation:
    """What was judged, and the metrics of `evaluate`."""

    robot: str
    sampler: str
    checkpoint: str | None
    num_calls: int
    poses: int
    samples: int
    seed: int
    position_tolerance: float  # m
    orientation_tolerance: float  # rad
    metrics: dict[str, float]

    COLUMNS = ("metric", "value", "unit")

    def rows(self) -> list[tuple[str, str, str]]:
        """A table with `COLUMNS`."""
        return [
            (label, f"{self.metrics[metric] * factor:.4g}", unit)
            for metric, label, unit, factor in _ROWS
        ]

    def as_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON; m, rad, seconds and shares."""
        return asdict(self)


def evaluate(
    robot: str | Path | Robot = "panda",
    sampler: str | Sampler = "meanflow",
    *,
    checkpoint: str | Path | None = None,
    num_calls: int = 1,
    poses: int = 1000,
    samples: int = 100,
    seed: int = 0,
    device: str = "cpu",
    position_tolerance: float = 1e-5,
    orientation_tolerance: float = 1e-5,
) -> Evaluation:
    """Judge a sampler on poses of configurations that are uniform within the limits.

    Args:
        robot: a `Robot`, or what `load_robot` takes.
        sampler: a `Sampler`, or the name of one.
        checkpoint: name or path, for a sampler given by name; None: the robot's own.
        num_calls: network calls per sample, for the sampler "meanflow".
        poses: B.
        samples: N per pose.
        seed: of poses and samples.
        device: "cpu" or "cuda", for a sampler given by name.
        position_tolerance: m, of a valid solution after refinement.
        orientation_tolerance: rad, of a valid solution after refinement.

    Returns:
        The metrics of `measure_samples`, and sample_time, seconds per pose.

    Raises:
        OptionError: unknown sampler or device, or a number below one.
        CheckpointError: the checkpoint is missing, damaged, or of another robot.
    """
    for name, number in (("num_calls", num_calls), ("poses", poses), ("samples", samples)):
        if number < 1:
            raise OptionError(f"{name} is {number!r}; it must be at least 1")
    arm = robot if isinstance(robot, Robot) else load_robot(robot)
    judged, name = sampler, type(sampler).__name__
    if isinstance(judged, str):
        judged, name = _sampler_from_name(judged, arm, checkpoint, num_calls, device), judged
    generator = torch.Generator(device).manual_seed(seed)
    # The poses do not depend on the device.
    q_true = arm.random_configurations(poses, torch.Generator().manual_seed(seed)).numpy()
    T_base_tip = arm.forward(q_true)
    started = time.perf_counter()
    q = _draw(judged, torch.from_numpy(T_base_tip).to(device), samples, generator)
    sample_time = (time.perf_counter() - started) / poses
    metrics = measure_samples(arm, q, q_true, T_base_tip, position_tolerance, orientation_tolerance)
    used = arm.name if checkpoint is None and name == "meanflow" else checkpoint
    return Evaluation(
        arm.name, name, None if used is None else str(used), num_calls, poses, samples, seed,
        position_tolerance, orientation_tolerance, {**metrics, "sample_time": sample_time},
    )  # fmt: skip


def _sampler_from_name(
    name: str, robot: Robot, checkpoint: str | Path | None, num_calls: int, device: str
) -> Sampler:
    try:
        where = torch.device(device)
        torch.empty(0, device=where)
    except (RuntimeError, AssertionError) as error:
        raise OptionError(f"device {device!r} is not usable here: {error}") from error
    if num_calls == 1:
        return build_sampler(name, robot, checkpoint, where)
    if name != "meanflow":
        raise OptionError(f"num_calls is {num_calls}; only the sampler 'meanflow' has calls")
    from .samplers.meanflow import MeanFlowSampler

    network, _ = load_checkpoint(robot.name if checkpoint is None else checkpoint, robot)
    return MeanFlowSampler(robot, network, where, num_calls)


def _draw(
    sampler: Sampler, T_base_tip: torch.Tensor, samples: int, generator: torch.Generator
) -> np.ndarray:
    """(B, N, J) float64, some poses at a time."""
    chunk = max(1, _SAMPLES_PER_CALL // samples)
    drawn = [sampler.sample(poses, samples, generator).cpu() for poses in T_base_tip.split(chunk)]
    return torch.cat(drawn).double().numpy()
