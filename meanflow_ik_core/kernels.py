# SPDX-License-Identifier: Apache-2.0
"""Damped least squares and forward kinematics for any kinematic tree, many samples at a time."""

from __future__ import annotations

import time
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
from numba import boolean, float32, float64, int64, njit

from .robot import Robot
from .simd import LANES, any_lane, floor, load, select, square_root, store

_jit = njit(cache=True, nogil=True, error_model="numpy")

_FRAME = 12  # rows of a frame in the work buffer: x axis, y axis, z axis, origin
_UNBOUNDED = 1e9


@_jit
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


@_jit
def _forward(work, nodes, node_numbers, q_row):
    """Frames of all nodes; frame k + 1 is node k, frame 0 the base."""
    for k in range(nodes.shape[0]):
        parent = nodes[k, 0] * _FRAME
        own = (k + 1) * _FRAME
        a00, a01, a02, a03 = node_numbers[k, 0], node_numbers[k, 1], node_numbers[k, 2], node_numbers[k, 3]
        a10, a11, a12, a13 = node_numbers[k, 4], node_numbers[k, 5], node_numbers[k, 6], node_numbers[k, 7]
        a20, a21, a22, a23 = node_numbers[k, 8], node_numbers[k, 9], node_numbers[k, 10], node_numbers[k, 11]
        motion = load(work, q_row + nodes[k, 1]) * node_numbers[k, 12] + node_numbers[k, 13]
        if nodes[k, 2] == 1:
            for r in range(3):
                p0, p1, p2 = load(work, parent + r), load(work, parent + r + 3), load(work, parent + r + 6)
                z = p0 * a02 + p1 * a12 + p2 * a22
                store(work, own + r, p0 * a00 + p1 * a10 + p2 * a20)
                store(work, own + r + 3, p0 * a01 + p1 * a11 + p2 * a21)
                store(work, own + r + 6, z)
                origin = p0 * a03 + p1 * a13 + p2 * a23 + load(work, parent + r + 9)
                store(work, own + r + 9, z * motion + origin)
            continue
        s, c = _sine_cosine(motion)
        about_x = nodes[k, 3] == 1
        for r in range(3):
            p0, p1, p2 = load(work, parent + r), load(work, parent + r + 3), load(work, parent + r + 6)
            if about_x:
                x = p0
                y = p1 * a11 + p2 * a21
                z = p1 * a12 + p2 * a22
            else:
                x = p0 * a00 + p1 * a10 + p2 * a20
                y = p0 * a01 + p1 * a11 + p2 * a21
                z = p0 * a02 + p1 * a12 + p2 * a22
            store(work, own + r, c * x + s * y)
            store(work, own + r + 3, c * y - s * x)
            store(work, own + r + 6, z)
            store(work, own + r + 9, p0 * a03 + p1 * a13 + p2 * a23 + load(work, parent + r + 9))


@_jit
def _tip_frame(work, frame, numbers, t, r):
    p0, p1, p2 = load(work, frame + r), load(work, frame + r + 3), load(work, frame + r + 6)
    x = p0 * numbers[t, 0] + p1 * numbers[t, 4] + p2 * numbers[t, 8]
    y = p0 * numbers[t, 1] + p1 * numbers[t, 5] + p2 * numbers[t, 9]
    z = p0 * numbers[t, 2] + p1 * numbers[t, 6] + p2 * numbers[t, 10]
    p = p0 * numbers[t, 3] + p1 * numbers[t, 7] + p2 * numbers[t, 11] + load(work, frame + r + 9)
    return x, y, z, p


