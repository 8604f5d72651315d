# SPDX-License-Identifier: Apache-2.0
"""The judgement against the exact answer, on draws whose verdict is known beforehand."""

import json

import numpy as np
import pytest
import torch

import meanflow_ik_core as mik
from meanflow_ik_core.evaluation.evaluate import evaluate
from meanflow_ik_core.evaluation.exactness import after_steps, coverage_by_samples, match
from meanflow_ik_core.evaluation.plots import plot_evaluation
from meanflow_ik_core.evaluation.posterior import SolutionCurve, trace_solutions
from meanflow_ik_core.network.checkpoint import save_checkpoint
from meanflow_ik_core.network.model import MeanFlowNetwork

POSES, SAMPLES = 12, 100


@pytest.fixture(scope="module")
def curves(panda, closed_form) -> list[SolutionCurve]:
    q = panda.random_configurations(POSES, torch.Generator().manual_seed(2)).numpy()
    return [trace_solutions(closed_form, pose) for pose in panda.forward(q)[:, 0]]


@pytest.fixture(scope="module")
def reference(curves) -> list[np.ndarray]:
    return exact_draws(curves, SAMPLES, 0)


@pytest.fixture(scope="module")
def evaluation(panda):
    return evaluate(panda, "uniform", poses=6, samples=30, detail_poses=4)


def exact_draws(curves, count, seed) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [curve.sample(count, random)[0] for curve in curves]


def test_exact_samples_have_no_discrepancy_and_the_right_branches(curves, reference):
    verdict = match(curves, reference, exact_draws(curves, SAMPLES, 1))
    assert abs(verdict["mmd_squared"]) < 4 * verdict["mmd_squared_error"]
    assert verdict["mmd_squared_error"] < 0.005
    assert verdict["branch_total_variation"] < 0.15
    many = match(curves, reference, exact_draws(curves, 1000, 2))
    assert many["coverage"] > 0.97
    assert many["branches_hit"] > 0.98
    assert many["branch_total_variation"] < 0.04


def test_a_sampler_stuck_on_one_branch_is_found_out(curves, reference):
    stuck = []
    for curve, q in zip(curves, exact_draws(curves, 1000, 3), strict=True):
        on_first = q[curve.nearest_branch(q)[0] == 0]
        stuck.append(on_first[:SAMPLES])
    verdict = match(curves, reference, stuck)
    missing = np.mean([1 - curve.branch_mass[0] for curve in curves])
    assert verdict["branch_total_variation"] == pytest.approx(missing, abs=1e-9)
    assert verdict["mmd_squared"] > 5 * verdict["mmd_squared_error"]
    assert verdict["branches_hit"] == pytest.approx(
        np.mean([1 / (curve.branch_mass >= 0.01).sum() for curve in curves])
    )
    lengths = [curve.length[curve.branch == 0].sum() / curve.length.sum() for curve in curves]
    assert verdict["coverage"] < np.mean(lengths) + 0.05


def test_the_right_branches_with_wrong_places_on_them_are_found_out(curves, reference):
    def lower_half(curve, q):
        middle = [np.median(curve.middle[curve.branch == b, 6]) for b in np.unique(curve.branch)]
        return q[q[:, 6] < np.array(middle)[curve.nearest_branch(q)[0]]][:SAMPLES]

    draws = exact_draws(curves, 1000, 4)
    half = [lower_half(curve, q) for curve, q in zip(curves, draws, strict=True)]
    verdict = match(curves, reference, half)
    assert verdict["mmd_squared"] > 4 * verdict["mmd_squared_error"]
    assert verdict["coverage"] < 0.7


def test_samples_far_from_the_curve_cover_and_hit_nothing(curves, reference):
    far = [np.full((SAMPLES, 7), 20.0)] * POSES
    verdict = match(curves, reference, far)
    assert verdict["coverage"] == verdict["branches_hit"] == 0
    # kernels of copies of one point with one another, plus the exact ones' own
    assert verdict["mmd_squared"] > 1


def test_poses_without_samples_count_as_missed(curves, reference):
    none = [np.empty((0, 7))] * POSES
    verdict = match(curves, reference, none)
    assert (verdict["coverage"], verdict["branches_hit"], verdict["samples"]) == (0, 0, 0)
    assert verdict["branch_total_variation"] == 1
    assert np.isnan(verdict["mmd_squared"])


def test_more_exact_samples_cover_more(curves):
    draws = exact_draws(curves, 300, 5)
    covered = coverage_by_samples(curves, draws, (1, 10, 300), np.random.default_rng(0))
    assert covered[1] < 0.2 < covered[10] < 0.6 < 0.9 < covered[300]


