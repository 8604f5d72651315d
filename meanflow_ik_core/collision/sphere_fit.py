# SPDX-License-Identifier: Apache-2.0
"""Spheres that stand for collision shapes: their union follows the surface of each body."""

from typing import Any, NamedTuple

import coal
import numpy as np

from ..kernels.sphere_union import distances_beyond, fit_union, spread

METHOD = 10  # to be raised with every change of what is found, for it is kept in a cache
_POINTS = 800  # per body, spread over its surface by area
_HOLLOW_POINTS = 1600  # of a body that is not convex
_SIDES = 32  # of a round shape's polygon
_ITERATIONS = 30
_COUNTS = (1, 2, 3, 4, 8, 16)
# For bodies that reach farther than LARGE from their middle, such as a torso; then if hollow.
_MORE_COUNTS = (24, 48)
_MOST_COUNTS = (96,)
LARGE = 0.2  # m
_MARGIN = 0.02  # m, how far free points are from a body at least
# m, of the points that say how far a body sticks out of its spheres; along it at most so many.
_SPACING, _MOST_ALONG = 0.004, 80
MOST_POINTS = 1_000_000  # of all shapes of a body, unless their corners are more
_FARTHEST = 64  # of them, that are looked at together
_ROUND_OFF = 0.001  # m, what a round shape may be larger than its polygons


class Spheres(NamedTuple):
    """S spheres of a body, in the body's frame."""

    centre: np.ndarray  # (S, 3) m
    radius: np.ndarray  # (S,) m


def triangles_from_shape(shape: Any) -> np.ndarray:
    """(F, 3, 3) corners of the triangles of a shape's surface, in the shape's frame, m.

    Raises:
        TypeError: Coal's shape is of a kind that is not known here.
    """
    if isinstance(shape, coal.Box):
        corners = np.array(np.meshgrid(*[(-1, 1)] * 3, indexing="ij")).reshape(3, 8).T
        faces = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
        index = [corner for a, b, c, d in faces for corner in ((a, b, c), (a, c, d))]
        return (corners * np.asarray(shape.halfSide).reshape(3))[index]
    if isinstance(shape, coal.Sphere):
        return _lathe(_half_circle(shape.radius))
    if isinstance(shape, coal.Ellipsoid):
        return _lathe(_half_circle(1.0)) * np.asarray(shape.radii).reshape(3)
    if isinstance(shape, coal.Capsule):
        circle = _half_circle(shape.radius)
        shift = np.array((0.0, shape.halfLength))
        half = len(circle) // 2 + 1
        return _lathe(np.vstack((circle[:half] - shift, circle[half - 1 :] + shift)))
    if isinstance(shape, coal.Cylinder):
        r, h = shape.radius, shape.halfLength
        return _lathe(np.array([(0, -h), (r, -h), (r, h), (0, h)]))
    if isinstance(shape, coal.Cone):
        r, h = shape.radius, shape.halfLength
        return _lathe(np.array([(0, -h), (r, -h), (0, h)]))
    if isinstance(shape, coal.Convex):
        faces = [shape.polygons(face) for face in range(shape.num_polygons)]
        return np.asarray(shape.points())[_corners(faces)]
    if isinstance(shape, coal.BVHModelBase):
        faces = [shape.tri_indices(face) for face in range(shape.num_tris)]
        return np.asarray(shape.vertices())[_corners(faces)]
    raise TypeError(f"collision shape {type(shape).__name__} has no surface to cover")


class Body(NamedTuple):
    """Points that spheres are fitted to, all (P, 3) m."""

    surface: np.ndarray
    core: np.ndarray  # inside, where the spheres begin
    free: np.ndarray  # around the body and in its hollows
    room: np.ndarray  # (P,) m, distance of the free points from the body
    hollow: bool  # a mesh that is not convex


