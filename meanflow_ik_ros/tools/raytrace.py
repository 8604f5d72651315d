# SPDX-License-Identifier: Apache-2.0
"""Boxes, cylinders and spheres in front of a camera: where rays meet them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from visualization_msgs.msg import Marker, MarkerArray

from meanflow_ik_ros.messages.poses import rigid_transform

SHAPES = (Marker.CUBE, Marker.CYLINDER, Marker.SPHERE)


@dataclass(frozen=True)
class Camera:
    """A pinhole at `eye` that looks at `centre`, z up; width and height in pixels."""

    eye: tuple[float, float, float] = (2.0, -1.75, 1.25)
    centre: tuple[float, float, float] = (0.0, 0.0, 0.4)
    field_of_view: float = 0.5
    width: int = 1100
    height: int = 900

    @cached_property
    def axes(self) -> np.ndarray:
        """(3, 3) rows: right, up, backward."""
        backward = np.subtract(self.eye, self.centre)
        backward = backward / np.linalg.norm(backward)
        right = np.cross([0.0, 0.0, 1.0], backward)
        right = right / np.linalg.norm(right)
        return np.stack([right, np.cross(backward, right), backward])

    def focal_length(self) -> float:
        """In pixels."""
        return 0.5 * self.height / np.tan(0.5 * self.field_of_view)

    def depth(self, points: np.ndarray) -> np.ndarray:
        """(..., 3) in the world -> (...) distance [m] along the view."""
        return -((points - np.array(self.eye)) @ self.axes[2])

    def pixels(self, points: np.ndarray) -> np.ndarray:
        """(..., 3) in the world -> (..., 2) column, row."""
        x, y, z = np.moveaxis((points - np.array(self.eye)) @ self.axes.T, -1, 0)
        scale = self.focal_length() / -z
        return np.stack([0.5 * self.width + x * scale, 0.5 * self.height - y * scale], -1)

    def directions(self, rows: slice, columns: slice) -> np.ndarray:
        """(R, C, 3) directions of the rays through the middles of the pixels, in the world."""
        column, row = np.meshgrid(
            np.arange(self.width)[columns] + 0.5, np.arange(self.height)[rows] + 0.5
        )
        inside = [
            (column - 0.5 * self.width) / self.focal_length(),
            (0.5 * self.height - row) / self.focal_length(),
            np.full_like(column, -1.0),
        ]
        return np.stack(inside, -1) @ self.axes


@dataclass(frozen=True, eq=False)
class Solid:
    """A marker in numbers: half extents (3,), T_world_solid (4, 4), red green blue alpha (4,)."""

    layer: str
    kind: int
    half: np.ndarray
    pose: np.ndarray
    colour: np.ndarray


def shown_markers(array: MarkerArray) -> list[Marker]:
    """What is left to see after every marker of the array has been applied in order."""
    shown: dict[tuple[str, int], Marker] = {}
    for marker in array.markers:
        if marker.action == Marker.DELETEALL:
            shown.clear()
        elif marker.action == Marker.DELETE:
            shown.pop((marker.ns, marker.id), None)
        else:
            shown[marker.ns, marker.id] = marker
    return list(shown.values())


def solids_from_markers(array: MarkerArray) -> list[Solid]:
    """The solids that are left to see; texts are passed over.

    Raises:
        ValueError: a marker is no box, cylinder, sphere or text.
    """
    solids = []
    for marker in shown_markers(array):
        if marker.type == Marker.TEXT_VIEW_FACING:
            continue
        if marker.type not in SHAPES:
            raise ValueError(f"marker type {marker.type} of {marker.ns!r} cannot be drawn here")
        turn, colour = marker.pose.orientation, marker.color
        solids.append(
            Solid(
                marker.ns,
                marker.type,
                0.5 * np.array([marker.scale.x, marker.scale.y, marker.scale.z]),
                rigid_transform(place_of(marker).tolist(), [turn.x, turn.y, turn.z, turn.w]),
                np.array([colour.r, colour.g, colour.b, colour.a]),
            )
        )
    return solids


def texts_from_markers(array: MarkerArray) -> list[Marker]:
    """The texts that are left to see."""
    return [item for item in shown_markers(array) if item.type == Marker.TEXT_VIEW_FACING]


def place_of(marker: Marker) -> np.ndarray:
    """(3,) in the marker's frame."""
    place = marker.pose.position
    return np.array([place.x, place.y, place.z])


