# SPDX-License-Identifier: Apache-2.0
"""Solutions followed from waypoint to waypoint, so that neighbouring ones lie close together."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..robot.robot import Robot
from ..solving.refine import refine_lm


def follow(
    robot: Robot,
    T_base_tip: np.ndarray,
    anchors: np.ndarray,
    solutions: np.ndarray,
    tolerances: tuple[float, float],
    axis_weights: np.ndarray | None = None,
    between: Callable[[], object] = lambda: None,
) -> tuple[np.ndarray, np.ndarray]:
    """Follow solutions of some waypoints to both ends of the path.

    Each waypoint's start is what the refinement made of its neighbour, solution or not: a track
    that leaves the limits may come back. All anchors go one waypoint on at a time.

    Args:
        robot: whose kinematics and limits.
        T_base_tip: (W, T, 4, 4).
        anchors: (A,) the waypoints where tracks begin.
        solutions: (A, N, J) there.
        tolerances: m and rad.
        axis_weights: (T, 6), see `refine_lm`.
        between: called before each step.

    Returns:
        Tracks (W, A N, J), and which of them are solutions (W, A N).
    """
    waypoints, (num_anchors, count, joints) = len(T_base_tip), solutions.shape
    q = np.empty((waypoints, num_anchors, count, joints))
    valid = np.empty((waypoints, num_anchors, count), bool)
    rows = np.arange(num_anchors)
    first = refine_lm(robot, solutions, T_base_tip[anchors], *tolerances, axis_weights=axis_weights)
    q[anchors, rows], valid[anchors, rows] = first.q, first.converged
    for step in range(1, waypoints):
        between()
        ahead, back = anchors + step < waypoints, anchors - step >= 0
        here = np.concatenate((anchors[ahead] + step, anchors[back] - step))
        if not len(here):
            break
        before = np.concatenate((anchors[ahead] + step - 1, anchors[back] - step + 1))
        track = np.concatenate((rows[ahead], rows[back]))
        refined = refine_lm(
            robot, q[before, track], T_base_tip[here], *tolerances, axis_weights=axis_weights
        )
        q[here, track], valid[here, track] = refined.q, refined.converged
    return q.reshape(waypoints, -1, joints), valid.reshape(waypoints, -1)
