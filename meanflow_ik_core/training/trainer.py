# SPDX-License-Identifier: Apache-2.0
"""The trainer: fresh data every step, averaged weights, exact resume, one or several processes."""

import dataclasses
import logging
import math
import os
import pickle
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..errors import CheckpointError, ConfigError
from ..network.checkpoint import save_checkpoint
from ..network.kinds import network_for
from ..network.model import VelocityNetwork
from ..robot.robot import Robot
from .batches import draw_batch, draw_estimates
from .config import TrainConfig
from .processes import agree, average_gradients, processes, stop_signals
from .report import ProgressBar, event_writer, machine_name, no_progress_bar, write_scalars
from .training_loss import TrainingLoss
from .validation import validate

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainResult:
    """Where a run stands when `train` returns."""

    step: int
    samples: int
    seconds: float  # of training, resumed parts included
    finished: bool  # False: it was interrupted, and can be resumed
    metrics: dict[str, float]  # of the last validation
    checkpoint: Path


def train(
    robot: Robot,
    config: TrainConfig,
    out_dir: str | Path,
    resume: bool = True,
    progress: ProgressBar = no_progress_bar,
    device: torch.device | str = "cpu",
) -> TrainResult:
    """Train a network for a robot, or go on with the run that ``out_dir`` holds.

    Under torchrun every process calls this; the batch is split over them, each draws its own
    data, gradients are averaged, and the first process writes the files. SIGINT and SIGTERM end
    the run after the current step with everything saved.

    Args:
        robot: to train for.
        config: settings; a resumed run may change all but the sizes of the network.
        out_dir: gets state.pt, <robot>.safetensors (averaged weights) and TensorBoard events.
        resume: go on from state.pt if there is one; False starts anew and overwrites it.
        progress: what shows how far the first process is.
        device: of the network and the data.

    Raises:
        ConfigError: batch_size or estimate_poses is not a multiple of the number of processes, or
            the state in out_dir belongs to another robot or another network.
        CheckpointError: the state cannot be read, or the weights have diverged.
    """
    with processes() as (rank, world), stop_signals() as stop:
        for name in ("batch_size", "estimate_poses"):
            if getattr(config, name) % world:
                raise ConfigError(
                    f"{name} is {getattr(config, name)}; "
                    f"it must be a multiple of the {world} processes"
                )
        run = Run(robot, config, Path(out_dir), rank, world, torch.device(device))
        if resume and run.state_path.exists():
            run.load()
        return run.go(stop, progress if rank == 0 else no_progress_bar)


