# SPDX-License-Identifier: Apache-2.0
"""The solution of a symmetric banded system."""

import numpy as np

from .jit import cached_jit


@cached_jit
def solve_banded(blocks, diagonal, weight, right):
    """x (P, J) of the symmetric system with ``blocks`` (P, J, J) and ``diagonal`` (P, J) on the
    diagonal and -``weight`` (P - 1, J) beside it, by the Cholesky factor of a band."""
    count, width = right.shape
    rows = count * width
    band = np.zeros((rows, width + 1))  # column width - k: the entry k before the diagonal
    x = right.copy().ravel()
    for p in range(count):
        for j in range(width):
            for k in range(j + 1):
                band[p * width + j, width - j + k] = blocks[p, j, k]
            band[p * width + j, width] += diagonal[p, j]
            if p > 0:
                band[p * width + j, 0] = -weight[p - 1, j]
    for i in range(rows):
        first = max(0, i - width)
        for j in range(first, i + 1):
            total = band[i, width - i + j]
            for k in range(max(first, j - width), j):
                total -= band[i, width - i + k] * band[j, width - j + k]
            if j < i:
                band[i, width - i + j] = total / band[j, width]
            else:
                band[i, width] = np.sqrt(total)
        for k in range(first, i):
            x[i] -= band[i, width - i + k] * x[k]
        x[i] /= band[i, width]
    for i in range(rows - 1, -1, -1):
        x[i] /= band[i, width]
        for k in range(max(0, i - width), i):
            x[k] -= band[i, width - i + k] * x[i]
    return x.reshape(count, width)
