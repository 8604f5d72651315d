# SPDX-License-Identifier: Apache-2.0
"""The data of a training step, drawn anew each time."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..network.kinds import NETWORKS
from ..network.model import normalise_joints
from ..robot.robot import Robot
from .config import TrainConfig
from .configurations import draw_configurations
from .losses import gap_rows, sample_times


@dataclass(frozen=True)
class Batch:
    """Fresh samples for the terms on velocities."""

    x0: Tensor  # (B, J) normalised joints
    condition: Tensor  # (B, C) of their poses
    x1: Tensor  # (B, J) noise
    r: Tensor  # (B,)
    t: Tensor  # (B,)


@dataclass(frozen=True)
class Estimates:
    """Fresh poses and noise for the terms on one-step estimates."""

    x0: Tensor  # (P, J) normalised joints
    targets: Tensor  # (P, T, 4, 4) their poses
    condition: Tensor  # (P, C)
    given: Tensor  # (P, T, 2) bool, positions and orientations that the condition contains
    x1: Tensor  # (P, N, J) noise


def draw_batch(
    robot: Robot, config: TrainConfig, count: int, progress: float, generator: torch.Generator
) -> Batch:
    """Joints of `draw_configurations`, their poses, noise and times."""
    x0, _, condition, _ = _draw_poses(robot, config, count, progress, generator)
    r, t = draw_times(config, count, progress, generator)
    x1 = torch.randn(x0.shape, generator=generator, device=generator.device)
    return Batch(x0, condition, x1, r, t)


def draw_times(
    config: TrainConfig, count: int, progress: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """r and t (B,) of the terms on velocities at this share of the run."""
    if config.mode == "baseline" or config.reference_time == "zero":
        t = torch.rand(count, generator=generator, device=generator.device)
        return torch.zeros_like(t), t
    r, t = sample_times(count, config.flow_share, generator)
    if progress < config.gap_start:
        r = t.clone()
    elif progress >= config.one_step_start:
        rows = round(config.one_step_share * gap_rows(count, config.flow_share))
        r[:rows], t[:rows] = 0.0, 1.0
    return r, t


def draw_estimates(
    robot: Robot, config: TrainConfig, count: int, progress: float, generator: torch.Generator
) -> Estimates:
    """Joints of `draw_configurations`, their poses, and several noises for each."""
    x0, targets, condition, given = _draw_poses(robot, config, count, progress, generator)
    shape = (count, config.estimate_samples, x0.shape[-1])
    x1 = torch.randn(shape, generator=generator, device=generator.device)
    return Estimates(x0, targets, condition, given, x1)


def draw_given(
    robot: Robot, config: TrainConfig, count: int, generator: torch.Generator
) -> Tensor | None:
    """Which positions and orientations a goal keeps, at least those of one tip, or one of the two.

    Returns:
        bool (B, T, 2), columns position and orientation; None: goals are always complete.
    """
    if not config.drops:
        return None
    tips, device = robot.num_tips, generator.device
    chance = torch.rand(count, tips + 1, 3, generator=generator, device=device)
    # A tip is as likely to go as to stay, except the one of this pose that always stays.
    stays = chance[:, :-1, 0] < 0.5
    stays.scatter_(1, (chance[:, -1:, 1] * tips).long(), True)
    stays |= chance[:, -1:, 0] >= config.drop_tip
    orientation = chance[:, :-1, 1] >= config.drop_orientation
    position = ~orientation | (chance[:, :-1, 2] >= config.drop_position)
    return torch.stack((stays & position, stays & orientation), -1)


def _draw_poses(
    robot: Robot, config: TrainConfig, count: int, progress: float, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Normalised joints (B, J), their poses (B, T, 4, 4), conditions (B, C), and what those contain
    of positions and orientations (B, T, 2)."""
    lower, upper = robot.limits(torch.float32, generator.device)
    collision_free = config.collision_free and progress >= config.collision_free_start
    q = draw_configurations(robot, count, generator, collision_free, exact=False)
    targets = robot.forward(q)
    given = draw_given(robot, config, count, generator)
    condition = NETWORKS[config.network].condition(targets, robot.workspace_scale, given)
    if given is None:
        given = targets.new_ones(count, robot.num_tips, 2, dtype=torch.bool)
    return normalise_joints(q, lower, upper), targets, condition, given
