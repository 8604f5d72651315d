# SPDX-License-Identifier: Apache-2.0
"""When a search has to end."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

_NEAR_S = 0.25


def nothing() -> None:
    """What is called between parts where nobody waits."""


@dataclass(frozen=True)
class Deadline:
    """A moment of a clock, which may be that of a test."""

    moment: float = math.inf  # s; infinite: there is no deadline
    now: Callable[[], float] = time.perf_counter
    prolongs: bool = True  # whether a search goes on until then; else it may end before, as without
    between: Callable[[], object] = nothing  # called where the clock is looked at, before it

    @property
    def is_timeout(self) -> bool:
        """Whether the search lasts until the moment, whatever number of starts that takes."""
        return self.moment < math.inf and self.prolongs

    def passed(self) -> bool:
        """Whether the moment has come; until then, others go first."""
        if not self._has_come():
            self.between()
        return self._has_come()

    def _has_come(self) -> bool:
        return self.moment < math.inf and self.now() >= self.moment

    def is_near(self) -> bool:
        """Whether so little time is left that work has to come in small pieces."""
        return self.moment < math.inf and self.moment - self.now() < _NEAR_S

    def earlier(self, seconds: float) -> "Deadline":
        return replace(self, moment=self.moment - seconds)

    def share(self, count: int) -> "Deadline":
        """The deadline of the first of ``count`` that have the time that is left in equal parts."""
        if self.moment == math.inf:
            return self
        now = self.now()
        return replace(self, moment=now + (self.moment - now) / count)
