# SPDX-License-Identifier: Apache-2.0
"""What a peer is: a solver that is asked for solutions, and timed by a stopwatch.

Its calls are timed without what prepares them and without the judge, who decides between restarts
which solutions count.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np

from ...robot.robot import Robot
from ..judge import Judge, different

BUDGET = 0.05  # s per tip, of a call for one solution
NEAREST_BUDGET = 0.005  # s, of a solver that searches for the nearest until its time is up
_LONGEST = 2.0  # s of the processor, of restarts for several solutions
_MOST_CALLS_PER_SOLUTION = 20
_STREAM = 0x9EE5  # any number


class Tolerance(NamedTuple):
    """How far off a solution may be."""

    position: float  # m
    orientation: float  # rad

    def __str__(self) -> str:
        if self.position == self.orientation:
            return f"{self.position:g}".replace("e-0", "e-")
        return f"{1e3 * self.position:g} mm, {math.degrees(self.orientation):g} deg"


EXACT = Tolerance(1e-5, 1e-5)
COARSE = Tolerance(1e-3, math.radians(0.1))


class Stopwatch:
    """Adds up the time of calls, in seconds."""

    def __init__(self) -> None:
        self.busy = 0.0  # of the processor, all threads together
        self.clock = 0.0

    def __call__(self, call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """What the call returns."""
        began, busy_began = time.perf_counter(), time.process_time()
        try:
            return call(*arguments, **options)
        finally:
            self.busy += time.process_time() - busy_began
            self.clock += time.perf_counter() - began


class Peer(ABC):
    """A solver; all of its methods return solutions (S, J), S = 0 where it finds none.

    Args:
        robot: the Panda, or any where `any_robot` says so.
        judge: of the same robot.
        seed: of the starts.

    Raises:
        ImportError: its package is not installed.
    """

    name: str
    settings: str  # how it is asked, for the documentation
    install = ""  # the command that brings its package
    any_robot = False  # whether it takes several tips

    def __init__(self, robot: Robot, judge: Judge, seed: int):
        self._robot, self._judge = robot, judge
        # Poses of the same seed are drawn from other numbers.
        self._random = np.random.default_rng((seed, _STREAM))
        self.hold_to(EXACT)

    def hold_to(self, tolerance: Tolerance) -> None:
        """Solve to this tolerance from now on."""
        self.tolerance = tolerance
        self._open(self._robot)

    def warm_up(self) -> None:  # noqa: B027 - most have nothing to compile
        """Compile what is compiled at a first call."""

    @abstractmethod
    def _open(self, robot: Robot) -> None:
        """Import the package and prepare it for `tolerance`."""

    @property
    def _smallest(self) -> float:
        """The tolerance of a solver that knows one number for metres and radians."""
        return min(self.tolerance)

    def _start(self) -> np.ndarray:
        """(J,) anywhere within the limits."""
        return self._random.uniform(self._robot.lower, self._robot.upper)

    def _rows(self, found: Any) -> np.ndarray:
        """(S, J) of what a solver returns: nothing, a configuration, or several."""
        return np.asarray([] if found is None else found, float).reshape(-1, self._robot.num_joints)


class Searcher(Peer):
    """A peer that finds a solution of any pose, from any start."""

    @abstractmethod
    def one(self, watch: Stopwatch, target: np.ndarray, start: np.ndarray) -> np.ndarray:
        """A solution of a target (T, 4, 4); the start (J,) is anywhere within the limits."""

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
            right = self._judge.accepts(found, target, *self.tolerance)
            kept = different(found[right], kept)
            if len(kept) >= wanted or watch.busy > _LONGEST:
                break
            start = self._start()
        return kept[:wanted]


class Restarter(Searcher):
    """A searcher that we restart, from random configurations, until its time is up."""

    def one(self, watch: Stopwatch, target: np.ndarray, start: np.ndarray) -> np.ndarray:
        return self._rows(watch(self._until_found, target, start))

    def _until_found(self, target: np.ndarray, start: np.ndarray) -> np.ndarray | None:
        end = time.process_time() + BUDGET * self._robot.num_tips
        goal = self._goal(target)
        while True:
            found = self._attempt(goal, start)
            if found is not None or time.process_time() >= end:
                return found
            start = self._start()

    def _goal(self, target: np.ndarray) -> Any:
        """The target (T, 4, 4) in the solver's terms."""
        return target[0]

    @abstractmethod
    def _attempt(self, goal: Any, start: np.ndarray) -> np.ndarray | None:
        """Joints (J,), or several (S, J), that the solver takes for solutions; None: no luck."""


def bare_urdf(robot: Robot) -> str:
    """The robot's URDF without shapes, all joints but the robot's fixed at zero.

    Solvers that read a URDF then have exactly its joints. Those that are held, such as fingers,
    must not move a tip.
    """
    root = ElementTree.parse(robot.urdf_path).getroot()
    for link in root.findall("link"):
        for part in list(link):
            link.remove(part)
    for joint in root.findall("joint"):
        if joint.get("name") not in robot.joint_names:
            joint.set("type", "fixed")
            for tag in ("mimic", "limit"):
                for part in joint.findall(tag):
                    joint.remove(part)
    return ElementTree.tostring(root, encoding="unicode")
