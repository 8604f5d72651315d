# SPDX-License-Identifier: Apache-2.0
"""The shapes of obstacles, of what a caller says of them."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..bounds import MOST_CELLS, MOST_CORNERS, MOST_TRIANGLES
from ..collision.mesh_files import MeshReader
from ..collision.obstacles import Shape
from ..errors import WorldError
from ..kernels.cells import BITS, add_cells
from .inputs import checked_number, checked_points, checked_vector, frozen

# Places for cells in a table, which is quick while half of it is empty.
_ROOM = 1 << (2 * MOST_CELLS).bit_length()


def box_shape(where: str, size: Any) -> Shape:
    """A box with three edges."""
    edges = checked_vector(where, "size", size)
    if not (edges > 0).all():
        raise WorldError(f"size of {where} is {size!r}; it must be positive")
    return Shape("box", tuple(edges.tolist()))


def round_shape(where: str, kind: str, **lengths: Any) -> Shape:
    """A sphere, cylinder, capsule or cone."""
    sizes = (checked_number(where, key, value, positive=True) for key, value in lengths.items())
    return Shape(kind, tuple(sizes))


def half_space_pose(where: str, normal: Any, offset: Any) -> np.ndarray:
    """(4, 4) whose z axis is the normal of a half-space, and whose origin lies on its face."""
    direction = checked_vector(where, "normal", normal)
    length = float(np.linalg.norm(direction))
    if length < 1e-9:
        raise WorldError(f"normal of {where} is {normal!r}; it must have a length")
    direction = direction / length
    shift = checked_number(where, "offset", offset)
    pose = np.eye(4)
    pose[:3, 2] = direction
    pose[:3, 0] = np.cross(np.eye(3)[np.abs(direction).argmin()], direction)
    pose[:3, 0] /= np.linalg.norm(pose[:3, 0])
    pose[:3, 1] = np.cross(direction, pose[:3, 0])
    pose[:3, 3] = shift * direction
    return pose


def mesh_shape(
    where: str, file: str | Path | None, vertices: Any, triangles: Any, scale: Any, convex: bool
) -> Shape:
    """A mesh, see `World.add_mesh`."""
    factors = checked_vector(where, "scale", (scale,) * 3 if np.ndim(scale) == 0 else scale)
    if not (factors > 0).all():
        raise WorldError(f"scale of {where} is {scale!r}; it must be positive")
    if (file is None) == (vertices is None):
        raise WorldError(f"{where} needs either a file or vertices and triangles")
    if file is not None:
        with MeshReader(WorldError) as reader:
            vertices, triangles = reader.read(Path(file), f"the mesh {file} of {where}")
    corners, faces = _checked_mesh(where, vertices, triangles)
    made = Shape(
        "mesh", (), frozen(corners * factors), faces, bool(convex),
        "" if file is None else str(file), tuple(factors.tolist()),
    )  # fmt: skip
    try:
        made.geometry  # noqa: B018 - a flat mesh has no hull
    except ValueError as error:
        raise WorldError(f"{where} cannot be convex: {error}") from error
    return made


def _checked_mesh(where: str, vertices: Any, triangles: Any) -> tuple[np.ndarray, np.ndarray]:
    """Corners (V, 3) and the triangles (F, 3) between them."""
    corners = checked_points(where, "vertices", vertices)
    if len(corners) > MOST_CORNERS:
        raise WorldError(f"{where} has {len(corners)} vertices; {MOST_CORNERS} are the most")
    try:
        faces = np.array(triangles)
        right = faces.ndim == 2 and faces.shape[1] == 3 and np.issubdtype(faces.dtype, np.integer)
    except (TypeError, ValueError):
        faces, right = np.zeros((0, 3), np.int64), False
    if not right or not len(faces):
        raise WorldError(f"{where} has no triangles; they are (F, 3) integers, F at least 1")
    if len(faces) > MOST_TRIANGLES:
        raise WorldError(f"{where} has {len(faces)} triangles; {MOST_TRIANGLES} are the most")
    if faces.min() < 0 or faces.max() >= len(corners):
        raise WorldError(
            f"triangles of {where} name vertices {faces.min()} to {faces.max()}; "
            f"there are 0 to {len(corners) - 1}"
        )
    return frozen(corners), frozen(faces.astype(np.int64))


def cloud_shape(where: str, points: Any, resolution: Any) -> Shape:
    """A cloud with a point in the middle of each cell that has any."""
    if resolution is None:
        raise WorldError(f"{where} has no resolution; say how large a cell is, in metres")
    edge = checked_number(where, "resolution", resolution, positive=True)
    cloud = checked_points(where, "points", points)
    if not len(cloud):
        raise WorldError(f"{where} has no points")
    if np.abs(cloud).max() / edge >= 2**15:
        raise WorldError(
            f"points of {where} reach {np.abs(cloud).max():.3g} m; with cells of {edge:g} m an "
            f"octree ends at {2**15 * edge:g} m"
        )
    return Shape("points", (edge,), frozen(filled_cells(where, [cloud], edge)))


def filled_cells(
    where: str, parts: Iterable[np.ndarray], edge: float, pose: np.ndarray | None = None,
    farthest: float = np.inf,
) -> np.ndarray:  # fmt: skip
    """Middles (C, 3) of the cells [m] that points lie in.

    Args:
        where: what has the points, for messages.
        parts: points (N, 3) each; those that are not finite are left out. No more parts are asked
            for when the cells are too many.
        edge: m, of a cell.
        pose: (4, 4) that the points are moved by; None: they stay.
        farthest: m from 0, at most 2**20 cells; points that are farther away are left out.

    Raises:
        WorldError: there are more than `MOST_CELLS`.
    """
    table, count = np.full(_ROOM, -1), 0
    pose = np.eye(4) if pose is None else np.ascontiguousarray(pose, np.float64)
    for points in parts:
        some = np.ascontiguousarray(points, np.float64)
        count = add_cells(some, pose, float(farthest), edge, table, count, MOST_CELLS)
        if count > MOST_CELLS:
            raise WorldError(
                f"{where} fills too many cells of {edge:g} m; {MOST_CELLS} are the most: "
                "make the resolution coarser or leave points out"
            )
    numbers = np.sort(table[table >= 0])
    mask = (1 << BITS) - 1
    cells = np.stack((numbers >> 2 * BITS, (numbers >> BITS) & mask, numbers & mask), -1)
    return (cells - (1 << (BITS - 1)) + 0.5) * edge


def known_options(where: str, given: Mapping[str, Any], known: Sequence[str]) -> None:
    """WorldError where an option is none of those that exist."""
    for key in given:
        if key not in known:
            raise WorldError(f"{where} got {key}=; it takes {', '.join(known)}")
