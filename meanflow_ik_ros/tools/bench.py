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
from meanflow_ik_core.robot.robot import load_robot
from meanflow_ik_core.samplers import resolve_sampler
from meanflow_ik_ros.tools.round_trips import (
    batches_of,
    burst_of,
    clients_of,
    count_right,
    goals_to_best,
    paths_along,
    request_of,
    round_trip,
    straight_line,
)
from meanflow_ik_ros.tools.running_node import running_node

_WARM_UP_CALLS = 5


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
    seed: int = 0,
) -> BenchResult:
    """Round trips one after the other, a burst at once, batches of targets, paths, goals on topics.

    Raises:
        OptionError: a number below one, or the node did not start.
    """
    at_least_one(solutions=solutions, requests=requests, burst=burst)
    at_least_one(batch=batch, batch_solutions=batch_solutions, batches=batches)
    at_least_one(waypoints=waypoints, paths=paths, goals=goals)
    arm = load_robot(robot)
    sampler = resolve_sampler(sampler, arm, checkpoint)
    parts = np.cumsum((requests, batches * batch, 2 * paths))
    q = arm.random_configurations(int(parts[-1]), seed).numpy()
    q_requests, q_batches, q_lines, _ = np.split(q, parts)
    T_base_tip = arm.forward(q_requests)
    messages = [request_of(arm, target, solutions, num_samples) for target in T_base_tip]
    parameters = {"robot": robot, "sampler": sampler, "checkpoint": checkpoint or ""}
    namespace = f"/bench_{os.getpid()}"
    with (
        running_node(parameters, "-r", f"__ns:={namespace}", "--log-level", "warn") as process,
        clients_of(namespace, process) as (user, clients, executor),
    ):
        client, batch_client, path_client = clients
        for message in messages[:_WARM_UP_CALLS]:
            round_trip(client, executor, message)
        trips = [round_trip(client, executor, message) for message in messages]
        seconds = np.array([trip[0] for trip in trips])
        responses = [trip[1] for trip in trips]
        inside = np.array([response.total_time for response in responses])
        right = [
            count_right(arm, target, response)
            for target, response in zip(T_base_tip, responses, strict=True)
        ]
        burst_seconds, answered = burst_of(
            client, executor, [messages[row % requests] for row in range(burst)]
        )
        targets = arm.forward(q_batches).reshape(batches, batch, arm.num_tips, 4, 4)
        batch_seconds, solved = batches_of(batch_client, executor, arm, targets, batch_solutions)
        ends = q_lines.reshape(paths, 2, -1)
        lines = np.stack([straight_line(arm, waypoints, pair) for pair in ends])
        path_seconds, followed = paths_along(path_client, executor, arm, lines)
        goal_seconds = None
        if arm.num_tips == 1:  # a goal is one pose
            goal_seconds = goals_to_best(
                user, executor, [messages[row % requests] for row in range(goals)]
            )
    enough = np.array(right) >= solutions
    measures = (
        Measure("median round trip", float(np.median(seconds) * 1e3), "ms", at_most=6),
        Measure("95 % round trip", float(np.quantile(seconds, 0.95) * 1e3), "ms"),
        Measure("99 % round trip", float(np.quantile(seconds, 0.99) * 1e3), "ms", at_most=25),
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
        Measure(
            f"path of {waypoints} waypoints: median round trip",
            float(np.median(path_seconds) * 1e3),
            "ms",
            at_most=100,
        ),
        Measure(f"path of {waypoints} waypoints: followed", followed),
    )
    if goal_seconds is not None:
        median = float(np.median(goal_seconds) * 1e3)
        measures += (Measure("goal topic to best_candidate, median", median, "ms", at_most=6),)
    options = {
        "robot": arm.name, "sampler": sampler, "checkpoint": checkpoint, "solutions": solutions,
        "num_samples": num_samples, "requests": requests, "burst": burst, "batch": batch,
        "batch_solutions": batch_solutions, "batches": batches, "waypoints": waypoints,
        "paths": paths, "goals": goals, "seed": seed, "tolerance": TOLERANCE,
        "rmw": get_rmw_implementation_identifier(),
    }  # fmt: skip
    return BenchResult("ros", measures, options, environment())


def main(arguments: list[str] | None = None) -> None:
    """Measure and print; exit code 1 when a bar is missed, 2 on bad input."""
    parser = argparse.ArgumentParser(
        prog="bench",
        description=__doc__.splitlines()[0] if __doc__ else None,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
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
