# SPDX-License-Identifier: Apache-2.0
"""`solve` on poses that can only be reached with a joint at its limit."""

from __future__ import annotations

import numpy as np

from ..progress import tracked
from ..robot.robot import Robot
from ..solving.refine import refine_lm
from ..solving.solver import IKSolver, load_solver
from .near_limits import MARGIN, near_limit_poses
from .result import BenchResult, Measure, at_least_one
from .solve import TOLERANCE, measure_solver


def run(
    *,
    robot: str | Robot = "panda",
    sampler: str = "auto",
    checkpoint: str | None = None,
    poses: int = 200,
    num_samples: int = 128,
    max_solutions: int = 32,
    starts: int = 1000,
    seed: int = 0,
) -> BenchResult:
    """Share of solved poses, and how many of ``starts`` samples per pose refinement brings home.

    The poses are found through the closed form.
    """
    at_least_one(poses=poses, starts=starts)
    solver = load_solver(robot, checkpoint=checkpoint, sampler=sampler)
    T_base_tip = near_limit_poses(solver.robot, poses, seed)[0][:, None]
    measures = measure_solver(solver, T_base_tip, num_samples, max_solutions, seed, 0.98)
    home = np.array(
        [
            _share_home(solver, target, starts, seed)
            for target in tracked(T_base_tip, "starts of poses")
        ]
    )
    more = (
        Measure("share of starts that converge, median pose", float(np.median(home))),
        Measure("share of starts that converge, worst pose", float(home.min())),
    )
    return BenchResult.of_solver(
        "limits", measures + more, solver,
        checkpoint=checkpoint, poses=poses, num_samples=num_samples, max_solutions=max_solutions,
        starts=starts, seed=seed, tolerance=TOLERANCE, margin=MARGIN,
    )  # fmt: skip


def _share_home(solver: IKSolver, target: np.ndarray, starts: int, seed: int) -> float:
    q = solver.sample(target[None], starts, seed=seed)
    refined = refine_lm(solver.robot, q, target[None], TOLERANCE, TOLERANCE)
    return float(refined.converged.mean())
