# SPDX-License-Identifier: Apache-2.0
"""What `bench` measures: calls, batches, paths and goals against a node in another process."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import rclpy
from geometry_msgs.msg import PoseStamped
from rclpy.client import Client
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import JointState

from meanflow_ik_core.bench.judge import Judge
from meanflow_ik_core.bench.solve import TOLERANCE
from meanflow_ik_core.errors import OptionError
from meanflow_ik_core.progress import tracked
from meanflow_ik_core.robot.robot import Robot
from meanflow_ik_ros.messages.batch_answers import answers_from_response
from meanflow_ik_ros.messages.poses import pose_message, poses_from_matrices
from meanflow_ik_ros.srv import GetIKPath, GetIKSolutions, GetIKSolutionsBatch
from meanflow_ik_ros.tools.running_node import READY_S

SERVICES = {
    "get_ik_solutions": GetIKSolutions,
    "get_ik_solutions_batch": GetIKSolutionsBatch,
    "get_ik_path": GetIKPath,
}
_ANSWER_S = 60.0
_WARM_UP_CALLS = 5


def batches_of(
    client: Client,
    executor: SingleThreadedExecutor,
    robot: Robot,
    targets: np.ndarray,
    solutions: int,
) -> tuple[np.ndarray, float]:
    """Seconds of each batch, and the share of targets with a solution that Pinocchio accepts.

    Args:
        targets: (R, B, T, 4, 4) T_base_tip of R batches.
    """
    judge, right = Judge(robot), 0
    seconds = np.zeros(len(targets))
    for row, T_base_tip in enumerate(tracked(targets, "batches")):
        request = GetIKSolutionsBatch.Request(max_solutions=solutions)
        request.targets.header.frame_id = robot.base
        request.targets.poses = poses_from_matrices(T_base_tip.reshape(-1, 4, 4))
        seconds[row], response = round_trip(client, executor, request)
        for target, answer in zip(T_base_tip, answers_from_response(response), strict=True):
            q = answer.joint_positions[answer.valid]
            right += bool(len(q) and judge.accepts(q, target, TOLERANCE, TOLERANCE).any())
    return seconds, right / targets[:, :, 0, 0, 0].size


def straight_line(robot: Robot, count: int, ends: np.ndarray) -> np.ndarray:
    """(W, T, 4, 4) tip poses along a straight line in joint space, 2 rad in all at most.

    Args:
        ends: (2, J) where the line begins, and what it goes towards.
    """
    direction = (ends[1] - ends[0]) * min(1.0, 2.0 / np.abs(ends[1] - ends[0]).max())
    return robot.forward(ends[0] + np.linspace(0, 1, count)[:, None] * direction)


def paths_along(
    client: Client, executor: SingleThreadedExecutor, robot: Robot, lines: np.ndarray
) -> tuple[np.ndarray, float]:
    """Seconds of each path, and the share of paths that Pinocchio finds at every waypoint.

    Args:
        lines: (R, W, T, 4, 4) T_base_tip of the waypoints of R paths.
    """
    judge, right = Judge(robot), 0
    seconds = np.zeros(len(lines))
    for row, T_base_tip in enumerate(tracked(lines, "paths")):
        request = GetIKPath.Request()
        request.waypoints.header.frame_id = robot.base
        request.waypoints.poses = poses_from_matrices(T_base_tip.reshape(-1, 4, 4))
        seconds[row], response = round_trip(client, executor, request)
        points = response.trajectory.points
        if response.error_code == response.SUCCESS and len(points) == len(T_base_tip):
            right += all(
                judge.accepts(np.array([point.positions]), target, TOLERANCE, TOLERANCE).all()
                for point, target in zip(points, T_base_tip, strict=True)
            )
    return seconds, right / len(lines)


def goals_to_best(
    user: Node, executor: SingleThreadedExecutor, requests: list[GetIKSolutions.Request]
) -> np.ndarray:
    """Seconds from each goal on the topic to its best candidate, one after the other."""
    heard: list[JointState] = []
    deep = QoSProfile(depth=1000)
    publisher = user.create_publisher(PoseStamped, "meanflow_ik/goal_pose", deep)
    best = user.create_subscription(JointState, "meanflow_ik/best_candidate", heard.append, deep)
    deadline = time.monotonic() + _ANSWER_S
    while not (publisher.get_subscription_count() and user.count_publishers(best.topic_name)):
        if time.monotonic() > deadline:
            raise OptionError(f"no goal topic within {_ANSWER_S:g} s")
        executor.spin_once(0.05)
    seconds = np.zeros(len(requests))
    for row, request in enumerate(tracked(requests, "goals")):
        heard.clear()
        started = time.perf_counter()
        publisher.publish(request.targets[0])
        while not heard:
            executor.spin_once(0.5)
            if time.perf_counter() > started + _ANSWER_S:
                raise OptionError(f"no best_candidate within {_ANSWER_S:g} s")
        seconds[row] = time.perf_counter() - started
    return seconds


def request_of(
    robot: Robot, T_base_tip: np.ndarray, solutions: int, num_samples: int
) -> GetIKSolutions.Request:
    """A request for solutions of one target, T_base_tip (T, 4, 4)."""
    targets = [pose_message(pose, robot.base) for pose in T_base_tip]
    return GetIKSolutions.Request(targets=targets, max_solutions=solutions, num_samples=num_samples)


def count_right(robot: Robot, T_base_tip: np.ndarray, response: GetIKSolutions.Response) -> int:
    """How many of the answered solutions are claimed valid and are so by Pinocchio."""
    q = np.array([item.joint_state.position for item in response.solutions if item.valid])
    if not len(q):
        return 0
    return int(Judge(robot).accepts(q, T_base_tip, TOLERANCE, TOLERANCE).sum())


@contextlib.contextmanager
def clients_of(
    namespace: str, process: subprocess.Popen[bytes], services: Mapping[str, type]
) -> Iterator[tuple[Node, list[Client], SingleThreadedExecutor]]:
    """A node with a client of each service, once the services are there.

    Args:
        process: that serves them in the namespace.
        services: of the node, name to type.
    """
    context = rclpy.Context()
    rclpy.init(context=context)
    node = Node("bench_client", namespace=namespace, context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    try:
        # A burst must fit into the queue.
        deep = QoSProfile(depth=10_000)
        clients = [
            node.create_client(kind, f"meanflow_ik/{name}", qos_profile=deep)
            for name, kind in services.items()
        ]
        deadline = time.monotonic() + READY_S
        while not all(client.wait_for_service(0.5) for client in clients):
            if process.poll() is not None:
                raise OptionError(f"the node stopped with exit code {process.returncode}")
            if time.monotonic() > deadline:
                raise OptionError(f"the node was not ready within {READY_S:g} s")
        yield node, clients, executor
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown(context=context)


def round_trip(client: Client, executor: SingleThreadedExecutor, request: Any) -> tuple[float, Any]:
    """Seconds from the call to the answer, and the answer."""
    started = time.perf_counter()
    future = client.call_async(request)
    executor.spin_until_future_complete(future, _ANSWER_S)
    seconds = time.perf_counter() - started
    response = future.result() if future.done() else None
    if response is None:
        raise OptionError(f"the node did not answer within {_ANSWER_S:g} s")
    return seconds, response


def trips_of(
    client: Client, executor: SingleThreadedExecutor, requests: list[Any]
) -> tuple[np.ndarray, list[Any]]:
    """Seconds and answers of requests that are sent one after the other, warmed up by the first."""
    for request in requests[:_WARM_UP_CALLS]:
        round_trip(client, executor, request)
    trips = [round_trip(client, executor, request) for request in requests]
    return np.array([seconds for seconds, _ in trips]), [answer for _, answer in trips]


def wait_for_node(user: Node, name: str) -> None:
    """Wait until a node of this name is there."""
    deadline = time.monotonic() + _ANSWER_S
    while name not in user.get_node_names():
        if time.monotonic() > deadline:
            raise OptionError(f"no node {name} within {_ANSWER_S:g} s")
        time.sleep(0.05)


def burst_of(
    client: Client, executor: SingleThreadedExecutor, requests: list[GetIKSolutions.Request]
) -> tuple[float, int]:
    """Seconds until all are answered, or time is up, and how many were answered."""
    started = time.perf_counter()
    futures = [client.call_async(request) for request in requests]
    for future in futures:
        left = started + _ANSWER_S - time.perf_counter()
        if left > 0:
            executor.spin_until_future_complete(future, left)
    answered = sum(future.done() and future.result() is not None for future in futures)
    return time.perf_counter() - started, answered
