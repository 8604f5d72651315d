# SPDX-License-Identifier: Apache-2.0
"""One-step estimates through the Triton kernels of the trunk, with gradients or without."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import ConfigError
from ..network.model import VelocityNetwork
from . import trunk_kernels

WIDTHS = (32, 64, 128)  # of the residual stream; wider ones do not fit, others are no tiles
MOST_SAMPLES = 32  # per pose: those of a pose stay in one program
ROWS_PER_CALL = 64  # rows of a call are a multiple of this
_FORWARD = (64, 4)  # rows of a program, warps: the fastest of three that were tried on an H200
_BACKWARD = (32, 4)
_MOST_NUMBERS = 2**31  # of the largest buffer: addresses are 32 bits wide


def check_trunk(hidden_dim: int, depth: int, poses: int, samples: int) -> None:
    """Refuse what the kernels do not know.

    Raises:
        ConfigError: triton is not installed, or a size is none of those that fit.
    """
    if trunk_kernels.triton is None:
        raise ConfigError(
            "the kernels of the fused step need triton, which is not installed; "
            "pip install '.[cuda]', or a CUDA build of torch, brings it"
        )
    if hidden_dim not in WIDTHS:
        raise ConfigError(f"hidden_dim is {hidden_dim}; the fused step knows {WIDTHS}")
    if samples > MOST_SAMPLES or samples & (samples - 1):
        raise ConfigError(
            f"estimate_samples is {samples}; the fused step takes powers of two up to "
            f"{MOST_SAMPLES}"
        )
    rows = poses * samples
    if rows % ROWS_PER_CALL:
        raise ConfigError(
            f"estimate_poses times estimate_samples is {rows}; the fused step takes multiples of "
            f"{ROWS_PER_CALL}"
        )
    if 2 * depth * rows * hidden_dim >= _MOST_NUMBERS:
        raise ConfigError(
            f"2 depth estimate_poses estimate_samples hidden_dim is {2 * depth * rows * hidden_dim}"
            f"; in the fused step it stays below {_MOST_NUMBERS}: take fewer poses"
        )


def trunk_one_step(
    network: VelocityNetwork, x1: Tensor, condition: Tensor, precision: torch.dtype
) -> Tensor:
    """`network.one_step` with the trunk in the kernels; the context is computed by torch.

    Args:
        network: of a size that `check_trunk` lets through.
        x1: (P, N, J) noise, float32; gets no gradient.
        condition: (P, C).
        precision: of the products.

    Returns:
        (P, N, J) float32.
    """
    weights, biases = modulation_layers(network)
    modulations = modulate(network, condition, weights, biases, precision)
    rows = x1.reshape(-1, x1.shape[2])
    x0_hat = _Trunk.apply(rows, modulations, *trunk_layers(network), x1.shape[1], precision)
    return x0_hat.view(x1.shape)  # type: ignore[union-attr]


def modulation_layers(network: VelocityNetwork) -> tuple[Tensor, Tensor]:
    """Weight and bias of the one layer that makes the modulations of a context."""
    blocks: list[Any] = [*network.blocks]
    weights = [network.context_in.weight, *(block.modulation.weight for block in blocks)]
    biases = [network.z_in.bias, *(block.modulation.bias for block in blocks)]
    return torch.cat(weights), torch.cat(biases)


def modulate(
    network: VelocityNetwork, condition: Tensor, weight: Tensor, bias: Tensor,
    precision: torch.dtype,
) -> Tensor:  # fmt: skip
    """Modulations (P, (1 + 2 D) H) for conditions (P, C), by the layer of `modulation_layers`."""
    times = torch.zeros_like(condition[:, 0]), torch.ones_like(condition[:, 0])
    half = precision != torch.float32
    with torch.autocast(condition.device.type, precision, enabled=half):
        return F.linear(network.context(*times, condition), weight, bias).float()


def trunk_layers(network: VelocityNetwork) -> tuple[Tensor, ...]:
    """Weights and biases of the trunk, w, b, wz, wo, bo of `trunk_kernels`."""
    blocks: list[Any] = [*network.blocks]
    layers = [layer for block in blocks for layer in (block.first, block.second)]
    return (
        torch.stack([layer.weight for layer in layers]),
        torch.stack([layer.bias for layer in layers]),
        network.z_in.weight, network.out.weight, network.out.bias,
    )  # fmt: skip


def trunk_forward(
    z: Tensor, modulations: Tensor, layers: Sequence[Tensor], samples: int, precision: torch.dtype
) -> Tensor:
    """z - u (R, J) of noise z (R, J) without a gradient.

    Args:
        z: any number of rows, those of a pose one after the other.
        modulations: (P, (1 + 2 D) H).
        layers: see `trunk_layers`; the first one of the precision.
        samples: rows of a pose.
        precision: of the products.
    """
    x = torch.empty_like(z)
    _launch_forward(z, modulations, layers, x, None, samples, precision)
    return x


def _launch_forward(
    z: Tensor, modulations: Tensor, layers: Sequence[Tensor], x: Tensor, saved: Tensor | None,
    samples: int, precision: torch.dtype,
) -> dict[str, Any]:  # fmt: skip
    """Run the kernel; returns sizes that it shares with the one backward."""
    (rows, joints), (count, width, _) = z.shape, layers[0].shape
    sizes = {
        "J": joints,
        "JP": max(16, 1 << (joints - 1).bit_length()),
        "N": samples,
        "H": width,
        "D": count // 2,
        "DT": getattr(trunk_kernels.tl, str(precision).removeprefix("torch.")),
    }
    tile, warps = _FORWARD
    trunk_kernels.trunk_forward[(-(-rows // tile),)](
        z, modulations, *layers, x, x if saved is None else saved, rows, **sizes, BM=tile,
        SAVE=saved is not None, num_warps=warps,
    )  # fmt: skip
    return sizes


class _Trunk(torch.autograd.Function):
    """x = z - u; arguments as `trunk_kernels` names them."""

    @staticmethod
    def forward(
        ctx: Any, z: Tensor, m: Tensor, w: Tensor, b: Tensor, wz: Tensor, wo: Tensor, bo: Tensor,
        samples: int, precision: torch.dtype,
    ) -> Tensor:  # fmt: skip
        (rows, _), (layers, width, _) = z.shape, w.shape
        w, x = w.to(precision), torch.empty_like(z)
        saved = z.new_empty(layers // 2 + 1, rows, width, dtype=precision)
        ctx.sizes = _launch_forward(z, m, (w, b, wz, wo, bo), x, saved, samples, precision)
        ctx.save_for_backward(z, m, w, b, wo, saved)
        return x

    @staticmethod
    def backward(ctx: Any, d_x: Tensor) -> tuple[Tensor | None, ...]:
        z, m, w, b, wo, saved = ctx.saved_tensors
        (rows, joints), (layers, width, _) = z.shape, w.shape
        tile, warps = _BACKWARD
        padded = ctx.sizes["JP"]
        d_m = torch.empty_like(m)
        d_out, inputs = (z.new_empty(layers, rows, width, dtype=saved.dtype) for _ in range(2))
        part = z.new_empty(rows // tile, layers + 1 + joints + padded, width)
        trunk_kernels.trunk_backward[(rows // tile,)](
            z, m, w, b, wo, saved, d_x.contiguous(), d_m, d_out, inputs, part, rows, **ctx.sizes,
            BM=tile, num_warps=warps,
        )  # fmt: skip
        # Sums over many rows in one product would be few large tiles: shares of the rows are more.
        shares = next(n for n in (16, 8, 4, 2, 1) if (rows % n == 0 and rows >= 256 * n) or n == 1)
        left, right = (t.view(layers * shares, rows // shares, width) for t in (d_out, inputs))
        products = torch.bmm(left.mT, right).view(layers, shares, width, width)
        d_w = products.sum(1, dtype=torch.float32)
        sums = part.sum(0)
        d_b, d_bo, d_wz, d_wo = sums.split((layers, 1, joints, padded))
        return None, d_m, d_w, d_b, d_wz.mT, d_wo[:joints], d_bo[0, :joints], None, None
