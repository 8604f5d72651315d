# SPDX-License-Identifier: Apache-2.0
"""Samples that already are good in the sense of objectives, from a sampler that knows of none."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ..objectives import Objective, weighted_sum
from ..robot.robot import Robot
from ..samplers import Sampler
from .goal import Guidance

# Samples whose activations are kept for a gradient at once.
_ROWS_PER_PASS = 8192


def guided_samples(
    robot: Robot,
    sampler: Sampler,
    objectives: Sequence[Objective],
    reference: Tensor,
    T_base_tip: Tensor,
    count: int,
    generator: torch.Generator,
    guidance: Guidance,
    given: np.ndarray | None = None,
) -> Tensor:
    """Draw samples with low values of the objectives.

    Args:
        robot: whose limits.
        sampler: what to draw from.
        objectives: what to descend, weighted.
        reference: (B, J) current joints of each problem, see `Objective.near`.
        T_base_tip: (B, T, 4, 4).
        count: N.
        generator: the only source of randomness.
        guidance: how many choices and steps.
        given: as for `Sampler.sample`.

    Returns:
        (B, N, J) within the limits.
    """
    # as many at once as memory is meant for: some problems, or a part of one problem's samples
    problems = max(1, _ROWS_PER_PASS // (count * guidance.choices))
    most = max(1, _ROWS_PER_PASS // guidance.choices)
    batches = []
    for first in range(0, max(1, len(T_base_tip)), problems):
        rows = slice(first, first + problems)
        near = [objective.near(reference[rows, None]) for objective in objectives]
        parts = [
            _guided(
                robot, sampler, near, T_base_tip[rows], min(most, count - begin), generator,
                guidance, given,
            )
            for begin in range(0, count, most)
        ]  # fmt: skip
        batches.append(torch.cat(parts, 1))
    return torch.cat(batches)


def _guided(
    robot: Robot,
    sampler: Sampler,
    objectives: Sequence[Objective],
    T_base_tip: Tensor,
    count: int,
    generator: torch.Generator,
    guidance: Guidance,
    given: np.ndarray | None,
) -> Tensor:
    many = count * guidance.choices
    limits = robot.limits(torch.float32, T_base_tip.device)
    map_from_noise = sampler.map_from_noise(T_base_tip, given)
    if map_from_noise is None:
        q = sampler.sample(T_base_tip, many, generator, given).clone()
        return q.gather(1, _lowest(q, objectives, count).expand(-1, -1, q.shape[-1]))
    shape = (len(T_base_tip), many, robot.num_joints)
    noise = torch.randn(shape, generator=generator, device=generator.device)
    if guidance.choices > 1:
        with torch.no_grad():
            q = map_from_noise(noise).clamp(*limits)
        noise = noise.gather(1, _lowest(q, objectives, count).expand(-1, -1, shape[-1]))
    noise = _descended(noise, lambda z: map_from_noise(z).clamp(*limits), objectives, guidance)
    with torch.no_grad():
        return map_from_noise(noise).clamp(*limits)


def _lowest(q: Tensor, objectives: Sequence[Objective], count: int) -> Tensor:
    """(B, count, 1) which of the samples (B, N, J) have the lowest value."""
    with torch.no_grad():
        value = weighted_sum(objectives, q).nan_to_num(nan=torch.inf)
    return value.topk(count, largest=False).indices[..., None]


def _descended(
    noise: Tensor,
    joints_from_noise: Callable[[Tensor], Tensor],
    objectives: Sequence[Objective],
    guidance: Guidance,
) -> Tensor:
    """Steps of shrinking length along great circles, down the gradient of the weighted sum."""
    radius = noise.norm(dim=-1, keepdim=True)
    for step in range(guidance.steps):
        if guidance.deadline.passed():
            break
        with torch.enable_grad():
            leaf = noise.detach().requires_grad_()
            value = weighted_sum(objectives, joints_from_noise(leaf))
            (gradient,) = torch.autograd.grad(value.sum(), leaf)
        gradient = gradient.nan_to_num(0.0, 0.0, 0.0)
        along = (gradient * noise).sum(-1, keepdim=True) / radius.square()
        tangent = torch.nn.functional.normalize(gradient - along * noise, dim=-1)
        angle = guidance.step_size * (1 - step / guidance.steps) / radius
        turned = angle.cos() * noise - angle.sin() * radius * tangent
        # a gradient of zero, as from an objective that is satisfied, moves nothing
        noise = torch.where(tangent.abs().amax(-1, keepdim=True) > 0, turned, noise)
    return noise
