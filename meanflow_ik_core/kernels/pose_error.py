# SPDX-License-Identifier: Apache-2.0
"""How far the tips of a tile of samples are from their targets: for the step, and exactly."""

from .forward import placed
from .jit import inline_jit, jit
from .layout import (
    AXIS,
    AXIS_COUNTS,
    AXIS_WEIGHTS,
    CARRIER,
    FRAME,
    MAP,
    MAPS,
    ORIENTATION,
    ORIENTATION_MEASURE,
    ORIENTATION_PRECISION,
    ORIENTATION_ROW,
    ORIENTATION_SLACK,
    ORIENTATION_WEIGHT,
    PLAIN,
    POSITION,
    POSITION_MEASURE,
    POSITION_PRECISION,
    POSITION_ROW,
    POSITION_SLACK,
    POSITION_WEIGHT,
    SWING,
    WEIGHTED,
)  # fmt: skip
from .simd import load, load3, select, square_root, store, store3


@jit
def _difference(work, frame, tip_numbers, t, target):
    """Position of tip t, vector to the target, 2 sin(angle) axis, and trace of the rotation."""
    x0, y0, z0, p0 = placed(work, frame, tip_numbers, t)
    x1, y1, z1, p1 = placed(work, frame + 1, tip_numbers, t)
    x2, y2, z2, p2 = placed(work, frame + 2, tip_numbers, t)
    u0, u1, u2 = load3(work, target)
    v0, v1, v2 = load3(work, target + 3)
    w0, w1, w2 = load3(work, target + 6)
    g0, g1, g2 = load3(work, target + 9)
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
    return load3(work, target + 3 * axis)


@jit
def _along_target(work, target, tip_numbers, t, which, v0, v1, v2, map_row, e_row):
    """Write a 3-vector in the target's axes, each weighted, and the map that brings vectors there.

    Returns the square of what counts of the vector; ``which`` is POSITION or ORIENTATION.
    """
    square = v0 * 0.0
    for i in range(3):
        a0, a1, a2 = _target_axis(work, target, i)
        weight = tip_numbers[t, AXIS_WEIGHTS + which + i]
        component = v0 * a0 + v1 * a1 + v2 * a2
        store(work, e_row + i, component * weight)
        store3(work, map_row + 3 * i, a0 * weight, a1 * weight, a2 * weight)
        square += component * component * tip_numbers[t, AXIS_COUNTS + which + i]
    return square


@jit
def _turned(work, frame, tip_numbers, t, target, turn_row):
    """Write the rotation of the tip in the target's axes, (3, 3) by rows."""
    x0, y0, z0, _ = placed(work, frame, tip_numbers, t)
    x1, y1, z1, _ = placed(work, frame + 1, tip_numbers, t)
    x2, y2, z2, _ = placed(work, frame + 2, tip_numbers, t)
    for i in range(3):
        a0, a1, a2 = _target_axis(work, target, i)
        store3(
            work, turn_row + 3 * i, a0 * x0 + a1 * x1 + a2 * x2,
            a0 * y0 + a1 * y1 + a2 * y2, a0 * z0 + a1 * z1 + a2 * z2,
        )  # fmt: skip


