# SPDX-License-Identifier: Apache-2.0
"""Joint motions without the part that moves a tip, of many configurations."""

import numpy as np

from .forward import place_base
from .jit import cached_jit, jit
from .layout import FRAME
from .simd import LANES
from .spheres import place_nodes

_RANK = 1e-4  # of a row's length, that is left of one which the others do not contain


@jit
def _write_rows(frames, lane, parent, prismatic, joint, multiplier, node, placement, rotation, out):
    """Write the Jacobian of a tip to out (6, J), in the axes of a rotation (3, 3)."""
    out[:] = 0.0
    row = (node + 1) * FRAME
    tip = np.empty(3)
    for r in range(3):
        tip[r] = frames[(row + 9 + r) * LANES + lane]
        for s in range(3):
            tip[r] += frames[(row + 3 * s + r) * LANES + lane] * placement[s, 3]
    axis, linear = np.empty(3), np.empty(3)
    k = node
    while k >= 0:
        row = (k + 1) * FRAME
        for r in range(3):
            axis[r] = frames[(row + 6 + r) * LANES + lane]
        for r in range(3):
            s, t = (r + 1) % 3, (r + 2) % 3
            arm_s = tip[s] - frames[(row + 9 + s) * LANES + lane]
            arm_t = tip[t] - frames[(row + 9 + t) * LANES + lane]
            linear[r] = axis[r] if prismatic[k] else axis[s] * arm_t - axis[t] * arm_s
        for r in range(3):
            for s in range(3):
                out[r, joint[k]] += multiplier[k] * rotation[s, r] * linear[s]
                if not prismatic[k]:
                    out[3 + r, joint[k]] += multiplier[k] * rotation[s, r] * axis[s]
        k = parent[k]


@cached_jit
def project_on_null_space(
    directions, motion, parent, prismatic, placement, joint, multiplier, tip_node, tip_placement,
    asked, rotation,
):  # fmt: skip
    """Take from directions (N, J), in place, what moves a tip along an axis that is asked for.

    Args:
        directions: of one configuration each, rad or m.
        motion: (3 * K * M,) float64, see `obstacles.obstacle_distances`; M is N or more.
        parent, prismatic, placement, joint, multiplier, tip_node, tip_placement: see `Robot`.
        asked: (T, 6) bool, axes x y z rx ry rz of the targets.
        rotation: (T, 3, 3) of the targets.
    """
    count, num_joints = directions.shape
    frames = np.zeros((len(parent) + 1) * FRAME * LANES)
    place_base(frames)
    of_tip, rows = np.empty((6, num_joints)), np.empty((6 * len(tip_node), num_joints))
    for first in range(0, count, LANES):
        place_nodes(frames, motion, first // LANES, parent, prismatic, placement)
        for n in range(first, min(first + LANES, count)):
            found = 0
            for t in range(len(tip_node)):
                _write_rows(
                    frames, n - first, parent, prismatic, joint, multiplier, tip_node[t],
                    tip_placement[t], rotation[t], of_tip,
                )  # fmt: skip
                for axis in range(6):
                    if not asked[t, axis]:
                        continue
                    row = rows[found]
                    row[:] = of_tip[axis]
                    whole = np.sqrt((row * row).sum())
                    for _ in range(2):  # once more, for what rounding left
                        for other in range(found):
                            row -= (rows[other] * row).sum() * rows[other]
                    left = np.sqrt((row * row).sum())
                    if left > _RANK * whole:
                        row /= left
                        found += 1
            for _ in range(2):
                for other in range(found):
                    directions[n] -= (rows[other] * directions[n]).sum() * rows[other]
