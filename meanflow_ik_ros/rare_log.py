# SPDX-License-Identifier: Apache-2.0
"""Log lines that may come often, each source of them now and then."""

from __future__ import annotations

import math
import threading
import time
from typing import Any

from meanflow_ik_ros.joint_states import WARN_EVERY_S


class RareLog:
    """At most one line per source in `WARN_EVERY_S`; it says how many were left out before it."""

    def __init__(self, logger: Any) -> None:
        self._logger = logger
        self._lock = threading.Lock()
        self._sources: dict[str, tuple[float, int]] = {}  # when the last one was, how many since

    def warning(self, source: str, text: str) -> None:
        if (line := self._line(source, text)) is not None:
            self._logger.warning(line)

    def error(self, source: str, text: str) -> None:
        if (line := self._line(source, text)) is not None:
            self._logger.error(line)

    def _line(self, source: str, text: str) -> str | None:
        now = time.monotonic()
        with self._lock:
            before, left_out = self._sources.get(source, (-math.inf, 0))
            if now - before < WARN_EVERY_S:
                self._sources[source] = before, left_out + 1
                return None
            self._sources[source] = now, 0
        return f"{source}: {text}" + (f" ({left_out} more were left out)" if left_out else "")
