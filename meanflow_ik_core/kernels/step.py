# SPDX-License-Identifier: Apache-2.0
"""One damped least-squares step of a tile of samples."""

from .jit import inline_jit, jit
from .layout import MOVED_ROWS, NUM_MOVED
from .normal_equations import normal_matrix, solve
from .simd import any_lane, load, load3, select, store


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
def _hold_blocked(work, moved, bounds, rows, q_row, e_row, jacobian_row):
    """Zero the columns of joints at a limit that the error pulls outward."""
    for j in range(bounds.shape[0]):
        if moved[j, NUM_MOVED] == 0:
            continue
        q = load(work, q_row + j)
        at_upper, at_lower = q >= bounds[j, 1], q <= bounds[j, 0]
        if any_lane(at_upper | at_lower):
            column = jacobian_row + j * rows
            pull = _column_product(work, moved, j, column, e_row)
            blocked = (at_upper & (pull > 0.0)) | (at_lower & (pull < 0.0))
            for i in range(column, column + rows):
                store(work, i, select(blocked, 0.0, load(work, i)))


@inline_jit
def step(
    work, moved, blocks, pairs, bounds, rows, q_row, e_row, y_row, jacobian_row, matrix_row,
    damping_factor, damping_floor, max_step,
):  # fmt: skip
    """q += J^T (J J^T + damping)^-1 e over the joints that are free, cut to the limits."""
    num_joints = bounds.shape[0]
    energy = _square(work, e_row, rows)
    damping = energy * damping_factor + damping_floor
    _hold_blocked(work, moved, bounds, rows, q_row, e_row, jacobian_row)
    normal_matrix(work, rows, blocks, pairs, jacobian_row, matrix_row, damping)
    solve(work, rows, blocks, pairs, matrix_row, e_row, y_row, damping)
    longest = energy * 0.0 + max_step
    for j in range(num_joints):
        d = _column_product(work, moved, j, jacobian_row + j * rows, y_row)
        store(work, matrix_row + j, d)
        d = select(d > 0.0, d, 0.0 - d)
        longest = select(d > longest, d, longest)
    scale = max_step / longest
    for j in range(num_joints):
        q = load(work, q_row + j) + load(work, matrix_row + j) * scale
        q = select(q > bounds[j, 1], bounds[j, 1], q)
        store(work, q_row + j, select(q < bounds[j, 0], bounds[j, 0], q))
