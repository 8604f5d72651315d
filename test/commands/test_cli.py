# SPDX-License-Identifier: Apache-2.0
"""The command line as a user meets it."""

import inspect
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from example_robots import TORSO
from oracles import Judge

import meanflow_ik_core as mik
from meanflow_ik_ros.parameters import NodeParameters

RECORDS = Path(__file__).parents[2] / "docs" / "benchmarks"
COMMANDS = (
    "solve", "train", "study", "evaluate", "bench", "add-robot", "reachability", "view",
)  # fmt: skip
POSE = ("--xyz", 0.4, 0, 0.5, "--rpy", 3, 0, 0)


HELP = """
import sys
from meanflow_ik_core.commands.app import app

for command in sys.argv[1:]:
    app([*command.split(), "--help"], standalone_mode=False)
    print("loaded:", *{"torch", "numba", "numpy", "pinocchio", "yaml"} & sys.modules.keys())
"""


def test_help_imports_nothing_heavy():
    done = subprocess.run(
        [sys.executable, "-c", HELP, "", *COMMANDS], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Usage") == 1 + len(COMMANDS)
    loaded = [line for line in done.stdout.splitlines() if line.startswith("loaded:")]
    assert loaded == ["loaded:"] * (1 + len(COMMANDS))


def test_help_says_that_the_command_line_asks_for_fewer_solutions_than_the_library(run):
    text = " ".join(run("solve", "--help").stdout.split())
    library = inspect.signature(mik.IKSolver.solve).parameters["max_solutions"].default
    assert f"In Python and ROS the default is {library}; 8 fit a table" in text
    assert NodeParameters().max_solutions == library


def test_solve_takes_objectives_by_name_and_from_a_file(run, tmp_path):
    path = tmp_path / "objectives.yaml"
    path.write_text("objectives: [{name: posture, weight: 2.0, posture: {panda_joint1: 0.5}}]")
    pose = ("solve", *POSE, "--sampler", "uniform", "--max-solutions", 3, "--seed", 0, "--json")
    done = run(*pose, "--objective", "manipulability", "--objectives", path)
    printed = json.loads(done.stdout)
    assert done.returncode == 0 and np.shape(printed["objective_values"]) == (1, 3, 2)
    yaml = "{name: posture, weight: 2.0, posture: {panda_joint1: 0.5}}"
    same = run(*pose, "--objective", "manipulability", "--objective", yaml)
    assert json.loads(same.stdout)["joint_positions"] == printed["joint_positions"]
    bad = run(*pose, "--objective", "manipulabilty")
    assert bad.returncode == 2 and "did you mean 'manipulability'" in bad.stderr


def test_solve_prints_solutions_that_the_judge_accepts(panda, run):
    done = run(
        "solve", "--xyz", 0.4, 0.1, 0.5, "--quat", 1, 0, 0, 0, "--max-solutions", 4, "--seed", 0,
        "--sampler", "uniform", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    target = np.diag([1.0, -1.0, -1.0, 1.0])
    target[:3, 3] = (0.4, 0.1, 0.5)
    assert answer["valid"] == [[True] * 4]
    for q in answer["joint_positions"][0]:
        assert Judge(panda).accepts(np.array(q), target[None])


def test_solve_says_in_one_line_which_sampler_it_took(run):
    panda = run("solve", *POSE, "--max-solutions", 1)
    assert "\nsampler: meanflow (" in panda.stdout and "panda.safetensors)" in panda.stdout
    torso = ("--robot", TORSO, "--base", "world", "--tip", "left_tool")
    other = run("solve", *torso, "--xyz", 0, 0, 9, "--rpy", 0, 0, 0)
    assert other.stdout.endswith("\nsampler: uniform (no checkpoint)\n"), other.stderr


def test_solve_avoids_the_obstacles_of_a_file_and_says_what_touches(panda, run, tmp_path):
    path = tmp_path / "scene.yaml"
    path.write_text("objects: {table: {type: box, size: [0.6, 0.6, 0.1], xyz: [0.7, 0, 0.2]}}")
    pose = ("solve", *POSE, "--sampler", "uniform", "--seed", 0, "--world", path)
    done = run(*pose, "--json")
    printed = json.loads(done.stdout)
    assert done.returncode == 0 and all(printed["valid"][0])
    world = mik.World.load(path, panda)
    assert not world.in_collision(np.array(printed["joint_positions"][0])).any()
    assert min(printed["world_clearance"][0]) > -1e-3 and printed["touches"] == [[[]] * 8]

    path.write_text("objects: {wall: {type: box, size: [0.2, 0.2, 0.2], xyz: [0.4, 0, 0.5]}}")
    table = run(*pose, "--max-solutions", 2)
    assert table.returncode == 1
    assert "touches an obstacle" in table.stdout and " and wall by " in table.stdout
    touches = json.loads(run(*pose, "--json").stdout)["touches"]
    assert all("wall" in contact for contact in touches[0][0]) and touches[0][0]


def test_solve_refuses_a_world_that_cannot_be(run, tmp_path):
    path = tmp_path / "scene.yaml"
    path.write_text("objects: {table: {type: bix}}")
    for file, words in ((path, "bix"), (tmp_path / "none.yaml", "cannot read")):
        done = run("solve", *POSE, "--world", file)
        assert done.returncode == 2 and words in done.stderr


def test_solve_for_a_link_fixed_to_the_tip_reaches_with_that_link(panda, run):
    done = run(
        "solve", "--xyz", 0.4, 0.1, 0.5, "--rpy", 3.0, 0, 0.2, "--frame", "panda_hand_tcp",
        "--sampler", "uniform", "--max-solutions", 1, "--json",
    )  # fmt: skip
    q = json.loads(done.stdout)["joint_positions"][0][0]
    tool = mik.load_robot(panda.urdf_path, base="panda_link0", tips=["panda_hand_tcp"])
    np.testing.assert_allclose(Judge(tool).poses(np.array(q))[0, :3, 3], (0.4, 0.1, 0.5), atol=1e-5)


DUAL = ("solve", "--robot", "dual_panda", "--sampler", "uniform", "--seed", 0)
LEFT, RIGHT = ("--xyz", 0.4, -0.1, 0.5, "--rpy", 3, 0, 0), ("--xyz", 0.5, 0, 0.6, "--rpy", -3, 0, 0)


def reached_by(answer: dict, tips: list[str]) -> np.ndarray:
    """(T, 4, 4) of the best row, by Pinocchio."""
    dual = mik.load_robot("dual_panda")
    robot = mik.load_robot(dual.urdf_path, base=dual.base, tips=tips)
    joints = dict(zip(answer["joint_names"], answer["joint_positions"][0][0], strict=True))
    return Judge(robot).poses(np.array([joints[name] for name in robot.joint_names]))


def test_solve_takes_a_pose_for_each_tip_or_for_some(run):
    tips = ["left_panda_link8", "right_panda_link8"]
    both = json.loads(run(*DUAL, *LEFT, *RIGHT, "--max-solutions", 1, "--json").stdout)
    poses = reached_by(both, tips)
    np.testing.assert_allclose(poses[:, :3, 3], [(0.4, -0.1, 0.5), (0.5, 0, 0.6)], atol=1e-5)
    swapped = ("--tip", tips[1], "--tip", tips[0])
    done = run(*DUAL, *RIGHT, *LEFT, *swapped, "--max-solutions", 1, "--json")
    np.testing.assert_allclose(reached_by(json.loads(done.stdout), tips), poses, atol=1e-4)
    done = run(*DUAL, *RIGHT, "--tip", tips[1], "--free-axes", "rx ry rz", "--json")
    answer = json.loads(done.stdout)
    np.testing.assert_allclose(reached_by(answer, tips)[1, :3, 3], (0.5, 0, 0.6), atol=1e-5)
    assert np.ptp(np.array(answer["joint_positions"])[0, :, :7], 0).max() > 0.5
    assert not np.any(answer["orientation_error"])


def test_solve_needs_no_orientation_where_its_axes_are_free(run):
    words = ("solve", "--xyz", 0.4, 0.1, 0.5, "--sampler", "uniform", "--seed", 0, "--json")
    free = json.loads(run(*words, "--free-axes", "rx ry rz").stdout)
    given = json.loads(run(*words, "--free-axes", "rx ry rz", "--rpy", 0, 0, 0).stdout)
    assert np.all(free["valid"]) and free["joint_positions"] == given["joint_positions"]


@pytest.mark.parametrize(
    "words",
    [
        ("solve", *POSE, "--num-samples", "1_0"),
        ("solve", *POSE, "--timeout=1_0"),
        ("add-robot", "arm.urdf", "--samples", "10_000"),
        ("study", ".", "--poses", "1_0"),
        ("evaluate", "--poses", "1_0"),
        ("reachability", "--voxel", "0.1_0"),
        ("view", "--port", "80_80"),
    ],
)
def test_a_number_with_an_underscore_is_refused_by_every_command(run, words):
    done = run(*words)
    assert done.returncode == 2 and "a number has no underscore" in done.stderr


def test_solve_for_a_link_of_one_of_several_tips(run):
    done = run(*DUAL, *LEFT, "--frame", "left_panda_hand_tcp", "--free-axes", "rz", "--json")
    pose = reached_by(json.loads(done.stdout), ["left_panda_hand_tcp"])[0]
    np.testing.assert_allclose(pose[:3, 3], (0.4, -0.1, 0.5), atol=1e-5)
    np.testing.assert_allclose(pose[:3, 2], (0, -np.sin(3), np.cos(3)), atol=1e-5)
    for more in ((), ("--free-axes", "rx ry rz")):
        table = run(*DUAL, *LEFT, "--frame", "left_panda_hand_tcp", *more).stdout
        assert "rank" in table and "right_joint7 [rad]" in table and "error [rad]" in table


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (LEFT, "1 poses for left_panda_link8, right_panda_link8"),
        ((*LEFT, "--xyz", 1, 1, 1), "2 --xyz and 1 --rpy"),
        ((*LEFT, "--tip", "nose"), "'nose'"),
        ((*LEFT, "--tip", "left_panda_link8", "--free-axes", "roll"), "'roll'"),
        ((*LEFT, "--tip", "left_panda_link8", "--free-axes", "z", "--free-axes", ""), "2 --free"),
        ((*LEFT, *RIGHT, "--frame", "left_panda_hand", "--frame", "left_panda_link8"), "twice"),
        (("--xyz", 0, 1, "--rpy", 0, 0, 0), "'0 1'"),
        ((*LEFT, *RIGHT, "--objective", "{name: ["), "not YAML"),
    ],
)
def test_goals_that_do_not_fit_the_tips_are_refused(run, arguments, message):
    done = run(*DUAL, *arguments)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1 and message in done.stderr


