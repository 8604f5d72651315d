# SPDX-License-Identifier: Apache-2.0
"""Keep the links apart."""

from torch import Tensor

from ..collision.clearance import SphereModel
from ..robot.robot import Robot
from . import Objective, number


class Clearance(Objective):
    """((margin - distance) / margin)^2 while the closest links are nearer than the margin, else 0.

    Links that touch count 1. The distance is the smooth one of `SphereModel`.

    Args:
        robot: whose links.
        weight: see `Objective`.
        margin: m.
        temperature: m, see `SphereModel.smooth_distance`.

    Raises:
        OptionError: a length is not positive.
        RobotError: a collision shape cannot be read.
    """

    def __init__(
        self, robot: Robot, weight: float = 1.0, margin: float = 0.05, temperature: float = 0.005
    ):
        super().__init__(robot, weight)
        self._margin = number("clearance", "margin", margin, above=0.0)
        self._temperature = number("clearance", "temperature", temperature, above=0.0)
        # farther pairs add less than 1e-8 to the sum, and are not looked at
        self._cap = self._margin + 20 * self._temperature
        self._model = SphereModel(robot)

    def value(self, q: Tensor) -> Tensor:
        gap = self._model.smooth_distance(q, self._temperature, self._cap)
        near = (self._margin - gap).clamp(min=0) / self._margin
        return near * near


OBJECTIVE = Clearance
