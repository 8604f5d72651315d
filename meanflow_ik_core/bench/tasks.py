# SPDX-License-Identifier: Apache-2.0
"""What is asked of several solvers in turn, and what became of it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..errors import OptionError, RobotError
from ..evaluation.closed_form import ClosedForm
from ..progress import tracked
from ..robot.robot import Robot
from .judge import Judge, different
from .peer_solvers.peer import EXACT, Tolerance
from .peer_solvers.worker import Answer, InProcess, Worker

NEAR, NEAREST = "seeded near it", "nearest to a random seed"
_WARM_UPS = 3  # targets, before anything is timed
_NOISE = 0.02  # rad or m, standard deviation of a seed near to a solution, per joint
_AS_NEAR = 1.02  # times the distance of the nearest solution
_ON_ITS_BRANCH = 2.0  # times the distance of the solution that a seed was made from

Solved = Callable[[Any, np.ndarray], float]  # answer, target -> share


class Task(NamedTuple):
    """What is asked of all that have its method."""

    name: str
    method: str
    targets: np.ndarray  # (P, T, 4, 4), or (P, B, T, 4, 4) of batches
    starts: np.ndarray  # (P, J) rad or m, or (P, B, J)
    solved: Solved
    arguments: tuple[Any, ...] = ()
    within: np.ndarray | None = None  # (P,) rad or m, how far from the start an answer may be
    tolerance: Tolerance = EXACT


class Outcome(NamedTuple):
    """What one solver made of a task."""

    found: list[Any]  # P answers
    busy: np.ndarray  # (P,) s of the processor
    clock: np.ndarray  # (P,) s
    solved: np.ndarray  # (P,) share

    @property
    def wrong(self) -> float:
        """Share of the targets for which it claims what the judge denies."""
        claimed = np.array([len(answer) > 0 for answer in self.found])
        return float((claimed & (self.solved < 1)).mean())


def right(judge: Judge, tolerance: Tolerance = EXACT, wanted: int = 1) -> Solved:
    """Whether the judge accepts all solutions (S, J), and they are so many different ones."""

    def solved(q: np.ndarray, target: np.ndarray) -> float:
        return float(judge.accepts(q, target, *tolerance).all() and len(different(q)) >= wanted)

    return solved


def nothing(q: np.ndarray, target: np.ndarray) -> float:
    """Whether no solution is claimed."""
    return float(len(q) == 0)


def near_task(robot: Robot, judge: Judge, known: np.ndarray, random: np.random.Generator) -> Task:
    """A solution near to a seed, which is near to a known one (J,) of each target."""
    noise = random.normal(0, _NOISE, known.shape)
    near = np.clip(known + noise, robot.lower, robot.upper)
    within = _ON_ITS_BRANCH * np.linalg.norm(known - near, axis=-1)
    return Task(NEAR, "near", robot.forward(known), near, right(judge), within=within)


def nearest_task(robot: Robot, judge: Judge, targets: np.ndarray, seeds: np.ndarray) -> list[Task]:
    """The task of the nearest solution, where the closed form knows it."""
    try:
        closed_form = ClosedForm(robot)
    except (OptionError, RobotError):
        return []
    pairs = zip(targets, seeds, strict=True)
    nearest = [closed_form.nearest_distance(target[0], seed) for target, seed in pairs]
    within = _AS_NEAR * np.array(nearest)
    return [Task(NEAREST, "nearest", targets, seeds, right(judge), within=within)]


def ask_in_turn(
    task: Task,
    asked: Sequence[InProcess | Worker],
    random: np.random.Generator,
    at_once: int = 1,
    where: str = "",
) -> dict[str, Outcome]:
    """Ask those that have the task's method, in another order for each turn.

    Args:
        task: what is asked.
        asked: who is asked; its name is that of its outcome.
        random: decides the order.
        at_once: targets of a turn. With one, a call finds the caches full of another solver's
            data, as in a program that does more than solving. With more, the first one is asked
            twice and counts the second time.
        where: what progress is said of.
    """
    asked, count = [one for one in asked if one.has(task.method)], len(task.targets)
    busy, clock, solved = np.zeros((3, len(asked), count))
    found = [[None] * count for _ in asked]

    def ask(place: int, rows: Sequence[int]) -> list[Answer]:
        questions = [(task.targets[row], task.starts[row], *task.arguments) for row in rows]
        return asked[place].ask(task.method, task.tolerance, questions)

    if at_once == 1:
        for place in range(len(asked)):
            ask(place, range(min(_WARM_UPS, count)))
    for first in tracked(range(0, count, at_once), f"{where}{task.name}, turns"):
        rows = range(first, min(first + at_once, count))
        asked_twice = [first] if at_once > 1 else []
        for place in random.permutation(len(asked)):
            answers = ask(place, [*asked_twice, *rows])[len(asked_twice) :]
            for row, answer in zip(rows, answers, strict=True):
                found[place][row], busy[place, row], clock[place, row] = answer
        for place, row in itertools.product(range(len(asked)), rows):
            solved[place, row] = _solved(task, row, found[place][row])
    nothing = np.empty((0, task.starts.shape[-1]))
    return {
        one.name: Outcome(
            [nothing if answer is None else answer for answer in found[place]],
            busy[place], clock[place], solved[place],
        )
        for place, one in enumerate(asked)
    }  # fmt: skip


def _solved(task: Task, row: int, answer: Any) -> float:
    """The share of a target that an answer solves."""
    if answer is None:
        return 0.0
    share = task.solved(answer, task.targets[row])
    if task.within is not None:
        distance = np.linalg.norm(answer - task.starts[row], axis=-1)
        share *= distance.min(initial=np.inf) <= task.within[row]
    return share
