# SPDX-License-Identifier: Apache-2.0
"""Poses to solve, drawn independently of the starts that solve them."""

from __future__ import annotations

import numpy as np
import torch

from ..collision.self_collision import SelfCollision
from ..robot.robot import Robot

_STREAM = 0x7A49  # any number: with it, a seed of targets is no seed of starts


def target_generator(seed: int) -> torch.Generator:
    """Generator of targets that shares no numbers with starts of the seeds ``seed``, seed + 1, ...

    The seed is mixed, not shifted: torch takes the lower 32 bits of a seed, for which a large
    offset may be none.
    """
    mixed = np.random.SeedSequence((seed, _STREAM)).generate_state(1)
    return torch.Generator().manual_seed(int(mixed[0]))


def reachable_targets(
    robot: Robot, count: int, seed: int, check: SelfCollision | None = None
) -> np.ndarray:
    """(count, T, 4, 4) poses of `reachable_configurations`."""
    return robot.forward(reachable_configurations(robot, count, seed, check))


def reachable_configurations(
    robot: Robot, count: int, seed: int, check: SelfCollision | None = None
) -> np.ndarray:
    """(count, J) random ones; where there is a check, those alone that are free of
    self-collision."""
    generator = target_generator(seed)
    free = np.zeros((0, robot.num_joints))
    while len(free) < count:
        q = robot.random_configurations(count, generator).numpy()
        free = np.concatenate((free, q if check is None else q[~check.in_collision(q)]))
    return free[:count]
