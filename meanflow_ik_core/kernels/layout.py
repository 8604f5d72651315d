# SPDX-License-Identifier: Apache-2.0
"""Which number stands where: in the arrays that describe a robot, and in the work buffer of a tile.

A robot has K nodes and J joints, and G of its tips have something asked of them. The error of a tip
is a 3-vector of its position and one of its orientation; one that is all free is left out. The E
vectors that remain are the 3 E rows of the Jacobian. Floats are of the type of the arithmetic.

- ``nodes`` (K, 4) int64 and ``node_numbers`` (K, 14);
- ``columns`` (G, K) int64: what a node does to a tip;
- ``tips`` (G, 6) int64 and ``tip_numbers`` (G, 30);
- ``blocks`` (E,) int64: the tip of each error vector;
- ``moved`` (J, 1 + E) int64: which error vectors a joint moves;
- ``pairs`` (G * G, 4 + J) int64, in row a * G + b what tips a and b have in common;
- ``bounds`` (J, 2): lower and upper limits of the joints, rad or m; far off where there are none;
- ``limits`` (J, 2): between which starts are drawn and solutions lie, and ``continuous`` (J,);
- ``active`` (G,): which of the T tips;
- ``tip_parts`` (G,) and ``joint_parts`` (J,): which of P parts that share no joint, or -1;
- ``tolerances`` (G, 2): m and rad, of a solution;
- ``damping`` (3,): factor, floor and largest step, see `step_settings`.

Each array that Python hands over costs a sixth of a microsecond. So all of them travel in two, one
of integers and one of floats; `unpack` returns views.
"""

from typing import Any, NamedTuple

import numpy as np
from numba.extending import register_jitable

from .jit import jit

# Rows of a frame in the work buffer: x axis, y axis, z axis, origin.
FRAME = 12
# Rows of the two 3 x 3 maps of a tip, which bring velocities to where its errors are measured:
# that of the position, then, from MAP on, that of the orientation.
MAPS, MAP = 18, 9

# Columns of `nodes`: the parent's frame (0 is the base), the joint, and whether the node is
# prismatic and whether its placement turns about x only, as most do.
PARENT, JOINT, PRISMATIC, ABOUT_X = 0, 1, 2, 3
# Columns of `node_numbers`, after the placement (3, 4) by rows.
MULTIPLIER, OFFSET = 12, 13
# Entries of `columns`: a further node is another one of the same joint, as mimic joints have.
UNMOVED, FIRST_NODE, FURTHER_NODE = 0, 1, 2

# Columns of `tips`: the frame that carries the tip, the first rows of its errors or -1, how these
# are measured, and the axis of SWING and TWIST.
CARRIER, POSITION_ROW, ORIENTATION_ROW, POSITION_MEASURE, ORIENTATION_MEASURE, AXIS = range(6)
# How a 3-vector of errors is measured: in the base as it is; along the target's axes, each with
# its weight; as the angle between two axes, one being free to turn about; or as the part of the
# turn about one axis, the other two being free.
PLAIN, WEIGHTED, SWING, TWIST = 0, 1, 2, 3
# Columns of `tip_numbers`, after the placement (3, 4) by rows. The precision is that of the
# tolerance: its inverse square. Six weights follow, of the axes of the target, and six numbers
# that are 1 where such an axis counts and 0 where it is free; those of the orientation begin
# ORIENTATION columns later than those of the position. The slack is how much of an error is no
# error, m and 2 sin(angle / 2).
POSITION_WEIGHT, ORIENTATION_WEIGHT, POSITION_PRECISION, ORIENTATION_PRECISION = 12, 13, 14, 15
AXIS_WEIGHTS, AXIS_COUNTS = 16, 22
POSITION_SLACK, ORIENTATION_SLACK = 28, 29
POSITION, ORIENTATION = 0, 3

# Columns of `moved`: how many error vectors, and from the second on the first row of each. The
# column of a joint that moves none is zero.
NUM_MOVED, MOVED_ROWS = 0, 1
# Columns of `pairs`: whether the tips' block of the normal equations is ever anything but zero,
# in how many runs the joints lie that move both, and from the third on first and length of each.
COUPLED, NUM_RUNS, RUNS = 0, 1, 2


