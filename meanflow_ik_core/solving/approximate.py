# SPDX-License-Identifier: Apache-2.0
"""Answers where a search found none: a seed within tolerance, or the nearest configuration."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ..kernels.step_settings import StepSettings
from ..robot.robot import Robot
from .goal import Goal, Preferences
from .least_squares import iterate, pose_errors
from .ranking import joint_distance
from .result import IKResult

_ITERATIONS = 100
_NEVER = 1e-12  # tolerance of steps that go on to the end


def with_seeds(
    result: IKResult,
    robot: Robot,
    goal: Goal,
    preferences: Preferences,
    in_collision: Callable[[np.ndarray], np.ndarray] | None = None,
) -> IKResult:
    """A result in which a seed within the tolerances is the solution of a target without another.

    Arguments are those of `with_nearest`.
    """
    problems = np.flatnonzero(~result.valid.any(1))
    if not goal.seeded or not len(problems):
        return result
    seeds, some = goal.reference[problems, None], goal.of(problems)
    position, orientation = pose_errors(robot, seeds, some.T_base_tip, goal.axis_weights)
    within = (position <= goal.position_tolerance) & (orientation <= goal.orientation_tolerance)
    within = within.all((1, 2))
    if in_collision is not None:
        within &= ~in_collision(seeds[:, 0])
    if not within.any():
        return result
    rows, own = problems[within], np.flatnonzero(within)
    changed = {
        name: getattr(result, name).copy()
        for name in (
            "joint_positions", "position_error", "orientation_error", "valid", "distance", "cost",
            "origin",
        )
    }  # fmt: skip
    error = (position + orientation)[own, 0].sum(-1)
    for name, value in (
        ("joint_positions", seeds[own, 0]), ("position_error", position[own, 0]),
        ("orientation_error", orientation[own, 0]), ("valid", True), ("distance", 0.0),
        ("cost", preferences.error_weight * error), ("origin", "seed"),
    ):  # fmt: skip
        changed[name][rows, 0] = value
    return replace(result, **changed)


def with_nearest(
    result: IKResult,
    robot: Robot,
    goal: Goal,
    preferences: Preferences,
    in_collision: Callable[[np.ndarray], np.ndarray] | None = None,
) -> IKResult:
    """A result whose targets without a solution begin with the nearest configuration found.

    It comes from steps that go on from each of their rows to where the error is least, and has the
    least sum of errors, in m and rad, of those.

    Args:
        result: of a search.
        robot: whose tips the goal is for.
        goal: what was asked.
        preferences: the weights of the cost.
        in_collision: configurations (N, J) to (N,), of which none may be returned; None: all may.
    """
    marked = np.zeros_like(result.valid)
    known = np.isfinite(result.joint_positions).min(-1)
    problems = np.flatnonzero(~result.valid.any(1) & known.any(1))
    q, position, orientation = (
        np.array(array)
        for array in (result.joint_positions, result.position_error, result.orientation_error)
    )
    distance, cost = result.distance.copy(), result.cost.copy()
    for b in problems.tolist():
        some = goal.of(np.array([b]))
        found = q[b : b + 1, known[b]]
        near = found.copy()
        iterate(
            robot, near, some.T_base_tip, np.arange(near.shape[1]), _ITERATIONS, _NEVER, _NEVER,
            StepSettings(axis_weights=goal.axis_weights),
        )  # fmt: skip
        near = robot.clipped(np.concatenate((near, found), 1))
        errors = pose_errors(robot, near, some.T_base_tip, goal.axis_weights)
        total = (errors[0] + errors[1]).sum(-1)[0]
        if in_collision is not None:
            total = np.where(in_collision(near[0]), np.inf, total)
        best = int(total.argmin())
        if total[best] == np.inf:
            continue
        q[b, 0] = some.on_turn_of_seed(near[:, best : best + 1], robot.continuous)[0, 0]
        position[b, 0], orientation[b, 0] = errors[0][0, best], errors[1][0, best]
        distance[b, 0] = joint_distance(robot, q[b, 0], goal.reference[b])
        cost[b, 0] = preferences.error_weight * total[best]
        cost[b, 0] += preferences.distance_weight * distance[b, 0]
        marked[b, 0] = True
    return replace(
        result, joint_positions=q, position_error=position, orientation_error=orientation,
        distance=distance, cost=cost, approximate=marked,
    )  # fmt: skip
