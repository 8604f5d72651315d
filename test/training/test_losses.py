# SPDX-License-Identifier: Apache-2.0
"""The objectives, against data whose average velocity is known in closed form."""

import numpy as np
import pinocchio as pin
import pytest
import torch
from oracles import Judge

from meanflow_ik_core.errors import OptionError
from meanflow_ik_core.evaluation.distribution import mmd_squared
from meanflow_ik_core.network.model import MeanFlowNetwork, normalise_joints
from meanflow_ik_core.training.losses import (
    average_velocity_target,
    damped_step,
    dispersive_loss,
    energy_score,
    interpolate,
    kernel_score,
    refinement_loss,
    rotation_vector,
    sample_times,
    velocity_of,
    weighted_squared_error,
)

MEAN, SCALE = 0.7, 0.4  # x0 ~ N(MEAN, SCALE^2), x1 ~ N(0, 1), each joint on its own


def deviation(t):
    """Standard deviation of z_t = (1 - t) x0 + t x1."""
    return (((1 - t) * SCALE) ** 2 + t**2).sqrt()


def true_velocity(z, r, t):
    """Average velocity of Gaussian data: the flow maps z_t to z_r by shift and scale."""
    r, t = r[:, None], t[:, None]
    w = z - (1 - t) * MEAN
    change = (t + r) * (1 + SCALE**2) - 2 * SCALE**2  # (var_t - var_r) / (t - r)
    return w * change / (deviation(t) * (deviation(t) + deviation(r))) - MEAN


def gaussian_batch(count, joints=3):
    x0 = MEAN + SCALE * torch.randn(count, joints, dtype=torch.float64)
    x1 = torch.randn(count, joints, dtype=torch.float64)
    pair = torch.rand(count, 2, dtype=torch.float64)
    r, t = pair.amin(-1), pair.amax(-1)
    return interpolate(x0, x1, t), r, t, x1 - x0


def test_the_closed_form_moves_the_distribution_at_t_to_the_one_at_r():
    z, r, t, _ = gaussian_batch(1000)
    end = z - (t - r)[:, None] * true_velocity(z, r, t)
    expected = (1 - r[:, None]) * MEAN + deviation(r[:, None]) / deviation(t[:, None]) * (
        z - (1 - t[:, None]) * MEAN
    )
    torch.testing.assert_close(end, expected)


@pytest.mark.parametrize("tangent_velocity", ["sample", "network"])
def test_the_total_target_of_the_true_average_velocity_is_itself(tangent_velocity):
    torch.manual_seed(1)
    z, r, t, _ = gaussian_batch(1000)
    marginal = true_velocity(z, t, t)
    target = average_velocity_target(true_velocity, z, r, t, marginal, "total", tangent_velocity)
    torch.testing.assert_close(target, true_velocity(z, r, t), rtol=0, atol=1e-10)


def test_the_partial_target_of_the_true_average_velocity_is_something_else():
    torch.manual_seed(1)
    z, r, t, _ = gaussian_batch(1000)
    target = average_velocity_target(true_velocity, z, r, t, true_velocity(z, t, t), "partial")
    assert (target - true_velocity(z, r, t)).abs().mean() > 0.1


@pytest.mark.parametrize(
    ("jvp_tangent", "tangent_velocity", "unbiased"),
    [("total", "sample", True), ("total", "network", True), ("partial", "sample", False)],
)
def test_targets_of_samples_average_to_the_true_velocity_only_with_the_total_derivative(
    jvp_tangent, tangent_velocity, unbiased
):
    torch.manual_seed(2)
    z, r, t, v = gaussian_batch(200_000, joints=1)
    target = average_velocity_target(true_velocity, z, r, t, v, jvp_tangent, tangent_velocity)
    residual = (target - true_velocity(z, r, t)).squeeze(-1)
    w = (z.squeeze(-1) - (1 - t) * MEAN) / deviation(t)
    # the mean of the residual given (z, r, t) is zero iff its moments with functions of them are
    moments = torch.stack([residual, residual * w, residual * w * t, residual * w * r])
    in_standard_errors = moments.mean(-1) / (moments.std(-1) / len(w) ** 0.5)
    assert (in_standard_errors.abs().max() < 4.5) == unbiased