def window(solid: Solid, camera: Camera, rows: slice) -> tuple[slice, slice] | None:
    """Rows (of the strip) and columns that the solid can cover; None where it is outside."""
    radius = np.linalg.norm(solid.half)
    corners = np.array(np.meshgrid(*[(-radius, radius)] * 3)).reshape(3, 8).T
    pixels = camera.pixels(solid.pose[:3, 3] + corners)
    left, top = np.maximum(np.floor(pixels.min(0)), (0, rows.start)).astype(int)
    right, bottom = np.minimum(np.ceil(pixels.max(0)), (camera.width, rows.stop)).astype(int)
    return (slice(top, bottom), slice(left, right)) if left < right and top < bottom else None


def entry_distance(solid: Solid, eye: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """How far along rays from `eye` a solid begins.

    Args:
        eye: (3,), or (..., 3) where every ray has its own.
        directions: (..., 3).

    Returns:
        (...) in lengths of the direction, inf where the ray misses.
    """
    start, ray = unit_coordinates(solid, eye), directions @ solid.pose[:3, :3] / solid.half
    with np.errstate(divide="ignore", invalid="ignore"):
        if solid.kind == Marker.SPHERE:
            first, last = quadric_interval(start, ray)
        elif solid.kind == Marker.CYLINDER:
            side, side_end = quadric_interval(start[..., :2], ray[..., :2])
            cap, cap_end = slab_interval(start[..., 2], ray[..., 2])
            first, last = np.maximum(side, cap), np.minimum(side_end, cap_end)
        else:
            near, far = slab_interval(start, ray)
            first = np.maximum(np.maximum(near[..., 0], near[..., 1]), near[..., 2])
            last = np.minimum(np.minimum(far[..., 0], far[..., 1]), far[..., 2])
        return np.where((first < last) & (first > 0), first, np.inf)


def surface_normal(solid: Solid, points: np.ndarray) -> np.ndarray:
    """(..., 3) unit outward normals in the world at points (..., 3) of the surface."""
    local = unit_coordinates(solid, points)
    if solid.kind == Marker.CYLINDER:
        on_side = np.hypot(local[..., 0], local[..., 1]) > np.abs(local[..., 2])
        local = local * np.where(on_side[..., None], (1.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    elif solid.kind == Marker.CUBE:
        local = local * (np.abs(local) >= np.abs(local).max(-1, keepdims=True))
    normal = (local / solid.half) @ solid.pose[:3, :3].T
    return normal / np.sqrt(dot(normal, normal))[..., None]


def unit_coordinates(solid: Solid, points: np.ndarray) -> np.ndarray:
    """Points (..., 3) in the axes in which every box, cylinder and sphere has half extents 1."""
    return (points - solid.pose[:3, 3]) @ solid.pose[:3, :3] / solid.half


def slab_interval(start: np.ndarray, ray: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Between which t start + t ray lies in -1..1, each coordinate for itself."""
    one, other = (-1 - start) / ray, (1 - start) / ray
    return np.minimum(one, other), np.maximum(one, other)


def quadric_interval(start: np.ndarray, ray: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Between which t start + t ray lies in the unit ball (of as many dimensions); nan: never."""
    a, half_b = dot(ray, ray), dot(ray, start)
    root = np.sqrt(half_b * half_b - a * (dot(start, start) - 1))
    return (-half_b - root) / a, (-half_b + root) / a


def dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(...) products of vectors (..., n)."""
    return np.einsum("...i,...i->...", a, b)
