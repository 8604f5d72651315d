# SPDX-License-Identifier: Apache-2.0
"""The compiled kernels: one damped least-squares step, and exact errors, for a tile of samples.

A tile is the samples that fill the lanes of one vector. All that is known about it lies in one
work buffer, a row per quantity and a column per sample (`simd.load` and `simd.store` move rows).
The robot comes in arrays, so the kernels are compiled once for all robots.
"""

import numpy as np

from .jit import cached_jit, inline_jit, jit
from .simd import any_lane, floor, load, select, square_root, store

# Rows of a frame: x axis, y axis, z axis, origin.
FRAME = 12
# How a 3-vector of errors is measured: in the base as it is; along the target's axes, each with
# its weight; as the angle between two axes, one being free to turn about; or as the part of the
# turn about one axis, the other two being free.
PLAIN, WEIGHTED, SWING, TWIST = 0, 1, 2, 3
# What became of a sample; an open one was not tried.
OPEN, FAILED, CONVERGED = 0, 1, 2


@jit
def _load3(work, row):
    return load(work, row), load(work, row + 1), load(work, row + 2)


@jit
def _store3(work, row, a, b, c):
    store(work, row, a)
    store(work, row + 1, b)
    store(work, row + 2, c)


@jit
def _sine_cosine(angle):
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
def _placed(work, frame, numbers, k, r):
    """Coordinate r of the axes and origin of frame @ placement (numbers[k, :12])."""
    x, y, z = load(work, frame + r), load(work, frame + r + 3), load(work, frame + r + 6)
    return (
        x * numbers[k, 0] + y * numbers[k, 4] + z * numbers[k, 8],
        x * numbers[k, 1] + y * numbers[k, 5] + z * numbers[k, 9],
        x * numbers[k, 2] + y * numbers[k, 6] + z * numbers[k, 10],
        x * numbers[k, 3] + y * numbers[k, 7] + z * numbers[k, 11] + load(work, frame + r + 9),
    )


@jit
def _placed_about_x(work, frame, numbers, k, r):
    """As `_placed` for a placement that turns about x only, as most do."""
    x, y, z = load(work, frame + r), load(work, frame + r + 3), load(work, frame + r + 6)
    return (
        x,
        y * numbers[k, 5] + z * numbers[k, 9],
        y * numbers[k, 6] + z * numbers[k, 10],
        x * numbers[k, 3] + y * numbers[k, 7] + z * numbers[k, 11] + load(work, frame + r + 9),
    )


@jit
def _forward(work, nodes, node_numbers, q_row):
    """Frames of all nodes; frame k + 1 is node k, frame 0 the base."""
    for k in range(nodes.shape[0]):
        parent = nodes[k, 0] * FRAME
        own = (k + 1) * FRAME
        motion = load(work, q_row + nodes[k, 1]) * node_numbers[k, 12] + node_numbers[k, 13]
        if nodes[k, 2] == 1:
            for r in range(3):
                x, y, z, p = _placed(work, parent, node_numbers, k, r)
                store(work, own + r, x)
                store(work, own + r + 3, y)
                store(work, own + r + 6, z)
                store(work, own + r + 9, z * motion + p)
        else:
            sine, cosine = _sine_cosine(motion)
            about_x = nodes[k, 3] == 1
            for r in range(3):
                if about_x:
                    x, y, z, p = _placed_about_x(work, parent, node_numbers, k, r)
                else:
                    x, y, z, p = _placed(work, parent, node_numbers, k, r)
                store(work, own + r, cosine * x + sine * y)
                store(work, own + r + 3, cosine * y - sine * x)
                store(work, own + r + 6, z)
                store(work, own + r + 9, p)


