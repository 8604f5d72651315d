# SPDX-License-Identifier: Apache-2.0
"""A process that publishes where one frame is, 20 times a second, until it is killed.

python tf_source.py PARENT CHILD X Y Z QX QY QZ QW
"""

import sys
import time

import rclpy
import tf2_ros
from geometry_msgs.msg import TransformStamped
from rclpy.node import Node


def main() -> None:
    parent, child, *numbers = sys.argv[1:]
    rclpy.init()
    node = Node("tf_source")
    broadcaster = tf2_ros.TransformBroadcaster(node)
    message = TransformStamped(child_frame_id=child)
    message.header.frame_id = parent
    translation, rotation = message.transform.translation, message.transform.rotation
    translation.x, translation.y, translation.z = map(float, numbers[:3])
    rotation.x, rotation.y, rotation.z, rotation.w = map(float, numbers[3:])
    while True:
        message.header.stamp = node.get_clock().now().to_msg()
        broadcaster.sendTransform(message)
        time.sleep(0.05)


if __name__ == "__main__":
    main()
