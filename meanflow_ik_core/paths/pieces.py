# SPDX-License-Identifier: Apache-2.0
"""Work on many rows that comes in pieces, so that others can have their turn between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from ..robot.robot import Robot
from ..solving.refine import Refined, refine_lm

_STARTS_AT_ONCE = 4096
_CHECKS_AT_ONCE = 512  # of what touches


def pieces(count: int, size: int, between: Callable[[], object], first: int = 0) -> Iterator[slice]:
    """Slices of ``size`` rows, or of one, from the first row to ``count``; calls ``between`` before
    each."""
    for begin in range(first, count, max(1, size)):
        between()
        yield slice(begin, min(begin + max(1, size), count))


def refined_in_pieces(
    robot: Robot,
    starts: np.ndarray,
    targets: np.ndarray,
    tolerances: tuple[float, float],
    axis_weights: np.ndarray | None,
    between: Callable[[], object],
) -> Refined:
    """What `refine_lm` makes of starts (B, N, J), some targets (B, T, 4, 4) at a time."""
    found = [
        refine_lm(robot, starts[some], targets[some], *tolerances, axis_weights=axis_weights)
        for some in pieces(len(starts), _STARTS_AT_ONCE // max(1, starts.shape[1]), between)
    ]
    return Refined(
        *(
            np.concatenate([getattr(each, name) for each in found])
            for name in ("q", "position_error", "orientation_error", "converged")
        )
    )


def checked_in_pieces(
    check: Callable[..., np.ndarray], between: Callable[[], object], *arrays: np.ndarray
) -> np.ndarray:
    """(N,) bool, what a check says of rows of arrays (N, J)."""
    found = [
        check(*(array[some] for array in arrays))
        for some in pieces(len(arrays[0]), _CHECKS_AT_ONCE, between)
    ]
    return np.concatenate(found) if found else np.zeros(0, bool)
