# SPDX-License-Identifier: Apache-2.0
"""Without a word about samplers every robot is solved, by its network where it has one."""

import shutil

import numpy as np
import pytest
from example_robots import TORSO, TORSO_TIPS, needs_robots
from oracles import Judge, reachable

import meanflow_ik_core as mik
from meanflow_ik_core.network import checkpoint
from meanflow_ik_core.network.kinds import network_for


def test_a_shipped_network_is_taken(panda):
    solver = mik.load_solver(panda)
    assert solver.sampler == "meanflow" and solver.checkpoint["robot"] == "panda"
    assert solver.sampler_summary == f"meanflow ({solver.checkpoint['path']})"


def test_a_network_that_is_given_is_taken(torso, tmp_path):
    path = tmp_path / "torso.safetensors"
    checkpoint.save_checkpoint(path, network_for(torso, hidden_dim=8, depth=1), torso, {})
    solver = mik.load_solver(torso, checkpoint=path)
    assert solver.sampler_summary == f"meanflow ({path})"


@pytest.mark.parametrize(
    "load",
    [
        pytest.param(lambda folder: mik.load_robot("dual_ur10"), marks=needs_robots),
        lambda folder: mik.load_robot(TORSO, tips=TORSO_TIPS[:1]),
        lambda folder: mik.load_robot(own_file(folder)),
        lambda folder: mik.load_robot("panda", tips=["panda_hand_tcp"]),
    ],
    ids=["shipped without one", "URDF", "YAML", "another tip"],
)
def test_uniform_starts_solve_a_robot_without_a_network(load, tmp_path):
    robot = load(tmp_path)
    solver = mik.load_solver(robot)
    assert solver.sampler_summary == "uniform (no checkpoint)"
    targets = reachable(robot, 3)
    result = solver.solve(targets, max_solutions=1, seed=0)
    judge = Judge(robot)
    for q, target in zip(result.joint_positions[:, 0], targets, strict=True):
        assert judge.accepts(q, target)
    assert set(np.unique(result.origin)) == {"uniform"}
    with pytest.raises(mik.CheckpointError, match=r"'panda', 'pr2'.*'uniform'"):
        mik.load_solver(robot, sampler="meanflow")


def own_file(folder):
    path = folder / "mine.yaml"
    path.write_text(f"urdf: {TORSO}\ntips: [{TORSO_TIPS[1]}]\n")
    return path


@pytest.mark.parametrize("robot", ["panda", "torso"])
def test_a_damaged_network_is_never_passed_over(robot, request, tmp_path, monkeypatch):
    """Whose the damaged file is cannot be known; it may be this robot's."""
    loaded = request.getfixturevalue(robot)
    shutil.copytree(checkpoint.CHECKPOINT_FOLDER, tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr(checkpoint, "CHECKPOINT_FOLDER", tmp_path)
    with (tmp_path / "panda.safetensors").open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(mik.CheckpointError, match=r"panda\.safetensors is damaged"):
        mik.load_solver(loaded)
    assert mik.load_solver(loaded, sampler="uniform").sampler == "uniform"


def test_uniform_starts_take_no_network(panda):
    with pytest.raises(mik.OptionError, match="'panda', and the sampler uniform takes none"):
        mik.load_solver(panda, "panda", sampler="uniform")


def test_a_network_that_is_given_and_damaged_or_missing_is_an_error(torso, tmp_path):
    path = tmp_path / "net.safetensors"
    with pytest.raises(mik.CheckpointError, match="no checkpoint"):
        mik.load_solver(torso, checkpoint=path)
    with pytest.raises(mik.OptionError, match="checkpoint is 123; it must be a name or a path"):
        mik.load_solver(torso, checkpoint=123)
    path.write_bytes(bytes(1000))
    with pytest.raises(mik.CheckpointError, match="is damaged"):
        mik.load_solver(torso, checkpoint=path)
