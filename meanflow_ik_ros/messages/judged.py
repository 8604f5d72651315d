# SPDX-License-Identifier: Apache-2.0
"""Results judged at the links that were asked for, and as solution messages."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from sensor_msgs.msg import JointState
from std_msgs.msg import Header

from meanflow_ik_core.geometry import pose_errors
from meanflow_ik_ros.messages.fields import doubles_by_row
from meanflow_ik_ros.msg import IKSolution

if TYPE_CHECKING:
    from meanflow_ik_core.robot.robot import Robot
    from meanflow_ik_core.solving.solver import IKResult
    from meanflow_ik_ros.messages.query import IKQuery
    from meanflow_ik_ros.parameters import NodeParameters


class Judged(NamedTuple):
    """Of M configurations for each of B targets.

    valid: (B, M) bool.
    position_error: (B, M, T) m, at the links asked for.
    orientation_error: (B, M, T) rad, at the links asked for.
    """

    valid: np.ndarray
    position_error: np.ndarray
    orientation_error: np.ndarray


def judge(query: IKQuery, result: IKResult, robot: Robot, parameters: NodeParameters) -> Judged:
    """Which configurations of a result are valid, and how far they miss."""
    errors = result.position_error, result.orientation_error
    if not np.array_equal(query.T_tip_link, np.broadcast_to(np.eye(4), query.T_tip_link.shape)):
        # The solver measures at the tip; a lever arm to the link asked for can add to the error.
        errors = errors_at_links(
            result.joint_positions, query.targets, query.T_tip_link, robot, query.task.axes
        )
    valid = result.valid & (errors[0] <= parameters.position_tolerance).all(-1)
    return Judged(valid & (errors[1] <= parameters.orientation_tolerance).all(-1), *errors)


def errors_at_links(
    q: np.ndarray,
    targets: np.ndarray,
    T_tip_link: np.ndarray,
    robot: Robot,
    axes: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Distance [m] and angle [rad], each (B, M, T), between the links asked for and their targets.

    Args:
        q: (B, M, J), targets: (B, T, 4, 4), T_tip_link: (T, 4, 4).
        axes: (T, 6) bool, what is constrained; None: everything.
    """
    reached = np.asarray(robot.forward(q)) @ T_tip_link
    wanted = (targets @ T_tip_link)[:, None]
    return pose_errors(reached, wanted, axes)


def why_none(result: IKResult, judged: Judged, problem: int = 0) -> str:
    """Why a target of a result has no valid configuration."""
    if not result.valid[problem].any():
        return result.explain(problem)
    metres, radians = (float(error[problem, 0].max()) for error in judged[1:])
    return (
        "the tip reaches its target, but the link asked for misses it by "
        f"{metres:.3g} m and {radians:.3g} rad"
    )


def solutions_from_result(
    query: IKQuery, result: IKResult, robot: Robot, parameters: NodeParameters
) -> list[IKSolution]:
    """The valid solutions of the one target of a query, best first.

    Where there are none, the nearest misses, with `valid` False.
    """
    q = result.joint_positions[0]
    judged = judge(query, result, robot, parameters)
    valid = judged.valid[0]
    rows = np.flatnonzero(valid if valid.any() else np.isfinite(q).all(-1))
    header = Header(stamp=query.stamp, frame_id=robot.base)
    names = list(robot.joint_names)
    clearance = [math.nan] * len(rows)
    if result.clearance is not None:
        clearance = result.clearance[0, rows].tolist()
    solutions = [
        IKSolution(
            joint_state=JointState(header=header, name=names, position=positions),
            position_error=position_error,
            orientation_error=orientation_error,
            distance=distance,
            cost=cost,
            valid=is_valid,
            clearance=gap,
        )
        for positions, position_error, orientation_error, distance, cost, is_valid, gap in zip(
            doubles_by_row(q[rows]),
            doubles_by_row(judged.position_error[0, rows]),
            doubles_by_row(judged.orientation_error[0, rows]),
            result.distance[0, rows].tolist(),
            result.cost[0, rows].tolist(),
            valid[rows].tolist(),
            clearance,
            strict=True,
        )
    ]
    if result.objective_values is not None:
        values = doubles_by_row(result.objective_values[0, rows])
        for solution, found in zip(solutions, values, strict=True):
            solution.objective_values = found
    return solutions
