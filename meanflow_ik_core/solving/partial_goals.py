# SPDX-License-Identifier: Apache-2.0
"""What a sampler is told of a goal that leaves some axes of its targets open."""

import numpy as np
import torch
from torch import Tensor


def given_from_asked(asked: np.ndarray | None) -> np.ndarray | None:
    """Whether position and orientation of each tip say something, (T, 2); None: all do.

    A position with a free axis says too little to sample by, and so does an orientation with two.
    One free axis of rotation is no loss: see `turned_at_random`.

    Args:
        asked: (T, 6) bool along x y z rx ry rz of the target's frame; None: everything.
    """
    if asked is None:
        return None
    given = np.stack((asked[:, :3].all(1), asked[:, 3:].sum(1) >= 2), 1)
    return None if given.all() else given


def turned_at_random(
    T_base_tip: Tensor, count: int, asked: np.ndarray | None, generator: torch.Generator
) -> Tensor | None:
    """Targets (B, count, T, 4, 4) with every free axis of rotation at a random angle.

    Args:
        T_base_tip: (B, T, 4, 4).
        count: how many of each target.
        asked: as for `given_from_asked`.
        generator: the only source of randomness.

    Returns:
        None when no tip is free to turn about exactly one axis.
    """
    free = [] if asked is None else np.argwhere(~asked[:, 3:] & (asked[:, 3:].sum(1) == 2)[:, None])
    if len(free) == 0:
        return None
    turned = T_base_tip[:, None].repeat(1, count, 1, 1, 1)
    for tip, axis in free:
        angle = torch.rand(
            len(T_base_tip), count, generator=generator, device=generator.device,
            dtype=T_base_tip.dtype,
        ) * (2 * torch.pi)  # fmt: skip
        first, second = (axis + 1) % 3, (axis + 2) % 3
        x, y = turned[:, :, tip, :3, first].clone(), turned[:, :, tip, :3, second].clone()
        cosine, sine = angle.cos()[..., None], angle.sin()[..., None]
        turned[:, :, tip, :3, first] = cosine * x + sine * y
        turned[:, :, tip, :3, second] = cosine * y - sine * x
    return turned
