# SPDX-License-Identifier: Apache-2.0
"""The solution of a symmetric system that couples neighbours alone."""

import numpy as np

from .jit import cached_jit


@cached_jit
def solve_banded(blocks, diagonal, weight, right):
    """Solve a positive definite block tridiagonal system by the Cholesky factor of its band.

    Args:
        blocks: (P, J, J) symmetric blocks on the diagonal.
        diagonal: (P, J), added to the diagonal.
        weight: (P - 1, J), whose negative is the diagonal of each block beside the diagonal.
        right: (P, J) right-hand side.

    Returns:
        (P, J) solution.
    """
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
