# SPDX-License-Identifier: Apache-2.0
"""The compiled search for the closest spheres, a vector of configurations at a time.

A work buffer has a vector of configurations per row. Its first rows are the coordinates of
A = S + L centres, x of all, y of all, z of all: the S spheres, then one sphere around each of the
L links. P rows follow with bounds of the distances of the pairs of links, then a row with the least
distance so far, and one with its code: i * S + j for spheres i and j, or -1 for none. Codes up to
2^24 are exact in float32.
"""

import numpy as np

from .forward import place_base
from .jit import cached_jit, jit
from .layout import FRAME
from .simd import LANES, any_lane, load, select, square_root, store


@jit
def _bound(work, radius, pair, shift):
    """A lower bound of the distances of the spheres of a pair of links."""
    all_spheres = len(radius)
    i, j = pair
    dx = load(work, i) - load(work, j)
    dy = load(work, all_spheres + i) - load(work, all_spheres + j)
    dz = load(work, 2 * all_spheres + i) - load(work, 2 * all_spheres + j)
    return square_root(dx * dx + dy * dy + dz * dz) - (radius[i] + radius[j] - shift)


@jit
def _search_pair(work, radius, first, a, b, shift, state):
    """Update distance and code in rows ``state`` by the spheres of links a and b."""
    all_spheres, num_spheres = len(radius), first[-1]
    if first[a + 1] - first[a] < first[b + 1] - first[b]:
        a, b = b, a
    around = num_spheres + b
    least, whose = load(work, state), load(work, state + 1)
    for i in range(first[a], first[a + 1]):
        if not any_lane(_bound(work, radius, (i, around), shift) < least):
            continue
        x, y = load(work, i), load(work, all_spheres + i)
        z = load(work, 2 * all_spheres + i)
        for j in range(first[b], first[b + 1]):
            dx = x - load(work, j)
            dy = y - load(work, all_spheres + j)
            dz = z - load(work, 2 * all_spheres + j)
            distance = square_root(dx * dx + dy * dy + dz * dz) - (radius[i] + radius[j] - shift)
            nearer = distance < least
            least = select(nearer, distance, least)
            whose = select(nearer, np.float32(i * num_spheres + j), whose)
    store(work, state, least)
    store(work, state + 1, whose)


@jit
def _search(work, radius, first, pairs, correction, cap):
    """Write distance and code of the closest spheres of all pairs of links; the cap if farther."""
    num_spheres, bounds = first[-1], 3 * len(radius)
    state = bounds + len(pairs)
    store(work, state, cap)
    store(work, state + 1, np.float32(-1))
    lowest, likely = load(work, state), load(work, state + 1)
    for pair in range(len(pairs)):
        links = num_spheres + pairs[pair, 0], num_spheres + pairs[pair, 1]
        bound = _bound(work, radius, links, correction[pair])
        store(work, bounds + pair, bound)
        lower = bound < lowest
        lowest = select(lower, bound, lowest)
        likely = select(lower, np.float32(pair), likely)
    # The pair with the lowest bound goes first, so that most others need no search.
    store(work, state + 1, likely)
    order = np.empty(LANES, np.int64)
    for lane in range(LANES):
        order[lane] = np.int64(work[(state + 1) * LANES + lane])
    store(work, state + 1, np.float32(-1))
    for lane in range(LANES):
        pair = order[lane]
        if pair >= 0 and any_lane(load(work, bounds + pair) < load(work, state)):
            a, b = pairs[pair, 0], pairs[pair, 1]
            _search_pair(work, radius, first, a, b, correction[pair], state)
            store(work, bounds + pair, np.float32(np.inf))
    for pair in range(len(pairs)):
        if any_lane(load(work, bounds + pair) < load(work, state)):
            a, b = pairs[pair, 0], pairs[pair, 1]
            _search_pair(work, radius, first, a, b, correction[pair], state)


@jit
def place_spheres(frames, coarse, work, node, centre):
    """Write the centres (S, 3) of spheres on nodes into the first 3 S rows of work, in float32.

    frames are those of `place_nodes`, and coarse is scratch as long as they are.
    """
    for i in range(len(frames)):
        coarse[i] = frames[i]
    count = len(node)
    for i in range(count):
        row = (node[i] + 1) * FRAME
        x, y, z = np.float32(centre[i, 0]), np.float32(centre[i, 1]), np.float32(centre[i, 2])
        for r in range(3):
            a, b = load(coarse, row + r) * x, load(coarse, row + r + 3) * y
            c, d = load(coarse, row + r + 6) * z, load(coarse, row + r + 9)
            store(work, r * count + i, a + b + c + d)


