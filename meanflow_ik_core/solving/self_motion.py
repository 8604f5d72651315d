# SPDX-License-Identifier: Apache-2.0
"""Joint motions that keep all tips where they are, such as the elbow circle of a 7-joint arm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ..robot.robot import Robot
from .goal import Goal
from .refinement import Refinement

_STEP = 0.05  # rad or m, of all joints together
_MOST_STEPS = 400
_REFINEMENT = Refinement(recombining=False)


class SelfMotion(NamedTuple):
    """A connected set of solutions of one target, in order."""

    joint_positions: np.ndarray  #: (S, J) rad or m
    moving: np.ndarray  #: (J,) bool, the joints that differ
    start: int  #: which one the walk began at
    closed: bool  #: whether the last one is next to the first


def redundant_parts(robot: Robot, asked: np.ndarray | None = None) -> list[np.ndarray]:
    """The parts of a robot that can move while its tips stay, each (J,) bool of its joints.

    Such a part are the joints that move one tip and no other, where there are more than its target
    asks for; or all joints, where no tip has such a part and there are more than all targets ask
    for.

    Args:
        robot: whose joints.
        asked: (T, 6) bool, axes x y z rx ry rz of the targets that are asked for; None: all.
    """
    rows = np.full(robot.num_tips, 6) if asked is None else asked.sum(1)
    own = robot.moves & (robot.moves.sum(0) == 1)
    parts = [own[tip] for tip in range(robot.num_tips) if own[tip].sum() > rows[tip]]
    moving = np.any(robot.moves, axis=0)
    if not parts and moving.sum() > rows.sum():
        parts = [np.asarray(moving)]
    return parts


def walk_self_motion(
    robot: Robot,
    q: np.ndarray,
    goal: Goal,
    part: np.ndarray,
    blocked: Callable[[np.ndarray], bool] = lambda q: False,
    step: float = _STEP,
) -> SelfMotion:
    """Walk from a solution both ways along its self-motion, until it closes or ends.

    It ends at a joint's limit, and where it is blocked. Each step goes along the null space of the
    Jacobian and is refined to the exact pose again. Of a null space of several dimensions the walk
    is one line.

    Args:
        robot: whose tips stay.
        q: (J,) a solution.
        goal: one target, all of its tips.
        part: (J,) bool, the joints that move.
        blocked: whether a configuration (J,) ends the walk, such as one that touches something.
        step: rad or m, length of a step of all joints together.
    """
    axes = _task_axes(goal, np.asarray(np.any(robot.moves[:, part], axis=1)))
    robot = _moving_alone(robot, q, part)
    forth, closed = _walk(robot, q, goal, axes, part, 1.0, blocked, step)
    back = [] if closed else _walk(robot, q, goal, axes, part, -1.0, blocked, step)[0]
    return SelfMotion(np.array([*reversed(back), q, *forth]), part, len(back), closed)


def _moving_alone(robot: Robot, q: np.ndarray, part: np.ndarray) -> Robot:
    """The robot with limits that keep the joints outside of a part where they are in q (J,)."""
    return replace(
        robot,
        lower=np.where(part, robot.lower, q),
        upper=np.where(part, robot.upper, q),
        continuous=part & robot.continuous,
    )


def _walk(robot, q, goal, axes, part, side, blocked, step) -> tuple[list[np.ndarray], bool]:
    """The solutions after q, and whether they lead back to it."""
    found: list[np.ndarray] = []
    direction = None
    first = last = q
    while len(found) < _MOST_STEPS:
        direction = _direction(robot, last, axes, part, direction, side)
        if direction is None:
            break
        length = min(step, _room(robot, last, direction))
        if length < 1e-6:
            break
        start = robot.clipped(last + length * direction)
        one = _REFINEMENT.refined(robot, start[None, None], goal)
        new = last + _way(robot, last, one.q[0, 0])  # on the same turn
        apart = np.linalg.norm(new - last)
        if not one.converged[0, 0] or apart > 2 * length or apart < 1e-3 * step or blocked(new):
            break
        found.append(new)
        last = new
        home = _way(robot, last, first)
        if len(found) > 2 and np.linalg.norm(home) < step and home @ direction >= 0:
            return found, True
    return found, False


def _task_axes(goal: Goal, moved: np.ndarray) -> np.ndarray:
    """(m, 6 T) from velocities of tips in the base to what is asked of those that move (T,)."""
    tips = goal.T_base_tip.shape[1]
    axes = np.zeros((6 * tips, 6 * tips))
    for part in range(2 * tips):
        rows = slice(3 * part, 3 * part + 3)
        axes[rows, rows] = goal.T_base_tip[0, part // 2, :3, :3].T
    asked = np.ones((tips, 6), bool) if goal.asked is None else goal.asked
    return axes[(asked & moved[:, None]).reshape(-1)]


def _direction(robot, q, axes, part, before, side) -> np.ndarray | None:
    """(J,) of length 1 in the null space, as near as can be to the direction before; or None."""
    jacobian = (axes @ robot.jacobian(q).reshape(-1, robot.num_joints))[:, part]
    null = np.linalg.svd(jacobian)[2][len(jacobian) :]
    if len(null) == 0:
        return None
    own = side * null[-1] if before is None else null.T @ (null @ before[part])
    size = np.linalg.norm(own)
    if size < 1e-6:
        return None
    direction = np.zeros(robot.num_joints)
    direction[part] = own / size
    return direction


def _way(robot: Robot, q: np.ndarray, to: np.ndarray) -> np.ndarray:
    """(J,) from joints to others, the shorter way round where they are continuous."""
    way = to - q
    return np.where(robot.continuous, (way + np.pi) % (2 * np.pi) - np.pi, way)


def _room(robot: Robot, q: np.ndarray, direction: np.ndarray) -> float:
    """How far a direction leads until the first limit."""
    limit = np.where(direction > 0, robot.upper, robot.lower)
    moves = ~robot.continuous & (np.abs(direction) > 1e-9)
    return float(np.min(((limit - q) / np.where(moves, direction, 1.0))[moves], initial=np.inf))
