# SPDX-License-Identifier: Apache-2.0
"""Which candidates are returned, and in which order."""

import numba
import numpy as np

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
    return _select_best(np.ascontiguousarray(q), continuous, valid, count, min_separation)


def select_diverse(
    q: np.ndarray, continuous: np.ndarray, valid: np.ndarray, count: int, min_separation: float
) -> np.ndarray:
    """Farthest-point choice: the best candidate, then always the one farthest from all chosen
    (Gonzalez 1985). Arguments and result as in `select_best`."""
    return np.sort(
        _select_diverse(np.ascontiguousarray(q), continuous, valid, count, min_separation)
    )


@numba.njit(cache=True, nogil=True)
def _difference(a: float, b: float, continuous: bool) -> float:
    delta = abs(a - b)
    if continuous:
        delta = delta % (2 * np.pi)
        delta = min(delta, 2 * np.pi - delta)
    return delta


@numba.njit(cache=True, nogil=True)
def _select_best(q, continuous, valid, count, min_separation):
    num_candidates, num_joints = q.shape
    chosen = np.empty(min(count, num_candidates), dtype=np.int64)
    found = 0
    for i in range(num_candidates):
        if found == count:
            break
        if not valid[i]:
            continue
        is_new = True
        for k in range(found):
            differs = False
            for j in range(num_joints):
                if _difference(q[i, j], q[chosen[k], j], continuous[j]) >= min_separation:
                    differs = True
                    break
            if not differs:
                is_new = False
                break
        if is_new:
            chosen[found] = i
            found += 1
    return chosen[:found]


@numba.njit(cache=True, nogil=True)
def _select_diverse(q, continuous, valid, count, min_separation):
    num_candidates, num_joints = q.shape
    chosen = np.empty(min(count, num_candidates), dtype=np.int64)
    nearest = np.full(num_candidates, np.inf)  # squared distance to the chosen set
    separated = valid.copy()  # valid and not the same as a chosen one
    found = 0
    while found < chosen.size:
        best, best_distance = -1, -1.0
        for i in range(num_candidates):
            if separated[i] and nearest[i] > best_distance:
                best, best_distance = i, nearest[i]
        if best < 0:
            break
        chosen[found] = best
        found += 1
        for i in range(num_candidates):
            if separated[i]:
                total, largest = 0.0, 0.0
                for j in range(num_joints):
                    delta = _difference(q[i, j], q[best, j], continuous[j])
                    total += delta * delta
                    largest = max(largest, delta)
                nearest[i] = min(nearest[i], total)
                if largest < min_separation:
                    separated[i] = False
    return chosen[:found]
