# SPDX-License-Identifier: Apache-2.0
"""What the tasks of every day take, uniform starts and the network in turn, judged by Pinocchio.

Times are those of the processor, all threads of the process together, in milliseconds: what one
core is kept busy for. Other solvers are asked some of it by the suite `peers`.
"""

from __future__ import annotations

import numpy as np

from ..collision.self_collision import SelfCollision
from ..network.checkpoint import available_checkpoints
from ..robot.robot import Robot, load_robot
from .judge import MIN_SEPARATION, Judge
from .peer_solvers.ours import Network, Uniform
from .peer_solvers.worker import InProcess
from .result import BenchResult, Measure, at_least_one, environment, torch_threads
from .solve import TOLERANCE
from .targets import reachable_configurations, reachable_targets
from .tasks import NEAR, NEAREST, Task, ask_in_turn, near_task, nearest_task, nothing, right
from .unreachable import poses_beyond_reach

_ONE, _FREE = "one solution", "one solution, free of self-collision"
_BATCH, _BEYOND = "{:,} poses, one each", "beyond reach"
_DIVERSE = "100 diverse of 1,000 starts"
# Milliseconds, of uniform starts and of the network, for the robots that a bar was set for.
_BARS: dict[str, dict[str, tuple[float | None, float | None]]] = {
    "panda": {
        _ONE: (0.1, 0.3),
        NEAR: (0.08, None),
        NEAREST: (0.2, None),
        "32 different": (None, 0.55),
        "100 different": (0.6, 0.9),
        _DIVERSE: (1.0, 2.5),
        _BATCH.format(1000): (15.0, 35.0),
        _BEYOND: (1.2, None),
    },
    "dual_panda": {_ONE: (0.12, None), _FREE: (0.5, 1.0)},
    "tiago_pro": {_ONE: (0.12, None), _FREE: (0.5, 1.0)},
    "g1": {_ONE: (0.4, None), _FREE: (1.0, 1.5)},
}
# The share that is wanted of tasks where it is not all; None: they are not held to a share.
_SHARES = {NEAREST: 0.95, "32 different": None, "100 different": None, _DIVERSE: None}


def run(
    *,
    robots: str = "panda,dual_panda,tiago_pro,g1",
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
    The network takes part where one is shipped.

    Args:
        robots: names with commas.
        poses: random ones, of configurations free of self-collision.
        batches: how many of so many random poses each as ``batch``.
    """
    at_least_one(poses=poses, batches=batches, batch=batch)
    measures: list[Measure] = []
    with torch_threads(1):
        for robot in [load_robot(name.strip()) for name in robots.split(",")]:
            judge = Judge(robot)
            kinds = [Uniform, Network] if robot.name in available_checkpoints() else [Uniform]
            asked = [InProcess(kind(robot, judge, seed)) for kind in kinds]
            for task in _tasks(robot, judge, poses, (batches, batch), seed):
                measures += _measure(robot, task, asked, np.random.default_rng(seed))
    options = {
        "robots": robots, "poses": poses, "batches": batches, "batch": batch, "seed": seed,
        "tolerance": TOLERANCE, "min_separation": MIN_SEPARATION,
    }  # fmt: skip
    return BenchResult("latency", tuple(measures), options, environment())


def _tasks(
    robot: Robot, judge: Judge, poses: int, batches: tuple[int, int], seed: int
) -> list[Task]:
    check, random = SelfCollision(robot), np.random.default_rng(seed)
    known = reachable_configurations(robot, poses, seed, check)
    targets = robot.forward(known)
    starts = random.uniform(robot.lower, robot.upper, known.shape)
    near, is_right = near_task(robot, judge, known, random), right(judge)

    def is_free(q: np.ndarray, target: np.ndarray) -> float:
        return is_right(q, target) * float(not check.in_collision(q).any())

    def all_right(answer: list[np.ndarray], targets: np.ndarray) -> float:
        return float(np.mean([is_right(*pair) for pair in zip(answer, targets, strict=True)]))

    one = Task(_ONE, "one", targets, starts, is_right)
    free_one = Task(_FREE, "free", targets, starts, is_free)
    if robot.num_tips > 1:
        return [one, free_one]
    many = reachable_targets(robot, int(np.prod(batches)), seed + 1).reshape(*batches, 1, 4, 4)
    places = random.uniform(robot.lower, robot.upper, (*batches, robot.num_joints))
    beyond = poses_beyond_reach(robot, poses, seed)[:, None]
    hundred = right(judge, wanted=100)
    return [
        one,
        near,
        *nearest_task(robot, judge, targets, starts),
        *(
            Task(f"{n} different", "several", targets, starts, right(judge, wanted=n), (n,))
            for n in (32, 100)
        ),
        Task(_DIVERSE, "diverse", targets, starts, hundred, (100,)),
        Task(_BATCH.format(batches[1]), "batch", many, places, all_right),
        Task(_BEYOND, "one", beyond, starts, nothing),
        free_one,
    ]


def _measure(
    robot: Robot, task: Task, asked: list[InProcess], random: np.random.Generator
) -> list[Measure]:
    uniform, learned = _BARS.get(robot.name, {}).get(task.name, (None, None))
    bars, share = {"uniform": uniform, "meanflow": learned}, _SHARES.get(task.name, 1.0)
    measures = []
    for name, outcome in ask_in_turn(task, asked, random, where=f"{robot.name}, ").items():
        what, busy = f"{robot.name}, {task.name}: {name}, ", 1e3 * outcome.busy
        measures += [
            Measure(what + "median", float(np.median(busy)), "ms", at_most=bars[name]),
            Measure(what + "95 %", float(np.quantile(busy, 0.95)), "ms"),
            Measure(what + "by the clock", 1e3 * float(np.median(outcome.clock)), "ms"),
            Measure(what + "solved", float(outcome.solved.mean()), at_least=share),
        ]
    return measures