@jit
def _difference(work, frame, tip_numbers, t, target):
    """Position of tip t, vector to the target, 2 sin(angle) axis, and trace of the rotation."""
    x0, y0, z0, p0 = _placed(work, frame, tip_numbers, t, 0)
    x1, y1, z1, p1 = _placed(work, frame, tip_numbers, t, 1)
    x2, y2, z2, p2 = _placed(work, frame, tip_numbers, t, 2)
    u0, u1, u2 = _load3(work, target)
    v0, v1, v2 = _load3(work, target + 3)
    w0, w1, w2 = _load3(work, target + 6)
    g0, g1, g2 = _load3(work, target + 9)
    trace = x0 * u0 + x1 * u1 + x2 * u2 + y0 * v0 + y1 * v1 + y2 * v2
    trace += z0 * w0 + z1 * w1 + z2 * w2
    turn = (
        x1 * u2 - x2 * u1 + y1 * v2 - y2 * v1 + z1 * w2 - z2 * w1,
        x2 * u0 - x0 * u2 + y2 * v0 - y0 * v2 + z2 * w0 - z0 * w2,
        x0 * u1 - x1 * u0 + y0 * v1 - y1 * v0 + z0 * w1 - z1 * w0,
    )
    return (p0, p1, p2), (g0 - p0, g1 - p1, g2 - p2), turn, trace


@jit
def _target_axis(work, target, axis):
    return _load3(work, target + 3 * axis)


@jit
def _clear3(work, row):
    _store3(work, row, 0.0, 0.0, 0.0)


@jit
def _along_target(work, target, tip_numbers, t, first, v0, v1, v2, map_row, e_row):
    """Error vector in the target's axes, each weighted; the map to it; square of what counts."""
    square = v0 * 0.0
    for i in range(3):
        a0, a1, a2 = _target_axis(work, target, i)
        weight = tip_numbers[t, first + i]
        component = v0 * a0 + v1 * a1 + v2 * a2
        store(work, e_row + i, component * weight)
        _store3(work, map_row + 3 * i, a0 * weight, a1 * weight, a2 * weight)
        square += component * component * tip_numbers[t, first + 6 + i]
    return square


@jit
def _turned(work, frame, tip_numbers, t, target, out_row):
    """Rotation of the tip in the target's axes, (3, 3) by rows."""
    x0, y0, z0, _ = _placed(work, frame, tip_numbers, t, 0)
    x1, y1, z1, _ = _placed(work, frame, tip_numbers, t, 1)
    x2, y2, z2, _ = _placed(work, frame, tip_numbers, t, 2)
    for i in range(3):
        a0, a1, a2 = _target_axis(work, target, i)
        _store3(
            work, out_row + 3 * i, a0 * x0 + a1 * x1 + a2 * x2,
            a0 * y0 + a1 * y1 + a2 * y2, a0 * z0 + a1 * z1 + a2 * z2,
        )  # fmt: skip


@jit
def _quaternion(work, turn_row):
    """w, x, y, z of a rotation, up to a common sign, without loss at any angle (Shepperd 1978)."""
    d00, d01, d02 = _load3(work, turn_row)
    d10, d11, d12 = _load3(work, turn_row + 3)
    d20, d21, d22 = _load3(work, turn_row + 6)
    w, x = 1.0 + d00 + d11 + d22, 1.0 + d00 - d11 - d22
    y, z = 1.0 - d00 + d11 - d22, 1.0 - d00 - d11 + d22
    wx, wy, wz = d21 - d12, d02 - d20, d10 - d01
    xy, xz, yz = d01 + d10, d02 + d20, d12 + d21
    largest, a, b, c, d = w, w, wx, wy, wz
    swap = x > largest
    largest = select(swap, x, largest)
    a, b, c, d = select(swap, wx, a), select(swap, x, b), select(swap, xy, c), select(swap, xz, d)
    swap = y > largest
    largest = select(swap, y, largest)
    a, b, c, d = select(swap, wy, a), select(swap, xy, b), select(swap, y, c), select(swap, yz, d)
    swap = z > largest
    largest = select(swap, z, largest)
    a, b, c, d = select(swap, wz, a), select(swap, xz, b), select(swap, yz, c), select(swap, z, d)
    scale = 0.5 / square_root(largest)
    return a * scale, b * scale, c * scale, d * scale


