# SPDX-License-Identifier: Apache-2.0
"""Every robot: its learned sampler, where one is shipped, beside uniform random starts."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ..collision.self_collision import SelfCollision
from ..errors import OptionError, RobotError
from ..kernels.step_settings import StepSettings
from ..network.checkpoint import CHECKPOINT_FOLDER, available_checkpoints
from ..progress import tracked
from ..robot.robot import Robot, load_robot
from ..robot.robot_file import available_robots
from ..solving.least_squares import iterate
from ..solving.recombination import independent_parts
from ..solving.solver import IKSolver, load_solver
from .judge import MIN_SEPARATION, Judge, different
from .result import BenchResult, Measure, at_least_one, environment
from .robots_tables import STEPS, time_limit
from .targets import reachable_targets

TOLERANCE = 1e-4  # m and rad
_LONGEST = 1.0  # s, for all the solutions asked for

_Valid = Callable[[np.ndarray, np.ndarray], np.ndarray]  # q (N, J), target -> (N,) bool


class _Side(NamedTuple):
    """One of those that are compared."""

    solver: IKSolver
    recombining: bool = True


@dataclass
class _Tally:
    """What one side did on one robot's poses."""

    position: list[float] = field(default_factory=list)  # m, of raw samples, mean over them
    angle: list[float] = field(default_factory=list)  # rad
    after_steps: list[float] = field(default_factory=list)  # share of the samples that are valid
    starts_for_one: int = 0  # of the first round
    starts: int = 0
    solved: list[bool] = field(default_factory=list)  # by a call that was over in time
    solved_busy: list[bool] = field(default_factory=list)  # over in time by the processor's clock
    first: list[float] = field(default_factory=list)  # s, of these calls
    first_busy: list[float] = field(default_factory=list)  # s of processor time
    seconds: list[float] = field(default_factory=list)  # until the solutions asked for were there
    busy: list[float] = field(default_factory=list)
    short: int = 0  # poses with fewer of them


@dataclass(frozen=True)
class _Plan:
    """The options of `run`, numbers only."""

    poses: int
    success_poses: int
    samples: int
    solutions: int
    starts: tuple[int, ...]
    tuning_poses: int
    seed: int


def run(
    *,
    robots: str = "all",
    poses: int = 50,
    success_poses: int = 1000,
    samples: int = 100,
    solutions: int = 10,
    starts: str = "16,32,64,128",
    tuning_poses: int = 10,
    seed: int = 0,
) -> BenchResult:
    """Raw errors, what five steps make of them, solved poses, time to several solutions.

    Targets are poses of random configurations that are free of self-collision. Valid is a
    configuration within the limits whose tips are all within 1e-4 m and 1e-4 rad by Pinocchio, and
    whose links do not touch by Coal. A pose is solved in time where a call that asks for one
    solution returns a valid one and is over in time. All take their turns at the same poses:
    learned samples, uniform starts, and, where tips share no joint, uniform starts that are not
    recombined, which is what plain restarts are.

    Args:
        robots: names with commas, or "all" whose files are there.
        poses: for all but the share that is solved in time.
        success_poses: for that share: 1,000 tell 99 % from 99.9 %.
        samples: raw samples per pose.
        solutions: different valid solutions asked for, at most 1 s a pose.
        starts: of the first round of `solve`, with commas; each side takes those of the least mean
            time on other poses, for one solution and for several.
        tuning_poses: those other poses.
    """
    at_least_one(
        poses=poses, success_poses=success_poses, samples=samples, solutions=solutions,
        tuning_poses=tuning_poses,
    )  # fmt: skip
    plan = _Plan(
        poses, success_poses, samples, solutions, _numbers(starts), tuning_poses, seed
    )  # fmt: skip
    measures: list[Measure] = []
    for robot in tracked(_chosen(robots), "robots"):
        measures += _measure(robot, plan)
    options = {
        "robots": robots, "poses": poses, "success_poses": success_poses, "samples": samples,
        "solutions": solutions, "starts": starts, "tuning_poses": tuning_poses, "seed": seed,
        "tolerance": TOLERANCE,
    }  # fmt: skip
    return BenchResult("robots", tuple(measures), options, environment())


def is_coupled(robot: Robot) -> bool:
    """Whether a joint moves more than one tip."""
    return bool((robot.moves.sum(0) > 1).any())


def _numbers(starts: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(word) for word in starts.split(","))
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 1:
        raise OptionError(f"starts is {starts!r}; it is numbers of at least 1 with commas")
    return numbers


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


