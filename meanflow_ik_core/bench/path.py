# SPDX-License-Identifier: Apache-2.0
"""`solve_path` through the poses of random joint motions, judged by Pinocchio."""

from __future__ import annotations

import time

import numpy as np
import torch

from ..paths.path import PathResult, solve_path
from ..progress import tracked
from ..robot.robot import Robot
from ..solving.solver import IKSolver, load_solver
from .judge import Judge
from .result import BenchResult, Measure, at_least_one
from .solve import TOLERANCE
from .unreachable import reach

# A path has the times of its known motion at this share of the joints' speed limits.
_SHARE_OF_SPEED = 0.25
_SHORTEST_S = 1e-3
_MS_PER_WAYPOINT = 1.0
_ROUNDING = 1e-9  # rad or m


def run(
    *,
    robot: str | Robot = "panda",
    sampler: str = "auto",
    checkpoint: str | None = None,
    paths: int = 200,
    waypoints: int = 100,
    num_samples: int = 128,
    max_joint_step: float = 0.5,
    seed: int = 0,
) -> BenchResult:
    """Share of paths found, their steps beside those of the known motion, breaks, time per path."""
    at_least_one(paths=paths, waypoints=waypoints - 1, num_samples=num_samples)
    solver = load_solver(robot, checkpoint=checkpoint, sampler=sampler)
    motions = random_motions(solver.robot, paths, waypoints, seed)
    measures = measure_paths(solver, motions, num_samples, max_joint_step, seed)
    return BenchResult.of_solver(
        "path", measures, solver,
        checkpoint=checkpoint, paths=paths, waypoints=waypoints, num_samples=num_samples,
        max_joint_step=max_joint_step, seed=seed, tolerance=TOLERANCE,
    )  # fmt: skip


def random_motions(robot: Robot, paths: int, waypoints: int, seed: int) -> np.ndarray:
    """(paths, W, J): straight in joint space, between random configurations."""
    generator = torch.Generator().manual_seed(seed)
    ends = robot.random_configurations(2 * paths, generator).numpy().reshape(2, paths, 1, -1)
    return ends[0] + np.linspace(0, 1, waypoints)[:, None] * (ends[1] - ends[0])


def measure_paths(
    solver: IKSolver, motions: np.ndarray, num_samples: int, max_joint_step: float, seed: int
) -> tuple[Measure, ...]:
    """Solve the tip poses of motions (paths, W, J) as they are, with times, and with a waypoint
    moved out of reach."""
    robot, judge = solver.robot, Judge(solver.robot)
    paths, waypoints, _ = motions.shape
    middle = 0.5 * (robot.lower + robot.upper)
    solve_path(solver, robot.forward(np.stack((middle, middle))))  # compiles
    random = np.random.default_rng(seed)
    found, timed_found, named, wrong = np.zeros((4, paths), dtype=int)
    ratio, seconds, busy = np.zeros((3, paths))
    for row, motion in enumerate(tracked(motions, "paths")):
        T_base_tip = robot.forward(motion)
        options = {
            "num_samples": num_samples, "max_joint_step": max_joint_step, "seed": seed + row,
            "position_tolerance": TOLERANCE, "orientation_tolerance": TOLERANCE,
        }  # fmt: skip
        started, busy_started = time.perf_counter(), time.process_time()
        result = solve_path(solver, T_base_tip, **options)
        seconds[row] = time.perf_counter() - started
        busy[row] = time.process_time() - busy_started
        found[row] = result.valid
        known = np.abs(np.diff(motion, axis=0)).max()
        ratio[row] = result.largest_step / known
        wrong[row] += not _is_right(judge, result, T_base_tip, max_joint_step)

        needed = (np.abs(np.diff(motion, axis=0)) / robot.velocity_limit).max()
        times = np.arange(waypoints) * max(needed, _SHORTEST_S) / _SHARE_OF_SPEED
        result = solve_path(solver, T_base_tip, times=times, **options)
        timed_found[row] = result.valid
        speed = np.abs(np.diff(result.joint_positions, axis=0)) / np.diff(times)[0]
        wrong[row] += not _is_right(judge, result, T_base_tip, max_joint_step)
        wrong[row] += (speed > robot.velocity_limit * (1 + 1e-6)).any()

        broken = int(random.integers(waypoints))
        T_base_tip[broken, 0, :3, 3] += 2 * reach(robot) * _random_direction(random)
        result = solve_path(solver, T_base_tip, **options)
        named[row] = result.failed_waypoint == broken
        wrong[row] += not _is_right(judge, result, T_base_tip, max_joint_step)
    ratios = ratio[found == 1] if found.any() else np.zeros(1)
    return (
        Measure("share of paths found", float(found.mean()), at_least=0.99),
        Measure("largest step beside the known motion's, median", float(np.median(ratios))),
        Measure("largest step beside the known motion's, 95 %", float(np.quantile(ratios, 0.95))),
        Measure("share found within speed limits", float(timed_found.mean()), at_least=0.9),
        Measure("share of breaks named", float(named.mean()), at_least=0.99),
        Measure("wrong claims", float(wrong.sum()), "paths", at_most=0),
        Measure(
            "median time per path", float(np.median(seconds) * 1e3), "ms",
            at_most=_MS_PER_WAYPOINT * waypoints,
        ),
        Measure("median processor time per path", float(np.median(busy) * 1e3), "ms"),
        Measure("99 % time per path", float(np.quantile(seconds, 0.99) * 1e3), "ms"),
    )  # fmt: skip


def _is_right(
    judge: Judge, result: PathResult, T_base_tip: np.ndarray, max_joint_step: float
) -> bool:
    """Whether every row solves its waypoint, and the steps are as claimed and allowed."""
    q = result.joint_positions
    for row, target in zip(q, T_base_tip[: len(q)], strict=True):
        if not judge.accepts(row[None], target, TOLERANCE, TOLERANCE).all():
            return False
    largest = np.abs(np.diff(q, axis=0)).max(initial=0.0)
    return bool(
        abs(largest - result.largest_step) <= _ROUNDING
        and largest <= max_joint_step * (1 + 1e-6)
        and result.valid == (len(q) == len(T_base_tip))
    )


def _random_direction(random: np.random.Generator) -> np.ndarray:
    direction = random.normal(size=3)
    return direction / np.linalg.norm(direction)
