# SPDX-License-Identifier: Apache-2.0
"""Shows the node's world."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rclpy.qos import DurabilityPolicy, QoSProfile
from visualization_msgs.msg import MarkerArray

from meanflow_ik_ros.desk import Desk
from meanflow_ik_ros.markers.world_markers import world_markers
from meanflow_ik_ros.qos import create_publisher

if TYPE_CHECKING:
    from meanflow_ik_ros.world_objects import WorldObjects


class WorldMarkersTopic:
    """Publishes the world on ~/world_markers when it changes, and to viewers that come later;
    `close` takes the topic down again."""

    def __init__(self, desk: Desk) -> None:
        self._node, self._world = desk.node, desk.world
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._publisher = create_publisher(desk.node, MarkerArray, "~/world_markers", latched)
        desk.world.tell(self.publish)
        self.publish(desk.world.content)

    def publish(self, content: WorldObjects) -> None:
        self._publisher.publish(world_markers(content))

    def close(self) -> None:
        self._world.tell(None)  # a cloud may just be taken
        self._node.destroy_publisher(self._publisher)
