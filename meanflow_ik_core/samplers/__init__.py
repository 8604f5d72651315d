# SPDX-License-Identifier: Apache-2.0
"""Where refinement starts: each module of this package holds one sampler, named after it."""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import OptionError
from ..network.checkpoint import shipped_checkpoint
from ..robot.robot import Robot

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Sampler(ABC):
    """Draws configurations for target poses."""

    checkpoint: Mapping[str, Any] | None = None  # the record of a learned sampler's checkpoint
    takes_partial_goals: bool = False  # whether `sample` can be asked for a part of the poses
    is_numbered: bool = False  # whether there are `numbered` samples

    @classmethod
    @abstractmethod
    def build(cls, robot: Robot, checkpoint: str | Path | None, device: str) -> Sampler:
        """Make the sampler.

        Args:
            robot: whose joints are drawn.
            checkpoint: a name, a path, or None for the robot's own.
            device: where samples are drawn: "cpu", or another name that torch has for one.
        """

    @abstractmethod
    def sample(
        self,
        T_base_tip: Tensor,
        count: int,
        generator: torch.Generator,
        given: np.ndarray | None = None,
    ) -> Tensor:
        """Draw configurations within the limits, as tensors.

        Args:
            T_base_tip: (B, T, 4, 4) float64 on the generator's device.
            count: N, how many per target.
            generator: the only source of randomness.
            given: (T, 2) bool, whether the position and the orientation of a tip are asked for; the
                sampler ignores what is not. None: everything is asked for.

        Returns:
            (B, N, J) rad or m.

        Raises:
            OptionError: the sampler needs complete goals, and this one is not.
        """

    def numbered(
        self,
        T_base_tip: Any,
        first: int,
        count: int,
        keys: Any,
        given: np.ndarray | None = None,
    ) -> Any:
        """Samples that are functions of a key, a pose and a number alone, if `is_numbered`.

        On the CPU they are drawn without torch.

        Args:
            T_base_tip: (B, T, 4, 4) float64.
            first: number of the first sample.
            count: N, how many per target.
            keys: (B,) uint64, see `kernels.counter_stream`; or, with the poses, a tensor (B,) int64
                of their bits on the sampler's device.
            given: as for `sample`.

        Returns:
            (B, N, J) rad or m; a tensor where the sampler is on another device than the CPU.

        Raises:
            OptionError: as `sample` does.
        """
        raise NotImplementedError

    def map_from_noise(
        self, T_base_tip: Tensor, given: np.ndarray | None = None
    ) -> Callable[[Tensor], Tensor] | None:
        """The map from Gaussian noise to samples, where the sampler is one; else None.

        Args:
            T_base_tip: (B, T, 4, 4) float64.
            given: as for `sample`.

        Returns:
            A function of (B, N, J) noise to (B, N, J) rad or m, which may lie beyond the limits.
            Gradients flow through it where the noise asks for them.
        """
        return None


def available_samplers() -> list[str]:
    """Names of the samplers."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def resolve_sampler(name: str, robot: Robot, checkpoint: str | Path | None) -> str:
    """The sampler that a name stands for.

    Args:
        name: one of `available_samplers`, or "auto": "meanflow" where a checkpoint is given or
            shipped for the robot, else "uniform".
        robot: whose joints are drawn.
        checkpoint: that is given; None: none is.

    Raises:
        OptionError: there is no such sampler, or the checkpoint is neither text nor a path.
        CheckpointError: a shipped checkpoint is damaged, so that its robot is not known.
    """
    if not isinstance(checkpoint, str | PathLike | None):
        raise OptionError(f"checkpoint is {checkpoint!r}; it must be a name or a path")
    if name == "auto":
        has_network = checkpoint is not None or shipped_checkpoint(robot) is not None
        return "meanflow" if has_network else "uniform"
    if name not in available_samplers():
        raise OptionError(
            f"unknown sampler {name!r}; samplers are {', '.join(['auto', *available_samplers()])}"
        )
    return name


def build_sampler(name: str, robot: Robot, checkpoint: str | Path | None, device: str) -> Sampler:
    """Make the sampler of that name; see `resolve_sampler` and `Sampler.build`.

    Raises:
        OptionError: there is no such sampler, or it takes no checkpoint and one is given.
        CheckpointError: it needs a checkpoint that is missing, damaged, or of another robot.
    """
    module = importlib.import_module(f".{resolve_sampler(name, robot, checkpoint)}", __name__)
    return module.SAMPLER.build(robot, checkpoint, device)
