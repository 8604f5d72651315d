# SPDX-License-Identifier: Apache-2.0
"""A picture of a reachability map."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..pictures import check_picture, new_figure, save_figure
from .map import QUANTITIES, ReachabilityMap

_AXES = "xyz"


def draw_map(found: ReachabilityMap, path: str | Path) -> None:
    """Draw an upright and a level slice of a map through its middle, a column for each quantity.

    Args:
        found: the map.
        path: of the picture, in any format of matplotlib, such as .png.

    Raises:
        OptionError: matplotlib is not installed, or cannot write such a file.
    """
    check_picture(path)
    figure = new_figure(figsize=(4 * len(QUANTITIES), 7))
    asked, middle = found.question, _middle(found)
    figure.suptitle(
        f"{asked['robot']}, {asked['tip']}: voxels of {100 * found.voxel:g} cm, "
        f"{asked['orientations']} orientations; + is {asked['base']}"
    )
    grid = figure.subplots(2, len(QUANTITIES), squeeze=False)
    for column, (quantity, meaning) in zip(grid.T, QUANTITIES.items(), strict=True):
        values = found.of_voxels(quantity)
        most = 1.0 if quantity == "reached" else np.nanmax(values, initial=0.0)
        column[0].set_title(meaning)
        shown: Any = None
        for axes, across in zip(column, (1, 2), strict=True):
            shown = _draw_slice(axes, found, values, across, middle[across], most)
        figure.colorbar(shown, ax=list(column), location="bottom", shrink=0.8)
    save_figure(figure, path, 80)


def _middle(found: ReachabilityMap) -> np.ndarray:
    """(3,) The centre of a voxel near the middle of those that are reached."""
    reached = found.centers[found.reached > 0]
    centers = reached if len(reached) else found.centers
    half = 0.5 * (centers.min(0) + centers.max(0))
    return centers[np.linalg.norm(centers - half, axis=-1).argmin()]


def _draw_slice(
    axes: Any, found: ReachabilityMap, values: np.ndarray, across: int, place: float, most: float
) -> Any:
    """Draw the voxels (V,) whose centre lies at a place along an axis, and where the base is."""
    right, up = (axis for axis in range(3) if axis != across)
    there = np.abs(found.centers[:, across] - place) < 0.5 * found.voxel
    centers = found.centers[there][:, [right, up]]
    low = found.centers[:, [right, up]].min(0)
    cells = np.rint((found.centers[:, [right, up]].max(0) - low) / found.voxel).astype(int) + 1
    image = np.full(cells, np.nan)
    image[tuple(np.rint((centers - low) / found.voxel).astype(int).T)] = values[there]
    edges = (low[axis] + (np.arange(cells[axis] + 1) - 0.5) * found.voxel for axis in range(2))
    shown = axes.pcolormesh(*edges, image.T, vmin=0.0, vmax=most, cmap="viridis")
    axes.plot(0, 0, "+", color="red", markersize=12)
    axes.set_aspect("equal")
    axes.set_xlabel(f"{_AXES[right]} [m] at {_AXES[across]} = {place:.3g}")
    axes.set_ylabel(f"{_AXES[up]} [m]")
    return shown
