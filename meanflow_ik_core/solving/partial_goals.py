# SPDX-License-Identifier: Apache-2.0
"""What a sampler is told of a goal that leaves some axes of its targets open."""

import numpy as np

from ..kernels.counter_stream import fill_uniform, keys_of_poses

_TURNS = np.uint64(0x7475726E73)  # tells the random numbers of turns from those of samples


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
    T_base_tip: np.ndarray, asked: np.ndarray | None, first: int, count: int, seed: np.uint64
) -> np.ndarray | None:
    """Targets (B, count, T, 4, 4) with every free axis of rotation at a random angle.

    The angles are functions of the seed, a target and a number alone.

    Args:
        T_base_tip: (B, T, 4, 4).
        asked: as for `given_from_asked`.
        first: number of the first one.
        count: how many of each target.
        seed: of the random numbers.

    Returns:
        None when no tip is free to turn about exactly one axis.
    """
    free = [] if asked is None else np.argwhere(~asked[:, 3:] & (asked[:, 3:].sum(1) == 2)[:, None])
    if len(free) == 0:
        return None
    turned = np.repeat(T_base_tip[:, None], count, 1)
    angles = np.empty((len(T_base_tip), count, len(free)))
    whole_turn = np.tile((0.0, 2 * np.pi), (len(free), 1))
    fill_uniform(keys_of_poses(T_base_tip, seed ^ _TURNS), first, whole_turn, angles)
    for (tip, axis), angle in zip(free, angles.transpose(2, 0, 1), strict=True):
        rotation = turned[:, :, tip, :3, :3]
        x, y = (rotation[..., (axis + i) % 3].copy() for i in (1, 2))
        cosine, sine = np.cos(angle)[..., None], np.sin(angle)[..., None]
        rotation[..., (axis + 1) % 3] = cosine * x + sine * y
        rotation[..., (axis + 2) % 3] = cosine * y - sine * x
    return turned
