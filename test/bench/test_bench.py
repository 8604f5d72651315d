# SPDX-License-Identifier: Apache-2.0
"""The measurements mean what they say: small runs, and solvers that are wrong on purpose."""

import dataclasses
import json
import math
import os
import subprocess
import sys

import numpy as np
import oracles as independent
import pytest
import torch
from example_robots import TORSO, TORSO_TIPS, draw

import meanflow_ik_core as mik
from meanflow_ik_core.bench import BENCHES, kernel, path, unreachable
from meanflow_ik_core.bench.judge import Judge, different
from meanflow_ik_core.bench.result import BenchResult, Measure, environment
from meanflow_ik_core.bench.solve import measure_solver
from meanflow_ik_core.bench.torch_step import lm_step
from meanflow_ik_core.commands.bench import bench
from meanflow_ik_core.commands.printing import plain

SMALL = {
    "kinematics": {"configurations": 50},
    "solve": {"poses": 5, "sampler": "uniform"},
    "limits": {"poses": 3, "sampler": "uniform", "starts": 100},
    "unreachable": {"poses": 6, "sampler": "uniform"},
    "world": {"most": 1, "repetitions": 1, "peers": "none"},
    "kernel": {"repetitions": 3},
    "latency": {"robots": "panda", "poses": 2, "batches": 1, "batch": 3},
    "peers": {
        "peers": "none",
        "poses": 2,
        "hard_poses": 1,
        "many_poses": 1,
        "arms_poses": 1,
    },
    "cold": {"repetitions": 1},
    "raw": {"repetitions": 3, "sampler": "uniform"},
    "path": {"paths": 3, "waypoints": 20, "sampler": "uniform"},
    "track": {"paths": 4, "waypoints": 30},
    "clearance": {"robots": "panda", "configurations": 300},
    "objectives": {"poses": 3, "num_samples": 32, "max_solutions": 4, "sampler": "uniform"},
    "robots": {
        "robots": "panda",
        "poses": 2,
        "success_poses": 2,
        "tuning_poses": 1,
        "samples": 5,
        "solutions": 2,
        "starts": "32",
    },
    "training": {"rounds": 1, "steps": 1},
    "gpu": {"device": "cpu", "sampler": "uniform", "share": 0.002, "repetitions": 1},
}

# Installed packages add suites of their own, which they test themselves.
OWN = [name for name, bench in BENCHES.items() if bench.load is None]


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> dict[str, BenchResult]:
    tiny = tmp_path_factory.mktemp("bench") / "tiny.yaml"
    tiny.write_text(
        "{hidden_dim: 16, depth: 1, context_dim: 8, batch_size: 16, estimate_start: 0.0,"
        " estimate_poses: 4, lambda_energy: 1.0, lambda_refine: 1.0}"
    )
    SMALL["training"]["config"] = str(tiny)
    # Compiling takes a minute, and the numbers of so small a run say nothing of it.
    with torch.compiler.set_stance("force_eager"):
        return {name: BENCHES[name](**SMALL[name]) for name in OWN}


class Tampered:
    """The true solver, whose answers are changed before they are handed out."""

    def __init__(self, solver, change):
        self._solver = solver
        self._change = change
        self.robot, self.sampler = solver.robot, solver.sampler
        self.warm_up = solver.warm_up

    def solve(self, targets, **options):
        result = self._solver.solve(targets, **options)
        return dataclasses.replace(result, **self._change(result))


