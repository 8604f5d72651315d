# SPDX-License-Identifier: Apache-2.0
"""A path by a tracker, which finds what is just within reach of slow joints."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ..errors import OptionError
from ..robot.robot import Robot
from ..solving.solver import load_solver
from ..solving.tracker import TrackStatus


def tracked(
    robot: Robot,
    targets: np.ndarray,
    begin: np.ndarray,
    is_before: bool,
    tips: Sequence[str],
    free_axes: Mapping[str, str] | None,
    tolerances: tuple[float, float],
    max_joint_step: float | None,
    times: np.ndarray | None,
    between: Callable[[], object],
) -> np.ndarray:
    """Solutions (P, J) of the first P waypoints, in steps that are allowed; P is W at most.

    Args:
        robot: whose joints.
        targets: (W, G, 4, 4) of the tips.
        begin: (J,) rad or m, where the joints are.
        is_before: whether a step leads from there to the first waypoint; else it is its solution.
        tips: that have targets.
        free_axes: as in `IKSolver.solve`.
        tolerances: m and rad.
        max_joint_step: rad or m; None: any.
        times: (W,) s, of the waypoints, the first after the beginning; None: speeds do not count.
        between: called between steps.
    """
    try:
        tracker = load_solver(robot, sampler="uniform").tracker(
            begin, max_joint_step, dt=None if times is None else 1.0, tips=tips,
            free_axes=free_axes, position_tolerance=tolerances[0],
            orientation_tolerance=tolerances[1],
        )  # fmt: skip
    except OptionError:  # a joint may be as fast as it likes, for which no tracker is made
        return np.empty((0, robot.num_joints))
    seconds = None if times is None else np.diff(times, prepend=0.0)
    path = [] if is_before else [begin]
    for waypoint in range(len(path), len(targets)):
        between()
        target = targets[waypoint] if len(tips) > 1 else targets[waypoint, 0]
        step = tracker.step(target, None if seconds is None else seconds[waypoint])
        if step.status is not TrackStatus.REACHED:
            break
        path.append(step.joint_positions)
    return np.array(path).reshape(-1, robot.num_joints)
