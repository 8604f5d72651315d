# SPDX-License-Identifier: Apache-2.0
"""Unions of spheres that follow points, see `collision.sphere_fit`."""

import numpy as np

from .jit import cached_jit, jit

_LLOYD = 10  # iterations
_LEAST_RADIUS = 1e-4  # m
_DAMPING, _LEAST_DAMPING = 0.05, 1e-6  # for each point of a sphere, and in any case


@jit
def _square(points, p, centre, s):
    x, y, z = (
        points[p, 0] - centre[s, 0],
        points[p, 1] - centre[s, 1],
        points[p, 2] - centre[s, 2],
    )
    return x * x + y * y + z * z


@cached_jit
def spread(points, count):
    """Means (count, 3) of clusters of points (P, 3): farthest points, then Lloyd's iteration."""
    num_points = len(points)
    centre = np.zeros((count, 3))
    for p in range(num_points):
        centre[0] += points[p]
    centre[0] /= num_points
    gap = np.empty(num_points)
    for p in range(num_points):
        gap[p] = _square(points, p, centre, 0)
    first = np.argmax(gap)
    centre[0] = points[first]
    gap[:] = np.inf
    for s in range(1, count):
        for p in range(num_points):
            gap[p] = min(gap[p], _square(points, p, centre, s - 1))
        centre[s] = points[np.argmax(gap)]
    total, size = np.empty((count, 3)), np.empty(count)
    for _ in range(_LLOYD):
        total[:], size[:] = 0.0, 0.0
        for p in range(num_points):
            owner, least = 0, np.inf
            for s in range(count):
                square = _square(points, p, centre, s)
                if square < least:
                    owner, least = s, square
            total[owner] += points[p]
            size[owner] += 1
        for s in range(count):
            if size[s] > 0:
                centre[s] = total[s] / size[s]
    return centre


@jit
def _solve(matrix, right):
    """Solve four equations with a positive definite matrix, which is overwritten, into right."""
    for k in range(4):
        for i in range(k + 1, 4):
            share = matrix[i, k] / matrix[k, k]
            for j in range(k, 4):
                matrix[i, j] -= share * matrix[k, j]
            right[i] -= share * right[k]
    for k in range(3, -1, -1):
        for j in range(k + 1, 4):
            right[k] -= matrix[k, j] * right[j]
        right[k] /= matrix[k, k]


@cached_jit
def fit_union(points, num_surface, room, centre, radius, iterations):
    """Move spheres until their union follows points.

    Points belong to the sphere that they are deepest in, and each sphere takes a damped
    Gauss-Newton step towards its points, in turns.

    Args:
        points: (P, 3) m, first those of a surface, then free ones.
        num_surface: how many are of the surface.
        room: (F,) m, that the free ones have; nearer spheres are pushed away.
        centre: (S, 3) m, where the spheres begin.
        radius: (S,) m.
        iterations: how many steps.

    Returns:
        Centres and radii with the least mean square of what is off.
    """
    count, num_points = len(radius), len(points)
    centre, radius = centre.copy(), radius.copy()
    best_centre, best_radius, least = centre.copy(), radius.copy(), np.inf
    gram, right = np.empty((count, 4, 4)), np.empty((count, 4))
    size, feature = np.empty(count), np.empty(4)
    for _ in range(iterations):
        gram[:], right[:], size[:] = 0.0, 0.0, 0.0
        loss = 0.0
        for p in range(num_points):
            owner, residual = 0, np.inf
            for s in range(count):
                distance = np.sqrt(_square(points, p, centre, s)) - radius[s]
                if distance < residual:
                    owner, residual = s, distance
            length = max(residual + radius[owner], 1e-9)
            if p >= num_surface:
                residual = min(residual - room[p - num_surface], 0.0)
            if residual == 0.0:
                continue
            loss += residual * residual
            for k in range(3):
                feature[k] = (centre[owner, k] - points[p, k]) / length
            feature[3] = -1.0
            size[owner] += 1
            for k in range(4):
                right[owner, k] += feature[k] * residual
                for j in range(4):
                    gram[owner, k, j] += feature[k] * feature[j]
        if loss < least:
            least = loss
            best_centre[:], best_radius[:] = centre, radius
        for s in range(count):
            for k in range(4):
                gram[s, k, k] += _DAMPING * size[s] + _LEAST_DAMPING
            _solve(gram[s], right[s])
            for k in range(3):
                centre[s, k] -= right[s, k]
            radius[s] = max(radius[s] - right[s, 3], _LEAST_RADIUS)
    return best_centre, best_radius


@cached_jit
def distances_beyond(centre, radius, points, enough, is_rising):
    """Distances (P,) m from points to a union of spheres, where these are larger than enough.

    Args:
        centre: (S, 3) m.
        radius: (S,) m.
        points: (P, 3) m.
        enough: m; of what is not farther any number up to that is told.
        is_rising: whether the largest distance so far is enough from then on, as for who asks for
            the largest alone.
    """
    found = np.empty(len(points))
    nearest = 0
    for p in range(len(points)):
        # the sphere of the point before is likely to be near
        distance = np.sqrt(_square(points, p, centre, nearest)) - radius[nearest]
        for s in range(len(radius)):
            if distance <= enough:
                break
            other = np.sqrt(_square(points, p, centre, s)) - radius[s]
            if other < distance:
                distance, nearest = other, s
        found[p] = distance
        if is_rising:
            enough = max(enough, distance)
    return found
