# SPDX-License-Identifier: Apache-2.0
"""One search: rounds of starts, refined and ranked, until there are enough different solutions."""

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import OptionError
from ..robot.robot import Robot
from .inputs import check_count, check_positive, is_number
from .ranking import SELECTIONS, joint_distance, rank, ranking_cost, select_best, select_diverse
from .refine import REFINEMENTS, Refined

# Starts per target without a timeout. Of uniform starts for poses whose every solution touches a
# limit, at least 1 in 40 converges: this many miss such a pose once in 10^11.
_MAX_STARTS = 1024
# Between two looks at the clock, self-collision is checked of as many configurations as take
# `_LOOK_EVERY_S`, and of `_CHECKS_AT_ONCE` at least.
_LOOK_EVERY_S, _CHECKS_AT_ONCE = 1e-3, 4
_ORIGIN = "<U16"  # numpy type of a sampler's name


@dataclass(frozen=True)
class IKResult:
    """Candidates of B targets, M rows each, best first: valid ones, then the nearest others.

    Errors are those to the nearest pose that is asked for: 0 for a tip without a target.
    """

    joint_positions: np.ndarray  # (B, M, J) float64 rad or m; NaN where there is no candidate
    position_error: np.ndarray  # (B, M, T) m
    orientation_error: np.ndarray  # (B, M, T) rad
    valid: np.ndarray  # (B, M) bool: in tolerance, in limits, free of self-collision when asked
    distance: np.ndarray  # (B, M) rad to the seed state, or to the middle of the limits
    cost: np.ndarray  # (B, M) what the ranking used
    origin: np.ndarray  # (B, M) str: the sampler of the row, or "seed"; "" without a candidate
    starts: dict[str, int]  # how many starts were drawn, by origin
    timing: dict[str, float]  # seconds for sample, refine, select
    objective_values: np.ndarray | None = None  # (B, M, O) unweighted, lower is better; NaN as q
    clearance: np.ndarray | None = None  # (B, M) m between links, approximate; None: not asked

    def origin_counts(self) -> dict[str, int]:
        """How many valid rows came from where."""
        return dict(Counter(self.origin[self.valid].tolist()))


@dataclass(frozen=True)
class SolveOptions:
    """Arguments of `IKSolver.solve`, checked.

    Raises:
        OptionError: a value does not exist or is out of its range.
    """

    num_samples: int
    max_solutions: int
    select: str
    refinement: str
    timeout: float | None
    position_tolerance: float | np.ndarray  # scalar or (T,)
    orientation_tolerance: float | np.ndarray
    error_weight: float
    distance_weight: float
    min_separation: float
    avoid_self_collision: bool
    objective_steps: int = 0
    max_rounds: int | None = None
    recombining: bool = True

    def __post_init__(self) -> None:
        for name, least in (("num_samples", 1), ("max_solutions", 1), ("objective_steps", 0)):
            check_count(name, getattr(self, name), least)
        if self.max_rounds is not None:
            check_count("max_rounds", self.max_rounds, 1)
        if self.select not in SELECTIONS:
            raise OptionError(
                f"unknown select {self.select!r}; it is one of {', '.join(SELECTIONS)}"
            )
        if self.refinement not in REFINEMENTS:
            raise OptionError(
                f"unknown refinement {self.refinement!r}; it is one of {', '.join(REFINEMENTS)}"
            )
        check_positive("timeout", self.timeout, "positive seconds", or_none=True)
        for name in ("position_tolerance", "orientation_tolerance"):
            value = getattr(self, name)
            if not (np.all(value > 0) if isinstance(value, np.ndarray) else value > 0):
                raise OptionError(f"{name} is {getattr(self, name)!r}; it must be positive")
        for name in ("error_weight", "distance_weight", "min_separation"):
            value = getattr(self, name)
            if not (is_number(value) and value >= 0):
                raise OptionError(f"{name} is {value!r}; it must be a number of at least 0")


class Candidates(NamedTuple):
    """Refined candidates of one target."""

    q: np.ndarray  # (N, J)
    position_error: np.ndarray  # (N, T)
    orientation_error: np.ndarray  # (N, T)
    valid: np.ndarray  # (N,)
    origin: np.ndarray  # (N,) str
    checked: np.ndarray  # (N,) bool: valid is final, for self-collision was looked for if asked


@dataclass(frozen=True)
class SearchParts:
    """What a search is made of; the solver fills it in."""

    robot: Robot
    samplers: tuple[str, str]  # of the first starts, and of the last resort
    # sampler, T_base_tip, N, reference (B, J) -> (B, N, J)
    draw: Callable[[str, np.ndarray, int, np.ndarray], Tensor]
    # (B, N, J), T_base_tip, seconds after which the rest is left as it is -> Refined
    refine: Callable[[Tensor, np.ndarray, float | None], Refined]
    in_collision: Callable[[np.ndarray], np.ndarray] | None  # (N, J) -> (N,); None: not asked
    objectives: "SearchObjectives | None" = None  # None: no objectives
    clearance: Callable[[np.ndarray], np.ndarray] | None = None  # (..., J) -> (...) m
    starts_per_pass: int = 4096  # drawn and refined together; between passes the clock counts


