# SPDX-License-Identifier: Apache-2.0
"""Rotations against Pinocchio, also where formulas usually break."""

import numpy as np
import pinocchio as pin
import pytest
import torch

from meanflow_ik_core.geometry import (
    inverse,
    matrix_from_quat_xyzw,
    matrix_from_rpy,
    pose_errors,
    quat_xyzw_from_matrix,
)


def rotations() -> torch.Tensor:
    """Random ones, the identity, half turns about many axes, and tiny turns."""
    rng = np.random.default_rng(0)
    axes = rng.normal(size=(300, 3))
    axes[:3] = np.eye(3)
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    angles = np.concatenate((np.full(100, np.pi), np.full(100, 1e-7), rng.uniform(0, np.pi, 100)))
    turns = [pin.exp3(a * w) for a, w in zip(angles, axes, strict=True)]
    return torch.from_numpy(np.stack([np.eye(3), *turns]))


def test_quaternions_agree_with_pinocchio_and_come_back():
    R = rotations()
    quat = quat_xyzw_from_matrix(R)
    for row, expected in zip(quat.numpy(), R.numpy(), strict=True):
        np.testing.assert_allclose(pin.Quaternion(row).matrix(), expected, atol=1e-12)
    assert (quat[:, 3] >= 0).all()
    torch.testing.assert_close(matrix_from_quat_xyzw(quat), R, rtol=0, atol=1e-12)


def test_roll_pitch_yaw_agrees_with_pinocchio():
    rpy = np.random.default_rng(2).uniform(-np.pi, np.pi, (50, 3))
    rpy[:2, 1] = np.pi / 2, -np.pi / 2
    expected = np.stack([pin.rpy.rpyToMatrix(*row) for row in rpy])
    np.testing.assert_allclose(matrix_from_rpy(rpy), expected, atol=1e-12)


def test_arrays_come_back_as_arrays_and_tensors_as_tensors():
    R = rotations()
    for given, kind in ((R, torch.Tensor), (R.numpy(), np.ndarray)):
        quat = quat_xyzw_from_matrix(given)
        assert isinstance(quat, kind) and isinstance(matrix_from_quat_xyzw(quat), kind)
    assert isinstance(matrix_from_rpy([0.0, 0.0, 1.0]), np.ndarray)
    assert quat_xyzw_from_matrix(R.numpy().astype(np.float32)).dtype == np.float32


@pytest.mark.parametrize("free", ["", "rx ry rz", "rz", "rx rz", "x z rx", "y rx ry"])
def test_errors_of_arrays_are_those_of_tensors(free):
    rng = np.random.default_rng(3)
    T = np.stack([pin.SE3.Random().homogeneous for _ in range(40)])
    T_reached, T_wanted = T[:20, None], T[20:, None]
    T_wanted[:2] = T_reached[:2]
    weights = np.array([[axis not in free.split() for axis in ("x", "y", "z", "rx", "ry", "rz")]])
    weights = weights * rng.uniform(0.5, 2.0, (1, 6))
    tensors = map(torch.from_numpy, (T_reached, T_wanted, weights))
    for ours, theirs in zip(
        pose_errors(T_reached, T_wanted, weights), pose_errors(*tensors), strict=True
    ):
        assert isinstance(ours, np.ndarray) and ours.shape == (20, 1)
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=0, atol=1e-14)
    if not free:
        plain = pose_errors(T_reached, T_wanted)
        np.testing.assert_allclose(plain, pose_errors(T_reached, T_wanted, weights), atol=1e-14)


def test_gradients_flow_through_quaternions_and_errors():
    T = torch.from_numpy(np.stack([pin.SE3.Random().homogeneous for _ in range(8)]))
    T.requires_grad_()
    assert torch.autograd.gradcheck(quat_xyzw_from_matrix, T[:, :3, :3])
    assert torch.autograd.gradcheck(lambda one: pose_errors(one, T[:1].detach())[0], T[1:])


def test_a_quaternion_its_negative_and_its_multiple_are_one_rotation():
    quat = torch.randn(50, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    R = matrix_from_quat_xyzw(quat)
    torch.testing.assert_close(matrix_from_quat_xyzw(-quat), R)
    torch.testing.assert_close(matrix_from_quat_xyzw(3 * quat), R)
    identity = torch.eye(3, dtype=torch.float64).expand(50, 3, 3)
    torch.testing.assert_close(R @ R.mT, identity)


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-4, 1.0, 3.0, np.pi - 1e-6, np.pi])
def test_angle_is_accurate_from_zero_to_a_half_turn(angle):
    axis = np.array([2.0, -3.0, 6.0]) / 7
    R = torch.from_numpy(pin.exp3(angle * axis))
    reached, wanted = torch.eye(4, dtype=torch.float64), torch.eye(4, dtype=torch.float64)
    wanted[:3, :3] = R
    assert pose_errors(reached, wanted)[1].item() == pytest.approx(angle, abs=1e-12)


def test_inverse_and_errors_of_poses():
    rng = np.random.default_rng(1)
    poses = [pin.SE3.Random() for _ in range(20)]
    T = torch.from_numpy(np.stack([pose.homogeneous for pose in poses]))
    expected = torch.from_numpy(np.stack([pose.inverse().homogeneous for pose in poses]))
    torch.testing.assert_close(inverse(T), expected, rtol=0, atol=1e-12)
    step = pin.SE3(pin.exp3(np.array([0.3, 0.0, 0.4])), rng.normal(size=3))
    moved = torch.from_numpy(np.stack([(pose * step).homogeneous for pose in poses]))
    position, angle = pose_errors(T, moved)
    np.testing.assert_allclose(position, np.linalg.norm(step.translation), atol=1e-12)
    np.testing.assert_allclose(angle, 0.5, atol=1e-12)
