# SPDX-License-Identifier: Apache-2.0
"""How starts are made exact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import OptionError
from ..kernels.descent import STAY
from ..kernels.refinement import COARSE_ITERATIONS, refine_starts
from ..robot.robot import Robot
from .goal import Goal
from .inputs import check_flag
from .refine import Refined
from .robot_arrays import packed

if TYPE_CHECKING:
    from ..cuda.search import DeviceSearch

REFINEMENTS = ("lm", "adam")


@dataclass(frozen=True)
class Refinement:
    """How starts are made exact.

    Raises:
        OptionError: there is no such kind.
    """

    kind: str = "lm"  # of `REFINEMENTS`
    recombining: bool = True  # whether parts that share no joint complete each other
    device_search: DeviceSearch | None = None  # None: on the CPU

    def __post_init__(self) -> None:
        if self.kind not in REFINEMENTS:
            raise OptionError(
                f"unknown refinement {self.kind!r}; it is one of {', '.join(REFINEMENTS)}"
            )
        check_flag("recombining", self.recombining)

    @property
    def is_compiled(self) -> bool:
        return self.kind == "lm"

    def refined(self, robot: Robot, starts: np.ndarray, goal: Goal, sliding: int = STAY) -> Refined:
        """Starts (B, N, J) for a goal; if compiled, they may slide to its reference."""
        if not self.is_compiled:
            from .tensor_refine import adam

            return adam(robot, starts, goal)
        arrays = packed(
            robot, goal.position_tolerance, goal.orientation_tolerance, goal.axis_weights
        )
        if self.device_search is not None:
            q, errors, converged = self.device_search.refined(
                starts, goal.T_base_tip, goal.reference, arrays, sliding, self.recombining
            )
        else:
            q = np.array(starts, np.float64, order="C")
            errors, converged = refine_starts(
                q, goal.T_base_tip, goal.reference, *arrays, sliding, self.recombining,
                COARSE_ITERATIONS,
            )  # fmt: skip
        return Refined(q, errors[..., 0], errors[..., 1], converged)
