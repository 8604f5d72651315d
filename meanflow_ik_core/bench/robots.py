# SPDX-License-Identifier: Apache-2.0
"""Every robot: its learned sampler, where one is shipped, beside uniform random starts."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch

from ..checkpoint import available_checkpoints
from ..collision import SelfCollision
from ..errors import RobotError
from ..kernels import StepSettings, iterate
from ..robot import Robot, load_robot
from ..robot_file import available_robots
from ..solver import IKSolver, load_solver
from .judge import Judge
from .result import BenchResult, Measure, at_least_one, environment
from .tracik import MIN_SEPARATION, count_different

TOLERANCE = 1e-4  # m and rad
STEPS = 5
# Poses of a robot with more than two tips may take longer.
_TIME_LIMIT, _TIME_LIMIT_MANY_TIPS = 0.02, 0.05  # s
_LONGEST = 1.0  # s, for all the solutions asked for


@dataclass
class _Tally:
    """What one sampler did on one robot's poses."""

    position: list[float]  # m, of raw samples, mean over samples and tips
    angle: list[float]  # rad
    after_steps: list[float]  # share of the samples that are valid
    solved: list[bool]  # by `solve` within the time limit
    seconds: list[float]  # until the solutions asked for were there
    short: int = 0  # poses with fewer of them


def run(
    *,
    robots: str = "all",
    poses: int = 100,
    samples: int = 100,
    solutions: int = 10,
    starts: int = 32,
    seed: int = 0,
) -> BenchResult:
    """Raw errors, what five steps make of them, solved poses, time to several solutions.

    Targets are poses of random configurations that are free of self-collision. Valid is a
    configuration within the limits whose tips are all within 1e-4 m and 1e-4 rad by Pinocchio, and
    whose links do not touch by Coal. Both samplers take their turns at the same poses.

    Args:
        robots: names with commas, or "all" whose files are there.
        samples: raw samples per pose.
        solutions: different valid solutions asked for, at most 1 s a pose.
        starts: of the first round of `solve`.
    """
    at_least_one(poses=poses, samples=samples, solutions=solutions, starts=starts)
    measures: list[Measure] = []
    for robot in _chosen(robots):
        measures += _measure(robot, poses, samples, solutions, starts, seed)
    options = {
        "robots": robots, "poses": poses, "samples": samples, "solutions": solutions,
        "starts": starts, "seed": seed, "tolerance": TOLERANCE,
    }  # fmt: skip
    return BenchResult("robots", tuple(measures), options, environment())


def reachable_targets(robot: Robot, check: SelfCollision, count: int, seed: int) -> np.ndarray:
    """(count, T, 4, 4) poses of random configurations that are free of self-collision."""
    # Far from the seeds of the samplers: a uniform start must not be the answer.
    generator = torch.Generator().manual_seed(seed + (1 << 40))
    free: list[np.ndarray] = []
    while len(free) < count:
        q = robot.random_configurations(4 * count, generator).numpy()
        free.extend(q[~check.in_collision(q)])
    return robot.forward(np.stack(free[:count]))


def is_coupled(robot: Robot) -> bool:
    """Whether a joint moves more than one tip."""
    moved = np.zeros(robot.num_joints, dtype=int)
    for node in robot.tip_node:
        chain = set()
        while node >= 0:
            chain.add(int(robot.joint[node]))
            node = robot.parent[node]
        moved[list(chain)] += 1
    return bool((moved > 1).any())


def _chosen(robots: str) -> list[Robot]:
    if robots != "all":
        return [load_robot(name.strip()) for name in robots.split(",")]
    found = []
    for name in available_robots():
        try:
            found.append(load_robot(name))
        except RobotError:
            # of the extra `robots`, which is not installed
            continue
    return found


