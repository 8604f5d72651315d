# SPDX-License-Identifier: Apache-2.0
"""A client that is killed in mid call: asks for what takes long, says so, and waits.

It imports as little as it can, so that it starts in a moment.
"""

import rclpy
from geometry_msgs.msg import PoseStamped
from meanflow_ik_ros.srv import GetIKSolutions

if __name__ == "__main__":
    rclpy.init()
    node = rclpy.create_node("killed_client")
    client = node.create_client(GetIKSolutions, "/own/meanflow_ik/get_ik_solutions")
    assert client.wait_for_service(60)
    target = PoseStamped()
    target.header.frame_id = "panda_link0"
    target.pose.position.x = 3.0  # out of reach: long work
    request = GetIKSolutions.Request(targets=[target], num_samples=20_000)
    futures = [client.call_async(request) for _ in range(5)]
    rclpy.spin_once(node, timeout_sec=0.05)
    print("asked", flush=True)
    rclpy.spin(node)