def body_from_shapes(shapes: list[np.ndarray], convex: list[bool]) -> Body:
    """Points on, in and around the union of shapes.

    Args:
        shapes: triangles (F, 3, 3) of each shape, all in the frame of the body.
        convex: whether each shape is; what lies inside a convex shape is not on the union.
    """
    rng = np.random.default_rng(0)
    count = _POINTS if all(convex) else _HOLLOW_POINTS
    area = [_areas(triangles).sum() for triangles in shapes]
    whole = sum(area) or 1.0  # lines and points have no area
    outside, inside = [], []
    for index, triangles in enumerate(shapes):
        share = 4 * max(16, round(count * area[index] / whole))
        points = _on_triangles(triangles, share, rng)
        inside.append(0.5 * (points + points[rng.permutation(len(points))]))
        for other, planes in enumerate(shapes):
            if other != index and convex[other]:
                points = points[_depth(planes, points) < 1e-3]
        outside.append(points)
    surface, core = np.concatenate(outside), np.concatenate(inside)
    surface = surface if len(surface) else core
    surface, core = (points[rng.permutation(len(points))[:count]] for points in (surface, core))
    free, room = np.zeros((0, 3)), np.zeros(0)
    if len(shapes) > 1 or not all(convex):  # else no sphere can stick out unnoticed
        low, high = surface.min(0) - _MARGIN, surface.max(0) + _MARGIN
        free = low + rng.random((count, 3)) * (high - low)
        for planes, is_convex in zip(shapes, convex, strict=True):
            if is_convex:
                free = free[_depth(planes, free) < 0]
        room = _distances(surface, np.zeros(len(surface)), free).min(1, initial=np.inf)
        free, room = free[room > _MARGIN], room[room > _MARGIN]
    return Body(surface, core, free, room, not all(convex))


def fit_spheres(body: Body, tolerance: float) -> Spheres:
    """As few spheres as follow a surface to the tolerance, 16 at most, or 48 for a large body,
    or 96 for one that is hollow too.

    Args:
        body: what to follow.
        tolerance: m, root mean square distance of its surface from the union of the spheres.
    """
    surface = body.surface
    best, least = Spheres(surface[:1], np.zeros(1)), np.inf
    reach = np.linalg.norm(surface - surface.mean(0), axis=-1).max()
    counts = _COUNTS
    if reach > LARGE:
        counts += _MORE_COUNTS + (_MOST_COUNTS if body.hollow else ())
    for count in counts:
        spheres = _fit(body, count)
        error = float(np.sqrt(np.mean(signed_distance(spheres, surface) ** 2)))
        if error < least:
            best, least = spheres, error
        if least <= tolerance:
            break
    return best


def lack_of(
    spheres: Spheres, shapes: list[np.ndarray], convex: list[bool], most_points: int = MOST_POINTS
) -> float:
    """How far [m] the union of shapes sticks out of spheres at most; arguments as above.

    With fewer points the answer is larger.
    """
    lack = 0.0
    extent = np.ptp(np.concatenate(shapes).reshape(-1, 3), axis=0).max()
    spacing = max(_SPACING, float(extent) / _MOST_ALONG)
    longest = [_longest(triangles) for triangles in shapes]
    # Farther apart where they were too many, as long as a triangle has any but its corners.
    while sum(_count_points(edges, spacing) for edges in longest) > most_points and any(
        edges.max() > spacing for edges in longest
    ):
        spacing *= 1.5
    for index, triangles in enumerate(shapes):
        points = points_on_mesh(triangles, spacing)
        alone = not any(solid for other, solid in enumerate(convex) if other != index)
        distance = distances_beyond(*spheres, points, lack, alone)
        points, distance = points[distance > lack], distance[distance > lack]
        order = np.argsort(-distance)
        for begin in range(0, len(order), _FARTHEST):
            some = order[begin : begin + _FARTHEST]
            for other, planes in enumerate(shapes):
                if other != index and convex[other]:
                    some = some[_depth(planes, points[some]) < 1e-3]
            if len(some):
                lack = float(distance[some[0]])
                break
    # No place on a triangle is farther from the nearest of the points than this.
    return lack + spacing / np.sqrt(3) + _ROUND_OFF


def signed_distance(spheres: Spheres, points: np.ndarray) -> np.ndarray:
    """(P,) m from points (P, 3) to the union of spheres; negative inside one of them."""
    return _distances(spheres.centre, spheres.radius, points).min(-1)