def test_solve_takes_a_file_of_poses_and_any_urdf(run, tmp_path):
    robot = mik.load_robot(TORSO, base="world", tips=["left_tool"])
    q = robot.random_configurations(3).numpy()
    np.save(tmp_path / "poses.npy", np.stack([Judge(robot).poses(row) for row in q]))
    done = run(
        "solve", "--robot", TORSO, "--base", "world", "--tip", "left_tool",
        "--poses", tmp_path / "poses.npy", "--sampler", "uniform", "--max-solutions", 2,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr
    assert "elbow [rad]" in done.stdout and "pose 3" in done.stdout


def test_an_unreachable_pose_ends_with_exit_code_1_and_honest_errors(run):
    done = run("solve", "--xyz", 3, 0, 0, "--rpy", 0, 0, 0, "--sampler", "uniform", "--json")
    answer = json.loads(done.stdout)
    assert done.returncode == 1
    assert not np.any(answer["valid"])
    assert min(row[0] for row in answer["position_error"][0]) > 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("solve", "--xyz", 0, 0, 1), "--rpy and --quat"),
        (("solve", "--xyz", 0, 0, 1, "--quat", 1, 1, 0, 0), "length"),
        (("solve", "--xyz", 0, 0, "nan", "--rpy", 0, 0, 0, "--sampler", "uniform"), "not finite"),
        (("solve", "--xyz", 0, 0, 1e300, "--rpy", 0, 0, 0, "--sampler", "uniform"), "m away"),
        (("solve", "--xyz", 0, 0, 0, "--quat", 1e300, 0, 0, 0), "--quat has the length 1e+300"),
        (("solve", "--xyz", 0, 0, "1_0", "--rpy", 0, 0, 0), "'0 0 1_0'; it must be 3 numbers"),
        (("solve", *POSE, "--seed-state", "0,0,0,-1,0,1_0,0"), "must be numbers with commas"),
        (("solve", *POSE, "--objective", "{name: posture, weight: 1_0}"), "the number 1_0 with"),
        (("solve", *POSE, "--objective", "{name: posture, weight: 1_0e-1}"), "'1_0e-1'"),
        (("train", "--set", "batch_size=1_000"), "the number 1_000 with an underscore"),
        (("train", "--set", "lr=1_0e-4"), "lr is '1_0e-4'"),
        (("solve", *POSE, "--robot", "pandas"), "'pandas'"),
        (("solve", *POSE, "--sampler", "gauss"), "gauss"),
        (("solve", "--poses", "nothing.npy", "--sampler", "uniform"), "nothing.npy"),
        (("solve", *POSE, "--checkpoint", "nothing.safetensors"), "nothing.safetensors"),
        (("train", "--set", "lr"), "KEY=VALUE"),
        (("train", "--set", "lr=: ["), "not YAML"),
        (("train", "--set", "learning_rate=1"), "learning_rate"),
        (("train", "--set", "lr=-1"), "lr is -1"),
        (("train", "--config", "pandas"), "recipes are panda, panda_gpu, seed, trees, trees_gpu"),
        (("train", "--set", "step=fused"), "device cuda only"),
        (("train", "--config", "nothing.yaml"), "nothing.yaml"),
        (("evaluate", "--checkpoint", "nothing.safetensors"), "nothing.safetensors"),
        (("evaluate", "--poses", 0), "poses is 0"),
        (("evaluate", "--detail-poses", -1), "detail_poses is -1"),
        (("evaluate", "--poses", 10**9, "--output", "/nowhere/x.json"), "no folder /nowhere"),
        (("evaluate", "--poses", 10**9, "--plots", f"{__file__}/plots"), "test_cli.py is no"),
        (("study", ".", "--output", "/nowhere/x.json"), "no folder /nowhere"),
        (("study", ".", "--out", f"{__file__}/runs"), "test_cli.py is no folder"),
        (("train", "--out", f"{__file__}/run"), "test_cli.py is no folder"),
        (("bench", "kinematics", "--output", "/"), "/ is a folder"),
        (("bench", "speed"), "'speed'"),
        (("bench", "kinematics", "--set", "poses=1"), "'poses'"),
        (("bench", "nope", "--table", RECORDS), "unknown suite 'nope'"),
        (("bench", "kinematics", "--quick"), "no short run; those of peers have"),
        (("bench", "kinematics", "--plots", "."), "not of 'kinematics'"),
        (("bench", "--write-tables", "nothing.md"), "no such file"),
        (("solve", *POSE, "--max-solutions", 0), "max_solutions is 0"),
        (("solve", *POSE, "--timeout", -1), "timeout is -1.0"),
        (("solve", *POSE, "--select", "worst"), "'worst'"),
        (("solve", *POSE, "--seed-state", "1,2"), "must be (7,)"),
        (("train", "--out", "/proc/x"), "/proc/x: it cannot be made"),
    ],
)
def test_bad_input_ends_with_one_line_that_names_it(run, arguments, message):
    done = run(*arguments)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1 and message in done.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": np.eye(4)[None]}, "is an archive of arrays (a)"),
        (np.eye(4)[None, :3], "has the shape (1, 3, 4)"),
        (np.zeros((2, 3, 1, 4, 4)), "has the shape (2, 3, 1, 4, 4)"),
        (np.zeros(()), "has the shape ()"),
        (np.full((1, 4, 4), "x"), "must hold numbers"),
        (np.full((1, 4, 4), np.nan), "not finite"),
    ],
    ids=["npz", "3x4", "5 axes", "scalar", "texts", "nan"],
)
def test_poses_of_another_shape_are_refused_in_one_line(run, tmp_path, content, message):
    path = tmp_path / "poses.npy"
    if isinstance(content, dict):
        np.savez(path.with_suffix(".npz"), **content)
        path = path.with_suffix(".npz")
    else:
        np.save(path, content)
    done = run("solve", "--poses", path, "--sampler", "uniform")
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1 and message in done.stderr


