# SPDX-License-Identifier: Apache-2.0
"""Bring a point of a link towards a position: an elbow to the left, a camera to a window."""

from collections.abc import Sequence

from torch import Tensor

from ..robot.robot import Robot
from . import Objective, known_link, link_frame, vector


class LinkPoint(Objective):
    """Squared distance [m^2] of a point of a link from a position.

    Args:
        robot: whose link.
        link: any link that the robot's joints move, or its base.
        position: x, y, z in the robot's base [m].
        point: x, y, z in the link [m].
        weight: see `Objective`.

    Raises:
        LinkError: there is no such link.
        OptionError: position or point are not three numbers.
    """

    def __init__(
        self,
        robot: Robot,
        link: str,
        position: Sequence[float],
        point: Sequence[float] = (0.0, 0.0, 0.0),
        weight: float = 1.0,
    ):
        super().__init__(robot, weight)
        self._link = known_link(robot, "link_point", link)
        self._position = vector("link_point", "position", position)
        self._point = vector("link_point", "point", point)

    def value(self, q: Tensor) -> Tensor:
        rotation, origin = link_frame(self.robot, self._link, q)
        offset = origin + rotation @ q.new_tensor(self._point) - q.new_tensor(self._position)
        return offset.square().sum(-1)


OBJECTIVE = LinkPoint
