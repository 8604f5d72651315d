# SPDX-License-Identifier: Apache-2.0
"""One network call on the CPU, as fast as eager torch goes: `VelocityNetwork.one_step`, folded."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import OptionError
from .model import MeanFlowNetwork, VelocityNetwork
from .token_model import TokenNetwork

PRECISIONS = ("auto", "float32", "bfloat16")
# The activations of so many samples stay in the caches; more at once take twice as long each.
_ROWS_PER_PASS = 2048
_PACKED_OPS = ("_linear_pointwise", "_reorder_linear_weight")


def bfloat16_supported() -> bool:
    """Whether this CPU multiplies bfloat16 itself, and this torch has the operators for it."""
    # every CPU with AMX has AVX-512 BF16 too; without either, bfloat16 is emulated and slower
    in_hardware = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    packed = torch.backends.mkldnn.is_available() and all(
        hasattr(torch.ops.mkldnn, name) for name in _PACKED_OPS
    )
    return bool(packed and in_hardware())


def dtype_from_precision(precision: str) -> torch.dtype:
    """Type of the matrix products; "auto" is bfloat16 where the CPU has it.

    Raises:
        OptionError: there is no such precision, or this CPU has no bfloat16.
    """
    if precision not in PRECISIONS:
        raise OptionError(f"unknown precision {precision!r}; it is one of {', '.join(PRECISIONS)}")
    if precision == "bfloat16" and not bfloat16_supported():
        raise OptionError("precision is 'bfloat16', which this CPU has not; 'float32' is left")
    if precision == "float32" or not bfloat16_supported():
        return torch.float32
    return torch.bfloat16


class OneStep:
    """x0_hat = x1 - u(x1, 0, 1, condition) of a network whose weights no longer change.

    The times are constant, so their embedding is part of a bias. The pose goes in as its matrix,
    without the detour over the quaternion of a condition. With bfloat16 the matrix products of
    the blocks are done in it, from weights that oneDNN has laid out once; the residual stream
    stays float32, which costs nothing and halves the rounding error.

    Args:
        network: what to copy the weights of.
        workspace_scale: m, of the robot.
        dtype: of the matrix products, see `dtype_from_precision`.
    """

    @torch.no_grad()
    def __init__(self, network: VelocityNetwork, workspace_scale: float, dtype: torch.dtype):
        self._dtype = dtype
        if isinstance(network, TokenNetwork):
            self._pose_features = _TokenFeatures(network, workspace_scale)
        elif isinstance(network, MeanFlowNetwork):
            self._pose_features = _matrix_features(network, workspace_scale)
        else:
            raise OptionError(f"a network of kind {network.kind!r} has no folded call")
        self._context = _copied(network.context_mlp)
        context_blocks: list[Any] = [*network.context_blocks]
        self._context_blocks = [
            (_copied(block.first), _copied(block.second)) for block in context_blocks
        ]
        blocks: list[Any] = [*network.blocks]
        # One product of the context makes its share of the input layer, then 1 + scale and shift
        # of every block.
        modulations = [block.modulation for block in blocks]
        weights = [network.context_in.weight, *(layer.weight for layer in modulations)]
        one = torch.ones_like(network.z_in.bias)
        plus_one = torch.cat((one, torch.zeros_like(one)))
        biases = [network.z_in.bias, *(layer.bias + plus_one for layer in modulations)]
        self._modulation = _by_columns(torch.cat(weights)), torch.cat(biases)
        self._z_weight = network.z_in.weight.detach().clone()
        self._blocks = [
            (_applied(block.first, dtype, silu=True), _applied(block.second, dtype))
            for block in blocks
        ]
        self._out = _copied(network.out)

    @torch.inference_mode()
    def __call__(self, noise: Tensor, T_base_tip: Tensor, given: Tensor | None = None) -> Tensor:
        """N samples for each of B poses.

        Args:
            noise: (B, N, J) float32.
            T_base_tip: (B, T, 4, 4), float32 or float64.
            given: bool (T, 2), see `VelocityNetwork.condition`.

        Returns:
            (B, N, J) normalised joints, float32.
        """
        batch, count = noise.shape[:2]
        if 0 < batch * count <= _ROWS_PER_PASS:
            return self._pass(noise, T_base_tip, given)
        x0_hat = torch.empty_like(noise)
        poses = max(1, _ROWS_PER_PASS // max(1, count))
        for first in range(0, batch, poses):
            rows = slice(first, first + poses)
            for sample in range(0, count, _ROWS_PER_PASS):
                columns = slice(sample, sample + _ROWS_PER_PASS)
                x0_hat[rows, columns] = self._pass(noise[rows, columns], T_base_tip[rows], given)
        return x0_hat

    def _pass(self, noise: Tensor, T_base_tip: Tensor, given: Tensor | None) -> Tensor:
        context = F.silu(self._pose_features(T_base_tip, given))
        context = F.silu(F.linear(context, *self._context))
        for first, second in self._context_blocks:
            normed = F.layer_norm(context, context.shape[-1:])
            context = context + F.linear(F.silu(F.linear(normed, *first)), *second)
        modulation = F.linear(context, *self._modulation).unflatten(-1, (-1, len(self._z_weight)))
        if len(noise) == 1:  # then scale and shift are the same for all rows, as weights are
            start, *pairs = modulation[0].unbind()
            hidden = F.linear(noise[0], self._z_weight, start)
        else:
            start, *pairs = modulation[:, :, None].unbind(1)
            hidden = F.linear(noise, self._z_weight).add_(start)
        rows = hidden.flatten(0, -2)  # oneDNN takes longer for three axes
        for (first, second), scale, shift in zip(
            self._blocks, pairs[::2], pairs[1::2], strict=True
        ):
            rows += second(first(_modulated(hidden, scale, shift).to(self._dtype)))
        return noise - F.linear(F.silu(rows, inplace=True), *self._out).view_as(noise)


def _modulated(hidden: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """layer_norm(hidden) * scale + shift as (B * N, H), of (N, H) and twice (H,), or of (B, N, H)
    and twice (B, 1, H)."""
    width = hidden.shape[-1:]
    if scale.ndim == 1:
        return F.layer_norm(hidden, width, scale, shift)
    return torch.addcmul(shift, F.layer_norm(hidden, width), scale).flatten(0, 1)


def _matrix_features(
    network: MeanFlowNetwork, workspace_scale: float
) -> Callable[[Tensor, Tensor | None], Tensor]:
    """`pose_in` and the times r = 0, t = 1, of rows of [R | p] in metres."""
    weight = network.pose_in.weight.unflatten(1, (network.num_tips, -1))
    position = weight[..., :3, None] / workspace_scale
    rotation = weight[..., 3:].unflatten(-1, (3, 3))
    rows = torch.cat((rotation, position), -1).flatten(1)
    bias = network.pose_in.bias + _one_step_times(network)

    def features(T_base_tip: Tensor, given: Tensor | None) -> Tensor:
        if given is not None:
            network.condition(T_base_tip[:0], workspace_scale, given)  # refuses partial goals
        return F.linear(T_base_tip[..., :3, :].flatten(1).float(), rows, bias)

    return features


class _TokenFeatures:
    """`TokenNetwork.encode` and the times r = 0, t = 1, of poses in metres.

    All tips' poses become tokens in one product with a block-diagonal matrix, and the scale of the
    attention is part of the queries' weights.
    """

    def __init__(self, network: TokenNetwork, workspace_scale: float):
        position = network.pose_weight[:, :3, None] / workspace_scale
        rotation = network.pose_weight[:, 3:].unflatten(1, (3, 3))
        rows = torch.cat((rotation, position), 2).flatten(1, 2)  # of [R | p], (T, 12, D)
        self._tokens = torch.block_diag(*rows.mT)
        self._identity = network.identity.detach().clone()
        self._absent = network.absent.detach().clone()
        blocks: list[Any] = [*network.token_blocks]
        self._blocks = [
            (_scaled_queries(block), *map(_copied, (block.joined, block.first, block.second)))
            for block in blocks
        ]
        self._heads: int = network.config["num_heads"]
        weight, bias = _copied(network.token_out)
        self._out = weight, bias + _one_step_times(network)

    def __call__(self, T_base_tip: Tensor, given: Tensor | None) -> Tensor:
        poses, bias = T_base_tip[..., :3, :].float(), self._identity
        if given is not None:
            rotation, position = given[..., 1:].expand(*given.shape[:-1], 3), given[..., :1]
            poses = torch.where(torch.cat((rotation, position), -1)[..., None, :], poses, 0.0)
            bias = bias + (~given[..., None] * self._absent).sum(-2)
        tips, width = self._identity.shape
        tokens = F.linear(poses.flatten(1), self._tokens).view(len(poses), tips, width)
        tokens = (tokens + bias).view(len(poses) * tips, width)
        for query_key_value, joined, first, second in self._blocks:
            heads = F.linear(F.layer_norm(tokens, (width,)), *query_key_value)
            tokens = tokens + F.linear(self._attended(heads, len(poses)), *joined)
            hidden = F.silu(F.linear(F.layer_norm(tokens, (width,)), *first), inplace=True)
            tokens = tokens + F.linear(hidden, *second)
        return F.linear(tokens.view(len(poses), tips * width), *self._out)

    def _attended(self, heads: Tensor, batch: int) -> Tensor:
        """Mixed values (B T, D) of queries, keys and values (B T, 3 D)."""
        tips, width = self._identity.shape
        size = (3, batch * self._heads, tips, width // self._heads)
        split = heads.view(batch, tips, 3, self._heads, size[-1]).permute(2, 0, 3, 1, 4)
        query, key, value = split.reshape(size).unbind()
        mixed = torch.bmm(torch.bmm(query, key.mT).softmax(-1), value)
        mixed = mixed.view(batch, self._heads, tips, size[-1])
        return mixed.transpose(1, 2).reshape(batch * tips, width)


def _scaled_queries(block: Any) -> tuple[Tensor, Tensor]:
    weight, bias = _copied(block.query_key_value)
    scale = torch.ones_like(bias)
    scale[: len(bias) // 3] = (len(bias) // 3 // block.num_heads) ** -0.5
    return weight * scale[:, None], bias * scale


def _one_step_times(network: VelocityNetwork) -> Tensor:
    zero = torch.zeros_like(network.frequencies[:1])
    return network._times(zero, zero + 1).squeeze(0)


def _copied(layer: nn.Linear) -> tuple[Tensor, Tensor]:
    return _by_columns(layer.weight), layer.bias.detach().clone()


def _by_columns(weight: Tensor) -> Tensor:
    """A copy that lies in memory as its transpose: a single row is multiplied faster by it."""
    return weight.detach().t().clone(memory_format=torch.contiguous_format).t()


def _applied(
    layer: nn.Linear, dtype: torch.dtype, silu: bool = False
) -> Callable[[Tensor], Tensor]:
    """The layer, and silu after it, as a function of tensors of this type."""
    weight, bias = (tensor.to(dtype) for tensor in _copied(layer))
    if dtype == torch.bfloat16:
        # F.linear would lay the weight out anew in every call, a tenth of the time of 128 rows
        packed = torch.ops.mkldnn._reorder_linear_weight(weight)
        linear = torch.ops.mkldnn._linear_pointwise.default
        after = "swish" if silu else "none"
        return lambda x: linear(x, packed, bias, after, [], "")
    if silu:
        return lambda x: F.silu(F.linear(x, weight, bias), inplace=True)
    return lambda x: F.linear(x, weight, bias)