REFUSED = """
import sys
from meanflow_ik_core.commands.app import main

sys.argv = ["meanflow-ik", *sys.argv[1:]]
try:
    main()
except SystemExit as end:
    print("code", end.code, *{"torch", "numba", "pinocchio"} & sys.modules.keys())
"""


@pytest.mark.parametrize(
    ("arguments", "loaded"),
    [
        (("solve", "--xyz", "nan", 0, 0, "--rpy", 0, 0, 0), set()),
        (("solve", "--xyz", 0, 0, "--rpy", 0, 0, 0), set()),
        (("solve", "--poses", "nothing.npy"), set()),
        (("bench", "speed"), set()),
        (("bench", "solve", "--set", "pose=1"), set()),
        (("solve", *POSE, "--max-solutions", 0), {"numba", "pinocchio"}),
        (("solve", *POSE, "--robot", "pandas"), {"numba", "pinocchio"}),
        (("evaluate", "--poses", 0), {"numba", "pinocchio"}),
        (("train", "--set", "lr=-1"), {"numba", "pinocchio"}),
        (("train", "--out", "/proc/x"), {"numba", "pinocchio"}),
    ],
)
def test_bad_arguments_are_refused_before_anything_heavy_is_loaded(arguments, loaded):
    done = subprocess.run(
        [sys.executable, "-c", REFUSED, *map(str, arguments)], capture_output=True, text=True
    )
    code, *heavy = done.stdout.split()[1:]
    assert code == "2", done.stderr
    assert set(heavy) <= loaded