@pytest.mark.parametrize("jvp_tangent", ["total", "partial"])
@pytest.mark.parametrize("tangent_velocity", ["sample", "network"])
def test_the_target_of_a_network_agrees_with_finite_differences(jvp_tangent, tangent_velocity):
    torch.manual_seed(3)
    network = MeanFlowNetwork(5, 2, hidden_dim=24, depth=3, context_dim=8).double()
    torch.nn.init.normal_(network.out.weight)
    z, r, t, v = gaussian_batch(16, joints=5)
    condition = torch.randn(16, 14, dtype=torch.float64)
    u = velocity_of(network, condition)
    target = average_velocity_target(u, z, r, t, v, jvp_tangent, tangent_velocity)
    along = {"sample": v, "network": network(z, t, t, condition)[0]}[tangent_velocity]
    if jvp_tangent == "partial":
        along = torch.zeros_like(v)
    h = 1e-5
    ahead = network(z + h * along, r, t + h, condition)[0]
    behind = network(z - h * along, r, t - h, condition)[0]
    expected = v - (t - r)[:, None] * (ahead - behind) / (2 * h)
    torch.testing.assert_close(target, expected, rtol=0, atol=1e-6)
    assert not target.requires_grad


def test_the_velocity_of_a_network_carries_gradient_to_its_parameters():
    network = MeanFlowNetwork(3, hidden_dim=8, depth=1, context_dim=8).double()
    z, r, t, _ = gaussian_batch(4)
    velocity_of(network, torch.randn(4, 7, dtype=torch.float64))(z, r, t).sum().backward()
    assert network.out.bias.grad.abs().sum() > 0


@pytest.mark.parametrize("options", [("all", "sample"), ("total", "mean")])
def test_an_unknown_tangent_is_refused(options):
    z, r, t, v = gaussian_batch(4)
    with pytest.raises(OptionError, match="total"):
        average_velocity_target(true_velocity, z, r, t, v, *options)


@pytest.mark.parametrize(
    ("flow_share", "flow_rows"), [(0.0, 0), (0.5, 500), (0.25, 250), (1, 1000)]
)
def test_times_are_sorted_and_the_flow_share_has_none_between_them(flow_share, flow_rows):
    r, t = sample_times(1000, flow_share, torch.Generator().manual_seed(0))
    assert (r >= 0).all() and (r <= t).all() and (t < 1).all()
    assert (r == t)[1000 - flow_rows :].all()
    assert not (r == t)[: 1000 - flow_rows].any()


def test_times_are_uniform():
    r, t = sample_times(200_000, 0.5, torch.Generator().manual_seed(0))
    # the smaller and the larger of two uniforms have means 1/3 and 2/3
    assert r[:100_000].mean().item() == pytest.approx(1 / 3, abs=5e-3)
    assert t[:100_000].mean().item() == pytest.approx(2 / 3, abs=5e-3)
    quantiles = torch.quantile(t[100_000:], torch.linspace(0.1, 0.9, 9))
    torch.testing.assert_close(quantiles, torch.linspace(0.1, 0.9, 9), rtol=0, atol=1e-2)


def test_power_zero_is_the_mean_squared_error():
    u, target = torch.randn(20, 5), torch.randn(20, 5)
    error = weighted_squared_error(u, target).mean()
    torch.testing.assert_close(error, torch.nn.functional.mse_loss(u, target))


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_the_adaptive_weight_scales_the_gradient_of_a_row_and_has_none_itself(power):
    u = torch.randn(20, 5, dtype=torch.float64, requires_grad=True)
    target = torch.randn(20, 5, dtype=torch.float64)
    weighted_squared_error(u, target, power, 1e-2).sum().backward()
    difference = (u - target).detach()
    weight = (difference.square().sum(-1, keepdim=True) + 1e-2) ** -power
    torch.testing.assert_close(u.grad, 2 * difference * weight / 5)


def test_the_plain_dispersive_loss_is_the_sum_over_pairs():
    features = 0.3 * torch.randn(9, 4)
    kernel = [
        [float(np.exp(-((a - b) ** 2).sum() / 0.5)) for b in features.numpy()]
        for a in features.numpy()
    ]
    pairs = [kernel[i][j] for i in range(9) for j in range(9) if i != j]
    loss = dispersive_loss(features, tau=0.5, normalise=False)
    assert loss.item() == pytest.approx(np.log(np.mean(pairs) + 1e-8), abs=1e-4)


