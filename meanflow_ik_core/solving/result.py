# SPDX-License-Identifier: Apache-2.0
"""What a search returns."""

from collections import Counter
from dataclasses import dataclass
from functools import cache

import numpy as np


@cache
def names_of_origins(sampler: str) -> np.ndarray:
    """Names (4,) of where a row comes from: nowhere, the seed, a sampler, or uniform starts."""
    return np.array(("", "seed", sampler, "uniform"), "<U16")


@dataclass(frozen=True)
class IKResult:
    """Candidates of B targets, M rows each, best first: valid ones, then the nearest others.

    Errors are those to the nearest pose that is asked for: 0 for a tip without a target.
    """

    joint_positions: np.ndarray  # (B, M, J) float64 rad or m; NaN where there is no candidate
    position_error: np.ndarray  # (B, M, T) m
    orientation_error: np.ndarray  # (B, M, T) rad
    valid: np.ndarray  # (B, M) bool: in tolerance, in limits, free of self-collision when asked
    distance: np.ndarray  # (B, M) rad to the seed state, or to the middle of the limits
    cost: np.ndarray  # (B, M) what the ranking used
    origin: np.ndarray  # (B, M) str: the sampler of the row, or "seed"; "" without a candidate
    starts: dict[str, int]  # how many starts were drawn, by origin
    timing: dict[str, float]  # seconds for sample, refine, select
    objective_values: np.ndarray | None = None  # (B, M, O) unweighted, lower is better; NaN as q
    clearance: np.ndarray | None = None  # (B, M) m between links, approximate; None: not asked

    def origin_counts(self) -> dict[str, int]:
        """How many valid rows came from where."""
        return dict(Counter(self.origin[self.valid].tolist()))
