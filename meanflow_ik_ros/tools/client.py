# SPDX-License-Identifier: Apache-2.0
"""A client of a running solver node: its service, its goal topics and its candidates."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from geometry_msgs.msg import PoseArray, PoseStamped
from rcl_interfaces.srv import GetParameters
from rclpy.exceptions import InvalidServiceNameException, InvalidTopicNameException
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node, NodeNameNonExistentError
from rclpy.qos import QoSProfile

from meanflow_ik_core.errors import IKError, OptionError
from meanflow_ik_ros.msg import IKSolutionArray
from meanflow_ik_ros.srv import GetIKSolutions
from meanflow_ik_ros.tools.answer_output import outcome

RESEND_S = 1.0
SERVICE_TYPE = "meanflow_ik_ros/srv/GetIKSolutions"


class ClientError(IKError):
    """The node is not there, or does not answer."""


class Client:
    """Talks to one solver node, from a node of its own.

    candidates: what was heard on ~/candidates, oldest first.
    """

    def __init__(self, solver: str, timeout_s: float) -> None:
        """Connect to the node named `solver`; every call waits at most `timeout_s` for it.

        Raises:
            OptionError: the name is none of a node.
        """
        self.timeout_s = timeout_s
        self.candidates: list[IKSolutionArray] = []
        self._node = Node(f"send_goal_{os.getpid()}")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        self._solver = solver.rstrip("/")
        queue = QoSProfile(depth=100)
        try:
            self._service = self._node.create_client(
                GetIKSolutions, f"{self._solver}/get_ik_solutions"
            )
            self._goal = self._node.create_publisher(
                PoseStamped, f"{self._solver}/goal_pose", queue
            )
            self._goals = self._node.create_publisher(
                PoseArray, f"{self._solver}/goal_poses", queue
            )
            self._node.create_subscription(
                IKSolutionArray, f"{self._solver}/candidates", self.candidates.append, queue
            )
        except (InvalidServiceNameException, InvalidTopicNameException) as error:
            self.close()
            raise OptionError(f"--node {solver}: {' '.join(str(error).split())}") from error

    def ask(self, request: GetIKSolutions.Request) -> GetIKSolutions.Response:
        """The service's answer; ClientError where there is none."""
        return self._answer(self._service, request)

    def publish(self, goals: list[PoseStamped], latest: bool) -> IKSolutionArray:
        """Publish goals, one for each tip, and return the candidates that answer them.

        Args:
            latest: the goals keep the stamp zero; else they get that of now.

        Raises:
            ClientError: nobody listens, or no candidates come.
        """
        publisher: Any = self._goal if len(goals) == 1 else self._goals
        heard = self._candidates_publishers
        if not self._wait(lambda: publisher.get_subscription_count() > 0 and heard() > 0):
            raise ClientError(self._missing(f"nobody listens to {publisher.topic_name}"))
        if not latest:
            stamp = self._node.get_clock().now().to_msg()
            for goal in goals:
                goal.header.stamp = stamp
        together = PoseArray(header=goals[0].header, poses=[goal.pose for goal in goals])
        message = goals[0] if len(goals) == 1 else together

        def answered() -> bool:
            return any(is_answer(item, goals) for item in self.candidates)

        publisher.publish(message)
        if not self._wait(answered, min(self.timeout_s, RESEND_S)):
            # The node may not have known of the subscription to its candidates yet.
            publisher.publish(message)
            if not self._wait(answered):
                raise ClientError(f"no candidates within {self.timeout_s:g} s; {self.why(goals)}")
        found = next(item for item in self.candidates if is_answer(item, goals))
        self.candidates.remove(found)
        return found

    def why(self, goals: list[PoseStamped]) -> str:
        """What the node says of goals that it has not solved on the topic, which gives no reason.

        The service is asked for the same.
        """
        parameters = self._node.create_client(GetParameters, f"{self._solver}/get_parameters")
        try:
            asked = GetParameters.Request(names=["avoid_self_collision"])
            (avoid,) = self._answer(parameters, asked).values
            request = GetIKSolutions.Request(targets=goals, avoid_self_collision=avoid.bool_value)
            said = f"says of the same goal: {outcome(self.ask(request))}"
        except ClientError as error:
            said = f"gives no reason: {error}"
        return f"{self._service.srv_name} {said}; see the log of {self._solver} for more"

    def watch(self, show: Callable[[IKSolutionArray], None]) -> None:
        """Show candidates as they come, until Ctrl-C."""
        while True:
            while self.candidates:
                show(self.candidates.pop(0))
            self._executor.spin_once(0.1)

    def close(self) -> None:
        self._executor.shutdown()
        self._node.destroy_node()

    def _answer(self, client: Any, request: Any) -> Any:
        if not self._wait(client.service_is_ready):
            raise ClientError(self._missing(f"no service {client.srv_name}"))
        future = client.call_async(request)
        if not self._wait(future.done):
            raise ClientError(f"no answer within {self.timeout_s:g} s")
        return future.result()

    def _candidates_publishers(self) -> int:
        return self._node.count_publishers(f"{self._solver}/candidates")

    def _wait(self, condition: Callable[[], bool], seconds: float | None = None) -> bool:
        deadline = time.monotonic() + (self.timeout_s if seconds is None else seconds)
        while not condition() and time.monotonic() < deadline:
            self._executor.spin_once(0.02)
        return condition()

    def _missing(self, what: str) -> str:
        """`what`, followed by the nodes that are there."""
        message = f"{what} within {self.timeout_s:g} s"
        own = self._node.get_name()
        nodes = sorted(set(self._node.get_node_names_and_namespaces()))
        others = [(name, namespace) for name, namespace in nodes if name != own]
        solvers = [name for node in others for name in self._solvers_of(*node)]
        if solvers:
            return f"{message}; --node can be {', '.join(solvers)}"
        names = ", ".join(f"{namespace.rstrip('/')}/{name}" for name, namespace in others)
        return (
            f"{message}; no node offers {SERVICE_TYPE} in ROS_DOMAIN_ID "
            f"{os.environ.get('ROS_DOMAIN_ID', '0')}; nodes there: {names or 'none'}"
        )

    def _solvers_of(self, name: str, namespace: str) -> list[str]:
        try:
            offered = self._node.get_service_names_and_types_by_node(name, namespace)
        except NodeNameNonExistentError:
            return []  # it has just ended
        return [
            service.removesuffix("/get_ik_solutions")
            for service, types in offered
            if SERVICE_TYPE in types
        ]


def is_answer(candidates: IKSolutionArray, goals: list[PoseStamped]) -> bool:
    """Whether candidates are those of these goals."""
    return list(candidates.targets) == goals
