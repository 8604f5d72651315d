# SPDX-License-Identifier: Apache-2.0
"""Compiled distances of a robot's spheres to obstacles, a vector of configurations at a time.

S spheres belong to L links, and another one lies around each link: A = S + L. An obstacle is a kind
with numbers, in closed form, or a grid of distances that are cut off. ``kinds`` (O, 5) int64 has
the kind, and of a grid its first cell and how many cells there are along x, y, z. ``numbers``
(O, 17) has the map from the base into the obstacle's frame, rotation by rows and shift, then four
sizes, then the padding:

- SPHERE radius; BOX half edges; CYLINDER, CAPSULE, CONE radius and half length; HALF_SPACE none;
- GRID the corner of least x, y, z, and the edge of a cell.

``pair_obstacle`` lists, link by link as ``first_pair`` (L + 1,) says, what a link must not touch.
"""

import numpy as np

from .forward import place_base
from .jit import cached_jit, jit
from .layout import FRAME
from .simd import LANES, absolute, any_lane, load, select, square_root, store
from .spheres import coordinate, place_nodes, place_spheres

SPHERE, BOX, CYLINDER, CAPSULE, CONE, HALF_SPACE, GRID = range(7)
SHIFT, SIZES, PADDING = 9, 12, 16  # columns of the numbers
_STEP = 1e-5  # m, of the differences that normals are found from


@jit
def _most(a, b):
    return select(a > b, a, b)


@jit
def _least(a, b):
    return select(a < b, a, b)


@jit
def _above_zero(a):
    return select(a > 0, a, 0)


@jit
def _length(x, y):
    return square_root(x * x + y * y)


@jit
def _of_slabs(a, b):
    """Distance to what two slabs have in common, of the distances to either."""
    return _length(_above_zero(a), _above_zero(b)) + _least(_most(a, b), a * 0)


@jit
def _of_cone(s, p, z):
    """Distance of radius p and height z to a cone with half length s[1], its tip upwards."""
    radius, half = s[0], s[1]
    height = 2 * half
    along_base = p - _least(p, p * 0 + radius)
    base = _length(along_base, z + half)
    # the slope runs from (radius, -half) to (0, half)
    t = ((z + half) * height - (p - radius) * radius) / (height * height + radius * radius)
    t = _least(_above_zero(t), p * 0 + 1)
    slope = _length(p - radius + t * radius, z + half - t * height)
    inside = (z > -half) & ((p - radius) * height + (z + half) * radius < 0)
    distance = _least(base, slope)
    return select(inside, 0 - distance, distance)


@jit
def _trilinear(grid, shape, u, v, w):
    """A value of a grid at (u, v, w), counted in cells from its first, which lies within."""
    i = min(int(u), shape[2] - 2)
    j = min(int(v), shape[3] - 2)
    k = min(int(w), shape[4] - 2)
    u, v, w = u - i, v - j, w - k
    total = u * 0
    for a in range(2):
        for b in range(2):
            row = shape[1] + ((i + a) * shape[3] + j + b) * shape[4] + k
            value = grid[row] * (1 - w) + grid[row + 1] * w
            total += value * (u if a else 1 - u) * (v if b else 1 - v)
    return total


@jit
def _beyond_grid(s, shape, grid, u, v, w, inner_u, inner_v, inner_w):
    """The same of a point that lies outside: its distance to what is nearest to where it leaves."""
    value = _trilinear(grid, shape, inner_u, inner_v, inner_w)
    far_u, far_v, far_w = u - inner_u, v - inner_v, w - inner_w
    out = s[3] * np.sqrt(far_u * far_u + far_v * far_v + far_w * far_w)
    if out <= 0:
        return value
    h = 0.5 * min(out * 0 + 1, inner_u * 0 + 1)
    a, b = max(inner_u - h, u * 0), min(inner_u + h, u * 0 + (shape[2] - 1))
    du = (
        _trilinear(grid, shape, b, inner_v, inner_w) - _trilinear(grid, shape, a, inner_v, inner_w)
    ) / (b - a)
    a, b = max(inner_v - h, u * 0), min(inner_v + h, u * 0 + (shape[3] - 1))
    dv = (
        _trilinear(grid, shape, inner_u, b, inner_w) - _trilinear(grid, shape, inner_u, a, inner_w)
    ) / (b - a)
    a, b = max(inner_w - h, u * 0), min(inner_w + h, u * 0 + (shape[4] - 1))
    dw = (
        _trilinear(grid, shape, inner_u, inner_v, b) - _trilinear(grid, shape, inner_u, inner_v, a)
    ) / (b - a)
    length = max(np.sqrt(du * du + dv * dv + dw * dw), u * 0 + 1e-6)
    back = value / length
    x, y, z = s[3] * far_u + back * du, s[3] * far_v + back * dv, s[3] * far_w + back * dw
    return np.sqrt(x * x + y * y + z * z)


