# SPDX-License-Identifier: Apache-2.0
"""Distances to obstacles of tensors, through which gradients flow."""

from typing import Any

import numpy as np
import torch
from torch import Tensor


def distance_of_tensor(world: Any, q: Tensor, cap: float = np.inf) -> Tensor:
    """(...) m of q (..., J): that of the nearest obstacle to a `WorldDistance`, up to the cap."""
    return _Distance.apply(q, world, cap, False)[..., 0]


def link_distances(world: Any, q: Tensor, cap: float = np.inf) -> Tensor:
    """(..., L) m, the distance of every body of a `WorldDistance`, up to the cap."""
    return _Distance.apply(q, world, cap, True)


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
