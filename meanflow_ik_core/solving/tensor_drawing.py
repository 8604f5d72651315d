# SPDX-License-Identifier: Apache-2.0
"""Samples in torch: towards objectives, on a device, or of a sampler that draws tensors only."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..objectives import Objective
from ..robot.robot import Robot
from ..samplers import Sampler
from .goal import Guidance
from .guidance import guided_samples


class TensorDrawing:
    """The random numbers of one call, on a device, and what samples are guided by."""

    def __init__(
        self,
        robot: Robot,
        device: str,
        seed: int | None,
        guidance: Guidance,
        objectives: Sequence[Objective],
    ):
        self._robot, self._device = robot, device
        self._guidance, self._objectives = guidance, objectives
        self._generator = torch.Generator(device)
        if seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(int(seed))

    def samples(
        self,
        sampler: Sampler,
        T_base_tip: np.ndarray,
        current: np.ndarray,
        count: int,
        given: np.ndarray | None,
    ) -> Tensor:
        """Samples (B, count, J) for poses (B, T, 4, 4), the current joints being (B, J)."""
        poses = torch.from_numpy(T_base_tip).to(self._device)
        if not self._objectives:
            return sampler.sample(poses, count, self._generator, given)
        reference = torch.from_numpy(current).to(self._device)
        return guided_samples(
            self._robot, sampler, self._objectives, reference, poses, count, self._generator,
            self._guidance, given,
        )  # fmt: skip
