# SPDX-License-Identifier: Apache-2.0
"""Hears where the robot's joints are."""

from __future__ import annotations

from rclpy.qos import QoSProfile
from sensor_msgs.msg import JointState

from meanflow_ik_ros.desk import Desk
from meanflow_ik_ros.qos import create_subscription


class JointStateTopic:
    """The subscription of joint_states; `close` takes it down again."""

    def __init__(self, desk: Desk) -> None:
        self._node = desk.node
        self._subscription = create_subscription(
            desk.node,
            JointState,
            "joint_states",
            desk.current_state.receive,
            QoSProfile(depth=desk.parameters.qos_depth),
            desk.node.own_thread("joint_states"),
        )

    def close(self) -> None:
        self._node.destroy_subscription(self._subscription)
