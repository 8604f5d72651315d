# SPDX-License-Identifier: Apache-2.0
"""Keep the links apart, and away from obstacles."""

import copy

from torch import Tensor

from ..collision.clearance import SphereModel
from ..collision.tensor_distance import link_distances
from ..errors import OptionError
from ..robot.robot import Robot
from ..world.scene import Scene
from . import Objective, number

_TOWARDS = ("self", "world", "all")


class Clearance(Objective):
    """((margin - distance) / margin)^2 while the closest links are nearer than the margin, else 0.

    Links that touch count 1. The distance is the smooth one of `SphereModel`. Towards the world,
    every link counts so by its own distance to the nearest obstacle, and they add up: a hand at
    its goal does not hide what the others could gain.

    Args:
        robot: whose links.
        weight: see `Objective`.
        margin: m.
        temperature: m, see `SphereModel.smooth_distance`.
        towards: "self", the robot's own links; "world", the obstacles of the world that is solved
            in; or "all", the sum of both.

    Raises:
        OptionError: a length is not positive, or there is no such ``towards``.
        RobotError: a collision shape cannot be read.
    """

    def __init__(
        self,
        robot: Robot,
        weight: float = 1.0,
        margin: float = 0.05,
        temperature: float = 0.005,
        towards: str = "self",
    ):
        super().__init__(robot, weight)
        self._margin = number("clearance", "margin", margin, above=0.0)
        self._temperature = number("clearance", "temperature", temperature, above=0.0)
        if towards not in _TOWARDS:
            raise OptionError(
                f"towards of objective 'clearance' is {towards!r}; it is one of "
                f"{', '.join(_TOWARDS)}"
            )
        # farther pairs add less than 1e-8 to the sum, and are not looked at
        self._cap = self._margin + 20 * self._temperature
        self._towards = towards
        self._model = None if towards == "world" else SphereModel(robot)
        self._scene: Scene | None = None

    def within(self, scene: Scene | None) -> Objective:
        if self._towards == "self":
            return self
        if scene is None:
            raise OptionError(
                f"objective 'clearance' has towards={self._towards!r}, but no world is given"
            )
        inside = copy.copy(self)
        inside._scene = scene
        if self._model is not None:
            inside._model = scene.own_clearance
        return inside

    def value(self, q: Tensor) -> Tensor:
        total = q.new_zeros(q.shape[:-1])
        if self._model is not None:
            gap = self._model.smooth_distance(q, self._temperature, self._cap)
            total = total + self._nearness(gap)
        if self._scene is not None:
            gaps = link_distances(self._scene.distances(), q, self._margin)
            total = total + self._nearness(gaps).sum(-1)
        elif self._towards != "self":
            raise OptionError("objective 'clearance' towards the world is asked without a world")
        return total

    def _nearness(self, gap: Tensor) -> Tensor:
        near = (self._margin - gap).clamp(min=0) / self._margin
        return near * near


OBJECTIVE = Clearance
