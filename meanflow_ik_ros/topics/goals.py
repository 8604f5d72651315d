# SPDX-License-Identifier: Apache-2.0
"""The topics that answer a goal: candidates, their joint states, and the drawn arms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.event_handler import PublisherEventCallbacks
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import JointState
from visualization_msgs.msg import MarkerArray

from meanflow_ik_ros.markers.goal_markers import Ghosts
from meanflow_ik_ros.messages.conversions import IKQuery, candidates_from_response
from meanflow_ik_ros.msg import IKSolutionArray
from meanflow_ik_ros.qos import create_publisher
from meanflow_ik_ros.srv import GetIKSolutions

if TYPE_CHECKING:
    from rclpy.node import Node

    from meanflow_ik_core.robot.robot import Robot
    from meanflow_ik_ros.parameters import NodeParameters


# To draw the arms takes three times as long as to solve a goal. They follow this long after it, so
# that neither its answer nor the next one waits; of goals that come faster, the last one is drawn.
# Without a viewer nothing is; one that comes is shown the last goal.
DRAW_AFTER_S = 0.05


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
        self._to_draw: tuple[IKQuery, GetIKSolutions.Response, NodeParameters] | None = None
        self._drawing = node.create_timer(
            DRAW_AFTER_S,
            self._draw,
            callback_group=MutuallyExclusiveCallbackGroup(),
            clock=Clock(clock_type=ClockType.STEADY_TIME),
            autostart=False,
        )
        self._markers = create_publisher(
            node,
            MarkerArray,
            "~/markers",
            latched,
            PublisherEventCallbacks(matched=lambda _: self._draw_soon()),
        )
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
        self._to_draw = query, response, parameters
        self._draw_soon()

    def _draw_soon(self) -> None:
        if self._drawing.is_canceled() and self._markers.get_subscription_count():
            self._drawing.reset()

    def _draw(self) -> None:
        self._drawing.cancel()  # before reading: a goal that comes from here on starts it again
        if self._to_draw is None:
            return
        query, response, parameters = self._to_draw
        self._markers.publish(
            self._ghosts.update(
                response.solutions,
                query.asked.of_tips(query.targets[0] @ query.T_tip_frame),
                query.stamp,
                count=parameters.marker_count,
                opacity=parameters.marker_opacity,
                lifetime_s=parameters.marker_lifetime,
                viewers=self._markers.get_subscription_count(),
            )
        )

    def close(self) -> None:
        self._node.destroy_timer(self._drawing)
        for publisher in (
            self._candidates,
            self._joint_candidates,
            self._best_candidate,
            self._markers,
        ):
            self._node.destroy_publisher(publisher)
