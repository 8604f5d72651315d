# SPDX-License-Identifier: Apache-2.0
"""Draws a MarkerArray without RViz: boxes, cylinders and spheres, one ray per pixel."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pinocchio as pin
from geometry_msgs.msg import Point, Pose, Quaternion, Vector3
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

SHAPES = (Marker.CUBE, Marker.CYLINDER, Marker.SPHERE)
BACKGROUND = np.array([0.965, 0.97, 0.98])
LIGHT = np.array([0.35, -0.45, 0.82]) / np.linalg.norm([0.35, -0.45, 0.82])
AXIS_COLOURS = ((0.86, 0.20, 0.18), (0.25, 0.65, 0.25), (0.18, 0.38, 0.85))
SUPERSAMPLING = 2
ROWS_PER_STRIP = 128


@dataclass(frozen=True)
class Camera:
    """A pinhole at `eye` that looks at `centre`, z up; width and height in pixels."""

    eye: tuple[float, float, float] = (2.0, -1.75, 1.25)
    centre: tuple[float, float, float] = (0.12, 0.0, 0.40)
    field_of_view: float = 0.56
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


def solids_from_markers(array: MarkerArray) -> list[Solid]:
    """What is left to see after every marker of the array has been applied in order.

    Raises:
        ValueError: a marker is no box, cylinder or sphere.
    """
    shown: dict[tuple[str, int], Solid] = {}
    for marker in array.markers:
        key = (marker.ns, marker.id)
        if marker.action == Marker.DELETEALL:
            shown.clear()
        elif marker.action == Marker.DELETE:
            shown.pop(key, None)
        elif marker.type not in SHAPES:
            raise ValueError(f"marker type {marker.type} of {marker.ns!r} cannot be drawn here")
        else:
            place, turn = marker.pose.position, marker.pose.orientation
            pose = pin.SE3(
                pin.Quaternion(turn.w, turn.x, turn.y, turn.z).toRotationMatrix(),
                np.array([place.x, place.y, place.z]),
            )
            colour = marker.color
            shown[key] = Solid(
                marker.ns,
                marker.type,
                0.5 * np.array([marker.scale.x, marker.scale.y, marker.scale.z]),
                pose.homogeneous,
                np.array([colour.r, colour.g, colour.b, colour.a]),
            )
    return list(shown.values())


def axes_markers(pose: np.ndarray, length: float, name: str) -> Iterator[Marker]:
    """Red, green and blue rods along x, y and z of a frame (4, 4)."""
    rods = (pin.rpy.rpyToMatrix(0.0, np.pi / 2, 0.0), pin.rpy.rpyToMatrix(-np.pi / 2, 0.0, 0.0))
    for axis, turn in enumerate((*rods, np.eye(3))):
        middle = pose[:3, 3] + 0.5 * length * pose[:3, axis]
        x, y, z, w = pin.Quaternion(pose[:3, :3] @ turn).coeffs().tolist()
        red, green, blue = AXIS_COLOURS[axis]
        yield Marker(
            ns=name,
            id=axis,
            type=Marker.CYLINDER,
            action=Marker.ADD,
            pose=Pose(
                position=Point(x=float(middle[0]), y=float(middle[1]), z=float(middle[2])),
                orientation=Quaternion(x=x, y=y, z=z, w=w),
            ),
            scale=Vector3(x=0.08 * length, y=0.08 * length, z=float(length)),
            color=ColorRGBA(r=red, g=green, b=blue, a=1.0),
        )


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
            first, last = near.max(-1), far.min(-1)
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
    return normal / np.linalg.norm(normal, axis=-1, keepdims=True)


def unit_coordinates(solid: Solid, points: np.ndarray) -> np.ndarray:
    """Points (..., 3) in the axes in which every box, cylinder and sphere has half extents 1."""
    return (points - solid.pose[:3, 3]) @ solid.pose[:3, :3] / solid.half


def slab_interval(start: np.ndarray, ray: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Between which t start + t ray lies in -1..1, each coordinate for itself."""
    one, other = (-1 - start) / ray, (1 - start) / ray
    return np.minimum(one, other), np.maximum(one, other)


