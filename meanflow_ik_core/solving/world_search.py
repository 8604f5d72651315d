# SPDX-License-Identifier: Apache-2.0
"""A search for solutions that are free of the world, problem by problem.

Coal says which candidates are free. So that few have to be asked, the distance of the robot's
spheres to the obstacles says of all candidates at once which of them may be, and which are near
misses. A near miss is pushed out along its null space, where the distance grows fastest; from
solutions that are free, others are reached by steps in theirs. Both are starts that are refined
like all others, so that every pose stays exact.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ..kernels.search import NOTHING
from ..kernels.selection import best, choose
from .at_once import SearchAtOnce
from .deadline import Deadline
from .goal import Goal
from .search import OWN, SEED, UNIFORM, Candidates, Search, joined
from .world_guide import FARTHEST, PUSHES, WorldGuide

# m: what the spheres say is deeper than this touches, whatever Coal would say.
_DEEP = 0.01
_NEAR_MISS = 0.08  # m, how deep a candidate may be that is pushed out
_FEWEST, _PER_ROW = 64, 6  # starts of an exploration, and per row that is missing
_MOST_EXPLORED = 1024
_LEAST_YIELD = 0.02  # free solutions per start of an exploration that is worth another one
_FIRST = 64  # uniform starts of the first round for one solution, at least
_FEW = 2  # candidates that Coal is asked of at least, for a call has its price
_SAME = 0.4  # of the least separation; what differs less from a candidate adds nothing to it
_FINE = 0.1  # of it, from one candidate to the next where as many as fit are wanted
_PACKINGS = 8  # of candidates, of which those that touch are left out in the next one
_MEASURED = 256  # candidates between two looks at the clock
_GAIN = 1.02  # of the solutions, that a round and its explorations bring if another is worth it
UNKNOWN, FREE, TOUCHING = 0, 1, 2


class Pool(NamedTuple):
    """N exact candidates of one problem."""

    q: np.ndarray  # (N, J)
    errors: np.ndarray  # (N, T, 2)
    source: np.ndarray  # (N,)
    gap: np.ndarray  # (N,) m to the nearest obstacle on spheres, up to a cap
    own_gap: np.ndarray  # (N,) m between links on spheres, up to a cap
    worth: np.ndarray  # (N,) what objectives add to the cost
    state: np.ndarray  # (N,) int8, what is known: UNKNOWN, FREE, TOUCHING

    def rows(self, which: np.ndarray | slice) -> "Pool":
        return Pool(*(array[which] for array in self))

    def with_more(self, other: "Pool") -> "Pool":
        return Pool(*(np.concatenate(pair) for pair in zip(self, other, strict=True)))


Begun = tuple[Pool, Candidates]  # exact candidates, and the nearest of those that are not


class WorldSearch(Search):
    """Rounds of starts, and between them explorations around what is free or nearly so."""

    def __init__(self, guide: WorldGuide, *search):
        super().__init__(*search)
        self._guide = guide
        self._keys = self._parts.drawing.keys(self._goal)

    def run(self, sampler: str) -> None:
        starts, one = self._starts, self._preferences.max_solutions == 1
        if one and self._parts.drawing.is_uniform(sampler) and starts.first < _FIRST:
            self._starts = replace(starts, first=min(starts.num_samples, _FIRST))
        count = len(self._goal)
        together = one and self._parts.is_one_call(sampler)
        size = max(1, self._parts.starts_per_pass // self._starts.first) if together else 1
        for first in range(0, count, size):
            if first and self._deadline.passed():
                break
            problems = range(first, min(first + size, count))
            begun = self._begun_together(problems, sampler) if together else {}
            for problem in problems:
                if problem and self._deadline.passed():
                    break
                if problem not in self._chosen:
                    deadline = self._deadline.share(count - problem)
                    self._solve(problem, sampler, deadline, begun.get(problem))
        self._timed_out[[problem not in self._chosen for problem in range(count)]] = True
        if self._parts.null_space is not None and self._parts.null_space.steps:
            self._improve(self._parts.null_space)

    def _solve(
        self, problem: int, sampler: str, deadline: Deadline, begun: Begun | None = None
    ) -> None:
        """Find free solutions of one problem and note its rows."""
        starts, goal = self._starts, self._goal.of(np.array([problem]))
        wanted = self._preferences.max_solutions
        used = starts.first
        if begun is None:
            begun, used = self._drawn_round(goal, sampler, 0, used, deadline)
        pool, misses = begun
        pool = self._measured(goal, pool, deadline)
        chosen = self._confirmed(problem, pool, deadline)
        rounds, tried, worth, before_round = 1, 0, True, -1
        rng = None if len(chosen) == wanted else np.random.default_rng(self._keys[problem])
        while len(chosen) < wanted and rounds != starts.rounds and not deadline.passed():
            if tried == 1 and len(pool.q) and not len(chosen) and self._is_hopeless(pool):
                break
            tried += 1
            missing = wanted - len(chosen)
            explored = self._explored(goal, pool, missing, rng) if worth and rng else None
            if explored is None and not deadline.is_timeout:
                if used >= starts.budget or 0 < len(chosen) <= _GAIN * before_round:
                    break
                before_round = len(chosen)
            if explored is not None:
                new, missed = self._refined(goal, *explored)
            else:
                size = starts.next_round(used)
                own = used < starts.num_samples or (used == starts.num_samples and len(pool.q) > 0)
                source = sampler if own else "uniform"
                (new, missed), drawn = self._drawn_round(goal, source, used, size, deadline)
                used += drawn
            known, pool = len(pool.q), pool.with_more(self._measured(goal, new, deadline))
            if wanted > 1:
                pool = self._thinned(pool, known)
            misses = joined(misses, missed)
            before = len(chosen)
            chosen = self._confirmed(problem, pool, deadline)
            worth = explored is None or len(chosen) - before >= _LEAST_YIELD * len(explored[0])
            rounds += explored is None
        if len(chosen) < wanted and (pool.state == FREE).sum() > 1:
            if not deadline.passed():
                pool = self._densified(goal, pool, deadline)
            chosen = self._packed(problem, pool, chosen, deadline)
        self._num_starts[problem] = used
        self._timed_out[problem] = len(chosen) < wanted and deadline.passed()
        self._note(problem, pool, misses, chosen)

    def _densified(self, goal: Goal, pool: Pool, deadline: Deadline) -> Pool:
        """The pool with more candidates between those that are free, for `_packed`."""
        free = np.flatnonzero(pool.state == FREE)
        apart = self._preferences.min_separation
        steps = _FINE * apart * np.arange(1, round(_SAME / _FINE) + 1)
        ways = self._guide.ways(pool.q[free], goal.T_base_tip[0])
        q = pool.q[free, None] + np.concatenate((steps, -steps))[:, None] * ways[:, None]
        source = np.repeat(pool.source[free], 2 * len(steps))
        new, _ = self._refined(goal, q.reshape(-1, q.shape[-1]), source)
        return pool.with_more(self._measured(goal, new, deadline))

    def _packed(
        self, problem: int, pool: Pool, chosen: np.ndarray, deadline: Deadline
    ) -> np.ndarray:
        """As many free candidates as fit: taken in order along the direction they extend in."""
        free = pool.q[pool.state == FREE]
        middle = free.mean(0)
        along = np.linalg.eigh((free - middle).T @ (free - middle))[1][:, -1]
        place = (pool.q - middle) @ along
        preferences, continuous = self._preferences, self._parts.robot.continuous
        hopeful = (pool.state == FREE) | (
            (pool.state == UNKNOWN) & (np.minimum(pool.gap, pool.own_gap) > 0)
        )
        for _ in range(_PACKINGS):
            usable = np.flatnonzero(hopeful)
            order = usable[np.argsort(place[usable], kind="stable")]
            packed = best(
                pool.q, order, continuous, preferences.max_solutions, preferences.min_separation
            )
            todo = packed[pool.state[packed] == UNKNOWN]
            if not len(todo):
                break
            free = self._free(pool.q[todo], deadline)
            pool.state[todo[: len(free)]] = np.where(free, FREE, TOUCHING)
            hopeful &= pool.state != TOUCHING
            if deadline.passed():
                break
        packed = packed[pool.state[packed] == FREE]
        if len(packed) <= len(chosen):
            return chosen
        return packed[np.argsort(self._pool_costs(problem, pool)[packed], kind="stable")]

    def _begun_together(self, problems: range, sampler: str) -> dict[int, Begun]:
        """The first round of several problems in one call, for one solution each.

        Where Coal finds one of the few cheapest free, it is noted as the answer. Returns what the
        others have begun with.
        """
        began = self._clock()
        parts, starts = self._parts, self._starts
        goal = self._goal.of(slice(problems.start, problems.stop))
        count = starts.first + goal.seeded
        rows = SearchAtOnce(
            parts.robot, replace(starts.first_alone, sliding=False), parts.refinement,
            replace(self._preferences, max_solutions=count, select="best"), parts.drawing,
            len(goal) * count,
        ).rows(goal, sampler)[0]  # fmt: skip
        own = UNIFORM if sampler == "uniform" else OWN
        source = np.where(rows.start < 0, SEED, own)
        errors = np.stack((rows.position_error, rows.orientation_error), -1)
        self._num_starts[problems.start : problems.stop] = starts.first
        self._drawn["seed"] += len(goal) * goal.seeded
        self._drawn[sampler] += len(goal) * starts.first
        middle = self._clock()
        hopeful = rows.valid[:, :_FEW]
        touching = np.ones(hopeful.shape, bool)
        touching[hopeful] = self._guide.in_collision(rows.q[:, :_FEW][hopeful])
        begun = {}
        for place, problem in enumerate(problems):
            free = np.flatnonzero(~touching[place])[:1]
            if len(free):
                found = _candidates(rows.q[place], errors[place], source[place], free, True)
                self._found[problem] = self._chosen[problem] = found
                continue
            exact = np.flatnonzero(rows.valid[place])
            state = np.full(len(exact), UNKNOWN, np.int8)
            state[:_FEW] = TOUCHING
            far, no_worth = np.full(len(exact), FARTHEST), np.zeros(len(exact))
            pool = Pool(
                rows.q[place, exact], errors[place, exact], source[place, exact], far, far,
                no_worth, state,
            )  # fmt: skip
            missed = np.flatnonzero(~rows.valid[place] & (rows.start[place] != NOTHING))[:1]
            misses = _candidates(rows.q[place], errors[place], source[place], missed, False)
            begun[problem] = pool, misses
        self._spent["refine"] += middle - began
        self._spent["select"] += self._clock() - middle
        return begun

    def _drawn_round(
        self, goal: Goal, sampler: str, first: int, count: int, deadline: Deadline
    ) -> tuple[Begun, int]:
        """Starts of a sampler, before the first of all the seed, refined pass by pass; and how many
        of them there was time for."""
        parts, used = [], 0
        while not parts or (used < count and not deadline.passed()):
            number = min(self._parts.starts_per_pass, count - used)
            began = self._clock()
            q = self._parts.drawing.starts(sampler, goal, first + used, number)[0]
            self._drawn[sampler] += number
            self._spent["sample"] += self._clock() - began
            q = q.astype(np.float64)
            source = np.full(number, UNIFORM if sampler == "uniform" else OWN)
            if goal.seeded and first + used == 0:
                q = np.concatenate((goal.reference, q))
                source = np.append(SEED, source)
                self._drawn["seed"] += 1
            parts.append(self._refined(goal, q, source))
            used += number
        pool, misses = parts[0]
        for more, missed in parts[1:]:
            pool, misses = pool.with_more(more), joined(misses, missed)
        return (pool, misses), used

    def _refined(self, goal: Goal, q: np.ndarray, source: np.ndarray) -> Begun:
        """Exact candidates of starts (N, J) of one problem, and the nearest of the others."""
        began = self._clock()
        parts = self._parts
        refined = parts.refinement.refined(parts.robot, q[None], goal)
        exact = refined.converged[0]
        errors = np.stack((refined.position_error[0], refined.orientation_error[0]), -1)
        found = refined.q[0, exact]
        far, no_worth = np.full(len(found), FARTHEST), np.zeros(len(found))
        state = np.full(len(found), UNKNOWN, np.int8)
        pool = Pool(found, errors[exact], source[exact], far, far, no_worth, state)
        missed = np.flatnonzero(~exact)
        if len(missed):
            off = errors[missed].sum((1, 2))
            nearest = np.argsort(off, kind="stable")[: self._preferences.max_solutions]
            missed = missed[nearest]
        misses = Candidates(
            refined.q[0, missed], errors[missed], np.zeros(len(missed), bool), source[missed],
            np.ones(len(missed), bool), self._worth(refined.q[:, missed], goal.reference)[0],
        )  # fmt: skip
        self._spent["refine"] += self._clock() - began
        return pool, misses

    def _measured(self, goal: Goal, pool: Pool, deadline: Deadline) -> Pool:
        """The pool with its gaps, and what objectives say; without those there is no time for.

        What is deep in an obstacle needs no other check.
        """
        measured = []
        for first in range(0, max(1, len(pool.q)), _MEASURED):
            if first and deadline.passed():
                break
            some = pool.rows(slice(first, first + _MEASURED))
            # For one solution it is quicker to ask Coal of some that touch themselves.
            gap, own_gap = self._guide.gaps(some.q, self._preferences.max_solutions > 1)
            deep = (some.state == UNKNOWN) & (np.minimum(gap, own_gap) < -_DEEP)
            measured.append(
                some._replace(
                    gap=gap, own_gap=own_gap, worth=self._worth(some.q[None], goal.reference)[0],
                    state=np.where(deep, TOUCHING, some.state).astype(np.int8),
                )
            )  # fmt: skip
        return Pool(*map(np.concatenate, zip(*measured, strict=True)))

    def _confirmed(self, problem: int, pool: Pool, deadline: Deadline) -> np.ndarray:
        """The rows of a pool that make the answer so far: Coal has found them free."""
        began = self._clock()
        preferences, continuous = self._preferences, self._parts.robot.continuous
        wanted, apart = preferences.max_solutions, preferences.min_separation
        cost = self._pool_costs(problem, pool)
        gap = np.minimum(pool.gap, pool.own_gap)
        chosen = np.zeros(0, np.int64)
        for hopeful in (gap > 0, np.ones_like(gap, bool)):
            while True:
                usable = (pool.state == FREE) | ((pool.state == UNKNOWN) & hopeful)
                rows, count = choose(
                    pool.q, cost, usable, continuous, wanted, apart, preferences.select == "diverse"
                )
                chosen = rows[:count]
                todo = chosen[pool.state[chosen] == UNKNOWN]
                if not len(todo):
                    break
                if count < wanted or wanted < _FEW:
                    # All may be needed, or as many as a call is worth.
                    unknown = np.flatnonzero(usable & (pool.state == UNKNOWN))
                    todo = unknown[np.argsort(cost[unknown], kind="stable")[: max(_FEW, wanted)]]
                free = self._free(pool.q[todo], deadline)
                pool.state[todo[: len(free)]] = np.where(free, FREE, TOUCHING)
                if deadline.passed():
                    break
            chosen = chosen[pool.state[chosen] == FREE]
            if len(chosen) == wanted or deadline.passed():
                break
        self._spent["select"] += self._clock() - began
        return chosen

    def _thinned(self, pool: Pool, known: int) -> Pool:
        """The pool without those of its candidates from number ``known`` on that are like one."""
        likely = np.flatnonzero(np.minimum(pool.gap, pool.own_gap) > 0)
        apart, continuous = self._preferences.min_separation, self._parts.robot.continuous
        kept = best(pool.q, likely, continuous, len(likely), _SAME * apart)
        keep = np.ones(len(pool.q), bool)
        keep[likely[likely >= known]] = False
        keep[kept] = True
        return pool.rows(keep)

    def _is_hopeless(self, pool: Pool) -> bool:
        """Whether what the goal itself puts in its place touches, so that no solution is free."""
        guide = self._guide
        return bool(guide.scene.fixed_contacts(pool.q[0], guide.fixed))

    def _explored(
        self, goal: Goal, pool: Pool, missing: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Starts around candidates that are free or nearly so; None where there are none."""
        size = int(np.clip(_PER_ROW * missing, _FEWEST, _MOST_EXPLORED))
        free = np.flatnonzero(pool.state == FREE)
        near = np.flatnonzero((pool.state != FREE) & (pool.gap > -_NEAR_MISS))
        T_base_tip = goal.T_base_tip[0]
        parts, sources = [], []
        if len(near):
            share = size if not len(free) else size // 2
            near = near[np.argsort(-pool.gap[near], kind="stable")][: share // len(PUSHES)]
            parts.append(self._guide.pushed(pool.q[near], T_base_tip).reshape(-1, pool.q.shape[1]))
            sources.append(np.repeat(pool.source[near], len(PUSHES)))
        if len(free):
            parents = free[rng.integers(len(free), size=size - sum(map(len, parts)))]
            parts.append(self._guide.spread(pool.q[parents], T_base_tip, rng))
            sources.append(pool.source[parents])
        if not parts:
            return None
        return np.concatenate(parts), np.concatenate(sources)

    def _note(self, problem: int, pool: Pool, misses: Candidates, chosen: np.ndarray) -> None:
        """Note the rows to return: free ones, then what touches or is not exact, by cost."""
        rows = np.zeros(len(pool.q), bool)
        rows[pool.state == FREE] = True
        exact = _exact(pool, rows)
        kept = exact.rows(chosen)
        self._found[problem] = exact.rows(rows)
        lacking = self._preferences.max_solutions - len(chosen)
        if lacking:
            others = joined(exact.rows(~rows), misses)
            kept = joined(kept, others.rows(self._order(problem, others)[:lacking]))
        self._chosen[problem] = kept

    def _pool_costs(self, problem: int, pool: Pool) -> np.ndarray:
        exact = _exact(pool, np.ones(len(pool.q), bool))
        return self._costs(problem, exact)[1]


def _exact(pool: Pool, valid: np.ndarray) -> Candidates:
    checked = np.ones(len(pool.q), bool)
    return Candidates(pool.q, pool.errors, valid, pool.source, checked, pool.worth)


def _candidates(
    q: np.ndarray, errors: np.ndarray, source: np.ndarray, rows: np.ndarray, valid: bool
) -> Candidates:
    """Some rows (n,) of candidates without objectives."""
    count = len(rows)
    return Candidates(
        q[rows], errors[rows], np.full(count, valid), source[rows], np.ones(count, bool),
        np.zeros(count),
    )  # fmt: skip
