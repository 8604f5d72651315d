# SPDX-License-Identifier: Apache-2.0
"""A map of what a tip reaches, and what is shown of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..bounds import FARTHEST_CORNER
from ..cluster.array_file import read_arrays
from ..errors import OptionError, OutputError

# Viridis (Smith and van der Walt 2015) in steps, from low to high.
_COLOURS = np.array(
    [(68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37)], np.float64
)
# What can be shown of a voxel, and its meaning.
QUANTITIES = {
    "reached": "share of orientations reached",
    "branches": "branches per pose reached",
    "limit_margin": "distance from joint limits",
    "singularity_margin": "distance from singularities",
}


@dataclass(frozen=True, eq=False)
class ReachabilityMap:
    """What a tip reaches at the centres of V voxels with O orientations each.

    Attributes:
        question: what was asked: robot, tip, voxel [m], seed and so on.
        centers: (V, 3) m, in the base; of all voxels that the links' lengths do not rule out.
        orientations: (O, 3, 3).
        branches: (V, O) uint8, branches of the solutions found; 0: not reached.
        limit_margin: (V, O) float32 in [0, 1], how far the joint nearest to a limit is from it, as
            a share of half its range, in the best solution found; NaN: not reached.
        singularity_margin: (V, O) float32, the smallest singular value of the Jacobian with
            lengths in units of the reach, in the best solution found; NaN: not reached.
        complete: whether all voxels were computed.
    """

    question: Mapping[str, Any]
    centers: np.ndarray
    orientations: np.ndarray
    branches: np.ndarray
    limit_margin: np.ndarray
    singularity_margin: np.ndarray
    complete: bool = True

    @classmethod
    def load(cls, path: str | Path) -> ReachabilityMap:
        """Read a map that `reachability_map` or ``meanflow-ik reachability`` wrote.

        Raises:
            OutputError: there is no such file, it is damaged, or it is no map.
        """
        question, arrays, done = read_arrays(path)
        shapes = {name: array.shape for name, array in arrays.items()}
        voxels, turns = (shapes.get(name, ())[:1] for name in ("centers", "orientations"))
        wanted = {
            "centers": (*voxels, 3),
            "orientations": (*turns, 3, 3),
            **dict.fromkeys(("branches", "limit_margin", "singularity_margin"), voxels + turns),
        }
        numbers = all(array.dtype.kind in "uf" for array in arrays.values())
        named = all(isinstance(question.get(key), str) for key in ("robot", "base", "tip"))
        voxel = question.get("voxel")
        if not (
            named and {"kinematics", "orientations", "starts", "seed"} <= question.keys()
            and isinstance(voxel, float) and 0 < voxel <= FARTHEST_CORNER
            and shapes == wanted and numbers and np.isfinite(arrays["centers"]).all()
            and done.ndim == 1 and done.dtype == bool
            and bool(len(done)) == bool(len(arrays["centers"]))
        ):  # fmt: skip
            raise OutputError(f"{path} is not a reachability map, but has other results")
        return cls(question, **arrays, complete=bool(done.all()))

    @property
    def voxel(self) -> float:
        """Edge of a voxel [m]."""
        return self.question["voxel"]

    @property
    def reached(self) -> np.ndarray:
        """(V,) how many of the O orientations are reached."""
        return (self.branches > 0).sum(1)

    def of_voxels(self, quantity: str = "reached") -> np.ndarray:
        """One number for each voxel (V,), NaN where no orientation is reached.

        Args:
            quantity: "reached", the share of orientations that are; "branches", "limit_margin" or
                "singularity_margin", their mean over these.

        Raises:
            OptionError: there is no such quantity.
        """
        if quantity not in QUANTITIES:
            raise OptionError(
                f"unknown quantity {quantity!r}; it is one of {', '.join(QUANTITIES)}"
            )
        reached = self.branches > 0
        count = reached.sum(1)
        total = count if quantity == "reached" else self._sum(getattr(self, quantity), reached)
        divisor = reached.shape[1] if quantity == "reached" else np.maximum(count, 1)
        return np.where(count > 0, total / divisor, np.nan)

    @staticmethod
    def _sum(values: np.ndarray, where: np.ndarray) -> np.ndarray:
        return values.sum(1, dtype=np.float64, where=where)

    def bounds(self, quantity: str = "reached") -> tuple[float, float]:
        """What the lowest and the highest colour of `points_and_colours` stand for."""
        values = self.of_voxels(quantity)
        if quantity == "reached" or np.isnan(values).all():
            return 0.0, 1.0
        return float(np.nanmin(values)), float(np.nanmax(values))

    def points_and_colours(self, quantity: str = "reached") -> tuple[np.ndarray, np.ndarray]:
        """The voxels that are reached as a point cloud.

        Args:
            quantity: see `of_voxels`.

        Returns:
            Points (n, 3) m in the base, and colours (n, 3) uint8, from dark blue for the lowest
            to yellow for the highest.
        """
        values = self.of_voxels(quantity)
        there = np.isfinite(values)
        shown = values[there]
        low, high = self.bounds(quantity)
        share = (shown - low) / max(high - low, 1e-12)
        steps = np.linspace(0, 1, len(_COLOURS))
        colours = np.stack([np.interp(share, steps, one) for one in _COLOURS.T], -1)
        return self.centers[there], colours.round().astype(np.uint8)