@cached_jit
def closest_spheres(centres, radius, first, pairs, correction, cap, whole):
    """Find the spheres that links are closest at.

    Args:
        centres: (3 * A, N) float32 m, x of all, y of all, z of all.
        radius: (A,) float32 m.
        first: (L + 1,) int64, the spheres of a link.
        pairs: (P, 2) int64, links.
        correction: (P,) float32 m, added to the distances of a pair.
        cap: float32 m.
        whole: look for the closest spheres of all pairs, not of each.

    Returns:
        Codes (P, N) int64, or (1, N) of all pairs; -1 where nothing is nearer than the cap.
    """
    num_rows, num_samples = centres.shape
    num_spheres, state = first[-1], num_rows + len(pairs)
    code = np.empty((1 if whole else len(pairs), num_samples), np.int64)
    work = np.zeros((state + 2) * LANES, np.float32)
    for begin in range(0, num_samples, LANES):
        size = min(LANES, num_samples - begin)
        for row in range(num_rows):
            for lane in range(size):
                work[row * LANES + lane] = centres[row, begin + lane]
        if whole:
            _search(work, radius, first, pairs, correction, cap)
            for lane in range(size):
                code[0, begin + lane] = np.int64(work[(state + 1) * LANES + lane])
            continue
        for pair in range(len(pairs)):
            a, b = pairs[pair, 0], pairs[pair, 1]
            store(work, state, cap)
            store(work, state + 1, np.float32(-1))
            links = num_spheres + a, num_spheres + b
            if any_lane(_bound(work, radius, links, correction[pair]) < load(work, state)):
                _search_pair(work, radius, first, a, b, correction[pair], state)
            for lane in range(size):
                code[pair, begin + lane] = np.int64(work[(state + 1) * LANES + lane])
    return code


@jit
def place_nodes(frames, motion, tile, parent, prismatic, m):
    """Write the frames of all nodes: frame k + 1 is node k, frame 0 the base (`place_base`)."""
    count = len(parent)
    tiles = len(motion) // (3 * count * LANES)
    for k in range(count):
        above, own = (parent[k] + 1) * FRAME, (k + 1) * FRAME
        shift = load(motion, k * tiles + tile)
        cosine = load(motion, (count + k) * tiles + tile)
        sine = load(motion, (2 * count + k) * tiles + tile)
        for r in range(3):
            u, v = load(frames, above + r), load(frames, above + r + 3)
            w, p = load(frames, above + r + 6), load(frames, above + r + 9)
            x = u * m[k, 0, 0] + v * m[k, 1, 0] + w * m[k, 2, 0]
            y = u * m[k, 0, 1] + v * m[k, 1, 1] + w * m[k, 2, 1]
            z = u * m[k, 0, 2] + v * m[k, 1, 2] + w * m[k, 2, 2]
            p = u * m[k, 0, 3] + v * m[k, 1, 3] + w * m[k, 2, 3] + p
            store(frames, own + r + 6, z)
            if prismatic[k]:
                store(frames, own + r, x)
                store(frames, own + r + 3, y)
                store(frames, own + r + 9, p + z * shift)
            else:
                store(frames, own + r, x * cosine + y * sine)
                store(frames, own + r + 3, y * cosine - x * sine)
                store(frames, own + r + 9, p)


@jit
def coordinate(frames, lane, node, centre, i, r):
    """Coordinate r of the centre of sphere i in the base."""
    row = (node[i] + 1) * FRAME + r
    return (
        frames[row * LANES + lane] * centre[i, 0]
        + frames[(row + 3) * LANES + lane] * centre[i, 1]
        + frames[(row + 6) * LANES + lane] * centre[i, 2]
        + frames[(row + 9) * LANES + lane]
    )


@cached_jit
def least_distances(
    motion, parent, prismatic, placement, node, centre, link, shift, radius, first, pairs,
    correction, cap,
):  # fmt: skip
    """Distance of the closest spheres of all pairs of links, (N,) m; beyond the cap, the cap.

    Which spheres these are is found in float32, how far apart they are in float64.

    Args:
        motion: (3 * K * N,) float64, motions of the nodes, their cosines, their sines, N of
            each; N is a multiple of `LANES`.
        parent, prismatic, placement: of the nodes, see `Robot`.
        node: (A,) int64 that a sphere moves with, -1 is the base.
        centre: (A, 3) float64 m, in the frame of the node.
        link: (S,) int64 of each sphere.
        shift: (L, L) float64 m, added to the distances of two links.
        radius: (A,) float32 m.
        first: (L + 1,) int64, the spheres of a link.
        pairs: (P, 2) int64, links.
        correction: (P,) float32 m, the shift of each pair.
        cap: float32 m.
    """
    num_spheres, all_spheres = first[-1], len(radius)
    state = 3 * all_spheres + len(pairs)
    found = np.empty(len(motion) // (3 * len(parent)))
    frames = np.zeros((len(parent) + 1) * FRAME * LANES)
    place_base(frames)
    coarse = np.empty(len(frames), np.float32)
    work = np.zeros((state + 2) * LANES, np.float32)
    for tile in range(len(found) // LANES):
        place_nodes(frames, motion, tile, parent, prismatic, placement)
        place_spheres(frames, coarse, work, node, centre)
        _search(work, radius, first, pairs, correction, cap)
        for lane in range(LANES):
            distance = np.float64(cap)
            code = np.int64(work[(state + 1) * LANES + lane])
            if code >= 0:
                i, j = code // num_spheres, code % num_spheres
                square = 1e-18
                for r in range(3):
                    offset = coordinate(frames, lane, node, centre, i, r)
                    offset -= coordinate(frames, lane, node, centre, j, r)
                    square += offset * offset
                distance = np.sqrt(square) - radius[i] - radius[j] + shift[link[i], link[j]]
            found[tile * LANES + lane] = distance
    return found
