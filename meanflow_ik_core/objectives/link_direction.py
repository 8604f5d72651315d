# SPDX-License-Identifier: Apache-2.0
"""Turn an axis of a link: upright, or looking at a point."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import OptionError
from ..robot.robot import Robot
from . import Objective, known_link, link_frame, unit_vector, vector


class LinkDirection(Objective):
    """1 - cos(angle) between an axis of a link and a direction, or the way from it to a point.

    Args:
        robot: whose link.
        link: any link that the robot's joints move.
        axis: x, y, z in the link, of any length.
        direction: x, y, z in the robot's base, of any length: (0, 0, 1) is upright.
        look_at: instead: x, y, z of a point in the robot's base [m].
        weight: see `Objective`.

    Raises:
        LinkError: there is no such link.
        OptionError: an axis has no length, or not exactly one of direction and look_at is given.
    """

    def __init__(
        self,
        robot: Robot,
        link: str,
        axis: Sequence[float] = (0.0, 0.0, 1.0),
        direction: Sequence[float] | None = None,
        look_at: Sequence[float] | None = None,
        weight: float = 1.0,
    ):
        super().__init__(robot, weight)
        self._link = known_link(robot, "link_direction", link)
        self._axis = unit_vector("link_direction", "axis", axis)
        if (direction is None) == (look_at is None):
            raise OptionError("objective 'link_direction' needs one of direction and look_at")
        self._point = None if look_at is None else vector("link_direction", "look_at", look_at)
        self._direction = (
            None if direction is None else unit_vector("link_direction", "direction", direction)
        )

    def value(self, q: Tensor) -> Tensor:
        rotation, origin = link_frame(self.robot, self._link, q)
        axis = rotation @ q.new_tensor(self._axis)
        if self._point is None:
            wanted = q.new_tensor(self._direction)
        else:
            wanted = torch.nn.functional.normalize(q.new_tensor(self._point) - origin, dim=-1)
        return 1 - (axis * wanted).sum(-1)


OBJECTIVE = LinkDirection
