# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: float16 weights and what they belong to, in one safetensors file.

A safetensors file holds numbers and text only, so that loading one from a stranger runs no code.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ..bounds import MOST_CHECKPOINT_BYTES, check_file_size, is_file, short
from ..errors import CheckpointError, OptionError
from ..whole_file import whole_file
from .sizes import SIZES, MlpSizes, NetworkSizes

if TYPE_CHECKING:
    from ..robot.robot import Robot
    from .model import VelocityNetwork

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


@dataclass(frozen=True)
class Checkpoint:
    """A network as it was saved."""

    sizes: NetworkSizes
    weights: dict[str, np.ndarray]  # float16 as they were saved, or float32
    record: dict[str, Any]  # version, robot, fingerprint, base, tips, joint_names,
    # workspace_scale, kind, network, training; path and sha256 of the file

    def arrays(self) -> dict[str, np.ndarray]:
        """All weights, float32, see `NetworkSizes.shapes`."""
        return {name: weight.astype(np.float32) for name, weight in self.weights.items()}


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
    with np.errstate(over="ignore"):
        halves = {name: weight.astype(np.float16) for name, weight in network.arrays().items()}
    _refuse_non_finite(halves, f"cannot save {path}")
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
    with whole_file(path) as draft:
        draft.write_bytes(save(halves, metadata={FORMAT: json.dumps(record)}))


def read_checkpoint(name: str | Path | None, robot: Robot) -> Checkpoint:
    """Read the weights of a network and the record of its training.

    Args:
        name: one of `available_checkpoints`, or the path of a file; None: the shipped one that was
            trained for this robot.
        robot: that the network is to be used for.

    Raises:
        CheckpointError: the file is missing, damaged, not ours, or of another robot.
    """
    path = _shipped(robot) if name is None else _find(name)
    check_file_size(path, MOST_CHECKPOINT_BYTES, CheckpointError)
    with _opened(path) as file:
        record = _read_record(path, file)
        _check_robot(path, record, robot)
        weights = {key: _read_weight(path, file, key) for key in file.keys()}  # noqa: SIM118
        record |= {"path": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    _refuse_non_finite(weights, f"{path} is damaged")
    try:
        sizes = SIZES[record["kind"]](**record["network"])
    except (OptionError, TypeError) as error:
        raise CheckpointError(f"{path} describes no network that exists: {error}") from error
    _check_shapes(path, weights, sizes)
    return Checkpoint(sizes, weights, record)


def shipped_checkpoint(robot: Robot) -> Path | None:
    """The shipped checkpoint of a robot, whatever the robot's file is called; None: there is none.

    Raises:
        CheckpointError: a shipped file is damaged, so that its robot is not known.
    """
    fingerprint = robot.fingerprint()
    names = sorted(available_checkpoints(), key=lambda name: name != robot.name)  # its own first
    for path in (CHECKPOINT_FOLDER / f"{name}.safetensors" for name in names):
        with _opened(path) as file:
            if _read_record(path, file)["fingerprint"] == fingerprint:
                return path
    return None


def _shipped(robot: Robot) -> Path:
    path = shipped_checkpoint(robot)
    if path is None:
        raise CheckpointError(
            f"no shipped checkpoint was trained for {robot.name!r} as it is here; shipped ones are "
            f"{available_checkpoints()}; train one with `meanflow-ik train`, give the path of one, "
            "or take the sampler 'uniform'"
        )
    return path


def _find(name: str | Path) -> Path:
    if str(name) in available_checkpoints():
        return CHECKPOINT_FOLDER / f"{name}.safetensors"
    path = Path(name)
    if not is_file(path):
        raise CheckpointError(
            f"no checkpoint {short(name)!r}; shipped ones are {available_checkpoints()}, or give "
            "the path of a .safetensors file; without one there is the sampler 'uniform'"
        )
    return path


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="np") as file:
            yield file
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged or not a safetensors file: {error}") from error


def _read_record(path: Path, file: Any) -> dict[str, Any]:
    text = (file.metadata() or {}).get(FORMAT)
    if text is None:
        raise CheckpointError(
            f"{path} is a safetensors file of something else: it has no metadata {FORMAT!r}"
        )
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
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
    record.setdefault("kind", MlpSizes.kind)
    if record["kind"] not in list(SIZES):
        raise CheckpointError(
            f"{path} holds a network of kind {record['kind']!r}; kinds are {sorted(SIZES)}"
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


def _read_weight(path: Path, file: Any, name: str) -> np.ndarray:
    try:
        weight = file.get_tensor(name)
    except TypeError as error:  # bfloat16, say
        raise CheckpointError(f"{path} has {name} of a type that is not read: {error}") from error
    if weight.dtype not in (np.float16, np.float32):
        raise CheckpointError(
            f"{path} has {name} of {weight.dtype}; weights are float16 or float32"
        )
    return weight


def _check_shapes(path: Path, weights: Mapping[str, np.ndarray], sizes: NetworkSizes) -> None:
    names = set()
    # One by one: the sizes in a stranger's file must not be able to fill the memory.
    for name, shape in sizes.shapes():
        names.add(name)
        given = weights[name].shape if name in weights else "absent"
        if given != shape:
            raise CheckpointError(
                f"{path} has weights of the wrong shapes; {name}: {given} instead of {shape}"
            )
    more = sorted(weights.keys() - names)
    if more:
        raise CheckpointError(
            f"{path} has weights of the wrong shapes; {more[0]}: {weights[more[0]].shape} "
            "instead of absent"
        )


def _refuse_non_finite(weights: Mapping[str, np.ndarray], problem: str) -> None:
    bad = [name for name, weight in weights.items() if not np.isfinite(weight).all()]
    if bad:
        raise CheckpointError(f"{problem}: weights that are not finite: {', '.join(bad)}")
