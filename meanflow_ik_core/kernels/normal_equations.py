# SPDX-License-Identifier: Apache-2.0
"""The matrix J J^T + damping of a tile of samples, and its solution."""

from .jit import inline_jit, jit
from .layout import COUPLED, NUM_RUNS, RUNS, block
from .simd import load, load3, select, store, store3


@inline_jit
def normal_matrix(work, rows, blocks, pairs, jacobian_row, matrix_row, damping):
    """Write the lower 3 x 3 blocks of J J^T + damping, over the joints that move both tips."""
    num_tips = blocks[-1] + 1
    zero = damping * 0.0
    for a in range(rows // 3):
        first = jacobian_row + 3 * a
        pair = blocks[a] * num_tips + blocks[a]
        u = first + pairs[pair, RUNS] * rows
        x0, x1, x2 = load3(work, u)
        m00, m10, m11 = x0 * x0 + damping, x1 * x0, x1 * x1 + damping
        m20, m21, m22 = x2 * x0, x2 * x1, x2 * x2 + damping
        skip = 1
        for run in range(RUNS, RUNS + 2 * pairs[pair, NUM_RUNS], 2):
            u = first + (pairs[pair, run] + skip) * rows
            for _ in range(skip, pairs[pair, run + 1]):
                x0, x1, x2 = load3(work, u)
                m00 += x0 * x0
                m10 += x1 * x0
                m11 += x1 * x1
                m20 += x2 * x0
                m21 += x2 * x1
                m22 += x2 * x2
                u += rows
            skip = 0
        m = matrix_row + block(a, a)
        store3(work, m, m00, m10, m20)
        store3(work, m + 3, m10, m11, m21)
        store3(work, m + 6, m20, m21, m22)
        for b in range(a):
            pair = blocks[a] * num_tips + blocks[b]
            if pairs[pair, COUPLED] == 0:
                continue
            m00, m01, m02, m10, m11, m12, m20, m21, m22 = (
                zero, zero, zero, zero, zero, zero, zero, zero, zero
            )  # fmt: skip
            for run in range(RUNS, RUNS + 2 * pairs[pair, NUM_RUNS], 2):
                u = first + pairs[pair, run] * rows
                v = u + 3 * (b - a)
                for _ in range(pairs[pair, run + 1]):
                    x0, x1, x2 = load3(work, u)
                    y0, y1, y2 = load3(work, v)
                    m00 += x0 * y0
                    m01 += x0 * y1
                    m02 += x0 * y2
                    m10 += x1 * y0
                    m11 += x1 * y1
                    m12 += x1 * y2
                    m20 += x2 * y0
                    m21 += x2 * y1
                    m22 += x2 * y2
                    u += rows
                    v += rows
            m = matrix_row + block(a, b)
            store3(work, m, m00, m01, m02)
            store3(work, m + 3, m10, m11, m12)
            store3(work, m + 6, m20, m21, m22)


@jit
def _eliminate(work, m, y, damping):
    """Factorise a diagonal block in place, and solve with it.

    The block then holds its unit lower triangle and, on the diagonal, 1 / D.
    """
    a00, _, _ = load3(work, m)
    a10, a11, _ = load3(work, m + 3)
    a20, a21, a22 = load3(work, m + 6)
    # No pivot is smaller than the damping but for rounding.
    i0 = 1.0 / select(a00 > damping, a00, damping)
    l10, l20 = a10 * i0, a20 * i0
    a11 -= a10 * l10
    i1 = 1.0 / select(a11 > damping, a11, damping)
    a21 -= a20 * l10
    l21 = a21 * i1
    a22 -= a20 * l20 + a21 * l21
    i2 = 1.0 / select(a22 > damping, a22, damping)
    store3(work, m, i0, l10, l20)
    store3(work, m + 3, l10, i1, l21)
    store3(work, m + 6, l20, l21, i2)
    s0, s1, s2 = load3(work, y)
    s1 -= l10 * s0
    s2 -= l20 * s0 + l21 * s1
    store3(work, y, s0 * i0, s1 * i1, s2 * i2)


@inline_jit
def solve(work, rows, blocks, pairs, matrix_row, e_row, y_row, damping):
    """Write y of (J J^T + damping) y = e, by L D L^T in 3 x 3 blocks; overwrites the matrix.

    Below the diagonal, block (a, b) then holds W = L_ab D_b. Blocks that stay zero are left out.
    """
    num_blocks, num_tips = rows // 3, blocks[-1] + 1
    for i in range(rows):
        store(work, y_row + i, load(work, e_row + i))
    for b in range(num_blocks):
        own = blocks[b]
        n = matrix_row + block(b, b)
        _eliminate(work, n, y_row + 3 * b, damping)
        i0, l10, l20 = load3(work, n)
        _, i1, l21 = load3(work, n + 3)
        i2 = load(work, n + 8)
        s0, s1, s2 = load3(work, y_row + 3 * b)
        for a in range(b + 1, num_blocks):
            if pairs[blocks[a] * num_tips + own, COUPLED] == 0:
                continue
            m = matrix_row + block(a, b)
            y = y_row + 3 * a
            for r in range(3):
                w0, w1, w2 = load3(work, m + 3 * r)
                w1 -= w0 * l10
                w2 -= w0 * l20 + w1 * l21
                store3(work, m + 3 * r, w0, w1, w2)
                store(work, y + r, load(work, y + r) - w0 * s0 - w1 * s1 - w2 * s2)
            for c in range(b + 1, a + 1):
                if pairs[blocks[c] * num_tips + own, COUPLED] == 0:
                    continue
                for r in range(3):
                    v0, v1, v2 = load3(work, matrix_row + block(c, b) + 3 * r)
                    v0, v1, v2 = v0 * i0, v1 * i1, v2 * i2
                    for i in range(3):
                        w0, w1, w2 = load3(work, m + 3 * i)
                        entry = matrix_row + block(a, c) + 3 * i + r
                        store(work, entry, load(work, entry) - w0 * v0 - w1 * v1 - w2 * v2)
    for b in range(num_blocks - 1, -1, -1):
        own = blocks[b]
        n = matrix_row + block(b, b)
        i0, l10, l20 = load3(work, n)
        _, i1, l21 = load3(work, n + 3)
        i2 = load(work, n + 8)
        s0, s1, s2 = load3(work, y_row + 3 * b)
        for a in range(b + 1, num_blocks):
            if pairs[blocks[a] * num_tips + own, COUPLED] == 0:
                continue
            m = matrix_row + block(a, b)
            for r in range(3):
                w0, w1, w2 = load3(work, m + 3 * r)
                x = load(work, y_row + 3 * a + r)
                s0 -= w0 * i0 * x
                s1 -= w1 * i1 * x
                s2 -= w2 * i2 * x
        s1 -= l21 * s2
        s0 -= l10 * s1 + l20 * s2
        store3(work, y_row + 3 * b, s0, s1, s2)
