# SPDX-License-Identifier: Apache-2.0
"""Steps between joint configurations, what limits them, and the chain with the smallest ones."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

from ..robot.robot import Robot

# A step beyond a limit costs this much per multiple of the limit: more than any step within.
BEYOND = 1e6
_ANY = 1e300  # more than any step costs
_ROUNDING = 1 + 1e-9
_SMALLEST_LIMIT = 1e-12  # rad or m


@dataclass(frozen=True, eq=False)
class StepLimits:
    """How far each joint may go from one waypoint to the next; continuous joints go the short way.

    A step costs its largest joint difference, or, where a joint goes beyond its limit,
    `BEYOND` times the largest share of a limit that it needs.
    """

    continuous: np.ndarray  # (J,) bool
    allowed: np.ndarray  # (W - 1, J) rad or m; inf: any

    def differences(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """b - a, both (..., J)."""
        delta = b - a
        wrapped = delta - 2 * np.pi * np.round(delta / (2 * np.pi))
        return np.where(self.continuous, wrapped, delta)

    def along(self, q: np.ndarray) -> np.ndarray:
        """Steps (..., P - 1, J) of paths q (..., P, J)."""
        return self.differences(q[..., :-1, :], q[..., 1:, :])

    def shares(self, steps: np.ndarray) -> np.ndarray:
        """What of its limit each joint needs (..., P - 1, J); above 1 is too much."""
        return np.abs(steps) / self.allowed[: steps.shape[-2]]

    def costs(self, steps: np.ndarray) -> np.ndarray:
        """(..., P - 1)."""
        share = self.shares(steps).max(-1)
        return np.where(share > _ROUNDING, BEYOND * share, np.abs(steps).max(-1))

    def unwrapped(self, q: np.ndarray, start: np.ndarray | None) -> np.ndarray:
        """The path q (P, J) with continuous joints that go on beyond a turn, from ``start`` (J,)
        where there is one."""
        begin = q[:1] if start is None else start + self.differences(start, q[:1])
        along = np.concatenate((begin, begin + self.along(q).cumsum(0)))[: len(q)]
        return np.where(self.continuous, along, q)

    def chain(self, q: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """One candidate per waypoint, so that the dearest step costs as little as possible, and
        of those the one with the shortest path, by dynamic programming.

        Args:
            q: (W, C, J) candidates.
            valid: (W, C) bool, which of them may be used; one per waypoint at least.

        Returns:
            Which (W,), and what the dearest step on the way to each candidate costs at least,
            (W, C); inf where that is more than for the best of the C columns by itself.
        """
        alone = self.costs(self.along(q.swapaxes(0, 1))).max(-1, initial=0.0)
        known = np.where(valid.all(0), alone, np.inf).min(initial=np.inf) * _ROUNDING
        q = np.ascontiguousarray(q)
        dearest = _dearest(q, valid, self.continuous, self.allowed, known)
        return _shortest(q, dearest, self.continuous, self.allowed, dearest[-1].min()), dearest

    def shortest_chain(self, q: np.ndarray, valid: np.ndarray) -> np.ndarray:
        """One candidate per waypoint (W,), so that the path is as short as possible, whatever its
        dearest step costs. Arguments as in `chain`."""
        usable = np.where(valid, 0.0, np.inf)
        q = np.ascontiguousarray(q)
        return _shortest(q, usable, self.continuous, self.allowed, _ANY)


def step_limits(
    robot: Robot, waypoints: int, max_joint_step: float | None, times: np.ndarray | None
) -> StepLimits:
    """From the largest joint step [rad or m], and the joints' speeds where times (W,) are given."""
    allowed = np.full((waypoints - 1, robot.num_joints), np.inf)
    if max_joint_step is not None:
        allowed[:] = max_joint_step
    if times is not None:
        allowed = np.minimum(allowed, robot.velocity_limit * np.diff(times)[:, None])
    return StepLimits(robot.continuous, np.maximum(allowed, _SMALLEST_LIMIT))


@numba.njit(cache=True, nogil=True)
def _cost(a, b, continuous, allowed, enough):
    """Cost of a step and the square of its length; the search may stop above ``enough``."""
    largest, share, squares = 0.0, 0.0, 0.0
    for j in range(a.size):
        delta = abs(b[j] - a[j])
        if continuous[j]:
            delta = delta % (2 * np.pi)
            delta = min(delta, 2 * np.pi - delta)
        largest = max(largest, delta)
        if largest > enough:
            return np.inf, np.inf
        share = max(share, delta / allowed[j])
        squares += delta * delta
    return BEYOND * share if share > _ROUNDING else largest, squares


@numba.njit(cache=True, nogil=True)
def _dearest(q, valid, continuous, allowed, known):
    """What the dearest step on the way to each candidate costs at least (W, C); inf above
    ``known``."""
    waypoints, count = valid.shape
    dearest = np.full((waypoints, count), np.inf)
    dearest[0][valid[0]] = 0.0
    for w in range(1, waypoints):
        for c in range(count):
            low = np.inf
            for k in range(count if valid[w, c] else 0):
                p = (c + k) % count  # its own strand is the likeliest
                if dearest[w - 1, p] < low:
                    enough = min(low, known)
                    cost, _ = _cost(q[w - 1, p], q[w, c], continuous, allowed[w - 1], enough)
                    low = min(low, max(cost, dearest[w - 1, p]))
            dearest[w, c] = low
    return dearest


@numba.njit(cache=True, nogil=True)
def _shortest(q, dearest, continuous, allowed, most):
    """The shortest chain (W,) of candidates that are not ``dearest`` (W, C) than ``most``, by
    steps that do not cost more."""
    waypoints, count = dearest.shape
    length = np.where(dearest <= most, 0.0, np.inf)
    before = np.zeros((waypoints, count), np.int64)
    for w in range(1, waypoints):
        for c in range(count):
            low = np.inf
            for k in range(count if dearest[w, c] <= most else 0):
                p = (c + k) % count
                if length[w - 1, p] < low:
                    cost, squares = _cost(q[w - 1, p], q[w, c], continuous, allowed[w - 1], most)
                    total = length[w - 1, p] + np.sqrt(squares)
                    if cost <= most and total < low:
                        low = total
                        before[w, c] = p
            length[w, c] = low
    chosen = np.empty(waypoints, np.int64)
    chosen[-1] = length[-1].argmin()
    for w in range(waypoints - 1, 0, -1):
        chosen[w - 1] = before[w, chosen[w]]
    return chosen