def test_the_normalised_dispersive_loss_is_the_plain_one_of_scaled_features():
    features = torch.randn(30, 64)
    loss = dispersive_loss(features, 0.7)
    scaled = dispersive_loss(features / 8, 0.7, normalise=False)
    torch.testing.assert_close(loss, scaled, rtol=0, atol=1e-5)


def test_wide_features_feel_the_normalised_dispersive_loss_and_not_the_plain_one():
    torch.manual_seed(0)
    features = torch.randn(64, 512, requires_grad=True)
    (plain,) = torch.autograd.grad(dispersive_loss(features, normalise=False), features)
    assert torch.equal(plain, torch.zeros_like(plain))
    (gradient,) = torch.autograd.grad(dispersive_loss(features), features)
    assert gradient.norm() > 1e-3
    moved = (features - gradient / gradient.norm()).detach()
    assert torch.cdist(moved, moved).sum() > torch.cdist(features, features).sum()


def test_rotation_vector_inverts_the_exponential():
    vectors = torch.randn(500, 3, dtype=torch.float64)
    vectors *= (3.1 * torch.rand(500, 1, dtype=torch.float64)) / vectors.norm(dim=-1, keepdim=True)
    vectors[:5] *= 1e-9
    rotations = torch.from_numpy(np.array([pin.exp3(v) for v in vectors.numpy()]))
    torch.testing.assert_close(rotation_vector(rotations), vectors, rtol=0, atol=1e-9)


def pinocchio_error(robot, q, targets):
    """Norm of the pose error in SE(3), by Pinocchio alone."""
    judge = Judge(robot)
    errors = []
    for joints, target in zip(q.double().numpy(), targets[:, 0].double().numpy(), strict=True):
        missing = judge.link(joints, robot.tips[0]).actInv(pin.SE3(target))
        errors.append(np.linalg.norm(pin.log6(missing).vector))
    return np.array(errors)


def test_damped_steps_bring_a_disturbed_configuration_back_to_its_pose(panda):
    generator = torch.Generator().manual_seed(0)
    lower, upper = panda.limits(torch.float64)
    middle = 0.5 * (lower + upper)
    q_true = middle + 0.8 * (panda.random_configurations(200, generator) - middle)
    targets = panda.forward(q_true)
    q = q_true + 0.1 * torch.randn(200, 7, generator=generator, dtype=torch.float64)
    before = pinocchio_error(panda, q, targets)
    for _ in range(5):
        q = damped_step(panda, q, targets)
    after = pinocchio_error(panda, q, targets)
    assert np.quantile(after / before, 0.95) < 1e-3


def test_a_damped_step_is_bounded_and_ends_within_the_limits(panda):
    generator = torch.Generator().manual_seed(0)
    targets = panda.forward(panda.random_configurations(500, generator))
    q = panda.random_configurations(500, generator)
    moved = damped_step(panda, q, targets, max_step=0.2)
    assert (moved - q).abs().max() <= 0.2 + 1e-12
    assert panda.within_limits(moved.numpy()).all()


def test_the_refinement_loss_vanishes_at_solutions_and_pulls_towards_the_refined_estimate(panda):
    generator = torch.Generator().manual_seed(0)
    lower, upper = panda.limits(torch.float64)
    q = panda.random_configurations(50, generator)
    targets = panda.forward(q)
    x0 = normalise_joints(q, lower, upper)
    assert refinement_loss(panda, x0, targets).item() < 1e-20

    x0_hat = (x0 + 0.05 * torch.randn_like(x0)).requires_grad_()
    refinement_loss(panda, x0_hat, targets).backward()
    refined = normalise_joints(
        damped_step(panda, lower + 0.5 * (x0_hat.detach() + 1) * (upper - lower), targets),
        lower,
        upper,
    )
    torch.testing.assert_close(x0_hat.grad, 2 * (x0_hat.detach() - refined) / x0_hat.numel())


