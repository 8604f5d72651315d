# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: float16 weights and what they belong to, in one safetensors file.

A safetensors file holds numbers and text only, so that loading one from a stranger runs no code.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ..errors import CheckpointError, OptionError
from ..robot.robot import Robot
from .kinds import NETWORKS
from .model import MeanFlowNetwork, VelocityNetwork

CHECKPOINT_FOLDER = Path(__file__).parents[1] / "checkpoints"
FORMAT = "meanflow-ik"
FORMAT_VERSION = 1
_KEYS = (
    "version",
    "robot",
    "fingerprint",
    "base",
    "tips",
    "joint_names",
    "workspace_scale",
    "network",
    "training",
)


def available_checkpoints() -> list[str]:
    """Names of the shipped checkpoints."""
    return sorted(path.stem for path in CHECKPOINT_FOLDER.glob("*.safetensors"))


def save_checkpoint(
    path: str | Path, network: VelocityNetwork, robot: Robot, training: Mapping[str, Any]
) -> None:
    """Write the weights in float16 and their metadata; the file appears whole or not at all.

    Args:
        path: file to write, ``.safetensors``; its folder is created.
        network: for the robot's joints and tips.
        robot: that the network was trained for.
        training: record of the run, of plain JSON values.

    Raises:
        CheckpointError: a weight is not finite in float16.
    """
    weights = {
        name: tensor.detach().to("cpu", torch.float16).contiguous()
        for name, tensor in network.state_dict().items()
    }
    _refuse_non_finite(weights, f"cannot save {path}")
    record = {
        "version": FORMAT_VERSION,
        "robot": robot.name,
        "fingerprint": robot.fingerprint(),
        "base": robot.base,
        "tips": list(robot.tips),
        "joint_names": list(robot.joint_names),
        "workspace_scale": robot.workspace_scale,
        "kind": network.kind,
        "network": network.config,
        "training": dict(training),
    }
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_bytes(save(weights, metadata={FORMAT: json.dumps(record)}))
    os.replace(partial, path)


def load_checkpoint(
    name: str | Path | None, robot: Robot, device: torch.device | str = "cpu"
) -> tuple[VelocityNetwork, dict[str, Any]]:
    """Read a network and the record of its training.

    Args:
        name: one of `available_checkpoints`, or the path of a file; None: the shipped one that was
            trained for this robot.
        robot: that the network is to be used for.
        device: where the network goes.

    Returns:
        The network in float32 and evaluation mode, and the metadata: version, robot, fingerprint,
        base, tips, joint_names, workspace_scale, kind, network, training; path and sha256 of the
        file.

    Raises:
        CheckpointError: the file is missing, damaged, not ours, or of another robot.
    """
    path = _shipped(robot) if name is None else _find(name)
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(FORMAT)
            record = _read_record(path, text)
            _check_robot(path, record, robot)
            weights = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118
        record |= {"path": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged or not a safetensors file: {error}") from error
    _refuse_non_finite(weights, f"{path} is damaged")
    kind = NETWORKS[record["kind"]]
    try:
        # Without memory first, which the sizes in a stranger's file must not be able to fill.
        with torch.device("meta"):
            expected = kind(**record["network"]).state_dict()
    except (OptionError, TypeError) as error:
        raise CheckpointError(f"{path} describes no network that exists: {error}") from error
    _check_shapes(path, weights, {name: tensor.shape for name, tensor in expected.items()})
    network = kind(**record["network"])
    network.load_state_dict(weights)
    return network.to(device).eval().requires_grad_(False), record


def _shipped(robot: Robot) -> Path:
    """The shipped checkpoint of a robot, whatever the robot's file is called."""
    shipped = {path.stem: path for path in sorted(CHECKPOINT_FOLDER.glob("*.safetensors"))}
    own = shipped.get(robot.name)
    for path in [own, *shipped.values()] if own else shipped.values():
        with safe_open(path, framework="pt") as file:
            record = _read_record(path, (file.metadata() or {}).get(FORMAT))
        if record["fingerprint"] == robot.fingerprint():
            return path
    raise CheckpointError(
        f"no shipped checkpoint was trained for {robot.name!r} as it is here; train one with "
        "`meanflow-ik train`, give the path of one, or take the sampler 'uniform'"
    )


def _find(name: str | Path) -> Path:
    if str(name) in available_checkpoints():
        return CHECKPOINT_FOLDER / f"{name}.safetensors"
    path = Path(name)
    if not path.is_file():
        raise CheckpointError(
            f"no checkpoint {str(name)!r}; shipped ones are {available_checkpoints()}, or give the "
            "path of a .safetensors file; without one there is the sampler 'uniform'"
        )
    return path


def _read_record(path: Path, text: str | None) -> dict[str, Any]:
    if text is None:
        raise CheckpointError(
            f"{path} is a safetensors file of something else: it has no metadata {FORMAT!r}"
        )
    try:
        record = json.loads(text)
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{path} is damaged: its metadata is not JSON: {error}") from error
    missing = [key for key in _KEYS if key not in record] if isinstance(record, dict) else _KEYS
    if missing:
        raise CheckpointError(f"{path} is damaged: its metadata lacks {', '.join(missing)}")
    if record["version"] != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format version {record['version']}; this program reads {FORMAT_VERSION}"
        )
    if not isinstance(record["network"], dict):
        raise CheckpointError(f"{path} is damaged: its network sizes are {record['network']!r}")
    # The first checkpoints were written before there were kinds.
    record.setdefault("kind", MeanFlowNetwork.kind)
    if record["kind"] not in list(NETWORKS):
        raise CheckpointError(
            f"{path} holds a network of kind {record['kind']!r}; kinds are {sorted(NETWORKS)}"
        )
    return record


def _check_robot(path: Path, record: Mapping[str, Any], robot: Robot) -> None:
    if record["fingerprint"] != robot.fingerprint():
        own = {
            "base": robot.base,
            "tips": list(robot.tips),
            "joint_names": list(robot.joint_names),
            "workspace_scale": robot.workspace_scale,
        }
        differences = [
            f"{key} {record[key]} instead of {value}"
            for key, value in own.items()
            if record[key] != value
        ]
        raise CheckpointError(
            f"{path} was trained for {record['robot']!r} with "
            f"{', '.join(differences) or 'other limits or dimensions'}; "
            f"the robot here is {robot.name!r}"
        )
    expected = {"num_joints": robot.num_joints, "num_tips": robot.num_tips}
    given = {key: record["network"].get(key) for key in expected}
    if given != expected:
        raise CheckpointError(f"{path} holds a network for {given}; the robot has {expected}")


def _check_shapes(
    path: Path, weights: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Size]
) -> None:
    differences = [
        f"{name}: {tuple(weights[name].shape) if name in weights else 'absent'} "
        f"instead of {tuple(expected[name]) if name in expected else 'absent'}"
        for name in sorted({*weights, *expected})
        if name not in weights or name not in expected or weights[name].shape != expected[name]
    ]
    if differences:
        raise CheckpointError(f"{path} has weights of the wrong shapes; {differences[0]}")


def _refuse_non_finite(weights: Mapping[str, torch.Tensor], problem: str) -> None:
    bad = [name for name, tensor in weights.items() if not torch.isfinite(tensor).all()]
    if bad:
        raise CheckpointError(f"{problem}: weights that are not finite: {', '.join(bad)}")
