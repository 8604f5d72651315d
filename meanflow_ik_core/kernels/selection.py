# SPDX-License-Identifier: Apache-2.0
"""The choice among candidates: the best that differ, or those far apart."""

import numpy as np

from .jit import cached_jit, jit


@jit
def joint_difference(a, b, continuous):
    """Size of a - b, rad or m; the short way round for a continuous joint."""
    delta = abs(a - b)
    if continuous:
        delta = delta % (2 * np.pi)
        delta = min(delta, 2 * np.pi - delta)
    return delta


@cached_jit
def best(q, continuous, valid, count, min_separation):
    """Choose the first ``count`` valid candidates that differ from all chosen before.

    Args:
        q: (N, J) candidates, best first, rad or m.
        continuous: (J,) bool, joints without limits.
        valid: (N,) bool.
        count: how many at most.
        min_separation: rad or m; candidates whose largest joint difference is smaller are the same.

    Returns:
        Indices into ``q``, int64, in the order of the choice.
    """
    num_candidates, num_joints = q.shape
    chosen = np.empty(min(count, num_candidates), dtype=np.int64)
    found = 0
    for i in range(num_candidates):
        if found == count:
            break
        if not valid[i]:
            continue
        is_new = True
        for k in range(found):
            differs = False
            for j in range(num_joints):
                if joint_difference(q[i, j], q[chosen[k], j], continuous[j]) >= min_separation:
                    differs = True
                    break
            if not differs:
                is_new = False
                break
        if is_new:
            chosen[found] = i
            found += 1
    return chosen[:found]


@cached_jit
def diverse(q, continuous, valid, count, min_separation):
    """Choose the first valid candidate, then always the one farthest from all chosen before.

    Arguments and result are those of `best`.
    """
    num_candidates, num_joints = q.shape
    chosen = np.empty(min(count, num_candidates), dtype=np.int64)
    nearest = np.full(num_candidates, np.inf)  # squared distance to the chosen set
    separated = valid.copy()  # valid and not the same as a chosen one
    found = 0
    while found < chosen.size:
        farthest, distance = -1, -1.0
        for i in range(num_candidates):
            if separated[i] and nearest[i] > distance:
                farthest, distance = i, nearest[i]
        if farthest < 0:
            break
        chosen[found] = farthest
        found += 1
        for i in range(num_candidates):
            if separated[i]:
                total, largest = 0.0, 0.0
                for j in range(num_joints):
                    delta = joint_difference(q[i, j], q[farthest, j], continuous[j])
                    total += delta * delta
                    largest = max(largest, delta)
                nearest[i] = min(nearest[i], total)
                if largest < min_separation:
                    separated[i] = False
    return chosen[:found]
