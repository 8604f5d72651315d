# SPDX-License-Identifier: Apache-2.0
"""The one-step call of a network on the CPU, compiled, from the arrays of its checkpoint."""

import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from ..errors import OptionError
from ..kernels import dense, one_step
from .sizes import POSE_FEATURES, TIME_FREQUENCIES, NetworkSizes, TokenSizes

# The work buffer of each thread, for all networks: of the largest that was asked.
_THREAD = threading.local()


class CompiledNetwork:
    """x0_hat = x1 - u(x1, 0, 1, targets) in float32, by one thread and without torch.

    The weights are taken as they are. Objects may be shared by threads, copied and pickled.

    Args:
        sizes: of the network.
        weights: by the names of `NetworkSizes.shapes`.
        workspace_scale: m, of the robot.
    """

    def __init__(
        self, sizes: NetworkSizes, weights: Mapping[str, np.ndarray], workspace_scale: float
    ):
        self.sizes = sizes
        self._workspace_scale = float(workspace_scale)
        if isinstance(sizes, TokenSizes):
            tokens = sizes.token_dim, sizes.token_depth, sizes.num_heads
            targets = _token_layers(sizes, weights)
        else:
            tokens = 0, 0, 0
            targets = _pose_layers(weights)
        self._numbers = np.array(
            [
                sizes.num_joints, sizes.num_tips, sizes.hidden_dim, sizes.depth, sizes.context_dim,
                sizes.context_depth, *tokens,
            ]
        )  # fmt: skip
        context = [*targets, *_context_layers(sizes, weights)]
        self._context = _packed(context, as_half=True)
        self._trunk = _packed(_trunk_layers(sizes, weights), as_half=False)

    def __call__(
        self, noise: np.ndarray, T_base_tip: np.ndarray, given: np.ndarray | None = None
    ) -> np.ndarray:
        """N samples for each of B poses.

        Args:
            noise: (B, N, J) float32.
            T_base_tip: (B, T, 4, 4); parts that are not given may hold anything.
            given: bool (T, 2), whether the position and the orientation of a tip are asked for;
                None: everything.

        Returns:
            (B, N, J) normalised joints, float32.

        Raises:
            OptionError: the network needs complete goals, and this one is not; or an array has the
                wrong shape.
        """
        tips, joints = self.sizes.num_tips, self.sizes.num_joints
        noise = np.ascontiguousarray(noise, np.float32)
        poses = np.ascontiguousarray(T_base_tip, np.float64)
        asked = np.ones((tips, 2), bool) if given is None else np.ascontiguousarray(given, bool)
        shapes = noise.shape, poses.shape, asked.shape
        # the kernel does not look where arrays end
        if noise.ndim != 3 or shapes != (
            (*noise.shape[:2], joints),
            (len(noise), tips, 4, 4),
            (tips, 2),
        ):
            raise OptionError(
                f"noise, poses and what is given have the shapes {shapes}; they must be "
                f"(B, N, {joints}), (B, {tips}, 4, 4) and ({tips}, 2)"
            )
        self.sizes.check_given(asked)
        x0_hat = np.empty_like(noise)
        work = _work(one_step.work_size(self._numbers))
        one_step.one_step_of(self._context[0].dtype == np.uint16)(
            noise.reshape(-1, joints), noise.shape[1], poses, asked, self._numbers,
            self._workspace_scale, *self._context, *self._trunk, work, x0_hat.reshape(-1, joints),
        )  # fmt: skip
        return x0_hat

    def __setstate__(self, state: dict[str, Any]) -> None:
        # a copy's memory may begin anywhere, and vectors across two cache lines are slower
        for name in ("_context", "_trunk"):
            state[name] = tuple(map(_aligned, state[name]))
        self.__dict__.update(state)


Weights = Mapping[str, np.ndarray]
Layer = tuple[np.ndarray, np.ndarray]  # weight (outputs, inputs) and bias, padded with zeros


def _pose_layers(weights: Weights) -> Iterator[Layer]:
    weight, bias = _linear(weights, "pose_in", pad_inputs=False)
    yield weight, bias + _times(weights, len(bias))


