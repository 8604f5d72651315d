# SPDX-License-Identifier: Apache-2.0
"""How many requests were answered, how fast, and how well."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np

from meanflow_ik_ros.messages.errors import Codes

RECENT = 1000  # requests that latencies, solutions and failures are judged by


@dataclass(frozen=True)
class Outcome:
    """One request: how long it took [s], whether it was solved, and with how many solutions."""

    seconds: float
    solved: bool
    valid: int
    failed: bool = False  # an exception that is not the request's fault


class RequestStatistics:
    """Counts since the start and the last `RECENT` requests; any thread may add or read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._recent: deque[Outcome] = deque(maxlen=RECENT)
        self._requests = self._solved = 0

    def add(self, outcome: Outcome) -> None:
        with self._lock:
            self._recent.append(outcome)
            self._requests += 1
            self._solved += outcome.solved

    def failures(self) -> int:
        """How many of the last requests ended in an exception."""
        with self._lock:
            return sum(outcome.failed for outcome in self._recent)

    def values(self) -> dict[str, str]:
        """Names and values as a DiagnosticStatus shows them; a value without requests is '-'."""
        with self._lock:
            recent, requests, solved = list(self._recent), self._requests, self._solved
        p50 = p95 = valid = share = "-"
        if recent:
            share = f"{solved / requests:.4f}"
            p50, p95 = (
                f"{1e3 * value:.3f}"
                for value in np.percentile([outcome.seconds for outcome in recent], (50, 95))
            )
            valid = f"{np.mean([outcome.valid for outcome in recent]):.2f}"
        return {
            "requests": str(requests),
            "share solved": share,
            "latency p50 [ms]": p50,
            "latency p95 [ms]": p95,
            "valid solutions per request": valid,
            "requests failed": str(sum(outcome.failed for outcome in recent)),
        }


def outcome_from_response(response: Any, seconds: float, failed: bool) -> Outcome:
    """What a response of any of the node's services says of its request."""
    code = response.error_code
    solved = int(getattr(code, "val", code)) == Codes.SUCCESS
    if hasattr(response, "solutions"):
        valid = sum(solution.valid for solution in response.solutions)
    elif hasattr(response, "valid"):
        valid = sum(response.valid)
    else:
        valid = int(solved)
    return Outcome(seconds, solved, valid, failed)
