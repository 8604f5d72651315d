# SPDX-License-Identifier: Apache-2.0
"""What the node says of itself on /diagnostics."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType  # pyright: ignore[reportPrivateImportUsage]
from rclpy.qos import QoSProfile

from meanflow_ik_ros.messages.conversions import Codes
from meanflow_ik_ros.qos import create_publisher

if TYPE_CHECKING:
    from rclpy.callback_groups import CallbackGroup

    from meanflow_ik_ros.node import MeanFlowIKNode

RECENT = 1000  # requests that latencies, solutions and failures are judged by


@dataclass(frozen=True)
class Answered:
    """One request: how long it took [s], whether it was solved, and with how many solutions."""

    seconds: float
    solved: bool
    valid: int
    failed: bool = False  # an exception that is not the request's fault


class RequestStatistics:
    """Counts since the start and the last `RECENT` requests; any thread may add or read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._recent: deque[Answered] = deque(maxlen=RECENT)
        self._requests = self._solved = 0

    def add(self, answered: Answered) -> None:
        with self._lock:
            self._recent.append(answered)
            self._requests += 1
            self._solved += answered.solved

    def failures(self) -> int:
        """How many of the last requests ended in an exception."""
        with self._lock:
            return sum(answered.failed for answered in self._recent)

    def values(self) -> dict[str, str]:
        """Names and values as a DiagnosticStatus shows them; a value without requests is '-'."""
        with self._lock:
            recent, requests, solved = list(self._recent), self._requests, self._solved
        p50 = p95 = valid = share = "-"
        if recent:
            share = f"{solved / requests:.4f}"
            p50, p95 = (
                f"{1e3 * value:.3f}"
                for value in np.percentile([answered.seconds for answered in recent], (50, 95))
            )
            valid = f"{np.mean([answered.valid for answered in recent]):.2f}"
        return {
            "requests": str(requests),
            "share solved": share,
            "latency p50 [ms]": p50,
            "latency p95 [ms]": p95,
            "valid solutions per request": valid,
            "requests failed": str(sum(answered.failed for answered in recent)),
        }


def answered_from_response(response: Any, seconds: float, failed: bool) -> Answered:
    """What a response of any of the node's services says of its request."""
    code = response.error_code
    solved = int(getattr(code, "val", code)) == Codes.SUCCESS
    if hasattr(response, "solutions"):
        valid = sum(solution.valid for solution in response.solutions)
    elif hasattr(response, "valid"):
        valid = sum(response.valid)
    else:
        valid = int(solved)
    return Answered(seconds, solved, valid, failed)


def diagnostic_status(
    name: str, hardware: str, state: str, failures: int, values: Mapping[str, str]
) -> DiagnosticStatus:
    """The status of a node.

    Args:
        name: of the node, with its namespace.
        hardware: the robot that it solves for.
        state: of the managed node; all but "active" is a warning.
        failures: how many of the last requests ended in an exception; any is an error.
    """
    level, message = DiagnosticStatus.OK, "answering"
    if failures:
        level = DiagnosticStatus.ERROR
        message = f"{failures} of the last requests ended in an exception; see the log"
    elif state != "active":
        level, message = DiagnosticStatus.WARN, f"{state}: requests are refused"
    return DiagnosticStatus(
        level=level,
        name=f"{name.lstrip('/')}: solver",
        message=message,
        hardware_id=hardware,
        values=[KeyValue(key=key, value=value) for key, value in values.items()],
    )


class Diagnostics:
    """Publishes the status of a node on /diagnostics every `diagnostics_period`."""

    def __init__(
        self, node: MeanFlowIKNode, statistics: RequestStatistics, group: CallbackGroup
    ) -> None:
        self._node = node
        self._statistics = statistics
        self._publisher = create_publisher(
            node, DiagnosticArray, "/diagnostics", QoSProfile(depth=10)
        )
        node.create_timer(
            node.parameters.diagnostics_period,
            self.publish,
            callback_group=group,
            # one that goes on where simulated time stands still
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )

    def publish(self) -> None:
        node = self._node
        values = self._statistics.values()
        hardware = node.parameters.robot
        if node.configured:
            hardware = node.robot.name
            checkpoint = node.solver.checkpoint or {"path": "none", "sha256": "-"}
            values |= {
                "sampler": node.solver.sampler,
                "checkpoint": checkpoint["path"],
                "checkpoint sha256": checkpoint["sha256"],
                "device": str(node.solver.device),
            }
            names = ("joint_states age [ms]", "joint_states longest age [ms]")
            for name, age in zip(names, node.joints.ages() or (None, None), strict=True):
                values[name] = "never heard" if age is None else f"{1e3 * age:.1f}"
        status = diagnostic_status(
            node.get_fully_qualified_name(),
            hardware,
            node.state_name,
            self._statistics.failures(),
            values,
        )
        message = DiagnosticArray(status=[status])
        message.header.stamp = node.get_clock().now().to_msg()
        self._publisher.publish(message)
