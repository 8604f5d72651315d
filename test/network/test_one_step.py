# SPDX-License-Identifier: Apache-2.0
"""The fast form of the one-step call against the network that it was made of."""

import pytest
import torch
from example_robots import TORSO, TORSO_TIPS

import meanflow_ik_core as mik
from meanflow_ik_core.evaluation.evaluate import evaluate
from meanflow_ik_core.geometry import matrix_from_quat_xyzw
from meanflow_ik_core.network import one_step
from meanflow_ik_core.network.kinds import load_checkpoint, network_for
from meanflow_ik_core.network.model import MeanFlowNetwork, condition_from_poses
from meanflow_ik_core.network.one_step import OneStep, bfloat16_supported, dtype_from_precision
from meanflow_ik_core.samplers.meanflow import MeanFlowSampler

needs_bfloat16 = pytest.mark.skipif(not bfloat16_supported(), reason="no bfloat16 in this CPU")
DTYPES = (torch.float32, pytest.param(torch.bfloat16, marks=needs_bfloat16))
SHAPES = [(1, 1), (1, 128), (3, 1), (3, 40), (1, 1000)]  # (B, N)


@pytest.fixture(scope="module")
def panda() -> mik.Robot:
    return mik.load_robot("panda")


@pytest.fixture(scope="module")
def trained(panda):
    return load_checkpoint("panda", panda)[0]


def random_network(robot, seed=0):
    """A network whose output is not zero."""
    torch.manual_seed(seed)
    sizes = {"hidden_dim": 64, "depth": 3, "context_dim": 16, "context_depth": 2}
    network = network_for(robot, **sizes).eval()
    torch.nn.init.normal_(network.out.weight, std=0.1)
    return network


def poses(robot, count, seed=0):
    q = robot.random_configurations(count, torch.Generator().manual_seed(seed))
    return robot.forward(q)


def noise(robot, batch, count, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, count, robot.num_joints, generator=generator)


def expected(network, robot, z, T_base_tip):
    """x0_hat by the network as it is trained, in float64."""
    exact = MeanFlowNetwork(**network.config)
    exact.load_state_dict(network.state_dict())
    condition = condition_from_poses(T_base_tip, robot.workspace_scale)
    with torch.no_grad():
        return exact.double().one_step(z.double(), condition.double())


@pytest.mark.parametrize(("batch", "count"), SHAPES)
@pytest.mark.parametrize("name", ["panda", "panda untrained", "torso"])
def test_float32_is_the_network_to_rounding(name, batch, count, panda, trained):
    robot = mik.load_robot(TORSO, tips=TORSO_TIPS) if name == "torso" else panda
    network = trained if name == "panda" else random_network(robot)
    z, T_base_tip = noise(robot, batch, count), poses(robot, batch)
    x0_hat = OneStep(network, robot.workspace_scale, torch.float32)(z, T_base_tip)
    assert x0_hat.dtype == torch.float32
    reference = expected(network, robot, z, T_base_tip)
    deviation = (x0_hat - reference).abs()
    assert deviation.quantile(0.99) < 1e-5
    # where a trained network is steep, it multiplies rounding errors, here and in its own form
    assert deviation.max() < (1e-3 if network is trained else 1e-5)


@needs_bfloat16
@pytest.mark.parametrize(("batch", "count"), SHAPES)
def test_bfloat16_differs_by_less_than_its_rounding(batch, count, panda, trained):
    z, T_base_tip = noise(panda, batch, count), poses(panda, batch)
    x0_hat = OneStep(trained, panda.workspace_scale, torch.bfloat16)(z, T_base_tip)
    assert x0_hat.dtype == torch.float32
    deviation = (x0_hat - expected(trained, panda, z, T_base_tip)).abs()
    assert 0 < deviation.mean() < 2**-8 and deviation.quantile(0.99) < 2**-4


@pytest.mark.parametrize(("batch", "count"), [(7, 3), (1, 25), (3, 25)])
def test_many_samples_in_several_passes_are_those_of_one(batch, count, panda, trained, monkeypatch):
    fast = OneStep(trained, panda.workspace_scale, torch.float32)
    z, T_base_tip = noise(panda, batch, count), poses(panda, batch)
    whole = fast(z, T_base_tip)
    monkeypatch.setattr(one_step, "_ROWS_PER_PASS", 10)
    deviation = (fast(z, T_base_tip) - whole).abs()
    assert deviation.quantile(0.99) < 1e-5 and deviation.max() < 1e-3


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_samples_and_no_poses_give_empty_results(dtype, panda, trained):
    fast = OneStep(trained, panda.workspace_scale, dtype)
    assert fast(noise(panda, 2, 0), poses(panda, 2)).shape == (2, 0, 7)
    assert fast(noise(panda, 0, 5), poses(panda, 0)).shape == (0, 5, 7)


