# SPDX-License-Identifier: Apache-2.0
"""The network of tokens: goals of which any part may be left out."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.func import jvp
from torch.nn import functional as F

from meanflow_ik_core import load_robot
from meanflow_ik_core.errors import CheckpointError, ConfigError, OptionError
from meanflow_ik_core.geometry import matrix_from_quat_xyzw
from meanflow_ik_core.network.checkpoint import save_checkpoint
from meanflow_ik_core.network.kinds import load_checkpoint, network_for
from meanflow_ik_core.network.model import MeanFlowNetwork
from meanflow_ik_core.network.token_model import (
    TokenNetwork,
    _TokenBlock,
    token_condition_from_poses,
)
from meanflow_ik_core.samplers.meanflow import MeanFlowSampler
from meanflow_ik_core.training.batches import draw_batch, draw_estimates, draw_given
from meanflow_ik_core.training.config import (
    TrainConfig,
    load_train_config,
    train_config_from_mapping,
)
from meanflow_ik_core.training.losses import velocity_of
from meanflow_ik_core.training.trainer import train
from meanflow_ik_core.training.validation import validate

ROOT = Path(__file__).parents[2]
SIZES = [(7, 1), (6, 2), (14, 2), (29, 4)]  # (J, T)
SMALL = TrainConfig(
    network="tokens", hidden_dim=16, depth=2, context_dim=8, token_dim=8, drop_tip=0.5,
    drop_orientation=0.3, drop_position=0.2, batch_size=16, iterations=4, warmup_steps=1,
    estimate_start=0.0, estimate_poses=8, estimate_samples=3, lambda_energy=0.5, lambda_refine=0.2,
    lambda_kernel=0.3, score_tips=0.5, refine_tips=True, optimizer="muon", precision="bfloat16",
    log_every=1, save_every=100, validate_every=100, validation_poses=4, validation_samples=3,
)  # fmt: skip


@pytest.fixture(scope="module")
def two_arms():
    return load_robot(
        ROOT / "test/robots/torso_two_arms.urdf", base="pedestal", tips=["left_tool", "right_hand"]
    )


def randomised(num_joints, num_tips, dtype=torch.float64, **sizes):
    """A network whose output layer is not zero."""
    torch.manual_seed(0)
    sizes = {
        "hidden_dim": 32, "depth": 3, "context_dim": 16, "context_depth": 1, "token_dim": 16,
        "token_depth": 2, "num_heads": 2, **sizes,
    }  # fmt: skip
    network = TokenNetwork(num_joints, num_tips, **sizes).to(dtype)
    torch.nn.init.normal_(network.out.weight)
    torch.nn.init.normal_(network.out.bias)
    return network


def random_poses(count, num_tips, dtype=torch.float64):
    T = torch.eye(4, dtype=dtype).repeat(count, num_tips, 1, 1)
    T[..., :3, :3] = matrix_from_quat_xyzw(torch.randn(count, num_tips, 4, dtype=dtype))
    T[..., :3, 3] = torch.randn(count, num_tips, 3, dtype=dtype)
    return T


def some_masks(num_tips):
    """Every choice of position, orientation, both or neither of each tip."""
    flat = torch.cartesian_prod(*[torch.tensor([False, True])] * (2 * num_tips))
    return flat.unflatten(1, (num_tips, 2))[torch.randperm(len(flat))[:32]]


def inputs(count, num_joints, dtype=torch.float64):
    t = torch.rand(count, dtype=dtype)
    return torch.randn(count, num_joints, dtype=dtype), t * torch.rand(count, dtype=dtype), t


@pytest.mark.parametrize(("num_joints", "num_tips"), SIZES)
@pytest.mark.parametrize("value", [0.3, 1e6, torch.nan, torch.inf])
def test_what_is_not_given_changes_nothing(num_joints, num_tips, value):
    network = randomised(num_joints, num_tips)
    z, r, t = inputs(3, num_joints)
    poses = random_poses(3, num_tips)
    for given in some_masks(num_tips):
        other = poses.clone()
        # assigned, not added: whatever stood there before
        other[:, ~given[:, 0], :3, 3] = value
        other[:, ~given[:, 1], :3, :3] = value
        before, after = (network.condition(T, 0.8, given) for T in (poses, other))
        assert torch.equal(before, after)
        assert torch.equal(network(z, r, t, before)[0], network(z, r, t, after)[0])
        # nor do numbers that someone writes into a condition beside its marks
        tokens = before.unflatten(1, (num_tips, 9)).clone()
        tokens[:, ~given[:, 0], :3] = value
        tokens[:, ~given[:, 1], 3:7] = value
        written = network(z, r, t, tokens.flatten(1))[0]
        assert torch.equal(written, network(z, r, t, before)[0])


@pytest.mark.parametrize(("num_joints", "num_tips"), SIZES)
def test_what_is_given_and_that_it_is_given_both_count(num_joints, num_tips):
    network = randomised(num_joints, num_tips)
    z, r, t = inputs(4, num_joints)
    poses = random_poses(4, num_tips)
    everything = torch.ones(num_tips, 2, dtype=torch.bool)

    def u(T, given):
        return network(z, r, t, network.condition(T, 1.0, given))[0]

    whole = u(poses, everything)
    assert torch.equal(whole, u(poses, None))
    for tip in range(num_tips):
        moved, turned = poses.clone(), poses.clone()
        moved[:, tip, 0, 3] += 0.3
        turned[:, tip, :3, :3] = turned[:, tip, :3, :3].roll(1, -1)
        assert ((u(moved, everything) - whole).abs().amax(-1) > 1e-6).all()
        assert ((u(turned, everything) - whole).abs().amax(-1) > 1e-6).all()
        for part in (0, 1):
            given = everything.clone()
            given[tip, part] = False
            assert ((u(poses, given) - whole).abs().amax(-1) > 1e-6).all()


def test_masks_may_differ_from_row_to_row():
    network = randomised(14, 2)
    z, r, t = inputs(32, 14)
    poses, given = random_poses(32, 2), some_masks(2)[:16].repeat(2, 1, 1)
    together = network(z, r, t, network.condition(poses, 1.0, given))[0]
    for row in range(32):
        condition = network.condition(poses[row : row + 1], 1.0, given[row])
        alone = network(z[row : row + 1], r[row : row + 1], t[row : row + 1], condition)[0]
        torch.testing.assert_close(alone, together[row : row + 1], rtol=0, atol=1e-11)


def test_opposite_quaternions_give_exactly_the_same_output():
    network = randomised(14, 2, torch.float32)
    z, r, t = inputs(64, 14, torch.float32)
    condition = network.condition(random_poses(64, 2, torch.float32), 1.0)
    opposite = condition.unflatten(1, (2, 9)).clone()
    opposite[:, -1, 3:7] *= -1
    assert torch.equal(network(z, r, t, condition)[0], network(z, r, t, opposite.flatten(1))[0])


def test_tips_in_another_order_with_their_weights_are_the_same_network():
    network, other = randomised(29, 4), randomised(29, 4)
    order = torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        for name in ("pose_weight", "absent", "identity"):
            getattr(other, name).copy_(getattr(network, name)[order])
        columns = network.token_out.weight.unflatten(1, (4, -1))[:, order]
        other.token_out.weight.copy_(columns.flatten(1))
    z, r, t = inputs(5, 29)
    poses, given = random_poses(5, 4), torch.rand(5, 4, 2) < 0.5
    expected = network(z, r, t, network.condition(poses, 1.0, given))[0]
    result = other(z, r, t, other.condition(poses[:, order], 1.0, given[:, order]))[0]
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-11)
    unchanged = other(z, r, t, other.condition(poses, 1.0, given))[0]
    assert (unchanged - expected).abs().max() > 1e-3


def test_the_encoder_is_torchs_own_attention():
    """Oracle: scaled_dot_product_attention and the layers written out one by one."""
    network = randomised(14, 3, token_depth=1)
    (block,) = network.token_blocks
    assert isinstance(block, _TokenBlock)
    tokens = torch.randn(5, 3, 16, dtype=torch.float64)
    heads = [
        part.unflatten(-1, (2, 8)).transpose(1, 2)
        for part in block.query_key_value(F.layer_norm(tokens, (16,))).chunk(3, -1)
    ]
    mixed = F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
    attended = tokens + block.joined(mixed)
    hidden = F.silu(block.first(F.layer_norm(attended, (16,))))
    torch.testing.assert_close(block(tokens), attended + block.second(hidden))


@pytest.mark.parametrize(("num_joints", "num_tips"), SIZES)
def test_one_step_is_z_minus_u_from_noise_to_data(num_joints, num_tips):
    network = randomised(num_joints, num_tips)
    given = torch.rand(3, num_tips, 2) < 0.7
    condition = network.condition(random_poses(3, num_tips), 1.0, given)
    noise = torch.randn(3, 11, num_joints, dtype=torch.float64)
    x0_hat = network.one_step(noise, condition)
    zero, one = torch.zeros(11, dtype=torch.float64), torch.ones(11, dtype=torch.float64)
    for pose in range(3):
        u, _ = network(noise[pose], zero, one, condition[pose].expand(11, -1))
        torch.testing.assert_close(x0_hat[pose], noise[pose] - u, rtol=0, atol=1e-12)


@pytest.mark.parametrize("entry", range(3))
def test_forward_mode_derivatives_agree_with_finite_differences(entry):
    network = randomised(6, 2)
    z, r, t = inputs(5, 6)
    condition = network.condition(random_poses(5, 2), 1.0, torch.rand(5, 2, 2) < 0.6)
    velocity = velocity_of(network, condition)
    primals = [z, r, t]
    tangents = [torch.zeros_like(x) for x in primals]
    tangents[entry] = torch.randn_like(primals[entry])
    derivative = jvp(velocity, tuple(primals), tuple(tangents))[1]
    step = 1e-6
    ahead, behind = (
        velocity(*(x + sign * step * d for x, d in zip(primals, tangents, strict=True)))
        for sign in (1, -1)
    )
    torch.testing.assert_close(derivative, (ahead - behind) / (2 * step), rtol=1e-6, atol=1e-7)


def test_derivatives_go_through_the_attention_too():
    network = randomised(6, 2)
    z, r, t = inputs(2, 6)
    condition = network.condition(random_poses(2, 2), 1.0)
    direction = torch.zeros(2, 2, 9, dtype=torch.float64)
    direction[..., :3] = 1.0
    direction = direction.flatten(1)

    def of_condition(x):
        return network(z, r, t, x)[0]

    derivative = jvp(of_condition, (condition,), (direction,))[1]
    step = 1e-6
    difference = of_condition(condition + step * direction) - of_condition(
        condition - step * direction
    )
    torch.testing.assert_close(derivative, difference / (2 * step), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    "name",
    ["num_joints", "num_tips", "hidden_dim", "depth", "context_dim", "token_dim", "num_heads"],
)
@pytest.mark.parametrize("value", [0, -3, 2.5, "8"])
def test_impossible_sizes_are_refused_by_name(name, value):
    sizes = {"num_joints": 7, "num_tips": 1, "hidden_dim": 8, "depth": 2, "context_dim": 8}
    with pytest.raises(OptionError, match=name):
        TokenNetwork(**{**sizes, name: value})
    with pytest.raises(OptionError, match="num_heads is 3"):
        TokenNetwork(**sizes, num_heads=3)


def test_a_checkpoint_comes_back_as_the_network_that_it_was(two_arms, tmp_path):
    network = network_for(two_arms, "tokens", hidden_dim=16, depth=2, context_dim=8, token_dim=8)
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, network, two_arms, {})
    loaded, record = load_checkpoint(path, two_arms)
    assert isinstance(loaded, TokenNetwork)
    assert record["kind"] == "tokens"
    assert loaded.config == network.config
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, network.state_dict()[name].half().float())
    with pytest.raises(CheckpointError, match="panda"):
        load_checkpoint(path, load_robot("panda"))


@pytest.mark.parametrize("kind", ["mlp", "transformer", ["tokens"], None])
def test_a_checkpoint_of_another_kind_than_its_weights_is_refused(
    two_arms, tmp_path, monkeypatch, kind
):
    network = network_for(two_arms, "tokens", hidden_dim=16, depth=2, context_dim=8, token_dim=8)
    monkeypatch.setattr(network, "kind", kind, raising=False)
    save_checkpoint(tmp_path / "x.safetensors", network, two_arms, {})
    with pytest.raises(CheckpointError, match=r"kind|no network"):
        load_checkpoint(tmp_path / "x.safetensors", two_arms)


def test_the_shipped_checkpoint_without_a_kind_is_a_plain_network():
    network, record = load_checkpoint("panda", load_robot("panda"))
    assert isinstance(network, MeanFlowNetwork)
    assert record["kind"] == "mlp"


def sampler_for(robot, kind, num_calls=1):
    network = network_for(robot, kind, hidden_dim=16, depth=2, context_dim=8)
    torch.nn.init.normal_(network.out.weight)
    return MeanFlowSampler(robot, network, num_calls=num_calls)


@pytest.mark.parametrize("num_calls", [1, 2])
def test_a_sampler_ignores_the_poses_of_tips_that_are_not_given(two_arms, num_calls):
    sampler = sampler_for(two_arms, "tokens", num_calls)
    poses = two_arms.forward(two_arms.random_configurations(3))
    other = poses.clone()
    other[:, 1] = torch.eye(4)
    given = np.array([[True, True], [False, False]])

    def drawn(T, given):
        return sampler.sample(T, 5, torch.Generator().manual_seed(0), given)

    assert torch.equal(drawn(poses, given), drawn(other, given))
    assert not torch.equal(drawn(poses, None), drawn(other, None))
    assert not torch.equal(drawn(poses, None), drawn(poses, given))
    assert torch.equal(drawn(poses, None), drawn(poses, np.ones((2, 2), bool)))


@pytest.mark.parametrize("shape", [(2,), (1, 2), (3, 2), (2, 3)])
def test_a_mask_of_another_shape_is_refused(two_arms, shape):
    poses = two_arms.forward(two_arms.random_configurations(3))
    with pytest.raises(OptionError, match="given has shape"):
        sampler_for(two_arms, "tokens").sample(
            poses, 5, torch.Generator().manual_seed(0), np.ones(shape, bool)
        )


@pytest.mark.parametrize("num_calls", [1, 2])
def test_a_network_without_masks_refuses_partial_goals(two_arms, num_calls):
    sampler = sampler_for(two_arms, "mlp", num_calls)
    poses = two_arms.forward(two_arms.random_configurations(3))
    generator = torch.Generator().manual_seed(0)
    assert sampler.sample(poses, 5, generator, np.ones((2, 2), bool)).shape == (3, 5, 8)
    for given in ([[True, True], [False, False]], [[True, False], [True, True]]):
        with pytest.raises(OptionError, match="complete goals"):
            sampler.sample(poses, 5, generator, np.array(given))


@pytest.mark.parametrize("shares", [(0.4, 0.0, 0.0), (0.0, 0.3, 0.0), (0.5, 0.3, 0.2)])
def test_parts_of_goals_are_dropped_as_often_as_asked(shares):
    robot = load_robot("g1")
    names = ("drop_tip", "drop_orientation", "drop_position")
    config = replace(SMALL, **dict(zip(names, shares, strict=True)))
    count = 20_000
    given = draw_given(robot, config, count, torch.Generator().manual_seed(0))
    assert given is not None
    stays = given.any(-1)
    assert stays.any(-1).all()
    drop_tip, drop_orientation, drop_position = shares
    # of one tip that stays and three others each with even chance, none goes in 1 of 8
    assert (~stays).any(-1).double().mean() == pytest.approx(drop_tip * 7 / 8, abs=0.015)
    kept = given[stays].double().mean(0)
    assert kept[1] == pytest.approx(1 - drop_orientation, abs=0.015)
    assert kept[0] == pytest.approx(1 - (1 - drop_orientation) * drop_position, abs=0.015)
    # every tip goes as often as every other
    assert (~stays).double().mean(0).numpy() == pytest.approx(drop_tip * 3 / 8, abs=0.015)


def test_batches_hold_conditions_with_parts_left_out(two_arms):
    generator = torch.Generator().manual_seed(0)
    estimates = draw_estimates(two_arms, SMALL, 64, 0.5, generator)
    expected = token_condition_from_poses(
        estimates.targets, two_arms.workspace_scale, estimates.given
    )
    torch.testing.assert_close(estimates.condition, expected)
    assert 0 < estimates.given.double().mean() < 1
    marks = draw_batch(two_arms, SMALL, 64, 0.5, generator).condition.unflatten(1, (2, 9))[..., 7:]
    assert 0 < marks.mean() < 1
    full = replace(SMALL, drop_tip=0.0, drop_orientation=0.0, drop_position=0.0)
    assert draw_estimates(two_arms, full, 64, 0.5, generator).given.all()


def test_training_with_dropping_ends_alike_whether_interrupted_or_not(two_arms, tmp_path):
    half = replace(SMALL, iterations=2, decay_start=1.0)
    whole = replace(SMALL, decay_start=1.0)
    train(two_arms, half, tmp_path / "cut")
    resumed = train(two_arms, whole, tmp_path / "cut")
    straight = train(two_arms, whole, tmp_path / "straight")
    assert resumed.step == straight.step == 4
    assert resumed.metrics == straight.metrics
    first, second = (
        torch.load(tmp_path / name / "state.pt", weights_only=True) for name in ("cut", "straight")
    )
    for name, tensor in first["network"].items():
        assert torch.equal(tensor, second["network"][name]), name
    names = {"position_error_partial", "orientation_error_partial", "spread_partial"}
    assert names <= straight.metrics.keys()
    assert {f"position_error_{tip}" for tip in two_arms.tips} <= straight.metrics.keys()


def test_a_run_of_another_kind_of_network_is_refused(two_arms, tmp_path):
    train(two_arms, SMALL, tmp_path)
    plain = replace(SMALL, network="mlp", drop_tip=0.0, drop_orientation=0.0, drop_position=0.0)
    with pytest.raises(ConfigError, match="another folder"):
        train(two_arms, plain, tmp_path)


@pytest.mark.parametrize("name", ["drop_tip", "drop_orientation", "drop_position"])
def test_a_plain_network_cannot_be_trained_on_partial_goals(name):
    with pytest.raises(ConfigError, match="complete goals"):
        train_config_from_mapping({name: 0.1})


class Answers(TokenNetwork):
    """Answers every pose with the configuration that made it, and moves the joints of one arm
    when that arm's tip is not asked for."""

    def __init__(self, robot, x0):
        super().__init__(robot.num_joints, robot.num_tips, hidden_dim=4, depth=1, token_dim=4)
        self.x0, self.row = x0, 0

    def one_step(self, noise, condition):
        rows = self.x0[(self.row + torch.arange(len(noise))) % len(self.x0)]
        self.row += len(noise)
        x0_hat = rows[:, None].expand_as(noise).clone()
        right_given = condition.unflatten(1, (2, 9))[:, 1, 7] > 0.5
        x0_hat[~right_given, :, RIGHT] = 0.2 * noise[~right_given][..., RIGHT].clamp(-4, 4)
        return x0_hat


RIGHT = 5


def test_validation_tells_accuracy_and_spread_of_partial_goals(two_arms):
    """Joint 5 of the fixture moves the right arm alone."""
    generator = torch.Generator().manual_seed(5)
    q = two_arms.random_configurations(20, generator, torch.float32)
    lower, upper = two_arms.limits(torch.float32)
    network = Answers(two_arms, 2 * (q - lower) / (upper - lower) - 1)
    metrics = validate(two_arms, network, 20, 50, seed=5)
    assert metrics["position_error_mean"] < 1e-5
    assert metrics["position_error_partial"] < 1e-5
    assert metrics["orientation_error_partial"] < 1e-3
    assert metrics["spread_whole"] < 1e-5
    assert metrics["spread_partial"] > 0.02


def test_the_recipe_for_trees_is_complete():
    config = load_train_config("trees")
    assert config.network == "tokens"
    assert config.collision_free
    assert config.drop_tip > 0
