# SPDX-License-Identifier: Apache-2.0
"""The weighted Jacobian of a tile of samples."""

from .jit import inline_jit, jit
from .layout import (
    FRAME,
    FURTHER_NODE,
    JOINT,
    MAP,
    MAPS,
    MULTIPLIER,
    ORIENTATION_MEASURE,
    ORIENTATION_ROW,
    ORIENTATION_WEIGHT,
    PLAIN,
    POSITION_MEASURE,
    POSITION_ROW,
    POSITION_WEIGHT,
    PRISMATIC,
    UNMOVED,
)  # fmt: skip
from .simd import load3, store3


@jit
def _mapped(work, m, v0, v1, v2):
    a0, a1, a2 = load3(work, m)
    b0, b1, b2 = load3(work, m + 3)
    c0, c1, c2 = load3(work, m + 6)
    return (
        a0 * v0 + a1 * v1 + a2 * v2, b0 * v0 + b1 * v1 + b2 * v2, c0 * v0 + c1 * v1 + c2 * v2
    )  # fmt: skip


@jit
def _add3(work, row, further, v0, v1, v2):
    if further:
        a0, a1, a2 = load3(work, row)
        v0, v1, v2 = v0 + a0, v1 + a1, v2 + a2
    store3(work, row, v0, v1, v2)


@inline_jit
def jacobian(
    work, nodes, columns, tips, node_numbers, tip_numbers, rows, tip_row, map_row, jacobian_row
):
    """Write the weighted Jacobian, column by column; rows linear then angular, tip by tip."""
    for t in range(tips.shape[0]):
        p0, p1, p2 = load3(work, tip_row + 3 * t)
        linear_row, angular_row = tips[t, POSITION_ROW], tips[t, ORIENTATION_ROW]
        linear_plain = tips[t, POSITION_MEASURE] == PLAIN
        angular_plain = tips[t, ORIENTATION_MEASURE] == PLAIN
        linear_weight = tip_numbers[t, POSITION_WEIGHT]
        angular_weight = tip_numbers[t, ORIENTATION_WEIGHT]
        maps = map_row + t * MAPS
        for k in range(nodes.shape[0]):
            if columns[t, k] == UNMOVED:
                continue
            further = columns[t, k] == FURTHER_NODE
            prismatic = nodes[k, PRISMATIC] == 1
            frame = (k + 1) * FRAME
            column = jacobian_row + nodes[k, JOINT] * rows
            z0, z1, z2 = load3(work, frame + 6)
            factor = node_numbers[k, MULTIPLIER]
            if linear_row >= 0:
                weight = linear_weight * factor
                if prismatic:
                    l0, l1, l2 = z0 * weight, z1 * weight, z2 * weight
                else:
                    o0, o1, o2 = load3(work, frame + 9)
                    d0, d1, d2 = p0 - o0, p1 - o1, p2 - o2
                    l0 = (z1 * d2 - z2 * d1) * weight
                    l1 = (z2 * d0 - z0 * d2) * weight
                    l2 = (z0 * d1 - z1 * d0) * weight
                if not linear_plain:
                    l0, l1, l2 = _mapped(work, maps, l0, l1, l2)
                _add3(work, column + linear_row, further, l0, l1, l2)
            if angular_row >= 0:
                weight = angular_weight * factor
                if prismatic:
                    weight = weight * 0.0
                r0, r1, r2 = z0 * weight, z1 * weight, z2 * weight
                if not angular_plain:
                    r0, r1, r2 = _mapped(work, maps + MAP, r0, r1, r2)
                _add3(work, column + angular_row, further, r0, r1, r2)
