# SPDX-License-Identifier: Apache-2.0
"""Sends large messages, then small ones, and prints how much memory [MB] it has kept."""

import ctypes
import time
from pathlib import Path

import rclpy
from rclpy.qos import QoSProfile
from sensor_msgs.msg import PointCloud2

from meanflow_ik_ros.process import give_messages_back

COUNT, SIZE = 5, 20_000_000


def memory() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def send(size: int) -> None:
    """Fill the queues of both ends, then empty them."""
    heard.clear()
    for _ in range(COUNT):
        publisher.publish(PointCloud2(data=bytes(size)))
    while len(heard) < COUNT:
        rclpy.spin_once(node)
    heard.clear()


give_messages_back()
rclpy.init()
node = rclpy.create_node("kept_memory")
heard: list[PointCloud2] = []
node.create_subscription(PointCloud2, "cloud", heard.append, QoSProfile(depth=COUNT))
publisher = node.create_publisher(PointCloud2, "cloud", QoSProfile(depth=COUNT))
while not publisher.get_subscription_count():
    time.sleep(0.01)
before = memory()
send(SIZE)
for _ in range(4):
    send(1)
ctypes.CDLL(None).malloc_trim(0)  # what Python itself has freed
print(memory() - before)
