# SPDX-License-Identifier: Apache-2.0
"""What a search returns."""

from collections import Counter
from dataclasses import dataclass, field
from functools import cache, cached_property

import numpy as np

from .why import Evidence, Findings, Rows


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
    _evidence: Evidence = field(repr=False)  # of the search, what `status` and `explain` need
    objective_values: np.ndarray | None = None  # (B, M, O) unweighted, lower is better; NaN as q
    clearance: np.ndarray | None = None  # (B, M) m between links, approximate; None: not asked

    @property
    def status(self) -> np.ndarray:
        """(B,) uint8, of `Status`: why targets have no solution, or fewer than were asked for.

        It is found out at the first use, in some 0.2 ms for each target without a solution.
        """
        return self._findings.status

    def explain(self, problem: int = 0) -> str:
        """One line that says what became of a target.

        Args:
            problem: which of the B targets.
        """
        found = self._findings
        rows = Rows(
            self.valid.shape[1],
            int(self.valid[problem].sum()),
            float(self.position_error[problem, 0].max()),
            float(self.orientation_error[problem, 0].max()),
        )
        return self._evidence.sentence(found, problem, rows)

    @cached_property
    def _findings(self) -> Findings:
        return self._evidence.findings(
            self.joint_positions, self.position_error, self.orientation_error, self.valid
        )

    def origin_counts(self) -> dict[str, int]:
        """How many valid rows came from where."""
        return dict(Counter(self.origin[self.valid].tolist()))
