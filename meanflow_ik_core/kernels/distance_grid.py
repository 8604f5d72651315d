# SPDX-License-Identifier: Apache-2.0
"""Grids around a surface: the cells that it lies in, and distances of all points to these.

Lengths are in cells, and a point of a grid stands in the middle of its cell.
"""

import numpy as np

from .jit import cached_jit, jit

_FAR = np.float32(1e9)  # the square of a distance, where nothing is marked
_AT_ONCE = 1024  # columns, of which all rows stay in the caches
# What lies on an edge belongs to both triangles, whatever rounding does to it.
_TOUCHING = 1e-6
# From one sample of a triangle to the next. A place on it is at most sqrt(1.25) times as far from
# the nearest sample: a row of samples is longer than the next one, but at an end.
SPACING = 0.4


@jit
def _to_nearest_row(rows, out):
    """Write the least of rows[j] + (i - j)^2 over all j to out[i], for every i, element-wise."""
    for begin in range(0, rows.shape[1], _AT_ONCE):
        end = min(begin + _AT_ONCE, rows.shape[1])
        for i in range(len(rows)):
            own = out[i, begin:end]
            own[:] = _FAR
            for j in range(len(rows)):
                other, square = rows[j, begin:end], np.float32((i - j) * (i - j))
                for k in range(len(own)):
                    own[k] = min(own[k], other[k] + square)


@cached_jit
def grid_distances(marked):
    """Distances (X, Y, Z) float32 to the nearest cell of marked (X, Y, Z) bool.

    There are less than 2**11 cells along each axis, so that squares are exact.
    """
    x, y, z = marked.shape
    along, nearest = np.empty((y, x, z), np.float32), np.empty((y, x, z), np.float32)
    for i in range(x):
        for j in range(y):
            gap = z  # more than any that there is
            for k in range(z):
                gap = 0 if marked[i, j, k] else gap + 1
                along[j, i, k] = np.float32(gap * gap) if gap < z else _FAR
            gap = z
            for k in range(z - 1, -1, -1):
                gap = 0 if marked[i, j, k] else gap + 1
                if gap < z:
                    along[j, i, k] = min(along[j, i, k], np.float32(gap * gap))
    _to_nearest_row(along.reshape(y, x * z), nearest.reshape(y, x * z))
    rows, found = along.reshape(x, y * z), np.empty((x, y, z), np.float32)
    for i in range(x):
        for j in range(y):
            rows[i, j * z : (j + 1) * z] = nearest[j, i]
    _to_nearest_row(rows, found.reshape(x, y * z))
    return np.sqrt(found)


@cached_jit
def mark_triangles(corners, triangles, marked):
    """Mark the cells that samples of triangles lie in, see `SPACING`.

    The work goes with the area of all triangles and with their longest edges.

    Args:
        corners: (V, 3) float64, all within the grid.
        triangles: (F, 3) int64.
        marked: (X, Y, Z) bool, is written to.
    """
    a, b, c, ahead = np.empty(3), np.empty(3), np.empty(3), np.empty(3)
    for face in range(len(triangles)):
        longest = -1.0
        for side in range(3):
            i, j = triangles[face, side], triangles[face, (side + 1) % 3]
            square = 0.0
            for r in range(3):
                square += (corners[j, r] - corners[i, r]) ** 2
            if square > longest:
                longest, base = square, side
        height = along = 0.0
        for r in range(3):
            a[r] = corners[triangles[face, base], r]
            b[r] = corners[triangles[face, (base + 1) % 3], r]
            c[r] = corners[triangles[face, (base + 2) % 3], r]
            along += (c[r] - a[r]) * (b[r] - a[r])
        foot = along / longest if longest > 0 else 0.0
        for r in range(3):
            height += (c[r] - a[r] - foot * (b[r] - a[r])) ** 2
        length = np.sqrt(longest)
        rows = max(1, int(np.ceil(np.sqrt(height) / SPACING)))
        for row in range(rows + 1):
            up = row / rows
            columns = max(1, int(np.ceil((1 - up) * length / SPACING)))
            for r in range(3):
                ahead[r] = (1 - up) * (b[r] - a[r]) / columns
            # half a cell more, so that cutting off rounds
            x = a[0] + up * (c[0] - a[0]) + 0.5
            y = a[1] + up * (c[1] - a[1]) + 0.5
            z = a[2] + up * (c[2] - a[2]) + 0.5
            for column in range(columns + 1):
                marked[
                    int(x + column * ahead[0]), int(y + column * ahead[1]),
                    int(z + column * ahead[2]),
                ] = True  # fmt: skip


@jit
def _widen(lowest, highest, i, y, from_z, to_y, to_z):
    """Let a piece of a surface, from (y, from_z) to (to_y, to_z) at x = i, bound its columns."""
    for j in range(
        max(0, int(np.ceil(y - _TOUCHING))),
        min(lowest.shape[1] - 1, int(np.floor(to_y + _TOUCHING))) + 1,
    ):
        share = min(1.0, max(0.0, (j - y) / (to_y - y))) if to_y - y > _TOUCHING else 0.0
        z = from_z + share * (to_z - from_z)
        lowest[i, j], highest[i, j] = min(lowest[i, j], z), max(highest[i, j], z)


@cached_jit
def negate_inside(corners, triangles, values):
    """Change the sign of what lies inside a convex surface.

    Args:
        corners: (V, 3) float64.
        triangles: (F, 3) int64 of a closed surface, either way round.
        values: (X, Y, Z) float32, is written to.
    """
    lowest = np.full(values.shape[:2], np.inf)
    highest = np.full(values.shape[:2], -np.inf)
    for face in range(len(triangles)):
        first = last = corners[triangles[face, 0], 0]
        for side in range(1, 3):
            x = corners[triangles[face, side], 0]
            first, last = min(first, x), max(last, x)
        for i in range(
            max(0, int(np.ceil(first - _TOUCHING))),
            min(len(values) - 1, int(np.floor(last + _TOUCHING))) + 1,
        ):
            # The triangle at x = i is a piece of a line, between two of its edges.
            from_y, from_z, to_y, to_z = np.inf, 0.0, -np.inf, 0.0
            for side in range(3):
                p, q = corners[triangles[face, side]], corners[triangles[face, (side + 1) % 3]]
                run = q[0] - p[0]
                if abs(run) <= _TOUCHING:
                    share = 0.0  # its other end belongs to the next edge
                    if abs(p[0] - i) > _TOUCHING:
                        continue
                else:
                    share = (i - p[0]) / run
                    if share < -_TOUCHING or share > 1 + _TOUCHING:
                        continue
                y, z = p[1] + share * (q[1] - p[1]), p[2] + share * (q[2] - p[2])
                if y < from_y:
                    from_y, from_z = y, z
                if y > to_y:
                    to_y, to_z = y, z
            if from_y <= to_y:
                _widen(lowest, highest, i, from_y, from_z, to_y, to_z)
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            for k in range(
                max(0, int(np.floor(max(lowest[i, j], -1.0))) + 1),
                min(values.shape[2], int(np.ceil(min(highest[i, j], values.shape[2])))),
            ):
                values[i, j, k] = -values[i, j, k]
