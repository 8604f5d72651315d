# SPDX-License-Identifier: Apache-2.0
"""Solutions free of obstacles: the product against the same search that only rejects, and peers."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..robot.robot import Robot, load_robot
from ..solving.search import Search
from ..solving.solver import IKSolver, load_solver
from ..world.world import World
from .judge import Judge
from .peer_solvers.known import build_peers, is_panda, named_peers, refuse_missing
from .peer_solvers.peer import Searcher, Stopwatch
from .result import BenchResult, Measure, at_least_one, environment
from .solve import TOLERANCE
from .world_problems import (
    own_problems,
    read_problems,
    targets_of_problem,
    touching_by_coal,
    world_of_problem,
)

_CALLS: dict[str, dict[str, Any]] = {
    "one": {"max_solutions": 1},
    "8 diverse": {"max_solutions": 8, "select": "diverse"},
    "100 diverse": {"max_solutions": 100, "num_samples": 1000, "select": "diverse"},
}
_MOST_RESTARTS = 500  # of a peer, for one problem
_LONGEST = 1.0  # s of the processor, for them


class RejectingSolver(IKSolver):
    """The product without guidance: Coal throws away what touches."""

    def search_in_parts(self, guide: Any, *search: Any) -> Search:
        return Search(*search)


def run(
    *,
    scenes: str = "",
    sampler: str = "uniform",
    robots: str = "panda",
    peers: str = "all",
    most: int = 0,
    repetitions: int = 3,
    seed: int = 0,
) -> BenchResult:
    """Shares solved, free rows, wrong rows and CPU times, on problems of a file.

    Robots of several tips are asked for one solution, which is held to bars. Peers restart until
    a solution is right and free of the world and of itself, which the product's check decides.

    Args:
        scenes: a file of the form "mik-world-scenes 1"; empty: of our own, ten for each robot, or
            as many as ``most`` says, with goals of all tips.
        sampler: of the starts.
        robots: names with commas.
        peers: of the Panda, names with commas, "none", or "all" that are installed.
        most: how many of the problems; 0: all.
        repetitions: of each call, of which the fastest counts.
    """
    at_least_one(repetitions=repetitions)
    kinds = named_peers(peers)
    measures: list[Measure] = []
    missing: list[str] = []
    for robot in [load_robot(name.strip()) for name in robots.split(",")]:
        problems = read_problems(Path(scenes)) if scenes else own_problems(robot, most or 10, seed)
        problems = problems[: most or None]
        guided = load_solver(robot, sampler=sampler)
        rejecting = RejectingSolver(robot, guided._samplers[sampler], sampler, guided.device)
        worlds = [world_of_problem(robot, problem) for problem in problems]
        targets = [targets_of_problem(robot, problem) for problem in problems]
        judges = [touching_by_coal(robot, problem) for problem in problems]
        solvers = {"product": guided, "rejection": rejecting}
        for call, options in _CALLS.items() if robot.num_tips == 1 else [("one", _CALLS["one"])]:
            measures += _calls(solvers, call, options, worlds, targets, judges, repetitions, seed)
        if is_panda(robot):
            judge = Judge(robot)
            built, missing = build_peers(kinds.values(), robot, judge, seed)
            refuse_missing(peers, missing)
            for peer in built:
                measures += _peer(robot, peer, judge, worlds, targets, seed)
    options = {
        "scenes": Path(scenes).name, "sampler": sampler, "robots": robots, "peers": peers,
        "missing": ", ".join(missing), "most": most, "repetitions": repetitions, "seed": seed,
    }  # fmt: skip
    return BenchResult("world", tuple(measures), options, environment())


def _calls(
    solvers: dict[str, IKSolver],
    call: str,
    options: dict[str, Any],
    worlds: list[World],
    targets: list[np.ndarray],
    judges: list[Callable[[np.ndarray], bool]],
    repetitions: int,
    seed: int,
) -> list[Measure]:
    """What one call gives for all problems, by solvers in turns."""
    found = {name: [] for name in solvers}
    for world, target, wrong in zip(worlds, targets, judges, strict=True):
        for name, solver in solvers.items():

            def solve(solver=solver, target=target, world=world):
                return solver.solve(
                    target, world=world, avoid_self_collision=True, seed=seed, **options
                )

            result = solve()
            rows = result.joint_positions[0, result.valid[0]]
            seconds = min(_seconds(solve) for _ in range(repetitions))
            found[name].append((len(rows), sum(map(wrong, rows)), seconds))
    measures = []
    for name, values in found.items():
        count, wrong_rows, seconds = np.array(values).T
        robot = solvers[name].robot
        # The bars of two hands at once.
        several = robot.num_tips > 1 and name == "product"
        what = f"{robot.name}, {call}, {name}"
        measures += [
            Measure(
                f"{what}: solved", float((count > 0).mean()), at_least=0.98 if several else None
            ),
            Measure(f"{what}: free rows", float(count.mean())),
            Measure(f"{what}: wrong rows", float(wrong_rows.sum()), at_most=0),
            Measure(
                f"{what}: CPU time", 1e3 * float(seconds.mean()), "ms",
                at_most=5.0 if several else None,
            ),
        ]  # fmt: skip
    return measures


def _peer(
    robot: Robot,
    peer: Searcher,
    judge: Judge,
    worlds: list[World],
    targets: list[np.ndarray],
    seed: int,
) -> list[Measure]:
    """One solution of each problem by restarts of a peer, whose time is that of its calls and of
    the check."""
    rng, solved, busy = np.random.default_rng(seed), [], []
    for world, target in zip(worlds, targets, strict=True):
        watch, snapshot, done = Stopwatch(), world.snapshot(), False
        snapshot.in_collision(0.5 * (robot.lower + robot.upper)[None], True)
        for _ in range(_MOST_RESTARTS):
            start = rng.uniform(robot.lower, robot.upper)
            q = peer.some(watch, target[0], start)
            q = q[judge.accepts(q, target[0], TOLERANCE, TOLERANCE)]
            done = bool(len(q)) and not watch(snapshot.in_collision, q, True).all()
            if done or watch.busy > _LONGEST:
                break
        solved.append(done)
        busy.append(watch.busy)
    what = f"{robot.name}, one, {peer.name} with rejection"
    return [
        Measure(f"{what}: solved", float(np.mean(solved))),
        Measure(f"{what}: CPU time", 1e3 * float(np.mean(busy)), "ms"),
    ]


def _seconds(call: Callable[[], Any]) -> float:
    began = time.process_time()
    call()
    return time.process_time() - began
