# SPDX-License-Identifier: Apache-2.0
"""One damped least-squares step of a tile of samples.

A sample that slides is pulled towards reference joints within the null space of the errors: its
step is the shortest way to the reference among those that reduce the errors to zero, to first
order. A sequence of such steps ends at the nearest solution that is connected to where it began.
"""

from .jit import inline_jit, jit
from .layout import MOVED_ROWS, NUM_MOVED
from .normal_equations import normal_matrix, solve
from .simd import any_lane, floor, load, load3, select, store, store3

_SLIDE = 0.5  # rad or m, of the joint that moves most in a step of a sample that slides
_TURN = 6.283185307179586


@jit
def _square(work, row, count):
    total = load(work, row) * load(work, row)
    for i in range(row + 1, row + count):
        total += load(work, i) * load(work, i)
    return total


@inline_jit
def _column_product(work, moved, j, column, vector):
    """Product of column j of the Jacobian with a vector, over the rows that the joint moves."""
    row = moved[j, MOVED_ROWS]
    x0, x1, x2 = load3(work, column + row)
    y0, y1, y2 = load3(work, vector + row)
    total = x0 * y0 + x1 * y1 + x2 * y2
    for i in range(MOVED_ROWS + 1, MOVED_ROWS + moved[j, NUM_MOVED]):
        row = moved[j, i]
        x0, x1, x2 = load3(work, column + row)
        y0, y1, y2 = load3(work, vector + row)
        total += x0 * y0 + x1 * y1 + x2 * y2
    return total


@inline_jit
def _hold_blocked(work, arrays, rows, sliding):
    """Zero the columns of joints at a limit that the error pulls outward.

    What pulls a sample that slides is the error, by the solution before, and the reference.
    """
    bounds, moved, num_rows = arrays.bounds, arrays.moved, 3 * arrays.blocks.size
    for j in range(bounds.shape[0]):
        if moved[j, NUM_MOVED] == 0:
            continue
        q = load(work, rows.q + j)
        at_upper, at_lower = q >= bounds[j, 1], q <= bounds[j, 0]
        if any_lane(at_upper | at_lower):
            column = rows.jacobian + j * num_rows
            outward = _column_product(work, moved, j, column, rows.error)
            if sliding:
                pull = load(work, rows.pull + j)
                by_both = _column_product(work, moved, j, column, rows.solution) + pull
                outward = select(load(work, rows.slides) > 0.0, by_both, outward)
            blocked = (at_upper & (outward > 0.0)) | (at_lower & (outward < 0.0))
            for i in range(column, column + num_rows):
                store(work, i, select(blocked, 0.0, load(work, i)))
            if sliding:
                store(work, rows.pull + j, select(blocked, 0.0, load(work, rows.pull + j)))


@inline_jit
def _write_pull(work, arrays, rows):
    """Write how far samples that slide are from their references, the short way round."""
    slides = load(work, rows.slides)
    for j in range(arrays.bounds.shape[0]):
        pull = load(work, rows.reference + j) - load(work, rows.q + j)
        if arrays.continuous[j] == 1:
            pull = pull - floor(pull * (1.0 / _TURN) + 0.5) * _TURN
        store(work, rows.pull + j, pull * slides)


@inline_jit
def _reduce_errors(work, arrays, rows):
    """Subtract from the errors what the pull does to them."""
    moved, num_rows = arrays.moved, 3 * arrays.blocks.size
    for j in range(moved.shape[0]):
        pull = load(work, rows.pull + j)
        for i in range(MOVED_ROWS, MOVED_ROWS + moved[j, NUM_MOVED]):
            x0, x1, x2 = load3(work, rows.jacobian + j * num_rows + moved[j, i])
            e0, e1, e2 = load3(work, rows.error + moved[j, i])
            store3(
                work, rows.error + moved[j, i], e0 - x0 * pull, e1 - x1 * pull, e2 - x2 * pull
            )  # fmt: skip


@inline_jit
def damping_of_error(work, arrays, rows):
    """The damping that belongs to the errors of a tile of samples."""
    energy = _square(work, rows.error, 3 * arrays.blocks.size)
    return energy * arrays.damping[0] + arrays.damping[1]


@inline_jit
def step(work, arrays, rows, damping, sliding):
    """q += J^T (J J^T + damping)^-1 e over the joints that are free, cut to the limits.

    Where samples may slide (``sliding``), e is less what the pull does, and the pull is added.
    """
    bounds, moved, num_rows = arrays.bounds, arrays.moved, 3 * arrays.blocks.size
    num_joints = bounds.shape[0]
    if sliding:
        _write_pull(work, arrays, rows)
    _hold_blocked(work, arrays, rows, sliding)
    if sliding:
        _reduce_errors(work, arrays, rows)
    normal_matrix(
        work, num_rows, arrays.blocks, arrays.pairs, rows.jacobian, rows.matrix, damping
    )  # fmt: skip
    solve(
        work, num_rows, arrays.blocks, arrays.pairs, rows.matrix, rows.error, rows.solution, damping
    )  # fmt: skip
    most = damping * 0.0 + arrays.damping[2]
    if sliding:
        most = select(load(work, rows.slides) > 0.0, _SLIDE, most)
    longest = most
    for j in range(num_joints):
        d = _column_product(work, moved, j, rows.jacobian + j * num_rows, rows.solution)
        if sliding:
            d = d + load(work, rows.pull + j)
        store(work, rows.matrix + j, d)
        d = select(d > 0.0, d, 0.0 - d)
        longest = select(d > longest, d, longest)
    scale = most / longest
    motion = damping * 0.0
    for j in range(num_joints):
        before = load(work, rows.q + j)
        q = before + load(work, rows.matrix + j) * scale
        q = select(q > bounds[j, 1], bounds[j, 1], q)
        q = select(q < bounds[j, 0], bounds[j, 0], q)
        store(work, rows.q + j, q)
        if sliding:
            d = q - before
            d = select(d > 0.0, d, 0.0 - d)
            motion = select(d > motion, d, motion)
    if sliding:
        store(work, rows.motion, motion)