def _fit(body: Body, count: int) -> Spheres:
    centre = spread(body.core, count)
    radius = np.quantile(_distances(centre, np.zeros(count), body.surface), 0.02, axis=0)
    points = np.concatenate((body.surface, body.free))
    return Spheres(*fit_union(points, len(body.surface), body.room, centre, radius, _ITERATIONS))


def _distances(centre: np.ndarray, radius: np.ndarray, points: np.ndarray) -> np.ndarray:
    # by products instead of differences, which is five times as fast and right to 1e-8 m
    square = (points**2).sum(1)[:, None] + (centre**2).sum(1) - 2 * points @ centre.T
    return np.sqrt(np.maximum(square, 0.0)) - radius


def points_on_mesh(corners: np.ndarray, spacing: float) -> np.ndarray:
    """Points (N, 3) on triangles (F, 3, 3), none of which is farther than that from the next."""
    counts = _parts_along(_longest(corners), spacing)
    parts = []
    for count in np.unique(counts).tolist():
        i, j = np.meshgrid(np.arange(count + 1), np.arange(count + 1), indexing="ij")
        inside = i + j <= count
        weights = np.stack((i[inside], j[inside], count - i[inside] - j[inside]), -1) / count
        parts.append(np.einsum("wk,fkd->fwd", weights, corners[counts == count]).reshape(-1, 3))
    return np.concatenate(parts)


def _longest(corners: np.ndarray) -> np.ndarray:
    return np.linalg.norm(corners - np.roll(corners, 1, 1), axis=-1).max(1)


def _parts_along(longest: np.ndarray, spacing: float) -> np.ndarray:
    return np.maximum(1, np.ceil(longest / spacing)).astype(np.int64)


def _count_points(longest: np.ndarray, spacing: float) -> int:
    counts = _parts_along(longest, spacing)
    return int(((counts + 1) * (counts + 2) // 2).sum())


def _corners(faces: list) -> list[tuple[int, int, int]]:
    # Coal's triangles have no end to iterate to
    return [(face[0], face[1], face[2]) for face in faces]


def _half_circle(radius: float) -> np.ndarray:
    angle = np.linspace(-np.pi / 2, np.pi / 2, _SIDES // 2 + 1)
    return radius * np.stack((np.cos(angle), np.sin(angle)), -1)


def _lathe(profile: np.ndarray) -> np.ndarray:
    """Triangles of the surface that a profile (P, 2) of (radius, height) draws around z."""
    angle = np.linspace(0, 2 * np.pi, _SIDES + 1)
    around = np.stack((np.cos(angle), np.sin(angle)), -1)
    ring = np.concatenate(
        (
            profile[:, None, :1] * around,
            np.broadcast_to(profile[:, None, 1:], (len(profile), _SIDES + 1, 1)),
        ),
        -1,
    )
    a, b, c, d = ring[:-1, :-1], ring[:-1, 1:], ring[1:, 1:], ring[1:, :-1]
    both = np.concatenate((np.stack((a, b, c), -2), np.stack((a, c, d), -2)))
    both = both.reshape(-1, 3, 3)
    return both[_areas(both) > 1e-12]


def _areas(triangles: np.ndarray) -> np.ndarray:
    return 0.5 * np.linalg.norm(_normals(triangles), axis=-1)


def _normals(triangles: np.ndarray) -> np.ndarray:
    return np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])


def _on_triangles(triangles: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    area = np.cumsum(_areas(triangles))
    position = (np.arange(count) + rng.random(count)) / count * area[-1]
    chosen = triangles[np.minimum(np.searchsorted(area, position), len(triangles) - 1)]
    u, v = np.sort(rng.random((2, count)), axis=0)
    weights = np.stack((u, v - u, 1 - v), -1)
    return np.einsum("ni,nik->nk", weights, chosen)


def _depth(triangles: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(P,) how deep points lie in a convex shape; negative outside."""
    normal = _normals(triangles)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    corner = triangles[:, 0]
    middle = triangles.reshape(-1, 3).mean(0)
    normal *= np.sign(np.einsum("fk,fk->f", normal, corner - middle))[:, None]
    beyond = points @ normal.T - np.einsum("fk,fk->f", normal, corner)
    return -beyond.max(-1)
