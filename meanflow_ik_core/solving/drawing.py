# SPDX-License-Identifier: Apache-2.0
"""Where the starts of one call come from."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ..kernels.counter_stream import keys_of_poses
from ..objectives import Objective
from ..robot.robot import Robot
from ..samplers import Sampler
from ..samplers.uniform import UniformSampler
from ..tensors import array_from
from .goal import Goal, Guidance
from .inputs import check_seed
from .partial_goals import given_from_asked, turned_at_random

if TYPE_CHECKING:
    from .tensor_drawing import TensorDrawing


@dataclass(frozen=True)
class Drawing:
    """The samplers of a call, its random numbers, and objectives that the starts shall be good for.

    Raises:
        OptionError: the seed is neither None nor an integer of 64 bits.
    """

    robot: Robot
    samplers: Mapping[str, Sampler]
    device: str
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
    def _on_tensors(self) -> TensorDrawing:
        from .tensor_drawing import TensorDrawing

        return TensorDrawing(self.robot, self.device, self.seed, self.guidance, self.objectives)

    def is_uniform(self, sampler: str) -> bool:
        """Whether the starts of a sampler are those that the compiled search draws by itself."""
        return type(self.samplers[sampler]) is UniformSampler and self.is_numbered(sampler)

    def is_numbered(self, sampler: str) -> bool:
        """Whether the starts of a sampler are functions of seed, pose and number alone."""
        return not self.objectives and self.samplers[sampler].is_numbered

    def starts(self, sampler: str, goal: Goal, first: int, count: int) -> np.ndarray:
        """Starts number ``first`` and on of each problem, (B, count, J)."""
        return array_from(self.samples(sampler, goal, first, count))

    def samples(
        self, sampler: str, goal: Goal, first: int, count: int, there: tuple[Any, Any] | None = None
    ) -> Any:
        """As `starts`, of the sampler itself: an array, or a tensor where it draws these.

        Poses and keys of the problems may be ``there`` already, on the sampler's device.
        """
        source, given = self.samplers[sampler], given_from_asked(goal.asked)
        poses, current, each, turned = goal.T_base_sampled, goal.reference, count, None
        if not self.is_uniform(sampler):
            turned = turned_at_random(poses, goal.asked, first, count, self._seed)
        if turned is not None:
            poses, current = turned.reshape(-1, *poses.shape[1:]), np.repeat(current, count, 0)
            first, each = 0, 1
        if self.is_uniform(sampler) and self.device != "cpu":
            q = self._on_tensors.samples(source, poses, current, each, given)
        elif self.is_numbered(sampler):
            if there is None or goal.asked is not None:
                there = poses, keys_of_poses(poses, self._seed)
            poses, keys = there
            q = source.numbered(poses, first, each, keys, given)
        else:
            q = self._on_tensors.samples(source, poses, current, each, given)
        return q.reshape(len(goal), count, self.robot.num_joints)
