# SPDX-License-Identifier: Apache-2.0
"""Time of the services between two processes: this one asks, a node that it starts answers.

ros2 run meanflow_ik_ros bench --sampler uniform
meanflow-ik bench ros --set sampler=uniform
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

import numpy as np
from rclpy.utilities import get_rmw_implementation_identifier

from meanflow_ik_core.bench.result import BenchResult, Measure, at_least_one, environment
from meanflow_ik_core.bench.solve import TOLERANCE
from meanflow_ik_core.commands.printing import print_table
from meanflow_ik_core.errors import IKError
from meanflow_ik_core.plain_numbers import plain_int
from meanflow_ik_core.robot.robot import load_robot
from meanflow_ik_core.samplers import resolve_sampler
from meanflow_ik_ros.srv import GetIKSolutions
from meanflow_ik_ros.tools.round_trips import (
    SERVICES,
    batches_of,
    burst_of,
    clients_of,
    count_right,
    goals_to_best,
    paths_along,
    request_of,
    straight_line,
    trips_of,
    wait_for_node,
)
from meanflow_ik_ros.tools.running_node import running_module, running_node
from meanflow_ik_ros.tools.tracking_times import follow_times

BESIDE = "meanflow_ik_ros.tools.beside"


def run(
    *,
    robot: str = "panda",
    sampler: str = "auto",
    checkpoint: str | None = None,
    solutions: int = 64,
    num_samples: int = 0,
    requests: int = 1000,
    burst: int = 200,
    batch: int = 1000,
    batch_solutions: int = 8,
    batches: int = 10,
    waypoints: int = 100,
    paths: int = 10,
    goals: int = 300,
    flood: int = 2000,
    tracked_targets: int = 5000,
    seed: int = 0,
) -> BenchResult:
    """Round trips one after the other and at once, batches, paths, goals, and a moving target.

    What rclpy alone takes for messages of the same size is measured in the same run.

    Raises:
        OptionError: a number below one, or the node did not start.
    """
    at_least_one(solutions=solutions, requests=requests, burst=burst)
    at_least_one(batch=batch, batch_solutions=batch_solutions, batches=batches)
    at_least_one(waypoints=waypoints, paths=paths, goals=goals)
    at_least_one(flood=flood, tracked_targets=tracked_targets)
    arm = load_robot(robot)
    sampler = resolve_sampler(sampler, arm, checkpoint)
    parts = np.cumsum((requests, batches * batch, 2 * paths))
    q = arm.random_configurations(int(parts[-1]), seed).numpy()
    q_requests, q_batches, q_lines, _ = np.split(q, parts)
    T_base_tip = arm.forward(q_requests)
    messages = [request_of(arm, target, solutions, num_samples) for target in T_base_tip]
    singles = [request_of(arm, target, 1, num_samples) for target in T_base_tip]
    parameters = {
        "robot": robot, "sampler": sampler, "checkpoint": checkpoint or "",
        "service_qos_depth": max(burst, flood),
    }  # fmt: skip
    namespace, q_home = f"/bench_{os.getpid()}", 0.5 * (arm.lower + arm.upper)
    quiet = ("--log-level", "warn", "-r", f"__ns:={namespace}")
    with (
        running_node(parameters, *quiet) as process,
        clients_of(namespace, process, SERVICES) as (user, clients, executor),
    ):
        client, batch_client, path_client = clients
        seconds, responses = trips_of(client, executor, messages)
        single_seconds, _ = trips_of(client, executor, singles)
        inside = np.array([response.total_time for response in responses])
        right = [
            count_right(arm, target, response)
            for target, response in zip(T_base_tip, responses, strict=True)
        ]
        bursts = {
            count: burst_of(client, executor, [messages[row % requests] for row in range(count)])
            for count in (burst, flood)
        }
        targets = arm.forward(q_batches).reshape(batches, batch, arm.num_tips, 4, 4)
        batch_seconds, solved = batches_of(batch_client, executor, arm, targets, batch_solutions)
        ends = q_lines.reshape(paths, 2, -1)
        lines = np.stack([straight_line(arm, waypoints, pair) for pair in ends])
        path_seconds, followed = paths_along(path_client, executor, arm, lines)
        goal_seconds = followed_alone = followed_beside = None
        if arm.num_tips == 1:  # a goal is one pose, and so is what is tracked
            goal_seconds = goals_to_best(
                user, executor, [messages[row % requests] for row in range(goals)]
            )
            followed_alone = follow_times(user, arm, q_home, tracked_targets)
            counts = (str(batch), str(batch_solutions))
            with running_module(BESIDE, "batches", robot, *counts, "--ros-args", *quiet):
                wait_for_node(user, "batches")
                followed_beside = follow_times(user, arm, q_home, tracked_targets)
    namespace += "_floor"
    quiet = ("--log-level", "warn", "-r", f"__ns:={namespace}")
    service = {"get_ik_solutions": GetIKSolutions}
    with (
        running_module(BESIDE, "floor", robot, "--ros-args", *quiet) as process,
        clients_of(namespace, process, service) as (user, (client,), executor),
    ):
        floor_seconds, _ = trips_of(client, executor, messages)
        floor_single_seconds, _ = trips_of(client, executor, singles)
        echo_seconds = None
        if arm.num_tips == 1:
            echo_seconds, _, _ = follow_times(user, arm, q_home, tracked_targets)
    enough = np.array(right) >= solutions
    measures = [
        in_ms("median round trip", seconds, at_most=4),
        in_ms("the same of an empty service with these messages", floor_seconds),
        in_ms("95 % round trip", seconds, 0.95),
        in_ms("99 % round trip", seconds, 0.99, at_most=25),
        in_ms("of it inside the node, median", inside),
        Measure(f"share of answers with {solutions} right solutions", float(enough.mean())),
        in_ms("one solution: median round trip", single_seconds, at_most=1.5),
        in_ms("one solution: the same of an empty service", floor_single_seconds),
    ]
    for count, (burst_seconds, answered) in bursts.items():
        measures += [
            Measure(f"burst of {count}: answered", float(answered), "requests", at_least=count),
            Measure(f"burst of {count}: time of all", burst_seconds, "s"),
        ]
    many, along = f"batch of {batch} x {batch_solutions}", f"path of {waypoints} waypoints"
    measures += [
        in_ms(f"{many}: median round trip", batch_seconds, at_most=60),
        Measure(f"{many}: targets solved", solved, at_least=0.999),
        in_ms(f"{along}: median round trip", path_seconds, at_most=30),
        Measure(f"{along}: followed", followed),
    ]
    if goal_seconds is not None:
        measures.append(in_ms("goal topic to best_candidate, median", goal_seconds, at_most=5))
    for said, found in (
        ("tracking at 1 kHz", followed_alone),
        (f"tracking at 1 kHz beside batches of {batch} x {batch_solutions}", followed_beside),
    ):
        if found is not None:
            waited, lost, reached = found
            measures += [
                in_ms(f"{said}: median, topic to topic", waited, at_most=0.8),
                in_ms(f"{said}: 99 %", waited, 0.99, at_most=3),
                Measure(f"{said}: lost", float(lost), "targets", at_most=0),
                Measure(f"{said}: right", reached, at_least=1),
            ]
    if echo_seconds is not None:
        measures.append(in_ms("echo at 1 kHz: median, topic to topic", echo_seconds))
        measures.append(in_ms("echo at 1 kHz: 99 %", echo_seconds, 0.99))
    options = {
        "robot": arm.name, "sampler": sampler, "checkpoint": checkpoint, "solutions": solutions,
        "num_samples": num_samples, "requests": requests, "burst": burst, "batch": batch,
        "batch_solutions": batch_solutions, "batches": batches, "waypoints": waypoints,
        "paths": paths, "goals": goals, "tracked_targets": tracked_targets, "flood": flood,
        "seed": seed, "tolerance": TOLERANCE,
        "rmw": get_rmw_implementation_identifier(),
    }  # fmt: skip
    return BenchResult("ros", tuple(measures), options, environment())


def in_ms(what: str, seconds: np.ndarray, quantile: float = 0.5, **bar: float) -> Measure:
    """A quantile of times in ms; infinite where there are none."""
    value = float(np.quantile(seconds, quantile) * 1e3) if len(seconds) else np.inf
    return Measure(what, value, "ms", **bar)


def main(arguments: list[str] | None = None) -> None:
    """Measure and print; exit code 1 when a bar is missed, 2 on bad input."""
    parser = argparse.ArgumentParser(
        prog="bench",
        description=__doc__.splitlines()[0] if __doc__ else None,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.register("type", int, plain_int)
    parser.add_argument(
        "--robot", default="panda", help="name of a robot, or path of its YAML or URDF"
    )
    parser.add_argument("--sampler", default="auto", help="meanflow, uniform or auto")
    parser.add_argument(
        "--checkpoint", help="name or path of the network; none: the one shipped for the robot"
    )
    parser.add_argument("--solutions", type=int, default=64, help="solutions asked for per request")
    parser.add_argument(
        "--num-samples",
        type=int,
        default=0,
        help="starting points per request; 0: the node's parameter",
    )
    parser.add_argument(
        "--requests", type=int, default=1000, help="requests sent one after the other"
    )
    parser.add_argument("--burst", type=int, default=200, help="requests sent at once")
    parser.add_argument("--batch", type=int, default=1000, help="targets per batch")
    parser.add_argument("--batch-solutions", type=int, default=8, help="solutions per target")
    parser.add_argument("--batches", type=int, default=10, help="batches sent one after the other")
    parser.add_argument("--waypoints", type=int, default=100, help="waypoints per path")
    parser.add_argument("--paths", type=int, default=10, help="paths sent one after the other")
    parser.add_argument(
        "--goals", type=int, default=300, help="goals published one after the other"
    )
    parser.add_argument(
        "--flood", type=int, default=2000, help="requests of a second, larger burst"
    )
    parser.add_argument(
        "--tracked-targets", type=int, default=5000, help="targets tracked, one each ms"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the poses")
    parser.add_argument("--output", type=Path, help="JSON file to write the result to")
    options = vars(parser.parse_args(arguments))
    output = options.pop("output")
    try:
        result = run(**options)
    except IKError as error:
        print(f"bench: {error}", file=sys.stderr)
        sys.exit(2)
    print_table("service round trip", result.COLUMNS, result.rows())
    if output is not None:
        output.write_text(json.dumps(result.as_dict(), indent=2) + "\n")
    sys.exit(0 if result.reached else 1)


if __name__ == "__main__":
    main()