def _token_layers(sizes: TokenSizes, weights: Weights) -> Iterator[Layer]:
    tips, width, padded = sizes.num_tips, sizes.token_dim, dense.padded(sizes.token_dim)
    poses = np.zeros((tips, padded, tips, POSE_FEATURES), np.float32)
    for tip, weight in enumerate(weights["pose_weight"]):
        poses[tip, :width, tip] = weight.T
    parts = weights["identity"], weights["absent"][:, 0], weights["absent"][:, 1]
    biases = [_with_zeros(part, (tips, padded)).ravel() for part in parts]
    yield poses.reshape(tips * padded, -1), np.concatenate(biases)
    for i in range(sizes.token_depth):
        for name in ("query_key_value", "joined", "first", "second"):
            yield _linear(weights, f"token_blocks.{i}.{name}")
    weight, bias = _linear(weights, "token_out", pad_inputs=False)
    split = _with_zeros(weight.reshape(len(bias), tips, width), (len(bias), tips, padded))
    yield split.reshape(len(bias), -1), bias + _times(weights, len(bias))


def _context_layers(sizes: NetworkSizes, weights: Weights) -> Iterator[Layer]:
    yield _linear(weights, "context_mlp")
    for i in range(sizes.context_depth):
        yield _linear(weights, f"context_blocks.{i}.first")
        yield _linear(weights, f"context_blocks.{i}.second")
    # the input's share of the context, then (1 + scale, shift) of every block
    parts = [(weights["context_in.weight"], weights["z_in.bias"])]
    for i in range(sizes.depth):
        scale, shift = np.split(weights[f"blocks.{i}.modulation.weight"], 2)
        scale_bias, shift_bias = np.split(weights[f"blocks.{i}.modulation.bias"], 2)
        parts += [(scale, np.float32(1) + scale_bias), (shift, shift_bias)]
    hidden, context = dense.padded(sizes.hidden_dim), dense.padded(sizes.context_dim)
    yield (
        np.concatenate([_with_zeros(weight, (hidden, context)) for weight, _ in parts]),
        np.concatenate([_with_zeros(bias, (hidden,)) for _, bias in parts]),
    )


def _trunk_layers(sizes: NetworkSizes, weights: Weights) -> Iterator[Layer]:
    weight, bias = _linear(weights, "z_in", pad_inputs=False)
    yield weight, np.zeros_like(bias)  # the context has it
    for i in range(sizes.depth):
        yield _linear(weights, f"blocks.{i}.first")
        yield _linear(weights, f"blocks.{i}.second")
    yield _linear(weights, "out")


def _linear(weights: Weights, name: str, pad_inputs: bool = True) -> Layer:
    weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    outputs, inputs = map(dense.padded, weight.shape)
    shape = (outputs, inputs if pad_inputs else weight.shape[1])
    return _with_zeros(weight, shape), _with_zeros(bias, (outputs,))


def _with_zeros(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    padded = np.zeros(shape, np.float32)
    padded[tuple(map(slice, array.shape))] = array
    return padded


def _times(weights: Weights, width: int) -> np.ndarray:
    """The embedding of the times r = 0 and t = 1 as a bias of the context, (width,)."""
    phase = np.pi * np.logspace(-2, 1, TIME_FREQUENCIES, base=2.0)  # of t, and of t - r
    hidden = np.concatenate((np.sin(phase), np.cos(phase)))
    hidden = weights["time_mlp.0.weight"] @ hidden + weights["time_mlp.0.bias"]
    hidden = hidden / (1 + np.exp(-hidden))
    hidden = weights["time_mlp.2.weight"] @ hidden + weights["time_mlp.2.bias"]
    times = weights["time_in.weight"] @ np.concatenate((hidden, hidden)) + weights["time_in.bias"]
    return _with_zeros(times, (width,))


def _packed(layers: Iterable[Layer], as_half: bool) -> tuple[np.ndarray, np.ndarray]:
    """Weights of all layers, block by block, and their biases.

    Weights are float16, as bits, where that is wanted, exact, and fast on this CPU; else float32.
    """
    blocks, biases = [], []
    for weight, bias in layers:
        block = weight.reshape(-1, dense.BLOCK, weight.shape[1]).transpose(0, 2, 1)
        blocks.append(block.ravel())
        biases.append(bias)
    weights = np.concatenate(blocks)
    if as_half and dense.WIDENS_HALF:
        with np.errstate(over="ignore"):
            half = weights.astype(np.float16)
        if np.array_equal(half, weights):
            weights = half.view(np.uint16)
    return _aligned(weights), _aligned(np.concatenate(biases))


def _work(size: int) -> np.ndarray:
    if getattr(_THREAD, "work", np.empty(0)).size < size:
        _THREAD.work = _aligned(np.zeros(size, np.float32))
    return _THREAD.work


def _aligned(array: np.ndarray) -> np.ndarray:
    """A copy that begins with a cache line."""
    memory = np.empty(array.nbytes + 64, np.uint8)
    begin = -memory.ctypes.data % 64
    copy = memory[begin : begin + array.nbytes].view(array.dtype)
    copy[:] = array
    return copy
