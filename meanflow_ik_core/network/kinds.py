# SPDX-License-Identifier: Apache-2.0
"""The kinds of network, by the names that settings and checkpoints have for them."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ..robot.robot import Robot
from .checkpoint import Checkpoint, read_checkpoint
from .model import MeanFlowNetwork, VelocityNetwork
from .token_model import TokenNetwork

NETWORKS: dict[str, type[MeanFlowNetwork] | type[TokenNetwork]] = {
    network.kind: network for network in (MeanFlowNetwork, TokenNetwork)
}


def network_for(robot: Robot, kind: str = MeanFlowNetwork.kind, **sizes: int) -> VelocityNetwork:
    """A fresh network with the joints and tips of a robot; kind is a name of `NETWORKS`."""
    return NETWORKS[kind](robot.num_joints, robot.num_tips, **sizes)


def load_checkpoint(
    name: str | Path | None, robot: Robot, device: torch.device | str = "cpu"
) -> tuple[VelocityNetwork, dict[str, Any]]:
    """The network of `read_checkpoint`, in float32 and evaluation mode, and its record."""
    checkpoint = read_checkpoint(name, robot)
    return network_from(checkpoint).to(device), checkpoint.record


def network_from(checkpoint: Checkpoint) -> VelocityNetwork:
    """The network of a checkpoint, in float32 and evaluation mode."""
    network = NETWORKS[checkpoint.sizes.kind](**asdict(checkpoint.sizes))
    network.load_state_dict(
        {name: torch.from_numpy(weight).float() for name, weight in checkpoint.weights.items()}
    )
    return network.eval().requires_grad_(False)