@_jit
def _residual(work, tips, tip_numbers, target_row, tip_row, e_row, ratio_row):
    """Tip positions, weighted errors (6 per tip), and the plain errors squared in tolerances."""
    for t in range(tips.shape[0]):
        frame = tips[t] * _FRAME
        target = target_row + t * _FRAME
        e = e_row + t * 6
        x0, y0, z0, p0 = _tip_frame(work, frame, tip_numbers, t, 0)
        x1, y1, z1, p1 = _tip_frame(work, frame, tip_numbers, t, 1)
        x2, y2, z2, p2 = _tip_frame(work, frame, tip_numbers, t, 2)
        store(work, tip_row + t * 3, p0)
        store(work, tip_row + t * 3 + 1, p1)
        store(work, tip_row + t * 3 + 2, p2)
        p0, p1, p2 = load(work, target + 9) - p0, load(work, target + 10) - p1, load(work, target + 11) - p2
        ratio = (p0 * p0 + p1 * p1 + p2 * p2) * tip_numbers[t, 14]
        weight = tip_numbers[t, 12]
        store(work, e, p0 * weight)
        store(work, e + 1, p1 * weight)
        store(work, e + 2, p2 * weight)
        u0, u1, u2 = load(work, target), load(work, target + 1), load(work, target + 2)
        v0, v1, v2 = load(work, target + 3), load(work, target + 4), load(work, target + 5)
        w0, w1, w2 = load(work, target + 6), load(work, target + 7), load(work, target + 8)
        trace = x0 * u0 + x1 * u1 + x2 * u2 + y0 * v0 + y1 * v1 + y2 * v2 + z0 * w0 + z1 * w1 + z2 * w2
        # The sum of cross products is 2 sin(angle) axis and 1 + trace is 4 cos^2(angle / 2),
        # so this is 2 sin(angle / 2) axis.
        half = trace + 1.0
        scale = 1.0 / square_root(select(half > 1e-6, half, 1e-6))
        r0 = (x1 * u2 - x2 * u1 + y1 * v2 - y2 * v1 + z1 * w2 - z2 * w1) * scale
        r1 = (x2 * u0 - x0 * u2 + y2 * v0 - y0 * v2 + z2 * w0 - z0 * w2) * scale
        r2 = (x0 * u1 - x1 * u0 + y0 * v1 - y1 * v0 + z0 * w1 - z1 * w0) * scale
        square = r0 * r0 + r1 * r1 + r2 * r2
        # Close to half a turn the cross products vanish; the trace does not.
        ratio += select(half > 1e-3, square, 3.0 - trace) * tip_numbers[t, 15]
        if t > 0:
            ratio += load(work, ratio_row)
        store(work, ratio_row, ratio)
        weight = tip_numbers[t, 13]
        store(work, e + 3, r0 * weight)
        store(work, e + 4, r1 * weight)
        store(work, e + 5, r2 * weight)


@_jit
def _jacobian(work, nodes, columns, node_numbers, tip_numbers, tip_row, jacobian_row):
    """Weighted Jacobian, column by column; rows linear then angular, tip by tip."""
    num_tips = columns.shape[0]
    for t in range(num_tips):
        tip = tip_row + t * 3
        p0, p1, p2 = load(work, tip), load(work, tip + 1), load(work, tip + 2)
        for k in range(nodes.shape[0]):
            if columns[t, k] == 0:
                continue
            frame = (k + 1) * _FRAME
            column = jacobian_row + (nodes[k, 1] * num_tips + t) * 6
            z0, z1, z2 = load(work, frame + 6), load(work, frame + 7), load(work, frame + 8)
            linear = tip_numbers[t, 12] * node_numbers[k, 12]
            angular = tip_numbers[t, 13] * node_numbers[k, 12]
            if nodes[k, 2] == 1:
                l0, l1, l2 = z0 * linear, z1 * linear, z2 * linear
                r0, r1, r2 = z0 * 0.0, z1 * 0.0, z2 * 0.0
            else:
                d0, d1, d2 = p0 - load(work, frame + 9), p1 - load(work, frame + 10), p2 - load(work, frame + 11)
                l0, l1, l2 = (z1 * d2 - z2 * d1) * linear, (z2 * d0 - z0 * d2) * linear, (z0 * d1 - z1 * d0) * linear
                r0, r1, r2 = z0 * angular, z1 * angular, z2 * angular
            if columns[t, k] == 2:  # a further node on the same joint
                l0, l1, l2 = l0 + load(work, column), l1 + load(work, column + 1), l2 + load(work, column + 2)
                r0, r1, r2 = r0 + load(work, column + 3), r1 + load(work, column + 4), r2 + load(work, column + 5)
            store(work, column, l0)
            store(work, column + 1, l1)
            store(work, column + 2, l2)
            store(work, column + 3, r0)
            store(work, column + 4, r1)
            store(work, column + 5, r2)


