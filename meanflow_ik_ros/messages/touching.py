# SPDX-License-Identifier: Apache-2.0
"""What touches in configurations that reach a target, which has no solution for that."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from meanflow_ik_core.bounds import MOST_NEAR_PAIRS, MOST_TOUCHES
from meanflow_ik_core.solving.why import Status
from meanflow_ik_core.world.scene import GRAZE
from meanflow_ik_ros.messages.errors import Codes

if TYPE_CHECKING:
    from meanflow_ik_core.collision.contacts import Contact
    from meanflow_ik_core.solving.solver import IKResult
    from meanflow_ik_ros.parameters import NodeParameters

_NAMED = 3  # contacts that a message names at most


def code_of_unsolved(result: IKResult) -> int:
    """The error code of the first target, which has no solution."""
    touches = result.status[0] == Status.WORLD
    return Codes.GOAL_IN_COLLISION if touches else Codes.NO_IK_SOLUTION


def explanation(result: IKResult, parameters: NodeParameters, problem: int = 0) -> str:
    """What became of a target; where the robot or the world is in the way, what touches in the best
    row that reaches the target within the tolerances of the parameters."""
    said = result.explain(problem)
    touching = result.status[problem] in (Status.WORLD, Status.SELF_COLLISION)
    if result.scene is None or not touching:
        return said
    reached = (result.position_error[problem] <= parameters.position_tolerance).all(-1)
    reached &= (result.orientation_error[problem] <= parameters.orientation_tolerance).all(-1)
    (contacts,) = _contacts(result, problem, np.flatnonzero(reached)[:1])
    more = f" and {len(contacts) - _NAMED} more" if len(contacts) > _NAMED else ""
    return f"{said}; in the best: {'; '.join(map(str, contacts[:_NAMED]))}{more}"


def contact_texts(result: IKResult, problem: int, rows: np.ndarray) -> list[list[str]]:
    """What touches what in some rows of a target, or the first of them; a world was asked for.

    The deepest come first; beyond `MOST_TOUCHES` a text says how many more there are.
    """
    return [
        [
            *map(str, contacts[:MOST_TOUCHES]),
            *([f"{more} more"] if (more := len(contacts) - MOST_TOUCHES) > 0 else ()),
        ]
        for contacts in _contacts(result, problem, rows)
    ]


def _contacts(result: IKResult, problem: int, rows: np.ndarray) -> list[list[Contact]]:
    assert result.scene is not None
    q = result.joint_positions[problem, rows]
    return result.scene.contacts(q, result.avoids_self_collision, GRAZE, MOST_NEAR_PAIRS)
