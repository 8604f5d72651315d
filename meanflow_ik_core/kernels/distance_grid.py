# SPDX-License-Identifier: Apache-2.0
"""Distances of all points of a grid to the nearest cell that is marked."""

import numpy as np

from .jit import cached_jit, jit

_FAR = 1e12


@jit
def _along(line, out, vertex, begin):
    """Write the least of line[j] + (i - j)^2 over all j to out[i], for every i.

    The lower envelope of parabolas of Felzenszwalb and Huttenlocher 2012; ``vertex`` and ``begin``
    are room for it.
    """
    count, top = len(line), 0
    vertex[0], begin[0], begin[1] = 0, -_FAR, _FAR
    for j in range(1, count):
        while True:
            v = vertex[top]
            crossing = ((line[j] + j * j) - (line[v] + v * v)) / (2.0 * (j - v))
            if crossing > begin[top]:
                break
            top -= 1
        top += 1
        vertex[top], begin[top], begin[top + 1] = j, crossing, _FAR
    top = 0
    for i in range(count):
        while begin[top + 1] < i:
            top += 1
        out[i] = (i - vertex[top]) ** 2 + line[vertex[top]]


@cached_jit
def grid_distances(marked):
    """Distances (X, Y, Z) float32, in cells, to the nearest cell of marked (X, Y, Z) bool."""
    shape = marked.shape
    square = np.empty(shape)
    longest = max(shape[0], shape[1], shape[2])
    line, out = np.empty(longest), np.empty(longest)
    vertex, begin = np.empty(longest + 1, np.int64), np.empty(longest + 2)
    for i in range(shape[0]):
        for j in range(shape[1]):
            for k in range(shape[2]):
                line[k] = 0.0 if marked[i, j, k] else _FAR
            _along(line[: shape[2]], square[i, j], vertex, begin)
    for i in range(shape[0]):
        for k in range(shape[2]):
            for j in range(shape[1]):
                line[j] = square[i, j, k]
            _along(line[: shape[1]], out[: shape[1]], vertex, begin)
            for j in range(shape[1]):
                square[i, j, k] = out[j]
    for j in range(shape[1]):
        for k in range(shape[2]):
            for i in range(shape[0]):
                line[i] = square[i, j, k]
            _along(line[: shape[0]], out[: shape[0]], vertex, begin)
            for i in range(shape[0]):
                square[i, j, k] = out[i]
    return np.sqrt(square).astype(np.float32)
