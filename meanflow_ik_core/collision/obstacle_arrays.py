# SPDX-License-Identifier: Apache-2.0
"""Obstacles as the arrays that compiled distances read; meshes and clouds as grids."""

import math
from collections.abc import Sequence
from typing import NamedTuple
from weakref import WeakKeyDictionary

import coal
import numpy as np

from ..kernels import obstacles as kernel
from ..kernels.distance_grid import SPACING, grid_distances, mark_triangles, negate_inside
from .obstacles import Obstacle, Shape

_KINDS = {
    "sphere": kernel.SPHERE, "box": kernel.BOX, "cylinder": kernel.CYLINDER,
    "capsule": kernel.CAPSULE, "cone": kernel.CONE, "half_space": kernel.HALF_SPACE,
    "mesh": kernel.GRID, "points": kernel.GRID,
}  # fmt: skip
_REACH = 0.1  # m, how far a grid goes beyond what it is of
_FINEST, _MOST_ALONG = 0.005, 96  # m, edge of a cell of a mesh; cells along its longest side
# Of a surface for each point of its grid; an ordinary one needs less than one. A mesh with more
# surface in its box gets larger cells.
_MOST_SAMPLES = 10
_POINT_MS, _TRIANGLE_MS = 25e-6, 0.006  # that points of a grid, and triangles of Coal's tree, take


_FRAMES: "WeakKeyDictionary[Shape, _Frame]" = WeakKeyDictionary()
_GRIDS: "WeakKeyDictionary[Shape, Grid]" = WeakKeyDictionary()


class _Frame(NamedTuple):
    """Where the points of a grid stand in the frame of a shape."""

    corner: np.ndarray  # (3,) m, the first point
    edge: float  # m, from one point to the next
    counts: tuple[int, ...]  # along x, y, z

    def in_cells(self, points: np.ndarray) -> np.ndarray:
        return (points - self.corner) / self.edge


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


def count_grid_points(shape: Shape) -> int:
    """How many points the grid of a shape has; of what has none, 0."""
    return math.prod(_frame(shape).counts) if _KINDS[shape.kind] == kernel.GRID else 0


def grid_ms(shape: Shape) -> int:
    """About how long a shape and `shape_grid` take; 0 where the shape was asked for before."""
    if shape in _GRIDS:
        return 0
    triangles = 0 if shape.triangles is None else len(shape.triangles)
    return round(_POINT_MS * count_grid_points(shape) + _TRIANGLE_MS * triangles)


def _cloud_grid(shape: Shape) -> Grid:
    assert shape.vertices is not None
    frame = _frame(shape)
    marked = np.zeros(frame.counts, np.bool_)
    marked[tuple(np.round(frame.in_cells(shape.vertices)).astype(np.int64).T)] = True
    # a cell is solid, not only its middle
    solid = np.float32(0.5 * shape.sizes[0])
    return Grid(grid_distances(marked) * np.float32(frame.edge) - solid, frame.corner, frame.edge)


def _mesh_grid(shape: Shape) -> Grid:
    frame = _frame(shape)
    corners, triangles = _surface(shape)
    corners = frame.in_cells(corners)
    marked = np.zeros(frame.counts, np.bool_)
    mark_triangles(corners, triangles, marked)
    values = grid_distances(marked) * np.float32(frame.edge)
    if shape.convex:
        negate_inside(corners, triangles, values)
    return Grid(values, frame.corner, frame.edge)


def _surface(shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """Corners (V, 3) of a mesh, or of its hull, and the triangles (F, 3) between them."""
    assert shape.vertices is not None and shape.triangles is not None
    if not shape.convex:
        return shape.vertices, shape.triangles
    hull = shape.geometry
    assert isinstance(hull, coal.Convex)
    faces = [hull.polygons(face) for face in range(hull.num_polygons)]
    return np.array(hull.points()), np.array([(f[0], f[1], f[2]) for f in faces], np.int64)


def _frame(shape: Shape) -> _Frame:
    """Of the grid of a mesh or a cloud, found once for each shape."""
    if shape not in _FRAMES:
        _FRAMES[shape] = _new_frame(shape)
    return _FRAMES[shape]


def _new_frame(shape: Shape) -> _Frame:
    assert shape.vertices is not None
    if shape.kind == "points" or shape.convex:
        corners, finest = shape.vertices, (*shape.sizes, _FINEST)[0]
        return _frame_around(corners.min(0), corners.max(0), finest)
    assert shape.triangles is not None
    # not of corners that no triangle has
    a, b, c = (shape.vertices[shape.triangles[:, side]] for side in range(3))
    low = np.minimum(np.minimum(a, b), c).min(0)
    high = np.maximum(np.maximum(a, b), c).max(0)
    frame = _frame_around(low, high, _FINEST)
    area = 0.5 * float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum())
    samples = area / (SPACING * frame.edge) ** 2
    crowded = samples / (_MOST_SAMPLES * math.prod(frame.counts))
    return frame if crowded <= 1 else _frame_around(low, high, frame.edge * math.sqrt(crowded))


def _frame_around(low: np.ndarray, high: np.ndarray, finest: float) -> _Frame:
    extent = high - low + 2 * _REACH
    edge = max(finest, float(extent.max()) / _MOST_ALONG)
    counts = np.ceil(extent / edge).astype(np.int64) + 1
    return _Frame(low - _REACH, edge, tuple(np.maximum(counts, 2).tolist()))
