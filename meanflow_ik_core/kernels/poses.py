# SPDX-License-Identifier: Apache-2.0
"""The check of poses that a caller hands over."""

import numpy as np

from .jit import cached_jit

RIGID_TOLERANCE = 1e-3  # four decimals leave about 1e-4
ROUNDED = 1e-5  # float32 leaves about 1e-7


@cached_jit
def make_orthonormal(T_base_tip):
    """Make the rotations of poses (B, T, 4, 4) orthonormal to the last digit, in place.

    Returns:
        How far off the worst one was; infinite where an entry is not finite or a pose is not
        rigid, and poses from there on are as they were.
    """
    worst = 0.0
    for b in range(T_base_tip.shape[0]):
        for t in range(T_base_tip.shape[1]):
            P = T_base_tip[b, t]
            off = max(abs(P[3, 0]), abs(P[3, 1]), abs(P[3, 2]), abs(P[3, 3] - 1.0))
            total = P[0, 3] * 0.0 + P[1, 3] * 0.0 + P[2, 3] * 0.0 + off * 0.0
            for i in range(3):
                for j in range(i + 1):
                    gram = P[0, i] * P[0, j] + P[1, i] * P[1, j] + P[2, i] * P[2, j]
                    total += gram * 0.0
                    off = max(off, abs(gram - 1.0) if i == j else abs(gram))
            determinant = (
                P[0, 0] * (P[1, 1] * P[2, 2] - P[1, 2] * P[2, 1])
                - P[0, 1] * (P[1, 0] * P[2, 2] - P[1, 2] * P[2, 0])
                + P[0, 2] * (P[1, 0] * P[2, 1] - P[1, 1] * P[2, 0])
            )
            if total != 0.0 or off > RIGID_TOLERANCE or determinant < 0.0:
                return np.inf
            worst = max(worst, off)
            # Newton's iteration for the nearest rotation: each step squares the deviation.
            for _ in range(2 if off <= ROUNDED else 3):
                a = P[0, 0] * P[0, 0] + P[1, 0] * P[1, 0] + P[2, 0] * P[2, 0]
                b1 = P[0, 0] * P[0, 1] + P[1, 0] * P[1, 1] + P[2, 0] * P[2, 1]
                c = P[0, 0] * P[0, 2] + P[1, 0] * P[1, 2] + P[2, 0] * P[2, 2]
                d = P[0, 1] * P[0, 1] + P[1, 1] * P[1, 1] + P[2, 1] * P[2, 1]
                e = P[0, 1] * P[0, 2] + P[1, 1] * P[1, 2] + P[2, 1] * P[2, 2]
                f = P[0, 2] * P[0, 2] + P[1, 2] * P[1, 2] + P[2, 2] * P[2, 2]
                for r in range(3):
                    x, y, z = P[r, 0], P[r, 1], P[r, 2]
                    P[r, 0] = 1.5 * x - 0.5 * (x * a + y * b1 + z * c)
                    P[r, 1] = 1.5 * y - 0.5 * (x * b1 + y * d + z * e)
                    P[r, 2] = 1.5 * z - 0.5 * (x * c + y * e + z * f)
    return worst
