# SPDX-License-Identifier: Apache-2.0
"""The learned sampler: what it draws, and in which precision."""

import pytest
import torch

import meanflow_ik_core as mik
from meanflow_ik_core.evaluation.evaluate import evaluate
from meanflow_ik_core.network import compiled
from meanflow_ik_core.network.kinds import load_checkpoint, network_for
from meanflow_ik_core.samplers.meanflow import MeanFlowSampler

PRECISIONS = [
    "float32", pytest.param("bfloat16", marks=pytest.mark.skipif(
        not compiled.bfloat16_supported(), reason="no bfloat16 in this CPU"))
]  # fmt: skip


@pytest.fixture(scope="module")
def panda():
    return mik.load_robot("panda")


@pytest.fixture(scope="module")
def trained(panda):
    return load_checkpoint("panda", panda)[0]


def drawn(sampler, robot, seed=0, count=33):
    T_base_tip = robot.forward(robot.random_configurations(2, torch.Generator().manual_seed(9)))
    return sampler.sample(T_base_tip, count, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_same_seed_draws_the_same(precision, panda, trained):
    sampler = MeanFlowSampler(panda, trained, precision=precision)
    first, again, other = (drawn(sampler, panda, seed) for seed in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert panda.within_limits(first.numpy(), 1e-6).all()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_sampler_keeps_the_weights_that_it_was_made_of(precision, panda):
    network = network_for(panda, hidden_dim=16, depth=2, context_dim=8)
    torch.nn.init.normal_(network.out.weight, std=0.1)
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    sampler = MeanFlowSampler(panda, network, precision=precision)
    first = drawn(sampler, panda)
    for name, weight in network.state_dict().items():
        assert torch.equal(weight, before[name])
    assert all(parameter.requires_grad for parameter in network.parameters())
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 1
    assert torch.equal(drawn(sampler, panda), first)


@pytest.mark.parametrize("precision", ["auto", "float32"])
def test_a_cpu_without_bfloat16_gets_float32(precision, panda, trained, monkeypatch):
    plain = drawn(MeanFlowSampler(panda, trained, precision="float32"), panda)
    for name in ("bfloat16_supported", "bfloat16_is_faster"):
        monkeypatch.setattr(compiled, name, lambda: False)
    sampler = MeanFlowSampler(panda, trained, precision=precision)
    assert torch.equal(drawn(sampler, panda), plain)
    with pytest.raises(mik.OptionError, match="float32"):
        MeanFlowSampler(panda, trained, precision="bfloat16")


@pytest.mark.skipif(not compiled.bfloat16_is_faster(), reason="bfloat16 is not faster here")
def test_auto_is_bfloat16_where_that_is_faster(panda, trained):
    rounded, own = (
        drawn(MeanFlowSampler(panda, trained, precision=precision), panda)
        for precision in ("bfloat16", "auto")
    )
    assert torch.equal(rounded, own)


def test_precisions_that_do_not_exist_or_do_not_apply_are_refused(panda, trained):
    with pytest.raises(mik.OptionError, match="auto, float32, bfloat16"):
        MeanFlowSampler(panda, trained, precision="half")
    with pytest.raises(mik.OptionError, match="bfloat16"):
        MeanFlowSampler(panda, trained, num_calls=2, precision="bfloat16")


@pytest.mark.parametrize("precision", PRECISIONS[1:])
def test_bfloat16_samples_are_as_good_as_float32_samples(precision, panda, trained):
    plain, rounded = (
        evaluate(panda, MeanFlowSampler(panda, trained, precision=name), poses=100).metrics
        for name in ("float32", precision)
    )
    for metric in ("position_error_mean", "orientation_error_mean", "recall_median", "spread"):
        assert rounded[metric] == pytest.approx(plain[metric], rel=0.05)
    assert rounded["refined_success"] == pytest.approx(plain["refined_success"], abs=0.01)
