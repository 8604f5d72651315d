# SPDX-License-Identifier: Apache-2.0
"""A search for solutions that are free of the world, problem by problem.

Coal says which candidates are free. So that few have to be asked, the distance of the robot's
spheres to the obstacles says of all candidates at once which of them may be, and which are near
misses. A near miss is pushed out along its null space, where the distance grows fastest; from
solutions that are free, others are reached by steps in theirs. Both are starts that are refined
like all others, so that every pose stays exact.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from ..collision.sphere_bodies import lanes_of_motion
from ..collision.world_distance import WorldDistance
from ..kernels.null_space import project_on_null_space
from ..kernels.selection import best, choose
from ..robot.robot import Robot
from ..world.scene import GRAZE, Scene
from .deadline import Deadline
from .goal import Goal
from .result import IKResult
from .search import OWN, SEED, UNIFORM, Candidates, Search, joined

_CAP = 0.03  # m, up to where distances are looked at
# m: what the spheres say is deeper than this touches, whatever Coal would say.
_DEEP = 0.01
_NEAR_MISS = 0.08  # m, how deep a candidate may be that is pushed out
_CLEAR = 0.005  # m, where it is pushed to
_LONGEST_PUSH = 0.7  # rad or m, of the joint that moves most
_PUSHES = np.array([0.7, 1.0, 1.5, 2.5])  # how far, as shares of what the gradient promises
_STEPS = (0.03, 0.6)  # rad or m, least and longest step from a free solution
_FEWEST, _PER_ROW = 64, 6  # starts of an exploration, and per row that is missing
_MOST_EXPLORED = 1024
_LEAST_YIELD = 0.02  # free solutions per start of an exploration that is worth another one
_FIRST = 48  # uniform starts of the first round for one solution, at least
_FEW = 3  # candidates that Coal is asked of at least, for a call has its price
_SAME = 0.4  # of the least separation; what differs less from a candidate adds nothing to it
_GAIN = 1.02  # of the solutions, that a round and its explorations bring if another is worth it
UNKNOWN, FREE, TOUCHING = 0, 1, 2


class Pool(NamedTuple):
    """N exact candidates of one problem."""

    q: np.ndarray  # (N, J)
    errors: np.ndarray  # (N, T, 2)
    source: np.ndarray  # (N,)
    gap: np.ndarray  # (N,) m to the nearest obstacle on spheres, up to a cap
    own_gap: np.ndarray  # (N,) m between links on spheres, up to a cap
    state: np.ndarray  # (N,) int8, what is known: UNKNOWN, FREE, TOUCHING

    def rows(self, which: np.ndarray | slice) -> "Pool":
        return Pool(*(array[which] for array in self))

    def with_more(self, other: "Pool") -> "Pool":
        return Pool(*(np.concatenate(pair) for pair in zip(self, other, strict=True)))


@dataclass(frozen=True)
class WorldGuide:
    """What a search knows of the world, and of the robot itself where that is asked."""

    scene: Scene
    robot: Robot  # the scene's, with the frames that the goal is for as its tips
    avoid_self_collision: bool
    asked: np.ndarray | None  # (T, 6) bool, as in a `Goal`

    @cached_property
    def fixed(self) -> frozenset[str]:
        """Links and attached obstacles that stand where a complete goal puts them."""
        return self.scene.structure.rigid_to(tuple(np.flatnonzero(self._axes.all(1)).tolist()))

    @cached_property
    def distances(self) -> WorldDistance:
        """Of what the joints can still move where the goal is reached."""
        return self.scene.distances(self.fixed)

    @cached_property
    def _axes(self) -> np.ndarray:
        asked = np.ones((self.robot.num_tips, 6), bool) if self.asked is None else self.asked
        return np.ascontiguousarray(asked, np.bool_)

    def in_collision(self, q: np.ndarray) -> np.ndarray:
        return self.scene.in_collision(q, self.avoid_self_collision, GRAZE)

    def gaps(self, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(N,) to obstacles and (N,) between links, up to the cap, of q (N, J)."""
        gap = self.distances.of(q, _CAP)[0][:, 0]
        own = np.full(len(q), _CAP)
        if self.avoid_self_collision:
            own = np.minimum(self.scene.own_clearance.distance(q, _CAP), _CAP)
        return gap, own

    def pushed(self, q: np.ndarray, T_base_tip: np.ndarray) -> np.ndarray:
        """Starts (N, P, J) from near misses q (N, J), away from what is nearest."""
        gap, slope = self.distances.of(q, _CAP, gradient=True)
        direction = self._within_null_space(slope[:, 0], q, T_base_tip)
        square = (direction * direction).sum(-1)
        length = (_CLEAR - gap[:, 0]) / np.maximum(square, 1e-6)
        longest = np.abs(direction).max(-1) * length
        length *= np.minimum(1.0, _LONGEST_PUSH / np.maximum(longest, 1e-9) / _PUSHES[-1])
        steps = direction * length[:, None]
        return self._clipped(q[:, None] + steps[:, None] * _PUSHES[:, None])

    def spread(self, q: np.ndarray, T_base_tip: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Starts (N, J) by random steps in the null spaces of q (N, J)."""
        direction = self._within_null_space(rng.normal(size=q.shape), q, T_base_tip)
        longest = np.abs(direction).max(-1, keepdims=True)
        length = np.exp(rng.uniform(np.log(_STEPS[0]), np.log(_STEPS[1]), (len(q), 1)))
        return self._clipped(q + direction / np.maximum(longest, 1e-9) * length)

    def completed(self, result: IKResult) -> IKResult:
        """The result with what is known of the world."""
        clearance = None
        if self.avoid_self_collision:
            clearance = self.scene.own_clearance.distance(result.joint_positions)
        return replace(
            result, clearance=clearance, scene=self.scene,
            avoids_self_collision=self.avoid_self_collision,
        )  # fmt: skip

    def _within_null_space(
        self, directions: np.ndarray, q: np.ndarray, T_base_tip: np.ndarray
    ) -> np.ndarray:
        robot = self.robot
        found = np.ascontiguousarray(directions)
        project_on_null_space(
            found, lanes_of_motion(robot, q), robot.parent, robot.prismatic, robot.placement,
            robot.joint, robot.multiplier, robot.tip_node, robot.tip_placement, self._axes,
            np.ascontiguousarray(T_base_tip[:, :3, :3]),
        )  # fmt: skip
        return found

    def _clipped(self, q: np.ndarray) -> np.ndarray:
        robot = self.robot
        inside = np.clip(q, robot.lower, robot.upper)
        return np.where(robot.continuous, q, inside)


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
        problems = np.arange(len(self._goal))
        for place, problem in enumerate(problems.tolist()):
            if place and self._deadline.passed():
                break
            self._solve(problem, sampler, self._deadline.share(len(problems) - place))
        if self._parts.null_space is not None and self._parts.null_space.steps:
            self._improve(self._parts.null_space)

    def _solve(self, problem: int, sampler: str, deadline: Deadline) -> None:
        """Find free solutions of one problem and note its rows."""
        starts, goal = self._starts, self._goal.of(np.array([problem]))
        wanted = self._preferences.max_solutions
        pool, misses = self._begun(goal, sampler, starts.first)
        chosen = self._cheapest(problem, pool) if wanted == 1 else np.zeros(0, np.int64)
        if len(chosen) < wanted:
            pool = self._measured(pool)
            chosen = self._confirmed(problem, pool, deadline)
        used, rounds, worth, before_round = starts.first, 1, True, -1
        rng = None if len(chosen) == wanted else np.random.default_rng(self._keys[problem])
        while len(chosen) < wanted and rounds != starts.max_rounds and not deadline.passed():
            if rounds == 1 and len(pool.q) and not len(chosen) and self._is_hopeless(pool):
                break
            missing = wanted - len(chosen)
            explored = self._explored(goal, pool, missing, rng) if worth and rng else None
            if explored is None and not deadline.is_timeout:
                if used >= starts.budget or 0 < len(chosen) <= _GAIN * before_round:
                    break
                before_round = len(chosen)
            if explored is not None:
                q, source = explored
            else:
                size = starts.next_round(used)
                own = used < starts.num_samples or (used == starts.num_samples and len(pool.q) > 0)
                q = self._drawn_starts(sampler if own else "uniform", goal, used, size)
                source = np.full(size, OWN if own and sampler != "uniform" else UNIFORM)
                used += size
            new, missed = self._refined(goal, q, source)
            pool = self._thinned(pool.with_more(self._measured(new)), len(pool.q))
            misses = joined(misses, missed)
            before = len(chosen)
            chosen = self._confirmed(problem, pool, deadline)
            worth = explored is None or len(chosen) - before >= _LEAST_YIELD * len(q)
            rounds += explored is None
        if len(chosen) < wanted:
            chosen = self._packed(problem, pool, chosen)
        self._num_starts[problem] = used
        self._timed_out[problem] = len(chosen) < wanted and deadline.passed()
        self._note(problem, pool, misses, chosen)

    def _packed(self, problem: int, pool: Pool, chosen: np.ndarray) -> np.ndarray:
        """As many free candidates as fit: taken in order along the direction they extend in."""
        free = np.flatnonzero(pool.state == FREE)
        if len(free) <= len(chosen) or len(free) < 3:
            return chosen
        offset = pool.q[free] - pool.q[free].mean(0)
        along = np.linalg.eigh(offset.T @ offset)[1][:, -1]
        order = free[np.argsort(offset @ along, kind="stable")]
        preferences, continuous = self._preferences, self._parts.robot.continuous
        packed = best(
            pool.q, order, continuous, preferences.max_solutions, preferences.min_separation
        )
        if len(packed) <= len(chosen):
            return chosen
        return packed[np.argsort(self._pool_costs(problem, pool)[packed], kind="stable")]

    def _begun(self, goal: Goal, sampler: str, count: int) -> tuple[Pool, Candidates]:
        """The first round: the sampler's starts, and before them the seed."""
        q = self._drawn_starts(sampler, goal, 0, count)
        source = np.full(count, UNIFORM if sampler == "uniform" else OWN)
        if goal.seeded:
            q = np.concatenate((goal.reference, q))
            source = np.append(SEED, source)
            self._drawn["seed"] += 1
        return self._refined(goal, q, source)

    def _drawn_starts(self, sampler: str, goal: Goal, first: int, count: int) -> np.ndarray:
        began = self._clock()
        q = self._parts.drawing.starts(sampler, goal, first, count)[0]
        self._drawn[sampler] += count
        self._spent["sample"] += self._clock() - began
        return q.astype(np.float64)

    def _refined(self, goal: Goal, q: np.ndarray, source: np.ndarray) -> tuple[Pool, Candidates]:
        """Exact candidates of starts (N, J) of one problem, and the nearest of the others."""
        began = self._clock()
        parts = self._parts
        refined = parts.refinement.refined(parts.robot, q[None], goal)
        exact = refined.converged[0]
        errors = np.stack((refined.position_error[0], refined.orientation_error[0]), -1)
        found = refined.q[0, exact]
        far = np.full(len(found), _CAP)
        pool = Pool(
            found, errors[exact], source[exact], far, far, np.full(len(found), UNKNOWN, np.int8)
        )
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

    def _cheapest(self, problem: int, pool: Pool) -> np.ndarray:
        """The cheapest candidate that Coal finds free among the first few; often it is there."""
        few = np.argsort(self._pool_costs(problem, pool), kind="stable")[:_FEW]
        if not len(few):
            return few
        pool.state[few] = np.where(self._guide.in_collision(pool.q[few]), TOUCHING, FREE)
        return few[pool.state[few] == FREE][:1]

    def _measured(self, pool: Pool) -> Pool:
        """The pool with its gaps; what is deep in an obstacle needs no other check."""
        gap, own_gap = self._guide.gaps(pool.q)
        deep = (pool.state == UNKNOWN) & (np.minimum(gap, own_gap) < -_DEEP)
        pool.state[deep] = TOUCHING
        return pool._replace(gap=gap, own_gap=own_gap)

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
            near = near[np.argsort(-pool.gap[near], kind="stable")][: share // len(_PUSHES)]
            parts.append(self._guide.pushed(pool.q[near], T_base_tip).reshape(-1, pool.q.shape[1]))
            sources.append(np.repeat(pool.source[near], len(_PUSHES)))
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
        exact = self._exact(problem, pool, rows)
        kept = exact.rows(chosen)
        self._found[problem] = exact.rows(rows)
        lacking = self._preferences.max_solutions - len(chosen)
        if lacking:
            others = joined(exact.rows(~rows), misses)
            kept = joined(kept, others.rows(self._order(problem, others)[:lacking]))
        self._chosen[problem] = kept

    def _pool_costs(self, problem: int, pool: Pool) -> np.ndarray:
        exact = self._exact(problem, pool, np.ones(len(pool.q), bool))
        return self._costs(problem, exact)[1]

    def _exact(self, problem: int, pool: Pool, valid: np.ndarray) -> Candidates:
        worth = self._worth(pool.q[None], self._goal.reference[problem, None])[0]
        checked = np.ones(len(pool.q), bool)
        return Candidates(pool.q, pool.errors, valid, pool.source, checked, worth)
