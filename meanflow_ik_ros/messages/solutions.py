# SPDX-License-Identifier: Apache-2.0
"""Results as solution messages."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from sensor_msgs.msg import JointState
from std_msgs.msg import Header

from meanflow_ik_ros.messages.fields import doubles_by_row
from meanflow_ik_ros.msg import IKSolution

if TYPE_CHECKING:
    from meanflow_ik_core.robot.robot import Robot
    from meanflow_ik_core.solving.solver import IKResult
    from meanflow_ik_ros.messages.query import IKQuery


def solutions_from_result(query: IKQuery, result: IKResult, robot: Robot) -> list[IKSolution]:
    """The valid solutions of the one target of a query, best first.

    Where there are none, the nearest misses, with `valid` False.
    """
    q = result.joint_positions[0]
    valid = result.valid[0]
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
            doubles_by_row(result.position_error[0, rows]),
            doubles_by_row(result.orientation_error[0, rows]),
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
