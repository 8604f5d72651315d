# SPDX-License-Identifier: Apache-2.0
"""Why a target has no solution, or fewer than were asked for.

It is found out when it is asked, so that solves cost nothing. A bound on the reach is a proof; all
else is what some further starts found, and the texts say so.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import NamedTuple

import numpy as np

from ..robot.reach import reach
from ..robot.robot import Robot, kept_with_robot
from .goal import Goal, Starts
from .least_squares import pose_errors
from .refine import refine_lm

_AT_ONCE = 256  # targets that are looked at together
_MISSES, _STARTS = 16, 64  # of a target: its nearest misses, and these with starts at random
_ROUNDING = 1e-6  # rad or m, by which a limit may be passed
_LIGHT = 0.05  # what 1 rad counts where position comes first, in m


class Status(IntEnum):
    """What became of a target."""

    SOLVED = 0  #: as many solutions as were asked for
    FEWER_THAN_ASKED = 1
    BEYOND_REACH = 2  #: proven: the links are too short for the position
    ORIENTATION = 3  #: the position was reached, but not with this orientation
    OUTSIDE_LIMITS = 4  #: reached by joints outside their limits only
    SELF_COLLISION = 5  #: reached, but by configurations that touch the robot itself only
    TIME_USED_UP = 6  #: before the usual number of starts
    NOT_FOUND = 7  #: in all starts; the text says where further ones find a solution
    WORLD = 8  #: reached, but by configurations that touch an obstacle only


class Findings(NamedTuple):
    """Of B targets: their status, by how much they miss, and where."""

    status: np.ndarray  # (B,) uint8, of `Status`
    # (B,) m or rad beyond reach, orientation or limit; 0 where other starts found a solution; NaN
    amount: np.ndarray
    place: np.ndarray  # (B,) index of the tip or joint; -1 elsewhere


class Rows(NamedTuple):
    """What one target got."""

    asked: int
    valid: int
    position_error: float  # m, of the first row
    orientation_error: float  # rad


@dataclass(frozen=True, eq=False)
class Evidence:
    """What a search knows of its B targets besides the rows that it returns."""

    robot: Robot
    goal: Goal
    starts: np.ndarray  # (B,) how many were refined
    timed_out: np.ndarray  # (B,) bool: the time ended the search
    plan: Starts  # how many there may be
    min_separation: float

    def joined(self, parts: Sequence["Evidence"]) -> "Evidence":
        """What is known of the targets of several searches, of which this is one."""
        goals = [part.goal for part in parts]
        goal = replace(
            self.goal,
            T_base_tip=np.concatenate([goal.T_base_tip for goal in goals]),
            reference=np.concatenate([goal.reference for goal in goals]),
        )
        return replace(
            self,
            goal=goal,
            starts=np.concatenate([part.starts for part in parts]),
            timed_out=np.concatenate([part.timed_out for part in parts]),
        )

    def findings(
        self, q: np.ndarray, position_error: np.ndarray, orientation_error: np.ndarray,
        valid: np.ndarray, in_world: bool,
    ) -> Findings:  # fmt: skip
        """The findings, from the rows of a result (B, M, ...) in a world or without."""
        count = valid.sum(1)
        status = np.where(count == valid.shape[1], Status.SOLVED, Status.FEWER_THAN_ASKED)
        found = Findings(
            status.astype(np.uint8), np.full(len(status), np.nan), np.full(len(status), -1)
        )
        unsolved = np.flatnonzero(count == 0)
        if not len(unsolved):
            return found
        close = position_error <= self.goal.position_tolerance
        close &= orientation_error <= self.goal.orientation_tolerance
        touching = np.any(close.all(-1), 1)
        early = self.timed_out & (self.starts < self.plan.budget)
        status = found.status
        status[unsolved] = Status.NOT_FOUND
        status[unsolved[early[unsolved]]] = Status.TIME_USED_UP
        status[unsolved[touching[unsolved]]] = Status.WORLD if in_world else Status.SELF_COLLISION
        self._beyond_reach(found, unsolved)
        rest = np.flatnonzero(found.status == Status.NOT_FOUND)
        for first in range(0, len(rest), _AT_ONCE):
            self._looked_at_again(found, rest[first : first + _AT_ONCE], q)
        return found

    def sentence(self, found: Findings, problem: int, rows: "Rows") -> str:
        """One line that says what became of a target, from what it returned."""
        status, amount = Status(found.status[problem]), found.amount[problem]
        starts = self._counted(problem)
        if status == Status.SOLVED:
            return _solutions(rows.valid)
        if status == Status.FEWER_THAN_ASKED:
            text = f"{_solutions(rows.valid)} of the {rows.asked} asked for"
            if self.timed_out[problem]:
                return f"{text}: the time was used up after {starts}"
            return f"{text}: {starts} found no other that differs by {self.min_separation:g}"
        if status == Status.SELF_COLLISION:
            return f"every configuration found touches the robot itself, in {starts}"
        if status == Status.WORLD:
            return (
                "every configuration found touches an obstacle, or the robot itself where that is "
                f"asked, in {starts}"
            )
        misses = "; no configuration was looked at"
        if np.isfinite(rows.position_error):
            misses = (
                f"; the nearest found misses it by {rows.position_error:.3g} m and "
                f"{rows.orientation_error:.3g} rad"
            )
        if status == Status.TIME_USED_UP:
            return f"the time was used up after {starts}{misses}"
        if status == Status.NOT_FOUND:
            text = f"no configuration within the limits was found in {starts}{misses}"
            return f"{text}; further starts found one" if amount == 0 else text
        if status == Status.OUTSIDE_LIMITS:
            joint = self.robot.joint_names[found.place[problem]]
            unit = "m" if self._slides(found.place[problem]) else "rad"
            return (
                f"no configuration within the limits was found in {starts}; outside of them one "
                f"was, with {joint} {amount:.3g} {unit} beyond its limit"
            )
        tip = self.robot.tips[found.place[problem]]
        if status == Status.BEYOND_REACH:
            return f"the target of {tip} is {amount:.3g} m or more beyond its reach"
        return (
            f"{tip} reaches the position but not with this orientation, in {starts}; the nearest "
            f"orientation found there is {amount:.3g} rad off"
        )

    def _counted(self, problem: int) -> str:
        count = int(self.starts[problem])
        limited = " (as many as max_rounds allows)" if self.plan.max_rounds is not None else ""
        return f"{count} {'start' if count == 1 else 'starts'}{limited}"

    def _slides(self, joint: int) -> bool:
        return joint in self.robot.joint[self.robot.prismatic]

    def _asked(self) -> np.ndarray:
        """(T, 6) bool along x y z rx ry rz of the targets."""
        every_axis = np.ones((self.robot.num_tips, 6), bool)
        return every_axis if self.goal.asked is None else self.goal.asked

    def _beyond_reach(self, found: Findings, problems: np.ndarray) -> None:
        tolerances = np.broadcast_to(self.goal.position_tolerance, self.robot.num_tips)
        for tip in np.flatnonzero(self._asked()[:, :3].all(1)):
            center, length = _reach(self.robot, int(tip))
            distance = np.linalg.norm(self.goal.T_base_tip[problems, tip, :3, 3] - center, axis=-1)
            excess = distance - length
            far = (excess > tolerances[tip]) & ~(found.amount[problems] > excess)
            rows = problems[far]
            found.status[rows] = Status.BEYOND_REACH
            found.amount[rows], found.place[rows] = excess[far], tip

    def _looked_at_again(self, found: Findings, problems: np.ndarray, q: np.ndarray) -> None:
        """See whether limits or orientations stand in the way of some targets."""
        robot = self.robot
        unit = np.random.default_rng(0).random((len(problems), _STARTS, robot.num_joints))
        starts = robot.lower + unit * (robot.upper - robot.lower)
        misses = q[problems, :_MISSES]
        known = np.isfinite(misses).all(-1)
        starts[:, : misses.shape[1]][known] = misses[known]
        excess = self._outside_limits(problems, starts)  # (n, J)
        largest = excess.max(-1)
        outside = np.isfinite(largest) & (largest > 0)
        self._note(found, problems[outside], Status.OUTSIDE_LIMITS, excess[outside])
        found.amount[problems[largest == 0]] = 0.0
        rest = np.isinf(largest)
        if rest.any() and self._asked()[:, 3:].any():
            angles = self._with_position_alone(problems[rest], starts[rest])  # (n, T)
            reached = np.isfinite(angles).all(-1)
            turned = reached & (angles > self.goal.orientation_tolerance).any(-1)
            self._note(found, problems[rest][turned], Status.ORIENTATION, angles[turned])
            found.amount[problems[rest][reached & ~turned]] = 0.0

    def _note(
        self, found: Findings, problems: np.ndarray, status: Status, amounts: np.ndarray
    ) -> None:
        """Note the largest of amounts (n, places)."""
        found.status[problems] = status
        found.amount[problems], found.place[problems] = amounts.max(-1), amounts.argmax(-1)

    def _outside_limits(self, problems: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """(n, J) How far the joints of a configuration that reaches its target pass their limits,
        the least found; infinite where none was found."""
        goal, robot = self.goal, self.robot
        refined = refine_lm(
            _without_limits(robot), starts, goal.T_base_tip[problems], goal.position_tolerance,
            goal.orientation_tolerance, axis_weights=goal.axis_weights,
        )  # fmt: skip
        excess = _beyond_limits(robot, refined.q)
        excess[~refined.converged] = np.inf
        return excess[np.arange(len(problems)), excess.max(-1).argmin(1)]

    def _with_position_alone(self, problems: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """(n, T) Orientation errors [rad] of a configuration whose positions are exact, the least
        found; infinite where none was found."""
        goal, robot, targets = self.goal, self.robot, self.goal.T_base_tip[problems]
        tolerances = goal.position_tolerance, goal.orientation_tolerance
        near = refine_lm(
            robot, starts, targets, *tolerances, orientation_weight=_LIGHT,
            axis_weights=goal.axis_weights,
        )  # fmt: skip
        positions = self._asked().astype(np.float64)
        positions[:, 3:] = 0.0
        exact = refine_lm(robot, near.q, targets, *tolerances, axis_weights=positions)
        _, angles = pose_errors(robot, exact.q, targets, goal.axis_weights)
        angles[~exact.converged] = np.inf
        return angles[np.arange(len(problems)), angles.max(-1).argmin(1)]


def _solutions(count: int) -> str:
    return f"{count} {'solution' if count == 1 else 'solutions'}"


_reach = kept_with_robot(reach)


@kept_with_robot
def _without_limits(robot: Robot) -> Robot:
    """The robot with limits that are a turn wider, or as much as a shift's range."""
    width = np.full(robot.num_joints, 2 * np.pi)
    sliding = robot.joint[robot.prismatic]
    width[sliding] = (robot.upper - robot.lower)[sliding]
    return replace(robot, lower=robot.lower - width, upper=robot.upper + width)


def _beyond_limits(robot: Robot, q: np.ndarray) -> np.ndarray:
    """How far joints q (..., J) are outside their limits, rad or m, on their nearest turn."""
    turns = np.round((q - 0.5 * (robot.lower + robot.upper)) / (2 * np.pi))
    turns[..., robot.joint[robot.prismatic]] = 0
    q = q - 2 * np.pi * turns
    excess = np.maximum(robot.lower - q, q - robot.upper)
    return np.where(robot.continuous | (excess < _ROUNDING), 0.0, excess)