@jit
def _quaternion(work, turn_row):
    """w, x, y, z of a rotation, up to a common sign, without loss at any angle (Shepperd 1978)."""
    d00, d01, d02 = load3(work, turn_row)
    d10, d11, d12 = load3(work, turn_row + 3)
    d20, d21, d22 = load3(work, turn_row + 6)
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
    """Write error and map where the tip may turn about one axis; returns the unweighted square."""
    i, k = (axis + 1) % 3, (axis + 2) % 3
    toward, away = load(work, turn_row + 3 * k + axis), load(work, turn_row + 3 * i + axis)
    cosine = load(work, turn_row + 3 * axis + axis)
    half = cosine + 1.0  # 2 cos^2(angle / 2)
    scale = square_root(2.0 / select(half > 1e-6, half, 1e-6))
    toward, away = toward * scale, away * scale
    for n in range(3):
        a0, a1, a2 = _target_axis(work, target, n)
        weight = tip_numbers[t, AXIS_WEIGHTS + ORIENTATION + n]
        store3(work, map_row + 3 * n, a0 * weight, a1 * weight, a2 * weight)
    store(work, e_row + axis, 0.0)
    store(work, e_row + i, toward * tip_numbers[t, AXIS_WEIGHTS + ORIENTATION + i])
    store(work, e_row + k, away * (0.0 - tip_numbers[t, AXIS_WEIGHTS + ORIENTATION + k]))
    return select(half > 1e-3, toward * toward + away * away, 2.0 - 2.0 * cosine)


@jit
def _twist(work, target, tip_numbers, t, axis, turn_row, map_row, e_row):
    """Write error and map where the turn about one axis alone counts; returns the square."""
    i, k = (axis + 1) % 3, (axis + 2) % 3
    w, x, y, z = _quaternion(work, turn_row)
    store3(work, turn_row, x, y, z)
    error = load(work, turn_row + axis) * -2.0
    along_i, along_k = load(work, turn_row + k), 0.0 - load(work, turn_row + i)
    weight = tip_numbers[t, AXIS_WEIGHTS + ORIENTATION + axis]
    a0, a1, a2 = _target_axis(work, target, axis)
    b0, b1, b2 = _target_axis(work, target, i)
    c0, c1, c2 = _target_axis(work, target, k)
    for n in range(3):
        store(work, e_row + n, 0.0)
        store3(work, map_row + 3 * n, 0.0, 0.0, 0.0)
    store(work, e_row + axis, error * weight)
    # The derivative of the quaternion's vector part v is (w omega + omega x v) / 2.
    store3(
        work, map_row + 3 * axis,
        (w * a0 + along_i * b0 + along_k * c0) * weight,
        (w * a1 + along_i * b1 + along_k * c1) * weight,
        (w * a2 + along_i * b2 + along_k * c2) * weight,
    )  # fmt: skip
    return error * error


@jit
def _beyond(work, e_row, square, slack):
    """Cut an error to what of it is beyond the slack; returns the square of that."""
    size = square_root(square)
    outside = size > slack
    beyond = select(outside, size - slack, 0.0)
    scale = beyond / select(outside, size, 1.0)
    e0, e1, e2 = load3(work, e_row)
    store3(work, e_row, e0 * scale, e1 * scale, e2 * scale)
    return beyond * beyond


