# SPDX-License-Identifier: Apache-2.0
"""The evaluation on samplers whose numbers are known beforehand."""

import numpy as np
import pytest
import torch
from oracles import Judge, solutions_within_limits

import meanflow_ik_core as mik
from meanflow_ik_core.evaluation.evaluate import evaluate
from meanflow_ik_core.evaluation.samples import measure_samples
from meanflow_ik_core.network.checkpoint import save_checkpoint
from meanflow_ik_core.network.kinds import NETWORKS
from meanflow_ik_core.network.model import MeanFlowNetwork
from meanflow_ik_core.samplers import Sampler
from meanflow_ik_core.training.validation import validate


class KnownSampler(Sampler):
    """Fills in (B, N, J) by a function of the poses (B, 4, 4); keeps the poses it was asked for."""

    def __init__(self, function):
        self._function = function
        self.poses = np.empty((0, 4, 4))

    @classmethod
    def build(cls, robot, checkpoint, device):
        raise NotImplementedError

    def sample(self, T_base_tip, count, generator):
        poses = T_base_tip[:, 0].numpy()
        self.poses = np.concatenate((self.poses, poses))
        return torch.from_numpy(self._function(poses, count, generator))


@pytest.fixture(scope="module")
def exact(closed_form) -> KnownSampler:
    def on_the_curve(poses, count, generator):
        rows = []
        for pose in poses:
            inner = closed_form.last_joint_sweep(400)[1:-1]
            curve = solutions_within_limits(closed_form, pose, inner)
            rows.append(curve[torch.randint(len(curve), (count,), generator=generator).numpy()])
        return np.stack(rows)

    return KnownSampler(on_the_curve)


def test_exact_samples_have_no_error_and_stay_valid(panda, exact):
    metrics = evaluate(panda, exact, poses=20, samples=200).metrics
    assert metrics["position_error_95"] < 1e-9
    assert metrics["orientation_error_95"] < 1e-9
    assert metrics["refined_success"] == 1
    assert metrics["inside_limits"] == 1
    # 200 of some 1000 points on a curve: near the true joints, and not all in one place
    assert 0 < metrics["recall_median"] < 0.2
    assert metrics["spread"] > 0.3


def test_the_middle_of_the_limits_has_the_error_that_pinocchio_measures(panda):
    middle = 0.5 * (panda.lower + panda.upper)
    sampler = KnownSampler(lambda poses, count, generator: np.tile(middle, (len(poses), count, 1)))
    metrics = evaluate(panda, sampler, poses=50, samples=3, seed=4).metrics
    judge = Judge(panda)
    errors = np.array([judge.errors(middle, pose[None]) for pose in sampler.poses])[..., 0]
    assert len(errors) == 50
    for column, name in ((0, "position_error"), (1, "orientation_error")):
        assert metrics[f"{name}_mean"] == pytest.approx(errors[:, column].mean())
        assert metrics[f"{name}_median"] == pytest.approx(np.median(errors[:, column]))
    assert metrics["spread"] == pytest.approx(0, abs=1e-12)
    assert metrics["inside_limits"] == 1


def test_a_turned_flange_is_a_rotation_error_and_no_position_error(panda):
    q_true = np.tile(0.5 * (panda.lower + panda.upper), (4, 1))
    turns = np.linspace(0, 1, 101)
    q = np.repeat(q_true[:, None], len(turns), 1)
    q[..., 6] += turns
    metrics = measure_samples(panda, q, q_true, panda.forward(q_true), 1e-5, 1e-5)
    assert metrics["position_error_95"] < 1e-12
    assert metrics["orientation_error_mean"] == pytest.approx(0.5)
    assert metrics["orientation_error_median"] == pytest.approx(0.5)
    assert metrics["orientation_error_95"] == pytest.approx(0.95)
    assert metrics["recall_median"] == pytest.approx(0, abs=1e-12)
    shifted = measure_samples(panda, q[:, 30:], q_true, panda.forward(q_true), 1e-5, 1e-5)
    assert shifted["recall_median"] == pytest.approx(0.3)


def test_clamped_samples_are_counted_as_outside(panda):
    middle = 0.5 * (panda.lower + panda.upper)

    def every_fourth_clamped(poses, count, generator):
        q = np.tile(middle, (len(poses), count, 1)).astype(np.float32)
        q[:, ::4, 2] = panda.upper[2]
        return q

    metrics = evaluate(panda, KnownSampler(every_fourth_clamped), poses=5, samples=8).metrics
    assert metrics["inside_limits"] == pytest.approx(0.75)


def test_uniform_samples_spread_as_a_uniform_distribution(panda):
    metrics = evaluate(panda, "uniform", poses=100, samples=100).metrics
    expected = ((panda.upper - panda.lower) / np.sqrt(12)).mean()
    assert metrics["spread"] == pytest.approx(expected, rel=0.02)
    assert metrics["inside_limits"] > 0.999
    assert 0 < metrics["refined_success"] < 1


def test_more_samples_come_closer_to_the_true_joints(panda):
    few, many = (
        evaluate(panda, "uniform", poses=100, samples=samples).metrics["recall_median"]
        for samples in (5, 500)
    )
    assert many < 0.7 * few


