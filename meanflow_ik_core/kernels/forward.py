# SPDX-License-Identifier: Apache-2.0
"""Forward kinematics of a tile of samples."""

from .jit import jit
from .layout import ABOUT_X, FRAME, JOINT, MULTIPLIER, OFFSET, PARENT, PRISMATIC
from .simd import floor, load, select, store


@jit
def sine_cosine(angle):
    """Polynomials of fdlibm on [-pi/4, pi/4] after Cody-Waite reduction by pi/2."""
    quarters = floor(angle * 0.6366197723675814 + 0.5)
    # Parts of pi/2 short enough that their multiples are exact in float32 too.
    x = angle - quarters * 1.5703125
    x = x - quarters * 4.837512969970703125e-4
    x = x - quarters * 7.549789415861596e-08
    x = x - quarters * 5.390302529957765e-15
    z = x * x
    s = z * 1.58969099521155010221e-10 - 2.50507602534068634195e-08
    s = z * s + 2.75573137070700676789e-06
    s = z * s - 1.98412698298579493134e-04
    s = z * s + 8.33333333332248946124e-03
    s = z * s - 1.66666666666666324348e-01
    s = x * z * s + x
    c = z * -1.13596475577881948265e-11 + 2.08757232129817482790e-09
    c = z * c - 2.75573143513906633035e-07
    c = z * c + 2.48015872894767294178e-05
    c = z * c - 1.38888888888741095749e-03
    c = z * c + 4.16666666666666019037e-02
    c = z * z * c - z * 0.5 + 1.0
    halves = floor(quarters * 0.5)
    exchanged = quarters - halves * 2.0 > 0.5
    sign = 1.0 - (halves - floor(halves * 0.5) * 2.0) * 2.0
    return sign * select(exchanged, c, s), sign * select(exchanged, 0.0 - s, c)


@jit
def placed(work, row, numbers, k):
    """A coordinate of the axes and origin of frame @ placement (numbers[k, :12]).

    ``row`` is that of the coordinate of the frame's first axis.
    """
    x, y, z = load(work, row), load(work, row + 3), load(work, row + 6)
    return (
        x * numbers[k, 0] + y * numbers[k, 4] + z * numbers[k, 8],
        x * numbers[k, 1] + y * numbers[k, 5] + z * numbers[k, 9],
        x * numbers[k, 2] + y * numbers[k, 6] + z * numbers[k, 10],
        x * numbers[k, 3] + y * numbers[k, 7] + z * numbers[k, 11] + load(work, row + 9),
    )


@jit
def _placed_about_x(work, row, numbers, k):
    """As `placed` for a placement that turns about x only, as most do."""
    x, y, z = load(work, row), load(work, row + 3), load(work, row + 6)
    return (
        x,
        y * numbers[k, 5] + z * numbers[k, 9],
        y * numbers[k, 6] + z * numbers[k, 10],
        x * numbers[k, 3] + y * numbers[k, 7] + z * numbers[k, 11] + load(work, row + 9),
    )


@jit
def place_base(work):
    """Write the identity as frame 0, into a buffer of zeros."""
    for row in range(0, 9, 4):
        store(work, row, 1.0)


@jit
def forward(work, nodes, node_numbers, q_row):
    """Write the frames of all nodes: frame k + 1 is node k, frame 0 the base (`place_base`)."""
    for k in range(nodes.shape[0]):
        parent = nodes[k, PARENT] * FRAME
        own = (k + 1) * FRAME
        motion = load(work, q_row + nodes[k, JOINT]) * node_numbers[k, MULTIPLIER]
        motion = motion + node_numbers[k, OFFSET]
        if nodes[k, PRISMATIC] == 1:
            for r in range(3):
                x, y, z, p = placed(work, parent + r, node_numbers, k)
                store(work, own + r, x)
                store(work, own + r + 3, y)
                store(work, own + r + 6, z)
                store(work, own + r + 9, z * motion + p)
        else:
            sine, cosine = sine_cosine(motion)
            about_x = nodes[k, ABOUT_X] == 1
            for r in range(3):
                if about_x:
                    x, y, z, p = _placed_about_x(work, parent + r, node_numbers, k)
                else:
                    x, y, z, p = placed(work, parent + r, node_numbers, k)
                store(work, own + r, cosine * x + sine * y)
                store(work, own + r + 3, cosine * y - sine * x)
                store(work, own + r + 6, z)
                store(work, own + r + 9, p)
