# SPDX-License-Identifier: Apache-2.0
"""The network and what it is fed."""

import numpy as np
import pinocchio as pin
import pytest
import torch

from meanflow_ik_core import load_robot
from meanflow_ik_core.errors import OptionError
from meanflow_ik_core.network.kinds import network_for
from meanflow_ik_core.network.model import (
    MeanFlowNetwork,
    condition_from_poses,
    denormalise_joints,
    normalise_joints,
)

SIZES = [(1, 1), (7, 1), (6, 2), (14, 2), (23, 4)]  # (J, T)


def randomised(num_joints, num_tips, seed=0, dtype=torch.float64, **sizes):
    """A network whose output layer is not zero."""
    torch.manual_seed(seed)
    sizes = {"hidden_dim": 32, "depth": 4, "context_dim": 16, "context_depth": 1, **sizes}
    network = MeanFlowNetwork(num_joints, num_tips, **sizes).to(dtype)
    torch.nn.init.normal_(network.out.weight)
    torch.nn.init.normal_(network.out.bias)
    return network


def inputs(count, num_joints, num_tips, dtype=torch.float64):
    z = torch.randn(count, num_joints, dtype=dtype)
    t = torch.rand(count, dtype=dtype)
    condition = torch.randn(count, num_tips, 7, dtype=dtype)
    condition[..., 3:] /= condition[..., 3:].norm(dim=-1, keepdim=True)
    return z, t * torch.rand(count, dtype=dtype), t, condition.flatten(1)


@pytest.mark.parametrize(("num_joints", "num_tips"), SIZES)
def test_u_has_the_shape_of_z_and_features_the_width_of_the_network(num_joints, num_tips):
    network = randomised(num_joints, num_tips)
    u, features = network(*inputs(5, num_joints, num_tips))
    assert u.shape == (5, num_joints)
    assert features.shape == (5, 32)


@pytest.mark.parametrize(("num_joints", "num_tips"), SIZES)
def test_opposite_quaternions_give_exactly_the_same_output(num_joints, num_tips):
    network = randomised(num_joints, num_tips, dtype=torch.float32)
    z, r, t, condition = inputs(64, num_joints, num_tips, torch.float32)
    opposite = condition.unflatten(1, (num_tips, 7)).clone()
    opposite[:, -1, 3:] *= -1
    for given, other in zip(
        network(z, r, t, condition), network(z, r, t, opposite.flatten(1)), strict=True
    ):
        assert torch.equal(given, other)


@pytest.mark.parametrize(("num_joints", "num_tips"), SIZES)
def test_another_rotation_or_position_of_any_tip_changes_the_output(num_joints, num_tips):
    network = randomised(num_joints, num_tips)
    z, r, t, condition = inputs(8, num_joints, num_tips)
    u = network(z, r, t, condition)[0]
    for entry in range(7 * num_tips):
        other = condition.clone()
        other[:, entry] += 0.3
        assert ((network(z, r, t, other)[0] - u).abs().amax(-1) > 1e-6).all()


def test_both_times_change_the_output():
    network = randomised(7, 1)
    z, r, t, condition = inputs(8, 7, 1)
    u = network(z, r, t, condition)[0]
    assert ((network(z, 0.5 * r, t, condition)[0] - u).abs().amax(-1) > 1e-6).all()
    # the same gap at another time
    assert ((network(z, r + 0.1, t + 0.1, condition)[0] - u).abs().amax(-1) > 1e-6).all()


@pytest.mark.parametrize(("num_joints", "num_tips"), SIZES)
def test_one_step_is_z_minus_u_from_noise_to_data(num_joints, num_tips):
    network = randomised(num_joints, num_tips)
    _, _, _, condition = inputs(3, num_joints, num_tips)
    noise = torch.randn(3, 11, num_joints, dtype=torch.float64)
    x0_hat = network.one_step(noise, condition)
    assert x0_hat.shape == noise.shape
    zero, one = torch.zeros(11, dtype=torch.float64), torch.ones(11, dtype=torch.float64)
    for pose in range(3):
        u, _ = network(noise[pose], zero, one, condition[pose].expand(11, -1))
        torch.testing.assert_close(x0_hat[pose], noise[pose] - u, rtol=0, atol=1e-12)


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_features_come_from_block_half_depth(depth):
    network = randomised(7, 1, depth=depth)
    arguments = inputs(4, 7, 1)
    before = network(*arguments)[1]
    for index, block in enumerate(network.blocks):
        kept = block.second.bias.detach().clone()
        block.second.bias.data += 1
        changed = not torch.equal(network(*arguments)[1], before)
        assert changed == (index <= depth // 2)
        block.second.bias.data = kept


def test_rows_of_a_batch_do_not_mix():
    network = randomised(7, 1)
    z, r, t, condition = inputs(6, 7, 1)
    whole = network(z, r, t, condition)[0]
    for row in range(6):
        part = slice(row, row + 1)
        alone = network(z[part], r[part], t[part], condition[part])[0]
        torch.testing.assert_close(alone, whole[part], rtol=0, atol=1e-12)


def test_a_fresh_network_predicts_zero_velocity_and_still_learns():
    network = network_for(load_robot("panda"), hidden_dim=32, depth=2, context_dim=16)
    u, _ = network(*inputs(4, 7, 1, torch.float32))
    assert torch.equal(u, torch.zeros_like(u))
    (u - 1).square().sum().backward()
    assert network.out.weight.grad.abs().max() > 0


def test_normalised_joints_span_minus_one_to_one(panda):
    lower, upper = panda.limits(torch.float64)
    torch.testing.assert_close(normalise_joints(lower, lower, upper), -torch.ones_like(lower))
    torch.testing.assert_close(normalise_joints(upper, lower, upper), torch.ones_like(lower))
    q = panda.random_configurations(100)
    x0 = normalise_joints(q, lower, upper)
    assert x0.abs().max() <= 1
    torch.testing.assert_close(denormalise_joints(x0, lower, upper), q)


def test_condition_is_scaled_position_then_quaternion_of_each_tip():
    poses = [[pin.SE3.Random() for _ in range(2)] for _ in range(50)]
    T = torch.from_numpy(np.array([[pose.homogeneous for pose in row] for row in poses]))
    condition = condition_from_poses(T, workspace_scale=0.8)
    assert condition.shape == (50, 14)
    for row, expected in zip(condition.unflatten(1, (2, 7)), poses, strict=True):
        for given, pose in zip(row.numpy(), expected, strict=True):
            np.testing.assert_allclose(given[:3], pose.translation / 0.8, atol=1e-12)
            quat_xyzw = pin.Quaternion(pose.rotation).coeffs()
            assert abs(given[3:] @ quat_xyzw) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("name", ["num_joints", "num_tips", "hidden_dim", "depth", "context_dim"])
@pytest.mark.parametrize("value", [0, -3, 2.5, "8"])
def test_impossible_sizes_are_refused_by_name(name, value):
    sizes = {"num_joints": 7, "num_tips": 1, "hidden_dim": 8, "depth": 2, "context_dim": 8}
    with pytest.raises(OptionError, match=name):
        MeanFlowNetwork(**{**sizes, name: value})