def test_the_refinement_loss_with_power_one_half_pulls_equally_hard_from_near_and_far(panda):
    generator = torch.Generator().manual_seed(0)
    q = panda.random_configurations(50, generator)
    x0 = normalise_joints(q, *panda.limits(torch.float64))
    for size in (0.02, 0.1):
        offset = size * torch.randn(x0.shape, generator=generator, dtype=torch.float64)
        x0_hat = (x0 + offset).requires_grad_()
        refinement_loss(panda, x0_hat, panda.forward(q), power=0.5).backward()
        pull = x0_hat.grad.norm(dim=-1) * x0_hat.numel() / 2
        assert 0.9 < pull.median() <= 1


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_the_energy_score_is_that_of_its_definition(power):
    generator = torch.Generator().manual_seed(0)
    x0_hat = torch.randn(5, 3, 2, generator=generator, dtype=torch.float64)
    x0 = torch.randn(5, 2, generator=generator, dtype=torch.float64)
    scores = []
    for samples, truth in zip(x0_hat.numpy(), x0.numpy(), strict=True):
        to_data = np.mean([np.linalg.norm(sample - truth) ** power for sample in samples])
        pairs = [samples[i] - samples[j] for i, j in ((0, 1), (0, 2), (1, 2))]
        scores.append(to_data - np.mean(np.linalg.norm(pairs, axis=1) ** power) / 2)
    assert energy_score(x0_hat, x0, power).item() == pytest.approx(np.mean(scores), abs=1e-5)


def test_the_kernel_score_is_half_the_discrepancy_up_to_what_only_the_data_say():
    """Oracle: the unbiased squared discrepancy of `distribution`, pose by pose."""
    rng = np.random.default_rng(0)
    samples, other = rng.normal(size=(2, 6, 3)), rng.normal(0.5, 1.0, size=(50, 3))

    def score(samples):
        rows = torch.tensor(samples).expand(len(other), -1, -1)
        return kernel_score(rows, torch.tensor(other)).item()

    difference = mmd_squared(samples[0], other) - mmd_squared(samples[1], other)
    assert score(samples[0]) - score(samples[1]) == pytest.approx(difference / 2, abs=1e-12)


def test_the_energy_score_has_finite_gradients_when_samples_coincide():
    x0_hat = torch.ones(4, 3, 2, requires_grad=True)
    energy_score(x0_hat, torch.ones(4, 2)).backward()
    assert x0_hat.grad.isfinite().all()


@pytest.mark.parametrize("score", [energy_score, kernel_score])
def test_a_score_prefers_the_distribution_to_its_mean_and_to_a_part_of_it(score):
    """Truth: one point of -1 and 1, equally likely, of which each row shows one."""
    generator = torch.Generator().manual_seed(0)
    x0 = torch.randint(0, 2, (20_000, 1), generator=generator) * 2.0 - 1
    both = torch.randint(0, 2, (20_000, 4, 1), generator=generator) * 2.0 - 1
    scores = {
        name: score(x0_hat, x0).item()
        for name, x0_hat in {
            "both": both, "mean": 0 * both, "one": torch.ones_like(both), "narrow": 0.7 * both
        }.items()
    }  # fmt: skip
    assert scores["both"] < min(scores["mean"], scores["one"]) - 0.1
    assert scores["both"] < scores["narrow"] - 0.01


def learn_two_points(jvp_tangent, r_is_zero):
    """One-step samples of a small network that was trained on x0 = -1 or 1."""
    torch.manual_seed(0)
    network = MeanFlowNetwork(1, hidden_dim=32, depth=2, context_dim=16)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    condition = torch.tensor([0.0, 0, 0, 0, 0, 0, 1]).expand(128, 7)
    for _ in range(300):
        x0 = torch.randint(0, 2, (128, 1)) * 2.0 - 1
        x1 = torch.randn(128, 1)
        r, t = sample_times(128, 0.5)
        if r_is_zero:
            r, t = torch.zeros(128), torch.rand(128)
        z, v = interpolate(x0, x1, t), x1 - x0
        target = average_velocity_target(
            velocity_of(network, condition), z, r, t, v, jvp_tangent, "sample"
        )
        u, _ = network(z, r, t, condition)
        if r_is_zero:
            loss = (u - v).square().mean() + 0.1 * (u - target).square().mean()
        else:
            loss = weighted_squared_error(u, target, 0.5).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return network.one_step(torch.randn(1, 2000, 1), condition[:1])[0, :, 0]


def test_one_step_of_the_total_objective_reaches_both_solutions_and_of_the_partial_their_mean():
    both = learn_two_points("total", r_is_zero=False)
    assert (both.abs() - 1).abs().median() < 0.35
    assert 0.35 < (both > 0).float().mean() < 0.65
    collapsed = learn_two_points("partial", r_is_zero=True)
    assert collapsed.abs().median() < 0.35
