# SPDX-License-Identifier: Apache-2.0
"""Programs that `bench` starts beside the node: one that is all rclpy, and one that sends batches.

python -m meanflow_ik_ros.tools.beside floor
python -m meanflow_ik_ros.tools.beside batches 1000 8
"""

from __future__ import annotations

import contextlib
import sys
from functools import cache
from typing import Any

import numpy as np
import rclpy
from geometry_msgs.msg import PoseStamped
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import JointState

from meanflow_ik_core.robot.robot import load_robot
from meanflow_ik_ros.messages.fields import doubles
from meanflow_ik_ros.messages.poses import poses_from_matrices
from meanflow_ik_ros.msg import IKSolution
from meanflow_ik_ros.srv import GetIKSolutions, GetIKSolutionsBatch

_DEEP = QoSProfile(depth=10_000)


def floor(robot: str) -> None:
    """Answer as the node does, in messages of the same size and at once, as rclpy alone can.

    This is what a client waits for where solving takes no time. It is named as the solver is.
    """
    names = list(load_robot(robot).joint_names)
    node = Node("meanflow_ik")

    @cache
    def solutions(count: int) -> list[IKSolution]:
        return [
            IKSolution(
                joint_state=JointState(name=names, position=doubles(np.zeros(len(names)))),
                position_error=doubles([0.0]),
                orientation_error=doubles([0.0]),
            )
            for _ in range(count)
        ]

    def answer(request: Any, response: Any) -> Any:
        response.solutions = solutions(request.max_solutions)
        return response

    joints = node.create_publisher(JointState, "~/tracked_joints", _DEEP)
    zeros = doubles(np.zeros(len(names)))
    message = JointState(name=names, position=zeros, velocity=zeros)

    def echo(pose: PoseStamped) -> None:
        message.header.stamp = pose.header.stamp
        joints.publish(message)

    node.create_service(GetIKSolutions, "~/get_ik_solutions", answer, qos_profile=_DEEP)
    node.create_subscription(PoseStamped, "~/track_pose", echo, _DEEP)
    rclpy.spin(node)


def batches(robot: str, targets: int, solutions: int) -> None:
    """Ask the node for one batch after the other."""
    node = Node("batches")
    arm = load_robot(robot)
    poses = arm.forward(arm.random_configurations(targets, 0).numpy()).reshape(-1, 4, 4)
    request = GetIKSolutionsBatch.Request(max_solutions=solutions)
    request.targets.poses = poses_from_matrices(poses)
    request.targets.header.frame_id = arm.base
    client = node.create_client(GetIKSolutionsBatch, "meanflow_ik/get_ik_solutions_batch")
    client.wait_for_service()
    while rclpy.ok():
        rclpy.spin_until_future_complete(node, client.call_async(request))


def main() -> None:
    rclpy.init()
    kind, robot, *counts = remove_ros_args(sys.argv)[1:]
    with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
        {"floor": floor, "batches": batches}[kind](robot, *map(int, counts))


if __name__ == "__main__":
    main()
