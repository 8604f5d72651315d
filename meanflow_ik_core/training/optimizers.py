# SPDX-License-Identifier: Apache-2.0
"""How weights follow gradients: optimizers, learning rate, average of the weights."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ..errors import ConfigError
from ..network.model import VelocityNetwork
from .config import TrainConfig


def learning_rate_factor(config: TrainConfig, step: int, progress: float) -> float:
    """Linear warm-up by steps, then 1, then a cosine to 0 between decay_start and 1."""
    warmup = min(1.0, (step + 1) / (config.warmup_steps + 1))
    if progress <= config.decay_start:
        return warmup
    share = (progress - config.decay_start) / (1 - config.decay_start)
    return warmup * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))


def averaging(decay: float) -> Callable[[Any, Any, Any], None]:
    """Exponential averaging whose window grows with the run, so that the start is soon forgotten.

    After n steps the decay is min(decay, (1 + n) / (10 + n)).
    """

    def average(averaged: Any, current: Any, count: Any) -> None:
        now = min(decay, (1 + int(count)) / (10 + int(count)))
        get_ema_multi_avg_fn(now)(averaged, current, count)

    return average


def optimizers_for(network: VelocityNetwork, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """AdamW of all parameters, or Muon of the blocks' matrices and AdamW of the others.

    Raises:
        ConfigError: this torch has no Muon.
    """
    rest = dict(network.named_parameters())
    optimizers: list[torch.optim.Optimizer] = []
    if config.optimizer == "muon":
        if not hasattr(torch.optim, "Muon"):
            raise ConfigError(
                f"optimizer is 'muon', which torch {torch.__version__} has not; 2.9 and later do"
            )
        blocks = ("blocks.", "context_", "token_")
        matrices = {k: v for k, v in rest.items() if k.startswith(blocks) and v.ndim == 2}
        rest = {k: v for k, v in rest.items() if k not in matrices}
        optimizers.append(
            torch.optim.Muon(
                matrices.values(),
                lr=config.lr,
                weight_decay=config.weight_decay,
                ns_steps=config.muon_iterations,
                # Updates become as large as AdamW's, so that one learning rate serves both.
                adjust_lr_fn="match_rms_adamw",
            )
        )
    optimizers.append(
        torch.optim.AdamW(rest.values(), lr=config.lr, weight_decay=config.weight_decay, fused=True)
    )
    return optimizers
