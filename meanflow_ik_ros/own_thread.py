# SPDX-License-Identifier: Apache-2.0
"""Subscriptions and services that a thread of their own waits for.

For each message an executor of rclpy asks all that is on the node whether it is ready. This node
has some fifty such things. To ask them takes longer than most callbacks, and holds Python's lock.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

from rclpy.callback_groups import CallbackGroup
from rclpy.event_handler import EventHandler
from rclpy.guard_condition import GuardCondition

# What rclpy's own `wait_for_message` waits with.
from rclpy.impl.implementation_singleton import rclpy_implementation as _rclpy
from rclpy.service import Service
from rclpy.subscription import Subscription
from rclpy.utilities import get_default_context

from meanflow_ik_ros.rare_log import WARN_EVERY_S, trace

if TYPE_CHECKING:
    from rclpy.node import Node

_FOREVER = -1


class OwnThread(CallbackGroup):
    """A callback group whose callbacks one thread calls, in the order in which it finds them ready.

    Its subscriptions and services are those that are created between the constructor and `start`.
    They are served whether or not an executor spins the node, until `stop`.

    Args:
        name: of the thread.
        tick: called where nothing has come for as long as `due` says.
        due: in how many seconds to call `tick`; asked before each wait. None: not before the next
            message.
    """

    def __init__(
        self,
        node: Node,
        name: str,
        tick: Callable[[], Any] = lambda: None,
        due: Callable[[], float | None] = lambda: None,
    ) -> None:
        super().__init__()
        self._context = node.context or get_default_context()
        self._logger, self._tick, self._due = node.get_logger(), tick, due
        self._stopped = False
        self._wake = GuardCondition(None, None, context=self._context)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def can_execute(self, entity: Any) -> bool:
        """Nothing is left to executors: what waits for an event wakes up for each message too."""
        return False

    def beginning_execution(self, entity: Any) -> bool:
        return False

    def ending_execution(self, entity: Any) -> None:
        pass

    def start(self) -> None:
        self._context.on_shutdown(self._wake_up)
        self._thread.start()

    def stop(self) -> None:
        """Return once the callback at hand, if there is one, has ended."""
        self._stopped = True
        self._wake_up()
        if self._thread.ident is not None:
            self._thread.join()
        self._wake.destroy()

    def _wake_up(self) -> None:
        if self._thread.is_alive():
            self._wake.trigger()

    def _run(self) -> None:
        entities = [entity for one in self.entities if (entity := one()) is not None]
        services = {e.handle.pointer: e for e in entities if isinstance(e, Service)}
        subscriptions = {e.handle.pointer: e for e in entities if isinstance(e, Subscription)}
        events = [entity for entity in entities if isinstance(entity, EventHandler)]
        context = self._context
        assert context.handle is not None, "rclpy is not initialised"
        with ExitStack() as held:
            for entity in (*services.values(), *subscriptions.values()):
                held.enter_context(entity.handle)
            for event in events:
                held.enter_context(event)
            held.enter_context(self._wake.handle)
            try:
                ready = _rclpy.WaitSet(
                    len(subscriptions), 1, 0, 0, len(services), len(events), context.handle
                )  # fmt: skip
            except _rclpy.RCLError:
                if context.ok():
                    raise
                return  # The context has ended before the thread could wait.
            while not self._stopped and context.ok():
                ready.clear_entities()
                ready.add_guard_condition(self._wake.handle)
                for subscription in subscriptions.values():
                    ready.add_subscription(subscription.handle)
                for service in services.values():
                    ready.add_service(service.handle)
                for event in events:
                    event.add_to_wait_set(ready)
                seconds = self._attempt(self._due)
                ready.wait(_FOREVER if seconds is None else max(0, int(1e9 * seconds)))
                calls = [
                    *(
                        (_receive, subscriptions[p])
                        for p in ready.get_ready_entities("subscription")
                    ),
                    *((_answer, services[p]) for p in ready.get_ready_entities("service")),
                    *((_tell, event) for event in events if event.is_ready(ready)),
                ]
                for call in calls or ((self._tick,),):
                    self._attempt(*call)

    def _attempt(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """What a call returns, or None where it fails: a client may die before its answer."""
        try:
            return call(*arguments)
        except Exception:
            self._logger.error(f"a callback failed: {trace()}", throttle_duration_sec=WARN_EVERY_S)


def _receive(subscription: Any) -> None:
    taken = subscription.handle.take_message(subscription.msg_type, subscription.raw)
    if taken is not None:
        subscription.callback(taken[0])


def _tell(event: Any) -> None:
    """Let rclpy say what middleware has to say of a subscription."""
    with suppress(StopIteration):
        event.execute(event.take_data()).send(None)


def _answer(service: Any) -> None:
    request, header = service.handle.service_take_request(service.srv_type.Request)
    if header is not None:
        service.send_response(service.callback(request, service.srv_type.Response()), header)