def test_suites_are_listed_without_importing_them():
    code = (
        "import sys; from meanflow_ik_core.bench import BENCHES; "
        "assert all(suite.measures for suite in BENCHES.values()); "
        "print('torch' in sys.modules, *BENCHES)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    torch_imported, *names = done.stdout.split()
    assert torch_imported == "False"
    assert set(names) >= set(SMALL)  # and what is shared by suites is none: see `results`


@pytest.mark.parametrize("name", OWN)
def test_a_small_run_gives_numbers_that_json_can_hold(results, name):
    result = results[name]
    content = json.loads(json.dumps(result.as_dict(), allow_nan=False))
    assert content["bench"] == name
    assert set(content["options"]) >= set(SMALL[name])
    assert len(result.rows()) == len(result.measures) > 0
    assert all(len(row) == len(result.COLUMNS) for row in result.rows())
    assert torch.__version__.startswith(content["environment"]["versions"]["torch"])


@pytest.mark.parametrize("name", ["kinematics", "solve", "limits", "objectives"])
def test_bars_that_do_not_depend_on_the_machine_are_reached(results, name):
    assert results[name].reached, results[name].rows()


def test_no_solution_is_claimed_where_there_is_none(results):
    for kind in ("beyond the reach", "impossible orientation"):
        assert results["unreachable"][f"{kind}: false claims"] == 0
        assert results["unreachable"][f"{kind}: median time"] > 0


def test_some_starts_come_home_on_every_pose_near_the_limits(results):
    result = results["limits"]
    worst, median = (
        result[f"share of starts that converge, {which} pose"] for which in ("worst", "median")
    )
    assert 0 < worst <= median < 1


def test_a_tracker_claims_nothing_wrong_rests_and_keeps_to_the_speeds(results):
    result = results["track"]
    assert result["wrong claims"] == 0
    assert 0.2 < result["largest step beside the allowed one"] <= 1 + 1e-9
    assert result["largest step at rest"] == 0
    reached = result["share of targets reached"]
    assert 0.8 < reached <= result["share reached, or joints offered that do"] <= 1


def test_kernel_and_torch_take_the_same_step(results):
    result = results["kernel"]
    assert result["largest difference of the results"] < 1e-8
    ratio = result["eager torch, per sample and step"] / result["kernel, per sample and step"]
    assert result["times faster than eager torch"] == pytest.approx(ratio)


def test_without_a_gpu_there_is_nothing_to_measure_on_it(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    bench("gpu")
    assert capsys.readouterr().out == "bench gpu: there is no CUDA device\n"


def test_the_ratios_of_training_are_those_of_the_rates(results):
    result = results["training"]
    ratio = result["bfloat16, compiled"] / result["plain: float32"]
    assert result["times faster than plain"] == pytest.approx(ratio)


def test_another_step_is_found_out(monkeypatch):
    def with_more_damping(robot, q, T_base_tip, settings):
        return lm_step(robot, q, T_base_tip, dataclasses.replace(settings, damping_factor=0.02))

    monkeypatch.setattr(kernel, "lm_step", with_more_damping)
    assert not BENCHES["kernel"](repetitions=1, batch=20).reached


def test_the_number_of_threads_is_used_and_put_back():
    before = torch.get_num_threads()
    result = BENCHES["raw"](sampler="uniform", repetitions=2, threads=before + 1)
    assert result["torch threads"] == before + 1
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("robot", "count"),
    [
        (mik.load_robot("panda"), 20),
        (mik.load_robot(TORSO, tips=TORSO_TIPS), 20),
    ],
    ids=["panda", "torso_two_arms"],
)
def test_the_judge_agrees_with_an_independent_one(robot, count):
    q = draw(robot, count).numpy()
    ours, theirs = Judge(robot), independent.Judge(robot)
    expected = np.stack([theirs.poses(row) for row in q])
    np.testing.assert_allclose(ours.forward(q), expected, atol=1e-13)
    step = 1e-6
    jacobian = ours.jacobian(q)
    for joint in range(robot.num_joints):
        shifted = q.copy()
        shifted[:, joint] += step
        moved = ours.forward(shifted)
        linear = (moved[..., :3, 3] - expected[..., :3, 3]) / step
        np.testing.assert_allclose(jacobian[..., :3, joint], linear, atol=1e-5)
        turn = (moved[..., :3, :3] - expected[..., :3, :3]) @ np.swapaxes(
            expected[..., :3, :3], -1, -2
        )
        angular = np.stack((turn[..., 2, 1], turn[..., 0, 2], turn[..., 1, 0]), -1) / step
        np.testing.assert_allclose(jacobian[..., 3:, joint], angular, atol=1e-5)


def test_wrong_kinematics_are_found_out(panda):
    placement = panda.placement.copy()
    placement[3, 0, 3] += 1e-6
    wrong = dataclasses.replace(panda, placement=placement, _on_device={})
    result = BENCHES["kinematics"](robot=wrong, configurations=10)
    assert not result.reached
    assert result["largest difference of poses"] == pytest.approx(1e-6, rel=0.5)


def shifted_by_a_little(result):
    return {"joint_positions": result.joint_positions + 1e-4}


def turned_once_round(result):
    return {"joint_positions": result.joint_positions + 2 * np.pi}


def claims_everything(result):
    return {
        "joint_positions": np.nan_to_num(result.joint_positions),
        "valid": np.ones_like(result.valid),
    }


@pytest.mark.parametrize("change", [shifted_by_a_little, turned_once_round])
def test_a_solver_with_wrong_answers_solves_nothing(panda, uniform, change):
    targets = panda.forward(draw(panda, 3).numpy())
    measures = measure_solver(Tampered(uniform, change), targets, 64, 8, 0, 1.0)
    values = {measure.what: measure for measure in measures}
    assert values["share of poses solved"].value == 0
    assert values["share of poses solved"].reached is False
    assert values["wrong claims"].value == 3 * 8
    assert values["mean valid solutions per pose"].value == 0


def test_a_solver_that_finds_nothing_solves_nothing(panda, uniform):
    def nothing(result):
        return {"valid": np.zeros_like(result.valid)}

    targets = panda.forward(draw(panda, 3).numpy())
    values = {
        measure.what: measure.value
        for measure in measure_solver(Tampered(uniform, nothing), targets, 64, 8, 0, 1.0)
    }
    assert values["share of poses solved"] == 0
    assert values["wrong claims"] == 0


def test_a_solver_that_claims_everything_is_found_out(uniform, monkeypatch):
    liar = Tampered(uniform, claims_everything)
    monkeypatch.setattr(unreachable, "load_solver", lambda *args, **options: liar)
    result = BENCHES["unreachable"](poses=4)
    assert result["beyond the reach: false claims"] == 2
    assert result["impossible orientation: false claims"] == 2
    assert not result.reached


def test_poses_beyond_the_reach_are_farther_than_any_configuration(panda):
    shoulder = panda.placement[0, :3, 3]
    reached = panda.forward(draw(panda, 20_000))[:, 0, :3, 3].numpy()
    farthest = np.linalg.norm(reached - shoulder, axis=-1)
    poses = unreachable.poses_beyond_reach(panda, 50, seed=1)
    assert np.linalg.norm(poses[:, :3, 3] - shoulder, axis=-1).min() > farthest.max()
    np.testing.assert_allclose(np.linalg.det(poses[:, :3, :3]), 1, atol=1e-12)


def test_impossible_orientations_have_no_solution_on_a_dense_sweep(panda, closed_form):
    for pose in unreachable.impossible_orientations(panda, 5, seed=1):
        assert len(independent.solutions_within_limits(closed_form, pose, 3000)) == 0


def test_solutions_differ_by_their_largest_joint_difference():
    q = np.zeros((4, 7))
    q[1] += 0.009  # far in sum, in no joint far enough
    q[2, 3] = 0.011
    q[3, 3] = 0.02
    np.testing.assert_array_equal(different(q), q[[0, 2]])
    assert different(q[:0]).shape == (0, 7)


def test_a_bar_is_reached_or_not():
    assert Measure("a", 1.0).reached is None
    assert Measure("a", 1.0, at_least=1).reached is True
    assert Measure("a", 1.0, at_least=1.1).reached is False
    assert Measure("a", 1.0, at_most=1).reached is True
    assert Measure("a", 1.1, at_most=1).reached is False
    assert Measure("a", math.nan, at_most=1).reached is False
    result = BenchResult("x", (Measure("a", 1.0), Measure("b", 2.0, at_most=1)), {}, {})
    assert not result.reached
    assert [row[-1] for row in result.rows()] == ["", "NO"]


def test_a_record_is_read_as_it_was_written():
    measures = (Measure("a", 1.0, "ms", at_most=2.0), Measure("b", 0.5, at_least=0.99))
    result = BenchResult("x", measures, {"seed": 1}, {"cpu": "y"})
    assert BenchResult.from_dict(json.loads(json.dumps(result.as_dict()))) == result
    lost = BenchResult("x", (Measure("a", math.nan, at_most=1.0),), {}, {})
    written = json.dumps(plain(lost.as_dict()), allow_nan=False)
    assert BenchResult.from_dict(json.loads(written)).measures[0].reached is False


def test_the_environment_names_the_machine():
    found = environment()
    assert found["cores"] == len(os.sched_getaffinity(0))
    assert found["cpu"]
    assert found["versions"]["numpy"] == np.__version__
    if found["commit"] is not None:
        assert len(found["commit"].rstrip("+")) == 40


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("solve", {"pose": 3}),
        ("solve", {"poses": "three"}),
        ("solve", {"poses": 0}),
        ("solve", {"sampler": "divine"}),
        ("kinematics", {"configurations": 0}),
        ("raw", {"repetitions": True}),
        ("latency", {"poses": 0}),
        ("peers", {"peers": "nobody"}),
        ("peers", {"hard_poses": 0}),
        ("peers", {"patience": 0.0}),
        ("cold", {"repetitions": 0}),
        ("robots", {"starts": "16,many"}),
        ("robots", {"starts": "0"}),
        ("robots", {"success_poses": 0}),
    ],
)
def test_bad_options_are_refused(name, options):
    with pytest.raises(mik.OptionError):
        BENCHES[name](**options)


