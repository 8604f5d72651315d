# SPDX-License-Identifier: Apache-2.0
"""Which candidates are returned, and in which order."""

import numpy as np

from ..kernels import selection
from ..robot.robot import Robot

SELECTIONS = ("best", "diverse")


def joint_distance(robot: Robot, q: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Euclidean distance (...) in joint space of q (..., J) to a reference; the short way round
    for continuous joints."""
    delta = q - reference
    if robot.continuous.any():
        turn = 2 * np.pi
        wrapped = delta - turn * np.round(delta / turn)
        delta = np.where(robot.continuous, wrapped, delta)
    return np.sqrt(np.einsum("...j,...j->...", delta, delta))


def select_diverse(
    q: np.ndarray, continuous: np.ndarray, valid: np.ndarray, count: int, min_separation: float
) -> np.ndarray:
    """Farthest-point choice: the first candidate, then always the one farthest from all chosen
    (Gonzalez 1985).

    Args:
        q: (N, J) candidates of one problem, best first.
        continuous: (J,) bool, joints without limits.
        valid: (N,) bool.
        count: how many at most.
        min_separation: rad; candidates whose largest joint difference is smaller are the same.

    Returns:
        Indices into q, ascending.
    """
    chosen = selection.diverse(
        np.ascontiguousarray(q), np.flatnonzero(valid), continuous, count, min_separation
    )
    return np.sort(chosen)
