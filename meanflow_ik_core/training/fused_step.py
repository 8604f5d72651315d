# SPDX-License-Identifier: Apache-2.0
"""A training step with generated kernels, captured as one CUDA graph.

A step of the trainer is thousands of small operations, and on a GPU it waits for Python. Here the
data, the trunk, and the loss of the one-step estimates are a kernel each (`..cuda`), the optimizers
work on all matrices of a shape at once, and a graph replays the whole step. The terms on velocities
are those of `TrainingLoss`, with its exact derivative in forward mode.

On the CPU the same step runs without a graph, and without the kernels of the trunk, for tests.
"""

import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from ..cuda.estimates import EstimateKernels, EstimateTerms
from ..cuda.trunk import check_trunk, trunk_one_step
from ..errors import ConfigError
from ..evaluation.distribution import BANDWIDTHS
from ..network.model import QUATERNION_CONDITION, MeanFlowNetwork, VelocityNetwork
from ..network.token_model import TOKEN_CONDITION, TokenNetwork
from ..robot.robot import Robot
from .batches import Batch, draw_given, draw_times
from .config import TrainConfig
from .losses import DAMPING, MAX_STEP
from .optimizers import decay_after, optimizers_for
from .pool import FreePool
from .training_loss import TrainingLoss

# Numbers per tip in the condition of the kinds of network that the kernels know.
CONDITION_WIDTHS = {MeanFlowNetwork.kind: QUATERNION_CONDITION, TokenNetwork.kind: TOKEN_CONDITION}

_lists: Any = torch  # its operations on lists of tensors, which have no public names
_WARM_UP = 3  # steps before a capture, in which libraries make their plans and buffers
_POOL_ROWS = 2**21
_FIRST_ROWS = 2**14  # of the pool, before the first step draws from it


def check_fused(config: TrainConfig, device: torch.device, world: int) -> None:
    """Refuse settings and machines that the fused step does not serve.

    Raises:
        ConfigError: the reason.
    """
    if device.type != "cuda":
        raise ConfigError(f"step is 'fused', which runs on device cuda only; it is {device.type}")
    if world > 1:
        raise ConfigError(f"step is 'fused', which runs as one process; there are {world}")
    if config.network not in CONDITION_WIDTHS:
        raise ConfigError(
            f"network is {config.network!r}; the fused step knows {tuple(CONDITION_WIDTHS)}"
        )
    if config.precision != "bfloat16":
        raise ConfigError(
            f"precision is {config.precision!r}; the fused step computes in bfloat16, set it so"
        )
    check_trunk(config.hidden_dim, config.depth, config.estimate_poses, config.estimate_samples)
    if not torch.cuda.is_available():
        raise ConfigError("step is 'fused', and torch finds no CUDA device here")


def estimate_terms(config: TrainConfig) -> EstimateTerms:
    """The settings that the kernels of the estimates are made of."""
    return EstimateTerms(
        **config.estimate_weights,
        energy_power=config.energy_power,
        kernel_widths=BANDWIDTHS,
        score_tips=config.score_tips,
        refine_tips=config.refine_tips,
        refine_power=config.refine_power,
        refine_epsilon=config.refine_epsilon,
        refine_steps=config.refine_steps,
        damping=DAMPING,
        max_step=MAX_STEP,
    )


class _Phase(NamedTuple):
    """What of a step changes during a run; each phase has a graph of its own."""

    velocities: bool
    estimates: bool
    collision_free: bool
    gaps: bool
    one_step: bool


