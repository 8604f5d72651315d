# SPDX-License-Identifier: Apache-2.0
"""The one-step call of a network on a GPU, in half precision, without gradients.

Small calls are replayed as CUDA graphs, for a call is some hundred operations and Python takes
longer for them than the GPU. The trunk is one kernel where its width is one that the kernel knows.
"""

import threading
from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..network.model import VelocityNetwork, denormalise_joints
from ..robot.robot import Robot
from . import trunk_kernels
from .generated import compile_rows
from .trunk import WIDTHS, modulate, modulation_layers, trunk_forward, trunk_layers

_PRECISION = torch.float16
_MOST_CAPTURED = 1 << 17  # rows of a call that is a graph
_MOST_GRAPHS = 16
_MOST_ROWS, _MOST_POSES = 1 << 20, 1 << 14  # of a call that is none; more are several calls


class _Graph(NamedTuple):
    graph: Any
    noise: Tensor
    poses: Tensor
    given: Tensor | None
    x0_hat: Tensor


class DeviceNetwork:
    """x0_hat = x1 - u(x1, 0, 1, targets) on a device.

    The weights are those at the time of the first call. Objects may be shared by threads, and
    copied.

    Args:
        network: on the device.
        robot: that it was trained for.
    """

    def __init__(self, network: VelocityNetwork, robot: Robot):
        self.network, self._robot = network, robot
        self._device = network.out.weight.device
        self._weights: tuple[Any, ...] | None = None
        self._normal: Any = None
        self._graphs: OrderedDict[Any, _Graph] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.network, self._robot)

    @torch.inference_mode()
    def numbered(
        self, T_base_tip: Any, first: int, count: int, keys: Any, given: np.ndarray | None,
        latent_scale: float,
    ) -> Tensor:  # fmt: skip
        """As `Sampler.numbered`; ``latent_scale`` is the standard deviation of the noise."""
        joints = self.network.num_joints
        if isinstance(keys, np.ndarray):
            keys = torch.from_numpy(keys.view(np.int64)).to(self._device)
        poses = torch.as_tensor(T_base_tip, device=self._device)
        mask = None if given is None else torch.as_tensor(given, device=self._device)
        if self._normal is None:
            tables = {"TIPS": 1, "JOINTS": joints}
            names = ("normal",)
            self._normal = compile_rows(("counter_stream.h",), tables, names, self._device)
        z = torch.empty(len(keys), count, joints, device=self._device)
        self._normal["normal"]((keys, z, first, count), len(keys) * count)
        x0_hat = self(z if latent_scale == 1 else z * latent_scale, poses, mask)
        lower, upper = self._robot.limits(x0_hat.dtype, x0_hat.device)
        return denormalise_joints(x0_hat.clamp(-1, 1), lower, upper)

    @torch.inference_mode()
    def __call__(self, noise: Tensor, T_base_tip: Tensor, given: Tensor | None = None) -> Tensor:
        """N samples for each of B poses.

        Args:
            noise: (B, N, J) float32.
            T_base_tip: (B, T, 4, 4).
            given: bool (T, 2), whether the position and the orientation of a tip are asked for;
                None: everything.

        Returns:
            (B, N, J) normalised joints, float32.

        Raises:
            OptionError: the network needs complete goals, and this one is not.
        """
        with torch.cuda.device_of(noise):
            return self._called(noise, T_base_tip, given)

    def _called(self, noise: Tensor, T_base_tip: Tensor, given: Tensor | None) -> Tensor:
        poses, samples = noise.shape[:2]
        bucket = 1 << max(0, poses - 1).bit_length()
        if self._device.type == "cuda" and bucket * samples <= _MOST_CAPTURED and poses:
            return self._replayed(noise, T_base_tip, given, bucket)
        size = max(1, min(_MOST_ROWS // samples, _MOST_POSES))
        parts = [
            self._computed(noise[begin : begin + size], T_base_tip[begin : begin + size], given)
            for begin in range(0, max(1, poses), size)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _computed(self, noise: Tensor, T_base_tip: Tensor, given: Tensor | None) -> Tensor:
        network = self.network
        condition = network.condition(T_base_tip.float(), self._robot.workspace_scale, given)
        if self._device.type != "cuda" or not _knows_trunk(network):
            with torch.autocast(self._device.type, _PRECISION, self._device.type == "cuda"):
                return network.one_step(noise, condition).float()
        if self._weights is None:
            layers = trunk_layers(network)
            half = tuple(tensor.to(_PRECISION) for tensor in modulation_layers(network))
            self._weights = half, (layers[0].to(_PRECISION), *layers[1:])
        (weight, bias), layers = self._weights
        modulations = modulate(network, condition, weight, bias, _PRECISION)
        rows = noise.reshape(-1, noise.shape[2])
        return trunk_forward(rows, modulations, layers, noise.shape[1], _PRECISION).view_as(noise)

    def _replayed(
        self, noise: Tensor, T_base_tip: Tensor, given: Tensor | None, bucket: int
    ) -> Tensor:
        """The same by a graph for so many poses or more."""
        poses, samples = noise.shape[:2]
        key = bucket, samples, None if given is None else tuple(given.flatten().tolist())
        with self._lock:
            if key not in self._graphs:
                if len(self._graphs) >= _MOST_GRAPHS:
                    self._graphs.popitem(last=False)
                self._graphs[key] = self._captured(noise, T_base_tip, given, bucket)
            self._graphs.move_to_end(key)
            graph = self._graphs[key]
            graph.noise[:poses] = noise
            graph.poses[:poses] = T_base_tip
            graph.graph.replay()
            return graph.x0_hat[:poses].clone()

    def _captured(
        self, noise: Tensor, T_base_tip: Tensor, given: Tensor | None, bucket: int
    ) -> _Graph:
        still_noise = noise.new_zeros(bucket, *noise.shape[1:])
        still_poses = T_base_tip[:1].float().expand(bucket, -1, -1, -1).contiguous()
        given = None if given is None else given.clone()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # libraries make their plans and buffers
            for _ in range(2):
                self._computed(still_noise, still_poses, given)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            x0_hat = self._computed(still_noise, still_poses, given)
        return _Graph(graph, still_noise, still_poses, given, x0_hat)


def _knows_trunk(network: VelocityNetwork) -> bool:
    return trunk_kernels.triton is not None and network.sizes.hidden_dim in WIDTHS