@inline_jit
def residual(work, tips, tip_numbers, target_row, tip_row, e_row, ratio_row, map_row, turn_row):
    """Write tip positions, weighted errors, and how large these are in tolerances.

    Errors that are measured in the target's axes come with the maps that bring velocities there.
    Where there is slack, they are those to the nearest pose within it.
    """
    store(work, ratio_row, 0.0)
    for t in range(tips.shape[0]):
        frame, target = tips[t, CARRIER] * FRAME, target_row + t * FRAME
        position_map = map_row + t * MAPS
        orientation_map = position_map + MAP
        (p0, p1, p2), (d0, d1, d2), (r0, r1, r2), trace = _difference(
            work, frame, tip_numbers, t, target
        )
        store3(work, tip_row + 3 * t, p0, p1, p2)
        linear, angular = tip_numbers[t, POSITION_WEIGHT], tip_numbers[t, ORIENTATION_WEIGHT]
        ratio = load(work, ratio_row)
        if tips[t, POSITION_ROW] >= 0:
            e = e_row + tips[t, POSITION_ROW]
            if tips[t, POSITION_MEASURE] == PLAIN:
                square = d0 * d0 + d1 * d1 + d2 * d2
                store3(work, e, d0 * linear, d1 * linear, d2 * linear)
            else:
                square = _along_target(
                    work, target, tip_numbers, t, POSITION, d0, d1, d2, position_map, e
                )
            if tip_numbers[t, POSITION_SLACK] > 0:
                square = _beyond(work, e, square, tip_numbers[t, POSITION_SLACK])
            ratio += square * tip_numbers[t, POSITION_PRECISION]
        if tips[t, ORIENTATION_ROW] >= 0:
            e, measure = e_row + tips[t, ORIENTATION_ROW], tips[t, ORIENTATION_MEASURE]
            if measure <= WEIGHTED:
                # 1 + trace is 4 cos^2(angle / 2), so this makes the turn 2 sin(angle / 2) axis.
                half = trace + 1.0
                scale = 1.0 / square_root(select(half > 1e-6, half, 1e-6))
                r0, r1, r2 = r0 * scale, r1 * scale, r2 * scale
                # The axis vanishes at half a turn; the trace does not.
                square = select(half > 1e-3, r0 * r0 + r1 * r1 + r2 * r2, 3.0 - trace)
                if measure == PLAIN:
                    store3(work, e, r0 * angular, r1 * angular, r2 * angular)
                else:
                    _along_target(
                        work, target, tip_numbers, t, ORIENTATION, r0, r1, r2, orientation_map, e
                    )
            else:
                _turned(work, frame, tip_numbers, t, target, turn_row)
                axis = tips[t, AXIS]
                if measure == SWING:
                    square = _swing(
                        work, target, tip_numbers, t, axis, turn_row, orientation_map, e
                    )
                else:
                    square = _twist(
                        work, target, tip_numbers, t, axis, turn_row, orientation_map, e
                    )
            if tip_numbers[t, ORIENTATION_SLACK] > 0:
                square = _beyond(work, e, square, tip_numbers[t, ORIENTATION_SLACK])
            ratio += square * tip_numbers[t, ORIENTATION_PRECISION]
        store(work, ratio_row, ratio)


@inline_jit
def exact_error(work, tips, tip_numbers, t, target_row, turn_row):
    """Distance of tip t to its target, and sine and cosine of the angle, of what counts."""
    frame, target = tips[t, CARRIER] * FRAME, target_row + t * FRAME
    _, (d0, d1, d2), (r0, r1, r2), trace = _difference(work, frame, tip_numbers, t, target)
    square = d0 * d0 + d1 * d1 + d2 * d2
    if tips[t, POSITION_MEASURE] != PLAIN:
        square = square * 0.0
        for i in range(3):
            a0, a1, a2 = _target_axis(work, target, i)
            along = d0 * a0 + d1 * a1 + d2 * a2
            square += along * along * tip_numbers[t, AXIS_COUNTS + POSITION + i]
    sine, cosine = square_root(r0 * r0 + r1 * r1 + r2 * r2), trace - 1.0
    if tips[t, ORIENTATION_MEASURE] >= SWING:
        _turned(work, frame, tip_numbers, t, target, turn_row)
        sine, cosine = _smallest_turn(work, tips[t, ORIENTATION_MEASURE], tips[t, AXIS], turn_row)
    return square_root(square), sine, cosine


@jit
def _smallest_turn(work, measure, axis, turn_row):
    """Sine and cosine of the smallest angle to where the rotation in ``turn_row`` is allowed."""
    i, k = (axis + 1) % 3, (axis + 2) % 3
    if measure == SWING:
        a, b = load(work, turn_row + 3 * k + axis), load(work, turn_row + 3 * i + axis)
        return square_root(a * a + b * b), load(work, turn_row + 3 * axis + axis)
    w, x, y, z = _quaternion(work, turn_row)
    store3(work, turn_row, x, y, z)
    a, b, c = load(work, turn_row + axis), load(work, turn_row + i), load(work, turn_row + k)
    rest = w * w + b * b + c * c
    return square_root(a * a * rest) * 2.0, rest - a * a