def test_evaluate_measures_a_sampler(run):
    done = run("evaluate", "--sampler", "uniform", "--poses", 20, "--samples", 10, "--json")
    assert done.returncode == 0, done.stderr
    metrics = json.loads(done.stdout)["metrics"]
    # two random poses of the Panda are most of a metre and more than a right angle apart
    assert 0.3 < metrics["position_error_mean"] < 1.5
    assert 1.5 < metrics["orientation_error_mean"] < np.pi


def test_evaluate_compares_with_the_exact_answer_and_draws_plots(run, tmp_path):
    options = ("--sampler", "uniform", "--poses", 3, "--samples", 10, "--detail-poses", 2)
    plots, path = tmp_path / "plots", tmp_path / "evaluation.json"
    done = run("evaluate", *options, "--exact", "--plots", plots, "--output", path)
    assert done.returncode == 0, done.stderr
    assert "MMD^2 to the exact posterior" in done.stdout
    assert "after damped steps" in done.stdout
    assert json.loads(path.read_text())["exact"]["poses"] == 2
    assert {file.name for file in plots.iterdir()} == {
        "errors.png", "steps.png", "coverage.png", "curve.png",
    }  # fmt: skip
    without = run("evaluate", *options, "--no-exact")
    assert "MMD" not in without.stdout


