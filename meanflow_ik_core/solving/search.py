# SPDX-License-Identifier: Apache-2.0
"""A search in parts: rounds of starts, and between compiled calls what else is to be asked.

That is the clock, self-collision, objectives, samplers that know of objectives, other refinements
and other devices. Rounds, starts and choice are those of `kernels.search`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..kernels.descent import SLIDE_AFTERWARDS, SLIDE_AT_ONCE, STAY
from ..kernels.search import costs
from ..kernels.selection import best, choose
from ..robot.robot import Robot
from .at_once import NEAR
from .deadline import Deadline
from .drawing import Drawing
from .goal import Goal, Preferences, Starts
from .refine import Refined
from .refinement import Refinement
from .result import IKResult, names_of_origins
from .why import Evidence

if TYPE_CHECKING:
    from .null_space import NullSpace

# Between two looks at the clock, self-collision is checked of as many configurations as take
# `_LOOK_EVERY_S`, and of `CHECKS_AT_ONCE` at least.
_LOOK_EVERY_S, CHECKS_AT_ONCE = 1e-3, 4
# Starts of the first pass where starts are dear and time is short; how much of the time that is
# left the next pass may be expected to take, and how many times larger it may be.
_FIRST_DEAR_PASS, _SHARE_OF_TIME, _GROWTH = 16, 0.6, 4
SEED, OWN, UNIFORM = 1, 2, 3  # where a candidate comes from


class Candidates(NamedTuple):
    """Refined candidates of one target."""

    q: np.ndarray  # (N, J)
    errors: np.ndarray  # (N, T, 2) m and rad
    valid: np.ndarray  # (N,)
    source: np.ndarray  # (N,) int: SEED, OWN or UNIFORM
    checked: np.ndarray  # (N,) bool: valid is final, for self-collision was looked for if asked
    worth: np.ndarray  # (N,) weighted sum of the objectives

    def rows(self, which: np.ndarray | slice) -> Candidates:
        return Candidates(*(array[which] for array in self))


def joined(*parts: Candidates) -> Candidates:
    """The candidates of several parts, in their order."""
    return Candidates(*map(np.concatenate, zip(*parts, strict=True)))


@dataclass(frozen=True)
class SearchParts:
    """What a search asks between compiled calls."""

    robot: Robot
    refinement: Refinement
    drawing: Drawing
    deadline: Deadline
    in_collision: Callable[[np.ndarray], np.ndarray] | None  # (N, J) -> (N,); None: not asked
    null_space: NullSpace | None  # None: no objectives
    starts_per_pass: int  # drawn and refined together; between passes the clock counts

    @property
    def are_starts_dear(self) -> bool:
        """Whether objectives or gradients make a start cost many times what it costs compiled."""
        return self.null_space is not None or self.refinement.kind != "lm"

    def is_one_call(self, sampler: str) -> bool:
        """Whether a round of a sampler can be one compiled call on the CPU."""
        on_cpu = self.refinement.is_compiled and self.refinement.device_search is None
        return on_cpu and self.null_space is None and self.drawing.is_numbered(sampler)


class Search:
    """The candidates found so far for B targets, and the time spent."""

    def __init__(self, parts: SearchParts, goal: Goal, starts: Starts, preferences: Preferences):
        self._parts, self._goal, self._starts = parts, goal, starts
        self._preferences = preferences
        self._deadline, self._clock = parts.deadline, parts.deadline.now
        self._spent = {"sample": 0.0, "refine": 0.0, "select": 0.0}
        self._drawn: Counter[str] = Counter()
        self._num_starts = np.zeros(len(goal), np.int64)  # starts of each problem
        self._found: dict[int, Candidates] = {}  # that may still be returned
        self._chosen: dict[int, Candidates] = {}  # of each problem that was reached in time
        self._timed_out = np.zeros(len(goal), bool)
        self._passes, self._checks, self._check_seconds = 0, 0, 0.0
        self._sliding = SLIDE_AFTERWARDS if starts.sliding else STAY
        self._per_pass = parts.starts_per_pass
        self._is_paced = parts.are_starts_dear and parts.deadline.is_near()
        if self._is_paced:
            self._per_pass = min(self._per_pass, _FIRST_DEAR_PASS)

    def run(self, sampler: str) -> None:
        """Rounds of starts until every target has enough solutions, or the budget is spent."""
        starts, goal = self._starts, self._goal
        everyone = np.arange(len(goal))
        seeds = goal.reference if goal.seeded else None
        if starts.sliding:
            seeds, near = self._slide_seeds()
            everyone = everyone[~near]
        self._round(everyone, sampler, 0, starts.first, seeds)
        self._sliding = STAY
        used, rounds = starts.first, 1
        solved = self._num_valid() > 0
        while rounds != starts.rounds and len(needy := self._needy(used)):
            # The own sampler as long as `num_samples` lasts, and once more where it found
            # something; elsewhere, and in all later and larger rounds, the last resort.
            again = np.full(len(needy), used < starts.num_samples)
            if used == starts.num_samples:
                again |= solved[needy]
            size = starts.next_round(used)
            for name, problems in ((sampler, needy[again]), ("uniform", needy[~again])):
                if len(problems):
                    self._round(problems, name, used, size)
            used += size
            rounds += 1
        if self._deadline.passed():
            self._timed_out = self._num_valid() < self._preferences.max_solutions
        if self._parts.null_space is not None and self._parts.null_space.steps:
            self._improve(self._parts.null_space)

    def result(self, sampler: str) -> IKResult:
        robot, goal, null_space = self._parts.robot, self._goal, self._parts.null_space
        batch, rows = len(goal), self._preferences.max_solutions
        q = np.full((batch, rows, robot.num_joints), np.nan)
        errors = np.full((batch, rows, robot.num_tips, 2), np.inf)
        valid = np.zeros((batch, rows), dtype=bool)
        source = np.zeros((batch, rows), dtype=np.int64)
        distance, cost = np.full((2, batch, rows), np.inf)
        for problem, chosen in self._chosen.items():
            own = problem, slice(len(chosen.q))
            q[own], errors[own], valid[own] = chosen.q, chosen.errors, chosen.valid
            source[own] = chosen.source
            distance[own], cost[own] = self._costs(problem, chosen)
        result = IKResult(
            joint_positions=goal.on_turn_of_seed(q, robot.continuous),
            position_error=errors[..., 0],
            orientation_error=errors[..., 1],
            valid=valid,
            distance=distance,
            cost=cost,
            origin=names_of_origins(sampler)[source],
            starts=dict(self._drawn),
            timing=dict(self._spent),
            _evidence=Evidence(
                robot, goal, self._num_starts, self._timed_out, self._starts,
                self._preferences.min_separation,
            ),
        )  # fmt: skip
        if null_space is None:
            return result
        return replace(result, objective_values=self.objective_values(result))

    def objective_values(self, result: IKResult) -> np.ndarray:
        """(B, M, O) of the rows of a result, without weights."""
        null_space, q = self._parts.null_space, result.joint_positions
        assert null_space is not None
        current = np.repeat(self._goal.reference, q.shape[1], 0)
        found = null_space.values(q.reshape(-1, q.shape[-1]), current)
        return found.reshape(*q.shape[:2], len(null_space.objectives))

    def _num_valid(self) -> np.ndarray:
        """(B,) how many solutions each problem has so far."""
        count = np.zeros(len(self._goal), dtype=np.int64)
        for problem, chosen in self._chosen.items():
            count[problem] = chosen.valid.sum()
        return count

    def _needy(self, used: int) -> np.ndarray:
        """Problems that have too few solutions and budget left."""
        in_budget = not self._deadline.passed()
        if not self._deadline.is_timeout:
            in_budget &= used < self._starts.budget
        in_budget &= self._per_pass > 0  # else there is no time for another pass
        return np.flatnonzero(in_budget & (self._num_valid() < self._preferences.max_solutions))

    def _slide_seeds(self) -> tuple[np.ndarray, np.ndarray]:
        """Seeds (B, J) at the solutions connected to them, and (B,) where that is the answer."""
        goal = self._goal
        seeds = goal.reference[:, None]
        everyone = np.arange(len(goal))
        refined = self._refine(everyone, seeds, SLIDE_AT_ONCE, SEED, SEED, self._deadline)
        near = np.zeros(len(goal), bool)
        for problem, chosen in self._chosen.items():
            near[problem] = chosen.valid[0] and self._costs(problem, chosen)[0][0] <= NEAR
        for problem in np.flatnonzero(~near).tolist():
            self._found.pop(problem, None)
            self._chosen.pop(problem, None)
        return refined.q[:, 0], near

    def _round(
        self, problems: np.ndarray, sampler: str, used: int, count: int,
        seeds: np.ndarray | None = None,
    ) -> None:  # fmt: skip
        """Starts for the problems, and before them the seeds (B, J), as many at once as make a
        pass. Each problem has its share of the time that is left; the first pass of all is always
        made."""
        size = max(1, self._per_pass // count)
        groups = [problems[begin : begin + size] for begin in range(0, len(problems), size)]
        for place, group in enumerate(groups):
            if self._passes and self._deadline.passed():
                return
            deadline = self._deadline.share(len(groups) - place)
            goal = self._goal.of(group)
            begin = 0
            while begin < count:
                began = self._clock()
                if self._passes and (self._per_pass == 0 or (begin and deadline.passed())):
                    break
                number = min(self._per_pass, count - begin)
                starts = self._parts.drawing.starts(sampler, goal, used + begin, number)
                self._passes += 1
                self._drawn[sampler] += starts.shape[0] * starts.shape[1]
                self._num_starts[group] += starts.shape[1]
                source = UNIFORM if sampler == "uniform" else OWN
                first = source
                if seeds is not None and begin == 0:
                    first = SEED
                    starts = np.concatenate((seeds[group][:, None], starts), 1)
                self._spent["sample"] += self._clock() - began
                self._refine(group, starts, self._sliding, first, source, deadline)
                begin += number
                if self._is_paced:
                    self._pace(number * len(group), self._clock() - began)

    def _pace(self, starts: int, seconds: float) -> None:
        """Let the next pass have as many starts as there is time for, after one of so many that
        took so long; 0 where there is none."""
        left = self._deadline.moment - self._clock()
        times = min(_SHARE_OF_TIME * left / max(seconds, 1e-9), _GROWTH)
        self._per_pass = min(int(starts * times), self._parts.starts_per_pass)
        if times < 1 / _GROWTH:  # what a pass costs as such would be most of it
            self._per_pass = 0

    def _refine(
        self, problems: np.ndarray, starts: np.ndarray, sliding: int, first: int, source: int,
        deadline: Deadline,
    ) -> Refined:  # fmt: skip
        """Refine starts, check them, and note the rows to return so far; ``first`` is the source
        of the first start."""
        began = self._clock()
        parts = self._parts
        refined = parts.refinement.refined(parts.robot, starts, self._goal.of(problems), sliding)
        if first == SEED and sliding != SLIDE_AFTERWARDS:
            self._drawn["seed"] += len(problems)
        sources = np.full(starts.shape[1], source)
        sources[:1] = first
        errors = np.stack((refined.position_error, refined.orientation_error), -1)
        worth = self._worth(refined.q, self._goal.reference[problems])
        for row, problem in enumerate(problems.tolist()):
            valid = refined.converged[row].copy()
            checked = np.full(len(valid), True) if parts.in_collision is None else ~valid
            new = Candidates(refined.q[row], errors[row], valid, sources, checked, worth[row])
            pool = joined(self._found[problem], new) if problem in self._found else new
            if not pool.checked.all():
                pool = self._checked(problem, pool, deadline.share(len(problems) - row))
            self._found[problem] = pool
        middle = self._clock()
        self._spent["refine"] += middle - began
        for problem in problems.tolist():
            self._settle(problem)
        self._spent["select"] += self._clock() - middle
        return refined

    def _worth(self, q: np.ndarray, reference: np.ndarray) -> np.ndarray:
        """(B, N) weighted sums of the objectives of q (B, N, J), 0 where there are none."""
        if self._parts.null_space is None:
            return np.zeros(q.shape[:2])
        current = np.repeat(reference, q.shape[1], 0)
        return self._parts.null_space.weighted(q.reshape(-1, q.shape[-1]), current).reshape(
            q.shape[:2]
        )

    def _checked(self, problem: int, pool: Candidates, deadline: Deadline) -> Candidates:
        """Those that touch themselves are not valid. What there is no time to check is left out.

        Where there are more than enough, those are checked that would be returned, then those that
        come in place of others that touch themselves. The rest cannot be returned: of the best it
        is left out, of the diverse it waits for a later round.
        """
        preferences, continuous = self._preferences, self._parts.robot.continuous
        most, apart = preferences.max_solutions, preferences.min_separation
        if pool.valid.sum() <= most:
            self._set_valid(pool, np.flatnonzero(~pool.checked), deadline)
            return pool.rows(pool.checked)
        if preferences.select == "diverse":
            cost = self._costs(problem, pool)[1]
            while True:
                rows, num_valid = choose(pool.q, cost, pool.valid, continuous, most, apart, True)
                todo = rows[:num_valid][~pool.checked[rows[:num_valid]]]
                if not len(todo):
                    return pool
                self._set_valid(pool, todo, deadline)
                if deadline.passed():
                    return pool.rows(pool.checked)
        ranked = pool.rows(self._order(problem, pool))
        todo = np.flatnonzero(~ranked.checked)
        first = 0
        while first < len(todo):
            before = np.flatnonzero(ranked.valid[: todo[first]])
            enough = best(ranked.q, before, continuous, most, apart)
            if len(enough) == most or (first and deadline.passed()):
                break
            size = max(CHECKS_AT_ONCE, most - len(enough))
            self._set_valid(ranked, todo[first : first + size], deadline)
            first += size
        return ranked.rows(ranked.checked)

    def _set_valid(self, candidates: Candidates, rows: np.ndarray, deadline: Deadline) -> None:
        """Check rows of the candidates for self-collision, the first ones whatever the time."""
        free = self._free(candidates.q[rows], deadline)
        candidates.valid[rows[: len(free)]] = free
        candidates.checked[rows[: len(free)]] = True

    def _free(self, q: np.ndarray, deadline: Deadline) -> np.ndarray:
        """(n,) which of the first n of configurations q (N, J) touch nothing of themselves; n is N
        where there is time."""
        assert self._parts.in_collision is not None
        size = len(q)
        if deadline.moment < math.inf:
            worth = _LOOK_EVERY_S * self._checks / max(self._check_seconds, 1e-9)
            size = max(CHECKS_AT_ONCE, int(min(worth, len(q))))
        free = [np.zeros(0, dtype=bool)]
        for first in range(0, len(q), max(1, size)):
            if first and deadline.passed():
                break
            began = self._clock()
            free.append(~self._parts.in_collision(q[first : first + size]))
            self._check_seconds += self._clock() - began
            self._checks += len(free[-1])
        return np.concatenate(free)

    def _improve(self, null_space: NullSpace) -> None:
        """Move the chosen solutions in their null spaces; where they come together, others fill
        the rows."""
        began = self._clock()
        chosen = {problem: rows.rows(rows.valid) for problem, rows in self._chosen.items()}
        owner = np.repeat(list(chosen), [len(rows.q) for rows in chosen.values()]).astype(np.int64)
        if not len(owner):
            return
        q = np.concatenate([rows.q for rows in chosen.values()])
        # What is found then has to be checked in time as well.
        deadline = self._deadline.earlier(len(q) * self._check_seconds / max(1, self._checks))
        if deadline.passed():
            return
        better = null_space.improved(q, self._goal.of(owner), deadline)
        valid = better.converged[:, 0].copy()
        if self._parts.in_collision is not None:
            rows = np.flatnonzero(valid)
            free = self._free(better.q[rows, 0], self._deadline)
            valid[rows] = False
            valid[rows[: len(free)]] = free
        errors = np.stack((better.position_error, better.orientation_error), -1)[:, 0]
        worth = self._worth(better.q, self._goal.reference[owner])[:, 0]
        for problem, before in chosen.items():
            mine = owner == problem
            after = before._replace(
                q=better.q[mine, 0], errors=errors[mine], valid=valid[mine], worth=worth[mine]
            )
            diverse = self._preferences.select == "diverse"
            # Those that were chosen for their spread are replaced by no others.
            pool = joined(after, before if diverse else self._found[problem])
            if diverse:
                pool = joined(
                    after.rows(self._order(problem, after)),
                    before.rows(self._order(problem, before)),
                )
                order = np.flatnonzero(pool.valid)
            else:
                order = self._order(problem, pool)
                order = order[pool.valid[order]]
            kept = pool.rows(
                best(
                    pool.q, order, self._parts.robot.continuous, self._preferences.max_solutions,
                    self._preferences.min_separation,
                )
            )  # fmt: skip
            misses = self._chosen[problem].rows(~self._chosen[problem].valid)
            rows = joined(kept, misses)
            rows = rows.rows(self._order(problem, rows))
            self._chosen[problem] = rows.rows(slice(self._preferences.max_solutions))
        self._spent["refine"] += self._clock() - began

    def _settle(self, problem: int) -> None:
        """Note a problem's rows to return so far; drop what can never be returned."""
        preferences, continuous = self._preferences, self._parts.robot.continuous
        pool, diverse = self._found[problem], preferences.select == "diverse"
        _, cost = self._costs(problem, pool)
        ask = (pool.q, cost, pool.valid, continuous)
        most, apart = preferences.max_solutions, preferences.min_separation
        rows, num_valid = choose(*ask, most, apart, diverse)
        self._chosen[problem] = pool.rows(rows)
        kept, misses = rows[:num_valid], rows[num_valid:]
        if len(misses) < most and not pool.valid.all():
            missing = np.flatnonzero(~pool.valid)
            misses = missing[np.argsort(cost[missing], kind="stable")][:most]
        if diverse:
            kept = np.concatenate((kept, np.setdiff1d(np.flatnonzero(pool.valid), kept)))
        elif self._parts.null_space is not None:
            # Spares for solutions that come together in their null spaces.
            twice, num_valid = choose(*ask, 2 * most, apart, False)
            kept = twice[:num_valid]
        self._found[problem] = pool.rows(np.concatenate((kept, misses)))

    def _order(self, problem: int, pool: Candidates) -> np.ndarray:
        """Order of a problem's candidates: valid first, then by cost."""
        return np.lexsort((self._costs(problem, pool)[1], ~pool.valid))

    def _costs(self, problem: int, pool: Candidates) -> tuple[np.ndarray, np.ndarray]:
        """Distances and costs of a problem's candidates."""
        reference, preferences = self._goal.reference[problem], self._preferences
        distance, cost = costs(
            pool.q, pool.errors, reference, self._parts.robot.continuous,
            float(preferences.error_weight), float(preferences.distance_weight),
        )  # fmt: skip
        return distance, cost + pool.worth
