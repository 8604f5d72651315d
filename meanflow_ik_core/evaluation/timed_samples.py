# SPDX-License-Identifier: Apache-2.0
"""Draws to be judged: raw, refined, and chosen by the solver; with the time that they take."""

from __future__ import annotations

import time

import numpy as np
import torch

from ..geometry import pose_errors
from ..robot.robot import Robot
from ..samplers import Sampler
from ..solving.ranking import SELECTIONS
from ..solving.refine import refine_lm
from ..solving.solver import IKSolver

# Values of joints at a time; bounds the memory of the network.
_SAMPLES_PER_CALL = 20_000
_DIVERSE_POOL = 10  # starts per solution that is chosen to be diverse
_MOST_ROUNDS = 20


def draw_timed(
    sampler: Sampler, T_base_tip: np.ndarray, samples: int, generator: torch.Generator
) -> tuple[np.ndarray, float]:
    """(B, N, J) float64, some poses at a time, and seconds per pose."""
    chunk = max(1, _SAMPLES_PER_CALL // samples)
    started = time.perf_counter()
    poses = torch.from_numpy(T_base_tip).to(generator.device).split(chunk)
    drawn = [sampler.sample(part, samples, generator).cpu() for part in poses]
    spent = time.perf_counter() - started
    return torch.cat(drawn).double().numpy(), spent / len(T_base_tip)


def raw_errors(
    robot: Robot, q: np.ndarray, T_base_tip: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Position and orientation errors (S,) of all samples and tips."""
    position, angle = pose_errors(robot.forward(q), T_base_tip[:, None])
    return position.ravel(), angle.ravel()


def draw_solved(
    solver: IKSolver,
    T_base_tip: np.ndarray,
    samples: int,
    seed: int,
    tolerances: tuple[float, float],
) -> tuple[dict[str, list[np.ndarray]], dict[str, dict[str, float]]]:
    """Valid solutions of each pose, as many as samples, by selection; and what that costs."""
    draws: dict[str, list[np.ndarray]] = {}
    stages: dict[str, dict[str, float]] = {}
    for select in SELECTIONS:
        starts = samples * (_DIVERSE_POOL if select == "diverse" else 1)
        chunk = max(1, _SAMPLES_PER_CALL // starts)
        draws[select], stages[select] = [], {}
        for begin in range(0, len(T_base_tip), chunk):
            result = solver.solve(
                T_base_tip[begin : begin + chunk], starts, samples, None, seed + begin, select,
                position_tolerance=tolerances[0], orientation_tolerance=tolerances[1],
            )  # fmt: skip
            rows = zip(result.joint_positions, result.valid, strict=True)
            draws[select] += [q[valid] for q, valid in rows]
            for stage, spent in result.timing.items():
                before = stages[select].get(stage, 0.0)
                stages[select][stage] = before + spent / len(T_base_tip)
        stages[select]["solutions"] = float(np.mean([len(q) for q in draws[select]]))
    return draws, stages


def draw_refined(
    robot: Robot,
    sampler: Sampler,
    q: np.ndarray,
    T_base_tip: np.ndarray,
    tolerances: tuple[float, float],
    generator: torch.Generator,
) -> list[np.ndarray]:
    """The first N valid solutions (N, J) of each pose, in the order of their draws: of the
    samples ``q`` (B, N, J), and of more where some did not converge."""
    kept: list[np.ndarray] = [np.empty((0, q.shape[2]))] * len(q)
    open_poses = np.arange(len(q))
    for _ in range(_MOST_ROUNDS):
        refined = refine_lm(robot, q, T_base_tip[open_poses], *tolerances)
        for pose, rows, valid in zip(open_poses, refined.q, refined.converged, strict=True):
            kept[pose] = np.concatenate((kept[pose], rows[valid]))[: q.shape[1]]
        open_poses = np.flatnonzero([len(rows) < q.shape[1] for rows in kept])
        if len(open_poses) == 0:
            break
        q, _ = draw_timed(sampler, T_base_tip[open_poses], q.shape[1], generator)
    return kept