def test_the_seed_decides_the_numbers(panda):
    def numbers(seed):
        metrics = evaluate(panda, "uniform", poses=20, samples=10, seed=seed).metrics
        return {name: value for name, value in metrics.items() if name != "sample_time"}

    assert numbers(1) == numbers(1)
    assert numbers(1) != numbers(2)


def test_poses_do_not_depend_on_the_sampler(panda, exact):
    middle = 0.5 * (panda.lower + panda.upper)
    other = KnownSampler(lambda poses, count, generator: np.tile(middle, (len(poses), count, 1)))
    exact.poses = np.empty((0, 4, 4))
    for sampler, samples in ((exact, 5), (other, 15_000)):
        evaluate(panda, sampler, poses=3, samples=samples, seed=8)
    np.testing.assert_array_equal(exact.poses, other.poses)


def test_training_and_evaluation_measure_the_same(panda):
    network = MeanFlowNetwork(panda.num_joints, hidden_dim=32, depth=2).eval()
    training = validate(panda, network, poses=4, samples=5, seed=0)
    evaluation = evaluate(panda, "uniform", poses=4, samples=5)
    assert set(evaluation.metrics) == {*training, "sample_time"}


def test_a_checkpoint_is_evaluated_with_the_number_of_calls_asked_for(panda, tmp_path):
    torch.manual_seed(0)
    network = MeanFlowNetwork(panda.num_joints, hidden_dim=32, depth=2)
    torch.nn.init.normal_(network.out.weight, std=0.3)
    save_checkpoint(tmp_path / "small.safetensors", network, panda, {})
    one, two = (
        evaluate(
            panda,
            checkpoint=tmp_path / "small.safetensors",
            num_calls=calls,
            poses=5,
            samples=20,
        )
        for calls in (1, 2)
    )
    assert one.checkpoint is not None
    assert one.checkpoint.endswith("small.safetensors")
    assert (one.num_calls, two.num_calls) == (1, 2)
    assert one.metrics["position_error_mean"] != two.metrics["position_error_mean"]


ESTIMATES_ONLY = {"velocity_end": 0.0, "estimate_start": 0.0, "lambda_kernel": 2.0}


@pytest.mark.parametrize("kind", sorted(NETWORKS))
@pytest.mark.parametrize(
    ("config", "refused"),
    [
        (ESTIMATES_ONLY, True),
        ({**ESTIMATES_ONLY, "velocity_end": 0.3}, False),
        ({**ESTIMATES_ONLY, "estimate_start": 0.2}, False),
        ({**ESTIMATES_ONLY, "lambda_kernel": 0.0}, False),  # then the velocities are all there is
        (None, False),
    ],
)
def test_several_calls_are_refused_where_velocities_were_never_trained(
    panda, tmp_path, kind, config, refused
):
    network = NETWORKS[kind](panda.num_joints, hidden_dim=32, depth=2)
    path = tmp_path / "small.safetensors"
    save_checkpoint(path, network, panda, {} if config is None else {"config": config})
    options = {"checkpoint": path, "poses": 2, "samples": 3}
    assert evaluate(panda, num_calls=1, **options).num_calls == 1
    if refused:
        with pytest.raises(mik.OptionError, match=r"num_calls is 2.*small.*one call only"):
            evaluate(panda, num_calls=2, **options)
    else:
        assert evaluate(panda, num_calls=2, **options).num_calls == 2


@pytest.mark.parametrize(
    ("config", "numbers", "reason"),
    [
        (ESTIMATES_ONLY, [1], "the network was trained for one call only (velocity_end: 0)"),
        ({**ESTIMATES_ONLY, "velocity_end": 1.0}, [1, 2, 4, 8], None),
    ],
)
def test_details_are_of_the_calls_that_the_network_knows(panda, tmp_path, config, numbers, reason):
    network = MeanFlowNetwork(panda.num_joints, hidden_dim=32, depth=2)
    path = tmp_path / "small.safetensors"
    save_checkpoint(path, network, panda, {"config": config})
    judged = evaluate(panda, checkpoint=path, poses=2, samples=3, detail_poses=1, exact=False)
    assert list(judged.calls) == numbers
    assert judged.without_calls == judged.as_dict()["without_calls"] == reason
    rows = next(rows for title, _, rows in judged.tables() if title.startswith("network calls"))
    assert len(rows) == len(numbers)


def test_every_metric_has_a_row(panda):
    evaluation = evaluate(panda, "uniform", poses=2, samples=3)
    assert len(evaluation.rows()) == len(evaluation.metrics)
    assert all(len(row) == len(evaluation.COLUMNS) for row in evaluation.rows())
    assert evaluation.as_dict()["metrics"] == evaluation.metrics


@pytest.mark.parametrize(
    "options",
    [{"poses": 0}, {"samples": 0}, {"num_calls": 0}, {"num_calls": 2}, {"device": "abacus"}],
)
def test_bad_options_are_refused(panda, options):
    with pytest.raises(mik.OptionError):
        evaluate(panda, "uniform", **{"poses": 2, "samples": 2, **options})


def test_an_unknown_sampler_is_refused_with_those_that_exist(panda):
    with pytest.raises(mik.OptionError, match="meanflow, uniform"):
        evaluate(panda, "divine")
