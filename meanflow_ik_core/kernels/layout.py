# SPDX-License-Identifier: Apache-2.0
"""Where each quantity of a tile stands in its work buffer."""

from .jit import jit

# Rows of a frame: x axis, y axis, z axis, origin.
FRAME = 12
# How a 3-vector of errors is measured: in the base as it is; along the target's axes, each with
# its weight; as the angle between two axes, one being free to turn about; or as the part of the
# turn about one axis, the other two being free.
PLAIN, WEIGHTED, SWING, TWIST = 0, 1, 2, 3


@jit
def block(a, b):
    return (a * (a + 1) // 2 + b) * 9


@jit
def work_rows(num_nodes, num_joints, num_tips, blocks):
    """First rows of the quantities of a tile, and the number of all rows.

    They are q, targets, tip positions, e, y, ratio, maps (with a rotation), J and matrix, for
    ``blocks`` 3-vectors of errors.
    """
    q = (num_nodes + 1) * FRAME
    target = q + num_joints
    tip = target + num_tips * FRAME
    e = tip + 3 * num_tips
    y = e + 3 * blocks
    ratio = y + 3 * blocks
    maps = ratio + 1
    jacobian = maps + 18 * num_tips + 9
    matrix = jacobian + 3 * blocks * num_joints
    end = matrix + block(blocks, 0) + num_joints
    return q, target, tip, e, y, ratio, maps, jacobian, matrix, end
