# SPDX-License-Identifier: Apache-2.0
"""How starts are made exact."""

from dataclasses import dataclass

import numpy as np

from ..errors import OptionError
from ..kernels.descent import STAY
from ..kernels.refinement import COARSE_ITERATIONS, refine_starts
from ..robot.robot import Robot
from .goal import Goal
from .refine import Refined
from .robot_arrays import packed

REFINEMENTS = ("lm", "adam")


@dataclass(frozen=True)
class Refinement:
    """How starts are made exact.

    Raises:
        OptionError: there is no such kind.
    """

    kind: str = "lm"  # of `REFINEMENTS`
    recombining: bool = True  # whether parts that share no joint complete each other
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.kind not in REFINEMENTS:
            raise OptionError(
                f"unknown refinement {self.kind!r}; it is one of {', '.join(REFINEMENTS)}"
            )

    @property
    def is_compiled(self) -> bool:
        return self.kind == "lm" and self.device == "cpu"

    def refined(self, robot: Robot, starts: np.ndarray, goal: Goal, sliding: int = STAY) -> Refined:
        """Starts (B, N, J) for a goal; if compiled, they may slide to its reference."""
        if not self.is_compiled:
            from .tensor_refine import refine_goal

            return refine_goal(robot, starts, goal, self.kind, self.device)
        tolerances = goal.position_tolerance, goal.orientation_tolerance
        q = np.array(starts, np.float64, order="C")
        errors, converged = refine_starts(
            q, goal.T_base_tip, goal.reference, *packed(robot, *tolerances, goal.axis_weights),
            sliding, self.recombining, COARSE_ITERATIONS,
        )  # fmt: skip
        return Refined(q, errors[..., 0], errors[..., 1], converged)