def _measure(robot: Robot, plan: _Plan) -> list[Measure]:
    judge, check = Judge(robot), SelfCollision(robot)
    uniform = load_solver(robot, sampler="uniform")
    sides = {"uniform": _Side(uniform)}
    if robot.name in available_checkpoints():
        sides["meanflow"] = _Side(load_solver(robot))
    if len(independent_parts(robot)) > 1:
        sides["restarts"] = _Side(uniform, recombining=False)
    for side in sides.values():
        side.solver.warm_up()

    def valid(q: np.ndarray, target: np.ndarray) -> np.ndarray:
        good = judge.accepts(q, target, TOLERANCE, TOLERANCE)
        good[good] = ~check.in_collision(q[good])
        return good

    tallies = {name: _Tally() for name in sides}
    limit = time_limit(robot.num_tips)
    many = max(plan.poses, plan.success_poses)
    targets = reachable_targets(robot, plan.tuning_poses + many, plan.seed, check)
    _choose_starts(sides, tallies, targets[many:], plan, limit)
    for row, target in enumerate(tracked(targets[: plan.poses], "poses for the time")):
        for name, side in sides.items():
            if side.recombining:
                _sample(side, tallies[name], target, plan.samples, plan.seed + row, judge, valid)
            _several(side, tallies[name], target, plan.solutions, plan.seed + row, valid)
    for row, target in enumerate(tracked(targets[: plan.success_poses], "poses for success")):
        for name, side in sides.items():
            if side.recombining:
                _first(side, tallies[name], target, limit, plan.seed + row, valid)
    return _summary(robot, tallies, limit, plan)


def _choose_starts(
    sides: dict[str, _Side], tallies: dict[str, _Tally], targets: np.ndarray, plan: _Plan,
    limit: float,
) -> None:  # fmt: skip
    """The number of starts of the first round that serves each side best."""
    for name, side in sides.items():
        for_one, for_several = np.zeros((2, len(plan.starts)))
        for row, target in enumerate(tracked(targets, f"poses to tune {name}")):
            for place, starts in enumerate(plan.starts):
                seed = plan.seed + row
                for_one[place] += _solve(side, target, 1, starts, limit, seed)[1]
                several = _solve(side, target, plan.solutions, starts, _LONGEST, seed)
                for_several[place] += several[1]
        tallies[name].starts_for_one = plan.starts[int(for_one.argmin())]
        tallies[name].starts = plan.starts[int(for_several.argmin())]


def _sample(
    side: _Side, tally: _Tally, target: np.ndarray, samples: int, seed: int, judge: Judge,
    valid: _Valid,
) -> None:  # fmt: skip
    q = side.solver.sample(target[None], samples, seed=seed)
    position, angle = judge.errors(q[0], target)
    tally.position.append(float(position.mean()))
    tally.angle.append(float(angle.mean()))
    tally.after_steps.append(float(valid(_stepped(side.solver.robot, q, target), target).mean()))


def _first(
    side: _Side, tally: _Tally, target: np.ndarray, limit: float, seed: int, valid: _Valid
) -> None:
    found, seconds, busy = _solve(side, target, 1, tally.starts_for_one, limit, seed)
    tally.solved.append(seconds <= limit and bool(valid(found, target).any()))
    tally.first.append(seconds)
    tally.first_busy.append(busy)
    tally.solved_busy.append(busy <= limit and bool(valid(found, target).any()))


def _several(
    side: _Side, tally: _Tally, target: np.ndarray, solutions: int, seed: int, valid: _Valid
) -> None:
    found, seconds, busy = _solve(side, target, solutions, tally.starts, _LONGEST, seed)
    tally.short += len(different(found[valid(found, target)])) < solutions
    tally.seconds.append(seconds)
    tally.busy.append(busy)


