# SPDX-License-Identifier: Apache-2.0
"""What the tasks of every day take beside other solvers, call by call in turn, judged by Pinocchio.

Times are those of the processor, all threads of the process together, in milliseconds: what one
core is kept busy for. The order is another one for each pose, so that a call finds the caches
full of another solver's data, as it does in a program that does more than solving.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ..errors import OptionError, RobotError
from ..evaluation.closed_form import ClosedForm
from ..progress import tracked
from ..robot.robot import Robot, load_robot
from ..solving.solver import IKSolver, load_solver
from .judge import MIN_SEPARATION, Judge, different
from .peers import Stopwatch, build_peers, is_panda, named_peers
from .result import BenchResult, Measure, at_least_one, environment, torch_threads
from .solve import TOLERANCE
from .targets import reachable_configurations, reachable_targets
from .unreachable import poses_beyond_reach

_NOISE = 0.02  # rad or m, standard deviation of a seed near to a solution, per joint
_AS_NEAR = 1.02  # times the distance of the nearest solution
_ON_ITS_BRANCH = 2.0  # times the distance of the solution that a seed was made from
_STARTS_PER_SOLUTION = {"uniform": 4, "meanflow": 2}  # where several are asked for
_WARM_UPS = 3  # targets, before anything is timed
ONE, NEAR, FREE = "one solution", "seeded near it", "one solution, free of self-collision"
NEAREST, BATCH = "nearest to a random seed", "{:,} poses, one each"
DIVERSE, BEYOND = "100 diverse of 1,000 starts", "beyond reach"
# Milliseconds, of uniform starts and of the network, for the robots that a bar was set for.
_BARS: dict[str, dict[str, tuple[float | None, float | None]]] = {
    "panda": {
        ONE: (0.1, 0.3),
        NEAR: (0.08, None),
        NEAREST: (0.2, None),
        "32 different": (None, 0.55),
        "100 different": (0.6, 0.9),
        DIVERSE: (1.0, 2.5),
        BATCH.format(1000): (15.0, 35.0),
        BEYOND: (1.2, None),
    },
    "dual_panda": {ONE: (0.12, None), FREE: (0.5, 1.0)},
    "tiago_pro": {ONE: (0.12, None), FREE: (0.5, 1.0)},
    "g1": {ONE: (0.4, None), FREE: (1.0, 1.5)},
}

_Solved = Callable[[Any, np.ndarray], float]  # answer, target -> share


class _Task(NamedTuple):
    """What is asked of all that have its method."""

    name: str
    method: str
    targets: np.ndarray  # (P, T, 4, 4), or (P, B, T, 4, 4) of batches
    starts: np.ndarray  # (P, J) rad or m, or (P, B, J)
    solved: _Solved
    arguments: tuple[Any, ...] = ()
    within: np.ndarray | None = None  # (P,) rad or m, how far from the start an answer may be
    share_wanted: float | None = 1.0  # of ours


class _Ours:
    """Our solver in the terms of `Peer`."""

    def __init__(self, solver: IKSolver, seed: int):
        self.name = solver.sampler
        self._solver, self._seed = solver, seed

    def one(self, watch: Stopwatch, target: np.ndarray, start: np.ndarray) -> np.ndarray:
        return self._solve(watch, target[None], max_solutions=1)[0]

    def near(self, watch: Stopwatch, target: np.ndarray, seed: np.ndarray) -> np.ndarray:
        return self._solve(watch, target[None], max_solutions=1, seed_state=seed)[0]

    nearest = near

    def several(
        self, watch: Stopwatch, target: np.ndarray, start: np.ndarray, wanted: int
    ) -> np.ndarray:
        starts = wanted * _STARTS_PER_SOLUTION[self.name]
        return self._solve(watch, target[None], num_samples=starts, max_solutions=wanted)[0]

    def diverse(self, watch: Stopwatch, target: np.ndarray, start: np.ndarray) -> np.ndarray:
        return self._solve(
            watch, target[None], num_samples=1000, max_solutions=100, select="diverse"
        )[0]

    def free(self, watch: Stopwatch, target: np.ndarray, start: np.ndarray) -> np.ndarray:
        return self._solve(watch, target[None], max_solutions=1, avoid_self_collision=True)[0]

    def batch(self, watch: Stopwatch, targets: np.ndarray, starts: np.ndarray) -> list[np.ndarray]:
        return self._solve(watch, targets, max_solutions=1)

    def _solve(self, watch: Stopwatch, targets: np.ndarray, **options: Any) -> list[np.ndarray]:
        """The solutions (S, J) of each of the targets."""
        self._seed += 1
        result = watch(
            self._solver.solve, targets, seed=self._seed, position_tolerance=TOLERANCE,
            orientation_tolerance=TOLERANCE, min_separation=MIN_SEPARATION, **options,
        )  # fmt: skip
        pairs = zip(result.joint_positions, result.valid, strict=True)
        return [q[valid] for q, valid in pairs]


def run(
    *,
    robots: str = "panda,dual_panda,tiago_pro,g1",
    peers: str = "all",
    poses: int = 100,
    batches: int = 5,
    batch: int = 1000,
    seed: int = 0,
) -> BenchResult:
    """Median and 95 % of the time of each task, and the share of poses that are solved.

    An answer is right where Pinocchio finds all that it claims within 1e-5 m, 1e-5 rad and the
    limits, and it is as many different ones as were asked for. Near a seed it is at most twice as
    far as the solution that the seed was made from; nearest to one it is within 2 % of the nearest
    that the closed form knows. A robot of one arm is asked everything, others for one solution.
    The network takes part where one is shipped, other solvers where the robot is the Panda.

    Args:
        robots: names with commas.
        peers: names with commas of those that are compared with, "none", or "all" that are
            installed.
        poses: random ones, of configurations free of self-collision.
        batches: how many of so many random poses each as ``batch``.
    """
    at_least_one(poses=poses, batches=batches, batch=batch)
    kinds = named_peers(peers)
    measures: list[Measure] = []
    missing: list[str] = []
    with torch_threads(1):
        for robot in [load_robot(name.strip()) for name in robots.split(",")]:
            uniform = load_solver(robot, sampler="uniform")
            learned = load_solver(robot)
            ours = [uniform, learned] if learned.sampler != uniform.sampler else [uniform]
            judge = Judge(robot)
            taking: list[Any] = [_Ours(solver, seed) for solver in ours]
            if is_panda(robot):
                built, missing = build_peers(kinds.values(), robot, judge, seed)
                taking += built
                if missing and peers != "all":
                    raise OptionError(f"not everything of peers={peers} is installed: {missing}")
            tasks = _tasks(uniform, judge, poses, (batches, batch), seed)
            for task in tasks:
                measures += _measure(robot, task, taking, np.random.default_rng(seed))
    measures += _against_tracik(measures)
    options = {
        "robots": robots, "peers": peers, "missing": ", ".join(missing), "poses": poses,
        "batches": batches, "batch": batch, "seed": seed, "tolerance": TOLERANCE,
        "min_separation": MIN_SEPARATION,
    }  # fmt: skip
    return BenchResult("latency", tuple(measures), options, environment())


def _tasks(
    solver: IKSolver, judge: Judge, poses: int, batches: tuple[int, int], seed: int
) -> list[_Task]:
    robot, check = solver.robot, solver.self_collision
    random = np.random.default_rng(seed)
    known = reachable_configurations(robot, poses, seed, check)
    targets = robot.forward(known)
    starts = random.uniform(robot.lower, robot.upper, known.shape)
    near = np.clip(known + random.normal(0, _NOISE, known.shape), robot.lower, robot.upper)

    def right(q: np.ndarray, target: np.ndarray, wanted: int = 1) -> float:
        accepted = judge.accepts(q, target, TOLERANCE, TOLERANCE)
        return float(accepted.all() and len(different(q)) >= wanted)

    def free(q: np.ndarray, target: np.ndarray) -> float:
        return right(q, target) * float(not check.in_collision(q).any())

    one = _Task(ONE, "one", targets, starts, right)
    free_one = _Task(FREE, "free", targets, starts, free)
    if robot.num_tips > 1:
        return [one, free_one]

    def all_right(answer: list[np.ndarray], targets: np.ndarray) -> float:
        return float(np.mean([right(*pair) for pair in zip(answer, targets, strict=True)]))

    def nothing(q: np.ndarray, target: np.ndarray) -> float:
        return float(len(q) == 0)

    many = reachable_targets(robot, int(np.prod(batches)), seed + 1)
    places = random.uniform(robot.lower, robot.upper, (*batches, robot.num_joints))
    beyond = poses_beyond_reach(robot, poses, seed)[:, None]
    within = _ON_ITS_BRANCH * np.linalg.norm(known - near, axis=-1)
    several = [
        _Task(
            f"{n} different",
            "several",
            targets,
            starts,
            partial(right, wanted=n),
            (n,),
            share_wanted=None,
        )
        for n in (32, 100)
    ]
    return [
        one,
        _Task(NEAR, "near", targets, near, right, within=within),
        *_nearest(robot, targets, starts, right),
        *several,
        _Task(DIVERSE, "diverse", targets, starts, partial(right, wanted=100), share_wanted=None),
        _Task(
            BATCH.format(batches[1]), "batch", many.reshape(*batches, 1, 4, 4), places, all_right
        ),
        _Task(BEYOND, "one", beyond, starts, nothing),
        free_one,
    ]


def _nearest(robot: Robot, targets: np.ndarray, seeds: np.ndarray, right: _Solved) -> list[_Task]:
    """The task of the nearest solution, where the closed form knows it."""
    try:
        closed_form = ClosedForm(robot)
    except (OptionError, RobotError):
        return []
    nearest = [
        closed_form.nearest_distance(target[0], seed)
        for target, seed in zip(targets, seeds, strict=True)
    ]
    within = _AS_NEAR * np.array(nearest)
    return [_Task(NEAREST, "nearest", targets, seeds, right, within=within, share_wanted=0.95)]


def _against_tracik(measures: list[Measure]) -> list[Measure]:
    """The ratio of the times, by the clock or of the processor, whichever is less.

    TRAC-IK works in two threads, and waits for them on a busy machine.
    """
    task = "panda, 100 different: "
    value = {measure.what: measure.value for measure in measures}
    if f"{task}TRAC-IK, median" not in value:
        return []
    ratio = min(
        value[f"{task}TRAC-IK, {what}"] / value[f"{task}uniform, {what}"]
        for what in ("median", "by the clock")
    )
    return [Measure(task + "times faster than TRAC-IK", ratio, "x", at_least=60)]


def _measure(
    robot: Robot, task: _Task, taking: list[Any], random: np.random.Generator
) -> list[Measure]:
    """Ask those that have the task's method, in another order for each target."""
    taking = [one for one in taking if hasattr(one, task.method)]
    busy, clock, solved = np.zeros((3, len(taking), len(task.targets)))

    def ask(place: int, row: int) -> Any:
        watch = Stopwatch()
        method = getattr(taking[place], task.method)
        answer = method(watch, task.targets[row], task.starts[row], *task.arguments)
        busy[place, row], clock[place, row] = watch.busy, watch.clock
        return answer

    for row in range(min(_WARM_UPS, len(task.targets))):
        for place in range(len(taking)):
            ask(place, row)
    for row in tracked(range(len(task.targets)), f"{robot.name}, {task.name}, poses"):
        answers = {place: ask(place, row) for place in random.permutation(len(taking))}
        for place, answer in answers.items():
            solved[place, row] = task.solved(answer, task.targets[row])
            if task.within is not None:
                distance = np.linalg.norm(answer - task.starts[row], axis=-1)
                solved[place, row] *= distance.min(initial=np.inf) <= task.within[row]
    uniform, learned = _BARS.get(robot.name, {}).get(task.name, (None, None))
    bars = {"uniform": uniform, "meanflow": learned}
    measures = []
    for place, one in enumerate(taking):
        what = f"{robot.name}, {task.name}: {one.name}, "
        bar, wanted = bars.get(one.name), task.share_wanted if one.name in bars else None
        measures += [
            Measure(what + "median", 1e3 * float(np.median(busy[place])), "ms", at_most=bar),
            Measure(what + "95 %", 1e3 * float(np.quantile(busy[place], 0.95)), "ms"),
            Measure(what + "by the clock", 1e3 * float(np.median(clock[place])), "ms"),
            Measure(what + "solved", float(solved[place].mean()), at_least=wanted),
        ]
    return measures