class FusedStep:
    """The step, and what it holds from one to the next.

    Args:
        network: to be trained, on the device.
        average: of its weights; its count is read and kept.
        robot: of any tree.
        config: which `check_fused` lets through, or any for tests on the CPU.
        generator: of the data, on the device.

    Attributes:
        optimizers: whose states are those of the trainer's other optimizers.

    Raises:
        ConfigError: the kernels cannot be compiled on this machine.
    """

    def __init__(
        self,
        network: VelocityNetwork,
        average: AveragedModel,
        robot: Robot,
        config: TrainConfig,
        generator: torch.Generator,
    ):
        self._network, self._average = network, average
        self._robot, self._config, self._generator = robot, config, generator
        self._device = generator.device
        self._captures = self._device.type == "cuda"
        if self._device.index is not None:
            torch.cuda.set_device(self._device)  # where kernels are loaded and launched
        # Read by each replay; filled in before it.
        self._rate = torch.zeros((), device=self._device)
        self._newest = torch.zeros((), device=self._device)  # share of the weights in the average
        self.optimizers = optimizers_for(network, config, self._rate)
        self._loss = TrainingLoss(network, robot, config)
        width = CONDITION_WIDTHS[config.network]
        self._kernels = EstimateKernels(
            robot, estimate_terms(config), config.estimate_samples, width, self._device
        )
        self._pool: FreePool | None = None
        if config.collision_free:
            self._pool = FreePool(robot, _POOL_ROWS, config.seed, self._device)
        self._graphs: dict[_Phase, tuple[Any, dict[str, Tensor]]] = {}

    def __call__(self, progress: float, rate: float, step: int) -> dict[str, Tensor]:
        """One update on fresh data.

        Args:
            progress: share of the run that is done.
            rate: learning rate.
            step: how many came before.

        Returns:
            The loss, its terms and the norm of the gradient, which the next call may overwrite.
        """
        phase = self._phase(progress, step)
        count = int(self._average.n_averaged)
        self._rate.fill_(rate)
        self._newest.fill_(1 - decay_after(count, self._config.ema_decay) if count else 1.0)
        if self._pool is not None:
            self._pool.update(_FIRST_ROWS if phase.collision_free else 0)
        if self._captures:
            graph, terms = self._captured(phase, progress)
            graph.replay()
        else:
            terms = self._step(phase, progress)
        self._average.n_averaged += 1
        return terms

    def prepare(self, progress: float) -> None:
        """Compile kernels and capture the steps of all phases from here on."""
        if not self._captures:
            return
        config = self._config
        later = (
            config.velocity_end, config.estimate_start, config.collision_free_start,
            config.gap_start, config.one_step_start,
        )  # fmt: skip
        for share in (progress, *sorted(x for x in later if progress < x < 1)):
            for step in range(min(2, config.velocity_every)):
                phase = self._phase(share, step)
                if self._pool is not None and phase.collision_free:
                    self._pool.update(_FIRST_ROWS)
                self._captured(phase, share)

    def gradient(self, progress: float, step: int = 0) -> dict[str, Tensor]:
        """The first part of a step: the parameters' gradients, and the terms."""
        return self._gradient(self._phase(progress, step), progress)

    def close(self) -> None:
        """End the processes that draw configurations."""
        if self._pool is not None:
            self._pool.close()

    def _phase(self, progress: float, step: int) -> _Phase:
        config = self._config
        return _Phase(
            self._loss.uses_velocities(progress, step),
            self._loss.uses_estimates(progress),
            config.collision_free and progress >= config.collision_free_start,
            progress >= config.gap_start,
            progress >= config.one_step_start,
        )

    def _captured(self, phase: _Phase, progress: float) -> tuple[Any, dict[str, Tensor]]:
        """The graph of a phase, and the tensors that its replays write."""
        if phase in self._graphs:
            return self._graphs[phase]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self._warm_up(phase, progress)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self._generator)
        with torch.cuda.graph(graph):
            terms = self._step(phase, progress)
        self._graphs[phase] = graph, terms
        return self._graphs[phase]

    def _warm_up(self, phase: _Phase, progress: float) -> None:
        """Steps that leave no trace; states of optimizers that they make begin at zero."""
        before = {id(tensor): tensor.clone() for tensor in self._changed()}
        stream = self._generator.get_state()
        with warnings.catch_warnings():
            # An optimizer that can be captured warns of every step that is not.
            warnings.filterwarnings("ignore", message=".*capturable")
            for _ in range(_WARM_UP):
                self._step(phase, progress)
        with torch.no_grad():
            for tensor in self._changed():
                tensor.copy_(before.get(id(tensor), torch.zeros_like(tensor)))
        self._generator.set_state(stream)

    def _changed(self) -> list[Tensor]:
        """All tensors that a step changes and the next one reads."""
        states = [
            value
            for optimizer in self.optimizers
            for state in optimizer.state.values()
            for value in state.values()
            if isinstance(value, Tensor)
        ]
        return [*self._network.parameters(), *self._average.module.parameters(), *states]

    def _step(self, phase: _Phase, progress: float) -> dict[str, Tensor]:
        terms = self._gradient(phase, progress)
        parameters = list(self._network.parameters())
        if self._config.grad_clip > 0:
            terms["gradient_norm"] = torch.nn.utils.clip_grad_norm_(
                parameters, self._config.grad_clip, foreach=True
            )
        for optimizer in self.optimizers:
            optimizer.step()
        with torch.no_grad():
            averaged = list(self._average.module.parameters())
            moves = _lists._foreach_sub(parameters, averaged)
            _lists._foreach_mul_(moves, self._newest)
            _lists._foreach_add_(averaged, moves)
        return terms

    def _gradient(self, phase: _Phase, progress: float) -> dict[str, Tensor]:
        self._network.zero_grad(set_to_none=True)
        losses: list[Tensor] = []
        terms: dict[str, Tensor] = {}
        if phase.velocities:
            loss, named = self._loss(self._draw_batch(phase, progress))
            losses.append(loss)
            terms.update(named)
        if phase.estimates:
            loss, named = self._estimate_loss(phase)
            losses.append(loss)
            terms.update(named)
        total = torch.stack(losses).sum()
        total.backward()
        return {"loss": total.detach(), **terms}

    def _draw_batch(self, phase: _Phase, progress: float) -> Batch:
        config = self._config
        x0, _, condition, _ = self._draw(config.batch_size, phase)
        r, t = draw_times(config, config.batch_size, progress, self._generator)
        return Batch(x0, condition, self._noise(*x0.shape), r, t)

    def _estimate_loss(self, phase: _Phase) -> tuple[Tensor, dict[str, Tensor]]:
        config = self._config
        x0, targets, condition, given = self._draw(config.estimate_poses, phase)
        x1 = self._noise(len(x0), config.estimate_samples, x0.shape[1])
        x0_hat = self._one_step(x1, condition)
        loss, values = self._kernels.loss(x0_hat, x0, targets, given)
        weights = config.estimate_weights
        pairs = zip(weights, values, strict=True)
        return loss, {name: value for name, value in pairs if weights[name] > 0}

    def _one_step(self, x1: Tensor, condition: Tensor) -> Tensor:
        half = self._config.precision == "bfloat16"
        if self._captures:
            return trunk_one_step(self._network, x1, condition, torch.bfloat16)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=half):
            return self._network.one_step(x1, condition).float()

    def _draw(self, count: int, phase: _Phase) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """x0 (B, J), targets (B, T, 4, 4), conditions (B, C), given (B, T, 2)."""
        generator, device = self._generator, self._device
        if phase.collision_free and self._pool is not None:
            share = self._pool.draw(count, generator)
        else:
            shape = count, self._robot.num_joints
            share = torch.rand(shape, generator=generator, device=device)
        given = draw_given(self._robot, self._config, count, generator)
        if given is None:
            given = torch.ones(count, self._robot.num_tips, 2, dtype=torch.bool, device=device)
        return *self._kernels.draw(share, given), given

    def _noise(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self._generator, device=self._device)
