# SPDX-License-Identifier: Apache-2.0
"""`solve` on poses that can only be reached with a joint at its limit."""

from __future__ import annotations

from ..near_limits import MARGIN, near_limit_poses
from ..robot import Robot
from ..solver import load_solver
from .result import BenchResult, at_least_one, environment
from .solve import TOLERANCE, measure_solver


def run(
    *,
    robot: str | Robot = "panda",
    sampler: str = "meanflow",
    checkpoint: str | None = None,
    poses: int = 200,
    num_samples: int = 128,
    max_solutions: int = 32,
    seed: int = 0,
) -> BenchResult:
    """Share of solved poses; the poses are found through the closed form."""
    at_least_one(poses=poses)
    solver = load_solver(robot, checkpoint=checkpoint, sampler=sampler)
    T_base_tip, _ = near_limit_poses(solver.robot, poses, seed)
    measures = measure_solver(solver, T_base_tip[:, None], num_samples, max_solutions, seed, 0.98)
    options = {
        "robot": solver.robot.name, "sampler": sampler, "checkpoint": checkpoint, "poses": poses,
        "num_samples": num_samples, "max_solutions": max_solutions, "seed": seed,
        "tolerance": TOLERANCE, "margin": MARGIN,
    }  # fmt: skip
    return BenchResult("limits", measures, options, environment())