@dataclass(frozen=True)
class SearchObjectives:
    """What objectives have to say in a search, O of them."""

    weights: np.ndarray  # (O,)
    # q (N, J), reference (J,) -> (N, O); NaN where q is not finite
    values: Callable[[np.ndarray, np.ndarray], np.ndarray]
    # solutions (R, J), T_base_tip, reference (R, J), when to end by `time.perf_counter`
    # -> Refined (R, 1); None: as they are
    improve: Callable[[np.ndarray, np.ndarray, np.ndarray, float], Refined] | None


class Search:
    """The candidates found so far for B targets, and the time spent."""

    def __init__(
        self,
        parts: SearchParts,
        T_base_tip: np.ndarray,
        reference: np.ndarray,
        options: SolveOptions,
        began: float,
    ):
        """Prepare a search.

        Args:
            parts: samplers, refinement and checks.
            T_base_tip: (B, T, 4, 4).
            reference: (B, J), what the distance of a candidate refers to.
            options: see `IKSolver.solve`.
            began: by `time.perf_counter`, what the timeout counts from.
        """
        self._parts = parts
        self._T_base_tip = T_base_tip
        self._reference = reference
        self._options = options
        self._deadline = math.inf if options.timeout is None else began + options.timeout
        self._spent = {"sample": 0.0, "refine": 0.0, "select": 0.0}
        self._starts: Counter[str] = Counter()
        self._found: list[list[Candidates]] = [[] for _ in T_base_tip]
        self._chosen: dict[int, Candidates] = {}  # of each problem that was reached in time
        self._checks, self._check_seconds = 0, 0.0

    def run(self, seeds: np.ndarray | None) -> None:
        """Rounds of starts until every target has enough solutions, or the budget is spent."""
        options = self._options
        everyone = np.arange(len(self._T_base_tip))
        first, last_resort = self._parts.samplers
        self._round(everyone, first, options.num_samples, seeds)
        used, rounds = options.num_samples, 1
        solved = self._num_valid() > 0
        while rounds != options.max_rounds and len(needy := self._needy(used)):
            # Once more where the own sampler found something; elsewhere, and in all later and
            # larger rounds, the last resort.
            again = solved[needy] & (used == options.num_samples)
            size = min(used, max(options.num_samples, _MAX_STARTS))
            for sampler, problems in ((first, needy[again]), (last_resort, needy[~again])):
                if len(problems):
                    self._round(problems, sampler, size)
            used += size
            rounds += 1
        if self._parts.objectives is not None and self._parts.objectives.improve is not None:
            self._improve(self._parts.objectives.improve)

    def result(self) -> IKResult:
        options, robot = self._options, self._parts.robot
        batch, rows = len(self._T_base_tip), options.max_solutions
        q = np.full((batch, rows, robot.num_joints), np.nan)
        position_error = np.full((batch, rows, robot.num_tips), np.inf)
        orientation_error = np.full((batch, rows, robot.num_tips), np.inf)
        valid = np.zeros((batch, rows), dtype=bool)
        origin = np.full((batch, rows), "", dtype=_ORIGIN)
        for problem, chosen in self._chosen.items():
            count = len(chosen.q)
            q[problem, :count] = chosen.q
            position_error[problem, :count] = chosen.position_error
            orientation_error[problem, :count] = chosen.orientation_error
            valid[problem, :count] = chosen.valid
            origin[problem, :count] = chosen.origin
        distance = joint_distance(robot, q, self._reference[:, None])
        cost = self._cost(position_error, orientation_error, distance)
        objectives, clearance = self._parts.objectives, self._parts.clearance
        objective_values = None
        if objectives is not None:
            objective_values = np.full((batch, rows, len(objectives.weights)), np.nan)
            for problem in range(batch):
                objective_values[problem] = objectives.values(q[problem], self._reference[problem])
            cost += _weighted(objectives, objective_values)
        return IKResult(
            joint_positions=q,
            position_error=position_error,
            orientation_error=orientation_error,
            valid=valid,
            distance=np.where(np.isnan(distance), np.inf, distance),
            cost=np.where(np.isnan(cost), np.inf, cost),
            origin=origin,
            starts=dict(self._starts),
            timing=dict(self._spent),
            objective_values=objective_values,
            clearance=None if clearance is None else clearance(q),
        )

    def _num_valid(self) -> np.ndarray:
        """(B,) how many solutions each problem has so far."""
        count = np.zeros(len(self._T_base_tip), dtype=np.int64)
        for problem, chosen in self._chosen.items():
            count[problem] = chosen.valid.sum()
        return count

    def _needy(self, used: int) -> np.ndarray:
        """Problems that have too few solutions and budget left."""
        options = self._options
        if options.timeout is not None:
            in_budget = time.perf_counter() < self._deadline
        else:
            in_budget = used < max(_MAX_STARTS, 4 * options.num_samples)
        return np.flatnonzero(in_budget & (self._num_valid() < options.max_solutions))

    def _round(
        self, problems: np.ndarray, sampler: str, count: int, seeds: np.ndarray | None = None
    ) -> None:
        """Starts for the problems, and before them the seeds (B, J), as many at once as make a
        pass. Each problem has its share of the time that is left; the first pass of all is always
        made."""
        per_pass = self._parts.starts_per_pass
        size = max(1, per_pass // count)
        groups = [problems[begin : begin + size] for begin in range(0, len(problems), size)]
        for place, group in enumerate(groups):
            now = time.perf_counter()
            if self._starts and now >= self._deadline:
                return
            until = now + (self._deadline - now) / (len(groups) - place)
            if seeds is not None:
                self._refine(group, torch.from_numpy(seeds[group])[:, None], "seed", until)
            for begin in range(0, count, per_pass):
                began = time.perf_counter()
                if begin and began >= until:
                    break
                starts = self._parts.draw(
                    sampler, self._T_base_tip[group], min(per_pass, count - begin),
                    self._reference[group],
                )  # fmt: skip
                self._spent["sample"] += time.perf_counter() - began
                self._refine(group, starts, sampler, until)
                if self._options.select == "best" and begin + per_pass < count:
                    self._choose(group)
            self._choose(group)

    def _refine(self, problems: np.ndarray, starts: Tensor, origin: str, until: float) -> None:
        began = time.perf_counter()
        limit = None if until == math.inf else max(0.0, until - began)
        refined = self._parts.refine(starts, self._T_base_tip[problems], limit)
        self._starts[origin] += starts.shape[0] * starts.shape[1]
        names = np.full(starts.shape[1], origin, dtype=_ORIGIN)
        for row, problem in enumerate(problems.tolist()):
            q, valid = refined.q[row], refined.converged[row].copy()
            errors = refined.position_error[row], refined.orientation_error[row]
            checked = np.full(len(q), True) if self._parts.in_collision is None else ~valid
            candidates = Candidates(q, *errors, valid, names, checked)
            if checked.all():
                self._found[problem].append(candidates)
            else:
                now = time.perf_counter()
                self._check(problem, candidates, now + (until - now) / (len(problems) - row))
        self._spent["refine"] += time.perf_counter() - began

    def _check(self, problem: int, candidates: Candidates, until: float) -> None:
        """Those that touch themselves are not valid. What there is no time to check is left out,
        and where the best are asked for, what comes after enough of them."""
        options, robot = self._options, self._parts.robot
        if options.select != "best" or candidates.valid.sum() <= options.max_solutions:
            self._set_valid(candidates, np.flatnonzero(~candidates.checked), until)
            self._found[problem].append(_rows(candidates, candidates.checked))
            return
        ranked = self._ranked(problem, [*self._found[problem], candidates])
        todo = np.flatnonzero(~ranked.checked)
        size = max(_CHECKS_AT_ONCE, options.max_solutions)
        for first in range(0, len(todo), size):
            before = slice(0, todo[first])
            rows = select_best(
                ranked.q[before], robot.continuous, ranked.valid[before], options.max_solutions,
                options.min_separation,
            )  # fmt: skip
            if len(rows) == options.max_solutions or (first and time.perf_counter() >= until):
                break
            self._set_valid(ranked, todo[first : first + size], until)
        self._found[problem] = [_rows(ranked, ranked.checked)]

    def _set_valid(self, candidates: Candidates, rows: np.ndarray, until: float) -> None:
        """Check rows of the candidates for self-collision, the first ones whatever the time."""
        free = self._free(candidates.q[rows], until)
        candidates.valid[rows[: len(free)]] = free
        candidates.checked[rows[: len(free)]] = True

    def _free(self, q: np.ndarray, until: float) -> np.ndarray:
        """(n,) which of the first n of configurations q (N, J) touch nothing of themselves; n is N
        where there is time."""
        assert self._parts.in_collision is not None
        size = len(q)
        if until < math.inf:
            worth = _LOOK_EVERY_S * self._checks / max(self._check_seconds, 1e-9)
            size = max(_CHECKS_AT_ONCE, int(min(worth, len(q))))
        free = [np.zeros(0, dtype=bool)]
        began = now = time.perf_counter()
        for first in range(0, len(q), max(1, size)):
            if first and now >= until:
                break
            free.append(~self._parts.in_collision(q[first : first + size]))
            now = time.perf_counter()
        done = np.concatenate(free)
        self._checks += len(done)
        self._check_seconds += now - began
        return done

    def _improve(
        self, improve: Callable[[np.ndarray, np.ndarray, np.ndarray, float], Refined]
    ) -> None:
        """Move the chosen solutions in their null spaces; where they come together, others fill
        the rows."""
        began = time.perf_counter()
        options, robot = self._options, self._parts.robot
        chosen = {problem: _rows(chosen, chosen.valid) for problem, chosen in self._chosen.items()}
        owner = np.repeat(list(chosen), [len(rows.q) for rows in chosen.values()]).astype(np.int64)
        if not len(owner):
            return
        q = np.concatenate([rows.q for rows in chosen.values()])
        # What is found then has to be checked in time as well.
        until = self._deadline - len(q) * self._check_seconds / max(1, self._checks)
        if began >= until:
            return
        better = improve(q, self._T_base_tip[owner], self._reference[owner], until)
        valid = better.converged[:, 0].copy()
        if self._parts.in_collision is not None:
            rows = np.flatnonzero(valid)
            free = self._free(better.q[rows, 0], self._deadline)
            valid[rows] = False
            valid[rows[: len(free)]] = free
        for problem, before in chosen.items():
            mine = owner == problem
            errors = better.position_error[mine, 0], better.orientation_error[mine, 0]
            after = Candidates(
                better.q[mine, 0], *errors, valid[mine], before.origin, before.checked
            )
            if options.select == "diverse":  # keep to those that were chosen for their spread
                parts = self._ranked(problem, [after]), self._ranked(problem, [before])
                rows = Candidates(*map(np.concatenate, zip(*parts, strict=True)))
            else:
                rows = self._ranked(problem, [after, *self._found[problem]])
            kept = select_best(
                rows.q, robot.continuous, rows.valid, options.max_solutions, options.min_separation
            )
            others = _rows(self._chosen[problem], ~self._chosen[problem].valid)
            rows = self._ranked(problem, [_rows(rows, kept), others])
            self._chosen[problem] = _rows(rows, slice(options.max_solutions))
        self._spent["refine"] += time.perf_counter() - began

    def _choose(self, problems: np.ndarray) -> None:
        """Note the rows to return so far."""
        began = time.perf_counter()
        for problem in problems.tolist():
            self._chosen[problem] = self._settle(problem)
        self._spent["select"] += time.perf_counter() - began

    def _settle(self, problem: int) -> Candidates:
        """A problem's rows to return so far; what can never be returned is dropped."""
        options, robot = self._options, self._parts.robot
        ranked = self._ranked(problem, self._found[problem])
        choose = select_best if options.select == "best" else select_diverse
        rows = choose(
            ranked.q, robot.continuous, ranked.valid, options.max_solutions, options.min_separation
        )
        num_valid = int(ranked.valid.sum())
        nearest = np.arange(num_valid, len(ranked.q))[: options.max_solutions]
        keep_valid = rows if options.select == "best" else np.arange(num_valid)
        if options.select == "best" and self._parts.objectives is not None:
            # spares for solutions that come together in their null spaces
            keep_valid = choose(
                ranked.q, robot.continuous, ranked.valid, 2 * options.max_solutions,
                options.min_separation,
            )  # fmt: skip
        keep = np.concatenate((keep_valid, nearest))
        self._found[problem] = [_rows(ranked, keep)]
        return _rows(ranked, np.concatenate((rows, nearest))[: options.max_solutions])

    def _ranked(self, problem: int, parts: list[Candidates]) -> Candidates:
        """All of a problem's candidates, best first."""
        pool = (
            parts[0]
            if len(parts) == 1
            else Candidates(*map(np.concatenate, zip(*parts, strict=True)))
        )
        reference = self._reference[problem]
        distance = joint_distance(self._parts.robot, pool.q, reference)
        cost = self._cost(pool.position_error, pool.orientation_error, distance)
        if self._parts.objectives is not None:
            cost += _weighted(
                self._parts.objectives, self._parts.objectives.values(pool.q, reference)
            )
        order = rank(cost, pool.valid)
        return _rows(pool, order)

    def _cost(
        self, position_error: np.ndarray, orientation_error: np.ndarray, distance: np.ndarray
    ):
        options = self._options
        return ranking_cost(
            position_error,
            orientation_error,
            distance,
            options.error_weight,
            options.distance_weight,
        )


def _rows(candidates: Candidates, which: np.ndarray | slice) -> Candidates:
    return Candidates(*(array[which] for array in candidates))


def _weighted(objectives: SearchObjectives, objective_values: np.ndarray) -> np.ndarray:
    """(...) what values (..., O) count in the ranking; infinite without a candidate."""
    return np.nan_to_num(objective_values @ objectives.weights, nan=np.inf)