def test_evaluate_says_why_there_is_no_exact_answer(run):
    arm = ("--robot", TORSO, "--base", "world", "--tip", "left_tool", "--sampler", "uniform")
    small = ("--poses", 3, "--samples", 5, "--detail-poses", 2)
    done = run("evaluate", *arm, *small)
    assert done.returncode == 0, done.stderr
    assert "without the exact answer" in done.stdout
    refused = run("evaluate", *arm, *small, "--exact")
    assert refused.returncode == 2 and "closed form" in refused.stderr


def test_evaluate_says_why_it_asks_a_shipped_network_for_one_call_only(run, tmp_path):
    small = ("--poses", 3, "--samples", 5, "--detail-poses", 2, "--plots", tmp_path)
    done = run("evaluate", "--robot", "dual_panda", *small)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if "one call only" in line]
    assert line.startswith("without more network calls: ") and "velocity_end: 0" in line
    assert (tmp_path / "calls.png").is_file()


def test_bench_prints_what_it_measured_and_writes_it_where_told(run, tmp_path):
    path = tmp_path / "result.json"
    done = run("bench", "kinematics", "--set", "configurations=50", "--output", path)
    assert done.returncode == 0, done.stderr
    assert "Jacobian" in done.stdout
    written = json.loads(path.read_text())
    assert written["bench"] == "kinematics" and all(m["reached"] for m in written["measures"])


def test_bench_prints_its_records_as_markdown(run, tmp_path):
    run("bench", "kinematics", "--set", "configurations=50", "--output", tmp_path / "k.json")
    full, summary = run("bench", "--table", tmp_path), run("bench", "--summary", tmp_path)
    assert "| kinematics | largest difference of poses | " in full.stdout
    assert "| FK against Pinocchio, largest difference | ≤ 1e-12 | " in summary.stdout
    (tmp_path / "k.json").write_text("{}")
    refused = run("bench", "--table", tmp_path)
    assert refused.returncode == 2 and "k.json is not a record" in refused.stderr


