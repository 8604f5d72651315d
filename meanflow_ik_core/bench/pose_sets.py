# SPDX-License-Identifier: Apache-2.0
"""Poses of one arm, easy and hard ones, and some that have no solution."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..robot.robot import Robot
from .near_limits import near_limit_poses
from .targets import reachable_configurations
from .unreachable import impossible_orientations, poses_beyond_reach

_DRAWS = 500  # of which the one nearest to the edge of the reach is taken
_STEPS = 20  # towards a singularity
_DIFFERENCE = 1e-6  # rad, of the gradient

_Poses = Callable[[Robot, int, int], np.ndarray]  # robot, count, seed -> (count, T, 4, 4)

# Solvable, but not from everywhere.
HARD: dict[str, _Poses] = {
    "near limits": lambda robot, count, seed: near_limit_poses(robot, count, seed)[0][:, None],
    "singular": lambda robot, count, seed: robot.forward(
        singular_configurations(robot, count, seed)
    ),
    "edge of reach": lambda robot, count, seed: edge_of_reach(robot, count, seed),
}
UNSOLVABLE: dict[str, _Poses] = {
    "beyond reach": lambda robot, count, seed: poses_beyond_reach(robot, count, seed)[:, None],
    "impossible turn": lambda robot, count, seed: impossible_orientations(robot, count, seed)[
        :, None
    ],
}
NEED_CLOSED_FORM = ("near limits", "impossible turn")


def singular_configurations(robot: Robot, count: int, seed: int) -> np.ndarray:
    """(count, J) within the limits whose Jacobian has lost a rank, but for 1e-4.

    Random ones go down the gradient of the least singular value; those that end at a limit before
    are drawn again.
    """
    found = np.empty((0, robot.num_joints))
    while len(found) < count:
        q = reachable_configurations(robot, count, seed)
        for _ in range(_STEPS):
            value, gradient = _least_singular_value(robot, q)
            squared = np.maximum(np.square(gradient).sum(-1), 1e-12)
            q = robot.clipped(q - (value / squared)[:, None] * gradient)
        value, _ = _least_singular_value(robot, q)
        found = np.concatenate((found, q[value < 1e-4]))
        seed += 1
    return found[:count]


def _least_singular_value(robot: Robot, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the Jacobian at q (N, J): (N,), and its gradient (N, J)."""

    def least(q: np.ndarray) -> np.ndarray:
        jacobian = robot.jacobian(q).reshape(len(q), -1, robot.num_joints)
        return np.linalg.svd(jacobian, compute_uv=False)[:, -1]

    value = least(q)
    shifts = _DIFFERENCE * np.eye(robot.num_joints)
    shifted = np.stack([least(q + shift) for shift in shifts], -1)
    return value, (shifted - value[:, None]) / _DIFFERENCE


def edge_of_reach(robot: Robot, count: int, seed: int) -> np.ndarray:
    """(count, T, 4, 4): of 500 random configurations each, the pose that is farthest out."""
    q = reachable_configurations(robot, _DRAWS * count, seed)
    poses = robot.forward(q).reshape(count, _DRAWS, robot.num_tips, 4, 4)
    out = np.linalg.norm(poses[:, :, 0, :3, 3] - robot.placement[0, :3, 3], axis=-1)
    return poses[np.arange(count), out.argmax(1)]
