# SPDX-License-Identifier: Apache-2.0
"""Data of a training step, and the loss of one-step estimates with its gradient, in two calls."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..robot.robot import Robot
from .generated import compile_rows, robot_tables

TEXTS = ("kinematics.h", "pull.h", "estimates.h")
NAMES = ("draw", "estimate")


@dataclass(frozen=True)
class EstimateTerms:
    """Weights and forms of the terms; `TrainConfig` says what they mean."""

    energy: float  # weights of the three terms
    kernel: float
    refine: float
    energy_power: float
    kernel_widths: Sequence[float]  # rad
    score_tips: float
    refine_tips: bool
    refine_power: float
    refine_epsilon: float
    refine_steps: int
    damping: float  # of a refinement step, see `losses.damped_step`
    max_step: float  # rad or m


class EstimateKernels:
    """The kernels of estimates.h for a robot.

    Args:
        robot: of any tree.
        terms: baked into the kernels.
        samples: N, estimates per pose.
        condition_width: numbers per tip that the network wants to know, 7 or 9.
        device: cuda or cpu.

    Raises:
        ConfigError: the kernels cannot be compiled on this machine.
    """

    def __init__(
        self,
        robot: Robot,
        terms: EstimateTerms,
        samples: int,
        condition_width: int,
        device: torch.device,
    ):
        self._shape = robot.num_tips, robot.num_joints, condition_width
        self._samples = samples
        self._weights = (terms.energy, terms.kernel, terms.refine)
        tables = estimate_tables(robot, terms, samples, condition_width)
        self._functions = compile_rows(TEXTS, tables, NAMES, device)

    def draw(self, share: Tensor, given: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Configurations and their poses, as the network sees them.

        Args:
            share: (P, J) joints as shares of their ranges, in [0, 1].
            given: (P, T, 2) bool, positions and orientations that the condition contains.

        Returns:
            x0 (P, J) normalised joints, targets (P, T, 4, 4), condition (P, C).
        """
        tips, _, width = self._shape
        count = len(share)
        x0 = torch.empty_like(share)
        targets = share.new_empty(count, tips, 4, 4)
        condition = share.new_empty(count, tips * width)
        self._functions["draw"]((share, given, x0, targets, condition), count)
        return x0, targets, condition

    def loss(
        self, x0_hat: Tensor, x0: Tensor, targets: Tensor, given: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Weighted loss of one-step estimates, with a gradient to them.

        Args:
            x0_hat: (P, N, J) float32.
            x0: (P, J).
            targets: (P, T, 4, 4).
            given: (P, T, 2) bool, what of the targets the pull knows.

        Returns:
            The loss, and its terms energy, kernel, refine (3,) without weights or gradient.
        """
        return _Loss.apply(x0_hat, x0, targets, given, self)  # type: ignore[return-value]

    def gradient(
        self, x0_hat: Tensor, x0: Tensor, targets: Tensor, given: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The loss and its terms as in `loss`, and the gradient (P, N, J)."""
        gradient = torch.empty_like(x0_hat)
        terms = x0_hat.new_empty(*x0_hat.shape[:2], 3)
        rows = x0_hat.shape[0] * self._samples
        self._functions["estimate"]((x0_hat, x0, targets, given, gradient, terms), rows)
        mean = terms.sum(1).mean(0)
        loss = sum(weight * term for weight, term in zip(self._weights, mean, strict=True))
        return torch.as_tensor(loss), mean, gradient


def estimate_tables(
    robot: Robot, terms: EstimateTerms, samples: int, condition_width: int
) -> dict[str, Any]:
    """What stands before the texts, see `compile_rows`; arguments as of `EstimateKernels`."""
    everything, tips = np.ones((1, robot.num_joints)), robot.moves.astype(float)
    scored = np.concatenate((everything, tips)) if terms.score_tips > 0 else everything
    pulled = tips if terms.refine_tips else everything
    return robot_tables(robot) | {
        "SAMPLES": samples,
        "CONDITION": condition_width,
        "ENERGY_WEIGHT": float(terms.energy),
        "KERNEL_WEIGHT": float(terms.kernel),
        "REFINE_WEIGHT": float(terms.refine),
        "ENERGY_POWER": float(terms.energy_power),
        "REFINE_POWER": float(terms.refine_power),
        "REFINE_EPSILON": float(terms.refine_epsilon),
        "REFINE_STEPS": terms.refine_steps,
        "DAMPING": float(terms.damping),
        "MAX_STEP": float(terms.max_step),
        "WIDTHS": len(terms.kernel_widths),
        "sharpness": 0.5 / np.square(terms.kernel_widths),
        "SCORE_GROUPS": len(scored),
        "score_groups": scored,
        "score_weights": np.array([1.0, *[terms.score_tips] * (len(scored) - 1)]),
        "PULL_GROUPS": len(pulled),
        "pull_groups": pulled,
    }


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x0_hat: Tensor,
        x0: Tensor,
        targets: Tensor,
        given: Tensor,
        kernels: EstimateKernels,
    ) -> tuple[Tensor, Tensor]:
        loss, terms, gradient = kernels.gradient(x0_hat.contiguous(), x0, targets, given)
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(terms)
        return loss, terms

    @staticmethod
    def backward(ctx: Any, d_loss: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return d_loss * gradient, None, None, None, None
