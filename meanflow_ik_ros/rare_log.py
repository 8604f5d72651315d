# SPDX-License-Identifier: Apache-2.0
"""A log for what may come often: of each source it writes a line now and then."""

from __future__ import annotations

import math
import threading
import time
import traceback
from typing import Any

from meanflow_ik_core.bounds import MOST_TRACE, short

WARN_EVERY_S = 5.0


class RareLog:
    """One line per level and source in `WARN_EVERY_S`, with how many were left out before it.

    Warnings are shortened, as they may repeat a message of any size; errors are traces.
    """

    def __init__(self, logger: Any) -> None:
        self._logger = logger
        self._lock = threading.Lock()
        # By level and source: when the last line was written, and how many were left out since.
        self._sources: dict[tuple[str, str], tuple[float, int]] = {}

    def warning(self, source: str, text: str) -> None:
        if (line := self._line("warning", source, short(text))) is not None:
            self._logger.warning(line)

    def error(self, source: str, text: str) -> None:
        if (line := self._line("error", source, text)) is not None:
            self._logger.error(line)

    def _line(self, level: str, source: str, text: str) -> str | None:
        now = time.monotonic()
        with self._lock:
            before, left_out = self._sources.get((level, source), (-math.inf, 0))
            if now - before < WARN_EVERY_S:
                self._sources[level, source] = before, left_out + 1
                return None
            self._sources[level, source] = now, 0
        return f"{source}: {text}" + (f" ({left_out} more were left out)" if left_out else "")


def trace() -> str:
    """The traceback of the exception that is handled, its beginning and its end where it is long.

    Its text may repeat a request, which can be of any size.
    """
    text = traceback.format_exc()
    if len(text) <= MOST_TRACE:
        return text
    return f"{text[: MOST_TRACE // 2]} ...\n{short(text[-MOST_TRACE // 2 :], MOST_TRACE // 2)}"
