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
        why_end: why the work has to end now; empty: it need not.
    """

    def __init__(self, lock: FairLock, limit_s: float, why_end: Callable[[], str]) -> None:
        self._lock, self._limit_s, self._why_end = lock, limit_s, why_end
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
            RequestError: the work has to end now, the time is used up, or too much long work of
                the same kind waits already.
        """
        held = time.perf_counter() - self._since
        if held < SLICE_S:
            return
        self._check_may_go_on()
        # A search that has the same limit ends by itself, with what it has found.
        if self._held + held > self._limit_s + SLICE_S:
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
        self._check_may_go_on()
        if not may_go_on:
            raise RequestError(
                Codes.FAILURE,
                "so many long requests of this kind wait already that the node takes no more; "
                "ask again once they are answered",
            )

    def _check_may_go_on(self) -> None:
        if why := self._why_end():
            raise RequestError(Codes.FAILURE, why)
