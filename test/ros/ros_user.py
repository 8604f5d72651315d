# SPDX-License-Identifier: Apache-2.0
"""What tests of the running node share: the node in a thread or a process, and a user beside it."""

import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pinocchio as pin
from geometry_msgs.msg import Point, Pose, PoseArray, Quaternion
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile

from meanflow_ik_ros.node import MeanFlowIKNode
from meanflow_ik_ros.process import spin_until

DEADLINE_S = 60.0
MANY = QoSProfile(depth=1000)
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
Q = np.array([0.3, 0.2, -0.2, -1.7, 0.4, 2.0, 0.5])  # of the Panda, free of self-collision
# Of the node in a process of its own that several files ask.
SHARED = {
    "sampler": "uniform", "num_samples": 64, "max_solutions": 7, "marker_count": 4,
    "marker_opacity": 0.55, "marker_lifetime": 90.5,
}  # fmt: skip


def overrides(**values: Any) -> list[Parameter]:
    return [Parameter(name, value=value) for name, value in values.items()]


def make_node(namespace: str = "", **values: Any) -> MeanFlowIKNode:
    """The node in this process; unless the parameters say otherwise of uniform, seeded starts."""
    parameters = overrides(**{"sampler": "uniform", "seed": 3, **values})
    return MeanFlowIKNode(parameter_overrides=parameters, namespace=namespace)


@contextmanager
def spun(node: MeanFlowIKNode) -> Iterator[threading.Thread]:
    """A thread that spins the node as its own main function does."""
    stopped = threading.Event()
    thread = threading.Thread(target=spin_until, args=(node, stopped))
    thread.start()
    yield thread
    stopped.set()
    thread.join(DEADLINE_S)
    assert not thread.is_alive()


def start_node(*ros_arguments: str, **popen: Any) -> subprocess.Popen:
    """The node in a process of its own."""
    command = [sys.executable, "-m", "meanflow_ik_ros.node", "--ros-args", *ros_arguments]
    return subprocess.Popen(command, **popen)


def flags(namespace: str, **values: Any) -> list[str]:
    """ROS arguments of a quiet node in a namespace with these parameters."""
    set_all = [word for name, value in values.items() for word in ("-p", f"{name}:={value}")]
    return ["-r", f"__ns:={namespace}", "--log-level", "error", *set_all]


@contextmanager
def node_process(namespace: str, **values: Any) -> Iterator[subprocess.Popen]:
    """The node in a process of its own; it ends as it should."""
    process = start_node(*flags(namespace, **values))
    yield process
    process.send_signal(signal.SIGINT)
    assert process.wait(DEADLINE_S) == 0


def wait_until(
    executor: SingleThreadedExecutor,
    condition: Callable[[], bool],
    what: str,
    seconds: float = DEADLINE_S,
) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain: {what}"
        executor.spin_once(0.02)


def pose_array(T_base_tip: np.ndarray, frame_id: str) -> PoseArray:
    """Poses (N, 4, 4), written without the code under test."""
    message = PoseArray()
    message.header.frame_id = frame_id
    for matrix in T_base_tip:
        x, y, z = matrix[:3, 3].tolist()
        quat_xyzw = pin.Quaternion(matrix[:3, :3]).coeffs().tolist()
        orientation = Quaternion(**dict(zip("xyzw", quat_xyzw, strict=True)))
        message.poses.append(Pose(position=Point(x=x, y=y, z=z), orientation=orientation))
    return message


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
        wait_until(self.executor, condition, what, seconds)

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
