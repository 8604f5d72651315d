# SPDX-License-Identifier: Apache-2.0
"""Draws a MarkerArray without RViz: boxes, cylinders and spheres, one ray per pixel, and text.

The demo needs neither a display nor a browser. Renderers that need neither are large for one
picture: VTK installs 565 MB, Mitsuba 206 MB.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from visualization_msgs.msg import MarkerArray

from meanflow_ik_ros.tools.raytrace import (
    Camera,
    Solid,
    dot,
    entry_distance,
    place_of,
    solids_from_markers,
    surface_normal,
    texts_from_markers,
    window,
)

BACKGROUND = np.array([0.965, 0.97, 0.98])
LIGHT = np.array([0.35, -0.45, 0.82]) / np.linalg.norm([0.35, -0.45, 0.82])
VIEW = np.array([0.68, -0.62, 0.39]) / np.linalg.norm([0.68, -0.62, 0.39])
FILL = 0.88
SUPERSAMPLING = 2
ROWS_PER_STRIP = 128


def shade(colour: np.ndarray, normal: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """(..., 3) of a surface in the light: diffuse, a highlight, darker towards the outline."""
    view = -directions / np.sqrt(dot(directions, directions))[..., None]
    diffuse = np.clip(normal @ LIGHT, 0, None)
    halfway = view + LIGHT
    halfway /= np.sqrt(dot(halfway, halfway))[..., None]
    gloss = np.clip(dot(normal, halfway), 0, None) ** 40
    facing = np.clip(dot(normal, view), 0, 1)
    lit = (0.50 + 0.55 * diffuse) * (0.55 + 0.45 * np.sqrt(facing))
    return np.clip(colour[:3] * lit[..., None] + 0.22 * gloss[..., None], 0, 1)


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
    shadow = np.zeros((cells, cells))
    for solids in layers.values():
        covered = np.zeros((cells, cells), dtype=bool)
        for solid in solids:
            place, radius = solid.pose[:3, 3], np.linalg.norm(solid.half) / LIGHT[2]
            spot = place[:2] - place[2] / LIGHT[2] * LIGHT[:2]
            x, y = (
                slice(*np.searchsorted(middle, (centre - radius, centre + radius)))
                for centre in spot
            )
            eyes = np.zeros((*covered[x, y].shape, 3))
            eyes[..., 0], eyes[..., 1] = middle[x, None], middle[y]
            covered[x, y] |= np.isfinite(entry_distance(solid, eyes, LIGHT))
        shadow += covered * solids[0].colour[3]
    return np.clip(shadow / max(shadow.max(), 1e-9), 0, 1)


def render(array: MarkerArray, camera: Camera, reach: float = 1.1) -> np.ndarray:
    """Image (height, width, 3) in 0..1 of what the markers show on a ground of radius `reach` [m].

    Each namespace is one translucent layer: of its own solids only the nearest is seen, so that an
    arm made of overlapping shapes looks like one body.
    """
    fine = dataclasses.replace(
        camera, width=camera.width * SUPERSAMPLING, height=camera.height * SUPERSAMPLING
    )
    layers: dict[str, list[Solid]] = {}
    for solid in solids_from_markers(array):
        layers.setdefault(solid.layer, []).append(solid)
    shadow = ground_shadow(layers, reach)
    strips = []
    for top in range(0, fine.height, ROWS_PER_STRIP):
        rows = slice(top, min(top + ROWS_PER_STRIP, fine.height))
        image = floor_colours(fine, rows, shadow, reach)
        lay_over(image, layers.values(), fine, rows)
        strips.append(image)
    image = np.concatenate(strips)
    shape = (camera.height, SUPERSAMPLING, camera.width, SUPERSAMPLING, 3)
    return image.reshape(shape).mean((1, 3))


def lay_over(
    image: np.ndarray, layers: Iterable[Sequence[Solid]], camera: Camera, rows: slice
) -> None:
    """Blend the layers into a strip (R, W, 3) of the image, in each pixel the farthest first."""
    fragments = [
        fragment
        for solids in layers
        if (fragment := nearest_surface(solids, camera, rows)) is not None
    ]
    if not fragments:
        return
    left = min(columns.start for columns, _, _ in fragments)
    right = max(columns.stop for columns, _, _ in fragments)
    depths = np.full((len(fragments), image.shape[0], right - left), np.inf, dtype=np.float32)
    colours = np.zeros((*depths.shape, 4), dtype=np.float32)
    for layer, (columns, depth, colour) in enumerate(fragments):
        inner = slice(columns.start - left, columns.stop - left)
        depths[layer, :, inner], colours[layer, :, inner] = depth, colour
    order = np.argsort(-depths, axis=0)
    below = image[:, left:right]
    for colour in np.take_along_axis(colours, order[..., None], axis=0):
        below += (colour[..., :3] - below) * colour[..., 3:]


def nearest_surface(
    solids: Sequence[Solid], camera: Camera, rows: slice
) -> tuple[slice, np.ndarray, np.ndarray] | None:
    """What is seen of one layer: columns, depth (R, C), red green blue alpha (R, C, 4)."""
    areas = [window(solid, camera, rows) for solid in solids]
    seen = [area for area in areas if area is not None]
    if not seen:
        return None
    left = min(columns.start for _, columns in seen)
    right = max(columns.stop for _, columns in seen)
    eye = np.array(camera.eye)
    depth = np.full((rows.stop - rows.start, right - left), np.inf)
    colour = np.zeros((*depth.shape, 4))
    for solid, area in zip(solids, areas, strict=True):
        if area is None:
            continue
        directions = camera.directions(*area)
        distance = entry_distance(solid, eye, directions)
        inner = (
            slice(area[0].start - rows.start, area[0].stop - rows.start),
            slice(area[1].start - left, area[1].stop - left),
        )
        nearer = distance < depth[inner]
        rays = directions[nearer]
        hits = eye + distance[nearer][:, None] * rays
        depth[inner][nearer] = distance[nearer]
        colour[inner][nearer, :3] = shade(solid.colour, surface_normal(solid, hits), rays)
        colour[inner][nearer, 3] = solid.colour[3]
    return slice(left, right), depth, colour


def framing(array: MarkerArray) -> Camera:
    """A camera whose picture the markers fill."""
    solids, texts = solids_from_markers(array), texts_from_markers(array)
    if not solids and not texts:
        return Camera()
    places = [solid.pose[:3, 3] for solid in solids] + [place_of(text) for text in texts]
    # to the side, up and towards the viewer
    extents = [np.full(3, np.linalg.norm(solid.half)) for solid in solids]
    extents += [text.scale.z * np.array([0.4 * len(text.text), 0.7, 0.0]) for text in texts]
    axes = Camera(eye=tuple(VIEW.tolist()), centre=(0.0, 0.0, 0.0)).axes
    seen = np.array(places) @ axes.T
    low, high = (seen - extents).min(0), (seen + extents).max(0)
    middle = 0.5 * (low + high)
    aspect = Camera.width / Camera.height
    half = max(0.5 * (high - low)[1], 0.5 * (high - low)[0] / aspect)
    distance = half / np.tan(0.5 * Camera.field_of_view) / FILL
    centre = middle @ axes
    eye = centre + distance * axes[2]
    return Camera(eye=tuple(eye.tolist()), centre=tuple(centre.tolist()))


def write_picture(
    array: MarkerArray, path: Path, title: str = "", camera: Camera | None = None
) -> None:
    """Write a PNG of what the markers show, texts included."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    camera = camera or framing(array)
    image = render(array, camera)
    figure = Figure(figsize=(camera.width / 100, camera.height / 100), dpi=100)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(image, interpolation="nearest")
    axes.set_axis_off()
    axes.text(0.03, 0.965, title, transform=axes.transAxes, fontsize=15, va="top", color="#22303c")
    for text in texts_from_markers(array):
        place, colour = place_of(text), text.color
        column, row = camera.pixels(place)
        # scale.z is the height of a capital letter, 0.7 of the size of a font; a point is 1/72 inch
        pixels = camera.focal_length() * text.scale.z / camera.depth(place)
        axes.text(
            column,
            row,
            text.text,
            fontsize=pixels / 0.7 * 72 / 100,
            color=(colour.r, colour.g, colour.b, colour.a),
            ha="center",
            va="center",
        )
    figure.savefig(path)
