# SPDX-License-Identifier: Apache-2.0
"""Results as solution messages."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from std_msgs.msg import Header

from meanflow_ik_ros.messages.fields import doubles_by_row
from meanflow_ik_ros.messages.touching import contact_texts
from meanflow_ik_ros.msg import IKSolution

if TYPE_CHECKING:
    from meanflow_ik_core.robot.robot import Robot
    from meanflow_ik_core.solving.solver import IKResult
    from meanflow_ik_ros.messages.query import IKQuery

# Nearest misses that are told, each with what it touches.
_MOST_MISSES = 32


def solutions_from_result(query: IKQuery, result: IKResult, robot: Robot) -> list[IKSolution]:
    """The valid solutions of the one target of a query, best first.

    Where there are none, up to 32 of the nearest misses, with `valid` False.
    """
    q = result.joint_positions[0]
    valid = result.valid[0]
    rows = np.flatnonzero(valid)
    if not len(rows):
        rows = np.flatnonzero(np.isfinite(q).all(-1))[:_MOST_MISSES]
    header = Header(stamp=query.stamp, frame_id=robot.base)
    names = list(robot.joint_names)
    own, world = result.clearances((0, rows))
    clearance = [math.nan] * len(rows) if own is None else own.tolist()
    solutions = []
    for positions, position_error, orientation_error, distance, cost, is_valid, gap in zip(
        doubles_by_row(q[rows]),
        doubles_by_row(result.position_error[0, rows]),
        doubles_by_row(result.orientation_error[0, rows]),
        result.distance[0, rows].tolist(),
        result.cost[0, rows].tolist(),
        valid[rows].tolist(),
        clearance,
        strict=True,
    ):
        # A message given to the constructor of another one would be made twice: constructors make
        # all fields before they look at their arguments.
        solution = IKSolution()
        solution.joint_state.header, solution.joint_state.name = header, names
        solution.joint_state.position = positions
        solution.position_error, solution.orientation_error = position_error, orientation_error
        solution.distance, solution.cost, solution.valid = distance, cost, is_valid
        solution.clearance, solution.world_clearance = gap, math.nan
        solutions.append(solution)
    if world is not None:
        for solution, gap in zip(solutions, world.tolist(), strict=True):
            solution.world_clearance = gap
        if not valid.any():
            texts = contact_texts(result, 0, rows)
            for solution, touches in zip(solutions, texts, strict=False):
                solution.touches = touches
    if result.objective_values is not None:
        values = doubles_by_row(result.objective_values[0, rows])
        for solution, found in zip(solutions, values, strict=True):
            solution.objective_values = found
    return solutions
