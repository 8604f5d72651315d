# SPDX-License-Identifier: Apache-2.0
"""Checkpoints come back as they were saved, and every damage is refused with its reason."""

import json
import pickle
from dataclasses import fields

import pytest
import torch
from example_robots import OWN, needs_robots
from safetensors import safe_open
from safetensors.torch import save_file

from meanflow_ik_core import load_robot, load_solver
from meanflow_ik_core.errors import CheckpointError
from meanflow_ik_core.network.checkpoint import (
    CHECKPOINT_FOLDER,
    FORMAT,
    available_checkpoints,
    save_checkpoint,
)
from meanflow_ik_core.network.kinds import load_checkpoint, network_for
from meanflow_ik_core.training.config import TrainConfig

TRAINING = {"steps": 12, "samples": 3456, "config": {"lr": 1e-3}}


@pytest.fixture
def network(panda):
    torch.manual_seed(0)
    network = network_for(panda, hidden_dim=16, depth=2, context_dim=8)
    torch.nn.init.normal_(network.out.weight)
    return network


@pytest.fixture
def saved(tmp_path, panda, network):
    path = tmp_path / "folder" / "panda.safetensors"
    save_checkpoint(path, network, panda, TRAINING)
    return path


def parts(path):
    """Weights and record of a checkpoint, read without the code under test."""
    with safe_open(path, framework="pt") as file:
        weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        return weights, json.loads(file.metadata()[FORMAT])


def test_weights_come_back_rounded_to_float16_and_the_record_as_it_was(saved, panda, network):
    loaded, record = load_checkpoint(saved, panda)
    assert not loaded.training
    for (name, given), expected in zip(
        loaded.state_dict().items(), network.state_dict().values(), strict=True
    ):
        assert given.dtype == torch.float32
        assert torch.equal(given, expected.half().float()), name
    assert record["training"] == TRAINING
    assert record["robot"] == "panda"
    assert record["fingerprint"] == panda.fingerprint()
    assert record["joint_names"] == list(panda.joint_names)
    assert record["tips"] == list(panda.tips)
    assert record["network"] == network.config
    assert record["workspace_scale"] == panda.workspace_scale


def test_the_file_holds_float16_and_no_partial_file_remains(saved):
    weights, _ = parts(saved)
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_a_missing_file_names_what_exists(panda, tmp_path):
    with pytest.raises(CheckpointError, match="nowhere") as caught:
        load_checkpoint(tmp_path / "nowhere.safetensors", panda)
    assert str(available_checkpoints()) in str(caught.value)
    with pytest.raises(CheckpointError, match="no checkpoint 'pandora'"):
        load_checkpoint("pandora", panda)


@pytest.mark.parametrize("kept", [0, 4, 8, 100, 0.5, 0.99])
def test_a_truncated_file_is_refused(saved, panda, kept):
    data = saved.read_bytes()
    saved.write_bytes(data[: kept if isinstance(kept, int) else int(kept * len(data))])
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(saved, panda)


@pytest.mark.parametrize("content", [b"\x00" * 64, b"hello, world " * 20, pickle.dumps({"w": 1})])
def test_a_file_of_another_format_is_refused(saved, panda, content):
    saved.write_bytes(content)
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        load_checkpoint(saved, panda)


def test_a_folder_is_refused(tmp_path, panda):
    folder = tmp_path / "folder.safetensors"
    folder.mkdir()
    with pytest.raises(CheckpointError):
        load_checkpoint(folder, panda)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_a_foreign_safetensors_file_is_refused(tmp_path, panda, metadata):
    path = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.zeros(3)}, path, metadata=metadata)
    with pytest.raises(CheckpointError, match="something else"):
        load_checkpoint(path, panda)


def rewrite(path, weights, record):
    text = record if isinstance(record, str) else json.dumps(record)
    save_file(weights, path, metadata={FORMAT: text})


def test_a_checkpoint_of_another_robot_is_refused_and_both_are_named(saved, panda):
    other = load_robot("panda", tips=["panda_hand_tcp"])
    with pytest.raises(CheckpointError, match=r"panda_link8.*panda_hand_tcp"):
        load_checkpoint(saved, other)


def test_a_record_of_another_number_of_joints_is_refused(saved, panda):
    weights, record = parts(saved)
    record["network"]["num_joints"] = 6
    rewrite(saved, weights, record)
    with pytest.raises(CheckpointError, match="'num_joints': 6"):
        load_checkpoint(saved, panda)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(saved, panda, network, value):
    weights, record = parts(saved)
    weights["out.bias"][3] = value
    rewrite(saved, weights, record)
    with pytest.raises(CheckpointError, match=r"not finite: out\.bias"):
        load_checkpoint(saved, panda)


def test_a_network_that_overflows_float16_is_not_saved(tmp_path, panda, network):
    network.out.bias.data[0] = 1e6
    path = tmp_path / "huge.safetensors"
    with pytest.raises(CheckpointError, match=r"out\.bias"):
        save_checkpoint(path, network, panda, {})
    assert not path.exists()


def test_weights_of_the_wrong_shape_are_refused_by_name(saved, panda):
    weights, record = parts(saved)
    weights["out.bias"] = torch.zeros(8)
    rewrite(saved, weights, record)
    with pytest.raises(CheckpointError, match=r"out\.bias: \(8,\) instead of \(7,\)"):
        load_checkpoint(saved, panda)


