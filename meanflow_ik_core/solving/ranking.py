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


def ranking_cost(
    position_error: np.ndarray,
    orientation_error: np.ndarray,
    distance: np.ndarray,
    error_weight: float,
    distance_weight: float,
) -> np.ndarray:
    """``error_weight * (sum over tips of m + rad) + distance_weight * distance``.

    Args:
        position_error: (..., T) m.
        orientation_error: (..., T) rad.
        distance: (...) rad to the current joints.
        error_weight: per m and per rad.
        distance_weight: per rad.

    Returns:
        (...).
    """
    error = position_error.sum(-1) + orientation_error.sum(-1)
    return error_weight * error + distance_weight * distance


def rank(cost: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Order (B, N) of the candidates: valid first, then by cost (B, N); ties keep their order."""
    return np.lexsort((cost, ~valid), axis=-1)


def select_best(
    q: np.ndarray, continuous: np.ndarray, valid: np.ndarray, count: int, min_separation: float
) -> np.ndarray:
    """The first ``count`` valid candidates that differ from all chosen before.

    Args:
        q: (N, J) candidates of one problem, best first.
        continuous: (J,) bool, joints without limits.
        valid: (N,) bool.
        count: how many at most.
        min_separation: rad; candidates whose largest joint difference is smaller are the same.

    Returns:
        Indices into q, ascending.
    """
    return selection.best(np.ascontiguousarray(q), continuous, valid, count, min_separation)


def select_diverse(
    q: np.ndarray, continuous: np.ndarray, valid: np.ndarray, count: int, min_separation: float
) -> np.ndarray:
    """Farthest-point choice: the best candidate, then always the one farthest from all chosen
    (Gonzalez 1985). Arguments and result as in `select_best`."""
    chosen = selection.diverse(np.ascontiguousarray(q), continuous, valid, count, min_separation)
    return np.sort(chosen)