def quadric_interval(start: np.ndarray, ray: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Between which t start + t ray lies in the unit ball (of as many dimensions); nan: never."""
    a = (ray * ray).sum(-1)
    half_b = (ray * start).sum(-1)
    root = np.sqrt(half_b * half_b - a * ((start * start).sum(-1) - 1))
    return (-half_b - root) / a, (-half_b + root) / a


def shade(colour: np.ndarray, normal: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """(..., 3) of a surface in the light: diffuse, a highlight, darker towards the outline."""
    view = -directions / np.linalg.norm(directions, axis=-1, keepdims=True)
    diffuse = np.clip(normal @ LIGHT, 0, None)
    halfway = view + LIGHT
    halfway /= np.linalg.norm(halfway, axis=-1, keepdims=True)
    gloss = np.clip((normal * halfway).sum(-1), 0, None) ** 40
    facing = np.clip((normal * view).sum(-1), 0, 1)
    lit = (0.50 + 0.55 * diffuse) * (0.55 + 0.45 * np.sqrt(facing))
    return np.clip(colour[:3] * lit[..., None] + 0.22 * gloss[..., None], 0, 1)


def window(solid: Solid, camera: Camera, rows: slice) -> tuple[slice, slice] | None:
    """Rows (of the strip) and columns that the solid can cover; None where it is outside."""
    radius = np.linalg.norm(solid.half)
    corners = np.array(np.meshgrid(*[(-radius, radius)] * 3)).reshape(3, 8).T
    pixels = camera.pixels(solid.pose[:3, 3] + corners)
    left, top = np.maximum(np.floor(pixels.min(0)), (0, rows.start)).astype(int)
    right, bottom = np.minimum(np.ceil(pixels.max(0)), (camera.width, rows.stop)).astype(int)
    return (slice(top, bottom), slice(left, right)) if left < right and top < bottom else None


def floor_colours(camera: Camera, rows: slice, shadow: np.ndarray, reach: float) -> np.ndarray:
    """(R, W, 3) of the ground: a disc with a 0.2 m grid that fades into the background."""
    eye = np.array(camera.eye)
    directions = camera.directions(rows, slice(None))
    with np.errstate(divide="ignore"):
        distance = -eye[2] / directions[..., 2]
    points = eye + distance[..., None] * directions
    x, y = points[..., 0], points[..., 1]
    fade = np.clip(1.25 - np.hypot(x, y) / reach, 0, 1) * (distance > 0)
    grid = np.minimum(np.abs(x - 0.2 * np.round(x / 0.2)), np.abs(y - 0.2 * np.round(y / 0.2)))
    line = np.clip(1.6 - grid / 0.0022, 0, 1) * 0.5
    cells = np.stack([(x + reach) / (2 * reach), (y + reach) / (2 * reach)]) * len(shadow)
    cells = np.clip(np.nan_to_num(cells), 0, len(shadow) - 1).astype(int)
    dark = 0.03 + 0.07 * line + 0.22 * shadow[cells[0], cells[1]]
    return BACKGROUND * (1 - (fade * dark)[..., None])


def ground_shadow(layers: dict[str, list[Solid]], reach: float, cells: int = 500) -> np.ndarray:
    """(cells, cells) in 0..1: how many of the arms stand between the ground and the light."""
    middle = (np.arange(cells) + 0.5) / cells * 2 * reach - reach
    ground = np.stack([*np.meshgrid(middle, middle, indexing="ij"), np.zeros((cells, cells))], -1)
    shadow = np.zeros((cells, cells))
    for solids in layers.values():
        covered = np.zeros((cells, cells), dtype=bool)
        for solid in solids:
            # Distance of the solid's middle from the ray that leaves the cell towards the light.
            towards = solid.pose[:3, 3] - ground
            offset = towards - (towards @ LIGHT)[..., None] * LIGHT
            close = np.linalg.norm(offset, axis=-1) < np.linalg.norm(solid.half)
            covered[close] |= np.isfinite(entry_distance(solid, ground[close], LIGHT))
        shadow += covered * solids[0].colour[3]
    return np.clip(shadow / max(shadow.max(), 1e-9), 0, 1)


def render(array: MarkerArray, camera: Camera, reach: float = 1.1) -> np.ndarray:
    """Image (height, width, 3) in 0..1 of what the markers show on a ground of radius `reach` [m].

    Each namespace is one translucent layer: of its own solids only the nearest is seen, so that an
    arm made of overlapping shapes looks like one body.
    """
    fine = Camera(
        camera.eye,
        camera.centre,
        camera.field_of_view,
        camera.width * SUPERSAMPLING,
        camera.height * SUPERSAMPLING,
    )
    layers: dict[str, list[Solid]] = {}
    for solid in solids_from_markers(array):
        layers.setdefault(solid.layer, []).append(solid)
    shadow = ground_shadow(layers, reach)
    strips = []
    for top in range(0, fine.height, ROWS_PER_STRIP):
        rows = slice(top, min(top + ROWS_PER_STRIP, fine.height))
        image = floor_colours(fine, rows, shadow, reach)
        strips.append(blend(image, layers.values(), fine, rows))
    image = np.concatenate(strips)
    shape = (camera.height, SUPERSAMPLING, camera.width, SUPERSAMPLING, 3)
    return image.reshape(shape).mean((1, 3))


def blend(
    image: np.ndarray, layers: Iterable[Sequence[Solid]], camera: Camera, rows: slice
) -> np.ndarray:
    """Lay the layers over a strip (R, W, 3) of the image, in each pixel the farthest first."""
    eye = np.array(camera.eye)
    depths, colours = [], []
    for solids in layers:
        depth = np.full(image.shape[:2], np.inf)
        colour = np.zeros((*image.shape[:2], 4))
        for solid in solids:
            area = window(solid, camera, rows)
            if area is None:
                continue
            directions = camera.directions(*area)
            distance = entry_distance(solid, eye, directions)
            inner = (slice(area[0].start - rows.start, area[0].stop - rows.start), area[1])
            nearer = distance < depth[inner]
            hits = eye + distance[nearer][:, None] * directions[nearer]
            depth[inner][nearer] = distance[nearer]
            colour[inner][nearer, :3] = shade(
                solid.colour, surface_normal(solid, hits), directions[nearer]
            )
            colour[inner][nearer, 3] = solid.colour[3]
        if np.isfinite(depth).any():
            depths.append(depth)
            colours.append(colour)
    if not depths:
        return image
    order = np.argsort(-np.stack(depths), axis=0)
    stacked = np.take_along_axis(np.stack(colours), order[..., None], axis=0)
    for colour in stacked:
        alpha = colour[..., 3:]
        image = image * (1 - alpha) + colour[..., :3] * alpha
    return image


def write_picture(
    array: MarkerArray,
    path: Path,
    title: str,
    labels: Sequence[tuple[str, np.ndarray]] = (),
    camera: Camera | None = None,
) -> None:
    """Write a PNG of the markers, with a title and labels at points (3,) of the world."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    camera = camera or Camera()
    image = render(array, camera)
    figure = Figure(figsize=(camera.width / 100, camera.height / 100), dpi=100)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(image, interpolation="nearest")
    axes.set_axis_off()
    axes.text(0.03, 0.965, title, transform=axes.transAxes, fontsize=15, va="top", color="#22303c")
    for text, point in labels:
        column, row = camera.pixels(np.asarray(point))
        axes.annotate(
            text,
            (column, row),
            xytext=(14, 10),
            textcoords="offset points",
            fontsize=11,
            color="#22303c",
        )
    figure.savefig(path)
