# SPDX-License-Identifier: Apache-2.0
"""Solutions free of obstacles: the product against the same search that only rejects, and peers."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
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
from .roboplan_scene import INSTALL, RoboplanScene
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
    a solution is right and free of the world and of itself, which the product's check decides;
    roboplan also has a scene of its own for each problem, and rejects by itself.

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
        judge = Judge(robot)
        judges = [touching_by_coal(robot, problem) for problem in problems]
        solvers = {"product": guided, "rejection": rejecting}
        scenes_of_roboplan = []
        if is_panda(robot) and peers == "all":
            try:
                scenes_of_roboplan = [
                    RoboplanScene(world.snapshot().structure.check, problem, seed)
                    for world, problem in zip(worlds, problems, strict=True)
                ]
            except ImportError:
                missing.append(INSTALL)
        for call, options in _CALLS.items() if robot.num_tips == 1 else [("one", _CALLS["one"])]:
            asked = [
                {
                    name: _asked(solver, world, target, seed, options)
                    for name, solver in solvers.items()
                }
                for world, target in zip(worlds, targets, strict=True)
            ]
            if call == "one":
                for one, scene, target in zip(asked, scenes_of_roboplan, targets, strict=False):
                    one["roboplan in its own scene"] = partial(scene.solutions, target[0])
            measures += _calls(robot, call, asked, judges, repetitions)
        if is_panda(robot):
            built, lacking = build_peers(kinds.values(), robot, judge, seed)
            missing += lacking
            refuse_missing(peers, missing)
            for peer in built:
                measures += _peer(robot, peer, judge, worlds, targets, seed)
    options = {
        "scenes": Path(scenes).name, "sampler": sampler, "robots": robots, "peers": peers,
        "missing": ", ".join(missing), "most": most, "repetitions": repetitions, "seed": seed,
    }  # fmt: skip
    return BenchResult("world", tuple(measures), options, environment())


def _asked(
    solver: IKSolver, world: World, target: np.ndarray, seed: int, options: dict[str, Any]
) -> Callable[[], np.ndarray]:
    """The valid rows (S, J) of a call."""

    def solve() -> np.ndarray:
        result = solver.solve(target, world=world, avoid_self_collision=True, seed=seed, **options)
        return result.joint_positions[0, result.valid[0]]

    return solve


def _calls(
    robot: Robot,
    call: str,
    asked: list[dict[str, Callable[[], np.ndarray]]],
    judges: list[Callable[[np.ndarray], bool]],
    repetitions: int,
) -> list[Measure]:
    """What one call gives for all problems, by solvers in turns."""
    found: dict[str, list[tuple[int, int, float]]] = {name: [] for name in asked[0]}
    for solvers, wrong in zip(asked, judges, strict=True):
        for name, solve in solvers.items():
            rows = solve()
            seconds = min(_seconds(solve) for _ in range(repetitions))
            found[name].append((len(rows), sum(map(wrong, rows)), seconds))
    measures = []
    for name, values in found.items():
        count, wrong_rows, seconds = np.array(values).T
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
