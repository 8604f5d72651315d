# SPDX-License-Identifier: Apache-2.0
"""Closed forms of the Panda."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...robot.robot import Robot
from .peer import Searcher, Stopwatch


class Ssik(Searcher):
    """The closed form of the package ssik: its solver that is made for the Panda."""

    name, install = "ssik", "pip install ssik"
    settings = (
        "the solver that it has made for the Panda; its sweep of the last joint is fixed and gives "
        "some 26 solutions"
    )

    def _open(self, robot: Robot) -> None:
        from ssik.prebuilt.franka import panda_ik

        self._ik = panda_ik.solve

    def _solve(self, watch: Stopwatch, target: np.ndarray, **options: Any) -> np.ndarray:
        return self._rows([solution.q for solution in watch(self._ik, target[0], **options)])

    def one(self, watch: Stopwatch, target: np.ndarray, start: np.ndarray) -> np.ndarray:
        return self._solve(watch, target, max_solutions=1)

    def near(self, watch: Stopwatch, target: np.ndarray, seed: np.ndarray) -> np.ndarray:
        return self._solve(watch, target, max_solutions=1, q_seed=seed, seed_metric="wrap_l2")

    def several(
        self, watch: Stopwatch, target: np.ndarray, start: np.ndarray, wanted: int
    ) -> np.ndarray:
        # Its values of the last joint are fixed: other seeds give the same solutions.
        return self._solve(watch, target, max_solutions=wanted)


class FrankIK(Searcher):
    """The closed form of He and Liu 2021 (package frankik), which is given the last joint."""

    name, install = "frankik", "pip install frankik"
    settings = (
        "random values of the last joint until one has solutions, at most 100; near a seed its own "
        "sweep, 20 values over 10 degrees, for the nearest 200 over the whole range"
    )
    _most_values = 100

    def _open(self, robot: Robot) -> None:
        import frankik

        self._ik_full = frankik.ik_full
        self._sweep = frankik.FrankaKinematics(frankik.RobotType.PANDA).inverse

    def _until_found(self, T_base_tip: np.ndarray, start: np.ndarray, last: np.ndarray) -> Any:
        for value in last:
            found = self._ik_full(T_base_tip, start, value)
            found = found[np.isfinite(found).all(1)]
            if len(found):
                return found
        return None

    def one(self, watch: Stopwatch, target: np.ndarray, start: np.ndarray) -> np.ndarray:
        lower, upper = self._robot.lower[6], self._robot.upper[6]
        last = self._random.uniform(lower, upper, self._most_values)
        return self._rows(watch(self._until_found, target[0], start, last))[:1]

    def near(self, watch: Stopwatch, target: np.ndarray, seed: np.ndarray) -> np.ndarray:
        return self._swept(watch, target, seed, 10.0, 20)

    def nearest(self, watch: Stopwatch, target: np.ndarray, seed: np.ndarray) -> np.ndarray:
        span = float(np.degrees(self._robot.upper[6] - self._robot.lower[6]))
        return self._swept(watch, target, seed, span, 200)

    def _swept(
        self, watch: Stopwatch, target: np.ndarray, seed: np.ndarray, span: float, values: int
    ) -> np.ndarray:
        """The nearest for so many values of the last joint, which span so many degrees."""
        options = {"q7_sample_interval": span, "q7_sample_size": values}
        return self._rows(watch(self._sweep, target[0], q0=seed, global_solution=True, **options))

    def some(self, watch: Stopwatch, target: np.ndarray, start: np.ndarray) -> np.ndarray:
        return self._rows(watch(self._until_found, target[0], start, start[6:]))


class Eaik(Searcher):
    """The closed form of the first six joints (package EAIK), which is given the last joint."""

    name, install = "EAIK", "pip install EAIK"
    settings = (
        "closed form of six joints, one thread: four random values of the last joint at a time "
        "until one has solutions, at most 100; near a seed 8 values over 10 degrees; for the "
        "nearest 200 values over the whole range"
    )
    _at_once, _most_values = 4, 100

    def _open(self, robot: Robot) -> None:
        from eaik.IK_Homogeneous import HomogeneousRobot

        at_zero = [robot.placement[0]]
        for placement in robot.placement[1:]:
            at_zero.append(at_zero[-1] @ placement)
        self._six = HomogeneousRobot(np.stack(at_zero))
        self._T_tip_flange = np.linalg.inv(robot.tip_placement[0])
        self._middle = 0.5 * (robot.lower + robot.upper)[:6]

    def _solve(self, T_base_tip: np.ndarray, last: np.ndarray) -> np.ndarray:
        """All solutions (S, 7) within the limits for values (N,) of the last joint."""
        back = np.tile(np.eye(4), (len(last), 1, 1))
        back[:, 0, 0] = back[:, 1, 1] = np.cos(last)
        back[:, 0, 1] = np.sin(last)
        back[:, 1, 0] = -back[:, 0, 1]
        found = []
        answers = self._six.IK_batched(T_base_tip @ self._T_tip_flange @ back, 1)
        for answer, value in zip(answers, last, strict=True):
            if len(answer.Q):
                q = answer.Q[~np.asarray(answer.is_LS)]
                q = self._middle + np.remainder(q - self._middle + np.pi, 2 * np.pi) - np.pi
                found.append(np.column_stack((q, np.full(len(q), value))))
        q = self._rows(np.concatenate(found) if found else None)
        return q[((q >= self._robot.lower) & (q <= self._robot.upper)).all(1)]

    def _until_found(self, T_base_tip: np.ndarray) -> np.ndarray:
        found = np.empty((0, 7))
        for _ in range(self._most_values // self._at_once):
            found = self._solve(T_base_tip, self._last(self._at_once))
            if len(found):
                break
        return found

    def _last(self, count: int) -> np.ndarray:
        return self._random.uniform(self._robot.lower[6], self._robot.upper[6], count)

    def one(self, watch: Stopwatch, target: np.ndarray, start: np.ndarray) -> np.ndarray:
        return watch(self._until_found, target[0])[:1]

    def near(self, watch: Stopwatch, target: np.ndarray, seed: np.ndarray) -> np.ndarray:
        around = np.radians(np.linspace(-5, 5, 8))
        return watch(self._nearest_of, target[0], seed, seed[6] + around)

    def nearest(self, watch: Stopwatch, target: np.ndarray, seed: np.ndarray) -> np.ndarray:
        last = np.linspace(self._robot.lower[6], self._robot.upper[6], 200)
        return watch(self._nearest_of, target[0], seed, last)

    def _nearest_of(self, T_base_tip: np.ndarray, seed: np.ndarray, last: np.ndarray) -> np.ndarray:
        q = self._solve(T_base_tip, last)
        return q[np.linalg.norm(q - seed, axis=-1).argsort()[:1]]

    def some(self, watch: Stopwatch, target: np.ndarray, start: np.ndarray) -> np.ndarray:
        return watch(self._until_found, target[0])
