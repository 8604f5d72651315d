# SPDX-License-Identifier: Apache-2.0
"""Rigid transforms: rotation matrices inside, quaternions (x, y, z, w) at the edges.

Every function takes tensors, through which gradients flow, or arrays, and returns what it got.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor


def tensor_from(given: Any) -> Tensor:
    """A tensor as it is; an array or numbers as a tensor, float64 but for float32 arrays."""
    if isinstance(given, Tensor):
        return given
    array = np.asarray(given)
    dtype = array.dtype if array.dtype in (np.float32, np.float64) else np.float64
    return torch.from_numpy(np.ascontiguousarray(array, dtype))


def _of_either_kind(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function of tensors, for arrays too: then it returns arrays."""

    @functools.wraps(function)
    def of_either_kind(*given: Any) -> Any:
        if any(isinstance(value, Tensor) for value in given):
            return function(*given)
        result = function(*(None if value is None else tensor_from(value) for value in given))
        if isinstance(result, tuple):
            return tuple(part.numpy() for part in result)
        return result.numpy()

    return of_either_kind


@_of_either_kind
def matrix_from_rpy(rpy: Tensor) -> Tensor:
    """Rotation matrix of roll, pitch and yaw about the fixed x, y and z axes, as in a URDF.

    Args:
        rpy: (..., 3) rad.

    Returns:
        (..., 3, 3).
    """
    (sr, sp, sy), (cr, cp, cy) = rpy.sin().unbind(-1), rpy.cos().unbind(-1)
    rows = (
        cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr,
        sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr,
        -sp, cp * sr, cp * cr,
    )  # fmt: skip
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


@_of_either_kind
def matrix_from_quat_xyzw(quat_xyzw: Tensor) -> Tensor:
    """Rotation matrix of a quaternion of any length but zero; q and -q give the same matrix.

    Args:
        quat_xyzw: (..., 4).

    Returns:
        (..., 3, 3).
    """
    x, y, z, w = quat_xyzw.unbind(-1)
    two_s = 2.0 / (quat_xyzw * quat_xyzw).sum(-1)
    rows = (
        1 - two_s * (y * y + z * z), two_s * (x * y - z * w), two_s * (x * z + y * w),
        two_s * (x * y + z * w), 1 - two_s * (x * x + z * z), two_s * (y * z - x * w),
        two_s * (x * z - y * w), two_s * (y * z + x * w), 1 - two_s * (x * x + y * y),
    )  # fmt: skip
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


@_of_either_kind
def quat_xyzw_from_matrix(rotation: Tensor) -> Tensor:
    """Unit quaternion with w >= 0 of a rotation matrix.

    Each of the four components is the largest for some rotations; the row built on the largest
    one divides by at least 1, so the result is accurate everywhere (Shepperd 1978).

    Args:
        rotation: (..., 3, 3).

    Returns:
        (..., 4), x, y, z, w.
    """
    m = rotation
    m00, m11, m22 = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    sums = torch.stack(
        (1 + m00 - m11 - m22, 1 - m00 + m11 - m22, 1 - m00 - m11 + m22, 1 + m00 + m11 + m22), -1
    )
    xy, xz, yz = (
        m[..., 0, 1] + m[..., 1, 0],
        m[..., 0, 2] + m[..., 2, 0],
        m[..., 1, 2] + m[..., 2, 1],
    )
    xw, yw, zw = (
        m[..., 2, 1] - m[..., 1, 2],
        m[..., 0, 2] - m[..., 2, 0],
        m[..., 1, 0] - m[..., 0, 1],
    )
    candidates = torch.stack(
        (
            torch.stack((sums[..., 0], xy, xz, xw), -1),
            torch.stack((xy, sums[..., 1], yz, yw), -1),
            torch.stack((xz, yz, sums[..., 2], zw), -1),
            torch.stack((xw, yw, zw, sums[..., 3]), -1),
        ),
        -2,
    )
    largest = sums.argmax(-1)[..., None, None].expand(*sums.shape[:-1], 1, 4)
    quat = candidates.gather(-2, largest).squeeze(-2)
    quat = quat / quat.norm(dim=-1, keepdim=True)
    return torch.where(quat[..., 3:] < 0, -quat, quat)


@_of_either_kind
def inverse(transform: Tensor) -> Tensor:
    """Inverse of rigid transforms (..., 4, 4)."""
    rotation_t = transform[..., :3, :3].transpose(-1, -2)
    result = torch.zeros_like(transform)
    result[..., :3, :3] = rotation_t
    result[..., :3, 3] = -(rotation_t @ transform[..., :3, 3:]).squeeze(-1)
    result[..., 3, 3] = 1
    return result


@_of_either_kind
def pose_errors(
    reached: Tensor, wanted: Tensor, axis_weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """How far poses are from those that are wanted, to the nearest one that is allowed.

    Args:
        reached: (..., T, 4, 4), or (..., 4, 4) without weights.
        wanted: the same, or what broadcasts against it.
        axis_weights: (T, 6) along x, y, z and about x, y, z of each wanted pose; where one is 0,
            the pose is free. None: nothing is free.

    Returns:
        Distance [m] and angle [rad] in [0, pi], accurate at both ends, each (..., T) or (...).
    """
    offset = wanted[..., :3, 3] - reached[..., :3, 3]
    axis, trace = turn_between(reached, wanted)
    angle = torch.atan2(axis.norm(dim=-1), trace - 1)
    if axis_weights is None:
        return offset.norm(dim=-1), angle
    counts = axis_weights != 0
    inverse_rotation = wanted[..., :3, :3].mT
    along = (inverse_rotation @ offset[..., None]).squeeze(-1)
    turned = inverse_rotation @ reached[..., :3, :3]
    angle = angle.clone()
    for t, counted in enumerate(counts[:, 3:].tolist()):
        if sum(counted) == 0:
            angle[..., t] = 0.0
        elif sum(counted) == 2:
            free = counted.index(False)
            others = [(free + 1) % 3, (free + 2) % 3]
            angle[..., t] = torch.atan2(
                turned[..., t, others, free].norm(dim=-1), turned[..., t, free, free]
            )
        elif sum(counted) == 1:
            sine = quat_xyzw_from_matrix(turned[..., t, :, :])[..., counted.index(True)].abs()
            angle[..., t] = 2 * torch.atan2(sine, (1 - sine**2).clamp(min=0).sqrt())
    return (along * counts[:, :3]).norm(dim=-1), angle


def turn_between(reached: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """2 sin(angle) axis (..., 3) and trace (...) of the turn from one pose (..., 4, 4) to another,
    the axis in the base."""
    a, b = reached[..., :3, :3], wanted[..., :3, :3]
    return torch.linalg.cross(a, b, dim=-2).sum(-1), (a * b).sum((-2, -1))
