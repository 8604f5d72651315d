# SPDX-License-Identifier: Apache-2.0
"""Where the starts of one call come from."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ..kernels.counter_stream import keys_of_poses
from ..objectives import Objective
from ..robot.robot import Robot
from ..samplers import Sampler
from ..samplers.uniform import UniformSampler
from .goal import Goal
from .guidance import Guidance, guided_samples
from .inputs import check_seed
from .partial_goals import given_from_asked, turned_at_random


@dataclass(frozen=True)
class Drawing:
    """The samplers of a call, its random numbers, and objectives that the starts shall be good for.

    Raises:
        OptionError: the seed is neither None nor an integer of 64 bits.
    """

    robot: Robot
    samplers: Mapping[str, Sampler]
    device: torch.device
    seed: int | None  # None: a fresh one
    guidance: Guidance
    objectives: Sequence[Objective] = ()

    def __post_init__(self) -> None:
        check_seed(self.seed)

    @cached_property
    def _seed(self) -> np.uint64:
        seed = secrets.randbits(64) if self.seed is None else int(self.seed)
        return np.uint64(seed & (2**64 - 1))

    def keys(self, goal: Goal) -> np.ndarray:
        """Keys (B,) of numbered starts."""
        return keys_of_poses(goal.T_base_tip, self._seed)

    @cached_property
    def generator(self) -> torch.Generator:
        generator = torch.Generator(self.device)
        if self.seed is None:
            generator.seed()
        else:
            generator.manual_seed(int(self.seed))
        return generator

    def is_uniform(self, sampler: str) -> bool:
        """Whether the starts of a sampler are those that the compiled search draws by itself."""
        plain = type(self.samplers[sampler]) is UniformSampler and not self.objectives
        return plain and self.device.type == "cpu"

    def is_numbered(self, sampler: str, goal: Goal) -> bool:
        """Whether the starts of a sampler are functions of seed, pose and number alone."""
        if self.is_uniform(sampler):
            return True
        plain = goal.asked is None and not self.objectives and self.device.type == "cpu"
        return plain and self.samplers[sampler].is_numbered

    def starts(self, sampler: str, goal: Goal, first: int, count: int) -> Tensor:
        """Starts number ``first`` and on of each problem, (B, count, J)."""
        if self.is_numbered(sampler, goal):
            keys = keys_of_poses(goal.T_base_tip, self._seed)
            q = self.samplers[sampler].numbered(goal.T_base_tip, first, count, keys)
            return torch.from_numpy(q)
        return self.samples(sampler, goal, count).float()

    def samples(self, sampler: str, goal: Goal, count: int) -> Tensor:
        """Samples (B, count, J) of the sampler itself, on its device."""
        poses, source = torch.from_numpy(goal.T_base_tip).to(self.device), self.samplers[sampler]
        if goal.asked is None and not self.objectives:
            return source.sample(poses, count, self.generator)
        current, given = goal.reference, given_from_asked(goal.asked)
        turned = turned_at_random(poses, count, goal.asked, self.generator)
        each = count if turned is None else 1
        if turned is not None:
            poses, current = turned.flatten(0, 1), np.repeat(current, count, 0)
        if self.objectives:
            q = guided_samples(
                self.robot, source, self.objectives, torch.from_numpy(current).to(self.device),
                poses, each, self.generator, self.guidance, given,
            )  # fmt: skip
        else:
            q = source.sample(poses, each, self.generator, given)
        return q.reshape(len(goal), count, self.robot.num_joints)
