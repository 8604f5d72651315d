# SPDX-License-Identifier: Apache-2.0
"""A lock that is fair to those who wait for the solver."""

import threading
from collections import deque


class FairLock:
    """A lock that goes to those who wait in the order in which they came.

    With `threading.Lock`, or a callback group, which of several kinds of requests comes next is up
    to others, and under load the last kind in somebody's order hardly comes at all.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._waiting: deque[threading.Lock] = deque()
        self._held = False

    def acquire(self) -> None:
        with self._guard:
            if not self._held:
                self._held = True
                return
            turn = threading.Lock()
            turn.acquire()
            self._waiting.append(turn)
        turn.acquire()

    def release(self) -> None:
        with self._guard:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._held = False

    def pass_on(self) -> None:
        """Let all who wait now have the lock before it comes back; only its holder may call it."""
        if self._waiting:
            self.release()
            self.acquire()

    def locked(self) -> bool:
        return self._held

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *exception: object) -> None:
        self.release()
