# SPDX-License-Identifier: Apache-2.0
"""The one-step call of a network on a GPU, in half precision, without gradients.

A call is some hundred operations, and Python takes longer for them than the GPU: one of a shape
that comes again is replayed as a CUDA graph. Shapes are few, for the number of poses is rounded up,
and many poses are several calls. The trunk is one kernel where its width is one that it knows.
"""

import threading
from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..network.model import VelocityNetwork
from ..robot.robot import Robot
from . import trunk_kernels
from .generated import compile_rows
from .trunk import WIDTHS, modulate, modulation_layers, trunk_forward, trunk_layers

_PRECISION = torch.float16
_MOST_ROWS, _MOST_POSES = 1 << 20, 1 << 14  # of a call; more are several calls
_MOST_BY_TORCH = 1 << 17  # rows of a call whose trunk is not one kernel, and keeps them in memory
_LEAST_POSES = 16
_MOST_GRAPHS = 8
_MOST_SHAPES = 1 << 10  # that are remembered


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
        self._seen: set[Any] = set()
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
            lower, upper = self._robot.limits(torch.float32, self._device)
            self._middle, self._half_range = 0.5 * (lower + upper), 0.5 * (upper - lower)
        z = torch.empty(len(keys), count, joints, device=self._device)
        self._normal["normal"]((keys, z, first, count), len(keys) * count)
        x0_hat = self(z if latent_scale == 1 else z * latent_scale, poses, mask)
        return torch.addcmul(self._middle, x0_hat.clamp_(-1, 1), self._half_range)

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
        rows = _MOST_ROWS if _knows_trunk(self.network) else _MOST_BY_TORCH
        most = max(1, min(rows // samples, _MOST_POSES))
        size = 1 << (most.bit_length() - 1)
        may_repeat = self._device.type == "cuda" and poses and samples <= rows
        compute = self._in_shape if may_repeat else self._computed
        parts = [
            compute(noise[begin : begin + size], T_base_tip[begin : begin + size], given)
            for begin in range(0, max(1, poses), size)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _in_shape(self, noise: Tensor, T_base_tip: Tensor, given: Tensor | None) -> Tensor:
        """The same for a number of poses that is rounded up; by a graph when it comes again."""
        poses, samples = noise.shape[:2]
        bucket = max(1 << (poses - 1).bit_length(), min(_LEAST_POSES, _MOST_BY_TORCH // samples))
        key = bucket, samples, None if given is None else tuple(given.flatten().tolist())
        with self._lock:
            if key in self._graphs:
                self._graphs.move_to_end(key)
                return self._replayed(self._graphs[key], noise, T_base_tip)
            still_noise = noise.new_zeros(bucket, *noise.shape[1:])
            still_poses = T_base_tip[:1].float().expand(bucket, -1, -1, -1).contiguous()
            if key in self._seen:
                if len(self._graphs) >= _MOST_GRAPHS:
                    self._graphs.popitem(last=False)
                self._graphs[key] = self._captured(still_noise, still_poses, given)
                return self._replayed(self._graphs[key], noise, T_base_tip)
            if len(self._seen) >= _MOST_SHAPES:
                self._seen.clear()
            self._seen.add(key)
        still_noise[:poses], still_poses[:poses] = noise, T_base_tip
        return self._computed(still_noise, still_poses, given)[:poses].clone()

    def _replayed(self, graph: _Graph, noise: Tensor, T_base_tip: Tensor) -> Tensor:
        poses = len(noise)
        graph.noise[:poses] = noise
        graph.poses[:poses] = T_base_tip
        graph.graph.replay()
        return graph.x0_hat[:poses].clone()

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

    def _captured(self, noise: Tensor, poses: Tensor, given: Tensor | None) -> _Graph:
        """A graph for as many poses as there are; it keeps these tensors."""
        given = None if given is None else given.clone()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # libraries make their plans and buffers
            for _ in range(2):
                self._computed(noise, poses, given)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            x0_hat = self._computed(noise, poses, given)
        return _Graph(graph, noise, poses, given, x0_hat)


def _knows_trunk(network: VelocityNetwork) -> bool:
    return trunk_kernels.triton is not None and network.sizes.hidden_dim in WIDTHS
