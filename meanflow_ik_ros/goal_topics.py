# SPDX-License-Identifier: Apache-2.0
"""The topics that answer a goal: candidates, their joint states, and the drawn arms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import JointState
from visualization_msgs.msg import MarkerArray

from meanflow_ik_ros.conversions import IKQuery, candidates_from_response
from meanflow_ik_ros.ghosts import Ghosts
from meanflow_ik_ros.msg import IKSolutionArray
from meanflow_ik_ros.qos import create_publisher
from meanflow_ik_ros.srv import GetIKSolutions

if TYPE_CHECKING:
    from rclpy.node import Node

    from meanflow_ik_core.robot import Robot
    from meanflow_ik_ros.parameters import NodeParameters


class GoalTopics:
    """Publishers of a node; `close` takes them down again."""

    def __init__(self, node: Node, robot: Robot, qos: QoSProfile) -> None:
        self.robot = robot
        self._node = node
        self._ghosts = Ghosts(robot)
        # RViz gets the last arms even when it is started after them.
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)

        self._candidates = create_publisher(node, IKSolutionArray, "~/candidates", qos)
        self._joint_candidates = create_publisher(node, JointState, "~/joint_candidates", qos)
        self._best_candidate = create_publisher(node, JointState, "~/best_candidate", qos)
        self._markers = create_publisher(node, MarkerArray, "~/markers", latched)
        self._markers.publish(self._ghosts.start())

    def publish(
        self, query: IKQuery, response: GetIKSolutions.Response, parameters: NodeParameters
    ) -> None:
        """Candidates that miss the goal go to ~/candidates only, flagged as not valid."""
        valid = [solution.joint_state for solution in response.solutions if solution.valid]
        if valid:
            self._best_candidate.publish(valid[0])
        self._candidates.publish(candidates_from_response(query, response, self.robot))
        for joint_state in valid:
            self._joint_candidates.publish(joint_state)
        self._markers.publish(
            self._ghosts.update(
                response.solutions,
                query.targets[0] @ query.T_tip_frame,
                query.stamp,
                count=parameters.marker_count,
                opacity=parameters.marker_opacity,
                lifetime_s=parameters.marker_lifetime,
                viewers=self._markers.get_subscription_count(),
            )
        )

    def close(self) -> None:
        for publisher in (
            self._candidates,
            self._joint_candidates,
            self._best_candidate,
            self._markers,
        ):
            self._node.destroy_publisher(publisher)
