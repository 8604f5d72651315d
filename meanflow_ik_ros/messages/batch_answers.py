# SPDX-License-Identifier: Apache-2.0
"""The flat arrays of a batch's answer, as arrays of each target."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from meanflow_ik_ros.srv import GetIKSolutionsBatch


class TargetAnswer(NamedTuple):
    """The N rows of one target, best first; without a valid one, its nearest miss or none."""

    joint_positions: np.ndarray  # (N, J) rad or m
    valid: np.ndarray  # (N,) bool
    position_error: np.ndarray  # (N, T) m
    orientation_error: np.ndarray  # (N, T) rad
    distance: np.ndarray  # (N,) rad to the seed state
    cost: np.ndarray  # (N,) what the ranking used
    status: int  # of GetIKSolutionsBatch.Response
    clearance: np.ndarray | None  # (N,) m; None: not asked for
    world_clearance: np.ndarray | None  # (N,) m; None: no world
    objective_values: np.ndarray | None  # (N, O); None: no objectives


def answers_from_response(response: GetIKSolutionsBatch.Response) -> list[TargetAnswer]:
    """What was found for each target of a request, in their order; nothing is copied twice."""
    offsets = np.asarray(response.offsets, dtype=np.int64)
    rows = int(offsets[-1]) if len(offsets) else 0

    def table(values: object) -> np.ndarray | None:
        numbers = np.asarray(values, dtype=np.float64)
        return numbers.reshape(rows, -1) if rows and len(numbers) else None

    def column(values: object) -> np.ndarray | None:
        numbers = np.asarray(values, dtype=np.float64)
        return numbers if len(numbers) else None

    joints = len(response.joint_names)
    positions = np.asarray(response.positions, dtype=np.float64).reshape(rows, joints)
    errors = [
        np.asarray(values, dtype=np.float64).reshape(rows, -1 if rows else 0)
        for values in (response.position_error, response.orientation_error)
    ]
    valid = np.asarray(response.valid, dtype=bool)
    distance, cost = (
        np.asarray(values, np.float64) for values in (response.distance, response.cost)
    )
    optional = [
        column(response.clearance),
        column(response.world_clearance),
        table(response.objective_values),
    ]
    answers = []
    for first, last, status in zip(offsets[:-1], offsets[1:], response.status, strict=True):
        own = slice(first, last)
        answers.append(
            TargetAnswer(
                positions[own], valid[own], errors[0][own], errors[1][own], distance[own],
                cost[own], int(status), *(None if one is None else one[own] for one in optional),
            )
        )  # fmt: skip
    return answers
