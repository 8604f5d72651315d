# SPDX-License-Identifier: Apache-2.0
"""How far samples are from a distribution and from the set that they shall cover."""

from __future__ import annotations

import numpy as np

BANDWIDTHS = (0.25, 0.5, 1.0, 2.0)  # rad


def squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(A, B) squared Euclidean distances between a (A, J) and b (B, J)."""
    squared = (a * a).sum(-1)[:, None] + (b * b).sum(-1) - 2 * a @ b.T
    return np.maximum(squared, 0)


def mmd_squared(x: np.ndarray, y: np.ndarray) -> float:
    """Unbiased estimate of the squared maximum mean discrepancy; 0 on average for equal laws.

    The kernel is the mean of the Gaussians exp(-d^2 / (2 s^2)) over the `BANDWIDTHS` s; Gretton et
    al. 2012, "A kernel two-sample test", lemma 6.

    Args:
        x: (A, J) samples in rad, A > 1.
        y: (B, J) samples in rad, B > 1.
    """

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        squared = squared_distances(a, b)
        return np.mean([np.exp(squared / (-2 * s * s)) for s in BANDWIDTHS], axis=0)

    def among(a: np.ndarray) -> float:
        k = kernel(a, a)
        return (k.sum() - np.trace(k)) / (len(a) * (len(a) - 1))

    return float(among(x) + among(y) - 2 * kernel(x, y).mean())


def coverage(points: np.ndarray, weights: np.ndarray, samples: np.ndarray, radius: float) -> float:
    """Share, by weight, of the points that have a sample within the radius.

    Args:
        points: (P, J) of the set to cover.
        weights: (P,).
        samples: (N, J); none cover nothing.
        radius: in the unit of the points.
    """
    if len(samples) == 0:
        return 0.0
    near = squared_distances(points, samples).min(-1) <= radius**2
    return float(weights[near].sum() / weights.sum())


def total_variation(p: np.ndarray, q: np.ndarray) -> float:
    """Between two distributions (K,) over the same K things; 0 equal, 1 disjoint."""
    return float(0.5 * np.abs(p - q).sum())
