# SPDX-License-Identifier: Apache-2.0
"""Rigid transforms in torch: rotation matrices inside, quaternions (x, y, z, w) at the edges."""

import torch
from torch import Tensor


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


def inverse(transform: Tensor) -> Tensor:
    """Inverse of rigid transforms (..., 4, 4)."""
    rotation_t = transform[..., :3, :3].transpose(-1, -2)
    result = torch.zeros_like(transform)
    result[..., :3, :3] = rotation_t
    result[..., :3, 3] = -(rotation_t @ transform[..., :3, 3:]).squeeze(-1)
    result[..., 3, 3] = 1
    return result


def rotation_angle(rotation: Tensor) -> Tensor:
    """Angle in [0, pi] of rotation matrices (..., 3, 3), accurate near 0 and near pi."""
    vee = torch.stack(
        (
            rotation[..., 2, 1] - rotation[..., 1, 2],
            rotation[..., 0, 2] - rotation[..., 2, 0],
            rotation[..., 1, 0] - rotation[..., 0, 1],
        ),
        -1,
    )
    trace = rotation.diagonal(dim1=-2, dim2=-1).sum(-1)
    return torch.atan2(vee.norm(dim=-1), trace - 1)


def pose_errors(T_a: Tensor, T_b: Tensor) -> tuple[Tensor, Tensor]:
    """Distance [m] and angle [rad] between poses (..., 4, 4); both results have shape (...)."""
    position = (T_a[..., :3, 3] - T_b[..., :3, 3]).norm(dim=-1)
    angle = rotation_angle(T_a[..., :3, :3].transpose(-1, -2) @ T_b[..., :3, :3])
    return position, angle
