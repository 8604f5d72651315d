# SPDX-License-Identifier: Apache-2.0
"""Clients that are gone before their answers delay nobody else."""

import ctypes
import time
from collections.abc import Iterator

import pytest
import rclpy
from meanflow_ik_ros.srv import GetWorld
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, LivelinessPolicy, QoSProfile
from ros_user import MANY, wait_until

from meanflow_ik_ros.own_thread import OwnThread
from meanflow_ik_ros.unreachable_clients import WAIT_S, UnreachableClients, client_of


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[tuple[Node, SingleThreadedExecutor]]:
    """A node that the middleware takes for one of another process, and its executor.

    A second one would have the first one's name in DDS, whose end may be heard after its beginning.
    """
    context = rclpy.Context()
    rclpy.init(context=context)
    node, executor = Node("elsewhere", context=context), SingleThreadedExecutor(context=context)
    executor.add_node(node)
    yield node, executor
    executor.shutdown()
    node.destroy_node()
    rclpy.shutdown(context=context)


class Asked:
    """A service that does not answer yet: 20 requests of one client wait, then one of another.

    doomed, living: the clients.
    answer: of the living one, a future.
    answered: requests that the service has got.
    """

    def __init__(self, elsewhere):
        self.user, self.executor = elsewhere
        self.node = Node("asked")
        self.thread, self.answered = OwnThread(self.node, "own"), []
        self.service = self.node.create_service(
            GetWorld, "ask", self._answer,
            qos_profile=MANY, callback_group=self.thread,
        )  # fmt: skip
        self.doomed, self.living = (
            self.user.create_client(GetWorld, "ask", qos_profile=MANY) for _ in range(2)
        )
        self.wait(lambda: len(self.readers()) == 2, "both clients")
        for client in (self.doomed, self.living):
            self.wait(client.service_is_ready, "the service")
        self.executor.spin_once(0.2)  # the service's side may know them a little later
        for _ in range(20):
            self.doomed.call_async(GetWorld.Request())
        self.answer = self.living.call_async(GetWorld.Request())
        self.executor.spin_once(2 * WAIT_S)  # all are in the queue, longer than clients are awaited

    def _answer(self, request, response):
        self.answered.append(request)
        return response

    def readers(self) -> list[bytes]:
        found = self.node.get_subscriptions_info_by_topic("rr/askReply", no_mangle=True)
        return [bytes(reader.endpoint_gid)[:16] for reader in found]

    def wait(self, condition, what):
        wait_until(self.executor, condition, what)


@pytest.fixture
def asked(ros, elsewhere) -> Iterator[Asked]:
    asked = Asked(elsewhere)
    yield asked
    asked.thread.stop()
    for client in list(asked.user.clients):
        asked.user.destroy_client(client)
    asked.wait(lambda: not asked.readers(), "the end of all clients")
    asked.node.destroy_node()


def test_clients_that_are_gone_are_answered_once_and_cost_one_wait_of_the_middleware(asked):
    asked.user.destroy_client(asked.doomed)
    asked.wait(lambda: len(asked.readers()) == 1, "the end of a client")
    began = time.monotonic()
    asked.thread.start()
    asked.wait(asked.answer.done, "the answer")
    asked.wait(lambda: asked.thread.quiet_since() < time.monotonic() - 0.02, "the others")
    assert time.monotonic() - began < 5 * WAIT_S  # of 20
    assert len(asked.answered) == 2
    again = asked.living.call_async(GetWorld.Request())
    asked.wait(again.done, "an answer while clients are in doubt")


def test_a_client_that_is_known_late_gets_its_answer_though_others_are_in_doubt(asked):
    asked.thread._clients._doubt_until = time.monotonic() + 100.0
    looked = []
    find = asked.node.get_subscriptions_info_by_topic

    def find_late(*arguments, **options):
        looked.append(1)
        return find(*arguments, **options) if len(looked) % 3 == 0 else []

    asked.node.get_subscriptions_info_by_topic = find_late
    asked.thread.start()
    late = asked.living.call_async(GetWorld.Request())
    asked.wait(late.done, "the answer")


def test_a_client_whose_clock_is_ahead_is_waited_for_once_and_answered_once_it_is_there(asked):
    _, header = asked.service.handle.service_take_request(GetWorld.Request)
    fields = ctypes.c_void_p.from_address(id(header) + object.__basicsize__).value
    assert fields is not None
    ctypes.c_int64.from_address(fields).value *= 2  # the first of them
    assert header.source_timestamp > 2 * time.time_ns() - 1e12
    clients, find = asked.thread._clients, asked.node.get_subscriptions_info_by_topic
    clients._doubt_until = time.monotonic() + 100.0
    asked.node.get_subscriptions_info_by_topic = lambda *arguments, **options: []
    began = time.monotonic()
    assert all(clients.is_unreachable(asked.service, header) for _ in range(20))
    assert WAIT_S <= time.monotonic() - began < 3 * WAIT_S
    asked.node.get_subscriptions_info_by_topic = find
    assert not clients.is_unreachable(asked.service, header)


@pytest.mark.parametrize(
    "wanted",
    [
        {"durability": DurabilityPolicy.TRANSIENT_LOCAL},
        {"deadline": Duration(seconds=1)},
        {"liveliness": LivelinessPolicy.MANUAL_BY_TOPIC},
    ],
    ids=lambda wanted: next(iter(wanted)),
)
def test_clients_that_no_answer_can_reach_cost_one_wait_as_well(asked, wanted):
    strange = asked.user.create_client(GetWorld, "ask", qos_profile=QoSProfile(depth=100, **wanted))
    asked.wait(lambda: len(asked.readers()) == 3, "a third client")  # for it no service is ready
    asked.executor.spin_once(0.2)
    for _ in range(20):
        strange.call_async(GetWorld.Request())
    asked.executor.spin_once(2 * WAIT_S)
    began = time.monotonic()
    asked.thread.start()
    asked.wait(asked.answer.done, "the answer")
    asked.wait(lambda: asked.thread.quiet_since() < time.monotonic() - 0.02, "the others")
    assert time.monotonic() - began < 5 * WAIT_S  # of 20
    assert len(asked.answered) == 22  # 20 of `doomed`, the one of `living`, and one of these


def test_who_asked_is_read_from_a_request_as_the_graph_has_it(asked):
    handle = asked.service.handle
    headers = [handle.service_take_request(GetWorld.Request)[1] for _ in range(21)]
    clients = [client_of(header) for header in headers]
    assert set(clients) == set(asked.readers()) and clients.count(clients[-1]) == 1


def test_every_service_of_the_node_leaves_out_those_that_are_gone(panda_node):
    of_executors = [s for s in panda_node.services if not isinstance(s.callback_group, OwnThread)]
    assert len(of_executors) > 10 and all("send_response" in vars(s) for s in of_executors)
    assert len(list(panda_node.services)) > len(of_executors)


def test_an_executor_answers_the_living_and_no_client_that_is_unreachable(asked, monkeypatch):
    clients, sent = UnreachableClients(asked.node), []
    clients.guard(asked.service)
    monkeypatch.setattr(clients, "send", lambda *answer: sent.append(answer))
    headers = [asked.service.handle.service_take_request(GetWorld.Request)[1] for _ in range(21)]
    asked.user.destroy_client(asked.doomed)
    asked.wait(lambda: len(asked.readers()) == 1, "the end of a client")
    for doubted, count in ((0.0, 21), (100.0, 1)):
        clients._doubt_until = time.monotonic() + doubted
        for header in headers:
            asked.service.send_response(GetWorld.Response(), header)
        assert len(sent) == count
        sent.clear()
