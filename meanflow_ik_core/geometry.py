# SPDX-License-Identifier: Apache-2.0
"""Rigid transforms: rotation matrices inside, quaternions (x, y, z, w) at the edges.

Every function takes tensors, through which gradients flow, or arrays, and returns what it got.
"""

import sys
from typing import Any

import numpy as np

from .tensors import is_tensor


def matrix_from_rpy(rpy: Any) -> Any:
    """Rotation matrix of roll, pitch and yaw about the fixed x, y and z axes, as in a URDF.

    Args:
        rpy: (..., 3) rad.

    Returns:
        (..., 3, 3).
    """
    xp, (rpy,) = _of_one_kind(rpy)
    sine, cosine = xp.sin(rpy), xp.cos(rpy)
    sr, sp, sy = (sine[..., i] for i in range(3))
    cr, cp, cy = (cosine[..., i] for i in range(3))
    return _matrix(
        xp,
        cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr,
        sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr,
        -sp, cp * sr, cp * cr,
    )  # fmt: skip


def matrix_from_quat_xyzw(quat_xyzw: Any) -> Any:
    """Rotation matrix of a quaternion of any length but zero; q and -q give the same matrix.

    Args:
        quat_xyzw: (..., 4).

    Returns:
        (..., 3, 3).
    """
    xp, (quat,) = _of_one_kind(quat_xyzw)
    x, y, z, w = (quat[..., i] for i in range(4))
    two_s = 2.0 / (quat * quat).sum(-1)
    return _matrix(
        xp,
        1 - two_s * (y * y + z * z), two_s * (x * y - z * w), two_s * (x * z + y * w),
        two_s * (x * y + z * w), 1 - two_s * (x * x + z * z), two_s * (y * z - x * w),
        two_s * (x * z - y * w), two_s * (y * z + x * w), 1 - two_s * (x * x + y * y),
    )  # fmt: skip


def quat_xyzw_from_matrix(rotation: Any) -> Any:
    """Unit quaternion with w >= 0 of a rotation matrix.

    Each of the four components is the largest for some rotations; the row built on the largest
    one divides by at least 1, so the result is accurate everywhere (Shepperd 1978).

    Args:
        rotation: (..., 3, 3).

    Returns:
        (..., 4), x, y, z, w.
    """
    xp, (m,) = _of_one_kind(rotation)
    m00, m11, m22 = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    sums = 1 + m00 - m11 - m22, 1 - m00 + m11 - m22, 1 - m00 - m11 + m22, 1 + m00 + m11 + m22
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
    candidates = (
        (sums[0], xy, xz, xw), (xy, sums[1], yz, yw), (xz, yz, sums[2], zw), (xw, yw, zw, sums[3]),
    )  # fmt: skip
    largest = xp.stack(sums, -1).argmax(-1)[..., None]
    quat = xp.stack(candidates[3], -1)
    for row in range(3):
        quat = xp.where(largest == row, xp.stack(candidates[row], -1), quat)
    quat = quat / _norm(xp, quat)[..., None]
    return xp.where(quat[..., 3:] < 0, -quat, quat)


def inverse(transform: Any) -> Any:
    """Inverse of rigid transforms (..., 4, 4)."""
    xp, (transform,) = _of_one_kind(transform)
    rotation_t = transform[..., :3, :3].swapaxes(-1, -2)
    result = xp.zeros_like(transform)
    result[..., :3, :3] = rotation_t
    result[..., :3, 3] = -(rotation_t @ transform[..., :3, 3:])[..., 0]
    result[..., 3, 3] = 1
    return result


def pose_errors(reached: Any, wanted: Any, axis_weights: Any = None) -> tuple[Any, Any]:
    """How far poses are from those that are wanted, to the nearest one that is allowed.

    Args:
        reached: (..., T, 4, 4), or (..., 4, 4) without weights.
        wanted: the same, or what broadcasts against it.
        axis_weights: (T, 6) along x, y, z and about x, y, z of each wanted pose; where one is 0,
            the pose is free. None: nothing is free.

    Returns:
        Distance [m] and angle [rad] in [0, pi], accurate at both ends, each (..., T) or (...).
    """
    xp, (reached, wanted) = _of_one_kind(reached, wanted)
    offset = wanted[..., :3, 3] - reached[..., :3, 3]
    axis, trace = turn_between(reached, wanted)
    angle = xp.arctan2(_norm(xp, axis), trace - 1)
    if axis_weights is None:
        return _norm(xp, offset), angle
    counts = _of_one_kind(axis_weights)[1][0] != 0
    inverse_rotation = wanted[..., :3, :3].swapaxes(-1, -2)
    along = (inverse_rotation @ offset[..., None])[..., 0]
    turned = inverse_rotation @ reached[..., :3, :3]
    angles = [angle[..., t] for t in range(len(counts))]
    for t, counted in enumerate(counts[:, 3:].tolist()):
        if sum(counted) == 0:
            angles[t] = xp.zeros_like(angles[t])
        elif sum(counted) == 2:
            free = counted.index(False)
            others = [(free + 1) % 3, (free + 2) % 3]
            angles[t] = xp.arctan2(
                _norm(xp, turned[..., t, others, free]), turned[..., t, free, free]
            )
        elif sum(counted) == 1:
            quat = quat_xyzw_from_matrix(turned[..., t, :, :])
            sine = xp.abs(quat[..., counted.index(True)])
            angles[t] = 2 * xp.arctan2(sine, xp.sqrt(xp.clip(1 - sine**2, 0, None)))
    return _norm(xp, along * counts[:, :3]), xp.stack(angles, -1)


def turn_between(reached: Any, wanted: Any) -> tuple[Any, Any]:
    """2 sin(angle) axis (..., 3) and trace (...) of the turn from one pose (..., 4, 4) to another,
    the axis in the base."""
    xp, (reached, wanted) = _of_one_kind(reached, wanted)
    a, b = reached[..., :3, :3], wanted[..., :3, :3]
    cross = np.cross(a, b, axis=-2) if xp is np else xp.linalg.cross(a, b, dim=-2)
    return cross.sum(-1), (a * b).sum((-2, -1))


def _of_one_kind(*given: Any) -> tuple[Any, tuple[Any, ...]]:
    """The module, numpy or torch, whose functions take what is given, and that as it takes it."""
    if any(is_tensor(one) for one in given):
        torch = sys.modules["torch"]
        return torch, tuple(one if is_tensor(one) else torch.as_tensor(one) for one in given)
    arrays = [np.asarray(one) for one in given]
    return np, tuple(a if a.dtype == np.float32 else a.astype(np.float64) for a in arrays)


def _norm(xp: Any, vector: Any) -> Any:
    """Length (...) of vectors (..., n), whose gradient is 0 where it is 0."""
    return xp.linalg.norm(vector, axis=-1) if xp is np else vector.norm(dim=-1)


def _matrix(xp: Any, *rows: Any) -> Any:
    """(..., 3, 3) of its entries (...) by rows."""
    return xp.stack(rows, -1).reshape(*rows[0].shape, 3, 3)