class Run:
    """All that changes during training, and how it is saved."""

    def __init__(
        self,
        robot: Robot,
        config: TrainConfig,
        out_dir: Path,
        rank: int,
        world: int,
        device: torch.device,
    ):
        self.robot, self.config, self.out_dir = robot, config, out_dir
        self.rank, self.world, self.device = rank, world, device
        self.state_path = out_dir / "state.pt"
        self.checkpoint_path = out_dir / f"{robot.name}.safetensors"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            network = network_for(robot, config.network, **config.network_sizes)
        self.network: VelocityNetwork = network.to(device)
        self.average = AveragedModel(self.network, multi_avg_fn=_averaging(config.ema_decay))
        self.optimizers = _optimizers(self.network, config)
        self.generator = torch.Generator(device).manual_seed(_stream_seed(config.seed, rank, 0))
        self.loss = TrainingLoss(self.network, robot, config)
        self.step = self.samples = 0
        self.seconds = 0.0
        self.metrics: dict[str, float] = {}

    def go(self, stop: threading.Event, progress_bar: ProgressBar) -> TrainResult:
        """Steps until the iterations or the time are used up, or a signal comes."""
        config = self.config
        started = time.perf_counter() - self.seconds
        writer = event_writer(self.out_dir) if self.rank == 0 else None
        with progress_bar() as show:
            while True:
                self.seconds = time.perf_counter() - started
                progress, stopped = agree(self._progress(), stop.is_set(), self.world)
                if progress >= 1 or stopped:
                    break
                terms = self.train_step(progress)
                if self.step % config.log_every == 0:
                    scalars = {name: value.item() for name, value in terms.items()}
                    rate = self.samples / max(time.perf_counter() - started, 1e-9)
                    show(progress, scalars["loss"], rate)
                    write_scalars(writer, "train", scalars, self.step)
                if self.step % config.validate_every == 0:
                    self._validate(writer)
                if self.step % config.save_every == 0:
                    self.save()
        finished = progress >= 1
        if finished:
            self._validate(writer)
        self.save()
        if writer is not None:
            writer.close()
        logger.info("%s at step %d", "finished" if finished else "interrupted", self.step)
        return TrainResult(
            self.step, self.samples, self.seconds, finished, self.metrics, self.checkpoint_path
        )

    def _progress(self) -> float:
        share = self.step / self.config.iterations
        if self.config.max_seconds > 0:
            share = max(share, self.seconds / self.config.max_seconds)
        return share

    def train_step(self, progress: float) -> dict[str, Tensor]:
        """One update on fresh data; the loss, its terms and what else is logged."""
        config = self.config
        batch = estimates = None
        if self.loss.uses_velocities(progress):
            count = config.batch_size // self.world
            batch = draw_batch(self.robot, config, count, progress, self.generator)
            self.samples += config.batch_size
        if self.loss.uses_estimates(progress):
            count = config.estimate_poses // self.world
            estimates = draw_estimates(self.robot, config, count, progress, self.generator)
            self.samples += config.estimate_poses * config.estimate_samples
        loss, terms = self.loss(batch, estimates)
        self.network.zero_grad()
        loss.backward()
        parameters = list(self.network.parameters())
        if self.world > 1:
            average_gradients(parameters, self.world)
        if config.grad_clip > 0:
            terms["gradient_norm"] = torch.nn.utils.clip_grad_norm_(parameters, config.grad_clip)
        rate = config.lr * learning_rate_factor(config, self.step, progress)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
        self.average.update_parameters(self.network)
        self.step += 1
        return {"loss": loss.detach(), "learning_rate": torch.tensor(rate), **terms}

    def _validate(self, writer: Any) -> None:
        if self.rank != 0:
            return
        config = self.config
        self.metrics = validate(
            self.robot,
            self.average.module,  # type: ignore[arg-type]
            config.validation_poses,
            config.validation_samples,
            config.seed + 1,
            config.collision_free,
        )
        write_scalars(writer, "validation", self.metrics, self.step)
        values = "  ".join(f"{name} {value:.4f}" for name, value in self.metrics.items())
        samples = self.samples / 1e6
        logger.info("step %d  %.2f M samples  %.0f s  %s", self.step, samples, self.seconds, values)

    def save(self) -> None:
        """Write the state and the averaged weights; each file appears whole or not at all."""
        streams = [self.generator.get_state()]
        if self.world > 1:
            gathered: list[Any] = [None] * self.world
            dist.all_gather_object(gathered, streams[0])
            streams = gathered
        if self.rank != 0:
            return
        # The checkpoint comes first: it refuses weights that are not finite, and the last good
        # state stays.
        save_checkpoint(self.checkpoint_path, self.average.module, self.robot, self.record())  # type: ignore[arg-type]
        partial = self.state_path.with_name(f".state.pt.{os.getpid()}")
        torch.save(
            {
                "robot": self.robot.fingerprint(),
                "sizes": self.network.config,
                "config": dataclasses.asdict(self.config),
                "step": self.step,
                "samples": self.samples,
                "seconds": self.seconds,
                "metrics": self.metrics,
                "network": self.network.state_dict(),
                "average": self.average.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
                "streams": streams,
            },
            partial,
        )
        os.replace(partial, self.state_path)

    def record(self) -> dict[str, Any]:
        """What a reader of the checkpoint wants to know about its training."""
        return {
            "steps": self.step,
            "samples": self.samples,
            "seconds": round(self.seconds, 1),
            "processes": self.world,
            "machine": machine_name(self.device),
            "torch": torch.__version__,
            "validation": self.metrics,
            "config": dataclasses.asdict(self.config),
        }

    def load(self) -> None:
        """Go on from the state in the folder."""
        try:
            state = torch.load(self.state_path, map_location="cpu", weights_only=True)
            robot, sizes, optimizers = state["robot"], state["sizes"], state["optimizers"]
        except (
            OSError,
            RuntimeError,
            EOFError,
            KeyError,
            TypeError,
            pickle.UnpicklingError,
        ) as error:
            raise CheckpointError(f"cannot read {self.state_path}: {error}") from error
        if robot != self.robot.fingerprint():
            raise ConfigError(
                f"{self.state_path} is of another robot than {self.robot.name!r}; "
                "choose another folder, or resume=False"
            )
        if sizes != self.network.config:
            raise ConfigError(
                f"{self.state_path} has a network of {sizes}, the settings ask for "
                f"{self.network.config}; choose another folder, or resume=False"
            )
        current = dataclasses.asdict(self.config)
        changed = {
            k: (v, current.get(k)) for k, v in state["config"].items() if v != current.get(k)
        }
        if changed:
            logger.warning("settings changed since the run began (old, new): %s", changed)
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        if state["config"]["optimizer"] == self.config.optimizer:
            for optimizer, saved in zip(self.optimizers, optimizers, strict=True):
                optimizer.load_state_dict(saved)
        self.step, self.samples = state["step"], state["samples"]
        self.seconds = state["seconds"]
        # The first states were saved without metrics.
        self.metrics = state.get("metrics", {})
        if len(state["streams"]) == self.world:
            self.generator.set_state(state["streams"][self.rank])
        else:
            logger.warning(
                "the run had %d processes and has %d now: new data streams",
                len(state["streams"]),
                self.world,
            )
            self.generator.manual_seed(_stream_seed(self.config.seed, self.rank, self.step))
        logger.info("resumed at step %d, %.0f s", self.step, self.seconds)


def learning_rate_factor(config: TrainConfig, step: int, progress: float) -> float:
    """Linear warm-up by steps, then 1, then a cosine to 0 between decay_start and 1."""
    warmup = min(1.0, (step + 1) / (config.warmup_steps + 1))
    if progress <= config.decay_start:
        return warmup
    share = (progress - config.decay_start) / (1 - config.decay_start)
    return warmup * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))


def _averaging(decay: float) -> Callable[[Any, Any, Any], None]:
    """Exponential averaging whose window grows with the run, so that the start is soon forgotten.

    After n steps the decay is min(decay, (1 + n) / (10 + n)).
    """

    def average(averaged: Any, current: Any, count: Any) -> None:
        now = min(decay, (1 + int(count)) / (10 + int(count)))
        get_ema_multi_avg_fn(now)(averaged, current, count)

    return average


def _optimizers(network: VelocityNetwork, config: TrainConfig) -> list[torch.optim.Optimizer]:
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


def _stream_seed(seed: int, rank: int, step: int) -> int:
    return ((seed * 1_000_003 + rank) * 1_000_003 + step) % 2**62