@jit
def _swing(work, target, tip_numbers, t, axis, turn_row, map_row, e_row):
    """Error and map where the tip may turn about one axis of the target; its unweighted square."""
    i, k = (axis + 1) % 3, (axis + 2) % 3
    toward, away = load(work, turn_row + 3 * k + axis), load(work, turn_row + 3 * i + axis)
    cosine = load(work, turn_row + 3 * axis + axis)
    half = cosine + 1.0  # 2 cos^2(angle / 2)
    scale = square_root(2.0 / select(half > 1e-6, half, 1e-6))
    toward, away = toward * scale, away * scale
    for n in range(3):
        a0, a1, a2 = _target_axis(work, target, n)
        weight = tip_numbers[t, 19 + n]
        _store3(work, map_row + 3 * n, a0 * weight, a1 * weight, a2 * weight)
    store(work, e_row + axis, 0.0)
    store(work, e_row + i, toward * tip_numbers[t, 19 + i])
    store(work, e_row + k, away * (0.0 - tip_numbers[t, 19 + k]))
    return select(half > 1e-3, toward * toward + away * away, 2.0 - 2.0 * cosine)


@jit
def _twist(work, target, tip_numbers, t, axis, turn_row, map_row, e_row):
    """Error and map where only the turn about one axis of the target counts; its square."""
    i, k = (axis + 1) % 3, (axis + 2) % 3
    w, x, y, z = _quaternion(work, turn_row)
    _store3(work, turn_row, x, y, z)
    error = load(work, turn_row + axis) * -2.0
    along_i, along_k = load(work, turn_row + k), 0.0 - load(work, turn_row + i)
    weight = tip_numbers[t, 19 + axis]
    a0, a1, a2 = _target_axis(work, target, axis)
    b0, b1, b2 = _target_axis(work, target, i)
    c0, c1, c2 = _target_axis(work, target, k)
    for n in range(3):
        store(work, e_row + n, 0.0)
        _clear3(work, map_row + 3 * n)
    store(work, e_row + axis, error * weight)
    # The derivative of the quaternion's vector part v is (w omega + omega x v) / 2.
    _store3(
        work, map_row + 3 * axis,
        (w * a0 + along_i * b0 + along_k * c0) * weight,
        (w * a1 + along_i * b1 + along_k * c1) * weight,
        (w * a2 + along_i * b2 + along_k * c2) * weight,
    )  # fmt: skip
    return error * error


@inline_jit
def _residual(work, tips, tip_numbers, target_row, tip_row, e_row, ratio_row, map_row):
    """Tip positions, weighted errors, and the errors that count squared in tolerances.

    Errors that are measured in the target's axes come with the 3 x 3 maps that bring velocities
    there, two per tip.
    """
    turn_row = map_row + 18 * tips.shape[0]
    store(work, ratio_row, 0.0)
    for t in range(tips.shape[0]):
        frame, target = tips[t, 0] * FRAME, target_row + t * FRAME
        maps = map_row + 18 * t
        (p0, p1, p2), (d0, d1, d2), (r0, r1, r2), trace = _difference(
            work, frame, tip_numbers, t, target
        )
        _store3(work, tip_row + 3 * t, p0, p1, p2)
        linear, angular = tip_numbers[t, 12], tip_numbers[t, 13]
        ratio = load(work, ratio_row)
        if tips[t, 1] >= 0:
            e = e_row + tips[t, 1]
            if tips[t, 3] == PLAIN:
                ratio += (d0 * d0 + d1 * d1 + d2 * d2) * tip_numbers[t, 14]
                _store3(work, e, d0 * linear, d1 * linear, d2 * linear)
            else:
                square = _along_target(work, target, tip_numbers, t, 16, d0, d1, d2, maps, e)
                ratio += square * tip_numbers[t, 14]
        if tips[t, 2] >= 0:
            e = e_row + tips[t, 2]
            if tips[t, 4] <= WEIGHTED:
                # 1 + trace is 4 cos^2(angle / 2), so this makes the turn 2 sin(angle / 2) axis.
                half = trace + 1.0
                scale = 1.0 / square_root(select(half > 1e-6, half, 1e-6))
                r0, r1, r2 = r0 * scale, r1 * scale, r2 * scale
                # The axis vanishes at half a turn; the trace does not.
                square = select(half > 1e-3, r0 * r0 + r1 * r1 + r2 * r2, 3.0 - trace)
                if tips[t, 4] == PLAIN:
                    _store3(work, e, r0 * angular, r1 * angular, r2 * angular)
                else:
                    _along_target(work, target, tip_numbers, t, 19, r0, r1, r2, maps + 9, e)
            else:
                _turned(work, frame, tip_numbers, t, target, turn_row)
                if tips[t, 4] == SWING:
                    square = _swing(work, target, tip_numbers, t, tips[t, 5], turn_row, maps + 9, e)
                else:
                    square = _twist(work, target, tip_numbers, t, tips[t, 5], turn_row, maps + 9, e)
            ratio += square * tip_numbers[t, 15]
        store(work, ratio_row, ratio)


