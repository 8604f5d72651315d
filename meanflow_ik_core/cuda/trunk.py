# SPDX-License-Identifier: Apache-2.0
"""One-step estimates through the Triton kernels of the trunk, with gradients to all weights."""

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
            "pip install 'meanflow-ik-ros[cuda]', or a CUDA build of torch, brings it"
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
    poses, samples, joints = x1.shape
    times = torch.zeros_like(condition[:, 0]), torch.ones_like(condition[:, 0])
    half = precision != torch.float32
    blocks: list[Any] = [*network.blocks]
    with torch.autocast(x1.device.type, precision, enabled=half):
        context = network.context(*times, condition)
        weights = [network.context_in.weight, *(block.modulation.weight for block in blocks)]
        biases = [network.z_in.bias, *(block.modulation.bias for block in blocks)]
        modulations = F.linear(context, torch.cat(weights), torch.cat(biases)).float()
    layers = [layer for block in blocks for layer in (block.first, block.second)]
    x0_hat = _Trunk.apply(
        x1.reshape(poses * samples, joints),
        modulations,
        torch.stack([layer.weight for layer in layers]),
        torch.stack([layer.bias for layer in layers]),
        network.z_in.weight,
        network.out.weight,
        network.out.bias,
        samples,
        precision,
    )
    return x0_hat.view(x1.shape)  # type: ignore[union-attr]


class _Trunk(torch.autograd.Function):
    """x = z - u; arguments as `trunk_kernels` names them."""

    @staticmethod
    def forward(
        ctx: Any, z: Tensor, m: Tensor, w: Tensor, b: Tensor, wz: Tensor, wo: Tensor, bo: Tensor,
        samples: int, precision: torch.dtype,
    ) -> Tensor:  # fmt: skip
        (rows, joints), (layers, width, _) = z.shape, w.shape
        w = w.to(precision)
        sizes = {
            "J": joints,
            "JP": max(16, 1 << (joints - 1).bit_length()),
            "N": samples,
            "H": width,
            "D": layers // 2,
            "DT": getattr(trunk_kernels.tl, str(precision).removeprefix("torch.")),
        }
        x = torch.empty_like(z)
        saved = z.new_empty(layers // 2 + 1, rows, width, dtype=precision)
        tile, warps = _FORWARD
        trunk_kernels.trunk_forward[(rows // tile,)](
            z, m, w, b, wz, wo, bo, x, saved, rows, **sizes, BM=tile, SAVE=True, num_warps=warps
        )
        ctx.save_for_backward(z, m, w, b, wo, saved)
        ctx.sizes = sizes
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