def moved_at_one_waypoint(result):
    q = result.joint_positions.copy()
    q[0, 3] += 1e-3
    return {"joint_positions": q}


@pytest.mark.parametrize(
    ("change", "options", "limit", "wrong"),
    [
        (lambda result: {}, {}, 0.5, 0),
        (moved_at_one_waypoint, {}, 0.5, 3),
        (lambda result: {"largest_step": 0.0}, {}, 0.5, 3),
        (lambda result: {"valid": not result.valid}, {}, 0.5, 3),
        (lambda result: {}, {"max_joint_step": np.inf}, 1e-3, 3),
    ],
    ids=["true", "beside the path", "other steps", "other validity", "longer steps than asked for"],
)
def test_a_path_is_right_only_as_it_is(uniform, monkeypatch, change, options, limit, wrong):
    """Each path is solved three times: as it is, with times, and broken."""

    def solve_path(*args, **asked):
        result = mik.solve_path(*args, **{**asked, **options})
        return dataclasses.replace(result, **change(result))

    monkeypatch.setattr(path, "solve_path", solve_path)
    motions = path.random_motions(uniform.robot, 1, 10, 0)
    measures = path.measure_paths(uniform, motions, 64, limit, 0)
    values = {measure.what: measure.value for measure in measures}
    assert values["wrong claims"] == wrong


def test_paths_and_their_breaks_are_counted(results):
    result = results["path"]
    assert result["share of paths found"] == 1 and result["share of breaks named"] == 1
    assert result["wrong claims"] == 0 and result["median time per path"] > 0
