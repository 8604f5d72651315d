# SPDX-License-Identifier: Apache-2.0
"""Obstacles as the arrays that compiled distances read; meshes and clouds as grids."""

from collections.abc import Sequence
from typing import NamedTuple
from weakref import WeakKeyDictionary

import coal
import numpy as np

from ..kernels import obstacles as kernel
from ..kernels.distance_grid import grid_distances
from .obstacles import Obstacle, Shape
from .sphere_fit import points_on_mesh, triangles_from_shape

_KINDS = {
    "sphere": kernel.SPHERE, "box": kernel.BOX, "cylinder": kernel.CYLINDER,
    "capsule": kernel.CAPSULE, "cone": kernel.CONE, "half_space": kernel.HALF_SPACE,
    "mesh": kernel.GRID, "points": kernel.GRID,
}  # fmt: skip
_REACH = 0.1  # m, how far a grid goes beyond what it is of
_FINEST, _MOST_ALONG = 0.005, 96  # m, edge of a cell of a mesh; cells along its longest side
_POINTS_AT_ONCE = 1 << 22


_GRIDS: "WeakKeyDictionary[Shape, Grid]" = WeakKeyDictionary()


class Grid(NamedTuple):
    """Distances [m] at the points of a grid in the frame of a shape."""

    values: np.ndarray  # (X, Y, Z) float32
    corner: np.ndarray  # (3,) m, its first point
    edge: float  # m, from one point to the next


class ObstacleArrays(NamedTuple):
    """O obstacles, see `kernels.obstacles`."""

    kinds: np.ndarray  # (O, 5) int64
    numbers: np.ndarray  # (O, 17)
    grid: np.ndarray  # (C,) float32

    def at(self, poses: Sequence[np.ndarray]) -> "ObstacleArrays":
        """The same obstacles at other poses, T_base_shape (4, 4) each."""
        numbers = self.numbers.copy()
        for row, pose in zip(numbers, poses, strict=True):
            row[:9] = pose[:3, :3].T.ravel()
            row[kernel.SHIFT : kernel.SIZES] = -pose[:3, :3].T @ pose[:3, 3]
        return ObstacleArrays(self.kinds, numbers, self.grid)


def obstacle_arrays(obstacles: Sequence[Obstacle]) -> ObstacleArrays:
    """The arrays of obstacles that are not attached, without their poses."""
    kinds = np.zeros((len(obstacles), 5), np.int64)
    numbers = np.zeros((len(obstacles), kernel.PADDING + 1))
    first: dict[Shape, int] = {}
    cells = [np.zeros(8, np.float32)]  # kernels read no empty array
    for row, obstacle in enumerate(obstacles):
        shape = obstacle.shape
        kinds[row, 0] = _KINDS[shape.kind]
        numbers[row, kernel.PADDING] = obstacle.padding
        sizes = numbers[row, kernel.SIZES : kernel.PADDING]
        if kinds[row, 0] == kernel.GRID:
            grid = shape_grid(shape)
            if shape not in first:
                first[shape] = sum(map(len, cells))
                cells.append(grid.values.ravel())
            kinds[row, 1:] = first[shape], *grid.values.shape
            sizes[:] = *grid.corner, grid.edge
        elif shape.kind == "box":
            sizes[:3] = 0.5 * np.array(shape.sizes)
        elif shape.sizes:
            sizes[: len(shape.sizes)] = shape.sizes
            sizes[1] *= 0.5
    return ObstacleArrays(kinds, numbers, np.concatenate(cells))


def shape_grid(shape: Shape) -> Grid:
    """Distances around a mesh or a cloud of points, found once for each shape.

    Inside a convex mesh they are negative; any other mesh is a surface.
    """
    if shape not in _GRIDS:
        _GRIDS[shape] = _cloud_grid(shape) if shape.kind == "points" else _mesh_grid(shape)
    return _GRIDS[shape]


def _cloud_grid(shape: Shape) -> Grid:
    assert shape.vertices is not None
    edge = _edge(shape, shape.sizes[0])
    values, corner = _marked_distances(shape.vertices, edge)
    # a cell is solid, not only its middle
    return Grid(values * np.float32(edge) - np.float32(0.5 * shape.sizes[0]), corner, edge)


def _mesh_grid(shape: Shape) -> Grid:
    assert shape.vertices is not None and shape.triangles is not None
    edge = _edge(shape, _FINEST)
    if not shape.convex:
        surface = points_on_mesh(shape.vertices[shape.triangles], 0.5 * edge)
        values, corner = _marked_distances(surface, edge)
        return Grid(values * np.float32(edge), corner, edge)
    surface = points_on_mesh(triangles_from_shape(shape.geometry), 0.5 * edge)
    values, corner = _marked_distances(surface, edge)
    hull = shape.geometry
    assert isinstance(hull, coal.ConvexBase)
    normals, offsets = np.asarray(hull.normals()), np.asarray(hull.offsets()).ravel()
    axes = [corner[k] + edge * np.arange(values.shape[k]) for k in range(3)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    inside = np.empty(len(points), np.bool_)
    size = max(1, _POINTS_AT_ONCE // len(normals))
    for begin in range(0, len(points), size):
        some = slice(begin, begin + size)
        inside[some] = (points[some] @ normals.T + offsets).max(1) < 0
    signs = np.where(inside.reshape(values.shape), -1, 1).astype(np.float32)
    return Grid(signs * values * np.float32(edge), corner, edge)


def _edge(shape: Shape, finest: float) -> float:
    assert shape.vertices is not None
    longest = float(np.ptp(shape.vertices, axis=0).max()) + 2 * _REACH
    return max(finest, longest / _MOST_ALONG)


def _box(points: np.ndarray, edge: float) -> tuple[np.ndarray, np.ndarray]:
    """The first point of a grid around points, and how many there are along each axis."""
    corner = points.min(0) - _REACH
    counts = np.ceil((points.max(0) + _REACH - corner) / edge).astype(np.int64) + 1
    return corner, np.maximum(counts, 2)


def _marked_distances(points: np.ndarray, edge: float) -> tuple[np.ndarray, np.ndarray]:
    corner, counts = _box(points, edge)
    marked = np.zeros(counts, np.bool_)
    marked[tuple(np.round((points - corner) / edge).astype(np.int64).T)] = True
    return grid_distances(marked), corner
