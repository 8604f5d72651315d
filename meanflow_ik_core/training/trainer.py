# SPDX-License-Identifier: Apache-2.0
"""The trainer: fresh data every step, averaged weights, exact resume, one or several processes."""

import contextlib
import dataclasses
import logging
import pickle
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist
from torch.optim.swa_utils import AveragedModel

from ..errors import CheckpointError, ConfigError
from ..network.checkpoint import save_checkpoint
from ..network.kinds import network_for
from ..network.model import VelocityNetwork
from ..robot.robot import Robot
from ..whole_file import whole_file
from .batches import Batch, Estimates, draw_batch, draw_estimates
from .config import TrainConfig
from .fused_step import FusedStep, check_fused
from .optimizers import averaging, learning_rate_factor, optimizers_for
from .processes import (
    agree,
    average_gradients,
    processes,
    shielded_children,
    stop_signals,
)
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
    finished: bool  # False: interrupted, or out of time before the first validation; can go on
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
        with contextlib.closing(run):
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
        if config.step == "fused":
            check_fused(config, device, world)
        self.robot, self.config, self.out_dir = robot, config, out_dir
        self.rank, self.world, self.device = rank, world, device
        self.state_path = out_dir / "state.pt"
        self.checkpoint_path = out_dir / f"{robot.name}.safetensors"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            network = network_for(robot, config.network, **config.network_sizes)
        self.network: VelocityNetwork = network.to(device)
        self.average = AveragedModel(self.network, multi_avg_fn=averaging(config.ema_decay))
        self.generator = torch.Generator(device).manual_seed(_stream_seed(config.seed, rank, 0))
        self.loss = TrainingLoss(self.network, robot, config)
        self.fused: FusedStep | None = None
        if config.step == "fused":
            self.fused = FusedStep(self.network, self.average, robot, config, self.generator)
            self.optimizers = self.fused.optimizers
        else:
            self.optimizers = optimizers_for(self.network, config)
        self.step = self.samples = 0
        self.seconds = 0.0
        self.metrics: dict[str, float] = {}

    def go(self, stop: threading.Event, progress_bar: ProgressBar) -> TrainResult:
        """Steps until the iterations or the time are used up, or a signal comes."""
        config = self.config
        self.compile()
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
        if progress >= 1:
            self._validate(writer)
        self.save()
        if writer is not None:
            writer.close()
        early = self.step < min(config.validate_every, config.iterations)
        end = "finished" if progress >= 1 else "interrupted"
        if progress >= 1 and early:
            end = f"not finished: max_seconds, {config.max_seconds:g}, were over"
        note = f", before its first validation at step {config.validate_every}" if early else ""
        logger.info("%s at step %d%s", end, self.step, note)
        finished = progress >= 1 and not early
        return TrainResult(
            self.step, self.samples, self.seconds, finished, self.metrics, self.checkpoint_path
        )

    def close(self) -> None:
        """End what runs beside the steps."""
        if self.fused is not None:
            self.fused.close()

    def _progress(self) -> float:
        share = self.step / self.config.iterations
        if self.config.max_seconds > 0:
            share = max(share, self.seconds / self.config.max_seconds)
        return share

    def compile(self) -> None:
        """Compile what the run needs; the clock stands.

        Data, gradient and random numbers of it are thrown away. SIGINT ends the run afterwards.
        """
        if self.rank == 0:
            validate(self.robot, self.average.module, 2, 2, 0)  # type: ignore[arg-type]
        if not self.config.compile and self.fused is None:
            return
        logger.info("compiling; after Ctrl-C the run ends when the compiler has done its work")
        with shielded_children():
            if self.fused is not None:
                self.fused.prepare(self._progress())
                return
            generator = torch.Generator(self.device).manual_seed(0)
            # Rows for velocities leave during a run, estimates join.
            batch, _ = self._draw(self._progress(), 0, generator)
            _, estimates = self._draw(1.0, 0, generator)
            self.loss(batch, estimates)[0].backward()
            self.network.zero_grad()

    def _draw(
        self, progress: float, step: int, generator: torch.Generator
    ) -> tuple[Batch | None, Estimates | None]:
        """This process's data of a step."""
        config = self.config
        batch = estimates = None
        if self.loss.uses_velocities(progress, step):
            count = config.batch_size // self.world
            batch = draw_batch(self.robot, config, count, progress, generator)
        if self.loss.uses_estimates(progress):
            count = config.estimate_poses // self.world
            estimates = draw_estimates(self.robot, config, count, progress, generator)
        return batch, estimates

    def train_step(self, progress: float) -> dict[str, Tensor]:
        """One update on fresh data; the loss, its terms and what else is logged."""
        config = self.config
        rate = config.lr * learning_rate_factor(config, self.step, progress)
        if self.loss.uses_velocities(progress, self.step):
            self.samples += config.batch_size
        if self.loss.uses_estimates(progress):
            self.samples += config.estimate_poses * config.estimate_samples
        if self.fused is not None:
            terms = self.fused(progress, rate, self.step)
            self.step += 1
            return {**terms, "learning_rate": torch.tensor(rate)}
        loss, terms = self.loss(*self._draw(progress, self.step, self.generator))
        self.network.zero_grad()
        loss.backward()
        parameters = list(self.network.parameters())
        if self.world > 1:
            average_gradients(parameters, self.world)
        if config.grad_clip > 0:
            terms["gradient_norm"] = torch.nn.utils.clip_grad_norm_(parameters, config.grad_clip)
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
        state = {
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
        }
        with whole_file(self.state_path) as draft:
            torch.save(state, draft)

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


def _stream_seed(seed: int, rank: int, step: int) -> int:
    return ((seed * 1_000_003 + rank) * 1_000_003 + step) % 2**62
