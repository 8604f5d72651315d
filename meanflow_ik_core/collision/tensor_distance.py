# SPDX-License-Identifier: Apache-2.0
"""Distances to obstacles of tensors, through which gradients flow."""

from typing import Any

import numpy as np
import torch
from torch import Tensor


def distance_of_tensor(world: Any, q: Tensor, cap: float = np.inf) -> Tensor:
    """(...) m of q (..., J): that of the nearest obstacle to a `WorldDistance`, up to the cap."""
    return _Distance.apply(q, world, cap, False)[..., 0]


def smooth_distance(
    world: Any, q: Tensor, temperature: float = 0.01, cap: float = np.inf
) -> Tensor:
    """Soft minimum of the distances of all links, at most the true one.

    Args:
        world: a `WorldDistance`.
        q: (..., J).
        temperature: m; how much farther than the nearest link a link still counts.
        cap: m; links that are farther away count as if they were this far.

    Returns:
        (...) m, with gradients for all links at once.
    """
    gaps = _Distance.apply(q, world, cap, True)
    if not gaps.shape[-1]:
        return q.new_full(q.shape[:-1], cap)
    return -temperature * torch.logsumexp(-gaps / temperature, -1)


class _Distance(torch.autograd.Function):
    """Distances (..., R) of q (..., J), whose gradients the kernel finds as well."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, world: Any, cap: float, of_links: bool) -> Tensor:
        flat = q.detach().reshape(-1, q.shape[-1]).cpu().double().numpy()
        found, slopes = world.of(flat, cap, of_links, gradient=q.requires_grad)
        ctx.save_for_backward(torch.from_numpy(slopes).to(q))
        return torch.from_numpy(found).to(q).reshape(*q.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (slopes,) = ctx.saved_tensors
        weight = gradients[0].reshape(*slopes.shape[:2], 1)
        return (weight * slopes).sum(1).reshape(*gradients[0].shape[:-1], -1), None, None, None
