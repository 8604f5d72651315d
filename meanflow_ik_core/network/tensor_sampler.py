# SPDX-License-Identifier: Apache-2.0
"""Samples of a network in torch: on any device, in several calls, and with gradients."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..robot.robot import Robot
from .compiled import CompiledNetwork
from .model import VelocityNetwork, denormalise_joints


class TensorSampler:
    """x0_hat = x1 - u(x1, r=0, t=1, condition), or a walk along u in several calls.

    Args:
        robot: whose joints are drawn.
        network: trained for this robot, on the device of the samples.
        num_calls: n > 1 walks the interval [0, 1] in n equal steps.
        latent_scale: standard deviation of the noise x1.
        compiled: the same network for one call on the CPU without gradients, if there is one.
        on_device: for one call on a device without gradients, see `cuda.network.DeviceNetwork`.
    """

    def __init__(
        self,
        robot: Robot,
        network: VelocityNetwork,
        num_calls: int,
        latent_scale: float,
        compiled: CompiledNetwork | None,
        on_device: Callable[..., Tensor] | None = None,
    ):
        self._robot, self._network = robot, network
        self._num_calls, self._latent_scale = num_calls, latent_scale
        self._compiled, self._on_device = compiled, on_device

    @torch.inference_mode()
    def sample(
        self,
        T_base_tip: Tensor,
        count: int,
        generator: torch.Generator,
        given: np.ndarray | None = None,
    ) -> Tensor:
        """See `Sampler.sample`."""
        batch, joints = T_base_tip.shape[0], self._robot.num_joints
        z = torch.randn(batch, count, joints, generator=generator, device=generator.device)
        z *= self._latent_scale
        x0_hat = self._from_noise(z, T_base_tip, _mask(given, z.device))
        lower, upper = self._robot.limits(x0_hat.dtype, x0_hat.device)
        return denormalise_joints(x0_hat.clamp(-1, 1), lower, upper)

    def map_from_noise(
        self, T_base_tip: Tensor, given: np.ndarray | None = None
    ) -> Callable[[Tensor], Tensor]:
        """See `Sampler.map_from_noise`."""
        lower, upper = self._robot.limits(torch.float32, T_base_tip.device)
        mask = _mask(given, T_base_tip.device)
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

    def _from_noise(self, z: Tensor, T_base_tip: Tensor, given: Tensor | None) -> Tensor:
        if self._compiled is not None:
            mask = None if given is None else given.numpy()
            return torch.from_numpy(self._compiled(z.numpy(), T_base_tip.numpy(), mask))
        if self._on_device is not None:
            return self._on_device(z, T_base_tip, given)
        scale = self._robot.workspace_scale
        return self._walk(z, self._network.condition(T_base_tip, scale, given).float())

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


def _mask(given: np.ndarray | None, device: torch.device) -> Tensor | None:
    return None if given is None else torch.as_tensor(given, dtype=torch.bool, device=device)
