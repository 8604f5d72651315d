# SPDX-License-Identifier: Apache-2.0
"""The compiled search for the closest spheres, a vector of configurations at a time."""

import numpy as np
from numba import njit

from .simd import LANES, any_lane, load, select, square_root, store


@njit(cache=True, nogil=True, error_model="numpy")
def closest_spheres(centres, radius, first, pairs, correction, cap, whole):
    """Which spheres i, j links are closest at, as i * S + j.

    A correction (P,) is added to the distances of a pair. Centres are (3 * (S + L), N), those from
    S on of spheres around whole links.
    For every pair of links, (P, N); or, when ``whole``, for the closest of all pairs, (1, N). What
    is farther apart than the cap has the code -1.
    """
    num_rows, num_samples = centres.shape
    all_spheres = len(radius)
    num_spheres = first[-1]
    rows = 1 if whole else len(pairs)
    code = np.empty((rows, num_samples), np.int64)
    # a vector per row: coordinates of the centres, the least distance, and whose it is
    work = np.zeros((num_rows + 2) * LANES, np.float32)
    for begin in range(0, num_samples, LANES):
        size = min(LANES, num_samples - begin)
        for row in range(num_rows):
            for lane in range(size):
                work[row * LANES + lane] = centres[row, begin + lane]
        store(work, num_rows, cap)
        store(work, num_rows + 1, np.float32(-1))
        for pair in range(len(pairs)):
            a, b = pairs[pair, 0], pairs[pair, 1]
            if first[a + 1] - first[a] < first[b + 1] - first[b]:
                a, b = b, a
            shift = correction[pair]
            if not whole:
                store(work, num_rows, cap)
                store(work, num_rows + 1, np.float32(-1))
            # nothing in the spheres around two links is nearer than these are
            i, around = num_spheres + a, num_spheres + b
            u, v = load(work, around), load(work, all_spheres + around)
            w = load(work, 2 * all_spheres + around)
            dx = load(work, i) - u
            dy = load(work, all_spheres + i) - v
            dz = load(work, 2 * all_spheres + i) - w
            bound = square_root(dx * dx + dy * dy + dz * dz) - (radius[i] + radius[around] - shift)
            if not any_lane(bound < load(work, num_rows)):
                if not whole:
                    for lane in range(size):
                        code[pair, begin + lane] = -1
                continue
            least, whose = load(work, num_rows), load(work, num_rows + 1)
            for i in range(first[a], first[a + 1]):
                x, y = load(work, i), load(work, all_spheres + i)
                z = load(work, 2 * all_spheres + i)
                dx, dy, dz = x - u, y - v, z - w
                reach = radius[i] + radius[around] - shift
                if not any_lane(square_root(dx * dx + dy * dy + dz * dz) - reach < least):
                    continue
                for j in range(first[b], first[b + 1]):
                    dx = x - load(work, j)
                    dy = y - load(work, all_spheres + j)
                    dz = z - load(work, 2 * all_spheres + j)
                    distance = square_root(dx * dx + dy * dy + dz * dz) - (
                        radius[i] + radius[j] - shift
                    )
                    nearer = distance < least
                    least = select(nearer, distance, least)
                    # whole numbers up to 2^24 are exact in float32
                    whose = select(nearer, np.float32(i * num_spheres + j), whose)
            store(work, num_rows, least)
            store(work, num_rows + 1, whose)
            if not whole:
                for lane in range(size):
                    code[pair, begin + lane] = np.int64(work[(num_rows + 1) * LANES + lane])
        if whole:
            for lane in range(size):
                code[0, begin + lane] = np.int64(work[(num_rows + 1) * LANES + lane])
    return code
