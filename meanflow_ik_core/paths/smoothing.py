# SPDX-License-Identifier: Apache-2.0
"""Shorter steps along a path whose every waypoint stays exactly solved."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..kernels.banded import solve_banded
from ..robot.robot import Robot
from .joint_steps import StepLimits
from .pieces import refined_in_pieces

_SHARES_OF_STEP = np.array([1.0, 0.6, 0.3, 0.15, 0.07, 0.03])  # tried side by side
_LARGEST_CHANGE = 0.5  # rad or m, of a joint in one round
_POWER = 8  # of the weight of a step against its size
_LEAST_WEIGHT = 0.01  # of a step
_OFF_TARGET = 1e4  # weight of what moves a tip, per m^2 and rad^2
_INERTIA = 1e-4  # weight of a change as such
_GAIN = 1e-3  # a round that gains less was the last


def smooth(
    robot: Robot,
    T_base_tip: np.ndarray,
    q: np.ndarray,
    limits: StepLimits,
    tolerances: tuple[float, float],
    *,
    hold_first: bool = False,
    in_collision: Callable[[np.ndarray], np.ndarray] | None = None,
    rounds: int = 20,
    axis_weights: np.ndarray | None = None,
    between: Callable[[], object] = lambda: None,
) -> np.ndarray:
    """Lower the dearest step of a path, and with equal ones its length.

    Each round is a Gauss-Newton step of the squared steps, the large ones weighted up, along the
    joint motions that leave the tips where they are; then every waypoint is solved again from
    there. A round that gains nothing is dropped and ends it.

    Args:
        robot: whose kinematics and limits.
        T_base_tip: (P, T, 4, 4).
        q: (P, J) solutions.
        limits: what steps cost.
        tolerances: m and rad.
        hold_first: leave the first solution as it is.
        in_collision: (N, J) -> (N,) what no waypoint may come to; None: anything goes.
        rounds: at most.
        axis_weights: (T, 6), see `refine_lm`.
        between: called before each part of a round.

    Returns:
        (P, J) solutions; the steps cost no more than those of ``q``.
    """
    worth = _worth(limits, q)
    for _ in range(rounds if len(q) > 1 else 0):
        between()
        change = _descent(_task_jacobian(robot, q, T_base_tip, axis_weights), q, limits, hold_first)
        change *= min(1.0, _LARGEST_CHANGE / max(np.abs(change).max(), 1e-12))
        starts = q[:, None] + change[:, None] * _SHARES_OF_STEP[:, None]
        refined = refined_in_pieces(robot, starts, T_base_tip, tolerances, axis_weights, between)
        trial = np.where(refined.converged[..., None], refined.q, q[:, None]).swapaxes(0, 1)
        if hold_first:
            trial[:, 0] = q[0]
        best = min(trial, key=lambda path: _worth(limits, path))
        if in_collision is not None:
            best = np.where(in_collision(best)[:, None], q, best)
        gained = _worth(limits, best)
        if gained >= worth:
            break
        small = all(a >= b * (1 - _GAIN) for a, b in zip(gained, worth, strict=True))
        q, worth = best, gained
        if small:
            break
    return q


def _worth(limits: StepLimits, q: np.ndarray) -> tuple[float, float]:
    """Cost of the dearest step of q (P, J), rounded, and the length of the path."""
    steps = limits.along(q)
    dearest = limits.costs(steps).max(initial=0.0)
    return float(f"{dearest:.4g}"), float(np.linalg.norm(steps, axis=-1).sum())


def _task_jacobian(
    robot: Robot, q: np.ndarray, T_base_tip: np.ndarray, axis_weights: np.ndarray | None
) -> np.ndarray:
    """(P, R, J) how what is asked for moves: each tip in the base's axes, or along those axes of
    its target that count."""
    jacobian = robot.jacobian(q)
    if axis_weights is None:
        return jacobian.reshape(len(q), -1, q.shape[1])
    parts = jacobian.reshape(len(q), robot.num_tips, 2, 3, -1)
    along = np.einsum("ptji,ptkjn->ptkin", T_base_tip[..., :3, :3], parts)
    return along.reshape(len(q), -1, q.shape[1])[:, axis_weights.ravel() != 0]


def _descent(
    jacobian: np.ndarray, q: np.ndarray, limits: StepLimits, hold_first: bool
) -> np.ndarray:
    """(P, J) the change that minimises the weighted squares of the steps, to first order."""
    steps = limits.along(q)
    share = limits.shares(steps)
    if (share <= 1).all():
        share = np.abs(steps)
    weight = (share / max(share.max(), 1e-12)) ** _POWER + _LEAST_WEIGHT
    blocks = _OFF_TARGET * jacobian.swapaxes(1, 2) @ jacobian
    diagonal = np.full_like(q, _INERTIA)
    diagonal[:-1] += weight
    diagonal[1:] += weight
    if hold_first:
        diagonal[0] += 1e9
    pull = weight * steps
    right = np.zeros_like(q)
    right[:-1] += pull
    right[1:] -= pull
    return solve_banded(blocks, diagonal, weight, right)