@pytest.mark.parametrize("dtype", DTYPES)
def test_poses_do_not_mix_and_opposite_quaternions_are_one_pose(dtype, panda, trained):
    fast = OneStep(trained, panda.workspace_scale, dtype)
    T_base_tip, z = poses(panda, 4), noise(panda, 4, 30)
    whole = fast(z, T_base_tip)
    tolerance = 1e-4 if dtype == torch.float32 else 2**-8
    for row in range(4):
        alone = fast(z[row : row + 1], T_base_tip[row : row + 1])[0]
        assert (alone - whole[row]).abs().mean() < tolerance
    quat_xyzw = torch.nn.functional.normalize(torch.randn(4, 1, 4, dtype=torch.float64), dim=-1)
    both = []
    for sign in (1, -1):
        T_base_tip[..., :3, :3] = matrix_from_quat_xyzw(sign * quat_xyzw)
        both.append(fast(z, T_base_tip))
    assert torch.equal(*both)
    assert (both[0] - whole).abs().mean() > 0.05


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_network_keeps_its_weights_and_the_fast_form_its_own(dtype, panda):
    network = random_network(panda)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    fast = OneStep(network, panda.workspace_scale, dtype)
    z, T_base_tip = noise(panda, 2, 9), poses(panda, 2)
    first = fast(z, T_base_tip)
    assert torch.equal(z, noise(panda, 2, 9))
    assert not first.requires_grad
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert all(parameter.requires_grad for parameter in network.parameters())
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 1
    assert torch.equal(fast(z, T_base_tip), first)


@pytest.mark.parametrize("precision", ["auto", "float32"])
def test_a_cpu_without_bfloat16_gets_float32(precision, panda, trained, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False, raising=False)
    assert dtype_from_precision(precision) == torch.float32
    device, T_base_tip = torch.device("cpu"), poses(panda, 2)
    q, plain = (
        MeanFlowSampler(panda, trained, device, precision=name).sample(
            T_base_tip, 20, torch.Generator().manual_seed(0)
        )
        for name in (precision, "float32")
    )
    assert torch.equal(q, plain)
    with pytest.raises(mik.OptionError, match="float32"):
        dtype_from_precision("bfloat16")


def test_a_torch_without_the_packed_operators_gets_float32(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    monkeypatch.setattr(one_step, "_PACKED_OPS", ("_no_such_operator",))
    assert dtype_from_precision("auto") == torch.float32


@needs_bfloat16
def test_auto_is_bfloat16_where_the_cpu_has_it():
    assert dtype_from_precision("auto") == torch.bfloat16


def test_precisions_that_do_not_exist_or_do_not_apply_are_refused(panda, trained):
    device = torch.device("cpu")
    with pytest.raises(mik.OptionError, match="auto, float32, bfloat16"):
        MeanFlowSampler(panda, trained, device, precision="half")
    with pytest.raises(mik.OptionError, match="bfloat16"):
        MeanFlowSampler(panda, trained, device, num_calls=2, precision="bfloat16")


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_sampler_draws_the_same_for_the_same_seed(dtype, panda, trained):
    precision = str(dtype).removeprefix("torch.")
    sampler = MeanFlowSampler(panda, trained, torch.device("cpu"), precision=precision)
    T_base_tip = poses(panda, 2)
    first, again, other = (
        sampler.sample(T_base_tip, 33, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert panda.within_limits(first.numpy(), 1e-6).all()


@needs_bfloat16
def test_bfloat16_samples_are_as_good_as_float32_samples(panda, trained):
    device = torch.device("cpu")
    plain, rounded = (
        evaluate(
            panda, MeanFlowSampler(panda, trained, device, precision=precision), poses=100
        ).metrics
        for precision in ("float32", "bfloat16")
    )
    for metric in ("position_error_mean", "orientation_error_mean", "recall_median", "spread"):
        assert rounded[metric] == pytest.approx(plain[metric], rel=0.05)
    assert rounded["refined_success"] == pytest.approx(plain["refined_success"], abs=0.01)