def test_bench_writes_its_records_between_the_marks_of_a_text(run, tmp_path):
    path, record = tmp_path / "page.md", tmp_path / "k.json"
    run("bench", "kinematics", "--set", "configurations=50", "--output", record)
    mark = f"<!-- bench all {tmp_path} -->"
    path.write_text(f"Before.\n{mark}\n<!-- end -->\nBetween.\n{mark}\nold\nrows\n<!-- end -->\n")
    assert run("bench", "--write-tables", path).returncode == 0
    table = run("bench", "--table", tmp_path).stdout.strip()
    filled = f"{mark}\n{table}\n<!-- end -->\n"
    assert path.read_text() == f"Before.\n{filled}Between.\n{filled}"


def test_bench_draws_the_record_of_peers(run, tmp_path):
    done = run("bench", "peers", "--table", RECORDS, "--plots", tmp_path / "plots")
    assert done.returncode == 0 and "| TRAC-IK | " in done.stdout
    assert len(list((tmp_path / "plots").glob("peers-*.png"))) == 2


def test_bench_without_a_name_lists_the_suites(run):
    done = run("bench")
    assert done.returncode == 0 and "kinematics" in done.stdout


def test_settings_of_training_are_listed_with_their_meaning(run):
    done = run("train", "--list-settings")
    assert "alpha_meanflow" in done.stdout and "jvp_tangent" in done.stdout


SMALL = ("--sampler", "uniform", "--poses", 3, "--samples", 5, "--detail-poses", 2)


@pytest.mark.parametrize(
    "arguments",
    [
        ("solve", *POSE, "--sampler", "uniform", "--avoid-self-collision"),
        (*DUAL, *LEFT, *RIGHT, "--objective", "manipulability"),
        ("solve", "--xyz", 3, 0, 0, "--rpy", 0, 0, 0, "--sampler", "uniform"),
        ("train", "--list-settings"),
        ("evaluate", *SMALL),
        ("bench",),
    ],
)
def test_tables_fit_a_terminal_of_80_columns(run, monkeypatch, arguments):
    monkeypatch.setenv("COLUMNS", "80")
    done = run(*arguments)
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    long = [line for line in lines if len(line) > 80 and not line.startswith("pose ")]
    assert lines and not long
    assert "…" not in done.stdout


def test_a_pose_out_of_reach_is_told_in_one_line_with_the_nearest_candidate(run):
    done = run("solve", "--xyz", 3, 0, 0.333, "--rpy", 0, 0, 0, "--sampler", "uniform")
    first, *rest = done.stdout.splitlines()
    assert first.startswith("pose 1: the target of panda_link8 is 2.14 m or more beyond its reach")
    assert [line.split()[0] for line in rest if line.strip()].count("1") == 1
    assert not any(line.startswith("2") for line in rest)
    answer = run("solve", "--xyz", 3, 0, 0, "--rpy", 0, 0, 0, "--sampler", "uniform", "--json")
    printed = json.loads(answer.stdout)
    assert printed["status"] == ["BEYOND_REACH"] and "beyond its reach" in printed["message"][0]


def test_train_makes_a_checkpoint_that_solves_and_goes_on_from_it(run, tmp_path):
    small = ("hidden_dim=16", "depth=2", "batch_size=32", "validation_poses=4", "warmup_steps=1")
    settings = [part for item in small for part in ("--set", item)]
    out = tmp_path / "run"
    for iterations in (4, 8):
        done = run(
            "train", "--out", out, "--no-progress", "--json", "--set",
            f"iterations={iterations}", *settings,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        summary = json.loads(done.stdout)
        assert (summary["steps"], summary["samples"]) == (iterations, 32 * iterations)
    assert Path(summary["checkpoint"]).stat().st_size < 1e6
    done = run(
        "solve", *POSE, "--checkpoint", summary["checkpoint"], "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["starts"]["meanflow"] == 128


def test_study_prints_its_recipes_and_writes_them_where_told(run, tmp_path):
    (tmp_path / "tiny.yaml").write_text(
        "{hidden_dim: 8, depth: 1, batch_size: 16, iterations: 2, validation_poses: 2}"
    )
    output = tmp_path / "study.json"
    done = run(
        "study", tmp_path, "--out", tmp_path / "runs", "--poses", 4, "--detail-poses", 0,
        "--no-progress", "--output", output,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "tiny" in done.stdout and "recall" in done.stdout
    assert json.loads(output.read_text())[0]["samples"] == 32
