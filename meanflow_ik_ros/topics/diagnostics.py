# SPDX-License-Identifier: Apache-2.0
"""What the node says of itself on /diagnostics."""

from __future__ import annotations

from collections.abc import Mapping

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType  # pyright: ignore[reportPrivateImportUsage]
from rclpy.qos import QoSProfile

from meanflow_ik_ros.desk import Desk
from meanflow_ik_ros.qos import create_publisher


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

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._publisher = create_publisher(
            desk.node, DiagnosticArray, "/diagnostics", QoSProfile(depth=10)
        )
        desk.node.create_timer(
            desk.parameters.diagnostics_period,
            self.publish,
            callback_group=MutuallyExclusiveCallbackGroup(),
            # A steady clock goes on where simulated time stands still.
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )

    def publish(self) -> None:
        desk = self._desk
        values = desk.statistics.values()
        hardware = desk.parameters.robot
        if desk.configured:
            hardware = desk.robot.name
            checkpoint = desk.solver.checkpoint or {"path": "none", "sha256": "-"}
            values |= {
                "sampler": desk.solver.sampler,
                "checkpoint": checkpoint["path"],
                "checkpoint sha256": checkpoint["sha256"],
                "device": str(desk.solver.device),
            }
            names = ("joint_states age [ms]", "joint_states longest age [ms]")
            for name, age in zip(names, desk.current_state.ages() or (None, None), strict=True):
                values[name] = "never heard" if age is None else f"{1e3 * age:.1f}"
        status = diagnostic_status(
            desk.node.get_fully_qualified_name(),
            hardware,
            desk.state_name,
            desk.statistics.failures(),
            values,
        )
        message = DiagnosticArray(status=[status])
        message.header.stamp = desk.node.get_clock().now().to_msg()
        self._publisher.publish(message)
