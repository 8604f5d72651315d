# SPDX-License-Identifier: Apache-2.0
"""What a search returns."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache, cached_property
from typing import Any

import numpy as np

from ..collision.clearance import SphereModel
from ..collision.contacts import Contact
from ..world.scene import GRAZE, Scene
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

    joint_positions: np.ndarray  #: (B, M, J) float64 rad or m; NaN where there is no candidate
    position_error: np.ndarray  #: (B, M, T) m
    orientation_error: np.ndarray  #: (B, M, T) rad
    #: (B, M) bool: in tolerance, in limits, free of self-collision and of the world where asked
    valid: np.ndarray
    distance: np.ndarray  #: (B, M) rad to the seed state, or to the middle of the limits
    cost: np.ndarray  #: (B, M) what the ranking used
    origin: np.ndarray  #: (B, M) str: the sampler of the row, or "seed"; "" without a candidate
    starts: dict[str, int]  #: how many starts were drawn, by origin
    timing: dict[str, float]  #: seconds for sample, refine, select
    _evidence: Evidence = field(repr=False)  # of the search, what `status` and `explain` need
    #: (B, M, O) unweighted, lower is better; NaN as q, and where there was no time for more
    objective_values: np.ndarray | None = None
    #: (B, M) bool: the nearest configuration found to a target without a solution; None: not asked
    approximate: np.ndarray | None = None
    spheres: SphereModel | None = field(default=None, repr=False)  #: of the robot's own links
    scene: Scene | None = field(default=None, repr=False)  #: the world as it was
    avoids_self_collision: bool = False

    @cached_property
    def clearance(self) -> np.ndarray | None:
        """(B, M) m between links, approximate; NaN without a candidate, None: not asked."""
        return None if self.spheres is None else self.spheres.distance(self.joint_positions)

    @cached_property
    def world_clearance(self) -> np.ndarray | None:
        """(B, M) m to the nearest obstacle, approximate, negative where it penetrates.

        NaN where there is no candidate; None where no world was asked, or one without obstacles.
        """
        return self.clearances(...)[1]

    def clearances(self, rows: Any) -> tuple[np.ndarray | None, np.ndarray | None]:
        """`clearance` and `world_clearance` of some rows alone.

        Args:
            rows: index of a (B, M) array.
        """
        q = self.joint_positions[rows]
        own = None if self.spheres is None else self.spheres.distance(q)
        if not self._has_obstacles:
            return own, None
        assert self.scene is not None
        return own, self.scene.distances().distance(q)

    @cached_property
    def touches(self) -> list[list[list[Contact]]]:
        """What touches in each row, [b][m]: link, obstacle or second link, and depth in m.

        Empty for valid rows, rows without a candidate, and where no world was asked.
        """
        found: list[list[list[Contact]]] = [[[] for _ in row] for row in self.valid.tolist()]
        if self.scene is None:
            return found
        rows = np.argwhere(~self.valid & np.isfinite(self.joint_positions).all(-1))
        q = self.joint_positions[tuple(rows.T)]
        contacts = self.scene.contacts(q, self.avoids_self_collision, GRAZE)
        for (problem, row), own in zip(rows.tolist(), contacts, strict=True):
            found[problem][row] = own
        return found

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
            self.joint_positions, self.position_error, self.orientation_error, self.valid,
            self._has_obstacles,
        )  # fmt: skip

    @property
    def _has_obstacles(self) -> bool:
        return self.scene is not None and bool(self.scene.structure.obstacles)

    def origin_counts(self) -> dict[str, int]:
        """How many valid rows came from where."""
        return dict(Counter(self.origin[self.valid].tolist()))


def joined_results(results: Sequence[IKResult]) -> IKResult:
    """One result of the targets of several, which were asked for in the same way."""
    first = results[0]
    if len(results) == 1:
        return first
    together = {}
    for item in fields(first):
        if isinstance(getattr(first, item.name), np.ndarray):
            together[item.name] = np.concatenate([getattr(each, item.name) for each in results])
    starts = sum((Counter(each.starts) for each in results), Counter())
    timing = sum((Counter(each.timing) for each in results), Counter())
    evidence = first._evidence.joined([each._evidence for each in results])
    return replace(
        first, starts=dict(starts), timing={part: timing[part] for part in first.timing},
        _evidence=evidence, **together,
    )  # fmt: skip
