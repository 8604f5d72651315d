# SPDX-License-Identifier: Apache-2.0
"""Goals, and the topics that answer them: candidates, their joint states, and the drawn arms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from geometry_msgs.msg import PoseArray, PoseStamped
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.event_handler import PublisherEventCallbacks
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import JointState
from visualization_msgs.msg import MarkerArray

from meanflow_ik_core.bounds import MOST_TIPS
from meanflow_ik_ros.desk import Desk
from meanflow_ik_ros.markers.goal_markers import GoalMarkers
from meanflow_ik_ros.messages.errors import Codes
from meanflow_ik_ros.messages.query import IKQuery
from meanflow_ik_ros.msg import IKSolutionArray
from meanflow_ik_ros.qos import create_publisher, create_subscription
from meanflow_ik_ros.rare_log import trace
from meanflow_ik_ros.services import solutions
from meanflow_ik_ros.srv import GetIKSolutions

if TYPE_CHECKING:
    from meanflow_ik_core.robot.robot import Robot
    from meanflow_ik_ros.parameters import NodeParameters

GOAL, GOALS = "~/goal_pose", "~/goal_poses"
# To draw the arms takes three times as long as to solve a goal. They follow this long after it, so
# that neither its answer nor the next one waits; of goals that come faster, the last one is drawn.
# Without a viewer nothing is drawn; a viewer that comes is shown the last goal.
DRAW_AFTER_S = 0.05


class GoalTopics:
    """Hears goals and publishes what the solver finds; `close` takes the topics down again."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._goal_markers = GoalMarkers(desk.robot)
        self._to_draw: tuple[IKQuery, GetIKSolutions.Response, NodeParameters] | None = None
        node, qos = desk.node, QoSProfile(depth=desk.parameters.qos_depth)
        # RViz gets the last arms even when it is started after them.
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)

        self._candidates = create_publisher(node, IKSolutionArray, "~/candidates", qos)
        self._joint_candidates = create_publisher(node, JointState, "~/joint_candidates", qos)
        self._best_candidate = create_publisher(node, JointState, "~/best_candidate", qos)
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
        self._markers.publish(self._goal_markers.start())
        group = node.own_thread("goals")
        self._subscriptions = [
            create_subscription(node, kind, topic, receive, qos, group)
            for kind, topic, receive in (
                (PoseStamped, GOAL, self.receive_goal),
                (PoseArray, GOALS, self.receive_goals),
            )
        ]

    def receive_goal(self, goal: PoseStamped) -> None:
        """A goal for one tip: the robot's only one, or that of the parameter `tip_link`."""
        self._answer(GOAL, [goal], [])

    def receive_goals(self, goals: PoseArray) -> None:
        """A goal for every tip of the robot, in its order."""
        poses = list(goals.poses)[: MOST_TIPS + 1]  # more are refused, whatever their number
        targets = [PoseStamped(header=goals.header, pose=pose) for pose in poses]
        self._answer(GOALS, targets, list(self._desk.robot.tips))

    def _answer(self, source: str, targets: list[PoseStamped], tip_links: list[str]) -> None:
        """Ask for solutions as a client of the service does, and publish them."""
        desk, parameters = self._desk, self._desk.parameters
        request = GetIKSolutions.Request(
            targets=targets,
            tip_links=tip_links,
            avoid_self_collision=parameters.avoid_self_collision,
        )
        query, response = solutions.answer_from(desk, source, request, GetIKSolutions.Response())
        if query is None:
            return
        if response.error_code != Codes.SUCCESS:
            desk.log.warning(source, response.message)
        try:
            self._publish(query, response, parameters)
        except Exception:
            desk.log.error(source, f"publishing failed: {trace()}")

    def _publish(
        self, query: IKQuery, response: GetIKSolutions.Response, parameters: NodeParameters
    ) -> None:
        """Candidates that miss the goal go to ~/candidates only, flagged as not valid."""
        valid = [solution.joint_state for solution in response.solutions if solution.valid]
        if valid:
            self._best_candidate.publish(valid[0])
        self._candidates.publish(candidates_from_response(query, response, self._desk.robot))
        for joint_state in valid:
            self._joint_candidates.publish(joint_state)
        self._to_draw = query, response, parameters
        self._draw_soon()

    def _draw_soon(self) -> None:
        if self._drawing.is_canceled() and self._markers.get_subscription_count():
            self._drawing.reset()
            if (executor := self._desk.node.executor) is not None:
                executor.wake()  # It waits for timers that ran when it began to wait.

    def _draw(self) -> None:
        # The timer is stopped before reading: a goal that comes from here on starts it again.
        self._drawing.cancel()
        if self._to_draw is None:
            return
        query, response, parameters = self._to_draw
        self._markers.publish(
            self._goal_markers.update(
                response.solutions,
                query.task.of_tips(query.targets[0] @ query.T_tip_link),
                query.stamp,
                count=parameters.marker_count,
                opacity=parameters.marker_opacity,
                lifetime_s=parameters.marker_lifetime,
                viewers=self._markers.get_subscription_count(),
            )
        )

    def close(self) -> None:
        node = self._desk.node
        for subscription in reversed(self._subscriptions):
            node.destroy_subscription(subscription)
        node.destroy_timer(self._drawing)
        for publisher in (
            self._candidates,
            self._joint_candidates,
            self._best_candidate,
            self._markers,
        ):
            node.destroy_publisher(publisher)


def candidates_from_response(
    query: IKQuery, response: GetIKSolutions.Response, robot: Robot
) -> IKSolutionArray:
    """What ~/candidates carries for an answered goal."""
    message = IKSolutionArray(targets=list(query.poses), solutions=response.solutions)
    message.header.stamp = query.stamp
    message.header.frame_id = robot.base
    return message
