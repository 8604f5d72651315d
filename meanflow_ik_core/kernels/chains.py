# SPDX-License-Identifier: Apache-2.0
"""Chains through the candidates of successive waypoints, by dynamic programming.

There are W waypoints with C candidates each: q is (W, C, J) rad or m. A step to the next waypoint
costs its largest joint difference, or, where a joint goes beyond its limit ``allowed`` (W - 1, J),
`BEYOND` times the largest share of a limit that it needs.
"""

import numpy as np

from .jit import cached_jit, jit
from .selection import joint_difference

BEYOND = 1e6  # more than any step within the limits costs
ROUNDING = 1 + 1e-9  # a limit times this is still the limit


@jit
def _cost(a, b, continuous, allowed, enough):
    """Cost of a step and the square of its length; both inf if it costs more than ``enough``."""
    largest, share, squares = 0.0, 0.0, 0.0
    for j in range(a.size):
        delta = joint_difference(a[j], b[j], continuous[j])
        largest = max(largest, delta)
        if largest > enough:
            return np.inf, np.inf
        share = max(share, delta / allowed[j])
        squares += delta * delta
    return BEYOND * share if share > ROUNDING else largest, squares


@cached_jit
def bottleneck_costs(bottleneck, first, last, q, valid, continuous, allowed, known):
    """Fill rows ``first`` to ``last`` of the bottleneck costs from the row before them.

    These are the least that the costliest step of a chain to each candidate can cost, (W, C): 0 for
    candidates of the first waypoint; inf for those that are not ``valid`` (W, C) bool, and above
    ``known``.
    """
    count = valid.shape[1]
    for w in range(first, last):
        for c in range(count):
            low = np.inf
            for k in range(count if valid[w, c] else 0):
                p = (
                    c + k
                ) % count  # candidates are sorted so that the same column is the likeliest
                if bottleneck[w - 1, p] < low:
                    enough = min(low, known)
                    cost, _ = _cost(q[w - 1, p], q[w, c], continuous, allowed[w - 1], enough)
                    low = min(low, max(cost, bottleneck[w - 1, p]))
            bottleneck[w, c] = low


@cached_jit
def shortest_lengths(length, before, first, last, q, bottleneck, continuous, allowed, most):
    """Fill rows ``first`` to ``last`` of the lengths of the shortest chains.

    Args:
        length: (W, C) of the shortest chain to each candidate; of the first waypoint 0, or inf
            where it cannot be used.
        before: (W, C) int64, the candidate before each in that chain.
        first: waypoint, at least 1.
        last: waypoint, not included.
        q: (W, C, J) candidates.
        bottleneck: (W, C) costs of the candidates, see `bottleneck_costs`.
        continuous: (J,) bool, joints without limits.
        allowed: (W - 1, J) rad or m.
        most: that a candidate or step may cost.
    """
    count = bottleneck.shape[1]
    for w in range(first, last):
        for c in range(count):
            low = np.inf
            for k in range(count if bottleneck[w, c] <= most else 0):
                p = (c + k) % count
                if length[w - 1, p] < low:
                    cost, squares = _cost(q[w - 1, p], q[w, c], continuous, allowed[w - 1], most)
                    total = length[w - 1, p] + np.sqrt(squares)
                    if cost <= most and total < low:
                        low = total
                        before[w, c] = p
            length[w, c] = low


@cached_jit
def traced_back(length, before):
    """(W,) int64, the candidate of each waypoint in the shortest chain of all."""
    chosen = np.empty(len(length), np.int64)
    chosen[-1] = length[-1].argmin()
    for w in range(len(length) - 1, 0, -1):
        chosen[w - 1] = before[w, chosen[w]]
    return chosen
