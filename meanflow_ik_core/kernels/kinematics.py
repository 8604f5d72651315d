# SPDX-License-Identifier: Apache-2.0
"""Forward kinematics and Jacobians that Python calls, of many configurations at once.

Arrays of the robot are those of `layout`, in float64, for all of its tips.
"""

import numpy as np

from .forward import forward, place_base, placed
from .jacobian import jacobian
from .jit import cached_jit, jit
from .layout import CARRIER, FRAME
from .simd import LANES, store


@jit
def _place_tile(work, q, first, nodes, node_numbers):
    """Write the frames of the nodes for configurations ``first`` and on; returns how many."""
    q_row = (nodes.shape[0] + 1) * FRAME
    lanes = min(LANES, q.shape[0] - first)
    for lane in range(lanes):
        for j in range(q.shape[1]):
            work[q_row + j, lane] = q[first + lane, j]
    forward(work, nodes, node_numbers, q_row)
    return lanes


@cached_jit
def frame_poses(q, nodes, node_numbers, carrier, placement):
    """Poses (N, F, 4, 4) in the base of frames that nodes carry.

    Args:
        q: (N, J) float64 rad or m.
        nodes, node_numbers: the robot's.
        carrier: (F,) int64, the node of each frame plus 1; 0 is the base.
        placement: (F, 12) float64, the frame in its carrier, (3, 4) by rows.
    """
    pose_row = (nodes.shape[0] + 1) * FRAME + q.shape[1]
    work = np.zeros((pose_row + 4, LANES))
    place_base(work)
    poses = np.zeros((q.shape[0], carrier.size, 4, 4))
    for first in range(0, q.shape[0], LANES):
        lanes = _place_tile(work, q, first, nodes, node_numbers)
        for f in range(carrier.size):
            for r in range(3):
                x, y, z, p = placed(work, carrier[f] * FRAME + r, placement, f)
                store(work, pose_row, x)
                store(work, pose_row + 1, y)
                store(work, pose_row + 2, z)
                store(work, pose_row + 3, p)
                for lane in range(lanes):
                    for c in range(4):
                        poses[first + lane, f, r, c] = work[pose_row + c, lane]
            for lane in range(lanes):
                poses[first + lane, f, 3, 3] = 1.0
    return poses


@cached_jit
def tip_jacobians(q, nodes, node_numbers, columns, tips, tip_numbers):
    """Jacobians (N, T, 6, J) of the tips, rows linear then angular, in the axes of the base.

    Args:
        q: (N, J) float64 rad or m.
        nodes, node_numbers, columns: the robot's.
        tips, tip_numbers: with six rows of errors for each tip, of weight 1, measured in the base.
    """
    num_tips, num_joints = tips.shape[0], q.shape[1]
    rows = 6 * num_tips
    tip_row = (nodes.shape[0] + 1) * FRAME + num_joints
    jacobian_row = tip_row + 3 * num_tips
    work = np.zeros((jacobian_row + rows * num_joints, LANES))
    place_base(work)
    found = np.empty((q.shape[0], num_tips, 6, num_joints))
    for first in range(0, q.shape[0], LANES):
        lanes = _place_tile(work, q, first, nodes, node_numbers)
        for t in range(num_tips):
            for r in range(3):
                p = placed(work, tips[t, CARRIER] * FRAME + r, tip_numbers, t)[3]
                store(work, tip_row + 3 * t + r, p)
        jacobian(
            work, nodes, columns, tips, node_numbers, tip_numbers, rows, tip_row, tip_row,
            jacobian_row,
        )  # fmt: skip
        for lane in range(lanes):
            for t in range(num_tips):
                for r in range(6):
                    for j in range(num_joints):
                        found[first + lane, t, r, j] = work[
                            jacobian_row + j * rows + 6 * t + r, lane
                        ]
    return found