@jit
def _of_grid(s, shape, grid, scratch, x, y, z):
    """Distances of points in a grid's own frame to what it is of."""
    edge = s[3]
    store(scratch, 0, (x - s[0]) / edge)
    store(scratch, 1, (y - s[1]) / edge)
    store(scratch, 2, (z - s[2]) / edge)
    for lane in range(LANES):
        u, v, w = scratch[lane], scratch[LANES + lane], scratch[2 * LANES + lane]
        if not (u == u and v == v and w == w):  # NaN
            continue
        inner_u = min(max(u, u * 0), u * 0 + (shape[2] - 1))
        inner_v = min(max(v, u * 0), u * 0 + (shape[3] - 1))
        inner_w = min(max(w, u * 0), u * 0 + (shape[4] - 1))
        scratch[lane] = _beyond_grid(s, shape, grid, u, v, w, inner_u, inner_v, inner_w)
    return load(scratch, 0)


@jit
def _signed_distance(shape, numbers, grid, scratch, px, py, pz):
    """Distances of points in the base to an obstacle, without its padding."""
    m, s = numbers, numbers[SIZES:]
    x = m[0] * px + m[1] * py + m[2] * pz + m[9]
    y = m[3] * px + m[4] * py + m[5] * pz + m[10]
    z = m[6] * px + m[7] * py + m[8] * pz + m[11]
    kind = shape[0]
    if kind == BOX:
        a, b, c = absolute(x) - s[0], absolute(y) - s[1], absolute(z) - s[2]
        inside = _least(_most(_most(a, b), c), a * 0)
        a, b, c = _above_zero(a), _above_zero(b), _above_zero(c)
        return square_root(a * a + b * b + c * c) + inside
    if kind == HALF_SPACE:
        return z
    if kind == SPHERE:
        return square_root(x * x + y * y + z * z) - s[0]
    if kind == GRID:
        return _of_grid(s, shape, grid, scratch, x, y, z)
    p = _length(x, y)
    if kind == CYLINDER:
        return _of_slabs(p - s[0], absolute(z) - s[1])
    if kind == CONE:
        return _of_cone(s, p, z)
    return _length(p, _above_zero(absolute(z) - s[1])) - s[0]


@jit
def _search_link(
    work, scratch, radius, first, link, first_pair, pair_obstacle, kinds, numbers, grid, state
):  # fmt: skip
    """Update distance, sphere and obstacle in rows ``state`` by what a link must not touch."""
    all_spheres = len(radius)
    around = first[-1] + link
    x, y = load(work, around), load(work, all_spheres + around)
    z = load(work, 2 * all_spheres + around)
    for pair in range(first_pair[link], first_pair[link + 1]):
        o = pair_obstacle[pair]
        shape, own, padding = kinds[o], numbers[o], numbers[o, PADDING]
        bound = _signed_distance(shape, own, grid, scratch, x, y, z) - (radius[around] + padding)
        if not any_lane(bound < load(work, state)):
            continue
        least, sphere, obstacle = load(work, state), load(work, state + 1), load(work, state + 2)
        for i in range(first[link], first[link + 1]):
            a, b = load(work, i), load(work, all_spheres + i)
            c = load(work, 2 * all_spheres + i)
            distance = _signed_distance(shape, own, grid, scratch, a, b, c) - (radius[i] + padding)
            nearer = distance < least
            least = select(nearer, distance, least)
            sphere = select(nearer, np.float32(i), sphere)
            obstacle = select(nearer, np.float32(o), obstacle)
        store(work, state, least)
        store(work, state + 1, sphere)
        store(work, state + 2, obstacle)


@jit
def _exactly(frames, lane, node, centre, i, shape, numbers, grid, scratch, point, normal):
    """Distance of a sphere's centre to an obstacle in float64, and its normal in the base."""
    for r in range(3):
        point[r] = coordinate(frames, lane, node, centre, i, r)
        for other in range(LANES):
            scratch[(3 + r) * LANES + other] = point[r]
        scratch[(3 + r) * LANES + 1 + 2 * r] += _STEP
        scratch[(3 + r) * LANES + 2 + 2 * r] -= _STEP
    found = _signed_distance(
        shape, numbers, grid, scratch, load(scratch, 3), load(scratch, 4), load(scratch, 5)
    )
    store(scratch, 6, found)
    for r in range(3):
        ahead, behind = scratch[6 * LANES + 1 + 2 * r], scratch[6 * LANES + 2 + 2 * r]
        normal[r] = (ahead - behind) / (2 * _STEP)
    return scratch[6 * LANES]


