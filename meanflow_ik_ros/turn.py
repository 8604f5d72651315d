# SPDX-License-Identifier: Apache-2.0
"""A turn at the solver, which long work gives to others now and then."""

from __future__ import annotations

import time
from collections.abc import Callable

from meanflow_ik_ros.fair_lock import FairLock
from meanflow_ik_ros.messages.errors import Codes, RequestError
from meanflow_ik_ros.own_thread import step_aside

# Long work goes in slices of about this length. Who waits has to wait for one, and a slice is
# hundreds of times longer than what a change of turns costs.
SLICE_S = 0.03
# Work that has computed for longer steps aside, for shorter work of the same kind. rclpy takes
# twice as long to read a request of 10,000 poses.
LONG_S = 0.05


class Turn:
    """Holds the solver while its ``with`` block lasts, but for where others get their turn.

    Args:
        lock: of the solver.
        limit_s: how long the solver may be held, all slices together.
        is_closing: whether the node is about to end.
    """

    def __init__(self, lock: FairLock, limit_s: float, is_closing: Callable[[], bool]) -> None:
        self._lock, self._limit_s, self._is_closing = lock, limit_s, is_closing
        self._since = self._held = self._cpu_since = 0.0

    def __enter__(self) -> Turn:
        self._lock.acquire()
        # What a thread computes, unlike time, does not count how long others kept Python's lock.
        self._since, self._cpu_since = time.perf_counter(), time.thread_time()
        return self

    def __exit__(self, *exception: object) -> None:
        self._lock.release()

    def held(self) -> float:
        """How long the solver has been held [s]."""
        return self._held + time.perf_counter() - self._since

    def left(self) -> float:
        """How long the solver may still be held [s]."""
        return self._limit_s - self.held()

    def give_way(self, aside: bool = False) -> None:
        """Let those that wait go first, where this slice has lasted long enough.

        Args:
            aside: whether work that takes long may also have to wait until other such work of its
                kind has ended, see `own_thread.step_aside`. No clock of a search may run then.

        Raises:
            RequestError: the node is about to end, the time is used up, or too much long work of
                the same kind waits already.
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
        if aside and time.thread_time() - self._cpu_since > LONG_S:
            self._step_aside()
        else:
            self._lock.pass_on()
        self._since = time.perf_counter()

    def _step_aside(self) -> None:
        self._lock.release()
        try:
            may_go_on = step_aside()
        finally:
            self._lock.acquire()
        if self._is_closing():
            raise RequestError(Codes.FAILURE, "the node is shutting down")
        if not may_go_on:
            raise RequestError(
                Codes.FAILURE,
                "so many long requests of this kind wait already that the node takes no more; "
                "ask again once they are answered",
            )
