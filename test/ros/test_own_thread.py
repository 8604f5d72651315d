# SPDX-License-Identifier: Apache-2.0
"""What a thread of its own waits for is served by it alone, until it is stopped."""

import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
import rclpy
from meanflow_ik_ros.srv import GetIKSolutionsBatch, GetWorld
from rcl_interfaces.srv import ListParameters
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from ros_user import DEADLINE_S, MANY, wait_until
from std_msgs.msg import String

from meanflow_ik_ros.own_thread import READ_AHEAD_S, OwnThread, step_aside

GONE = Path(__file__).with_name("gone_service.py")


@pytest.fixture
def user(ros) -> Iterator[tuple[Node, SingleThreadedExecutor]]:
    """A node, and an executor that spins it while a test waits."""
    node, executor = Node("own_thread"), SingleThreadedExecutor()
    executor.add_node(node)
    yield node, executor
    executor.shutdown()
    node.destroy_node()


def test_one_thread_receives_and_answers_though_an_executor_spins_the_node(user):
    node, executor = user
    thread, callers, heard = OwnThread(node, "own"), set(), []

    def receive(message):
        callers.add(threading.current_thread().name)
        heard.append(message.data)

    def answer(request, response):
        callers.add(threading.current_thread().name)
        response.message = "answered"
        return response

    node.create_subscription(String, "said", receive, MANY, callback_group=thread)
    node.create_service(GetWorld, "ask", answer, callback_group=thread)
    publisher = node.create_publisher(String, "said", MANY)
    client = node.create_client(GetWorld, "ask")
    thread.start()
    wait_until(executor, lambda: bool(publisher.get_subscription_count()), "the subscription")
    wait_until(executor, client.service_is_ready, "the service")
    for number in range(100):
        publisher.publish(String(data=str(number)))
    future = client.call_async(GetWorld.Request())
    wait_until(executor, lambda: future.done() and len(heard) == 100, "all of it")
    assert heard == [str(number) for number in range(100)]
    assert future.result().message == "answered"
    thread.stop()
    assert callers == {"own"}
    publisher.publish(String(data="too late"))
    executor.spin_once(0.1)
    assert len(heard) == 100


def test_messages_of_an_own_thread_wake_no_executor(user):
    node, executor = user
    thread, heard, asked = OwnThread(node, "own"), [], []
    node.create_subscription(String, "said", heard.append, MANY, callback_group=thread)
    publisher = node.create_publisher(String, "said", MANY)
    thread.start()
    wait_until(executor, lambda: bool(publisher.get_subscription_count()), "the subscription")

    def publish():
        for number in range(200):
            publisher.publish(String(data=str(number)))
            time.sleep(0.001)

    thread.can_execute = lambda entity: asked.append(entity)  # for each, whenever it wakes up
    writer = threading.Thread(target=publish)
    writer.start()
    executor.spin_once(1.0)  # nothing is there for it
    writer.join()
    assert len(heard) == 200 and len(asked) < 50
    thread.stop()


def test_subscriptions_that_do_not_fit_a_publisher_are_told_of(user):
    node, executor = user
    thread, said = OwnThread(node, "own"), []
    told = SubscriptionEventCallbacks(incompatible_qos=said.append)
    reliable = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
    node.create_subscription(
        String, "said", lambda _: None, reliable, callback_group=thread, event_callbacks=told
    )
    thread.start()
    lossy = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    node.create_publisher(String, "said", lossy)
    wait_until(executor, lambda: bool(said), "the event")
    thread.stop()


def test_a_callback_that_fails_ends_nothing(user):
    node, executor = user
    thread, heard = OwnThread(node, "own"), []

    def receive(message):
        heard.append(message.data)
        raise ValueError("a mistake")

    node.create_subscription(String, "said", receive, MANY, callback_group=thread)
    publisher = node.create_publisher(String, "said", MANY)
    thread.start()
    wait_until(executor, lambda: bool(publisher.get_subscription_count()), "the subscription")
    for text in ("first", "second"):
        publisher.publish(String(data=text))
    wait_until(executor, lambda: heard == ["first", "second"], "both messages")
    thread.stop()


def test_it_ticks_when_nothing_has_come_for_as_long_as_it_says(user):
    node, executor = user
    ticks, waits = [], iter([0.0, 0.01, None])
    thread = OwnThread(node, "own", tick=lambda: ticks.append(1), due=lambda: next(waits, None))
    thread.start()
    wait_until(executor, lambda: len(ticks) == 2, "two ticks")
    thread.stop()


def test_a_large_answer_is_read_though_its_service_is_destroyed_at_once(user):
    """The middleware drops what is not read by then; in one process it has no need to."""
    node, executor = user
    client = node.create_client(GetIKSolutionsBatch, "large")
    process = subprocess.Popen([sys.executable, GONE], stdin=subprocess.PIPE)
    try:
        wait_until(executor, client.service_is_ready, "the service")
        executor.spin_once(0.2)  # the other side may know this one later
        answer = client.call_async(GetIKSolutionsBatch.Request())
        wait_until(executor, answer.done, "the answer", 20.0)
        assert len(answer.result().positions) == 30_000_000 // 8
    finally:
        process.communicate()
    assert process.returncode == 0


