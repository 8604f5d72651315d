# SPDX-License-Identifier: Apache-2.0
"""Subscriptions and services that a thread of their own waits for.

For each message an executor of rclpy asks all that is on the node whether it is ready. This node
has some fifty such things. To ask them takes longer than most callbacks, and holds Python's lock.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from rclpy.callback_groups import CallbackGroup
from rclpy.event_handler import EventHandler
from rclpy.guard_condition import GuardCondition

# What rclpy's own `wait_for_message` waits with.
from rclpy.impl.implementation_singleton import rclpy_implementation as _rclpy
from rclpy.service import Service
from rclpy.subscription import Subscription
from rclpy.utilities import get_default_context

from meanflow_ik_ros.fair_lock import FairLock
from meanflow_ik_ros.fair_queue import FairQueue
from meanflow_ik_ros.memory import give_memory_back
from meanflow_ik_ros.rare_log import WARN_EVERY_S, trace
from meanflow_ik_ros.unreachable_clients import UnreachableClients, client_of

if TYPE_CHECKING:
    from rclpy.node import Node

_FOREVER = -1
# The middleware drops what clients have not read of an answer when its service is destroyed, and
# does not say when they have. Reading takes several times as long as sending: of 30 MB, .25 s and
# 20 to 90 ms beside other programs.
READING = 20.0
# Requests are read ahead until those that wait took so long to read, as the thread's clock has it:
# what takes long to read is large.
READ_AHEAD_S = 0.2


class _Request(NamedTuple):
    """What was read: of which service, and how long that took [s]."""

    service: Service
    request: Any
    header: Any
    seconds: float


_here = threading.local()  # its ``group`` is that of an own thread


class OwnThread(CallbackGroup):
    """A callback group whose callbacks one thread calls, in the order in which it finds them ready.

    Of the clients of its services one is answered after the other, as long as they have requests.

    Its subscriptions and services are those that are created between the constructor and `start`.
    They are served whether or not an executor spins the node, until `stop`.

    A callback that takes long may call `step_aside`: then a new thread waits in its place, and the
    old one ends with the callback.

    Args:
        name: of the thread.
        tick: called where nothing has come for as long as `due` says.
        due: in how many seconds to call `tick`; asked before each wait. None: not before the next
            message.
        most_aside: how many callbacks may have stepped aside at a time; where it is not 0, the
            group must hold a single service.
    """

    def __init__(
        self,
        node: Node,
        name: str,
        tick: Callable[[], Any] = lambda: None,
        due: Callable[[], float | None] = lambda: None,
        most_aside: int = 0,
    ) -> None:
        super().__init__()
        self._context = node.context or get_default_context()
        self._logger, self._tick, self._due = node.get_logger(), tick, due
        self._name, self._most_aside = name, most_aside
        self._stopped = False
        self._wake = GuardCondition(None, None, context=self._context)
        self._guard = threading.Lock()
        self._threads: set[threading.Thread] = set()  # the one that waits, and those aside
        self._clients = UnreachableClients(node)
        self._requests: FairQueue[_Request] = FairQueue()  # that were read and wait
        self._reading = 0.0  # how long these took to read [s]
        self._aside = FairLock()  # of those aside the first goes on, the others wait
        self._read_by = 0.0  # when clients have read the last answer, by time.monotonic
        self._answering = 0

    def can_execute(self, entity: Any) -> bool:
        """Nothing is left to executors: what waits for an event wakes up for each message too."""
        return False

    def beginning_execution(self, entity: Any) -> bool:
        return False

    def ending_execution(self, entity: Any) -> None:
        pass

    def start(self) -> None:
        self._context.on_shutdown(self._wake_up)
        self._start_thread()

    def quiet_since(self) -> float:
        """When clients have read the last answer, by time.monotonic; now while a request waits."""
        return time.monotonic() if self._answering or self._requests else self._read_by

    def stop(self) -> None:
        """Return once the callbacks at hand have ended; those that wait aside fail."""
        with self._guard:
            self._stopped = True
            threads = list(self._threads)
        self._wake_up()
        for thread in threads:
            thread.join()
        self._wake.destroy()

    def _start_thread(self) -> None:
        thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._threads.add(thread)
        thread.start()

    def _wake_up(self) -> None:
        if self._threads:
            self._wake.trigger()

    def _step_aside(self) -> bool:
        if _here.is_aside:
            return True
        with self._guard:
            if self._stopped or len(self._threads) > self._most_aside:
                return False
            self._start_thread()
        _here.is_aside = True
        self._aside.acquire()
        return not self._stopped

    def _run(self) -> None:
        _here.group, _here.is_aside = self, False
        try:
            self._serve()
        finally:
            if _here.is_aside:
                give_memory_back()
                self._aside.release()
            with self._guard:
                self._threads.remove(threading.current_thread())

    def _serve(self) -> None:
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
            while not (self._stopped or _here.is_aside) and context.ok():
                ready.clear_entities()
                ready.add_guard_condition(self._wake.handle)
                for subscription in subscriptions.values():
                    ready.add_subscription(subscription.handle)
                for service in services.values():
                    ready.add_service(service.handle)
                for event in events:
                    event.add_to_wait_set(ready)
                seconds = 0.0 if self._requests else self._attempt(self._due)
                ready.wait(_FOREVER if seconds is None else max(0, int(1e9 * seconds)))
                for pointer in ready.get_ready_entities("service"):
                    self._attempt(self._read_ahead, services[pointer])
                calls = [
                    *(
                        (_receive, subscriptions[p])
                        for p in ready.get_ready_entities("subscription")
                    ),
                    *((_tell, event) for event in events if event.is_ready(ready)),
                    *([(self._answer,)] if self._requests else []),
                ]
                for call in calls or ((self._tick,),):
                    self._attempt(*call)

    def _read_ahead(self, service: Service) -> None:
        while self._reading < READ_AHEAD_S:
            began = time.thread_time()
            request, header = service.handle.service_take_request(service.srv_type.Request)
            if header is None:
                return
            seconds = time.thread_time() - began
            self._reading += seconds
            self._requests.put(client_of(header), _Request(service, request, header, seconds))

    def _answer(self) -> None:
        with self._guard:
            self._answering += 1
        read_by = 0.0
        try:
            service, request, header, seconds = self._requests.get()
            self._reading -= seconds
            if self._clients.is_unreachable(service, header):
                return
            response = service.callback(request, service.srv_type.Response())
            began = time.monotonic()
            if self._clients.send(service, response, header):
                sent = time.monotonic()
                read_by = sent + READING * (sent - began)
        finally:
            with self._guard:
                self._answering -= 1
                self._read_by = max(self._read_by, read_by, time.monotonic())

    def _attempt(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """What a call returns, or None where it fails: a client may die before its answer."""
        try:
            return call(*arguments)
        except Exception:
            self._logger.error(f"a callback failed: {trace()}", throttle_duration_sec=WARN_EVERY_S)


def step_aside() -> bool:
    """Let another thread wait for messages in place of this one, whose callback takes long.

    Of the callbacks of a group that are aside one goes on at a time, the first one first; so that
    their work does not pile up. This returns when it is this one's time.

    Returns:
        Whether it may go on: False where as many are aside as may be, or the group has stopped.
        True at once in a thread that is not an own one, or whose group lets nobody step aside.
    """
    group = getattr(_here, "group", None)
    return group is None or not group._most_aside or group._step_aside()


def _receive(subscription: Any) -> None:
    taken = subscription.handle.take_message(subscription.msg_type, subscription.raw)
    if taken is not None:
        subscription.callback(taken[0])


def _tell(event: Any) -> None:
    """Let rclpy say what middleware has to say of a subscription."""
    with suppress(StopIteration):
        event.execute(event.take_data()).send(None)
