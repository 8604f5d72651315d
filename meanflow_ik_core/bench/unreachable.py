# SPDX-License-Identifier: Apache-2.0
"""What `solve` says about poses that have no solution."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

from ..evaluation.closed_form import ClosedForm
from ..geometry import matrix_from_quat_xyzw
from ..progress import stage, tracked
from ..robot.robot import Robot
from ..solving.solver import IKSolver, load_solver
from .near_limits import largest_margin
from .result import BenchResult, Measure, at_least_one
from .solve import TOLERANCE

# A pose is impossible when even with joints this far beyond their limits nothing reaches it.
_CLEARLY_OUTSIDE = 1e-3  # rad


def run(
    *,
    robot: str | Robot = "panda",
    sampler: str = "auto",
    checkpoint: str | None = None,
    poses: int = 200,
    num_samples: int = 128,
    max_solutions: int = 32,
    seed: int = 0,
) -> BenchResult:
    """False claims and times, half of the poses of each kind."""
    at_least_one(poses=poses)
    solver = load_solver(robot, checkpoint=checkpoint, sampler=sampler)
    solver.warm_up()
    measures: list[Measure] = []
    kinds: dict[str, Callable[[Robot, int, int], np.ndarray]] = {
        "beyond the reach": poses_beyond_reach,
        "impossible orientation": impossible_orientations,
    }
    for kind, make in kinds.items():
        targets = make(solver.robot, max(1, poses // 2), seed)
        claims, seconds, busy = _ask(solver, targets, num_samples, max_solutions, seed)
        measures += [
            Measure(f"{kind}: false claims", float(claims), "poses", at_most=0),
            Measure(f"{kind}: median time", float(np.median(seconds) * 1e3), "ms", at_most=5.0),
            Measure(f"{kind}: median processor time", float(np.median(busy) * 1e3), "ms"),
            Measure(f"{kind}: 99 % time", float(np.quantile(seconds, 0.99) * 1e3), "ms"),
        ]
    return BenchResult.of_solver(
        "unreachable", tuple(measures), solver,
        checkpoint=checkpoint, poses=poses, num_samples=num_samples, max_solutions=max_solutions,
        seed=seed, tolerance=TOLERANCE,
    )  # fmt: skip


def reach(robot: Robot) -> float:
    """m; no configuration brings a tip farther than this from its first joint's origin."""
    lengths = np.linalg.norm(robot.placement[1:, :3, 3], axis=-1).sum()
    return float(lengths + np.linalg.norm(robot.tip_placement[0, :3, 3]))


def poses_beyond_reach(robot: Robot, count: int, seed: int) -> np.ndarray:
    """(count, 4, 4) at 1.02 to 1.5 times the sum of the link lengths, any direction."""
    generator = torch.Generator().manual_seed(seed)
    rotation = _random_rotations(count, generator)
    direction = _random_rotations(count, generator)[:, :, 2]
    factor = 1.02 + 0.48 * torch.rand(count, 1, generator=generator, dtype=torch.float64)
    poses = np.tile(np.eye(4), (count, 1, 1))
    poses[:, :3, :3] = rotation
    poses[:, :3, 3] = robot.placement[0, :3, 3] + (factor * reach(robot) * direction).numpy()
    return poses


def impossible_orientations(robot: Robot, count: int, seed: int) -> np.ndarray:
    """(count, 4, 4) whose position is reachable, but in no configuration with that orientation.

    Positions of random configurations with random rotations; the closed form's sweep of the last
    joint shows that there is no solution within the limits.
    """
    closed_form = ClosedForm(robot)
    generator = torch.Generator().manual_seed(seed)
    middle = 0.5 * (robot.lower[6] + robot.upper[6])
    found: list[np.ndarray] = []
    while len(found) < count:
        stage(f"impossible orientations: {len(found)} of {count}")
        pose = robot.forward(robot.random_configurations(1, generator).numpy())[0, 0]
        pose[:3, :3] = _random_rotations(1, generator)[0]
        if largest_margin(closed_form, pose, middle, -_CLEARLY_OUTSIDE) <= -_CLEARLY_OUTSIDE:
            found.append(pose)
    return np.stack(found)


def _ask(
    solver: IKSolver, targets: np.ndarray, num_samples: int, max_solutions: int, seed: int
) -> tuple[int, np.ndarray, np.ndarray]:
    """How many of the poses get a solution that they cannot have; seconds and processor seconds
    for each (N,)."""
    claims = 0
    seconds, busy = np.zeros((2, len(targets)))
    for row, target in enumerate(tracked(targets, "poses")):
        started, busy_started = time.perf_counter(), time.process_time()
        result = solver.solve(
            target[None], num_samples=num_samples, max_solutions=max_solutions, seed=seed + row,
            position_tolerance=TOLERANCE, orientation_tolerance=TOLERANCE,
        )  # fmt: skip
        seconds[row] = time.perf_counter() - started
        busy[row] = time.process_time() - busy_started
        claims += bool(result.valid.any())
    return claims, seconds, busy


def _random_rotations(count: int, generator: torch.Generator) -> torch.Tensor:
    """(count, 3, 3), uniform over all rotations: normal quaternions."""
    return matrix_from_quat_xyzw(torch.randn(count, 4, generator=generator, dtype=torch.float64))
