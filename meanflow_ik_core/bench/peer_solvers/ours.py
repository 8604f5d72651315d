# SPDX-License-Identifier: Apache-2.0
"""Our solver in the terms of a peer."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...robot.robot import Robot
from ...solving.solver import load_solver
from ...solving.tracker import TrackStatus
from ..judge import MIN_SEPARATION
from .peer import Peer, Searcher, Stopwatch

_SEEDS = 2**31  # that a call may have
_MOST_STEPS = 20  # of a tracker towards a pose near to it


class _Ours(Searcher):
    """`IKSolver.solve` with one sampler; the start of `one` is not asked for."""

    any_robot = True
    _starts_per_solution: int  # where several are asked for

    def _open(self, robot: Robot) -> None:
        self._solver = load_solver(robot, sampler=self.name)

    def warm_up(self) -> None:
        self._solver.warm_up()

    def one(self, watch: Stopwatch, target: np.ndarray, start: np.ndarray) -> np.ndarray:
        return self._solve(watch, target[None], max_solutions=1)[0]

    def near(self, watch: Stopwatch, target: np.ndarray, seed: np.ndarray) -> np.ndarray:
        return self._solve(watch, target[None], max_solutions=1, seed_state=seed)[0]

    def several(
        self, watch: Stopwatch, target: np.ndarray, start: np.ndarray, wanted: int
    ) -> np.ndarray:
        starts = wanted * self._starts_per_solution
        return self._solve(watch, target[None], num_samples=starts, max_solutions=wanted)[0]

    def diverse(
        self, watch: Stopwatch, target: np.ndarray, start: np.ndarray, wanted: int
    ) -> np.ndarray:
        """Solutions that spread over the solution set, of ten starts for each."""
        return self._solve(
            watch, target[None], num_samples=10 * wanted, max_solutions=wanted, select="diverse"
        )[0]

    def free(self, watch: Stopwatch, target: np.ndarray, start: np.ndarray) -> np.ndarray:
        """A solution free of self-collision."""
        return self._solve(watch, target[None], max_solutions=1, avoid_self_collision=True)[0]

    def batch(self, watch: Stopwatch, targets: np.ndarray, starts: np.ndarray) -> list[np.ndarray]:
        """A solution for each target of (B, T, 4, 4), by one call."""
        return self._solve(watch, targets, max_solutions=1)

    def _solve(self, watch: Stopwatch, targets: np.ndarray, **options: Any) -> list[np.ndarray]:
        """The solutions (S, J) of each of the targets."""
        result = watch(
            self._solver.solve, targets, seed=int(self._random.integers(_SEEDS)),
            position_tolerance=self.tolerance.position,
            orientation_tolerance=self.tolerance.orientation, min_separation=MIN_SEPARATION,
            **options,
        )  # fmt: skip
        pairs = zip(result.joint_positions, result.valid, strict=True)
        return [q[valid] for q, valid in pairs]


class Uniform(_Ours):
    """From random starts."""

    name = "uniform"
    settings = "four uniform starts for each solution where several are wanted, else its defaults"
    _starts_per_solution = 4


class Network(_Ours):
    """From samples of the shipped network."""

    name = "meanflow"
    settings = "two samples for each solution where several are wanted, else its defaults"
    _starts_per_solution = 2


class Tracked(Peer):
    """`IKSolver.tracker`, from joints near to a solution."""

    name = "tracked"
    settings = "steps of at most 0.1 rad, at most 20, until the pose is reached"

    def _open(self, robot: Robot) -> None:
        position, orientation = self.tolerance
        self._tracker = load_solver(robot, sampler="uniform").tracker(
            0.5 * (robot.lower + robot.upper), position_tolerance=position,
            orientation_tolerance=orientation,
        )  # fmt: skip

    def near(self, watch: Stopwatch, target: np.ndarray, seed: np.ndarray) -> np.ndarray:
        """A solution near to the seed, which is near to one."""
        self._tracker.reset(seed)
        return self._rows(watch(self._follow, target[0]))

    def _follow(self, T_base_tip: np.ndarray) -> np.ndarray | None:
        for _ in range(_MOST_STEPS):
            step = self._tracker.step(T_base_tip)
            if step.status is TrackStatus.REACHED:
                return step.joint_positions
        return None


OURS: tuple[type[Peer], ...] = (Uniform, Network, Tracked)
