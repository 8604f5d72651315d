# SPDX-License-Identifier: Apache-2.0
"""Hears of MoveIt's planning scene, where moveit_msgs is installed, and asks for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType  # pyright: ignore[reportPrivateImportUsage]
from rclpy.qos import QoSProfile
from rclpy.task import Future

from meanflow_ik_ros.desk import Desk
from meanflow_ik_ros.messages.moveit import moveit_type
from meanflow_ik_ros.planning_scene import PlanningScene
from meanflow_ik_ros.qos import create_subscription

LOOK_EVERY_S = 0.5  # whether the service is there, and whether it must be asked
ASK_AGAIN_S = 5.0  # while something of the scene could not be taken, or no answer has come


class PlanningSceneTopics:
    """Subscribes to the parameter `planning_scene_topics`; `close` takes all down again.

    The service `planning_scene_service` is asked for all of the scene once the node is active and
    the service there, anew each time that one of the two is so again, and every `ASK_AGAIN_S`
    while something of the scene could not be taken.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk, self._close = desk, list[Callable[[], Any]]()
        self._asked, self._answered, self._pending = 0.0, False, None
        parameters = desk.parameters
        self._scene = PlanningScene(desk.world, desk.node.get_logger())
        # One after another: what comes first is taken first.
        self._group = MutuallyExclusiveCallbackGroup()
        take = {
            "PlanningScene": self._scene.take_scene,
            "PlanningSceneWorld": self._scene.take_world,
            "CollisionObject": self._scene.take_object,
            "AttachedCollisionObject": self._scene.take_attached,
        }
        service = moveit_type("srv", "GetPlanningScene")
        kinds = {name: moveit_type("msg", name) for name in take}
        if isinstance(service, str) or any(isinstance(kind, str) for kind in kinds.values()):
            return  # ~/solve_ik says why
        for topic in parameters.planning_scene_topics:
            kind = parameters.planning_scene_kind(topic)
            subscription = create_subscription(
                desk.node, kinds[kind], topic, partial(self._receive, topic, take[kind]),
                QoSProfile(depth=parameters.qos_depth), self._group,
            )  # fmt: skip
            self._close.append(partial(desk.node.destroy_subscription, subscription))
        if parameters.planning_scene_service:
            self._client = desk.node.create_client(
                service, parameters.planning_scene_service, callback_group=self._group
            )
            self._close.append(partial(desk.node.destroy_client, self._client))
            timer = desk.node.create_timer(
                LOOK_EVERY_S,
                self.look,
                callback_group=self._group,
                clock=Clock(clock_type=ClockType.STEADY_TIME),
            )
            self._close.append(partial(desk.node.destroy_timer, timer))

    def _receive(self, source: str, take: Callable[[Any], Any], message: Any) -> None:
        before = self._scene.problems
        take(message)
        for text in self._scene.problems.since(before):
            self._desk.log.warning(source, f"not taken: {text}")

    def look(self) -> None:
        """Ask for all of the scene, if it is time to."""
        now = time.monotonic()
        waiting = self._pending is not None and now - self._asked < ASK_AGAIN_S
        if not self._desk.active or not self._client.service_is_ready():
            self._answered = False
            return
        retry = bool(self._scene.problems) and now - self._asked >= ASK_AGAIN_S
        if waiting or (self._answered and not retry):
            return
        if self._pending is not None:
            self._client.remove_pending_request(self._pending)
        self._asked = now
        # Without a component that is named, the answer has all of them.
        self._pending = self._client.call_async(self._client.srv_type.Request())
        self._pending.add_done_callback(self._take_answer)

    def _take_answer(self, future: Future[Any]) -> None:
        if future.cancelled() or future is not self._pending:
            return
        self._pending, self._answered = None, True
        response = future.result()
        if response is not None:
            self._receive(self._client.srv_name, self._scene.take_scene, response.scene)

    def close(self) -> None:
        while self._close:
            self._close.pop()()
