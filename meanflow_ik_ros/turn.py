# SPDX-License-Identifier: Apache-2.0
"""A turn at the solver, which long work gives to others now and then."""

from __future__ import annotations

import time
from collections.abc import Callable

from meanflow_ik_ros.fair_lock import FairLock
from meanflow_ik_ros.messages.errors import Codes, RequestError

# Long work goes in slices of about this length. Who waits has to wait for one, and a slice is
# hundreds of times longer than what a change of turns costs.
SLICE_S = 0.03


class Turn:
    """Holds the solver while its ``with`` block lasts, but for where others get their turn.

    Args:
        lock: of the solver.
        limit_s: how long the solver may be held, all slices together.
        is_closing: whether the node is about to end.
    """

    def __init__(self, lock: FairLock, limit_s: float, is_closing: Callable[[], bool]) -> None:
        self._lock, self._limit_s, self._is_closing = lock, limit_s, is_closing
        self._since = self._held = 0.0

    def __enter__(self) -> Turn:
        self._lock.acquire()
        self._since = time.perf_counter()
        return self

    def __exit__(self, *exception: object) -> None:
        self._lock.release()

    def held(self) -> float:
        """How long the solver has been held [s]."""
        return self._held + time.perf_counter() - self._since

    def left(self) -> float:
        """How long the solver may still be held [s]."""
        return self._limit_s - self.held()

    def give_way(self) -> None:
        """Let those that wait go first, where this slice has lasted long enough.

        Raises:
            RequestError: the node is about to end, or the time is used up.
        """
        held = time.perf_counter() - self._since
        if held < SLICE_S:
            return
        if self._is_closing():
            raise RequestError(Codes.FAILURE, "the node is shutting down")
        if self._held + held > self._limit_s:
            raise RequestError(
                Codes.FAILURE,
                f"the solver was busy with it for {self._limit_s:g} s, which is the node's "
                "parameter time_limit; ask for less at once",
            )
        self._held += held
        self._lock.pass_on()
        self._since = time.perf_counter()
