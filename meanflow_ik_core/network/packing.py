# SPDX-License-Identifier: Apache-2.0
"""The weights of a network in the order and form in which `kernels.one_step` reads them."""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from ..kernels.dense import padded
from ..kernels.products import BLOCK, WIDENS_HALF
from .sizes import POSE_FEATURES, TIME_FREQUENCIES, NetworkSizes, TokenSizes

Weights = Mapping[str, np.ndarray]
Layer = tuple[np.ndarray, np.ndarray]  # weight (outputs, inputs) and bias, padded with zeros


def size_numbers(sizes: NetworkSizes) -> np.ndarray:
    """The sizes as `kernels.one_step` has them."""
    tokens = (0, 0, 0)
    if isinstance(sizes, TokenSizes):
        tokens = sizes.token_dim, sizes.token_depth, sizes.num_heads
    return np.array(
        [
            sizes.num_joints, sizes.num_tips, sizes.hidden_dim, sizes.depth, sizes.context_dim,
            sizes.context_depth, *tokens,
        ]
    )  # fmt: skip


def pack_context(sizes: NetworkSizes, weights: Weights) -> tuple[np.ndarray, np.ndarray]:
    """Weights and biases of what is done once per pose.

    Weights are float16, as bits, where that is exact and fast on this CPU; else float32.
    """
    tokens = isinstance(sizes, TokenSizes)
    targets = _token_layers(sizes, weights) if tokens else _pose_layers(weights)
    layers = [*targets, *_context_layers(sizes, weights)]
    packed = _blocks(layers)
    if WIDENS_HALF:
        with np.errstate(over="ignore"):
            half = packed.astype(np.float16)
        if np.array_equal(half, packed):
            packed = half.view(np.uint16)
    return aligned(packed), aligned(np.concatenate([bias for _, bias in layers]))


def pack_trunk(
    sizes: NetworkSizes, weights: Weights, kind: np.dtype
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights of the first and the last layer, of the blocks between them, and biases of all.

    Those of the blocks are float32, or the bits of bfloat16 for an integer type.
    """
    weight, bias = _linear(weights, "z_in", pad_inputs=False)
    first = weight, np.zeros_like(bias)  # the context has its bias
    last = _linear(weights, "out")
    blocks = [
        _linear(weights, f"blocks.{i}.{part}")
        for i in range(sizes.depth)
        for part in ("first", "second")
    ]
    biases = np.concatenate([bias for _, bias in (first, *blocks, last)])
    packed = _blocks(blocks) if kind == np.float32 else _bfloat16_pairs(blocks).view(kind)
    return aligned(_blocks([first, last])), aligned(packed), aligned(biases)


def aligned(array: np.ndarray) -> np.ndarray:
    """A copy that begins with a cache line: vectors across two of them are slower."""
    memory = np.empty(array.nbytes + 64, np.uint8)
    begin = -memory.ctypes.data % 64
    copy = memory[begin : begin + array.nbytes].view(array.dtype)
    copy[:] = array
    return copy


def _pose_layers(weights: Weights) -> Iterator[Layer]:
    weight, bias = _linear(weights, "pose_in", pad_inputs=False)
    yield weight, bias + _times(weights, len(bias))


def _token_layers(sizes: TokenSizes, weights: Weights) -> Iterator[Layer]:
    tips, width, room = sizes.num_tips, sizes.token_dim, padded(sizes.token_dim)
    poses = np.zeros((tips, room, tips, POSE_FEATURES), np.float32)
    for tip, weight in enumerate(weights["pose_weight"]):
        poses[tip, :width, tip] = weight.T
    parts = weights["identity"], weights["absent"][:, 0], weights["absent"][:, 1]
    biases = [_with_zeros(part, (tips, room)).ravel() for part in parts]
    yield poses.reshape(tips * room, -1), np.concatenate(biases)
    for i in range(sizes.token_depth):
        for name in ("query_key_value", "joined", "first", "second"):
            yield _linear(weights, f"token_blocks.{i}.{name}")
    weight, bias = _linear(weights, "token_out", pad_inputs=False)
    split = _with_zeros(weight.reshape(len(bias), tips, width), (len(bias), tips, room))
    yield split.reshape(len(bias), -1), bias + _times(weights, len(bias))


def _context_layers(sizes: NetworkSizes, weights: Weights) -> Iterator[Layer]:
    yield _linear(weights, "context_mlp")
    for i in range(sizes.context_depth):
        yield _linear(weights, f"context_blocks.{i}.first")
        yield _linear(weights, f"context_blocks.{i}.second")
    # One product of the context makes its share of the input layer, then 1 + scale and shift of
    # every block.
    parts = [(weights["context_in.weight"], weights["z_in.bias"])]
    for i in range(sizes.depth):
        scale, shift = np.split(weights[f"blocks.{i}.modulation.weight"], 2)
        scale_bias, shift_bias = np.split(weights[f"blocks.{i}.modulation.bias"], 2)
        parts += [(scale, np.float32(1) + scale_bias), (shift, shift_bias)]
    hidden, context = padded(sizes.hidden_dim), padded(sizes.context_dim)
    yield (
        np.concatenate([_with_zeros(weight, (hidden, context)) for weight, _ in parts]),
        np.concatenate([_with_zeros(bias, (hidden,)) for _, bias in parts]),
    )


def _linear(weights: Weights, name: str, pad_inputs: bool = True) -> Layer:
    weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    outputs, inputs = map(padded, weight.shape)
    shape = (outputs, inputs if pad_inputs else weight.shape[1])
    return _with_zeros(weight, shape), _with_zeros(bias, (outputs,))


def _with_zeros(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    larger = np.zeros(shape, np.float32)
    larger[tuple(map(slice, array.shape))] = array
    return larger


def _times(weights: Weights, width: int) -> np.ndarray:
    """The embedding of the times r = 0 and t = 1 as a bias of the context, (width,)."""
    phase = np.pi * np.logspace(-2, 1, TIME_FREQUENCIES, base=2.0)  # the same for t and for t - r
    hidden = np.concatenate((np.sin(phase), np.cos(phase)))
    hidden = weights["time_mlp.0.weight"] @ hidden + weights["time_mlp.0.bias"]
    hidden = hidden / (1 + np.exp(-hidden))
    hidden = weights["time_mlp.2.weight"] @ hidden + weights["time_mlp.2.bias"]
    times = weights["time_in.weight"] @ np.concatenate((hidden, hidden)) + weights["time_in.bias"]
    return _with_zeros(times, (width,))


def _blocks(layers: Iterable[Layer]) -> np.ndarray:
    """All weights, block by block of outputs, (inputs, BLOCK) each."""
    blocks = [w.reshape(-1, BLOCK, w.shape[1]).transpose(0, 2, 1).ravel() for w, _ in layers]
    return np.concatenate(blocks)


def _bfloat16_pairs(layers: Iterable[Layer]) -> np.ndarray:
    """As `_blocks`, (inputs / 2, BLOCK, 2), rounded to the nearest bfloat16, ties to even."""
    pairs = [
        w.reshape(-1, BLOCK, w.shape[1] // 2, 2).transpose(0, 2, 1, 3).ravel() for w, _ in layers
    ]
    bits = np.concatenate(pairs).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
