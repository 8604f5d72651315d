# SPDX-License-Identifier: Apache-2.0
"""Samples to be judged: raw, refined, and chosen by the solver; with the time that they take."""

from __future__ import annotations

import time

import numpy as np
import torch

from ..geometry import pose_errors
from ..progress import tracked
from ..robot.robot import Robot
from ..samplers import Sampler
from ..solving.ranking import SELECTIONS
from ..solving.refine import refine_lm
from ..solving.solver import IKSolver

_SAMPLES_PER_CALL = 20_000  # bounds the memory of the network
_DIVERSE_POOL = 10  # starts for each solution asked for, where diverse ones are chosen
_MOST_ROUNDS = 20  # of further samples


def draw_samples(
    sampler: Sampler, T_base_tip: np.ndarray, samples: int, generator: torch.Generator
) -> tuple[np.ndarray, float]:
    """N raw samples for each of B poses (B, T, 4, 4).

    Returns:
        (B, N, J) float64 rad or m, and seconds per pose.
    """
    chunk = max(1, _SAMPLES_PER_CALL // samples)
    started = time.perf_counter()
    poses = torch.from_numpy(T_base_tip).to(generator.device).split(chunk)
    drawn = [sampler.sample(part, samples, generator).cpu() for part in poses]
    spent = time.perf_counter() - started
    return torch.cat(drawn).double().numpy(), spent / len(T_base_tip)


def sample_errors(
    robot: Robot, q: np.ndarray, T_base_tip: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Errors (S,) in m and (S,) in rad of samples (B, N, J) at their tips, S = B N T."""
    position, angle = pose_errors(robot.forward(q), T_base_tip[:, None])
    return position.ravel(), angle.ravel()


def draw_solutions(
    solver: IKSolver,
    T_base_tip: np.ndarray,
    samples: int,
    seed: int,
    tolerances: tuple[float, float],
) -> tuple[dict[str, list[np.ndarray]], dict[str, dict[str, float]]]:
    """What `IKSolver.solve` chooses when it is asked for N solutions of each pose (B, T, 4, 4).

    Args:
        solver: that chooses.
        T_base_tip: targets.
        samples: N.
        seed: of the solver's starts.
        tolerances: m and rad, of a valid solution.

    Returns:
        For each selection the valid solutions (M, J) of each pose, M <= N; and for each selection
        the seconds per pose of each stage, and the mean number of solutions.
    """
    chosen: dict[str, list[np.ndarray]] = {}
    stages: dict[str, dict[str, float]] = {}
    for select in SELECTIONS:
        starts = samples * (_DIVERSE_POOL if select == "diverse" else 1)
        chunk = max(1, _SAMPLES_PER_CALL // starts)
        chosen[select], stages[select] = [], {}
        for begin in tracked(range(0, len(T_base_tip), chunk), f"calls, {select} solutions"):
            result = solver.solve(
                T_base_tip[begin : begin + chunk], starts, samples, None, seed + begin, select,
                position_tolerance=tolerances[0], orientation_tolerance=tolerances[1],
            )  # fmt: skip
            rows = zip(result.joint_positions, result.valid, strict=True)
            chosen[select] += [q[valid] for q, valid in rows]
            for stage, spent in result.timing.items():
                before = stages[select].get(stage, 0.0)
                stages[select][stage] = before + spent / len(T_base_tip)
        stages[select]["solutions"] = float(np.mean([len(q) for q in chosen[select]]))
    return chosen, stages


def refine_samples(
    robot: Robot,
    sampler: Sampler,
    q: np.ndarray,
    T_base_tip: np.ndarray,
    tolerances: tuple[float, float],
    generator: torch.Generator,
) -> list[np.ndarray]:
    """What the refinement makes of samples: the first N valid ones of each pose.

    Args:
        robot: that the samples are of.
        sampler: draws more samples where some do not converge.
        q: (B, N, J) samples to begin with.
        T_base_tip: (B, T, 4, 4) targets.
        tolerances: m and rad, of a valid solution.
        generator: of the further samples.

    Returns:
        B times (M, J), M <= N, in the order in which they were drawn.
    """
    kept: list[np.ndarray] = [np.empty((0, q.shape[2]))] * len(q)
    open_poses = np.arange(len(q))
    for _ in range(_MOST_ROUNDS):
        refined = refine_lm(robot, q, T_base_tip[open_poses], *tolerances)
        for pose, rows, valid in zip(open_poses, refined.q, refined.converged, strict=True):
            kept[pose] = np.concatenate((kept[pose], rows[valid]))[: q.shape[1]]
        open_poses = np.flatnonzero([len(rows) < q.shape[1] for rows in kept])
        if len(open_poses) == 0:
            break
        q, _ = draw_samples(sampler, T_base_tip[open_poses], q.shape[1], generator)
    return kept