@pytest.mark.parametrize("started", [True, False])
def test_stop_lets_the_callback_at_hand_end(user, started):
    node, executor = user
    thread, entered, leave, left = OwnThread(node, "own"), *(threading.Event() for _ in range(3))

    def receive(message):
        entered.set()
        leave.wait(DEADLINE_S)
        left.set()

    node.create_subscription(String, "said", receive, MANY, callback_group=thread)
    publisher = node.create_publisher(String, "said", MANY)
    if not started:
        thread.stop()
        return
    thread.start()
    wait_until(executor, lambda: bool(publisher.get_subscription_count()), "the subscription")
    publisher.publish(String())
    wait_until(executor, entered.is_set, "the callback")
    threading.Timer(0.05, leave.set).start()
    thread.stop()
    assert left.is_set()


@pytest.mark.parametrize("ahead", [READ_AHEAD_S, 0.0])
def test_clients_are_answered_in_turn_however_much_one_of_them_asks(user, monkeypatch, ahead):
    """Unless their requests take too long to read ahead."""
    monkeypatch.setattr("meanflow_ik_ros.own_thread.READ_AHEAD_S", max(ahead, 1e-9))
    node, executor = user
    thread, answered = OwnThread(node, "own"), []

    def answer(request, response):
        answered.append(request.prefixes[0])
        return response

    node.create_service(ListParameters, "ask", answer, qos_profile=MANY, callback_group=thread)
    clients = {name: node.create_client(ListParameters, "ask", qos_profile=MANY) for name in "ab"}
    for client in clients.values():
        wait_until(executor, client.service_is_ready, "the service")
    names = ["a"] * 200 + ["b"] * 2
    asked = [clients[n].call_async(ListParameters.Request(prefixes=[n])) for n in names]
    thread.start()
    wait_until(executor, lambda: all(one.done() for one in asked), "all answers")
    assert answered[:5] == (["a", "b", "a", "b", "a"] if ahead else ["a"] * 5)
    assert sorted(answered) == names and thread._reading == pytest.approx(0.0, abs=1e-9)
    thread.stop()


class Long:
    """A service of which requests with a name step aside, and go on to the end when they are let.

    began, may_go_on: names, in the order of events, and what `step_aside` returned.
    """

    def __init__(self, user, most_aside):
        self.node, self.executor = user
        self.thread = OwnThread(self.node, "own", most_aside=most_aside)
        self.began, self.may_go_on = [], {}
        self.leave = defaultdict(threading.Event)
        self.node.create_service(ListParameters, "ask", self.answer, callback_group=self.thread)
        self.client = self.node.create_client(ListParameters, "ask", qos_profile=MANY)
        self.thread.start()
        wait_until(self.executor, self.client.service_is_ready, "the service")

    def answer(self, request, response):
        for name in request.prefixes:
            self.began.append(name)
            self.may_go_on[name] = step_aside()
            if self.may_go_on[name]:
                assert step_aside()  # a second time changes nothing
                self.leave[name].wait(DEADLINE_S)
        return response

    def ask(self, *names):
        return self.client.call_async(ListParameters.Request(prefixes=list(names)))

    def wait(self, condition):
        wait_until(self.executor, condition, str((self.began, self.may_go_on)))


def test_short_requests_are_answered_while_long_ones_wait_aside_one_after_the_other(user):
    long = Long(user, most_aside=2)
    first = long.ask("first")
    long.wait(lambda: "first" in long.may_go_on)
    second = long.ask("second")
    long.wait(lambda: "second" in long.began)
    short = long.ask()
    long.wait(short.done)
    assert long.may_go_on == {"first": True}
    third = long.ask("third")
    long.wait(third.done)
    assert long.may_go_on == {"first": True, "third": False}
    long.leave["first"].set()
    long.wait(lambda: first.done() and "second" in long.may_go_on)
    assert long.may_go_on["second"] and not second.done()
    fourth = long.ask("fourth")
    long.leave["fourth"].set()
    long.leave["second"].set()
    long.wait(lambda: second.done() and fourth.done())
    assert long.may_go_on["fourth"]
    long.thread.stop()
    assert not long.thread._threads


def test_those_that_wait_aside_fail_when_it_stops(user):
    long = Long(user, most_aside=4)
    for name in ("first", "second", "third"):
        long.ask(name)
        long.wait(lambda name=name: name in long.began)
    threading.Timer(0.1, long.leave["first"].set).start()
    long.thread.stop()
    assert long.may_go_on == {"first": True, "second": False, "third": False}


def test_who_may_not_step_aside_goes_on():
    assert step_aside()


@pytest.mark.parametrize("waits", [True, False])
def test_the_end_of_the_context_ends_the_thread_without_an_error(waits, monkeypatch):
    failures = []
    monkeypatch.setattr(threading, "excepthook", failures.append)
    context = rclpy.Context()
    rclpy.init(context=context)
    node = Node("own_thread", context=context)
    thread = OwnThread(node, "own")
    if waits:
        thread.start()
        rclpy.shutdown(context=context)
    else:
        rclpy.shutdown(context=context)
        thread.start()
    for one in list(thread._threads):
        one.join(DEADLINE_S)
    assert not thread._threads and not failures
    node.destroy_node()
