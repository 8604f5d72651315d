# SPDX-License-Identifier: Apache-2.0
"""Ask a running solver node for solutions, without MoveIt.

ros2 launch meanflow_ik_ros solver.launch.py        # or: meanflow-ik-node
python ros_client.py
"""

import sys

try:
    import rclpy
    from geometry_msgs.msg import PoseStamped
    from meanflow_ik_ros.srv import GetIKSolutions
    from rclpy.node import Node
except ImportError as error:
    raise SystemExit(f"{error}: pip install '.[ros]'") from None


SERVICE = sys.argv[1] if len(sys.argv) > 1 else "/meanflow_ik/get_ik_solutions"
PATIENCE_S = 30.0


def grasp_from_above() -> PoseStamped:
    target = PoseStamped()
    target.header.frame_id = "panda_link0"
    target.pose.position.x, target.pose.position.z = 0.45, 0.2
    target.pose.orientation.x, target.pose.orientation.w = 1.0, 0.0
    return target


def main() -> None:
    rclpy.init()
    node = Node("grasp_client")
    try:
        client = node.create_client(GetIKSolutions, SERVICE)
        if not client.wait_for_service(PATIENCE_S):
            raise SystemExit(f"no node serves {SERVICE}")
        request = GetIKSolutions.Request(
            targets=[grasp_from_above()],
            tip_links=["panda_hand_tcp"],
            free_axes=["rz"],  # the fingers may close in any direction
            max_solutions=5,
            avoid_self_collision=True,
        )
        future = client.call_async(request)
        rclpy.spin_until_future_complete(node, future, timeout_sec=PATIENCE_S)
        response = future.result()
        if response is None:
            raise SystemExit("no answer")
        if response.error_code != GetIKSolutions.Response.SUCCESS:
            raise SystemExit(f"error {response.error_code}: {response.message}")
        for solution in response.solutions:
            joints = ", ".join(f"{q:.3f}" for q in solution.joint_state.position)
            print(f"[{joints}] cost {solution.cost:.3f}")
    finally:
        node.destroy_node()
        rclpy.shutdown()


main()