@jit
def _add_gradient(frames, lane, parent, prismatic, joint, multiplier, node, point, normal, out):
    """Add to out (J,) how a point on a node moves along a normal, per joint motion."""
    k = node
    while k >= 0:
        row = (k + 1) * FRAME
        moved = 0.0
        if prismatic[k]:
            for r in range(3):
                moved += normal[r] * frames[(row + 6 + r) * LANES + lane]
        else:
            for r in range(3):
                s, t = (r + 1) % 3, (r + 2) % 3
                arm_s = point[s] - frames[(row + 9 + s) * LANES + lane]
                arm_t = point[t] - frames[(row + 9 + t) * LANES + lane]
                z_s, z_t = (
                    frames[(row + 6 + s) * LANES + lane],
                    frames[(row + 6 + t) * LANES + lane],
                )
                moved += normal[r] * (z_s * arm_t - z_t * arm_s)
        out[joint[k]] += multiplier[k] * moved
        k = parent[k]


@cached_jit
def obstacle_distances(
    motion, parent, prismatic, placement, joint, multiplier, num_joints, node, centre, radius,
    first, first_pair, pair_obstacle, kinds, numbers, grid, cap, of_links, with_gradient,
):  # fmt: skip
    """Distances to the nearest obstacle; beyond the cap, the cap.

    Which sphere and obstacle these are of is found in float32, how far apart they are in float64.

    Args:
        motion: (3 * K * N,) float64, motions of the nodes, their cosines, their sines, N of
            each; N is a multiple of `LANES`.
        parent, prismatic, placement, joint, multiplier: of the nodes, see `Robot`.
        num_joints: J.
        node: (A,) int64 that a sphere moves with, -1 is the base.
        centre: (A, 3) float64 m, in the frame of the node.
        radius: (A,) float64 m, with the padding of the link.
        first: (L + 1,) int64, the spheres of a link.
        first_pair, pair_obstacle, kinds, numbers: see above, float64.
        grid: (C,) float32 m, the values of all grids.
        cap: m.
        of_links: whether each link has a distance of its own.
        with_gradient: whether gradients are wanted.

    Returns:
        Distances (N, R) m, R being L or 1, and gradients (N, R, J), 0 beyond the cap; (0, R, J)
        where they are not wanted.
    """
    num_links, all_spheres = len(first) - 1, len(radius)
    num_rows = num_links if of_links else 1
    count = len(motion) // (3 * len(parent))
    found = np.full((count, num_rows), cap)
    gradient = np.zeros((count if with_gradient else 0, num_rows, num_joints))
    frames = np.zeros((len(parent) + 1) * FRAME * LANES)
    place_base(frames)
    coarse = np.empty(len(frames), np.float32)
    work = np.zeros((3 * all_spheres + 3 * num_rows) * LANES, np.float32)
    scratch, fine_scratch = np.zeros(3 * LANES, np.float32), np.zeros(7 * LANES)
    coarse_radius, coarse_numbers = radius.astype(np.float32), numbers.astype(np.float32)
    point, normal = np.empty(3), np.empty(3)
    for tile in range(count // LANES):
        place_nodes(frames, motion, tile, parent, prismatic, placement)
        place_spheres(frames, coarse, work, node, centre)
        for row in range(num_rows):
            state = 3 * all_spheres + 3 * row
            store(work, state, np.float32(cap))
            store(work, state + 1, np.float32(-1))
        for link in range(num_links):
            state = 3 * all_spheres + (3 * link if of_links else 0)
            _search_link(
                work, scratch, coarse_radius, first, link, first_pair, pair_obstacle, kinds,
                coarse_numbers, grid, state,
            )  # fmt: skip
        for row in range(num_rows):
            state = 3 * all_spheres + 3 * row
            for lane in range(LANES):
                i = np.int64(work[(state + 1) * LANES + lane])
                if i < 0:
                    continue
                n = tile * LANES + lane
                o = np.int64(work[(state + 2) * LANES + lane])
                distance = _exactly(
                    frames, lane, node, centre, i, kinds[o], numbers[o], grid, fine_scratch, point,
                    normal,
                )  # fmt: skip
                found[n, row] = distance - radius[i] - numbers[o, PADDING]
                if with_gradient:
                    _add_gradient(
                        frames, lane, parent, prismatic, joint, multiplier, node[i], point, normal,
                        gradient[n, row],
                    )  # fmt: skip
    return found, gradient
