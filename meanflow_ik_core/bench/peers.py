# SPDX-License-Identifier: Apache-2.0
"""Other solvers beside ours, on the same poses in one run, judged by Pinocchio.

Each solver has a process of its own, so that none that crashes or hangs ends the run. They take
turns of ten poses, in another order each time, and one solver works at a time. Times are those of
the processor, all threads of the process together: what one core is kept busy for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from ..collision.self_collision import SelfCollision
from ..errors import OptionError
from ..evaluation.closed_form import ClosedForm
from ..evaluation.exactness import match
from ..evaluation.posterior import trace_solutions
from ..progress import stage, tracked
from ..robot.robot import load_robot
from .judge import MIN_SEPARATION, Judge
from .peer_solvers.closed_forms import Eaik
from .peer_solvers.known import named_peers, refuse_missing
from .peer_solvers.ours import OURS, Uniform
from .peer_solvers.peer import BUDGET, COARSE, EXACT, Peer
from .peer_solvers.worker import Worker
from .peers_tables import (
    AGAINST_EXACT,
    BUDGETS_MS,
    COUNTS,
    DIFFERENT,
    DIVERSE,
    DRAWN,
    MOST,
    RANDOM,
    TWO_ARMS,
)  # fmt: skip
from .pose_sets import HARD, NEED_CLOSED_FORM, UNSOLVABLE
from .result import BenchResult, Measure, at_least_one, environment
from .targets import reachable_configurations
from .tasks import Outcome, Task, ask_in_turn, near_task, nearest_task, nothing, right

TOLERANCES = (EXACT, COARSE)
QUICK = {"poses": 40, "hard_poses": 10, "many_poses": 4, "arms_poses": 8}
_ARMS = "dual_panda"
_AT_ONCE = 10  # poses of a turn
_STREAM = 0x57A7  # any number
_TIMES_TRACIK = 60.0  # faster to 100 different solutions


def run(
    *,
    peers: str = "all",
    poses: int = 200,
    hard_poses: int = 50,
    many_poses: int = 20,
    arms_poses: int = 40,
    patience: float = 20.0,
    seed: int = 0,
) -> BenchResult:
    """Shares solved and times: easy and hard poses, many solutions, two arms.

    An answer is right where Pinocchio finds all that it claims within the tolerance and the
    limits, and it is as many different ones as were asked for; of a pose without a solution no
    answer is right. What a solver claims and the judge denies is wrong.

    Args:
        peers: names with commas of those that are compared with, "none", or "all" that are
            installed.
        poses: random ones of the Panda, of configurations free of self-collision.
        hard_poses: of each kind: near limits, singular, at the edge of the reach, beyond it, and
            turned as no configuration is.
        many_poses: random ones, for several solutions and the exact answer.
        arms_poses: random ones of two Pandas.
        patience: s, after which a solver that gives no answer is ended. One that does so, or
            crashes, three times is asked no more.
        seed: of poses and starts.
    """
    at_least_one(
        poses=poses, hard_poses=hard_poses, many_poses=many_poses, arms_poses=arms_poses
    )  # fmt: skip
    if not 0 < patience < float("inf"):
        raise OptionError(f"patience is {patience!r}; it is seconds, more than 0")
    kinds = [*OURS, *named_peers(peers).values()]
    missing: list[str] = []
    faults: dict[str, str] = {}
    measures: list[Measure] = []
    _compile(seed)
    with _workers(kinds, "panda", seed, patience, missing, faults) as asked:
        refuse_missing(peers, missing)
        panda = _Panda(asked, seed)
        if panda.closed_form is None and Eaik.install not in missing:
            missing.append(Eaik.install)
        measures += [
            *panda.easy(poses), *panda.hard(hard_poses), *panda.many(min(many_poses, poses)),
        ]  # fmt: skip
    kinds = [kind for kind in kinds if kind.any_robot]
    with _workers(kinds, _ARMS, seed, patience, [], faults) as asked:
        measures += _two_arms(asked, arms_poses, seed)
    options = {
        "peers": peers, "poses": poses, "hard_poses": hard_poses, "many_poses": many_poses,
        "arms_poses": arms_poses, "patience": patience, "seed": seed, "budget": BUDGET,
        "min_separation": MIN_SEPARATION, "missing": ", ".join(missing), "faults": faults,
    }  # fmt: skip
    return BenchResult("peers", tuple(measures), options, environment())


def _compile(seed: int) -> None:
    """Fill the cache of kernels, which takes longer than a process is waited for."""
    robot = load_robot("panda")
    for kind in OURS:
        stage(f"prepare {kind.name}")
        kind(robot, Judge(robot), seed).warm_up()


@contextmanager
def _workers(
    kinds: Sequence[type[Peer]], robot: str, seed: int, patience: float, missing: list[str],
    faults: dict[str, str],
) -> Iterator[list[Worker]]:  # fmt: skip
    """A process for each that is installed; adds the commands that bring the others, and what goes
    wrong."""
    workers: list[Worker] = []
    try:
        for kind in kinds:
            stage(f"start {kind.name}")
            try:
                workers.append(Worker(kind, robot, seed, patience))
            except ImportError:
                missing.append(kind.install)
        yield workers
    finally:
        for worker in workers:
            worker.close()
            if worker.faults:
                texts = [f"{what} ({times} times)" for what, times in worker.faults.items()]
                faults[f"{worker.name}, {robot}"] = "; ".join(texts)


class _Panda:
    """The tasks of one arm; those that need the closed form are left out where it is missing."""

    def __init__(self, asked: list[Worker], seed: int):
        self._asked, self._seed = asked, seed
        self._robot = load_robot("panda")
        self._judge, self._random = Judge(self._robot), _random(seed)
        try:
            self.closed_form = ClosedForm(self._robot)
        except OptionError:
            self.closed_form = None
        self._known = np.empty((0, self._robot.num_joints))  # solutions of the random poses

    def easy(self, poses: int) -> list[Measure]:
        """One solution of random poses: from anywhere, from near it, and the nearest."""
        robot = self._robot
        self._known = reachable_configurations(robot, poses, self._seed, SelfCollision(robot))
        targets, starts = robot.forward(self._known), self._starts(poses)
        measures = []
        for task in self._to_tolerances(RANDOM, targets, starts):
            outcomes = self._ask(task)
            measures += _of_one(task, outcomes)
            if task.tolerance is EXACT:
                measures += _within_budgets(task, outcomes)
        for task in (
            near_task(robot, self._judge, self._known, self._random),
            *nearest_task(robot, self._judge, targets, starts),
        ):
            measures += _of_one(task, self._ask(task))
        return measures

    def hard(self, poses: int) -> list[Measure]:
        """One solution of poses that are hard, and none of those that have none."""
        measures = []
        for name, make in (HARD | UNSOLVABLE).items():
            if name not in NEED_CLOSED_FORM or self.closed_form is not None:
                stage(f"poses: {name}")
                targets = make(self._robot, poses, self._seed)
                for task in self._to_tolerances(name, targets, self._starts(poses)):
                    measures += _of_one(task, self._ask(task))
        return measures

    def many(self, poses: int) -> list[Measure]:
        """Different solutions of the first random poses, and how well they stand for all."""
        known = self._known[:poses]
        targets, starts = self._robot.forward(known), self._starts(poses)
        measures, found = [], {}
        for count in COUNTS:
            solved = right(self._judge, wanted=count)
            task = Task(DIFFERENT.format(count), "several", targets, starts, solved, (count,))
            outcomes = self._ask(task)
            measures += _of_one(task, outcomes)
            found = {name: outcome.found for name, outcome in outcomes.items()}
            if count == MOST:
                measures += _against_tracik(outcomes)
        task = Task(DIVERSE, "diverse", targets, starts, right(self._judge, wanted=MOST), (MOST,))
        outcomes = self._ask(task)
        measures += _of_one(task, outcomes)
        found |= {f"{name}, diverse": outcome.found for name, outcome in outcomes.items()}
        if self.closed_form is None:
            return measures
        curves = [
            trace_solutions(self.closed_form, target[0], q[6])
            for target, q in tracked(list(zip(targets, known, strict=True)), "exact answers")
        ]
        reference, drawn = (
            [curve.sample(10 * MOST, self._random)[0][::step] for curve in curves]
            for step in (1, 10)
        )
        for name, draws in {DRAWN: drawn, **found}.items():
            what = f"{AGAINST_EXACT}: {name}, "
            matched = match(curves, reference, draws)
            for metric in ("coverage", "mmd_squared", "branches_hit", "samples"):
                measures.append(Measure(what + metric, matched[metric]))
        return measures

    def _starts(self, poses: int) -> np.ndarray:
        robot = self._robot
        return self._random.uniform(robot.lower, robot.upper, (poses, robot.num_joints))

    def _to_tolerances(self, name: str, targets: np.ndarray, starts: np.ndarray) -> Iterator[Task]:
        return _to_tolerances(self._judge, name, targets, starts)

    def _ask(self, task: Task) -> dict[str, Outcome]:
        return ask_in_turn(task, self._asked, self._random, _AT_ONCE)


def _random(seed: int) -> np.random.Generator:
    """Of starts: other numbers than those of poses and peers of the same seed."""
    return np.random.default_rng((seed, _STREAM))


def _two_arms(asked: list[Worker], poses: int, seed: int) -> list[Measure]:
    """One solution of both tips at once."""
    robot, random = load_robot(_ARMS), _random(seed)
    known = reachable_configurations(robot, poses, seed, SelfCollision(robot))
    targets, starts = robot.forward(known), random.uniform(robot.lower, robot.upper, known.shape)
    measures = []
    for task in _to_tolerances(Judge(robot), TWO_ARMS, targets, starts):
        measures += _of_one(task, ask_in_turn(task, asked, random, _AT_ONCE))
    return measures


def _to_tolerances(
    judge: Judge, name: str, targets: np.ndarray, starts: np.ndarray
) -> Iterator[Task]:
    """The task of one solution, or of none where the poses have none, to each tolerance."""
    for tolerance in [EXACT] if name in UNSOLVABLE else TOLERANCES:
        solved = nothing if name in UNSOLVABLE else right(judge, tolerance)
        task = f"{name}, {tolerance}"
        yield Task(task, "one", targets, starts, solved, tolerance=tolerance)  # fmt: skip


def _of_one(task: Task, outcomes: dict[str, Outcome]) -> list[Measure]:
    """How many are solved, and the times; what ours claims is right."""
    measures = []
    for name, outcome in outcomes.items():
        what, busy = f"{task.name}: {name}, ", 1e3 * outcome.busy
        ours = name in [kind.name for kind in OURS]
        # Too few solutions are none that are wrong.
        wrong = outcome.wrong if task.method == "one" else None
        measures += [
            Measure(what + "solved", float(outcome.solved.mean())),
            *([] if wrong is None else [
                Measure(what + "wrong", wrong, at_most=0.0 if ours else None)
            ]),
            Measure(what + "median", float(np.median(busy)), "ms"),
            Measure(what + "95 %", float(np.quantile(busy, 0.95)), "ms"),
            Measure(what + "by the clock", 1e3 * float(np.median(outcome.clock)), "ms"),
        ]  # fmt: skip
    return measures


def _within_budgets(task: Task, outcomes: dict[str, Outcome]) -> list[Measure]:
    """Share of the poses that are solved in so much time."""
    return [
        Measure(
            f"{task.name}: {name}, within {budget:g} ms",
            float((outcome.solved * (1e3 * outcome.busy <= budget)).mean()),
        )
        for name, outcome in outcomes.items()
        for budget in BUDGETS_MS
    ]


def _against_tracik(outcomes: dict[str, Outcome]) -> list[Measure]:
    """The ratio of the times, by the clock or of the processor, whichever is less.

    TRAC-IK works in two threads, and waits for them on a busy machine.
    """
    if "TRAC-IK" not in outcomes:
        return []
    ours, theirs = outcomes[Uniform.name], outcomes["TRAC-IK"]
    ratio = min(
        float(np.median(getattr(theirs, what)) / np.median(getattr(ours, what)))
        for what in ("busy", "clock")
    )
    what = f"{DIFFERENT.format(MOST)}: times faster than TRAC-IK"
    return [Measure(what, ratio, "x", at_least=_TIMES_TRACIK)]
