# SPDX-License-Identifier: Apache-2.0
"""A reachability map in the scene, cut open."""

from __future__ import annotations

import numpy as np
import viser

from ..reachability.map import QUANTITIES, ReachabilityMap

_BALL = 0.45  # size of what is drawn of a voxel, of its edge


class MapScene:
    """Draws the voxels that are reached in colours, and adds controls for what is shown."""

    def __init__(
        self, server: viser.ViserServer, tabs: viser.GuiTabGroupHandle, found: ReachabilityMap
    ):
        """Draw the half of the map that lies on the far side of the base, and add a tab."""
        self._found = found
        places = np.concatenate([found.centers, np.zeros((1, 3))])  # and the base
        low, high = places.min(0), places.max(0)
        gui, edge = server.gui, found.voxel
        with tabs.add_tab("Map"):
            self._show = gui.add_checkbox("show the map", True)
            self._quantity = gui.add_dropdown("colour", tuple(QUANTITIES))
            self._legend = gui.add_markdown("")
            self._least = gui.add_slider(
                "at least", 0.0, 1.0, 0.05, 0.0,
                hint="Voxels of less are hidden: 0 is the lowest of the colours, 1 the highest.",
            )  # fmt: skip
            self._cuts = [
                gui.add_multi_slider(
                    f"{axis} [m]", *_rounded(low[at] - edge, high[at] + edge), 0.01,
                    _rounded(0.0 if axis == "y" else low[at] - edge, high[at] + edge),
                )
                for at, axis in enumerate("xyz")
            ]  # fmt: skip
        self._cloud = server.scene.add_point_cloud(
            "/map", np.empty((0, 3)), np.empty((0, 3), np.uint8),
            point_size=_BALL * edge, point_shape="circle", precision="float32",
        )  # fmt: skip
        for control in (self._show, self._quantity, self._least, *self._cuts):
            control.on_update(lambda _: self.redraw())
        self.redraw()

    def redraw(self) -> None:
        """Draw what the controls ask for."""
        quantity = self._quantity.value
        points, colours = self._found.points_and_colours(quantity)
        low, high = self._found.bounds(quantity)
        values = self._found.of_voxels(quantity)
        shown = values[np.isfinite(values)] >= low + self._least.value * (high - low) - 1e-9
        for axis, cut in enumerate(self._cuts):
            first, last = cut.value
            shown &= (points[:, axis] >= first) & (points[:, axis] <= last)
        self._legend.content = (
            f"{QUANTITIES[quantity]}: {low:.2g} (blue) to {high:.2g} (yellow), "
            f"{shown.sum()} of {len(points)} voxels"
        )
        self._cloud.visible = self._show.value
        self._cloud.points, self._cloud.colors = points[shown], colours[shown]


def _rounded(low: float, high: float) -> tuple[float, float]:
    """Both on the steps of a slider, outwards."""
    return float(np.floor(100 * low) / 100), float(np.ceil(100 * high) / 100)