@jit
def _mapped(work, m, v0, v1, v2):
    a0, a1, a2 = _load3(work, m)
    b0, b1, b2 = _load3(work, m + 3)
    c0, c1, c2 = _load3(work, m + 6)
    return (
        a0 * v0 + a1 * v1 + a2 * v2, b0 * v0 + b1 * v1 + b2 * v2, c0 * v0 + c1 * v1 + c2 * v2
    )  # fmt: skip


@jit
def _add3(work, row, further, v0, v1, v2):
    if further:
        a0, a1, a2 = _load3(work, row)
        v0, v1, v2 = v0 + a0, v1 + a1, v2 + a2
    _store3(work, row, v0, v1, v2)


@inline_jit
def _jacobian(
    work, nodes, columns, tips, node_numbers, tip_numbers, rows, tip_row, map_row, jacobian_row
):
    """Weighted Jacobian, column by column; rows linear then angular, tip by tip."""
    for t in range(tips.shape[0]):
        p0, p1, p2 = _load3(work, tip_row + 3 * t)
        linear_row, angular_row = tips[t, 1], tips[t, 2]
        linear_plain, angular_plain = tips[t, 3] == PLAIN, tips[t, 4] == PLAIN
        linear_weight, angular_weight = tip_numbers[t, 12], tip_numbers[t, 13]
        maps = map_row + 18 * t
        for k in range(nodes.shape[0]):
            if columns[t, k] == 0:
                continue
            further = columns[t, k] == 2  # mimic joints: a further node on the same joint
            prismatic = nodes[k, 2] == 1
            frame = (k + 1) * FRAME
            column = jacobian_row + nodes[k, 1] * rows
            z0, z1, z2 = _load3(work, frame + 6)
            factor = node_numbers[k, 12]
            if linear_row >= 0:
                weight = linear_weight * factor
                if prismatic:
                    l0, l1, l2 = z0 * weight, z1 * weight, z2 * weight
                else:
                    o0, o1, o2 = _load3(work, frame + 9)
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
                    r0, r1, r2 = _mapped(work, maps + 9, r0, r1, r2)
                _add3(work, column + angular_row, further, r0, r1, r2)


