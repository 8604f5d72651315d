# SPDX-License-Identifier: Apache-2.0
"""Stay away from the joint limits."""

import torch
from torch import Tensor

from ..errors import OptionError
from ..robot.robot import Robot
from . import Objective, number


class JointLimits(Objective):
    """Sum over joints of ((margin - distance) / margin)^2 within the margin, else 0.

    The distance to the nearer limit is in halves of the joint's range: 0 at the limit, 1 in the
    middle. A joint at its limit counts 1. Continuous joints have no limits.

    Args:
        robot: whose limits.
        weight: see `Objective`.
        margin: above 0 and at most 1; 1 draws every joint to the middle.

    Raises:
        OptionError: the margin is out of its range.
    """

    def __init__(self, robot: Robot, weight: float = 1.0, margin: float = 0.5):
        super().__init__(robot, weight)
        self._margin = number("joint_limits", "margin", margin, above=0.0)
        if self._margin > 1:
            raise OptionError(f"margin of objective 'joint_limits' is {margin!r}; at most 1")

    def value(self, q: Tensor) -> Tensor:
        lower, upper = self.robot.limits(q.dtype, q.device)
        middle, half = 0.5 * (lower + upper), 0.5 * (upper - lower)
        near = ((q - middle).abs() / half - 1 + self._margin).clamp(min=0) / self._margin
        limited = torch.as_tensor(~self.robot.continuous, device=q.device)
        return (near * near * limited).sum(-1)


OBJECTIVE = JointLimits
