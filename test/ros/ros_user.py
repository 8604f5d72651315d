# SPDX-License-Identifier: Apache-2.0
"""What tests of the running node share: the node in a thread, and a user's node beside it."""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile

from meanflow_ik_ros.node import MeanFlowIKNode
from meanflow_ik_ros.process import spin_until

DEADLINE_S = 60.0


@contextmanager
def spun(node: MeanFlowIKNode) -> Iterator[MeanFlowIKNode]:
    """The node, spun as its own main function does; destroyed in the end."""
    stopped = threading.Event()
    thread = threading.Thread(target=spin_until, args=(node, stopped))
    thread.start()
    yield node
    stopped.set()
    thread.join(DEADLINE_S)
    assert not thread.is_alive()
    node.destroy_node()


class User:
    """A node that keeps what it hears of /meanflow_ik: topic to kind and quality of service."""

    def __init__(self, topics: Mapping[str, tuple[type, QoSProfile]]):
        self.node = Node("user")
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.heard: dict[str, list] = defaultdict(list)
        self._subscriptions = [
            self.node.create_subscription(
                kind, f"/meanflow_ik/{topic}", self.heard[topic].append, quality
            )
            for topic, (kind, quality) in topics.items()
        ]

    def wait(self, condition: Callable[[], bool], what: str, seconds: float = DEADLINE_S) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"waited {seconds} s in vain: {what}"
            self.executor.spin_once(0.02)

    def meet(self, *publishers: Any) -> None:
        """Wait until each publisher has the node for its subscriber, and each topic is heard."""
        for publisher in publishers:
            self.wait(lambda p=publisher: p.get_subscription_count() == 1, publisher.topic_name)
        for topic in self.heard:
            name = f"/meanflow_ik/{topic}"
            self.wait(lambda n=name: self.node.count_publishers(n) == 1, name)
        self.wait(lambda: bool(self.heard["markers"]), "the markers of the start")

    def show(self, publisher: Any, goal: Any) -> Any:
        """Publish a goal; returns its candidates, and has heard the markers as well."""
        for topic in self.heard.values():
            topic.clear()
        publisher.publish(goal)
        self.wait(lambda: bool(self.heard["candidates"] and self.heard["markers"]), "candidates")
        return self.heard["candidates"][0]

    def close(self) -> None:
        self.executor.shutdown()
        self.node.destroy_node()
