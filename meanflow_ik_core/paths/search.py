# SPDX-License-Identifier: Apache-2.0
"""Candidates for all waypoints of a path, drawn where they are needed, and their best path."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ..robot.robot import Robot
from ..solving.ranking import select_diverse
from ..solving.why import Status
from ..world.motion import Motion
from .continuation import follow
from .joint_steps import BEYOND, StepLimits
from .pieces import checked_in_pieces, pieces, refined_in_pieces
from .smoothing import smooth
from .tracked import tracked

if TYPE_CHECKING:
    from ..solving.solver import IKResult, IKSolver

_ANCHORS = 6  # waypoints at which solutions are drawn
_TRACKS = 16  # of one anchor
_LAZY_CHECKS = 8  # paths that are checked for self-collision before all candidates are
_MIN_SEPARATION = 0.01  # rad, of solutions that are not the same
_VALUES_AT_ONCE = 1_000_000  # that are copied in some 10 ms


@dataclass(frozen=True, eq=False)
class PathQuery:
    """A path to search, checked."""

    robot: Robot  # with the frames that waypoints are for as its tips
    T_base_tip: np.ndarray  # (W, T, 4, 4)
    tips: tuple[int, ...]  # that have waypoints
    free_axes: Mapping[str, str] | None
    axis_weights: np.ndarray | None  # (T, 6) 1 where an axis is asked for, else 0; None: all are
    start: np.ndarray | None  # (J,) within the limits; the path begins nearest to it
    allowed_from_start: np.ndarray  # (J,) rad or m, from the start to the first; infinite: any
    limits: StepLimits
    max_joint_step: float | None  # rad or m
    times: np.ndarray | None  # (W,) s
    num_samples: int  # starts per waypoint at which solutions are drawn
    tolerances: tuple[float, float]  # m and rad
    avoid_self_collision: bool
    motion: Motion | None  # what the robot must not touch at waypoints and between; None: nothing
    seed: int | None
    between: Callable[[], object]  # called between parts of the work


class PathSearch:
    """Candidates for W waypoints in C tracks.

    q: (W, C, J) tracks, solutions or not.
    valid: (W, C) bool, which are solutions and not known to be in self-collision.
    end: how many waypoints come before the first that has no solution; W where all have.
    unsolved: what is known of that waypoint, as text.
    touching: whether its solutions touch something, where a world was asked for.
    no_way: whether it has solutions, and what touches lies before all of them.
    timing: seconds for sample, follow, choose, smooth.
    """

    def __init__(self, solver: IKSolver, query: PathQuery):
        self._solver, self._robot, self._query = solver, query.robot, query
        self._in_collision = check = None
        if query.motion is not None:
            check = query.motion.in_collision
        elif query.avoid_self_collision:
            check = solver.self_collision.in_collision
        if check is not None:
            self._in_collision = partial(checked_in_pieces, check, query.between)
        self._draws = 0
        self.end = waypoints = len(query.T_base_tip)
        self.unsolved = ""
        self.no_way = self.touching = False
        self.timing: dict[str, float] = {}
        for part in ("sample", "follow", "choose", "smooth"):
            self.timing[part] = 0.0
        self.q = np.empty((waypoints, 0, self._robot.num_joints))
        self.valid = np.empty((waypoints, 0), bool)
        self._checked = np.empty((waypoints, 0), bool)  # for self-collision

    def run(self) -> np.ndarray:
        """The best path found through the first `end` waypoints, (end, J). Steps beyond the
        limits cost much, but are not excluded."""
        self._draw(np.unique(np.linspace(0, self.end - 1, _ANCHORS).round().astype(int)))
        path = self._better_of_two()
        if len(path) and self._query.start is not None and self._is_broken(path):
            self._track(path[0])
            path = self._better_of_two()
        return path

    def _better_of_two(self) -> np.ndarray:
        # The shortest path may have a dearer step, but smoothing spreads a single one.
        return min(self._best(), self._best(shortest=True), key=self._dearest_step)

    def is_reached(self, q: np.ndarray) -> np.ndarray:
        """(N,) bool: whether q (N, J) is within what joints may move from the start state."""
        assert self._query.start is not None
        delta = self._query.limits.differences(self._query.start, q)
        return np.all(np.abs(delta) <= self._query.allowed_from_start + 1e-9, axis=-1)

    def _is_broken(self, path: np.ndarray) -> bool:
        return not self.is_reached(path[:1])[0] or self._dearest_step(path) >= BEYOND

    def _track(self, first: np.ndarray) -> None:
        """Add what a tracker finds from the start state, or from the first solution (J,) where it
        costs no time to come there."""
        query = self._query
        assert query.start is not None
        at_start = bool(np.isfinite(query.allowed_from_start).any())
        with self._timed("follow"):
            path = tracked(
                self._robot, query.T_base_tip[:, list(query.tips)],
                query.start if at_start else first, at_start,
                [self._robot.tips[tip] for tip in query.tips], query.free_axes,
                query.tolerances, query.max_joint_step, query.times, query.between,
            )  # fmt: skip
        track = np.zeros((len(self.q), 1, self._robot.num_joints))
        track[: len(path), 0] = path
        known = np.arange(len(track))[:, None] < len(path)
        self._add(track, known, np.zeros_like(known))

    def chain(self, end: int) -> tuple[np.ndarray, np.ndarray]:
        """The candidates of the best path through the first ``end`` waypoints, (end,), and what
        the dearest step on the way to each candidate costs at least, (end, C)."""
        return self._query.limits.chain(self.q[:end], self._usable(end), self._query.between)

    def _usable(self, end: int) -> np.ndarray:
        """(end, C) bool: valid, and of the first waypoint the one nearest to the start, of those
        that are reached from there if there are any."""
        valid = self.valid[:end].copy()
        if self._query.start is not None:
            delta = self._query.limits.differences(self._query.start, self.q[0])
            far = np.abs(delta).max(-1)
            reached = valid[0] & self.is_reached(self.q[0])
            nearest = np.where(reached if reached.any() else valid[0], far, np.inf).argmin()
            valid[0] = False
            valid[0, nearest] = True
        return valid

    def smoothed(self, path: np.ndarray) -> np.ndarray:
        """The path (P, J) with shorter steps; its first solution stays where a start is given."""
        query = self._query
        with self._timed("smooth"):
            return smooth(
                self._robot, query.T_base_tip[: len(path)], path, query.limits, query.tolerances,
                hold_first=query.start is not None, in_collision=self._in_collision,
                axis_weights=query.axis_weights, between=query.between,
            )  # fmt: skip

    def check_all(self) -> None:
        """Leave no candidate in self-collision, where that is asked."""
        self._remove_colliding(np.ones_like(self.valid))

    def _best(self, shortest: bool = False) -> np.ndarray:
        """The best path of the candidates, or the shortest, smoothed; it is a candidate itself
        from now on."""
        chosen = self._choose(shortest)
        rough = self.q[np.arange(self.end), chosen]
        path = self.smoothed(rough)
        if self.blocked(path).any():
            path = rough
        track = np.zeros((len(self.q), 1, self._robot.num_joints))
        track[: self.end, 0] = path
        known = np.arange(len(track))[:, None] < self.end
        self._add(track, known, known)
        return path

    def _choose(self, shortest: bool) -> np.ndarray:
        """Which candidates (end,) make the path; draws more where a waypoint has none."""
        limits = self._query.limits
        checks = 0
        while True:
            self._query.between()
            self._complete()
            if self.end == 0:
                return np.empty(0, np.int64)
            with self._timed("choose"):
                if shortest:
                    q, usable = self.q[: self.end], self._usable(self.end)
                    chosen = limits.shortest_chain(q, usable, self._query.between)
                else:
                    chosen, _ = self.chain(self.end)
                looked_at = np.ones_like(self.valid)
                if checks < _LAZY_CHECKS:
                    looked_at[:] = False
                    looked_at[np.arange(self.end), chosen] = True
                if not self._remove_colliding(looked_at) and not self._remove_blocked(chosen):
                    return chosen
                checks += 1

    def blocked(self, path: np.ndarray) -> np.ndarray:
        """(P,) bool: on the way to which waypoints of a path (P, J) the robot would touch, to the
        first from the start state where one is given."""
        motion, steps = self._query.motion, self._query.limits.along(path)
        found = np.zeros(len(path), bool)
        if motion is not None and len(path):
            found[1:] = checked_in_pieces(motion.blocked, self._query.between, path[:-1], steps)
            found[0] = self._blocked_from_start(path[:1])[0]
        return found

    def _blocked_from_start(self, q: np.ndarray) -> np.ndarray:
        """(N,) bool: whether the robot would touch on the way from the start state to q (N, J)."""
        motion, start = self._query.motion, self._query.start
        if motion is None or start is None:
            return np.zeros(len(q), bool)
        begin = np.broadcast_to(start, q.shape)
        steps = self._query.limits.differences(begin, q)
        return checked_in_pieces(motion.blocked, self._query.between, begin, steps)

    def _remove_blocked(self, chosen: np.ndarray) -> bool:
        """Remove candidates that those chosen before them do not lead to; whether there are any.

        Of two that nothing leads between, the one goes that fewer others can take the place of.
        """
        where = np.flatnonzero(self.blocked(self.q[np.arange(self.end), chosen]))
        for ahead in where.tolist():
            place = ahead
            if ahead == 0:
                others = np.flatnonzero(self.valid[0])
                self.valid[0, others[self._blocked_from_start(self.q[0, others])]] = False
            elif ahead > 1 and self.valid[ahead - 1].sum() > self.valid[ahead].sum():
                place = ahead - 1
            self.valid[place, chosen[place]] = False
            if not self.valid[place].any() and place < self.end:
                self.end, self.no_way = place, True
        return len(where) > 0

    def _remove_colliding(self, looked_at: np.ndarray) -> bool:
        """Check candidates (W, C) for self-collision when asked; whether one has it."""
        if self._in_collision is None:
            return False
        where = np.nonzero(looked_at & self.valid & ~self._checked)
        hits = self._in_collision(self.q[where])
        self._checked[where] = True
        self.valid[where] = ~hits
        return bool(hits.any())

    def _dearest_step(self, path: np.ndarray) -> float:
        limits = self._query.limits
        return float(limits.costs(limits.along(path)).max(initial=0.0))

    def _complete(self) -> None:
        """Draw solutions at waypoints that no track came to, until the first that has none."""
        together = 1
        while len(missing := np.flatnonzero(~self.valid[: self.end].any(1))):
            self._query.between()
            missing = missing[:together]
            result = self._solve(missing)
            found = result.valid.any(1)
            rows = zip(result.joint_positions[found], result.valid[found], strict=True)
            self._follow(missing[found], [q[valid] for q, valid in rows], checked=True)
            if not self.valid[missing[0]].any():
                self.end = int(missing[0])
                self.unsolved = result.explain(0)
                self.touching = bool(result.status[0] == Status.WORLD)
            together *= 2

    def _solve(self, waypoints: np.ndarray) -> IKResult:
        """Different solutions of each waypoint by all that the solver tries."""
        query = self._query
        with self._timed("sample"):
            return self._solver.solve(
                query.T_base_tip[waypoints][:, list(query.tips)],
                tips=[self._robot.tips[tip] for tip in query.tips],
                free_axes=query.free_axes,
                num_samples=max(query.num_samples, _TRACKS),
                max_solutions=_TRACKS,
                select="diverse",
                seed=self._next_seed(),
                position_tolerance=query.tolerances[0],
                orientation_tolerance=query.tolerances[1],
                avoid_self_collision=query.avoid_self_collision,
                world=None if query.motion is None else query.motion.scene,
                between=query.between,
            )

    def _draw(self, anchors: np.ndarray) -> None:
        """Draw solutions at some waypoints and follow them; few starts, some may have none."""
        query = self._query
        T_base_tip = query.T_base_tip[anchors]
        with self._timed("sample"):
            starts = self._starts(T_base_tip)
            if query.start is not None and anchors[0] == 0:
                starts = np.concatenate((starts[:, :1], starts), axis=1)
                starts[0, 0] = query.start
            refined = refined_in_pieces(
                self._robot, starts, T_base_tip, query.tolerances, query.axis_weights,
                query.between,
            )  # fmt: skip
            solutions = [
                q[select_diverse(q, self._robot.continuous, converged, _TRACKS, _MIN_SEPARATION)]
                for q, converged in zip(refined.q, refined.converged, strict=True)
            ]
        found = [len(q) > 0 for q in solutions]
        self._follow(anchors[found], [q for q in solutions if len(q)])

    def _starts(self, T_base_tip: np.ndarray) -> np.ndarray:
        """Starts (A, N, J) for waypoints (A, T, 4, 4): the sampler's, or uniform ones for partial
        goals."""
        robot, count, seed = self._robot, self._query.num_samples, self._next_seed()
        if self._query.axis_weights is None:
            starts = self._solver.sample(T_base_tip, count, seed, tips=robot.tips)
            return np.asarray(starts, np.float64)
        unit = np.random.default_rng(seed).random((len(T_base_tip), count, robot.num_joints))
        return robot.lower + unit * (robot.upper - robot.lower)

    def _follow(
        self, anchors: np.ndarray, solutions: list[np.ndarray], checked: bool = False
    ) -> None:
        """Add the tracks of solutions (N, J) of some waypoints, which may have been checked."""
        if not len(anchors):
            return
        count = max(map(len, solutions))
        filled = np.stack([q[np.arange(count) % len(q)] for q in solutions])
        with self._timed("follow"):
            query = self._query
            q, valid = follow(
                self._robot, query.T_base_tip, anchors, filled, query.tolerances,
                query.axis_weights, query.between,
            )  # fmt: skip
        where = np.zeros_like(valid)
        where[np.repeat(anchors, count), np.arange(valid.shape[1])] = checked
        self._add(q, valid, where)

    def _add(self, q: np.ndarray, valid: np.ndarray, checked: np.ndarray) -> None:
        """Add tracks (W, N, J)."""
        self.q = self._beside(self.q, q)
        self.valid = self._beside(self.valid, valid)
        self._checked = self._beside(self._checked, checked)

    def _beside(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Arrays (W, N, ...) and (W, M, ...) as one, (W, N + M, ...)."""
        both = np.empty((len(a), a.shape[1] + b.shape[1], *a.shape[2:]), a.dtype)
        for rows in pieces(len(a), _VALUES_AT_ONCE // max(1, both[0].size), self._query.between):
            np.concatenate((a[rows], b[rows]), axis=1, out=both[rows])
        return both

    def _next_seed(self) -> int | None:
        self._draws += 1
        return None if self._query.seed is None else self._query.seed + self._draws - 1

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.timing[part] += time.perf_counter() - began