@_jit
def _block(a, b):
    return (a * (a + 1) // 2 + b) * 9


@_jit
def _normal_matrix(work, blocks, num_joints, jacobian_row, matrix_row, damping):
    """Lower 3 x 3 blocks of J J^T + damping."""
    rows = 3 * blocks
    for a in range(blocks):
        u = jacobian_row + 3 * a
        x0, x1, x2 = load(work, u), load(work, u + 1), load(work, u + 2)
        m00, m10, m11, m20, m21, m22 = x0 * x0, x1 * x0, x1 * x1, x2 * x0, x2 * x1, x2 * x2
        for _ in range(1, num_joints):
            u += rows
            x0, x1, x2 = load(work, u), load(work, u + 1), load(work, u + 2)
            m00 += x0 * x0
            m10 += x1 * x0
            m11 += x1 * x1
            m20 += x2 * x0
            m21 += x2 * x1
            m22 += x2 * x2
        m = matrix_row + _block(a, a)
        store(work, m, m00 + damping)
        store(work, m + 3, m10)
        store(work, m + 4, m11 + damping)
        store(work, m + 6, m20)
        store(work, m + 7, m21)
        store(work, m + 8, m22 + damping)
        for b in range(a):
            u = jacobian_row + 3 * a
            v = jacobian_row + 3 * b
            x0, x1, x2 = load(work, u), load(work, u + 1), load(work, u + 2)
            y0, y1, y2 = load(work, v), load(work, v + 1), load(work, v + 2)
            m00, m01, m02 = x0 * y0, x0 * y1, x0 * y2
            m10, m11, m12 = x1 * y0, x1 * y1, x1 * y2
            m20, m21, m22 = x2 * y0, x2 * y1, x2 * y2
            for _ in range(1, num_joints):
                u += rows
                v += rows
                x0, x1, x2 = load(work, u), load(work, u + 1), load(work, u + 2)
                y0, y1, y2 = load(work, v), load(work, v + 1), load(work, v + 2)
                m00 += x0 * y0
                m01 += x0 * y1
                m02 += x0 * y2
                m10 += x1 * y0
                m11 += x1 * y1
                m12 += x1 * y2
                m20 += x2 * y0
                m21 += x2 * y1
                m22 += x2 * y2
            m = matrix_row + _block(a, b)
            store(work, m, m00)
            store(work, m + 1, m01)
            store(work, m + 2, m02)
            store(work, m + 3, m10)
            store(work, m + 4, m11)
            store(work, m + 5, m12)
            store(work, m + 6, m20)
            store(work, m + 7, m21)
            store(work, m + 8, m22)


@_jit
def _solve(work, blocks, matrix_row, e_row, y_row, damping):
    """Solve (J J^T + damping) y = e by L D L^T in 3 x 3 blocks; overwrites the matrix.

    Below the diagonal, block (a, b) holds W = L_ab D_b; a diagonal block holds its unit lower
    triangle and, on the diagonal, 1 / D.
    """
    for i in range(3 * blocks):
        store(work, y_row + i, load(work, e_row + i))
    for b in range(blocks):
        m = matrix_row + _block(b, b)
        # A pivot cannot be smaller than the damping; rounding can make it so.
        d = load(work, m)
        i0 = 1.0 / select(d > damping, d, damping)
        w1, w2 = load(work, m + 3), load(work, m + 6)
        l10, l20 = w1 * i0, w2 * i0
        d = load(work, m + 4) - w1 * l10
        i1 = 1.0 / select(d > damping, d, damping)
        w21 = load(work, m + 7) - w2 * l10
        l21 = w21 * i1
        d = load(work, m + 8) - w2 * l20 - w21 * l21
        i2 = 1.0 / select(d > damping, d, damping)
        store(work, m, i0)
        store(work, m + 3, l10)
        store(work, m + 4, i1)
        store(work, m + 6, l20)
        store(work, m + 7, l21)
        store(work, m + 8, i2)
        y = y_row + 3 * b
        s0 = load(work, y)
        s1 = load(work, y + 1) - l10 * s0
        s2 = load(work, y + 2) - l20 * s0 - l21 * s1
        s0, s1, s2 = s0 * i0, s1 * i1, s2 * i2
        store(work, y, s0)
        store(work, y + 1, s1)
        store(work, y + 2, s2)
        for a in range(b + 1, blocks):
            m = matrix_row + _block(a, b)
            y = y_row + 3 * a
            for r in range(3):
                w0 = load(work, m + 3 * r)
                w1 = load(work, m + 3 * r + 1) - w0 * l10
                w2 = load(work, m + 3 * r + 2) - w0 * l20 - w1 * l21
                store(work, m + 3 * r + 1, w1)
                store(work, m + 3 * r + 2, w2)
                store(work, y + r, load(work, y + r) - w0 * s0 - w1 * s1 - w2 * s2)
            for c in range(b + 1, a + 1):
                n = matrix_row + _block(c, b)
                o = matrix_row + _block(a, c)
                for r in range(3):
                    v0, v1, v2 = load(work, n + 3 * r) * i0, load(work, n + 3 * r + 1) * i1, load(work, n + 3 * r + 2) * i2
                    for q in range(3):
                        w0, w1, w2 = load(work, m + 3 * q), load(work, m + 3 * q + 1), load(work, m + 3 * q + 2)
                        entry = o + 3 * q + r
                        store(work, entry, load(work, entry) - w0 * v0 - w1 * v1 - w2 * v2)
    for b in range(blocks - 1, -1, -1):
        m = matrix_row + _block(b, b)
        y = y_row + 3 * b
        s0, s1, s2 = load(work, y), load(work, y + 1), load(work, y + 2)
        i0, i1, i2 = load(work, m), load(work, m + 4), load(work, m + 8)
        for a in range(b + 1, blocks):
            n = matrix_row + _block(a, b)
            x = y_row + 3 * a
            x0, x1, x2 = load(work, x), load(work, x + 1), load(work, x + 2)
            s0 -= (load(work, n) * x0 + load(work, n + 3) * x1 + load(work, n + 6) * x2) * i0
            s1 -= (load(work, n + 1) * x0 + load(work, n + 4) * x1 + load(work, n + 7) * x2) * i1
            s2 -= (load(work, n + 2) * x0 + load(work, n + 5) * x1 + load(work, n + 8) * x2) * i2
        s1 -= load(work, m + 7) * s2
        s0 -= load(work, m + 3) * s1 + load(work, m + 6) * s2
        store(work, y, s0)
        store(work, y + 1, s1)
        store(work, y + 2, s2)


@_jit
def _scaled_column(work, column, y_row, rows):
    total = load(work, column) * load(work, y_row)
    for i in range(1, rows):
        total += load(work, column + i) * load(work, y_row + i)
    return total


@_jit
def _step(work, bounds, blocks, layout, damping_factor, damping_floor, max_step, slack, rounds, truncate):
    """One damped step, bounded by the limits."""
    q_row, step_row, e_row, y_row, jacobian_row, matrix_row = layout
    num_joints = bounds.shape[0]
    rows = 3 * blocks
    energy = load(work, e_row) * load(work, e_row)
    for i in range(1, rows):
        energy += load(work, e_row + i) * load(work, e_row + i)
    damping = energy * damping_factor + damping_floor
    _normal_matrix(work, blocks, num_joints, jacobian_row, matrix_row, damping)
    _solve(work, blocks, matrix_row, e_row, y_row, damping)
    largest = energy * 0.0
    for j in range(num_joints):
        d = _scaled_column(work, jacobian_row + j * rows, y_row, rows)
        store(work, step_row + j, d)
        largest = select(d > largest, d, largest)
        largest = select(0.0 - d > largest, 0.0 - d, largest)
    scale = max_step / select(largest > max_step, largest, max_step)
    for i in range(rows):
        store(work, e_row + i, load(work, e_row + i) * scale)
    for j in range(num_joints):
        store(work, step_row + j, load(work, step_row + j) * scale)
        store(work, step_row + num_joints + j, 0.0)
    for _ in range(rounds):
        changed = False
        for j in range(num_joints):
            q = load(work, q_row + j)
            d = load(work, step_row + j)
            lower, upper = bounds[j, 0], bounds[j, 1]
            if truncate:
                above, below = q + d > upper + slack, q + d < lower - slack
            else:
                above, below = (q >= upper - slack) & (d > slack), (q <= lower + slack) & (d < 0.0 - slack)
            blocked = above | below
            if any_lane(blocked):
                changed = True
                shift = select(above, upper - q, lower - q)
                kept = step_row + num_joints + j
                store(work, kept, select(blocked, shift, load(work, kept)))
                for i in range(rows):
                    entry = jacobian_row + j * rows + i
                    value = load(work, entry)
                    store(work, e_row + i, load(work, e_row + i) - select(blocked, value * shift, 0.0))
                    store(work, entry, select(blocked, 0.0, value))
        if not changed:
            break
        _normal_matrix(work, blocks, num_joints, jacobian_row, matrix_row, damping)
        _solve(work, blocks, matrix_row, e_row, y_row, damping)
        for j in range(num_joints):
            d = _scaled_column(work, jacobian_row + j * rows, y_row, rows)
            store(work, step_row + j, load(work, step_row + num_joints + j) + d)
    for j in range(num_joints):
        d = load(work, step_row + j)
        d = select(d > max_step, max_step, d)
        d = select(d < 0.0 - max_step, 0.0 - max_step, d)
        q = load(work, q_row + j) + d
        q = select(q > bounds[j, 1], bounds[j, 1], q)
        store(work, q_row + j, select(q < bounds[j, 0], bounds[j, 0], q))


@_jit
def _refine(
    q, targets, todo, status, found, wanted, work,
    nodes, columns, tips, node_numbers, tip_numbers, bounds,
    damping_factor, damping_floor, max_step, slack, max_iterations, rounds, truncate,
):  # fmt: skip
    """Move the samples `todo` of q until they converge; lanes that finish take the next sample."""
    num_joints, num_tips, width = bounds.shape[0], tips.shape[0], work.shape[1]
    blocks = 2 * num_tips
    per_problem = q.shape[1]
    q_row = (nodes.shape[0] + 1) * _FRAME
    step_row = q_row + num_joints
    target_row = step_row + 2 * num_joints
    tip_row = target_row + num_tips * _FRAME
    e_row = tip_row + 3 * num_tips
    y_row = e_row + 6 * num_tips
    ratio_row = y_row + 6 * num_tips
    jacobian_row = ratio_row + 1
    matrix_row = jacobian_row + 6 * num_tips * num_joints
    layout = (q_row, step_row, e_row, y_row, jacobian_row, matrix_row)
    work[:] = 0
    for i in range(3):
        store(work, 4 * i, 1.0)
    lane_sample = np.full(width, -1, np.int64)
    lane_age = np.zeros(width, np.int64)
    cursor = 0
    active = 0
    spent = 0
    while True:
        for lane in range(width):
            while lane_sample[lane] < 0 and cursor < todo.size:
                sample = todo[cursor]
                cursor += 1
                problem, row = sample // per_problem, sample % per_problem
                if found[problem] >= wanted:
                    continue
                for j in range(num_joints):
                    work[q_row + j, lane] = min(max(q[problem, row, j], bounds[j, 0]), bounds[j, 1])
                for i in range(num_tips * _FRAME):
                    work[target_row + i, lane] = targets[problem, i]
                lane_sample[lane] = sample
                lane_age[lane] = 0
                active += 1
        if active == 0:
            return spent
        _forward(work, nodes, node_numbers, q_row)
        _residual(work, tips, tip_numbers, target_row, tip_row, e_row, ratio_row)
        for lane in range(width):
            sample = lane_sample[lane]
            if sample < 0:
                continue
            problem, row = sample // per_problem, sample % per_problem
            converged = work[ratio_row, lane] <= 1.0
            if converged or lane_age[lane] >= max_iterations or found[problem] >= wanted:
                for j in range(num_joints):
                    q[problem, row, j] = work[q_row + j, lane]
                if converged:
                    status[problem, row] = True
                    found[problem] += 1
                lane_sample[lane] = -1
                active -= 1
            else:
                spent += 1
            lane_age[lane] += 1
        _jacobian(work, nodes, columns, node_numbers, tip_numbers, tip_row, jacobian_row)
        _step(work, bounds, blocks, layout, damping_factor, damping_floor, max_step, slack, rounds, truncate)


@_jit
def _evaluate(q, targets, errors, work, nodes, tips, node_numbers, tip_numbers):
    """Exact position and angle errors (B, N, T, 2)."""
    num_joints, num_tips, width = q.shape[2], tips.shape[0], work.shape[1]
    q_row = (nodes.shape[0] + 1) * _FRAME
    target_row = q_row + num_joints
    out_row = target_row + num_tips * _FRAME
    for i in range(12):
        store(work, i, 0.0)
    for i in range(3):
        store(work, 4 * i, 1.0)
    for problem in range(q.shape[0]):
        for i in range(num_tips * _FRAME):
            store(work, target_row + i, targets[problem, i])
        for start in range(0, q.shape[1], width):
            count = min(width, q.shape[1] - start)
            for lane in range(width):
                row = start + min(lane, count - 1)
                for j in range(num_joints):
                    work[q_row + j, lane] = q[problem, row, j]
            _forward(work, nodes, node_numbers, q_row)
            _differences(work, tips, tip_numbers, target_row, out_row)
            for lane in range(count):
                for t in range(num_tips):
                    out = out_row + 3 * t
                    errors[problem, start + lane, t, 0] = work[out, lane]
                    errors[problem, start + lane, t, 1] = np.arctan2(work[out + 1, lane], work[out + 2, lane])


@_jit
def _differences(work, tips, numbers, target_row, out_row):
    """Distance, 2 sin and 2 cos of the angle to the target, tip by tip."""
    for t in range(tips.shape[0]):
        frame = tips[t] * _FRAME
        target = target_row + t * _FRAME
        x0, y0, z0, p0 = _tip_frame(work, frame, numbers, t, 0)
        x1, y1, z1, p1 = _tip_frame(work, frame, numbers, t, 1)
        x2, y2, z2, p2 = _tip_frame(work, frame, numbers, t, 2)
        p0, p1, p2 = load(work, target + 9) - p0, load(work, target + 10) - p1, load(work, target + 11) - p2
        u0, u1, u2 = load(work, target), load(work, target + 1), load(work, target + 2)
        v0, v1, v2 = load(work, target + 3), load(work, target + 4), load(work, target + 5)
        w0, w1, w2 = load(work, target + 6), load(work, target + 7), load(work, target + 8)
        r0 = x1 * u2 - x2 * u1 + y1 * v2 - y2 * v1 + z1 * w2 - z2 * w1
        r1 = x2 * u0 - x0 * u2 + y2 * v0 - y0 * v2 + z2 * w0 - z0 * w2
        r2 = x0 * u1 - x1 * u0 + y0 * v1 - y1 * v0 + z0 * w1 - z1 * w0
        trace = x0 * u0 + x1 * u1 + x2 * u2 + y0 * v0 + y1 * v1 + y2 * v2 + z0 * w0 + z1 * w1 + z2 * w2
        store(work, out_row + 3 * t, square_root(p0 * p0 + p1 * p1 + p2 * p2))
        store(work, out_row + 3 * t + 1, square_root(r0 * r0 + r1 * r1 + r2 * r2))
        store(work, out_row + 3 * t + 2, trace - 1.0)


@dataclass(frozen=True)
class _Tree:
    """A robot's numbers as the kernels read them."""

    nodes: np.ndarray  # (K, 4) int64: parent + 1, joint, is prismatic, placement turns about x only
    columns: np.ndarray  # (T, K) int64: 0 does not move the tip, 1 first node of its joint, 2 further
    tips: np.ndarray  # (T,) int64: frame of the tip's node
    node_numbers: np.ndarray  # (K, 14) float64: placement (3, 4), multiplier, offset
    tip_numbers: np.ndarray  # (T, 12) float64: placement (3, 4)
    bounds: np.ndarray  # (J, 2) float64

    @property
    def rows(self) -> int:
        """Rows of a work buffer."""
        nodes, tips, joints = len(self.nodes), len(self.tips), len(self.bounds)
        blocks = 2 * tips
        matrix = 9 * blocks * (blocks + 1) // 2
        return (nodes + 1) * _FRAME + 3 * joints + (_FRAME + 15 + 6 * joints) * tips + 1 + matrix


_trees: WeakKeyDictionary[Robot, _Tree] = WeakKeyDictionary()


def _tree(robot: Robot) -> _Tree:
    if robot not in _trees:
        count, num_tips = len(robot.parent), robot.num_tips
        columns = np.zeros((num_tips, count), np.int64)
        for t, node in enumerate(robot.tip_node):
            while node >= 0:
                columns[t, node] = 1
                node = robot.parent[node]
            for k in range(count):
                if columns[t, k] and (columns[t, :k] * (robot.joint[:k] == robot.joint[k])).any():
                    columns[t, k] = 2
        rotation = robot.placement[:, :3, :3]
        off_axis = np.stack((rotation[:, 0, 1], rotation[:, 0, 2], rotation[:, 1, 0], rotation[:, 2, 0]))
        about_x = (np.abs(off_axis) < 1e-15).all(0) & (rotation[:, 0, 0] > 0)
        numbers = (robot.placement[:, :3].reshape(count, 12), robot.multiplier[:, None], robot.offset[:, None])
        lower = np.where(robot.continuous, -_UNBOUNDED, robot.lower)
        upper = np.where(robot.continuous, _UNBOUNDED, robot.upper)
        _trees[robot] = _Tree(
            nodes=np.stack((robot.parent + 1, robot.joint, robot.prismatic, about_x), 1).astype(np.int64),
            columns=columns,
            tips=(robot.tip_node + 1).astype(np.int64),
            node_numbers=np.concatenate(numbers, 1),
            tip_numbers=robot.tip_placement[:, :3].reshape(num_tips, 12),
            bounds=np.stack((lower, upper), 1),
        )
    return _trees[robot]


def _target_rows(targets: np.ndarray) -> np.ndarray:
    """(B, T, 4, 4) poses as (B, 12 T): axes, then origin, of each tip."""
    columns = np.swapaxes(targets[..., :3, :], -1, -2)
    return np.ascontiguousarray(columns, np.float64).reshape(len(targets), 12 * targets.shape[1])


@dataclass(frozen=True)
class StepSettings:
    """What one damped least-squares step depends on."""

    damping_factor: float = 1e-2  # damping per squared weighted error (Sugihara 2011)
    damping_floor: float = 1e-6
    max_step: float = 1.0  # rad or m, of the joint that moves most
    rounds: int = 1  # how often joints that leave the limits are held and the rest solved again
    truncate: bool = False


def iterate(
    robot: Robot,
    q: np.ndarray,
    targets: np.ndarray,
    todo: np.ndarray,
    found: np.ndarray,
    wanted: int,
    max_iterations: int,
    position_tolerance: float | np.ndarray,
    orientation_tolerance: float | np.ndarray,
    position_weight: float | np.ndarray = 1.0,
    orientation_weight: float | np.ndarray = 1.0,
    settings: StepSettings = StepSettings(),
    dtype: type = np.float64,
) -> np.ndarray:
    """Step samples in place until they are within tolerance, or out of iterations.

    Args:
        q: (B, N, J) float64, C-contiguous; changed in place, ends within the limits.
        targets: (B, T, 4, 4).
        todo: (n,) int64, samples b * N + n to work on, in this order.
        found: (B,) int64, converged samples per problem so far; counted up in place.
        wanted: samples of a problem that has found so many are left as they are.
        position_tolerance, orientation_tolerance: m and rad, scalar or (T,).
        position_weight, orientation_weight: per m and per rad, scalar or (T,).
        dtype: float type of the arithmetic, numpy.float32 or numpy.float64.

    Returns:
        (B, N) bool: stopped within tolerance, by the arithmetic of ``dtype``.
    """
    tree = _tree(robot)
    per_tip = np.ones((robot.num_tips, 1))
    tip_numbers = np.concatenate(
        (
            tree.tip_numbers,
            per_tip * np.reshape(position_weight, (-1, 1)),
            per_tip * np.reshape(orientation_weight, (-1, 1)),
            per_tip * np.reshape(np.square(1.0 / np.asarray(position_tolerance)), (-1, 1)),
            per_tip * np.reshape(np.square(1.0 / np.asarray(orientation_tolerance)), (-1, 1)),
        ),
        1,
    )
    converged = np.zeros(q.shape[:2], np.bool_)
    _refine(
        q, _target_rows(targets), todo, converged, found, wanted, _work_buffer(tree, dtype),
        tree.nodes, tree.columns, tree.tips,
        tree.node_numbers.astype(dtype), tip_numbers.astype(dtype), tree.bounds.astype(dtype),
        dtype(settings.damping_factor), dtype(settings.damping_floor), dtype(settings.max_step),
        dtype(16 * np.finfo(dtype).eps), max_iterations, settings.rounds, settings.truncate,
    )  # fmt: skip
    return converged


def pose_errors(robot: Robot, q: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance [m] and angle [rad] (B, N, T) between the tips at q (B, N, J) and targets (B, T, 4, 4)."""
    tree = _tree(robot)
    errors = np.empty((*q.shape[:2], robot.num_tips, 2))
    q = np.ascontiguousarray(q, np.float64)
    work = _work_buffer(tree, np.float64)
    _evaluate(
        q, _target_rows(targets), errors, work,
        tree.nodes, tree.tips, tree.node_numbers, tree.tip_numbers,
    )  # fmt: skip
    return errors[..., 0], errors[..., 1]


def _work_buffer(tree: _Tree, dtype: type) -> np.ndarray:
    return np.empty((tree.rows, LANES[float32 if dtype is np.float32 else float64]), dtype)


def compile_kernels() -> float:
    """Compile the kernels, or load them from the cache; seconds that took.

    They serve every robot. The cache lies beside this file, or in the user's cache folder when that
    is read-only, or in NUMBA_CACHE_DIR.
    """
    start = time.perf_counter()
    for real in (float32, float64):
        arrays = (real[:, ::1], real[:, ::1], real[:, ::1])
        _refine.compile(
            (
                float64[:, :, ::1], float64[:, ::1], int64[::1], boolean[:, ::1], int64[::1], int64, real[:, ::1],
                int64[:, ::1], int64[:, ::1], int64[::1], *arrays,
                real, real, real, real, int64, int64, boolean,
            )
        )  # fmt: skip
    _evaluate.compile(
        (
            float64[:, :, ::1], float64[:, ::1], float64[:, :, :, ::1], float64[:, ::1],
            int64[:, ::1], int64[::1], float64[:, ::1], float64[:, ::1],
        )
    )  # fmt: skip
    return time.perf_counter() - start
