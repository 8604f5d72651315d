# SPDX-License-Identifier: Apache-2.0
"""The examples run, are short, and show what they say. That of ROS is in test/ros."""

import itertools
import os
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracles import Judge

import meanflow_ik_core as mik

EXAMPLES = Path(__file__).parents[1] / "examples"
SCRIPTS = sorted(path.name for path in EXAMPLES.glob("*.py"))
MOST_LINES = 60


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Run an example in this process, in a folder of its own: its names, and what it prints."""

    def run_with(name: str, *arguments: str) -> tuple[dict[str, Any], str]:
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        monkeypatch.chdir(tmp_path)
        names = runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        return names, capsys.readouterr().out

    return run_with


def is_picture(path: Path) -> bool:
    from matplotlib.image import imread

    picture = imread(path)
    return len(np.unique(picture.reshape(-1, picture.shape[-1]), axis=0)) > 20


def test_examples_are_short_and_listed():
    listed = (EXAMPLES.parent / "docs" / "examples.md").read_text()
    for name in SCRIPTS:
        assert len((EXAMPLES / name).read_text().splitlines()) <= MOST_LINES, name
        assert f"[{name}](../examples/{name})" in listed


@pytest.mark.parametrize(
    "name, missing, install",
    [
        ("cartesian_path", "matplotlib.figure", "'.[demo]'"),
        ("obstacles", "matplotlib.figure", "'.[demo]'"),
        ("plan_to_goals", "ompl", "ompl"),
        ("train_your_robot", "matplotlib.figure", "'.[demo,train]'"),
        ("export_onnx", "onnxruntime", "'.[onnx]'"),
        ("ros_client", "rclpy", "'.[ros]'"),
    ],
)
def test_an_example_says_what_it_lacks(run, monkeypatch, name, missing, install):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(SystemExit, match=rf"{missing}.*: pip install {re.escape(install)}"):
        run(name)


def test_one_pose(run, panda):
    names, out = run("one_pose")
    rows = names["result"].joint_positions[0][names["result"].valid[0]]
    assert len(rows) == 8 == out.count("um")
    assert all(Judge(panda).accepts(q, names["target"][None]) for q in rows)


def test_rank_grasps(run):
    names, out = run("rank_grasps")
    reachable = int(re.match(r"(\d+) of 240 grasps", out)[1])
    assert 50 < reachable < 240
    best = names["cost"].argmin()
    q, grasp = names["result"].joint_positions[best, 0], names["grasps"][best]
    tcp = Judge(names["solver"].robot).link(q, "panda_hand_tcp").homogeneous
    np.testing.assert_allclose(tcp, grasp, atol=1e-4)
    assert np.linalg.norm(grasp[:2, 3] - names["CAN"][:2]) < 1e-9 and grasp[2, 2] == 0


def test_cartesian_path(run, panda, tmp_path):
    names, _ = run("cartesian_path")
    judge, path = Judge(panda), names["path"].joint_positions
    assert len(path) == names["WAYPOINTS"]
    assert all(judge.accepts(q, T[None]) for q, T in zip(path, names["circle"], strict=True))
    assert np.abs(np.diff(path, axis=0)).max() < 0.1
    assert is_picture(tmp_path / "cartesian_path.png")


def test_track_target(run):
    names, _ = run("track_target")
    became = names["became"]
    assert sum(became.values()) == names["RATE"] * names["SECONDS"]
    assert {"REACHED", "FOLLOWING", "BLOCKED"} <= set(became)
    assert names["step"].status is mik.TrackStatus.REACHED


def test_two_arms(run, dual_panda):
    names, out = run("two_arms")
    touching, all_of_them = map(int, re.search(r"(\d+) of (\d+) solutions touch", out).groups())
    assert 0 < touching < all_of_them
    judge, q = Judge(dual_panda), names["free"].joint_positions[0, 0]
    for hand, target in zip(names["hands"], names["targets"], strict=True):
        np.testing.assert_allclose(judge.link(q, hand).homogeneous, target, atol=1e-4)


def test_obstacles(run, tmp_path):
    names, out = run("obstacles")
    touching, all_of_them = map(int, re.search(r"(\d+) of (\d+) solutions touch", out).groups())
    assert 0 < touching < all_of_them
    assert not names["world"].in_collision(names["free"].joint_positions[0]).any()
    assert is_picture(tmp_path / "obstacles.png")


def test_plan_to_goals(run, panda):
    pytest.importorskip("ompl")
    names, _ = run("plan_to_goals")
    path = names["path"]
    np.testing.assert_allclose(path[0], names["start"])
    assert Judge(panda).accepts(path[-1], names["target"][None])
    share = np.linspace(0, 1, 50)[:, None]
    between = np.concatenate([a + share * (b - a) for a, b in itertools.pairwise(path)])
    assert panda.within_limits(between, 1e-9).all()
    # RRT-Connect looks at points of a motion, so a corner may be cut by less than it sees.
    assert names["world"].in_collision(between).mean() < 0.01


@pytest.mark.filterwarnings("error:# The axis name")
def test_export_onnx(run, tmp_path):
    pytest.importorskip("onnxruntime")
    names, out = run("export_onnx")
    assert (tmp_path / "panda.onnx").stat().st_size > 1e6
    differences = [float(text) for text in re.findall(r"difference (\S+) rad", out)]
    # Rounding: in float32 the network itself is 2e-4 rad off.
    assert len(differences) == 2 and max(differences) < 2e-3
    assert np.ptp(names["q"]) > 1


@pytest.mark.slow
def test_train_your_robot(run, tmp_path):
    small = ("hidden_dim=32", "depth=2", "context_dim=32", "iterations=40", "validate_every=20")
    names, out = run(
        "train_your_robot", "--minutes", "0.5", "--out", "run", "--set", *small,
        "estimate_poses=64", "batch_size=64", "compile=false",
    )  # fmt: skip
    assert names["result"].finished and "meanflow: 32 solutions" in out
    assert is_picture(tmp_path / "run" / "learning_curve.png")
    assert os.listdir(tmp_path) == ["run"]
