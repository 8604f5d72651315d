# SPDX-License-Identifier: Apache-2.0
"""Random restarts: uniform within the limits, blind to the target."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import OptionError
from ..kernels.counter_stream import fill_uniform
from ..robot.robot import Robot
from . import Sampler

if TYPE_CHECKING:
    from torch import Generator, Tensor


class UniformSampler(Sampler):
    """Draws every joint uniformly within its limits."""

    takes_partial_goals = True
    is_numbered = True

    def __init__(self, robot: Robot):
        self._robot = robot

    @classmethod
    def build(cls, robot: Robot, checkpoint: str | Path | None, device: str) -> Sampler:
        if checkpoint is not None:
            raise OptionError(
                f"checkpoint is {str(checkpoint)!r}, and the sampler uniform takes none; "
                "the samplers auto and meanflow do"
            )
        return cls(robot)

    def sample(
        self,
        T_base_tip: Tensor,
        count: int,
        generator: Generator,
        given: np.ndarray | None = None,
    ) -> Tensor:
        import torch

        batch = T_base_tip.shape[0]
        q = self._robot.random_configurations(batch * count, generator, torch.float32)
        return q.view(batch, count, self._robot.num_joints)

    def numbered(
        self,
        T_base_tip: Any,
        first: int,
        count: int,
        keys: Any,
        given: np.ndarray | None = None,
    ) -> np.ndarray:
        q = np.empty((len(T_base_tip), count, self._robot.num_joints))
        fill_uniform(keys, first, np.stack((self._robot.lower, self._robot.upper), 1), q)
        return q


SAMPLER = UniformSampler
