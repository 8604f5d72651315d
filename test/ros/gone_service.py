# SPDX-License-Identifier: Apache-2.0
"""A program whose service is gone as soon as it has sent one large answer."""

import array
import sys
import threading
import time

import rclpy
from meanflow_ik_ros.srv import GetIKSolutionsBatch
from rclpy.node import Node

from meanflow_ik_ros.own_thread import OwnThread


def main() -> None:
    rclpy.init()
    node, answered = Node("gone_service"), threading.Event()
    thread = OwnThread(node, "own")

    def answer(request, response):
        response.positions = array.array("d", bytes(30_000_000))
        answered.set()
        return response

    service = node.create_service(GetIKSolutionsBatch, "large", answer, callback_group=thread)
    thread.start()
    answered.wait()
    while time.monotonic() < thread.quiet_since():
        time.sleep(0.01)
    thread.stop()
    node.destroy_service(service)
    sys.stdin.read()  # the process stays until it is told to end
    node.destroy_node()
    rclpy.try_shutdown()


if __name__ == "__main__":
    main()
