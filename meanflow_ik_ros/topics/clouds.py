# SPDX-License-Identifier: Apache-2.0
"""Hears clouds of points, each of which is an obstacle with the name of its topic."""

from __future__ import annotations

import time
from functools import partial

import numpy as np
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import PointCloud2

from meanflow_ik_core.errors import IKError
from meanflow_ik_ros.desk import Desk
from meanflow_ik_ros.messages.cloud import cells_from_cloud
from meanflow_ik_ros.messages.errors import Codes, RequestError
from meanflow_ik_ros.messages.fields import nanoseconds_from_stamp
from meanflow_ik_ros.messages.sizes import check_frame
from meanflow_ik_ros.qos import create_subscription
from meanflow_ik_ros.rare_log import trace


class CloudTopics:
    """Subscribes to the parameter `cloud_topics`; `close` takes the subscriptions down again.

    A cloud that cannot be taken is passed over with a log: the one before becomes too old, and
    then requests are refused.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        # As cameras publish; of clouds that come faster than they are taken the last one counts.
        sensor = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        self._subscriptions = [
            create_subscription(
                desk.node,
                PointCloud2,
                topic,
                partial(self.receive, topic),
                sensor,
                MutuallyExclusiveCallbackGroup(),
            )
            for topic in desk.parameters.cloud_topics
        ]

    def receive(self, topic: str, message: PointCloud2) -> None:
        """Take a cloud without what lies too far away or on the robot itself."""
        try:
            self._take(topic, message)
        except IKError as error:
            self._desk.log.warning(topic, f"passed over: {error}")
        except Exception:
            self._desk.log.error(topic, f"failed: {trace()}")

    def _take(self, topic: str, message: PointCloud2) -> None:
        desk, parameters = self._desk, self._desk.parameters
        arrived = time.monotonic()
        check_frame(message.header)
        age_s = 0.0
        stamp = nanoseconds_from_stamp(message.header.stamp)
        if stamp < 0:
            raise RequestError(Codes.FRAME_TRANSFORM_FAILURE, "its stamp is negative")
        if stamp:
            age_s = max(0.0, 1e-9 * (desk.node.get_clock().now().nanoseconds - stamp))
        T_base_cloud = desk.T_base_frame(message.header.frame_id, message.header.stamp)
        edge = parameters.cloud_resolution
        cells = cells_from_cloud(message, edge, T_base_cloud, parameters.cloud_range)
        if len(cells):
            if desk.current_state.missing:
                raise RequestError(
                    Codes.INVALID_ROBOT_STATE,
                    "which points are the robot's own is not known: joint_states has not told of "
                    f"{', '.join(desk.current_state.missing)}",
                )
            # A point lies up to half a diagonal away from the middle of its cell.
            margin = parameters.cloud_body_margin + 0.5 * np.sqrt(3) * edge
            world = desk.world.held().world
            cells = cells[~world.on_robot(cells, desk.current_state.q, margin)]
        desk.world.change(lambda content: content.set_cloud(topic, cells, edge, arrived - age_s))

    def close(self) -> None:
        for subscription in self._subscriptions:
            self._desk.node.destroy_subscription(subscription)
