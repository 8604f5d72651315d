# SPDX-License-Identifier: Apache-2.0
"""The learned sampler: noise and target become configurations in one network call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import OptionError
from ..kernels.counter_stream import fill_normal
from ..network.checkpoint import Checkpoint, read_checkpoint
from ..network.compiled import CompiledNetwork, known_precision
from ..robot.robot import Robot
from ..tensors import device_name
from . import Sampler

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ..cuda.network import DeviceNetwork
    from ..network.model import VelocityNetwork
    from ..network.tensor_sampler import TensorSampler


class MeanFlowSampler(Sampler):
    """x0_hat = x1 - u(x1, r=0, t=1, condition), clamped to the limits (Geng et al. 2025, eq. 12).

    The weights of the network are taken as they are when the sampler is made.

    Args:
        robot: whose joints are drawn.
        network: trained for this robot; its checkpoint spares the import of torch.
        device: where samples are drawn, as torch has it or by name.
        num_calls: n > 1 walks the interval [0, 1] in n equal steps, in torch.
        latent_scale: standard deviation of the noise x1.
        precision: of one call on the CPU, see `CompiledNetwork`. One call on a GPU is in float16,
            see `DeviceNetwork`, several are in float32.

    Raises:
        OptionError: a value does not exist or is out of its range, precision is "bfloat16" where
            there is none, or the network was trained for one call only.
    """

    def __init__(
        self,
        robot: Robot,
        network: Checkpoint | VelocityNetwork,
        device: Any = "cpu",
        num_calls: int = 1,
        latent_scale: float = 1.0,
        precision: str = "auto",
    ):
        device = device_name(device)
        record = network.record if isinstance(network, Checkpoint) else None
        if num_calls < 1:
            raise OptionError(f"num_calls is {num_calls}; it must be at least 1")
        if num_calls > 1 and record is not None and knows_one_call_only(record):
            raise OptionError(
                f"num_calls is {num_calls}; the network of {record['path']} was trained for "
                "one call only (velocity_end: 0)"
            )
        self.checkpoint = record
        self.takes_partial_goals = network.sizes.takes_partial_goals
        of_one_call = known_precision(precision)
        one_cpu_call = num_calls == 1 and device == "cpu"
        if precision == "bfloat16" and not one_cpu_call:
            raise OptionError(
                "precision 'bfloat16' is for one call on the CPU, "
                f"not for {num_calls} on {device!r}"
            )
        self._robot = robot
        self._saved = Checkpoint(network.sizes, network.arrays(), {})
        self._device = device
        self._compiled = None
        if one_cpu_call:
            self._compiled = CompiledNetwork(
                network.sizes, self._saved.weights, robot.workspace_scale, of_one_call
            )
        self.is_numbered = num_calls == 1
        self._num_calls = num_calls
        self._latent_scale = latent_scale

    @classmethod
    def build(
        cls,
        robot: Robot,
        checkpoint: str | Path | None,
        device: str,
        num_calls: int = 1,
    ) -> Sampler:
        return cls(robot, read_checkpoint(checkpoint, robot), device, num_calls)

    @cached_property
    def _on_tensors(self) -> TensorSampler:
        from ..network.kinds import network_from
        from ..network.tensor_sampler import TensorSampler

        on_device = self._on_device if self.is_numbered and self._compiled is None else None
        if on_device is not None:
            network = on_device.network
        else:
            network = network_from(self._saved).to(self._device)
        return TensorSampler(
            self._robot, network, self._num_calls, self._latent_scale, self._compiled, on_device
        )

    @cached_property
    def _on_device(self) -> DeviceNetwork:
        from ..cuda.network import DeviceNetwork
        from ..network.kinds import network_from

        network = network_from(self._saved).to(self._device)
        return DeviceNetwork(network, self._robot)

    def sample(
        self,
        T_base_tip: Tensor,
        count: int,
        generator: torch.Generator,
        given: np.ndarray | None = None,
    ) -> Tensor:
        self._check(given)
        return self._on_tensors.sample(T_base_tip, count, generator, given)

    def numbered(
        self,
        T_base_tip: Any,
        first: int,
        count: int,
        keys: Any,
        given: np.ndarray | None = None,
    ) -> Any:
        self._check(given)
        if self._compiled is None:
            return self._on_device.numbered(
                T_base_tip, first, count, keys, given, self._latent_scale
            )
        z = np.empty((len(T_base_tip), count, self._robot.num_joints), np.float32)
        fill_normal(keys, first, z)
        if self._latent_scale != 1:
            z *= np.float32(self._latent_scale)
        x0_hat = np.clip(self._compiled(z, T_base_tip, given), -1, 1)
        lower, upper = self._robot.lower.astype(np.float32), self._robot.upper.astype(np.float32)
        return lower + np.float32(0.5) * (x0_hat + 1) * (upper - lower)

    def map_from_noise(
        self, T_base_tip: Tensor, given: np.ndarray | None = None
    ) -> Callable[[Tensor], Tensor]:
        self._check(given)
        return self._on_tensors.map_from_noise(T_base_tip, given)

    def _check(self, given: np.ndarray | None) -> None:
        if given is not None and np.shape(given) != (self._robot.num_tips, 2):
            raise OptionError(
                f"given has shape {np.shape(given)}; it must be ({self._robot.num_tips}, 2)"
            )


def knows_one_call_only(checkpoint: Mapping[str, Any]) -> bool:
    """Whether a network knows no velocities, which several calls for a sample walk along.

    Args:
        checkpoint: the record of `Checkpoint`. No term on velocities was ever part
            of such a network's training, see `TrainConfig`.
    """
    training = checkpoint["training"]
    config = training.get("config") if isinstance(training, Mapping) else None
    if not isinstance(config, Mapping):
        return False
    estimates = any(config.get(f"lambda_{term}") for term in ("energy", "kernel", "refine"))
    return estimates and config.get("estimate_start") == 0 and config.get("velocity_end") == 0


SAMPLER = MeanFlowSampler
