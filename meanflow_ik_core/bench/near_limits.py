# SPDX-License-Identifier: Apache-2.0
"""Poses that can only be reached with a joint at its limit: where refinement is hardest."""

from __future__ import annotations

import numpy as np

from ..evaluation.closed_form import ClosedForm
from ..progress import stage
from ..robot.robot import Robot

MARGIN = 0.01  # rad
_FIRST_SWEEP = 8  # values of the last joint; these few refute most candidates
_SWEEP = 256
_HALVINGS = 7
_STEEPEST = 10.0  # change of the margin per change of the last joint, away from turning points
_CANDIDATES = 256  # at a time
_MOST_AT_LIMIT = 3  # joints that are put near a limit


def limit_margin(robot: Robot, q: np.ndarray) -> np.ndarray:
    """Distance (...) of q (..., J) to the nearest limit; negative outside."""
    return np.minimum(q - robot.lower, robot.upper - q).min(-1)


def near_limit_poses(
    robot: Robot, count: int, seed: int, margin: float = MARGIN
) -> tuple[np.ndarray, np.ndarray]:
    """Reachable poses whose every solution has a joint within ``margin`` of a limit.

    Configurations with one to three joints near a limit are drawn, and those kept whose pose has
    no other solution on the whole sweep of the last joint.

    Args:
        robot: an arm with a closed form, see `ClosedForm`.
        count: how many poses.
        seed: the same seed gives the same poses.
        margin: rad.

    Returns:
        T_base_tip (count, 4, 4) and a solution of each, (count, 7) rad.
    """
    closed_form = ClosedForm(robot)
    random = np.random.default_rng(seed)
    kept: list[np.ndarray] = []
    while len(kept) < count:
        stage(f"poses near limits: {len(kept)} of {count}")
        q = _configurations_near_limits(robot, _CANDIDATES, margin, random)
        T_base_tip = robot.forward(q)[:, 0]
        for q_last in closed_form.last_joint_sweep(_FIRST_SWEEP):
            found, _ = _largest_margin_at(closed_form, T_base_tip, np.full(len(q), q_last))
            T_base_tip, q = T_base_tip[found <= margin], q[found <= margin]
        for pose, solution in zip(T_base_tip, q, strict=True):
            if largest_margin(closed_form, pose, solution[6], margin) <= margin:
                kept.append(solution)
    solutions = np.stack(kept[:count])
    return robot.forward(solutions)[:, 0], solutions


def largest_margin(
    closed_form: ClosedForm, T_base_tip: np.ndarray, q_last: float, enough: float
) -> float:
    """The largest distance to the limits that a solution of the pose has.

    Sweeps the last joint, and halves the steps where the margin may pass ``enough`` or where
    solutions appear or vanish.

    Args:
        closed_form: of the arm.
        T_base_tip: (4, 4).
        q_last: rad, of a known solution.
        enough: rad; the search ends when a margin above it is found.

    Returns:
        rad; -inf where the pose has no solution at all.
    """
    x = np.sort(np.append(closed_form.last_joint_sweep(_SWEEP), q_last))
    margin, number = _largest_margin_at(closed_form, T_base_tip, x)
    for _ in range(_HALVINGS):
        if margin.max() > enough:
            break
        step = np.diff(x)
        promising = np.maximum(margin[1:], margin[:-1]) + _STEEPEST * step > enough
        halved = (promising | (number[1:] != number[:-1])) & (step > 0)
        between = x[:-1][halved] + 0.5 * step[halved]
        more = _largest_margin_at(closed_form, T_base_tip, between)
        x = np.concatenate((x, between))
        order = np.argsort(x, kind="stable")
        x = x[order]
        margin = np.concatenate((margin, more[0]))[order]
        number = np.concatenate((number, more[1]))[order]
    return float(margin.max())


def _largest_margin_at(
    closed_form: ClosedForm, T_base_tip: np.ndarray, q_last: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Over the solutions at each q_last (N,): largest margin (N,) and how many there are (N,)."""
    rows, q = closed_form.solve(T_base_tip, q_last)
    margin = np.full(len(q_last), -np.inf)
    np.maximum.at(margin, rows, limit_margin(closed_form.robot, q))
    return margin, np.bincount(rows, minlength=len(q_last))


def _configurations_near_limits(
    robot: Robot, count: int, margin: float, random: np.random.Generator
) -> np.ndarray:
    q = random.uniform(robot.lower, robot.upper, (count, robot.num_joints))
    for row in q:
        at_limit = random.permutation(robot.num_joints)[: random.integers(1, _MOST_AT_LIMIT + 1)]
        distance = random.uniform(0, margin, len(at_limit))
        upper = random.random(len(at_limit)) < 0.5
        row[at_limit] = np.where(
            upper, robot.upper[at_limit] - distance, robot.lower[at_limit] + distance
        )
    return q
