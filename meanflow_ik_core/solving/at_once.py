# SPDX-License-Identifier: Apache-2.0
"""A search in one compiled call, where nothing else is to be asked while it runs.

Starts of a learned sampler are drawn before the call; where they do not suffice, a second call has
more of them and takes the first ones again.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..kernels.search import NOTHING, Plan, Weights, search
from ..robot.robot import Robot
from .drawing import Drawing
from .goal import Goal, Preferences, Starts
from .refinement import Refinement
from .result import IKResult, names_of_origins
from .robot_arrays import Packed, packed
from .why import Evidence

if TYPE_CHECKING:
    from ..cuda.search import DeviceSearch

_STARTS_PER_DRAW = 4096
NEAR = 0.1  # rad; a seed's own solution that is so near to it is taken for the nearest of all


class Rows(NamedTuple):
    """The rows of a result, and how many starts each problem took; see `kernels.search.search`."""

    q: np.ndarray
    position_error: np.ndarray
    orientation_error: np.ndarray
    valid: np.ndarray
    distance: np.ndarray
    cost: np.ndarray
    start: np.ndarray
    used: np.ndarray


@dataclass(frozen=True)
class SearchAtOnce:
    """The compiled search of a robot, for some starts and preferences."""

    robot: Robot
    starts: Starts
    refinement: Refinement
    preferences: Preferences
    drawing: Drawing
    starts_per_pass: int
    num_threads: int = 1
    device_search: DeviceSearch | None = None  # None: on the CPU

    def of_one_round(self) -> SearchAtOnce:
        return replace(self, starts=self.starts.first_alone)

    def result(
        self, goal: Goal, sampler: str, began: float, clock: Callable[[], float]
    ) -> IKResult:
        """Search from the starts of a sampler, in a call that began at a time of a clock."""
        ready = clock()
        rows, own = self.rows(goal, sampler)
        searched = clock()
        drawn = {"seed": len(goal)} if goal.seeded else {}
        drawn[sampler] = int(rows.used.sum())
        source = np.minimum(rows.start, 0) - NOTHING
        if own is not None:
            source += rows.start >= own[:, None]
            drawn[sampler] = int(np.minimum(rows.used, own).sum())
            if others := int(np.maximum(rows.used - own, 0).sum()):
                drawn["uniform"] = others
        return IKResult(
            joint_positions=goal.on_turn_of_seed(rows.q, self.robot.continuous),
            position_error=rows.position_error,
            orientation_error=rows.orientation_error,
            valid=rows.valid,
            distance=rows.distance,
            cost=rows.cost,
            origin=names_of_origins(sampler)[source],
            starts=drawn,
            timing={
                "sample": ready - began,
                "refine": searched - ready,
                "select": max(clock() - searched, 1e-9),
            },
            _evidence=Evidence(
                self.robot, goal, rows.used, np.zeros(len(goal), bool), self.starts,
                self.preferences.min_separation,
            ),
        )  # fmt: skip

    def rows(self, goal: Goal, sampler: str) -> tuple[Rows, np.ndarray | None]:
        """The rows of a goal, and how many of the starts of each problem were the sampler's (B,).

        None: all.
        """
        rounds = self.starts.rounds
        if self.device_search is not None:
            return self._on_device(self.device_search, goal, sampler, rounds)
        if self.drawing.is_uniform(sampler):
            return self._search(goal, self._none(goal), rounds), None
        own = np.zeros(len(goal), np.int64)
        if not self.starts.sliding:
            rows = self._with_own(goal, sampler, rounds, own)
            return rows, own
        rows = self._search(goal, self._none(goal), 0)
        far = np.flatnonzero(~(rows.valid[:, 0] & (rows.distance[:, 0] <= NEAR)))
        if len(far):
            own_far = own[far]
            _replace(rows, far, self._with_own(goal.of(far), sampler, rounds, own_far))
            own[far] = own_far
        return rows, own

    def _on_device(
        self, search: DeviceSearch, goal: Goal, sampler: str, rounds: int
    ) -> tuple[Rows, np.ndarray | None]:
        is_uniform = self.drawing.is_uniform(sampler)

        def draw(problems: Any, which: np.ndarray, first: int, count: int) -> Any:
            there = problems.target, problems.keys
            return self.drawing.samples(sampler, goal.of(which), first, count, there)

        rows, used, own = search.search(
            goal.T_base_tip, goal.reference, *self._asked(goal, rounds), self.drawing.keys(goal),
            None if is_uniform else draw,
        )  # fmt: skip
        return Rows(*rows, used), None if is_uniform else own

    def _with_own(self, goal: Goal, sampler: str, rounds: int, own: np.ndarray) -> Rows:
        """Search from the sampler's own starts first; writes how many these are to own (B,)."""
        starts, wanted = self.starts, self.preferences.max_solutions
        given = self._drawn(goal, sampler, 0, starts.first)
        own[:] = starts.first
        rows = self._search(goal, given, 1)
        num_valid = rows.valid.sum(1)
        if rounds == 1 or (num_valid == wanted).all():
            return rows
        # More of its own up to `num_samples`, or once more where it found something.
        below = starts.first < starts.num_samples
        for needy in (num_valid < wanted) & (num_valid > 0), (num_valid == 0):
            problems = np.flatnonzero(needy)
            if not len(problems):
                continue
            some, parts = goal.of(problems), [given[problems]]
            used = starts.first
            while used < starts.num_samples:
                size = starts.next_round(used)
                parts.append(self._drawn(some, sampler, used, size))
                used += size
            if not below and num_valid[problems[0]] > 0:
                size = starts.next_round(used)
                parts.append(self._drawn(some, sampler, used, size))
            own[problems] = sum(part.shape[1] for part in parts)
            _replace(rows, problems, self._search(some, np.concatenate(parts, 1), rounds))
        return rows

    def _drawn(self, goal: Goal, sampler: str, first: int, count: int) -> np.ndarray:
        size = max(1, _STARTS_PER_DRAW // count)
        groups = [
            self.drawing.starts(sampler, goal.of(slice(begin, begin + size)), first, count)
            for begin in range(0, len(goal), size)
        ]
        return np.ascontiguousarray(
            np.concatenate(groups) if groups else self._none(goal), np.float32
        )

    def _none(self, goal: Goal) -> np.ndarray:
        return np.empty((len(goal), 0, self.robot.num_joints), np.float32)

    def _asked(self, goal: Goal, rounds: int) -> tuple[Packed, Plan, Weights]:
        """The robot with its goal, the plan, and the weights of a search."""
        starts, preferences = self.starts, self.preferences
        plan = Plan(
            seeded=goal.seeded,
            sliding=starts.sliding,
            first=starts.first,
            own=starts.num_samples,
            largest=starts.largest,
            budget=starts.budget,
            rounds=rounds,
            solutions=preferences.max_solutions,
            diverse=preferences.select == "diverse",
            recombining=self.refinement.recombining,
            starts_per_pass=self.starts_per_pass,
        )
        weights = Weights(
            preferences.error_weight, preferences.distance_weight, preferences.min_separation, NEAR
        )
        robot_arrays = packed(
            self.robot, goal.position_tolerance, goal.orientation_tolerance, goal.axis_weights
        )
        return robot_arrays, plan, weights

    def _search(self, goal: Goal, given: np.ndarray, rounds: int) -> Rows:
        robot_arrays, plan, weights = self._asked(goal, rounds)
        arguments = (
            robot_arrays.integers, robot_arrays.floats32, robot_arrays.floats64,
            np.array(plan, np.int64), np.array(weights),
        )  # fmt: skip
        keys = self.drawing.keys(goal)
        threads = min(self.num_threads, len(goal))
        if threads < 2:
            return Rows(*search(goal.T_base_tip, goal.reference, given, *arguments, keys))
        bounds = np.linspace(0, len(goal), threads + 1).astype(int)
        parts = [slice(a, b) for a, b in pairwise(bounds)]
        with ThreadPoolExecutor(threads) as pool:
            found = pool.map(
                lambda part: search(
                    goal.T_base_tip[part],
                    goal.reference[part],
                    given[part],
                    *arguments,
                    keys[part],
                ),
                parts,
            )
            return Rows(*(np.concatenate(arrays) for arrays in zip(*found, strict=True)))


def _replace(rows: Rows, problems: np.ndarray, others: Rows) -> None:
    for ours, theirs in zip(rows, others, strict=True):
        ours[problems] = theirs
