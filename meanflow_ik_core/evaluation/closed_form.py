# SPDX-License-Identifier: Apache-2.0
"""Every solution of a 7-joint arm, by closed form: fix the last joint, solve the other six.

Needs the package EAIK (extra ``bench``); imported when a `ClosedForm` is made.
"""

from __future__ import annotations

import numpy as np

from ..errors import OptionError, RobotError
from ..robot.robot import Robot
from ..solving.least_squares import pose_errors

# What the decomposition returns when there is no solution is a least-squares answer far off this.
_EXACT = 1e-7  # m and rad
# Of the search for the nearest solution: values of the last joint; how often it looks closer, about
# how many of the nearest solutions, with how many values each.
_SWEEP, _ZOOMS, _NEAREST, _ZOOM = 2048, 3, 24, 17


class ClosedForm:
    """Inverse kinematics of an arm with J = 7 whose first six joints have a closed form.

    Ostermeier, Kuelz, Althoff 2025, "Automatic geometric decomposition for analytical inverse
    kinematics" (EAIK).
    """

    def __init__(self, robot: Robot):
        """Decompose the arm.

        Raises:
            OptionError: EAIK is not installed.
            RobotError: the robot is not such an arm.
        """
        try:
            from eaik.IK_Homogeneous import HomogeneousRobot
        except ImportError as error:
            raise OptionError(
                "the closed form needs the package EAIK: pip install '.[bench]'"
            ) from error
        _check_arm(robot)
        self.robot = robot
        at_zero = [robot.placement[0]]
        for placement in robot.placement[1:]:
            at_zero.append(at_zero[-1] @ placement)
        self._six = HomogeneousRobot(np.stack(at_zero))
        if not self._six.hasKnownDecomposition():
            raise RobotError(
                f"the first six joints of {robot.name!r} have no closed form; EAIK calls them "
                f"{self._six.getKinematicFamily()}"
            )

    def solve(self, T_base_tip: np.ndarray, q_last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """All solutions for given values of the last joint, within the limits and beyond.

        Args:
            T_base_tip: (N, 4, 4), or (4, 4) for all.
            q_last: (N,) rad.

        Returns:
            rows (S,), ascending, which of the N a solution belongs to, and q (S, 7) rad, the first
            six joints within half a turn of the middle of their limits.
        """
        robot = self.robot
        q_last = np.asarray(q_last, dtype=np.float64)
        targets = np.broadcast_to(np.asarray(T_base_tip, dtype=np.float64), (len(q_last), 4, 4))
        if len(q_last) == 0:
            return np.empty(0, dtype=np.int64), np.empty((0, 7))
        turn = np.tile(np.eye(4), (len(q_last), 1, 1))
        turn[:, 0, 0] = turn[:, 1, 1] = np.cos(q_last)
        turn[:, 1, 0] = np.sin(q_last)
        turn[:, 0, 1] = -turn[:, 1, 0]
        T_base_six = targets @ np.linalg.inv(turn @ robot.tip_placement[0])
        found = [answer.Q for answer in self._six.IK_batched(T_base_six, 1)]
        rows = np.repeat(np.arange(len(q_last)), [len(answer) for answer in found])
        q = np.column_stack((np.concatenate(found).reshape(-1, 6), q_last[rows]))
        middle = 0.5 * (robot.lower + robot.upper)
        q = middle + np.remainder(q - middle + np.pi, 2 * np.pi) - np.pi
        q[:, 6] = q_last[rows]
        finite = np.isfinite(q).all(-1)
        rows, q = rows[finite], q[finite]
        position, angle = pose_errors(robot, q[:, None], targets[rows][:, None])
        exact = ((position < _EXACT) & (angle < _EXACT))[:, 0, 0]
        return rows[exact], q[exact]

    def last_joint_sweep(self, count: int) -> np.ndarray:
        """(count,) values of the last joint, evenly spaced from limit to limit."""
        return np.linspace(self.robot.lower[6], self.robot.upper[6], count)

    def nearest_distance(self, T_base_tip: np.ndarray, reference: np.ndarray) -> float:
        """Distance from a reference to the nearest solution of a pose within the limits.

        Sweeps the last joint, and then again about the values whose solutions are nearest.

        Args:
            T_base_tip: (4, 4).
            reference: (7,) rad.

        Returns:
            rad, in the space of the joints; inf where there is no solution.
        """
        lower, upper = self.robot.lower[6], self.robot.upper[6]
        x, nearest = self.last_joint_sweep(_SWEEP), np.inf
        step = x[1] - x[0]
        for _ in range(_ZOOMS):
            _, q = self.solve(T_base_tip, x)
            q = q[self.robot.within_limits(q)]
            distance = np.linalg.norm(q - reference, axis=-1)
            nearest = min(nearest, distance.min(initial=np.inf))
            middle = q[np.argsort(distance)[:_NEAREST], 6]
            x = np.clip(middle[:, None] + np.linspace(-step, step, _ZOOM), lower, upper).ravel()
            step *= 2 / (_ZOOM - 1)
        return float(nearest)


def _check_arm(robot: Robot) -> None:
    problem = None
    if robot.num_tips != 1 or robot.num_joints != 7 or len(robot.parent) != 7:
        problem = f"{robot.num_joints} joints and {robot.num_tips} tips"
    elif robot.prismatic.any():
        problem = "prismatic joints"
    elif (robot.multiplier != 1).any() or robot.offset.any():
        problem = "joints with a multiplier or an offset"
    elif (robot.parent != np.arange(-1, 6)).any() or (robot.joint != np.arange(7)).any():
        problem = "branches"
    elif robot.continuous.any() or (robot.upper - robot.lower > 2 * np.pi).any():
        problem = "joints that turn more than once"
    if problem:
        raise RobotError(
            f"the closed form is for arms with 7 revolute joints and one tip; {robot.name!r} has "
            f"{problem}"
        )