@pytest.mark.parametrize("change", ["missing", "extra"])
def test_missing_and_extra_weights_are_refused(saved, panda, change):
    weights, record = parts(saved)
    if change == "missing":
        del weights["out.bias"]
    else:
        weights["another"] = torch.zeros(2)
    rewrite(saved, weights, record)
    with pytest.raises(CheckpointError, match="absent"):
        load_checkpoint(saved, panda)


@pytest.mark.parametrize(
    ("sizes", "reason"),
    [
        ({"hidden_dim": -1}, "hidden_dim"),
        ({"hidden_dim": "wide"}, "hidden_dim"),
        ({"unheard_of": 3}, "unheard_of"),
        ({"hidden_dim": 10**6, "depth": 4}, "wrong shapes"),
    ],
)
def test_a_record_of_an_impossible_network_is_refused_without_building_it(
    saved, panda, sizes, reason
):
    weights, record = parts(saved)
    record["network"].update(sizes)
    rewrite(saved, weights, record)
    with pytest.raises(CheckpointError, match=reason):
        load_checkpoint(saved, panda)


@pytest.mark.parametrize(
    ("record", "reason"),
    [("{", "not JSON"), ([1], "lacks"), ({"version": 1}, "lacks"), ({}, "lacks")],
)
def test_a_damaged_record_is_refused(saved, panda, record, reason):
    weights, _ = parts(saved)
    rewrite(saved, weights, record)
    with pytest.raises(CheckpointError, match=reason):
        load_checkpoint(saved, panda)


def test_a_later_format_is_refused_by_its_version(saved, panda):
    weights, record = parts(saved)
    record["version"] = 99
    rewrite(saved, weights, record)
    with pytest.raises(CheckpointError, match="version 99"):
        load_checkpoint(saved, panda)


@pytest.mark.parametrize("value", [None, 7, [1, 2]])
def test_a_record_with_a_network_that_is_no_mapping_is_refused(saved, panda, value):
    weights, record = parts(saved)
    record["network"] = value
    rewrite(saved, weights, record)
    with pytest.raises(CheckpointError, match="network"):
        load_checkpoint(saved, panda)


def test_without_a_name_the_checkpoint_is_the_one_of_this_robot_whatever_it_is_called(
    panda, tmp_path
):
    path = tmp_path / "mine.yaml"
    path.write_text(f"urdf: {panda.urdf_path}\ntips: [panda_link8]\nworkspace_scale: 1.0\n")
    mine = load_robot(path)
    assert load_checkpoint(None, mine)[1]["robot"] == "panda"


def test_a_shipped_checkpoint_is_not_proposed_to_another_robot_of_the_same_name(panda, tmp_path):
    path = tmp_path / "panda.yaml"
    path.write_text(f"urdf: {panda.urdf_path}\ntips: [panda_hand_tcp]\nworkspace_scale: 1.0\n")
    other = load_robot(path)
    with pytest.raises(CheckpointError, match=r"'panda' as it is here; shipped.*'uniform'"):
        load_checkpoint(None, other)
    with pytest.raises(CheckpointError, match="no shipped checkpoint"):
        load_solver(path, sampler="meanflow")


def test_a_checkpoint_file_may_have_any_suffix(saved, panda):
    renamed = saved.rename(saved.with_suffix(".net"))
    assert load_checkpoint(renamed, panda)[1]["path"] == str(renamed)


def test_only_what_differs_between_two_robots_is_named(saved):
    other = load_robot("panda", workspace_scale=2.0)
    with pytest.raises(CheckpointError, match=r"workspace_scale 1\.0 instead of 2\.0") as caught:
        load_checkpoint(saved, other)
    assert "joint_names" not in str(caught.value)


def test_a_missing_name_says_what_there_is_without_one(panda):
    with pytest.raises(CheckpointError, match=r"no checkpoint 'full'.*'uniform'"):
        load_checkpoint("full", panda)


@pytest.mark.parametrize("name", available_checkpoints())
def test_a_shipped_file_is_small_and_its_record_is_of_one_run(name):
    path = CHECKPOINT_FOLDER / f"{name}.safetensors"
    assert path.stat().st_size < 10e6
    weights, record = parts(path)
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}
    assert record["robot"] == name
    training = record["training"]
    assert training["machine"] and training["torch"] and training["seconds"] > 0
    assert 0 < training["validation"]["position_error_mean"] < 0.1
    config = training["config"]
    assert set(config) <= {field.name for field in fields(TrainConfig)}
    assert {key: config[key] for key in record["network"] if key in config}.items() <= (
        record["network"].items()
    )
    velocities = config["batch_size"] if config["velocity_end"] else 0
    estimates = config["estimate_poses"] * config["estimate_samples"]
    assert training["samples"] == training["steps"] * (estimates + velocities)


@pytest.mark.parametrize(
    "name",
    [
        name if name in OWN else pytest.param(name, marks=needs_robots)
        for name in available_checkpoints()
    ],
)
def test_a_shipped_robot_finds_its_checkpoint_without_a_name(name):
    assert load_checkpoint(None, load_robot(name))[1]["robot"] == name
