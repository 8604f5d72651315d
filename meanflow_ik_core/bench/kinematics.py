# SPDX-License-Identifier: Apache-2.0
"""Forward kinematics and Jacobian against Pinocchio, float64."""

from __future__ import annotations

import numpy as np
import torch

from ..progress import stage
from ..robot.robot import Robot, load_robot
from .judge import Judge
from .result import BenchResult, Measure, at_least_one, environment


def run(
    *, robot: str | Robot = "panda", configurations: int = 10_000, seed: int = 0
) -> BenchResult:
    """Largest difference over random configurations; every entry of the matrices counts."""
    at_least_one(configurations=configurations)
    arm = robot if isinstance(robot, Robot) else load_robot(robot)
    generator = torch.Generator().manual_seed(seed)
    q = arm.random_configurations(configurations, generator).numpy()
    judge = Judge(arm)
    stage(f"{configurations} configurations by Pinocchio")
    measures = (
        Measure(
            "largest difference of poses",
            _difference(arm.forward(q), judge.forward(q)),
            at_most=1e-12,
        ),
        Measure(
            "largest difference of Jacobians",
            _difference(arm.jacobian(q), judge.jacobian(q)),
            at_most=1e-12,
        ),
    )
    options = {"robot": arm.name, "configurations": configurations, "seed": seed}
    return BenchResult("kinematics", measures, options, environment())


def _difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.abs(ours - theirs).max())
