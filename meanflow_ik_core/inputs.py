# SPDX-License-Identifier: Apache-2.0
"""What a caller hands to the solver, checked and brought into one form."""

from typing import Any

import numpy as np
from torch import Tensor

from .errors import SeedError, TargetError
from .robot import Robot

# A target may deviate this much from a rigid transform (float32 leaves about 1e-7).
_RIGID_TOLERANCE = 1e-5
_SEED_TOLERANCE = 1e-6  # rad or m


def check_targets(robot: Robot, targets: Any) -> np.ndarray:
    """Target poses as (B, T, 4, 4) float64, rotations made orthonormal to the last digit.

    Raises:
        TargetError: wrong shape, not numbers, not finite, or not a rigid transform.
    """
    tips = robot.num_tips
    try:
        array = targets.detach().cpu().numpy() if isinstance(targets, Tensor) else targets
        T_base_tip = np.array(array, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TargetError(f"targets are not an array of numbers: {error}") from error
    if T_base_tip.ndim == 3 and tips == 1:
        T_base_tip = T_base_tip[:, None]
    if T_base_tip.ndim != 4 or T_base_tip.shape[1:] != (tips, 4, 4):
        one = "(B, 4, 4) or " if tips == 1 else ""
        raise TargetError(
            f"targets have the shape {np.shape(array)}; robot {robot.name!r} "
            f"with the tips {', '.join(robot.tips)} takes {one}(B, {tips}, 4, 4)"
        )
    if not np.isfinite(T_base_tip).all():
        raise TargetError("targets have entries that are not finite")
    rotation = T_base_tip[..., :3, :3]
    gram = rotation.swapaxes(-1, -2) @ rotation
    deviation = max(
        np.abs(gram - np.eye(3)).max(initial=0.0),
        np.abs(T_base_tip[..., 3, :] - (0, 0, 0, 1)).max(initial=0.0),
    )
    if deviation > _RIGID_TOLERANCE or (np.linalg.det(rotation) < 0).any():
        raise TargetError(
            f"targets are not rigid transforms: R^T R or the last row is off by {deviation:.2g} "
            f"(allowed {_RIGID_TOLERANCE:g}), or a determinant is -1"
        )
    u, _, vt = np.linalg.svd(rotation)
    T_base_tip[..., :3, :3] = u @ vt
    return T_base_tip


def check_seed_state(
    robot: Robot, seed_state: Any, batch: int, name: str = "seed_state"
) -> np.ndarray | None:
    """Seed states as (B, J) float64, or None when none is given.

    Raises:
        SeedError: wrong shape, not numbers, not finite, or outside the limits.
    """
    if seed_state is None:
        return None
    joints = robot.num_joints
    try:
        array = seed_state.detach().cpu().numpy() if isinstance(seed_state, Tensor) else seed_state
        seeds = np.array(array, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise SeedError(f"{name} is not an array of numbers: {error}") from error
    if seeds.shape not in ((joints,), (batch, joints)):
        raise SeedError(
            f"{name} has the shape {seeds.shape}; it must be ({joints},) or ({batch}, {joints})"
        )
    if not np.isfinite(seeds).all():
        raise SeedError(f"{name} has values that are not finite: {seeds.tolist()}")
    seeds = np.array(np.broadcast_to(seeds, (batch, joints)))
    outside = ~robot.continuous & (
        (seeds < robot.lower - _SEED_TOLERANCE) | (seeds > robot.upper + _SEED_TOLERANCE)
    )
    if outside.any():
        row, joint = np.argwhere(outside)[0]
        raise SeedError(
            f"{name} has {robot.joint_names[joint]} = {seeds[row, joint]:g}; "
            f"its limits are [{robot.lower[joint]:g}, {robot.upper[joint]:g}]"
        )
    return seeds
