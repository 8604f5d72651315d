# SPDX-License-Identifier: Apache-2.0
"""The kinds of network, by the names that settings and checkpoints have for them."""

from ..robot.robot import Robot
from .model import MeanFlowNetwork, VelocityNetwork
from .token_model import TokenNetwork

NETWORKS: dict[str, type[MeanFlowNetwork] | type[TokenNetwork]] = {
    network.kind: network for network in (MeanFlowNetwork, TokenNetwork)
}


def network_for(robot: Robot, kind: str = MeanFlowNetwork.kind, **sizes: int) -> VelocityNetwork:
    """A fresh network with the joints and tips of a robot; kind is a name of `NETWORKS`."""
    return NETWORKS[kind](robot.num_joints, robot.num_tips, **sizes)
