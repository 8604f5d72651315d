# SPDX-License-Identifier: Apache-2.0
"""Compiled solvers that search from a start."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...geometry import quat_xyzw_from_matrix
from ...robot.robot import Robot
from .peer import BUDGET, NEAREST_BUDGET, Restarter, Searcher, Stopwatch, bare_urdf


class OptIK(Searcher):
    """Newton steps on SE(3) with restarts (package optik-py), in one thread."""

    name, install = "optik", "pip install optik-py"
    settings = (
        "one thread, 50 ms by the clock, error squared below a hundredth of the tolerance's; "
        '"speed", for the nearest "quality" and 5 ms'
    )

    def _open(self, robot: Robot) -> None:
        import optik

        self._ik = optik.Robot.from_urdf_file(str(robot.urdf_path), robot.base, robot.tips[0])
        self._ik.set_parallelism(1)
        squared = 1e-2 * self._smallest**2
        self._speed = optik.SolverConfig(solution_mode="speed", max_time=BUDGET, tol_f=squared)
        self._quality = optik.SolverConfig(
            solution_mode="quality", max_time=NEAREST_BUDGET, tol_f=squared
        )

    def _solve(
        self, watch: Stopwatch, config: Any, target: np.ndarray, start: np.ndarray
    ) -> np.ndarray:
        found = watch(self._ik.ik, config, target[0], start)
        return self._rows(found and found[0])

    def one(self, watch: Stopwatch, target: np.ndarray, start: np.ndarray) -> np.ndarray:
        return self._solve(watch, self._speed, target, start)

    def nearest(self, watch: Stopwatch, target: np.ndarray, seed: np.ndarray) -> np.ndarray:
        return self._solve(watch, self._quality, target, seed)


class TracIK(Searcher):
    """TRAC-IK (Beeson and Ames 2015, package pytracik), which works in two threads."""

    name, install = "TRAC-IK", "pip install pytracik"
    settings = (
        'two threads, 50 ms by the clock, "Speed", for the nearest "Distance" and 5 ms; it bounds '
        "each component of the error by one number, here the tolerance over the root of three"
    )
    # It keeps limits in float32.
    _limit_rounding = 1e-6

    def _open(self, robot: Robot) -> None:
        import pytracik

        self._ik = pytracik.ik
        urdf, epsilon = robot.urdf_path.read_text(), self._smallest / math.sqrt(3)
        self._speed, self._distance = (
            pytracik.TRAC_IK(robot.base, robot.tips[0], urdf, seconds, epsilon, kind)
            for kind, seconds in (
                (pytracik.SolveType.Speed, BUDGET),
                (pytracik.SolveType.Distance, NEAREST_BUDGET),
            )
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


class RoboPlan(Searcher):
    """Steps of the damped pseudoinverse with restarts (package roboplan-simple-ik)."""

    name, install = "roboplan", "pip install roboplan-simple-ik"
    settings = (
        "50 ms by the clock, restarts until then, at most 30 full steps each (its own default are "
        "100 quarter steps, which take half as long again), damping 1e-3, no collision check"
    )
    _most_restarts = 100_000

    def _open(self, robot: Robot) -> None:
        from roboplan import core, simple_ik

        self._core = core
        scene = core.Scene(robot.name, core.loadUrdfSceneDescriptionFromXml(bare_urdf(robot)))
        options = simple_ik.SimpleIkOptions(
            max_iters=30, max_time=BUDGET, max_restarts=self._most_restarts, step_size=1.0,
            max_linear_error_norm=self.tolerance.position,
            max_angular_error_norm=self.tolerance.orientation, check_collisions=False,
        )  # fmt: skip
        self._ik = simple_ik.SimpleIk(scene, options)
        self._ik.setRngSeed(int(self._random.integers(2**31)))
        self._names = scene.getJointNames()
        self._order = [self._names.index(name) for name in robot.joint_names]

    def one(self, watch: Stopwatch, target: np.ndarray, start: np.ndarray) -> np.ndarray:
        q = np.empty(len(self._names))
        q[self._order] = start
        robot, core = self._robot, self._core
        goal = core.CartesianConfiguration(robot.base, robot.tips[0], target[0])
        begin, found = (core.JointConfiguration(self._names, q) for _ in range(2))
        solved = watch(self._ik.solveIk, goal, begin, found)
        return self._rows(np.asarray(found.positions)[self._order] if solved else None)


class Toolbox(Searcher):
    """Levenberg-Marquardt in C++ with restarts (package roboticstoolbox-python)."""

    name, install = "toolbox", "pip install roboticstoolbox-python"
    settings = (
        "`ETS.ik_LM` with its defaults (chan, k 1, 30 steps, 100 restarts, joint limits), but its "
        "error, half the squared one, to the tolerance"
    )

    def _open(self, robot: Robot) -> None:
        from roboticstoolbox import ET, ETS

        parts = []
        for placement, lower, upper in zip(robot.placement, robot.lower, robot.upper, strict=True):
            parts += [ET.SE3(placement), ET.Rz(qlim=(lower, upper))]
        self._ik = ETS([*parts, ET.SE3(robot.tip_placement[0])]).ik_LM
        self._energy = 0.5 * self._smallest**2

    def one(self, watch: Stopwatch, target: np.ndarray, start: np.ndarray) -> np.ndarray:
        found = watch(self._ik, target[0], q0=start, tol=self._energy)
        return self._rows(found.q if found.success else None)


class Kdl(Restarter):
    """Newton-Raphson with joint limits of Orocos KDL (PyKDL), restarted at random."""

    name, install = "KDL", "apt install python3-pykdl"
    settings = (
        "`ChainIkSolverPos_NR_JL`, restarts for 50 ms of the processor, at most 30 steps each (its "
        "own default of 100 takes twice as long), components to the tolerance over the root of "
        "three"
    )

    def _open(self, robot: Robot) -> None:
        import PyKDL

        self._kdl, chain = PyKDL, PyKDL.Chain()
        for place in range(7):
            fixed, turning = PyKDL.Joint(PyKDL.Joint.Fixed), PyKDL.Joint(PyKDL.Joint.RotZ)
            chain.addSegment(PyKDL.Segment("", fixed, self._frame(robot.placement[place])))
            tip = robot.tip_placement[0] if place == 6 else np.eye(4)
            chain.addSegment(PyKDL.Segment("", turning, self._frame(tip)))
        # What it is made of is not kept alive by it.
        self._parts = (
            chain, self._joints(robot.lower), self._joints(robot.upper),
            PyKDL.ChainFkSolverPos_recursive(chain), PyKDL.ChainIkSolverVel_pinv(chain),
        )  # fmt: skip
        epsilon = self._smallest / math.sqrt(3)
        self._ik = PyKDL.ChainIkSolverPos_NR_JL(*self._parts, 30, epsilon)
        self._found = PyKDL.JntArray(7)

    def _frame(self, T: np.ndarray) -> Any:
        rotation = self._kdl.Rotation(*T[:3, :3].ravel().tolist())
        return self._kdl.Frame(rotation, self._kdl.Vector(*T[:3, 3].tolist()))

    def _joints(self, q: np.ndarray) -> Any:
        array = self._kdl.JntArray(len(q))
        for place, value in enumerate(q.tolist()):
            array[place] = value
        return array

    def _goal(self, target: np.ndarray) -> Any:
        return self._frame(target[0])

    def _attempt(self, goal: Any, start: np.ndarray) -> np.ndarray | None:
        if self._ik.CartToJnt(self._joints(start), goal, self._found) < 0:
            return None
        return np.array([self._found[place] for place in range(7)])