@jit
def _block(a, b):
    return (a * (a + 1) // 2 + b) * 9


@inline_jit
def _normal_matrix(work, rows, blocks, pairs, jacobian_row, matrix_row, damping):
    """Lower 3 x 3 blocks of J J^T + damping; over the joints that both tips of a block share."""
    num_tips = blocks[-1] + 1
    zero = damping * 0.0
    for a in range(rows // 3):
        first = jacobian_row + 3 * a
        pair = blocks[a] * num_tips + blocks[a]
        u = first + pairs[pair, 2] * rows
        x0, x1, x2 = _load3(work, u)
        m00, m10, m11 = x0 * x0 + damping, x1 * x0, x1 * x1 + damping
        m20, m21, m22 = x2 * x0, x2 * x1, x2 * x2 + damping
        skip = 1
        for span in range(2, 2 + 2 * pairs[pair, 1], 2):
            u = first + (pairs[pair, span] + skip) * rows
            for _ in range(skip, pairs[pair, span + 1]):
                x0, x1, x2 = _load3(work, u)
                m00 += x0 * x0
                m10 += x1 * x0
                m11 += x1 * x1
                m20 += x2 * x0
                m21 += x2 * x1
                m22 += x2 * x2
                u += rows
            skip = 0
        m = matrix_row + _block(a, a)
        _store3(work, m, m00, m10, m20)
        _store3(work, m + 3, m10, m11, m21)
        _store3(work, m + 6, m20, m21, m22)
        for b in range(a):
            pair = blocks[a] * num_tips + blocks[b]
            if pairs[pair, 0] == 0:
                continue
            m00, m01, m02, m10, m11, m12, m20, m21, m22 = (
                zero, zero, zero, zero, zero, zero, zero, zero, zero
            )  # fmt: skip
            for span in range(2, 2 + 2 * pairs[pair, 1], 2):
                u = first + pairs[pair, span] * rows
                v = u + 3 * (b - a)
                for _ in range(pairs[pair, span + 1]):
                    x0, x1, x2 = _load3(work, u)
                    y0, y1, y2 = _load3(work, v)
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
            m = matrix_row + _block(a, b)
            _store3(work, m, m00, m01, m02)
            _store3(work, m + 3, m10, m11, m12)
            _store3(work, m + 6, m20, m21, m22)


@jit
def _eliminate(work, m, y, damping):
    """Factorise a diagonal block in place, and solve with it.

    The block then holds its unit lower triangle and, on the diagonal, 1 / D.
    """
    a00, _, _ = _load3(work, m)
    a10, a11, _ = _load3(work, m + 3)
    a20, a21, a22 = _load3(work, m + 6)
    # No pivot is smaller than the damping but for rounding.
    i0 = 1.0 / select(a00 > damping, a00, damping)
    l10, l20 = a10 * i0, a20 * i0
    a11 -= a10 * l10
    i1 = 1.0 / select(a11 > damping, a11, damping)
    a21 -= a20 * l10
    l21 = a21 * i1
    a22 -= a20 * l20 + a21 * l21
    i2 = 1.0 / select(a22 > damping, a22, damping)
    _store3(work, m, i0, l10, l20)
    _store3(work, m + 3, l10, i1, l21)
    _store3(work, m + 6, l20, l21, i2)
    s0, s1, s2 = _load3(work, y)
    s1 -= l10 * s0
    s2 -= l20 * s0 + l21 * s1
    _store3(work, y, s0 * i0, s1 * i1, s2 * i2)


@inline_jit
def _solve(work, rows, blocks, pairs, matrix_row, e_row, y_row, damping):
    """y of (J J^T + damping) y = e by L D L^T in 3 x 3 blocks; overwrites the matrix.

    Below the diagonal, block (a, b) then holds W = L_ab D_b. Blocks that stay zero are left out.
    """
    num_blocks, num_tips = rows // 3, blocks[-1] + 1
    for i in range(rows):
        store(work, y_row + i, load(work, e_row + i))
    for b in range(num_blocks):
        own = blocks[b]
        n = matrix_row + _block(b, b)
        _eliminate(work, n, y_row + 3 * b, damping)
        i0, l10, l20 = _load3(work, n)
        _, i1, l21 = _load3(work, n + 3)
        i2 = load(work, n + 8)
        s0, s1, s2 = _load3(work, y_row + 3 * b)
        for a in range(b + 1, num_blocks):
            if pairs[blocks[a] * num_tips + own, 0] == 0:
                continue
            m = matrix_row + _block(a, b)
            y = y_row + 3 * a
            for r in range(3):
                w0, w1, w2 = _load3(work, m + 3 * r)
                w1 -= w0 * l10
                w2 -= w0 * l20 + w1 * l21
                _store3(work, m + 3 * r, w0, w1, w2)
                store(work, y + r, load(work, y + r) - w0 * s0 - w1 * s1 - w2 * s2)
            for c in range(b + 1, a + 1):
                if pairs[blocks[c] * num_tips + own, 0] == 0:
                    continue
                for r in range(3):
                    v0, v1, v2 = _load3(work, matrix_row + _block(c, b) + 3 * r)
                    v0, v1, v2 = v0 * i0, v1 * i1, v2 * i2
                    for i in range(3):
                        w0, w1, w2 = _load3(work, m + 3 * i)
                        entry = matrix_row + _block(a, c) + 3 * i + r
                        store(work, entry, load(work, entry) - w0 * v0 - w1 * v1 - w2 * v2)
    for b in range(num_blocks - 1, -1, -1):
        own = blocks[b]
        n = matrix_row + _block(b, b)
        i0, l10, l20 = _load3(work, n)
        _, i1, l21 = _load3(work, n + 3)
        i2 = load(work, n + 8)
        s0, s1, s2 = _load3(work, y_row + 3 * b)
        for a in range(b + 1, num_blocks):
            if pairs[blocks[a] * num_tips + own, 0] == 0:
                continue
            m = matrix_row + _block(a, b)
            for r in range(3):
                w0, w1, w2 = _load3(work, m + 3 * r)
                x = load(work, y_row + 3 * a + r)
                s0 -= w0 * i0 * x
                s1 -= w1 * i1 * x
                s2 -= w2 * i2 * x
        s1 -= l21 * s2
        s0 -= l10 * s1 + l20 * s2
        _store3(work, y_row + 3 * b, s0, s1, s2)


@jit
def _product(work, a, b, count):
    total = load(work, a) * load(work, b)
    for i in range(1, count):
        total += load(work, a + i) * load(work, b + i)
    return total


@inline_jit
def _column_product(work, moved, j, column, vector):
    """Column j of the Jacobian times a vector over the rows; only rows that the joint moves."""
    row = moved[j, 1]
    x0, x1, x2 = _load3(work, column + row)
    y0, y1, y2 = _load3(work, vector + row)
    total = x0 * y0 + x1 * y1 + x2 * y2
    for i in range(2, 1 + moved[j, 0]):
        row = moved[j, i]
        x0, x1, x2 = _load3(work, column + row)
        y0, y1, y2 = _load3(work, vector + row)
        total += x0 * y0 + x1 * y1 + x2 * y2
    return total


@inline_jit
def _hold_blocked(work, moved, bounds, rows, q_row, e_row, jacobian_row):
    """Zero the columns of joints at a limit that the error pulls outward."""
    for j in range(bounds.shape[0]):
        if moved[j, 0] == 0:
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
def _step(
    work, moved, blocks, pairs, bounds, rows, q_row, e_row, y_row, jacobian_row, matrix_row,
    damping_factor, damping_floor, max_step,
):  # fmt: skip
    """q += J^T (J J^T + damping)^-1 e over the joints that are free, cut to the limits."""
    num_joints = bounds.shape[0]
    energy = _product(work, e_row, e_row, rows)
    damping = energy * damping_factor + damping_floor
    _hold_blocked(work, moved, bounds, rows, q_row, e_row, jacobian_row)
    _normal_matrix(work, rows, blocks, pairs, jacobian_row, matrix_row, damping)
    _solve(work, rows, blocks, pairs, matrix_row, e_row, y_row, damping)
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
    end = matrix + _block(blocks, 0) + num_joints
    return q, target, tip, e, y, ratio, maps, jacobian, matrix, end


@cached_jit
def refine(
    q, targets, todo, outcome, work, nodes, columns, tips, moved, blocks, pairs, node_numbers,
    tip_numbers, bounds, damping_factor, damping_floor, max_step, max_iterations,
):  # fmt: skip
    """Step the samples `todo` of q until they converge; a lane that is done takes the next one."""
    num_joints, num_tips, width = bounds.shape[0], tips.shape[0], work.shape[1]
    per_problem = q.shape[1]
    rows = 3 * blocks.size
    (
        q_row, target_row, tip_row, e_row, y_row, ratio_row, map_row, jacobian_row, matrix_row, _,
    ) = work_rows(nodes.shape[0], num_joints, num_tips, blocks.size)  # fmt: skip
    work[:] = 0
    for i in range(0, 9, 4):
        store(work, i, 1.0)
    lane_problem = np.full(width, -1, np.int64)  # -1: idle
    lane_row = np.zeros(width, np.int64)
    lane_age = np.zeros(width, np.int64)
    cursor = 0
    active = 0
    while True:
        for lane in range(width):
            if lane_problem[lane] < 0 and cursor < todo.size:
                problem, row = todo[cursor] // per_problem, todo[cursor] % per_problem
                cursor += 1
                for j in range(num_joints):
                    work[q_row + j, lane] = min(max(q[problem, row, j], bounds[j, 0]), bounds[j, 1])
                for i in range(num_tips * FRAME):
                    work[target_row + i, lane] = targets[problem, i]
                lane_problem[lane] = problem
                lane_row[lane] = row
                lane_age[lane] = 0
                active += 1
        if active == 0:
            return
        _forward(work, nodes, node_numbers, q_row)
        _residual(work, tips, tip_numbers, target_row, tip_row, e_row, ratio_row, map_row)
        for lane in range(width):
            problem, row = lane_problem[lane], lane_row[lane]
            if problem < 0:
                continue
            done = work[ratio_row, lane] <= 1
            if done or lane_age[lane] >= max_iterations:
                for j in range(num_joints):
                    q[problem, row, j] = work[q_row + j, lane]
                outcome[problem, row] = CONVERGED if done else FAILED
                lane_problem[lane] = -1
                active -= 1
            lane_age[lane] += 1
        _jacobian(
            work, nodes, columns, tips, node_numbers, tip_numbers, rows, tip_row, map_row,
            jacobian_row,
        )  # fmt: skip
        _step(
            work, moved, blocks, pairs, bounds, rows, q_row, e_row, y_row, jacobian_row,
            matrix_row, damping_factor, damping_floor, max_step,
        )  # fmt: skip


@jit
def _turn_error(work, frame, tip_numbers, t, target, mode, axis, turn_row):
    """Sine and cosine of the smallest turn of the tip to where its rotation is as asked for."""
    _turned(work, frame, tip_numbers, t, target, turn_row)
    i, k = (axis + 1) % 3, (axis + 2) % 3
    if mode == SWING:
        a, b = load(work, turn_row + 3 * k + axis), load(work, turn_row + 3 * i + axis)
        return square_root(a * a + b * b), load(work, turn_row + 3 * axis + axis)
    w, x, y, z = _quaternion(work, turn_row)
    _store3(work, turn_row, x, y, z)
    a, b, c = load(work, turn_row + axis), load(work, turn_row + i), load(work, turn_row + k)
    rest = w * w + b * b + c * c
    return square_root(a * a * rest) * 2.0, rest - a * a


@cached_jit
def evaluate(q, targets, errors, work, nodes, tips, node_numbers, tip_numbers):
    """Distance and angle to the targets, (B, N, T, 2), of what counts."""
    num_joints, num_tips, width = q.shape[2], tips.shape[0], work.shape[1]
    rows = work_rows(nodes.shape[0], num_joints, num_tips, 0)
    q_row, target_row, out_row, turn_row = rows[0], rows[1], rows[2], rows[6]
    work[:] = 0
    for i in range(0, 9, 4):
        store(work, i, 1.0)
    for problem in range(q.shape[0]):
        for i in range(num_tips * FRAME):
            store(work, target_row + i, targets[problem, i])
        for first in range(0, q.shape[1], width):
            count = min(width, q.shape[1] - first)
            for lane in range(count):
                for j in range(num_joints):
                    work[q_row + j, lane] = q[problem, first + lane, j]
            _forward(work, nodes, node_numbers, q_row)
            for t in range(num_tips):
                frame, target = tips[t, 0] * FRAME, target_row + t * FRAME
                _, (d0, d1, d2), (r0, r1, r2), trace = _difference(
                    work, frame, tip_numbers, t, target
                )
                distance = d0 * d0 + d1 * d1 + d2 * d2
                if tips[t, 3] != PLAIN:
                    distance = distance * 0.0
                    for i in range(3):
                        a0, a1, a2 = _target_axis(work, target, i)
                        along = d0 * a0 + d1 * a1 + d2 * a2
                        distance += along * along * tip_numbers[t, 22 + i]
                sine, cosine = square_root(r0 * r0 + r1 * r1 + r2 * r2), trace - 1.0
                if tips[t, 4] >= SWING:
                    sine, cosine = _turn_error(
                        work, frame, tip_numbers, t, target, tips[t, 4], tips[t, 5], turn_row
                    )
                _store3(work, out_row, square_root(distance), sine, cosine)
                for lane in range(count):
                    error = errors[problem, first + lane, t]
                    error[0] = work[out_row, lane] if tips[t, 1] >= 0 else 0.0
                    error[1] = 0.0
                    if tips[t, 2] >= 0:
                        error[1] = np.arctan2(work[out_row + 1, lane], work[out_row + 2, lane])
