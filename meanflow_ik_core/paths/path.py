# SPDX-License-Identifier: Apache-2.0
"""A continuous joint path through waypoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import OptionError, TargetError
from ..solving.deadline import nothing
from ..solving.inputs import (
    at_frames,
    check_count,
    check_flag,
    check_free_axes,
    check_memory,
    check_positive,
    check_seed,
    check_seed_state,
    check_targets,
    check_tips,
    check_world,
)
from ..solving.least_squares import pose_errors
from ..world.motion import Motion
from .joint_steps import BEYOND, StepLimits, step_limits
from .search import PathQuery, PathSearch

if TYPE_CHECKING:
    from ..robot.robot import Robot
    from ..solving.solver import IKSolver
    from ..world.world import World


@dataclass(frozen=True, eq=False)
class PathResult:
    """A path through the first P of W waypoints: all of them, or those before the break."""

    joint_positions: np.ndarray  #: (P, J) rad or m; continuous joints go on beyond a turn
    position_error: np.ndarray  #: (P, T) m
    orientation_error: np.ndarray  #: (P, T) rad
    valid: bool  #: whether P is W
    failed_waypoint: int  #: the first that cannot be reached from those before it; -1: none
    largest_step: float  #: of a joint from one waypoint to the next, rad or m
    message: str  #: where and why the path breaks; empty where it does not
    timing: dict[str, float]  #: seconds for sample, follow, choose, smooth
    touching: bool = False  #: whether it breaks for what touches, where a world was asked for


def solve_path(
    solver: IKSolver,
    waypoints: Any,
    start_state: Any = None,
    times: Any = None,
    num_samples: int = 128,
    max_joint_step: float | None = 0.5,
    *,
    avoid_self_collision: bool = False,
    world: World | None = None,
    position_tolerance: float = 1e-5,
    orientation_tolerance: float = 1e-5,
    seed: int | None = None,
    tips: Sequence[str] | None = None,
    free_axes: Mapping[str, str] | None = None,
    between: Callable[[], object] | None = None,
) -> PathResult:
    """Find joint positions for every waypoint such that the joints go there in small steps.

    Solutions are drawn at some waypoints and followed along the whole path. Dynamic programming
    chooses one per waypoint: first the smallest largest step, then the shortest path. That choice
    and the shortest path of all are smoothed along the solution sets; the better one is returned.

    Args:
        solver: of the robot.
        waypoints: T_base_tip, (W, 4, 4) for one tip or (W, T, 4, 4).
        start_state: (J,) where the robot is: the path begins at the solution of the first waypoint
            that is nearest to it, by the joint that has to move most, of those that the world lets
            it reach. None: it begins anywhere.
        times: (W,) s, of the waypoints, rising from 0 or later: no joint may be faster than its
            limit between them, nor from the start state to the first unless its time is 0.
        num_samples: starts per waypoint at which solutions are drawn.
        max_joint_step: rad or m, from one waypoint to the next; None: any.
        avoid_self_collision: the robot must not touch itself at a waypoint.
        world: the robot must touch nothing of it at a waypoint and on the straight way in joint
            space from each to the next, and from the start state to the first; with
            ``avoid_self_collision`` neither itself there.
        position_tolerance: m.
        orientation_tolerance: rad.
        seed: of the random numbers; None draws a fresh one.
        tips: what the waypoints are for, as in `IKSolver.solve`.
        free_axes: of the waypoints, as in `IKSolver.solve`; then starts are uniform.
        between: called between parts of the work, mostly of some milliseconds; what it raises ends
            the search.

    Raises:
        LinkError: an unknown tip, or one named twice.
        TargetError: there is no waypoint, or one is not a rigid transform.
        SeedError: the start state has the wrong length, is not finite, or outside the limits.
        OptionError: an option is out of its range.
        WorldError: the world is one of another robot.
    """
    robot = at_frames(solver.robot, tips)
    tip_indices = check_tips(robot, tips)
    asked = check_free_axes(robot, tip_indices, free_axes)
    T_base_tip = check_targets(robot, waypoints, tip_indices)
    if not len(T_base_tip):
        raise TargetError("a path needs at least one waypoint")
    start = check_seed_state(robot, start_state, 1, "start_state")
    when = _check_times(times, len(T_base_tip))
    check_count("num_samples", num_samples, 1)
    check_memory(robot, len(T_base_tip), "num_samples", num_samples)
    check_positive("max_joint_step", max_joint_step, or_none=True)
    check_positive("position_tolerance", position_tolerance)
    check_positive("orientation_tolerance", orientation_tolerance)
    check_flag("avoid_self_collision", avoid_self_collision)
    check_seed(seed)
    query = PathQuery(
        robot=robot,
        T_base_tip=T_base_tip,
        tips=tip_indices,
        free_axes=free_axes,
        axis_weights=None if asked is None else asked.astype(np.float64),
        start=None if start is None else start[0],
        allowed_from_start=(
            np.full(robot.num_joints, np.inf)
            if when is None or when[0] == 0
            else robot.velocity_limit * when[0]
        ),
        limits=step_limits(robot, len(T_base_tip), max_joint_step, when),
        max_joint_step=max_joint_step,
        times=when,
        num_samples=num_samples,
        tolerances=(position_tolerance, orientation_tolerance),
        avoid_self_collision=avoid_self_collision,
        motion=(
            None
            if world is None
            else Motion(check_world(solver.robot, world), avoid_self_collision)
        ),
        seed=seed,
        between=between or nothing,
    )
    if query.motion is not None and query.start is not None:
        query.motion.scene.warn_of_seed(query.start)
    search = PathSearch(solver, query)
    path, message, touching = _unbroken(robot, query, search, when)
    if (blocked := search.blocked(path)).any():
        path = path[: int(blocked.argmax())]
        message, touching = _no_way(query, len(path)), True
    steps = query.limits.along(path)
    errors = pose_errors(robot, path[:, None], T_base_tip[: len(path)], query.axis_weights)
    return PathResult(
        joint_positions=query.limits.unwrapped(path, query.start),
        position_error=errors[0][:, 0],
        orientation_error=errors[1][:, 0],
        valid=len(path) == len(T_base_tip),
        failed_waypoint=-1 if len(path) == len(T_base_tip) else len(path),
        largest_step=float(np.abs(steps).max(initial=0.0)),
        message=message,
        timing=search.timing,
        touching=touching,
    )


def _check_times(times: Any, waypoints: int) -> np.ndarray | None:
    if times is None:
        return None
    try:
        when = np.asarray(times, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise OptionError(f"times are not an array of numbers: {error}") from error
    if when.shape != (waypoints,):
        raise OptionError(
            f"times have the shape {when.shape}; {waypoints} waypoints need ({waypoints},)"
        )
    if not np.isfinite(when).all() or when[0] < 0 or (np.diff(when) <= 0).any():
        wrong = ~np.isfinite(when) | (when < 0) | (np.diff(when, prepend=-1.0) <= 0)
        first = int(wrong.argmax())
        raise OptionError(
            "times must be finite, not negative and rising; "
            f"waypoint {first} has {when[first]} after {when[:first][-1:].tolist()}"
        )
    return when


def _unbroken(
    robot: Robot, query: PathQuery, search: PathSearch, times: np.ndarray | None
) -> tuple[np.ndarray, str, bool]:
    """The path (P, J) as far as its steps are within the limits, why it ends there, and whether
    that is for what touches."""
    path = search.run()
    if len(path) and query.start is not None and not search.is_reached(path[:1])[0]:
        return path[:0], _too_fast_from_start(robot, query, path[0], times), False
    if (query.limits.costs(query.limits.along(path)) >= BEYOND).any():
        search.check_all()
        _, dearest = search.chain(search.end)
        beyond = dearest.min(1) >= BEYOND
        broken = int(beyond.argmax()) if beyond.any() else search.end
        chosen, _ = search.chain(broken)
        path = search.smoothed(search.q[np.arange(broken), chosen])
        if broken < search.end:
            reached = dearest[broken - 1] < BEYOND
            message = _smallest_step(robot, query.limits, search, reached, broken, times)
            return path, message, False
    if search.end < len(query.T_base_tip) and search.no_way:
        return path, _no_way(query, search.end), True
    if search.end < len(query.T_base_tip):
        message = f"waypoint {search.end} has no IK solution: {search.unsolved}"
        return path, message, search.touching
    return path, "", False


def _no_way(query: PathQuery, waypoint: int) -> str:
    place = f"those found of waypoint {waypoint - 1}" if waypoint else "the start state"
    message = (
        f"waypoint {waypoint} has IK solutions, but something touches on the way to each of them "
        f"from {place}"
    )
    if waypoint == 0 and query.motion is not None and query.start is not None:
        for contact in query.motion.contacts(query.start)[:1]:
            message += f", in which {contact.link} touches {contact.other}"
    return message


def _too_fast_from_start(
    robot: Robot, query: PathQuery, q: np.ndarray, times: np.ndarray | None
) -> str:
    """Why the first solution (J,) cannot be reached from the start in time."""
    assert query.start is not None and times is not None
    distance = np.abs(query.limits.differences(query.start, q))
    joint = int((distance - query.allowed_from_start).argmax())
    return (
        f"waypoint 0 cannot be reached from the start state in {times[0]:g} s: the nearest "
        f"solution found is {distance[joint]:.3g} away in {robot.joint_names[joint]}, whose speed "
        f"is at most {robot.velocity_limit[joint]:g}"
    )


def _smallest_step(
    robot: Robot,
    limits: StepLimits,
    search: PathSearch,
    reached: np.ndarray,
    waypoint: int,
    times: np.ndarray | None,
) -> str:
    """How small the smallest step to a waypoint is, from those candidates (C,) of the one before
    that can be reached."""
    a, b = search.q[waypoint - 1, reached], search.q[waypoint, search.valid[waypoint]]
    steps = np.abs(limits.differences(a[:, None], b))
    allowed = limits.allowed[waypoint - 1]
    share = (steps / allowed).max(-1)
    smallest = steps[np.unravel_index(share.argmin(), share.shape)]
    joint = int((smallest / allowed).argmax())
    message = (
        f"waypoint {waypoint} has IK solutions, but none near enough to those of waypoint "
        f"{waypoint - 1}: the smallest step found moves {robot.joint_names[joint]} by "
        f"{smallest[joint]:.3g}, allowed are {allowed[joint]:.3g}"
    )
    if times is None:
        return message
    between = times[waypoint] - times[waypoint - 1]
    return f"{message} in {between:.3g} s (speed limit {robot.velocity_limit[joint]:g})"
