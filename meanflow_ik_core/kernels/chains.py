# SPDX-License-Identifier: Apache-2.0
"""The chain through candidates of successive waypoints with the smallest steps."""

import numpy as np

from .jit import cached_jit, jit
from .selection import joint_difference

# A step beyond a limit costs this much per multiple of the limit: more than any step within.
BEYOND = 1e6
ROUNDING = 1 + 1e-9  # of the comparison with a limit, or with another cost


@jit
def _cost(a, b, continuous, allowed, enough):
    """Cost of a step and the square of its length; the search may stop above ``enough``."""
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
def dearest_steps(q, valid, continuous, allowed, known):
    """What the dearest step on the way to each candidate costs at least (W, C); inf above
    ``known``."""
    waypoints, count = valid.shape
    dearest = np.full((waypoints, count), np.inf)
    dearest[0][valid[0]] = 0.0
    for w in range(1, waypoints):
        for c in range(count):
            low = np.inf
            for k in range(count if valid[w, c] else 0):
                p = (c + k) % count  # its own strand is the likeliest
                if dearest[w - 1, p] < low:
                    enough = min(low, known)
                    cost, _ = _cost(q[w - 1, p], q[w, c], continuous, allowed[w - 1], enough)
                    low = min(low, max(cost, dearest[w - 1, p]))
            dearest[w, c] = low
    return dearest


@cached_jit
def shortest_chain(q, dearest, continuous, allowed, most):
    """The shortest chain (W,) of candidates that are not ``dearest`` (W, C) than ``most``, by
    steps that do not cost more."""
    waypoints, count = dearest.shape
    length = np.where(dearest <= most, 0.0, np.inf)
    before = np.zeros((waypoints, count), np.int64)
    for w in range(1, waypoints):
        for c in range(count):
            low = np.inf
            for k in range(count if dearest[w, c] <= most else 0):
                p = (c + k) % count
                if length[w - 1, p] < low:
                    cost, squares = _cost(q[w - 1, p], q[w, c], continuous, allowed[w - 1], most)
                    total = length[w - 1, p] + np.sqrt(squares)
                    if cost <= most and total < low:
                        low = total
                        before[w, c] = p
            length[w, c] = low
    chosen = np.empty(waypoints, np.int64)
    chosen[-1] = length[-1].argmin()
    for w in range(waypoints - 1, 0, -1):
        chosen[w - 1] = before[w, chosen[w]]
    return chosen