def _stepped(robot: Robot, q: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Samples (1, N, J) after `STEPS` damped least-squares steps in float64, (N, J)."""
    q = np.clip(np.array(q, dtype=np.float64), robot.lower, robot.upper)
    todo = np.arange(q.shape[1])
    finer = 1e-3 * TOLERANCE
    iterate(robot, q, target[None], todo, STEPS, finer, finer, StepSettings())
    return q[0]


def _solve(
    side: _Side, target: np.ndarray, count: int, starts: int, limit: float, seed: int
) -> tuple[np.ndarray, float, float]:
    """The solutions that `solve` claims for one target, its seconds, those of the processor."""
    started, busy_started = time.perf_counter(), time.process_time()
    result = side.solver.solve(
        target[None], num_samples=starts, max_solutions=count, seed=seed, timeout=limit,
        position_tolerance=TOLERANCE, orientation_tolerance=TOLERANCE,
        min_separation=MIN_SEPARATION, avoid_self_collision=True, recombining=side.recombining,
    )  # fmt: skip
    seconds, busy = time.perf_counter() - started, time.process_time() - busy_started
    return result.joint_positions[0][result.valid[0]], seconds, busy


def _summary(robot: Robot, tallies: dict[str, _Tally], limit: float, plan: _Plan) -> list[Measure]:
    coupled, prefix = is_coupled(robot), f"{robot.name}, robot: "
    measures = [
        Measure(prefix + "joints", float(robot.num_joints)),
        Measure(prefix + "tips", float(robot.num_tips)),
    ]
    if "meanflow" in tallies:
        size = (CHECKPOINT_FOLDER / f"{robot.name}.safetensors").stat().st_size
        measures.append(Measure(prefix + "checkpoint", 1e-6 * size, "MB"))
    for name, tally in tallies.items():
        learned, prefix = name == "meanflow", f"{robot.name}, {name}: "
        if name != "restarts":
            wanted = (0.9 if robot.num_tips > 2 else 0.99) if learned else None
            measures += [
                *_of_samples(tally, prefix, held_to_bars=learned and coupled),
                *_of_first(tally, prefix, limit, wanted),
            ]
        measures += _of_several(tally, prefix, plan.solutions)
    if "meanflow" in tallies:
        least = 1 / (plan.poses * plan.samples)
        measures += _ratios(tallies, f"{robot.name}, ratio: ", plan.solutions, coupled, least)
    return measures


def _of_samples(tally: _Tally, prefix: str, held_to_bars: bool) -> list[Measure]:
    position = 1e3 * float(np.mean(tally.position))
    angle = float(np.degrees(np.mean(tally.angle)))
    millimetres, degrees = (30.0, 8.0) if held_to_bars else (None, None)
    return [
        Measure(prefix + "raw position error", position, "mm", at_most=millimetres),
        Measure(prefix + "raw rotation error", angle, "deg", at_most=degrees),
        Measure(prefix + f"valid after {STEPS} steps", float(np.mean(tally.after_steps))),
    ]


def _of_first(tally: _Tally, prefix: str, limit: float, wanted: float | None) -> list[Measure]:
    solved, milliseconds = float(np.mean(tally.solved)), 1e3 * np.array(tally.first)
    busy = 1e3 * float(np.median(tally.first_busy))
    return [
        Measure(prefix + "starts for the first solution", float(tally.starts_for_one)),
        Measure(prefix + f"solved in {1e3 * limit:g} ms", solved, at_least=wanted),
        Measure(prefix + "first solution, median time", float(np.median(milliseconds)), "ms"),
        Measure(prefix + "first solution, 99 % time", float(np.quantile(milliseconds, 0.99)), "ms"),
        Measure(prefix + "first solution, median processor time", busy, "ms"),
        Measure(
            prefix + f"within {1e3 * limit:g} ms of processor time",
            float(np.mean(tally.solved_busy)),
        ),
    ]


def _of_several(tally: _Tally, prefix: str, solutions: int) -> list[Measure]:
    milliseconds, what = 1e3 * np.array(tally.seconds), f"{prefix}{solutions} solutions, "
    return [
        Measure(prefix + f"starts for {solutions} solutions", float(tally.starts)),
        Measure(what + "median time", float(np.median(milliseconds)), "ms"),
        Measure(what + "mean time", float(np.mean(milliseconds)), "ms"),
        Measure(what + "95 % time", float(np.quantile(milliseconds, 0.95)), "ms"),
        Measure(what + "median processor time", 1e3 * float(np.median(tally.busy)), "ms"),
        Measure(prefix + f"fewer than {solutions}", float(tally.short), "poses"),
    ]


def _ratios(
    tallies: dict[str, _Tally], prefix: str, solutions: int, coupled: bool, least: float
) -> list[Measure]:
    learned, uniform = tallies["meanflow"], tallies["uniform"]
    # Where no uniform start comes home, the ratio is to one of them all.
    share = float(np.mean(learned.after_steps) / max(np.mean(uniform.after_steps), least))
    measures = [Measure(prefix + f"valid after {STEPS} steps", share, "x", at_least=3.0)]
    for name, what in (("uniform", "uniform starts"), ("restarts", "plain restarts")):
        if name in tallies:
            text = f"{prefix}faster than {what} to {solutions}, "
            other = tallies[name]
            bar = 2.0 if coupled and name == "uniform" else None
            median = float(np.median(other.seconds) / np.median(learned.seconds))
            mean = float(np.mean(other.seconds) / np.mean(learned.seconds))
            busy = float(np.median(other.busy) / np.median(learned.busy))
            measures.append(Measure(text + "median", median, "x", at_least=bar))
            measures.append(Measure(text + "mean", mean, "x"))
            measures.append(Measure(text + "median of processor time", busy, "x"))
    return measures
