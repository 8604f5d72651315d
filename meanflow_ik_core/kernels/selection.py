# SPDX-License-Identifier: Apache-2.0
"""The choice among candidates: the best that differ, or those far apart."""

import numpy as np
from numba import boolean, float64, int64, types

from .jit import jit, linked_jit
from .simd import LANES, floor, load, select, store

_SHORT = 16  # runs that are sorted by insertion
_TURN = 2 * np.pi
_CHOICE = int64[::1](float64[:, ::1], int64[::1], boolean[::1], int64, float64)


@jit
def joint_difference(a, b, continuous):
    """Size of a - b, rad or m; the short way round for a continuous joint."""
    delta = abs(a - b)
    if continuous:
        delta = delta % _TURN
        delta = min(delta, _TURN - delta)
    return delta


@jit
def sort(order, key):
    """Sort indices by their keys, in place; equal ones keep their order."""
    n = order.size
    for low in range(0, n, _SHORT):
        for i in range(low, min(low + _SHORT, n)):
            own, p = order[i], i
            while p > low and key[order[p - 1]] > key[own]:
                order[p] = order[p - 1]
                p -= 1
            order[p] = own
    width = _SHORT
    merged = np.empty(n if n > width else 0, np.int64)
    while width < n:
        for low in range(0, n, 2 * width):
            middle, high = min(low + width, n), min(low + 2 * width, n)
            a, b = low, middle
            for k in range(low, high):
                if a < middle and (b >= high or key[order[a]] <= key[order[b]]):
                    merged[k] = order[a]
                    a += 1
                else:
                    merged[k] = order[b]
                    b += 1
        for k in range(n):
            order[k] = merged[k]
        width *= 2


@linked_jit(_CHOICE)
def best(q, order, continuous, count, min_separation):
    """Choose the first ``count`` candidates that differ from all chosen before.

    Args:
        q: (N, J) candidates, rad or m.
        order: (n,) int64, candidates to choose among, best first.
        continuous: (J,) bool, joints without limits.
        count: how many at most.
        min_separation: rad or m; candidates whose largest joint difference is smaller are the same.

    Returns:
        Candidates, int64, in the order of the choice.
    """
    chosen = np.empty(min(count, order.size), np.int64)
    found = 0
    for i in order:
        if found == chosen.size:
            break
        is_new = True
        for k in range(found - 1, -1, -1):  # the nearest in cost are the likeliest to be the same
            differs = False
            for j in range(q.shape[1]):
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


@linked_jit(_CHOICE)
def diverse(q, order, continuous, count, min_separation):
    """Choose the first candidate, then always the one farthest from all chosen before.

    Arguments are those of `best`. This is the farthest-point choice of Gonzalez 1985, of vectors
    of candidates.

    Returns:
        Candidates, int64, in the order of the choice.
    """
    num_joints, n = q.shape[1], order.size
    chosen = np.empty(min(count, n), np.int64)
    if chosen.size == 0:
        return chosen
    tiles = (n + LANES - 1) // LANES
    # Joints of all candidates, joint by joint, then the squared distance to the chosen ones, -1 for
    # those that are chosen or the same as one that is, and numbers; then two rows to look for the
    # farthest.
    nearest, number, farthest = (
        num_joints * tiles,
        (num_joints + 1) * tiles,
        (num_joints + 2) * tiles,
    )
    work = np.empty((farthest + 2, LANES))
    for i in range(tiles * LANES):
        tile, lane = i // LANES, i % LANES
        for j in range(num_joints):
            work[j * tiles + tile, lane] = q[order[min(i, n - 1)], j]
        work[nearest + tile, lane] = np.inf if i < n else -1.0
        work[number + tile, lane] = i
    own = 0
    for k in range(chosen.size):
        chosen[k] = order[own]
        first = chosen[k]
        work[nearest + own // LANES, own % LANES] = -1.0
        largest_distance = load(work, 0) * 0.0 - 1.0
        which = largest_distance
        for tile in range(tiles):
            before = load(work, nearest + tile)
            total = load(work, tile) * 0.0
            largest = total
            for j in range(num_joints):
                delta = load(work, j * tiles + tile) - q[first, j]
                delta = select(delta < 0.0, 0.0 - delta, delta)
                if continuous[j]:
                    delta = delta - floor(delta * (1.0 / _TURN)) * _TURN
                    delta = select(delta > 0.5 * _TURN, _TURN - delta, delta)
                total += delta * delta
                largest = select(delta > largest, delta, largest)
            now = select(total < before, total, before)
            now = select(largest < min_separation, -1.0, now)
            store(work, nearest + tile, now)
            farther = now > largest_distance
            which = select(farther, load(work, number + tile), which)
            largest_distance = select(farther, now, largest_distance)
        store(work, farthest, largest_distance)
        store(work, farthest + 1, which)
        own = -1
        distance = -1.0
        for lane in range(LANES):
            here, candidate = work[farthest, lane], int(work[farthest + 1, lane])
            if here > distance or (here == distance and here >= 0 and candidate < own):
                distance, own = here, candidate
        if own < 0:
            return chosen[: k + 1]
    return chosen


@linked_jit(
    types.Tuple((int64[::1], int64))(
        float64[:, ::1], float64[::1], boolean[::1], boolean[::1], int64, float64, boolean
    )
)
def choose(q, cost, valid, continuous, count, min_separation, is_diverse):
    """Choose the rows to return: valid candidates by `best` or `diverse`, then the nearest misses.

    Args:
        q: (N, J) candidates, rad or m.
        cost: (N,).
        valid: (N,) bool.
        continuous: (J,) bool, joints without limits.
        count: how many rows at most.
        min_separation: see `best`.
        is_diverse: whether the valid ones shall be far apart.

    Returns:
        Candidates, int64, each part in the order of its cost, and how many of them are valid.
    """
    num_valid = 0
    for i in range(valid.size):
        num_valid += valid[i]
    order = np.empty(valid.size, np.int64)
    a, b = 0, num_valid
    for i in range(valid.size):
        if valid[i]:
            order[a] = i
            a += 1
        else:
            order[b] = i
            b += 1
    sort(order[:num_valid], cost)
    if is_diverse:
        chosen = diverse(q, order[:num_valid], continuous, count, min_separation)
        sort(chosen, cost)
    else:
        chosen = best(q, order[:num_valid], continuous, count, min_separation)
    rows = np.empty(min(count, chosen.size + valid.size - num_valid), np.int64)
    for k in range(chosen.size):
        rows[k] = chosen[k]
    if chosen.size < rows.size:
        sort(order[num_valid:], cost)
        for k in range(chosen.size, rows.size):
            rows[k] = order[num_valid + k - chosen.size]
    return rows, chosen.size