class RobotArrays(NamedTuple):
    """The arrays of a robot, as they are described above."""

    nodes: Any
    columns: Any
    tips: Any
    moved: Any
    blocks: Any
    pairs: Any
    continuous: Any
    active: Any
    tip_parts: Any
    joint_parts: Any
    node_numbers: Any
    tip_numbers: Any
    bounds: Any
    limits: Any
    tolerances: Any
    damping: Any


def pack(arrays: RobotArrays, dtype: type) -> tuple[np.ndarray, np.ndarray]:
    """The integers and the floats of a robot in one array each, for `unpack`."""
    sizes = len(arrays.nodes), len(arrays.joint_parts), len(arrays.tips), len(arrays.blocks)
    first = RobotArrays._fields.index("node_numbers")
    integers = np.concatenate([sizes, *(np.ravel(array) for array in arrays[:first])])
    floats = np.concatenate([np.ravel(array) for array in arrays[first:]])
    return integers.astype(np.int64), floats.astype(dtype)


@jit
def unpack(integers, floats):
    """The `RobotArrays` in two packed arrays."""
    k, j, g, e = integers[0], integers[1], integers[2], integers[3]
    a = 4
    b = a + 4 * k
    c = b + g * k
    d = c + 6 * g
    f = d + j * (1 + e)
    h = f + e
    i = h + g * g * (4 + j)
    m = 14 * k
    n = m + 30 * g
    o = n + 2 * j
    p = o + 2 * j
    return RobotArrays(
        integers[a:b].reshape((k, 4)),
        integers[b:c].reshape((g, k)),
        integers[c:d].reshape((g, 6)),
        integers[d:f].reshape((j, 1 + e)),
        integers[f:h],
        integers[h:i].reshape((g * g, 4 + j)),
        integers[i : i + j],
        integers[i + j : i + j + g],
        integers[i + j + g : i + j + 2 * g],
        integers[i + j + 2 * g :],
        floats[:m].reshape((k, 14)),
        floats[m:n].reshape((g, 30)),
        floats[n:o].reshape((j, 2)),
        floats[o:p].reshape((j, 2)),
        floats[p : p + 2 * g].reshape((g, 2)),
        floats[p + 2 * g :],
    )


class Rows(NamedTuple):
    """The first row of each quantity in the work buffer of a tile; frames begin at row 0."""

    q: int
    target: int  # frames
    tip: int  # positions
    error: int
    solution: int  # of the normal equations
    ratio: int  # of the errors to their tolerances, squared and added up
    maps: int
    turn: int  # (3, 3) rotation of a tip relative to its target
    jacobian: int  # by columns
    matrix: int  # of the normal equations, see `block`; then J rows for the step
    reference: int  # joints that a sample slides towards
    pull: int  # how far these are, for a sample that slides
    slides: int  # 1 for a sample that slides, else 0
    motion: int  # of the last step, the joint that moved most
    end: int


@register_jitable
def work_rows(num_nodes, num_joints, num_tips, num_errors):
    """The `Rows` of a tile for ``num_errors`` error vectors, for Python and for the kernels."""
    q = (num_nodes + 1) * FRAME
    target = q + num_joints
    tip = target + num_tips * FRAME
    error = tip + 3 * num_tips
    solution = error + 3 * num_errors
    ratio = solution + 3 * num_errors
    maps = ratio + 1
    turn = maps + num_tips * MAPS
    jacobian = turn + 9
    matrix = jacobian + 3 * num_errors * num_joints
    reference = matrix + block(num_errors, 0) + num_joints
    pull = reference + num_joints
    slides = pull + num_joints
    return Rows(
        q, target, tip, error, solution, ratio, maps, turn, jacobian, matrix, reference, pull,
        slides, slides + 1, slides + 2,
    )  # fmt: skip


@register_jitable
def block(a, b):
    """First row of block (a, b) of a lower triangle of 3 x 3 blocks, counted from the first."""
    return (a * (a + 1) // 2 + b) * 9
