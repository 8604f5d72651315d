# SPDX-License-Identifier: Apache-2.0
"""What a caller says of joints: configurations that are asked about, and where others are held."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from ..bounds import FARTHEST_JOINT
from ..errors import WorldError
from ..robot.joint_limits import range_with_followers
from ..robot.robot import Robot, kept_with_robot
from ..robot.urdf import read_urdf_model
from ..tensors import array_from
from .inputs import checked_number, unknown_name

# Of the range of a joint that is held, by how much it may be outside: sensors of fingers are a
# percent off. What is farther outside is a mistake, such as the width between two fingers.
OVERSHOOT = 0.1


def configurations(robot: Robot, q: Any) -> tuple[np.ndarray, tuple[int, ...]]:
    """Configurations (N, J), which may have NaN, and the shape that they came in but for J.

    Raises:
        WorldError: q is no array of numbers, its last axis is not that of the joints, or one of
            them is farther from 0 than `FARTHEST_JOINT`.
    """
    try:
        array = np.asarray(array_from(q))
        if np.iscomplexobj(array):
            raise TypeError("they are complex")
        array = array.astype(np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise WorldError(f"q is no array of numbers: {error}") from error
    joints = robot.num_joints
    if not array.ndim or array.shape[-1] != joints:
        raise WorldError(f"q has shape {array.shape}; the last axis must have {joints} joints")
    flat = array.reshape(-1, joints)
    if said := far_joint(robot, flat):
        raise WorldError(f"q has {said}")
    return flat, array.shape[:-1]


def far_joint(robot: Robot, q: np.ndarray) -> str:
    """What to say of a joint of configurations (N, J) that is too far from 0; empty: none is."""
    far = np.argwhere(np.isfinite(q) & (np.abs(q) > FARTHEST_JOINT))
    if not len(far):
        return ""
    row, joint = far[0]
    return (
        f"{robot.joint_names[joint]} = {q[row, joint]:g}; a joint is at most {FARTHEST_JOINT:g} "
        "rad or m from 0"
    )


@kept_with_robot
def holdable_joints(robot: Robot) -> Mapping[str, tuple[float, float]]:
    """Joints of a robot that are not solved for and move no tip, and their limits [rad or m]."""
    urdf = read_urdf_model(robot.urdf_path)
    carrying = set()
    for tip in robot.tips:
        index = urdf.model.frames[urdf.model.getFrameId(tip)].parentJoint
        while index:
            carrying.add(urdf.motion(urdf.model.names[index]).joint)
            index = urdf.model.parents[index]
    return MappingProxyType({
        name: range_with_followers(name, urdf)
        for name in list(urdf.model.names)[1:]
        if name not in robot.joint_names and name not in carrying and name not in urdf.mimics
    })  # fmt: skip


def held_joints(robot: Robot, joints: Any) -> dict[str, float]:
    """Where joints are held [rad or m]; at their limits what is a little beyond.

    Raises:
        WorldError: see `World.hold`.
    """
    if not isinstance(joints, Mapping):
        raise WorldError(f"hold got {joints!r}; it takes a mapping from joints to numbers")
    free, held = holdable_joints(robot), {}
    for joint, value in joints.items():
        if joint in robot.joint_names:
            raise WorldError(f"joint {joint!r} is solved for; it cannot be held")
        if joint not in free:
            raise unknown_name(joint, free, "joint to hold")
        low, high = free[joint]
        number = checked_number(f"joint {joint!r}", "value", value)
        beyond = OVERSHOOT * (high - low)
        if not low - beyond <= number <= high + beyond:
            raise WorldError(
                f"joint {joint!r} is held at {number:g}; its limits are [{low:g}, {high:g}]"
            )
        held[joint] = min(max(number, low), high)
    return held