def _measure(
    robot: Robot, poses: int, samples: int, solutions: int, starts: int, seed: int
) -> list[Measure]:
    judge, check = Judge(robot), SelfCollision(robot)
    samplers = ["uniform"]
    if robot.name in available_checkpoints():
        samplers.append("meanflow")
    solvers = {name: load_solver(robot, sampler=name) for name in samplers}
    tallies = {name: _Tally([], [], [], [], []) for name in samplers}
    limit = _TIME_LIMIT if robot.num_tips <= 2 else _TIME_LIMIT_MANY_TIPS
    for solver in solvers.values():
        solver.warm_up()

    def valid(q: np.ndarray, target: np.ndarray) -> np.ndarray:
        good = judge.accepts(q, target, TOLERANCE, TOLERANCE)
        good[good] = ~check.in_collision(q[good])
        return good

    for row, target in enumerate(reachable_targets(robot, check, poses, seed)):
        for name, solver in solvers.items():
            tally = tallies[name]
            q = solver.sample(target[None], samples, seed=seed + row)
            position, angle = judge.errors(q[0], target)
            tally.position.append(float(position.mean()))
            tally.angle.append(float(angle.mean()))
            tally.after_steps.append(float(valid(_stepped(robot, q, target), target).mean()))
            found, _ = _solve(solver, target, 1, starts, limit, seed + row)
            tally.solved.append(bool(valid(found, target).any()))
            found, seconds = _solve(solver, target, solutions, starts, _LONGEST, seed + row)
            found = found[valid(found, target)]
            tally.short += len(found) < solutions or count_different(found) < solutions
            tally.seconds.append(seconds)
    return _summary(robot, tallies, limit, solutions, least=1 / (poses * samples))


def _stepped(robot: Robot, q: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Samples (1, N, J) after `STEPS` damped least-squares steps in float64, (N, J)."""
    q = np.clip(np.array(q, dtype=np.float64), robot.lower, robot.upper)
    todo = np.arange(q.shape[1])
    enough = np.iinfo(np.int64).max
    iterate(
        robot, q, target[None], todo, np.zeros(1, np.int64), enough, STEPS, 1e-3 * TOLERANCE,
        1e-3 * TOLERANCE, StepSettings(),
    )  # fmt: skip
    return q[0]


def _solve(
    solver: IKSolver, target: np.ndarray, count: int, starts: int, limit: float, seed: int
) -> tuple[np.ndarray, float]:
    """The solutions that `solve` claims for one target, and its seconds."""
    started = time.perf_counter()
    result = solver.solve(
        target[None], num_samples=starts, max_solutions=count, seed=seed, timeout=limit,
        position_tolerance=TOLERANCE, orientation_tolerance=TOLERANCE,
        min_separation=MIN_SEPARATION, avoid_self_collision=True,
    )  # fmt: skip
    seconds = time.perf_counter() - started
    return result.joint_positions[0][result.valid[0]], seconds


def _summary(
    robot: Robot, tallies: dict[str, _Tally], limit: float, solutions: int, least: float
) -> list[Measure]:
    coupled = is_coupled(robot)
    wanted = 0.9 if robot.num_tips > 2 else 0.99
    measures = []
    for name, tally in tallies.items():
        learned, prefix = name != "uniform", f"{robot.name}, {name}: "
        held_to = learned and coupled
        position = 1e3 * float(np.mean(tally.position))
        angle = float(np.degrees(np.mean(tally.angle)))
        solved = float(np.mean(tally.solved))
        median = 1e3 * float(np.median(tally.seconds))
        measures += [
            Measure(
                prefix + "raw position error", position, "mm", at_most=30.0 if held_to else None
            ),
            Measure(prefix + "raw rotation error", angle, "deg", at_most=8.0 if held_to else None),
            Measure(prefix + f"valid after {STEPS} steps", float(np.mean(tally.after_steps))),
            Measure(
                prefix + f"solved in {1e3 * limit:g} ms",
                solved,
                at_least=wanted if learned else None,
            ),
            Measure(prefix + f"{solutions} solutions, median time", median, "ms"),
            Measure(prefix + f"fewer than {solutions}", float(tally.short), "poses"),
        ]
    if "meanflow" in tallies:
        learned, uniform = tallies["meanflow"], tallies["uniform"]
        prefix = f"{robot.name}, ratio: "
        # Where no uniform start comes home, the ratio is to one of them all.
        share = float(np.mean(learned.after_steps) / max(np.mean(uniform.after_steps), least))
        measures.append(Measure(prefix + f"valid after {STEPS} steps", share, "x", at_least=3.0))
        faster = float(np.median(uniform.seconds) / np.median(learned.seconds))
        bar = 2.0 if coupled else None
        what = prefix + f"faster to {solutions} solutions"
        measures.append(Measure(what, faster, "x", at_least=bar))
    return measures
