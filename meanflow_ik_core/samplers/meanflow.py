# SPDX-License-Identifier: Apache-2.0
"""The learned sampler: noise and target become configurations in one network call."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import OptionError
from ..kernels.counter_stream import fill_normal
from ..network.compiled import CompiledNetwork, known_precision
from ..network.kinds import load_checkpoint
from ..network.model import VelocityNetwork, denormalise_joints
from ..robot.robot import Robot
from . import Sampler


class MeanFlowSampler(Sampler):
    """x0_hat = x1 - u(x1, r=0, t=1, condition), clamped to the limits (Geng et al. 2025, eq. 12).

    The weights of the network are taken as they are when the sampler is made.

    Args:
        robot: whose joints are drawn.
        network: trained for this robot.
        device: where samples are drawn.
        num_calls: n > 1 walks the interval [0, 1] in n equal steps.
        latent_scale: standard deviation of the noise x1.
        precision: of one call on the CPU, see `CompiledNetwork`; all else is float32.
        checkpoint: the record of the network that `load_checkpoint` returns; None: there is none.

    Raises:
        OptionError: a value does not exist or is out of its range, precision is "bfloat16" where
            there is none, or the network was trained for one call only.
    """

    def __init__(
        self,
        robot: Robot,
        network: VelocityNetwork,
        device: torch.device,
        num_calls: int = 1,
        latent_scale: float = 1.0,
        precision: str = "auto",
        checkpoint: Mapping[str, Any] | None = None,
    ):
        if num_calls < 1:
            raise OptionError(f"num_calls is {num_calls}; it must be at least 1")
        if num_calls > 1 and checkpoint is not None and knows_one_call_only(checkpoint):
            raise OptionError(
                f"num_calls is {num_calls}; the network of {checkpoint['path']} was trained for "
                "one call only (velocity_end: 0)"
            )
        self.checkpoint = checkpoint
        self.takes_partial_goals = network.takes_partial_goals
        of_one_call = known_precision(precision)
        one_cpu_call = num_calls == 1 and device.type == "cpu"
        if precision == "bfloat16" and not one_cpu_call:
            raise OptionError(
                "precision 'bfloat16' is for one call on the CPU, "
                f"not for {num_calls} on {str(device)!r}"
            )
        self._robot = robot
        self._network = network.to(device).eval()
        self._compiled = None
        if one_cpu_call:
            self._compiled = CompiledNetwork(
                network.sizes, network.arrays(), robot.workspace_scale, of_one_call
            )
        self.is_numbered = self._compiled is not None
        self._num_calls = num_calls
        self._latent_scale = latent_scale

    @classmethod
    def build(
        cls,
        robot: Robot,
        checkpoint: str | Path | None,
        device: torch.device,
        num_calls: int = 1,
    ) -> Sampler:
        network, record = load_checkpoint(checkpoint, robot)
        return cls(robot, network, device, num_calls, checkpoint=record)

    @torch.inference_mode()
    def sample(
        self,
        T_base_tip: Tensor,
        count: int,
        generator: torch.Generator,
        given: np.ndarray | None = None,
    ) -> Tensor:
        batch, joints = T_base_tip.shape[0], self._robot.num_joints
        z = torch.randn(batch, count, joints, generator=generator, device=generator.device)
        z *= self._latent_scale
        mask = self._mask(given, z.device)
        x0_hat = self._from_noise(z, T_base_tip, mask)
        lower, upper = self._robot.limits(x0_hat.dtype, x0_hat.device)
        return denormalise_joints(x0_hat.clamp(-1, 1), lower, upper)

    def numbered(
        self, T_base_tip: np.ndarray, first: int, count: int, keys: np.ndarray
    ) -> np.ndarray:
        assert self._compiled is not None
        z = np.empty((len(T_base_tip), count, self._robot.num_joints), np.float32)
        fill_normal(keys, first, z)
        if self._latent_scale != 1:
            z *= np.float32(self._latent_scale)
        x0_hat = np.clip(self._compiled(z, T_base_tip), -1, 1)
        lower, upper = self._robot.lower.astype(np.float32), self._robot.upper.astype(np.float32)
        return lower + np.float32(0.5) * (x0_hat + 1) * (upper - lower)

    def map_from_noise(
        self, T_base_tip: Tensor, given: np.ndarray | None = None
    ) -> Callable[[Tensor], Tensor]:
        lower, upper = self._robot.limits(torch.float32, T_base_tip.device)
        mask = self._mask(given, T_base_tip.device)
        scale = self._robot.workspace_scale
        condition = self._network.condition(T_base_tip, scale, mask).float()

        def joints(z: Tensor) -> Tensor:
            scaled = self._latent_scale * z
            if not (z.requires_grad and torch.is_grad_enabled()):
                # A copy: a tensor that inference mode has made takes part in no gradient.
                return denormalise_joints(
                    self._from_noise(scaled, T_base_tip, mask), lower, upper
                ).clone()
            if self._num_calls == 1:
                return denormalise_joints(self._network.one_step(scaled, condition), lower, upper)
            return denormalise_joints(self._walk(scaled, condition), lower, upper)

        return joints

    def _mask(self, given: np.ndarray | None, device: torch.device) -> Tensor | None:
        if given is None:
            return None
        if np.shape(given) != (self._robot.num_tips, 2):
            raise OptionError(
                f"given has shape {np.shape(given)}; it must be ({self._robot.num_tips}, 2)"
            )
        return torch.as_tensor(given, dtype=torch.bool, device=device)

    def _from_noise(self, z: Tensor, T_base_tip: Tensor, given: Tensor | None) -> Tensor:
        if self._compiled is not None:
            mask = None if given is None else given.numpy()
            return torch.from_numpy(self._compiled(z.numpy(), T_base_tip.numpy(), mask))
        scale = self._robot.workspace_scale
        condition = self._network.condition(T_base_tip, scale, given).float()
        if self._num_calls == 1:
            return self._network.one_step(z, condition)
        return self._walk(z, condition)

    def _walk(self, z: Tensor, condition: Tensor) -> Tensor:
        shape = z.shape
        condition = condition[:, None].expand(-1, shape[1], -1).flatten(0, 1)
        z = z.flatten(0, 1)
        step = 1.0 / self._num_calls
        for call in range(self._num_calls):
            t = z.new_full((len(z),), 1 - call * step)
            r = (t - step).clamp(min=0)
            u, _ = self._network(z, r, t, condition)
            z = z - step * u
        return z.view(shape)


def knows_one_call_only(checkpoint: Mapping[str, Any]) -> bool:
    """Whether a network knows no velocities, which several calls for a sample walk along.

    Args:
        checkpoint: the record that `load_checkpoint` returns. No term on velocities was ever part
            of such a network's training, see `TrainConfig`.
    """
    training = checkpoint["training"]
    config = training.get("config") if isinstance(training, Mapping) else None
    if not isinstance(config, Mapping):
        return False
    estimates = any(config.get(f"lambda_{term}") for term in ("energy", "kernel", "refine"))
    return estimates and config.get("estimate_start") == 0 and config.get("velocity_end") == 0


SAMPLER = MeanFlowSampler
