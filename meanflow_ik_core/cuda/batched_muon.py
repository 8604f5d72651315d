# SPDX-License-Identifier: Apache-2.0
"""Muon with one Newton-Schulz iteration for all matrices of a shape, and a tensor as its rate."""

import math
from collections import defaultdict
from typing import Any

import torch
from torch import Tensor

_lists: Any = torch  # its operations on lists of tensors, which have no public names
# torch before 2.9 has no Muon; the trainer says so.
_Muon: Any = getattr(torch.optim, "Muon", torch.optim.Optimizer)


class BatchedMuon(_Muon):
    """`torch.optim.Muon`: its arguments, its update, its state.

    No number goes to the host, so that a CUDA graph can hold a step.
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            self._step_group(group)

    def _step_group(self, group: dict[str, Any]) -> None:
        parameters = [p for p in group["params"] if p.grad is not None]
        if not parameters:
            return
        gradients = [p.grad for p in parameters]
        for parameter in parameters:
            state = self.state[parameter]
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(parameter)
        buffers = [self.state[p]["momentum_buffer"] for p in parameters]
        momentum, rate = group["momentum"], group["lr"]
        _lists._foreach_lerp_(buffers, gradients, 1 - momentum)
        updates = _lists._foreach_lerp(gradients, buffers, momentum)
        if not group["nesterov"]:
            updates = buffers
        if group["weight_decay"] > 0:
            _lists._foreach_mul_(parameters, 1 - rate * group["weight_decay"])
        of_shape: dict[torch.Size, list[int]] = defaultdict(list)
        for index, update in enumerate(updates):
            of_shape[update.shape].append(index)
        for shape, indices in of_shape.items():
            batch = torch.stack([updates[index] for index in indices])
            batch = orthogonalised(batch, group["ns_coefficients"], group["ns_steps"], group["eps"])
            # "match_rms_adamw": updates become as large as AdamW's.
            steps = batch.to(parameters[0].dtype) * (rate * (0.2 * math.sqrt(max(shape))))
            _lists._foreach_sub_([parameters[index] for index in indices], list(steps.unbind()))


def orthogonalised(
    batch: Tensor, coefficients: tuple[float, float, float], iterations: int, epsilon: float
) -> Tensor:
    """Nearly orthogonal matrices (M, A, B), in bfloat16, by Newton-Schulz iterations."""
    a, b, c = coefficients
    x = batch.bfloat16()
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=epsilon)
    for _ in range(iterations):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
