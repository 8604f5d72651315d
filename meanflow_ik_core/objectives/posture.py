# SPDX-License-Identifier: Apache-2.0
"""Stay near a posture: the current joints, or one that is given."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import OptionError
from ..robot.robot import Robot
from ..robot.urdf import listing
from . import Objective, number, vector


class Posture(Objective):
    """Sum over joints of joint_weight * (q - posture)^2 [rad^2 or m^2]; continuous joints the
    short way round.

    Args:
        robot: whose joints.
        weight: see `Objective`.
        posture: (J,) rad or m, or a mapping from joint names, the others being free; None: the
            seed state, or the middle of the limits without one.
        joint_weights: (J,), or a mapping from joint names, the others counting 1.

    Raises:
        OptionError: a joint does not exist, or a value is not a number.
    """

    def __init__(
        self,
        robot: Robot,
        weight: float = 1.0,
        posture: Sequence[float] | Mapping[str, float] | None = None,
        joint_weights: Sequence[float] | Mapping[str, float] | None = None,
    ):
        super().__init__(robot, weight)
        middle = 0.5 * (robot.lower + robot.upper)
        self._weights, _ = _per_joint(robot, "joint_weights", joint_weights, np.ones_like(middle))
        if (self._weights < 0).any():
            raise OptionError(f"joint_weights of objective 'posture' are {joint_weights!r}")
        values, named = _per_joint(robot, "posture", posture, middle)
        if isinstance(posture, Mapping):
            self._weights = np.where(named, self._weights, 0.0)
        self._follows = posture is None
        self._posture = torch.from_numpy(values)

    def near(self, reference: Tensor) -> Objective:
        if not self._follows:
            return self
        moved = copy.copy(self)
        moved._posture = reference
        return moved

    def value(self, q: Tensor) -> Tensor:
        delta = q - self._posture.to(q)
        if self.robot.continuous.any():
            turn = 2 * torch.pi
            wrapped = delta - turn * torch.round(delta.detach() / turn)
            continuous = torch.as_tensor(self.robot.continuous, device=q.device)
            delta = torch.where(continuous, wrapped, delta)
        return (torch.as_tensor(self._weights).to(q) * delta * delta).sum(-1)


def _per_joint(
    robot: Robot, key: str, given: Any, default: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Values (J,), and which of them were given."""
    named = np.zeros(robot.num_joints, dtype=bool)
    if given is None:
        return default, named
    if not isinstance(given, Mapping):
        return np.array(vector("posture", key, given, robot.num_joints)), ~named
    values = default.copy()
    for joint, value in given.items():
        if joint not in robot.joint_names:
            raise OptionError(
                f"{key} of objective 'posture' has the joint {joint!r}; "
                f"joints are {listing(robot.joint_names, str(joint))}"
            )
        index = robot.joint_names.index(joint)
        values[index], named[index] = number("posture", f"{key}[{joint!r}]", value), True
    return values, named


OBJECTIVE = Posture
