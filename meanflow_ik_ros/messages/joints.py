# SPDX-License-Identifier: Apache-2.0
"""Joint states to configurations and back."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from sensor_msgs.msg import JointState
from std_msgs.msg import Header

from meanflow_ik_core.solving.inputs import SEED_TOLERANCE
from meanflow_ik_ros.messages.errors import Codes, RequestError
from meanflow_ik_ros.messages.fields import doubles

if TYPE_CHECKING:
    from meanflow_ik_core.robot.robot import Robot

# Joint states printed with seven digits may pass the limit by a rounding error.
_ROUNDING = 1e-6


def seed_from_joint_state(
    state: JointState, robot: Robot, current_state: np.ndarray, field: str = "seed_state"
) -> np.ndarray:
    """(J,) of a request's ``field`` within the limits, `current_state` (J,) for joints it lacks.

    Other joints are passed over, as on joint_states, and values a little beyond a limit are taken
    at it. Continuous joints keep their turn.

    Raises:
        RequestError: names and values do not pair up, none is a joint of the robot, or one of its
            joints comes twice, is not finite, or far outside the limits.
    """
    if not state.name and not len(state.position):
        return current_state
    names, expected = list(state.name), list(robot.joint_names)
    problem = None
    if len(names) != len(state.position):
        problem = f"{len(names)} names and {len(state.position)} positions"
    elif not set(names) & set(expected):
        problem = f"only unknown joints, {', '.join(names)}"
    elif twice := [name for name in expected if names.count(name) > 1]:
        problem = f"{', '.join(twice)} more than once"
    if problem:
        raise RequestError(
            Codes.INVALID_ROBOT_STATE,
            f"{field} has {problem}; robot {robot.name} has {', '.join(expected)}",
        )
    by_name = dict(zip(names, state.position, strict=True))
    seed = np.array([by_name.get(*pair) for pair in zip(expected, current_state, strict=True)])
    if not np.isfinite(seed).all():
        raise RequestError(Codes.INVALID_ROBOT_STATE, f"{field} is not finite: {seed.tolist()}")
    if outside := limit_violations(seed, robot, SEED_TOLERANCE):
        raise RequestError(Codes.INVALID_ROBOT_STATE, f"{field} is outside the limits: {outside}")
    return robot.clipped(seed)


def limit_violations(q: np.ndarray, robot: Robot, tolerance: float = _ROUNDING) -> str:
    """Text that names the joints of q (J,) outside their limits, empty where there are none."""
    return ", ".join(
        f"{name} {value:.6g} (limits {low:.6g} to {high:.6g})"
        for name, value, low, high, turns in zip(
            robot.joint_names, q, robot.lower, robot.upper, robot.continuous, strict=True
        )
        if not (turns or low - tolerance <= value <= high + tolerance)
    )


def known_positions(state: JointState, joints: Collection[str]) -> Mapping[str, float]:
    """Finite positions of some joints in a message of the joint_states topic.

    Other joints, and joints without a position, are normal there and passed over. A message
    whose names and positions do not pair up says nothing.
    """
    if len(state.name) != len(state.position):
        return {}
    return {
        name: float(position)
        for name, position in zip(state.name, state.position, strict=True)
        if name in joints and math.isfinite(position)
    }


def joint_state_message(q: np.ndarray, robot: Robot, stamp: Any) -> JointState:
    """q (J,) as a message in the robot's base frame."""
    header = Header(stamp=stamp, frame_id=robot.base)
    return JointState(header=header, name=list(robot.joint_names), position=doubles(q))
