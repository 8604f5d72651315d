# SPDX-License-Identifier: Apache-2.0
"""Steps between joint configurations, what limits them, and the chain with the smallest ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ..kernels.chains import (
    BEYOND,
    ROUNDING,
    bottleneck_costs,
    shortest_lengths,
    traced_back,
)
from ..robot.robot import Robot
from ..solving.deadline import nothing
from .pieces import pieces

_ANY = 1e300  # more than any step costs
_SMALLEST_LIMIT = 1e-12  # rad or m
# Steps whose costs are computed, and pairs of candidates that are compared, in some 20 ms.
_STEPS_AT_ONCE, _PAIRS_AT_ONCE = 200_000, 1_000_000


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
        return np.where(share > ROUNDING, BEYOND * share, np.abs(steps).max(-1))

    def unwrapped(self, q: np.ndarray, start: np.ndarray | None) -> np.ndarray:
        """The path q (P, J) with continuous joints that go on beyond a turn, from ``start`` (J,)
        where there is one."""
        begin = q[:1] if start is None else start + self.differences(start, q[:1])
        along = np.concatenate((begin, begin + self.along(q).cumsum(0)))[: len(q)]
        return np.where(self.continuous, along, q)

    def chain(
        self, q: np.ndarray, valid: np.ndarray, between: Callable[[], object] = nothing
    ) -> tuple[np.ndarray, np.ndarray]:
        """One candidate per waypoint, so that the dearest step costs as little as possible, and
        of those the one with the shortest path, by dynamic programming.

        Args:
            q: (W, C, J) candidates.
            valid: (W, C) bool, which of them may be used; one per waypoint at least.
            between: called between parts of the work.

        Returns:
            Which (W,), and what the dearest step on the way to each candidate costs at least,
            (W, C); inf where that is more than for the best of the C columns by itself.
        """
        alone = [
            self.costs(self.along(q[:, some].swapaxes(0, 1))).max(-1, initial=0.0)
            for some in pieces(q.shape[1], _STEPS_AT_ONCE // len(q), between)
        ]
        whole = valid.all(0)
        known = np.where(whole, np.concatenate(alone), np.inf).min(initial=np.inf) * ROUNDING
        q, dearest = np.ascontiguousarray(q), np.where(valid, 0.0, np.inf)
        for rows in self._waypoints(q, between):
            bottleneck_costs(
                dearest, rows.start, rows.stop, q, valid, self.continuous, self.allowed, known
            )
        return self._shortest(q, dearest, dearest[-1].min(), between), dearest

    def shortest_chain(
        self, q: np.ndarray, valid: np.ndarray, between: Callable[[], object] = nothing
    ) -> np.ndarray:
        """One candidate per waypoint (W,), so that the path is as short as possible, whatever its
        dearest step costs. Arguments as in `chain`."""
        usable = np.where(valid, 0.0, np.inf)
        return self._shortest(np.ascontiguousarray(q), usable, _ANY, between)

    def _shortest(
        self, q: np.ndarray, costs: np.ndarray, most: float, between: Callable[[], object]
    ) -> np.ndarray:
        """(W,) the shortest chain whose candidates and steps cost no more than ``most``."""
        length = np.where(costs <= most, 0.0, np.inf)
        before = np.zeros(costs.shape, np.int64)
        for rows in self._waypoints(q, between):
            shortest_lengths(
                length, before, rows.start, rows.stop, q, costs, self.continuous, self.allowed, most
            )
        return traced_back(length, before)

    def _waypoints(self, q: np.ndarray, between: Callable[[], object]) -> Iterator[slice]:
        """All but the first, as many at once as are a part of the work."""
        return pieces(len(q), _PAIRS_AT_ONCE // q.shape[1] ** 2, between, first=1)


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
