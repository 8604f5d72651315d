# SPDX-License-Identifier: Apache-2.0
"""How good a network is during training: its one-step samples, measured as an evaluation does."""

import numpy as np
import torch
from torch import Tensor

from ..evaluation.samples import measure_samples
from ..geometry import pose_errors
from ..network.model import VelocityNetwork, denormalise_joints
from ..robot.robot import Robot
from .configurations import draw_configurations

POSITION_TOLERANCE = 1e-3  # m
ORIENTATION_TOLERANCE = 1e-2  # rad


@torch.no_grad()
def validate(
    robot: Robot,
    network: VelocityNetwork,
    poses: int,
    samples: int,
    seed: int,
    collision_free: bool = False,
) -> dict[str, float]:
    """What `measure_samples` says about one-step samples of a network on reachable poses.

    A network that takes partial goals is also asked for each pose without one of its tips, each in
    its turn: position_error_partial [m] and orientation_error_partial [rad] are means over the tips
    that are left, spread_partial [rad] is the spread of the joints that move the other one alone,
    and spread_whole [rad] that of the same joints when all tips are given.

    Args:
        poses: number of poses, of configurations as `draw_configurations` makes them.
        samples: one-step samples per pose, clamped to the limits.
        seed: of poses and noise; the training stream is not touched.
        collision_free: see `draw_configurations`.
    """
    generator = torch.Generator(network.out.weight.device).manual_seed(seed)
    dtype = torch.float32
    lower, upper = robot.limits(dtype, generator.device)
    q_true = draw_configurations(robot, poses, generator, collision_free)
    T_base_tip = robot.forward(q_true)
    noise = torch.randn(
        poses, samples, robot.num_joints, generator=generator, device=generator.device
    )

    def sampled(given: Tensor | None = None) -> np.ndarray:
        condition = network.condition(T_base_tip, robot.workspace_scale, given)
        chunks = zip(noise.split(50), condition.split(50), strict=True)
        x0_hat = torch.cat([network.one_step(*chunk) for chunk in chunks])
        return denormalise_joints(x0_hat.clamp(-1, 1), lower, upper).double().cpu().numpy()

    q = sampled()
    targets = T_base_tip.double().cpu().numpy()
    metrics = measure_samples(
        robot,
        q,
        q_true.double().cpu().numpy(),
        targets,
        POSITION_TOLERANCE,
        ORIENTATION_TOLERANCE,
    )
    if robot.num_tips > 1 and network.takes_partial_goals:
        dropped = torch.arange(poses, device=generator.device) % robot.num_tips
        given = dropped[:, None] != torch.arange(robot.num_tips, device=generator.device)
        partial = sampled(given[..., None].expand(-1, -1, 2))
        metrics |= _measure_partial(robot, q, partial, targets, given.cpu().numpy())
    return metrics


def _measure_partial(
    robot: Robot, q: np.ndarray, partial: np.ndarray, T_base_tip: np.ndarray, given: np.ndarray
) -> dict[str, float]:
    """Accuracy and spread of samples (B, N, J) for goals of which the tips (B, T) are given."""
    position, angle = pose_errors(robot.forward(partial), T_base_tip[:, None])
    moved_by = robot.moves.sum(0)  # (J,) tips
    spreads = []
    for tip in range(robot.num_tips):
        alone = np.flatnonzero(robot.moves[tip] & (moved_by == 1))
        rows = ~given[:, tip]
        if len(alone) and rows.any():
            spreads.append([x[rows][..., alone].std(1).mean() for x in (partial, q)])
    spread_partial, spread_whole = np.mean(spreads, 0) if spreads else (0.0, 0.0)
    return {
        "position_error_partial": float(position.swapaxes(1, 2)[given].mean()),
        "orientation_error_partial": float(angle.swapaxes(1, 2)[given].mean()),
        "spread_partial": float(spread_partial),
        "spread_whole": float(spread_whole),
    }
