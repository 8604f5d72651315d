# SPDX-License-Identifier: Apache-2.0
"""Other solvers of the Panda, each asked in the way that suits it best.

A peer is built where its package is installed. Its calls are timed by a stopwatch, without what
prepares them and without the judge, who decides between restarts which solutions count.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ..errors import OptionError
from ..geometry import quat_xyzw_from_matrix
from ..robot.robot import Robot, load_robot
from .judge import Judge, different
from .solve import TOLERANCE

TIMEOUT = 0.005  # s, of solvers that search until one, or until they have found the nearest
_MOST_CALLS_PER_SOLUTION = 20


class Stopwatch:
    """Adds up the time of calls, in seconds."""

    def __init__(self) -> None:
        self.busy = 0.0  # of the processor, all threads together
        self.clock = 0.0

    def __call__(self, call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """What the call returns."""
        began, busy_began = time.perf_counter(), time.process_time()
        answer = call(*arguments, **options)
        self.busy += time.process_time() - busy_began
        self.clock += time.perf_counter() - began
        return answer


class Peer(ABC):
    """Another solver; all of its methods return solutions (S, J), S = 0 where it finds none.

    Args:
        robot: the Panda.
        judge: of the same robot.
        seed: of the starts of `several`.

    Raises:
        ImportError: its package is not installed.
    """

    name: str
    package: str  # what pip installs

    def __init__(self, robot: Robot, judge: Judge, seed: int):
        self._robot, self._judge = robot, judge
        self._random = np.random.default_rng(seed)
        self._open(robot)

    @abstractmethod
    def _open(self, robot: Robot) -> None:
        """Import the package and prepare it."""

    @abstractmethod
    def one(self, watch: Stopwatch, target: np.ndarray, start: np.ndarray) -> np.ndarray:
        """A solution of a target (1, 4, 4); the start (J,) is anywhere within the limits."""

    def near(self, watch: Stopwatch, target: np.ndarray, seed: np.ndarray) -> np.ndarray:
        """A solution near to the seed, which is near to one."""
        return self.one(watch, target, seed)

    def nearest(self, watch: Stopwatch, target: np.ndarray, seed: np.ndarray) -> np.ndarray:
        """The solution that is nearest to a seed anywhere."""
        return self.near(watch, target, seed)

    def some(self, watch: Stopwatch, target: np.ndarray, start: np.ndarray) -> np.ndarray:
        """The solutions that one call gives."""
        return self.one(watch, target, start)

    def several(
        self, watch: Stopwatch, target: np.ndarray, start: np.ndarray, wanted: int
    ) -> np.ndarray:
        """Different solutions that the judge accepts, from restarts; no more than are wanted."""
        kept = np.empty((0, self._robot.num_joints))
        for _ in range(wanted * _MOST_CALLS_PER_SOLUTION):
            found = self.some(watch, target, start)
            right = self._judge.accepts(found, target, TOLERANCE, TOLERANCE)
            kept = different(np.concatenate((kept, found[right])))
            if len(kept) >= wanted:
                break
            start = self._random.uniform(self._robot.lower, self._robot.upper)
        return kept[:wanted]

    def batch(self, watch: Stopwatch, targets: np.ndarray, starts: np.ndarray) -> list[np.ndarray]:
        """A solution for each target of (B, 1, 4, 4), from a start of (B, J)."""
        pairs = zip(targets, starts, strict=True)
        return [self.one(watch, target, start) for target, start in pairs]

    def _rows(self, found: Any) -> np.ndarray:
        """(S, J) of what a solver returns: nothing, a configuration, or several."""
        return np.asarray([] if found is None else found, float).reshape(-1, self._robot.num_joints)


class Ssik(Peer):
    """The closed form of the package ssik: its solver that is made for the Panda."""

    name, package = "ssik", "ssik"

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


class FrankIK(Peer):
    """The closed form of He and Liu 2021 (package frankik), which is given the last joint."""

    name = package = "frankik"
    _most_values = 100  # of the last joint, until one has a solution

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


class OptIK(Peer):
    """Newton steps on SE(3) with restarts (package optik-py), in one thread."""

    name, package = "optik", "optik-py"

    def _open(self, robot: Robot) -> None:
        import optik

        self._ik = optik.Robot.from_urdf_file(str(robot.urdf_path), robot.base, robot.tips[0])
        self._ik.set_parallelism(1)
        exact: dict[str, Any] = {"max_time": TIMEOUT, "tol_f": 1e-12}
        self._speed = optik.SolverConfig(solution_mode="speed", **exact)
        self._quality = optik.SolverConfig(solution_mode="quality", **exact)

    def _solve(
        self, watch: Stopwatch, config: Any, target: np.ndarray, start: np.ndarray
    ) -> np.ndarray:
        found = watch(self._ik.ik, config, target[0], start)
        return self._rows(found and found[0])

    def one(self, watch: Stopwatch, target: np.ndarray, start: np.ndarray) -> np.ndarray:
        return self._solve(watch, self._speed, target, start)

    def nearest(self, watch: Stopwatch, target: np.ndarray, seed: np.ndarray) -> np.ndarray:
        return self._solve(watch, self._quality, target, seed)


class TracIK(Peer):
    """TRAC-IK (Beeson and Ames 2015, package pytracik), which works in two threads."""

    name, package = "TRAC-IK", "pytracik"
    # It bounds each of the three components, we bound their norm.
    _epsilon = TOLERANCE / math.sqrt(3)
    # It keeps limits in float32.
    _limit_rounding = 1e-6

    def _open(self, robot: Robot) -> None:
        import pytracik

        self._ik = pytracik.ik
        urdf = robot.urdf_path.read_text()
        self._speed, self._distance = (
            pytracik.TRAC_IK(robot.base, robot.tips[0], urdf, TIMEOUT, self._epsilon, kind)
            for kind in (pytracik.SolveType.Speed, pytracik.SolveType.Distance)
        )

    def _solve(
        self, watch: Stopwatch, solver: Any, target: np.ndarray, start: np.ndarray
    ) -> np.ndarray:
        quat_xyzw = quat_xyzw_from_matrix(target[0, :3, :3]).tolist()
        status, *q = watch(self._ik, solver, start, *target[0, :3, 3].tolist(), *quat_xyzw)
        if status < 0:
            return self._rows(None)
        inside = np.clip(q, self._robot.lower, self._robot.upper)
        return self._rows(inside if np.abs(inside - q).max() <= self._limit_rounding else q)

    def one(self, watch: Stopwatch, target: np.ndarray, start: np.ndarray) -> np.ndarray:
        return self._solve(watch, self._speed, target, start)

    def nearest(self, watch: Stopwatch, target: np.ndarray, seed: np.ndarray) -> np.ndarray:
        return self._solve(watch, self._distance, target, seed)


PEERS: dict[str, type[Peer]] = {kind.name: kind for kind in (Ssik, FrankIK, OptIK, TracIK)}


def is_panda(robot: Robot) -> bool:
    """Whether peers know the robot."""
    return robot.fingerprint() == load_robot("panda").fingerprint()


def named_peers(peers: str) -> dict[str, type[Peer]]:
    """The peers that an option names: "all", "none", or names with commas.

    Raises:
        OptionError: there is no such peer.
    """
    if peers in ("all", "none"):
        return PEERS if peers == "all" else {}
    names = [name.strip() for name in peers.split(",")]
    unknown = [name for name in names if name not in PEERS]
    if unknown:
        raise OptionError(
            f"peers names {', '.join(unknown)}; peers are {', '.join(PEERS)}, or all or none"
        )
    return {name: PEERS[name] for name in names}


def build_peers(
    kinds: Iterable[type[Peer]], robot: Robot, judge: Judge, seed: int
) -> tuple[list[Peer], list[str]]:
    """The peers that are installed, and for each that is not the command that brings it."""
    built, missing = [], []
    for kind in kinds:
        try:
            built.append(kind(robot, judge, seed))
        except ImportError:
            missing.append(f"pip install {kind.package}")
    return built, missing