def test_steps_converge_as_newton_steps_do(panda):
    """An error of the first order in a small displacement becomes one of the second, the fourth."""
    q = panda.random_configurations(200, torch.Generator().manual_seed(0)).numpy()
    middle = 0.5 * (panda.lower + panda.upper)
    q = middle + 0.8 * (q - middle)  # no limit nearby
    poses = panda.forward(q)
    away = np.random.default_rng(0).normal(size=(200, 50, 7))
    away *= 1e-3 / np.linalg.norm(away, axis=-1, keepdims=True)

    def found(q, name, *steps):
        after = after_steps(panda, q, poses, 1e-5, 1e-5, *steps)
        return {number: values[name] for number, values in after.items()}

    near = found(q[:, None] + away, "valid")
    assert near[0] < 0.01 and near[1] > 0.85 and near[2] > 0.99
    far = found(q[:, None] + 100 * away, "valid")
    assert far[1] < 0.01 and far[2] < 0.5 and far[3] > far[2] and far[5] > 0.9
    assert found(q[:, None], "valid", (0,)) == {0: 1.0}
    errors = found(q[:, None] + away, "position_error_mean")
    assert 1e-4 < errors[0] < 1e-3 and errors[1] < 2e-5 and errors[2] < 1e-6
    times = list(found(q[:, None] + away, "step_time").values())
    assert times[0] == 0 and times == sorted(times)


def test_parts_of_the_steps_add_up(panda):
    q = panda.random_configurations(300, torch.Generator().manual_seed(1)).numpy()
    starts, poses = q[:100, None], panda.forward(q[100:200])
    at_once = after_steps(panda, starts, poses, 1e-3, 1e-2, (9,))[9]
    assert at_once["valid"] > 0.05
    in_parts = after_steps(panda, starts, poses, 1e-3, 1e-2, (0, 1, 2, 3, 5, 9))[9]
    assert {**in_parts, "step_time": 0} == {**at_once, "step_time": 0}


def test_uniform_starts_miss_raw_and_are_on_the_curve_refined(evaluation):
    draws = evaluation.exact.draws
    assert set(draws) == {"exact", "raw", "refined", "best", "diverse"}
    assert draws["raw"]["mmd_squared"] > 0.05
    assert draws["raw"]["coverage"] < 0.01
    assert all(draws[kind]["samples"] == 30 for kind in draws)
    assert draws["diverse"]["coverage"] > draws["exact"]["coverage"] > draws["best"]["coverage"]
    assert evaluation.stages["best"]["refine"] > 0
    assert not evaluation.calls


def test_the_details_are_numbers_for_json_and_rows_of_tables(evaluation):
    content = json.loads(json.dumps(evaluation.as_dict()))
    assert content["exact"]["draws"]["exact"]["mmd_squared"] == pytest.approx(0, abs=0.05)
    steps = content["after_steps"]
    assert list(steps) == ["0", "1", "2", "3", "5"]
    assert steps["5"]["position_error_median"] < steps["0"]["position_error_median"]
    assert steps["5"]["mmd_squared"] < steps["0"]["mmd_squared"]
    assert steps["0"]["mmd_squared"] == pytest.approx(
        content["exact"]["draws"]["raw"]["mmd_squared"]
    )
    for _, columns, rows in evaluation.tables():
        assert rows
        assert all(len(row) == len(columns) for row in rows)


def test_several_calls_of_a_checkpoint_are_judged_and_drawn(panda, tmp_path):
    torch.manual_seed(0)
    network = MeanFlowNetwork(panda.num_joints, hidden_dim=32, depth=2)
    torch.nn.init.normal_(network.out.weight, std=0.3)
    save_checkpoint(tmp_path / "small.safetensors", network, panda, {})
    evaluation = evaluate(
        panda, checkpoint=tmp_path / "small.safetensors", poses=3, samples=20, detail_poses=2
    )
    assert list(evaluation.calls) == [1, 2, 4, 8]
    errors = [call["position_error"] for call in evaluation.calls.values()]
    assert len(set(errors)) == 4
    assert all(np.isfinite(call["mmd_squared"]) for call in evaluation.calls.values())
    files = plot_evaluation(evaluation, tmp_path / "plots")
    names = {"errors.png", "steps.png", "calls.png", "coverage.png", "curve.png"}
    assert {file.name for file in files} == names
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)


def test_a_robot_without_a_closed_form_is_judged_without_and_says_why(torso, tmp_path):
    evaluation = evaluate(torso, "uniform", poses=3, samples=5, detail_poses=2)
    assert evaluation.exact is None
    assert "7 revolute joints" in (evaluation.without_exact or "")
    assert set(evaluation.stages) == {"best", "diverse"}
    assert [file.name for file in plot_evaluation(evaluation, tmp_path)] == [
        "errors.png",
        "steps.png",
    ]
    with pytest.raises(mik.RobotError, match="7 revolute joints"):
        evaluate(torso, "uniform", poses=3, samples=5, detail_poses=2, exact=True)


def test_the_exact_answer_can_be_left_out_but_not_without_poses(panda):
    evaluation = evaluate(panda, "uniform", poses=3, samples=5, detail_poses=2, exact=False)
    assert evaluation.exact is None and evaluation.stages
    with pytest.raises(mik.OptionError, match="detail_poses"):
        evaluate(panda, "uniform", poses=3, samples=5, exact=True)


def test_plots_that_cannot_be_written_are_an_option_error(evaluation, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(mik.OptionError, match="cannot write plots"):
        plot_evaluation(evaluation, tmp_path / "file")
