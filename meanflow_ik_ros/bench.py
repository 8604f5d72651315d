# SPDX-License-Identifier: Apache-2.0
"""Time of the service between two processes: this one asks, a node that it starts answers.

ros2 run meanflow_ik_ros bench --sampler uniform
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
import torch
from geometry_msgs.msg import Pose, PoseStamped
from rclpy.client import Client
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.utilities import get_rmw_implementation_identifier
from rich.console import Console
from rich.table import Table

from meanflow_ik_core.bench.judge import Judge
from meanflow_ik_core.bench.result import BenchResult, Measure, at_least_one, environment
from meanflow_ik_core.bench.solve import TOLERANCE
from meanflow_ik_core.errors import IKError, OptionError
from meanflow_ik_core.geometry import quat_xyzw_from_matrix
from meanflow_ik_core.robot import Robot, load_robot
from meanflow_ik_ros.srv import GetIKSolutions, GetIKSolutionsBatch

_READY_S = 300.0  # compiling the kernels the first time takes a minute
_ANSWER_S = 60.0
_WARM_UP_CALLS = 5


def run(
    *,
    robot: str = "panda",
    sampler: str = "meanflow",
    checkpoint: str | None = None,
    solutions: int = 64,
    num_samples: int = 0,
    requests: int = 300,
    burst: int = 200,
    batch: int = 1000,
    batch_solutions: int = 8,
    batches: int = 10,
    seed: int = 0,
) -> BenchResult:
    """Round trips one after the other, a burst of requests at once, and batches of targets.

    Raises:
        OptionError: a number below one, or the node did not start.
    """
    at_least_one(solutions=solutions, requests=requests, burst=burst)
    at_least_one(batch=batch, batch_solutions=batch_solutions, batches=batches)
    arm = load_robot(robot)
    generator = torch.Generator().manual_seed(seed)
    T_base_tip = arm.forward(arm.random_configurations(requests, generator).numpy())
    messages = [_request(arm, target, solutions, num_samples) for target in T_base_tip]
    node_parameters = {"robot": robot, "sampler": sampler, "checkpoint": checkpoint or ""}
    with _running_node(node_parameters) as node, _client(*node) as (clients, executor):
        client, batch_client = clients
        for message in messages[:_WARM_UP_CALLS]:
            _round_trip(client, executor, message)
        trips = [_round_trip(client, executor, message) for message in messages]
        seconds = np.array([trip[0] for trip in trips])
        responses = [trip[1] for trip in trips]
        inside = np.array([response.total_time for response in responses])
        right = [
            _count_right(arm, target, response)
            for target, response in zip(T_base_tip, responses, strict=True)
        ]
        burst_seconds, answered = _burst(
            client, executor, [messages[row % requests] for row in range(burst)]
        )
        q = arm.random_configurations(batches * batch, generator).numpy()
        asked = arm.forward(q).reshape(batches, batch, arm.num_tips, 4, 4)
        batch_seconds, solved = _batches(batch_client, executor, arm, asked, batch_solutions)
    enough = np.array(right) >= solutions
    measures = (
        Measure("median round trip", float(np.median(seconds) * 1e3), "ms", at_most=10),
        Measure("95 % round trip", float(np.quantile(seconds, 0.95) * 1e3), "ms"),
        Measure("99 % round trip", float(np.quantile(seconds, 0.99) * 1e3), "ms"),
        Measure("of it inside the node, median", float(np.median(inside) * 1e3), "ms"),
        Measure(f"share of answers with {solutions} right solutions", float(enough.mean())),
        Measure(f"burst of {burst}: answered", float(answered), "requests", at_least=burst),
        Measure(f"burst of {burst}: time of all", burst_seconds, "s"),
        Measure(
            f"batch of {batch} x {batch_solutions}: median round trip",
            float(np.median(batch_seconds) * 1e3),
            "ms",
            at_most=250,
        ),
        Measure(f"batch of {batch} x {batch_solutions}: targets solved", solved, at_least=0.999),
    )
    options = {
        "robot": arm.name, "sampler": sampler, "checkpoint": checkpoint, "solutions": solutions,
        "num_samples": num_samples, "requests": requests, "burst": burst, "batch": batch,
        "batch_solutions": batch_solutions, "batches": batches, "seed": seed,
        "tolerance": TOLERANCE, "rmw": get_rmw_implementation_identifier(),
    }  # fmt: skip
    return BenchResult("ros", measures, options, environment())


def _batches(
    client: Client,
    executor: SingleThreadedExecutor,
    robot: Robot,
    asked: np.ndarray,
    solutions: int,
) -> tuple[np.ndarray, float]:
    """Seconds of each batch, and the share of targets with a solution that Pinocchio accepts.

    Args:
        asked: (R, B, T, 4, 4) T_base_tip of R batches.
    """
    judge, right = Judge(robot), 0
    seconds = np.zeros(len(asked))
    for row, T_base_tip in enumerate(asked):
        request = GetIKSolutionsBatch.Request(max_solutions=solutions)
        request.targets.header.frame_id = robot.base
        request.targets.poses = [_pose(pose) for pose in T_base_tip.reshape(-1, 4, 4)]
        seconds[row], response = _round_trip(client, executor, request)
        positions = np.array(response.positions).reshape(-1, robot.num_joints)
        valid = np.array(response.valid)
        for index, target in enumerate(T_base_tip):
            rows = slice(response.offsets[index], response.offsets[index + 1])
            q = positions[rows][valid[rows]]
            right += bool(len(q) and judge.accepts(q, target, TOLERANCE, TOLERANCE).any())
    return seconds, right / asked[:, :, 0, 0, 0].size


def _pose(T_base_tip: np.ndarray) -> Pose:
    pose = Pose()
    pose.position.x, pose.position.y, pose.position.z = T_base_tip[:3, 3].tolist()
    quat_xyzw = quat_xyzw_from_matrix(torch.from_numpy(T_base_tip[:3, :3].copy())).tolist()
    pose.orientation.x, pose.orientation.y, pose.orientation.z, pose.orientation.w = quat_xyzw
    return pose


def _request(
    robot: Robot, T_base_tip: np.ndarray, solutions: int, num_samples: int
) -> GetIKSolutions.Request:
    request = GetIKSolutions.Request(max_solutions=solutions, num_samples=num_samples)
    for target in T_base_tip:
        stamped = PoseStamped(pose=_pose(target))
        stamped.header.frame_id = robot.base
        request.targets.append(stamped)
    return request


def _count_right(robot: Robot, T_base_tip: np.ndarray, response: GetIKSolutions.Response) -> int:
    """How many of the answered solutions are claimed valid and are so by Pinocchio."""
    q = np.array([item.joint_state.position for item in response.solutions if item.valid])
    if not len(q):
        return 0
    return int(Judge(robot).accepts(q, T_base_tip, TOLERANCE, TOLERANCE).sum())


@contextlib.contextmanager
def _running_node(parameters: dict[str, str]) -> Iterator[tuple[str, subprocess.Popen]]:
    """Start the node in its own namespace and process; yields both."""
    namespace = f"/bench_{os.getpid()}"
    command = [
        sys.executable,
        "-m",
        "meanflow_ik_ros.node",
        "--ros-args",
        "-r",
        f"__ns:={namespace}",
    ]
    for name, value in parameters.items():
        command += ["-p", f"{name}:={value or repr('')}"]
    process = subprocess.Popen([*command, "--log-level", "warn"])
    try:
        yield namespace, process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def _client(
    namespace: str, process: subprocess.Popen
) -> Iterator[tuple[list[Client], SingleThreadedExecutor]]:
    """A client of each service, once the services are there."""
    context = rclpy.Context()
    rclpy.init(context=context)
    node = Node("bench_client", namespace=namespace, context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    try:
        # a burst must fit into the queue
        deep = QoSProfile(depth=10_000)
        clients = [
            node.create_client(kind, f"meanflow_ik/{name}", qos_profile=deep)
            for kind, name in (
                (GetIKSolutions, "get_ik_solutions"),
                (GetIKSolutionsBatch, "get_ik_solutions_batch"),
            )
        ]
        deadline = time.monotonic() + _READY_S
        while not all(client.wait_for_service(0.5) for client in clients):
            if process.poll() is not None:
                raise OptionError(f"the node stopped with exit code {process.returncode}")
            if time.monotonic() > deadline:
                raise OptionError(f"the node was not ready within {_READY_S:g} s")
        yield clients, executor
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown(context=context)


def _round_trip(
    client: Client, executor: SingleThreadedExecutor, request: Any
) -> tuple[float, Any]:
    """Seconds from the call to the answer, and the answer."""
    started = time.perf_counter()
    future = client.call_async(request)
    executor.spin_until_future_complete(future, _ANSWER_S)
    seconds = time.perf_counter() - started
    response = future.result() if future.done() else None
    if response is None:
        raise OptionError(f"the node did not answer within {_ANSWER_S:g} s")
    return seconds, response


def _burst(
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


def main(arguments: list[str] | None = None) -> None:
    """Measure and print; exit code 1 when a bar is missed, 2 on bad input."""
    parser = argparse.ArgumentParser(
        prog="bench",
        description=__doc__.splitlines()[0] if __doc__ else None,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--robot", default="panda", help="name or path of a URDF")
    parser.add_argument("--sampler", default="meanflow", help="meanflow or uniform")
    parser.add_argument("--checkpoint", help="name or path, for the sampler meanflow")
    parser.add_argument("--solutions", type=int, default=64, help="asked for in a request")
    parser.add_argument(
        "--num-samples",
        type=int,
        default=0,
        help="starts in a request; 0: as many as the node takes",
    )
    parser.add_argument("--requests", type=int, default=300, help="one after the other")
    parser.add_argument("--burst", type=int, default=200, help="requests at once")
    parser.add_argument("--batch", type=int, default=1000, help="targets of a batch")
    parser.add_argument("--batch-solutions", type=int, default=8, help="asked for per target")
    parser.add_argument("--batches", type=int, default=10, help="one after the other")
    parser.add_argument("--seed", type=int, default=0, help="of the poses")
    parser.add_argument("--output", type=Path, help="write JSON to this file as well")
    options = vars(parser.parse_args(arguments))
    output = options.pop("output")
    try:
        result = run(**options)
    except IKError as error:
        print(f"bench: {error}", file=sys.stderr)
        sys.exit(2)
    table = Table(*result.COLUMNS, title="service round trip")
    for row in result.rows():
        table.add_row(*row)
    Console().print(table)
    if output is not None:
        output.write_text(json.dumps(result.as_dict(), indent=2) + "\n")
    sys.exit(0 if result.reached else 1)


if __name__ == "__main__":
    main()
