# SPDX-License-Identifier: Apache-2.0
"""How weights follow gradients: optimizers, learning rate, average of the weights."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ..cuda.batched_muon import BatchedMuon
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
        get_ema_multi_avg_fn(decay_after(int(count), decay))(averaged, current, count)

    return average


def decay_after(count: int, decay: float) -> float:
    """What an average of ``count`` weights keeps of itself when the next ones come."""
    return min(decay, (1 + count) / (10 + count))


def optimizers_for(
    network: VelocityNetwork, config: TrainConfig, rate: Tensor | None = None
) -> list[torch.optim.Optimizer]:
    """AdamW of all parameters, or Muon of the blocks' matrices and AdamW of the others.

    Args:
        network: whose parameters.
        config: kind of the optimizer, and its settings.
        rate: learning rate () that the steps read from the device, so that a CUDA graph can hold
            them; None: a number.

    Raises:
        ConfigError: this torch has no Muon.
    """
    rest = dict(network.named_parameters())
    lr: Any = config.lr if rate is None else rate
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
            (torch.optim.Muon if rate is None else BatchedMuon)(
                matrices.values(),
                lr=lr,
                weight_decay=config.weight_decay,
                ns_steps=config.muon_iterations,
                # Updates become as large as AdamW's, so that one learning rate serves both.
                adjust_lr_fn="match_rms_adamw",
            )
        )
    optimizers.append(
        torch.optim.AdamW(
            rest.values(),
            lr=lr,
            weight_decay=config.weight_decay,
            fused=True,
            capturable=rate is not None and rate.is_cuda,
        )
    )
    if rate is not None:
        for optimizer in optimizers:
            _keep_rate(optimizer, rate)
    return optimizers


def _keep_rate(optimizer: torch.optim.Optimizer, rate: Tensor) -> None:
    """Let states hold what those of any other step hold, so that one kind goes on from another."""

    def saved(_: Any, state: dict[str, Any]) -> None:
        for group in state["param_groups"]:
            group["lr"] = rate.item()
            if "capturable" in group:
                group["capturable"] = False

    def loaded(_: Any) -> None:
        for group in optimizer.param_groups:
            group["lr"] = rate
            if "capturable" in group:
                group["capturable"] = rate.is_cuda

    optimizer.register_state_dict_post_hook(saved)
    optimizer.register_load_state_dict_post_hook(loaded)
