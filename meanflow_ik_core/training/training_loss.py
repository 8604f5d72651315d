# SPDX-License-Identifier: Apache-2.0
"""One training step's data and loss, as the configuration asks for."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import ConfigError
from ..network.kinds import NETWORKS
from ..network.model import VelocityNetwork, normalise_joints
from ..robot.robot import Robot
from .config import TrainConfig
from .configurations import draw_configurations
from .losses import (
    average_velocity_target,
    dispersive_loss,
    energy_score,
    interpolate,
    joints_of_tips,
    kernel_score,
    refinement_loss,
    sample_times,
    velocity_of,
    weighted_squared_error,
)

_COMPILERS = ("g++", "c++", "clang++")


@dataclass(frozen=True)
class Batch:
    """Fresh samples for the terms on velocities."""

    x0: Tensor  # (B, J) normalised joints
    condition: Tensor  # (B, C) of their poses
    x1: Tensor  # (B, J) noise
    r: Tensor  # (B,)
    t: Tensor  # (B,)


@dataclass(frozen=True)
class Estimates:
    """Fresh poses and noise for the terms on one-step estimates."""

    x0: Tensor  # (P, J) normalised joints
    targets: Tensor  # (P, T, 4, 4) their poses
    condition: Tensor  # (P, C)
    given: Tensor  # (P, T, 2) bool, positions and orientations that the condition tells
    x1: Tensor  # (P, N, J) noise


def draw_batch(
    robot: Robot, config: TrainConfig, count: int, progress: float, generator: torch.Generator
) -> Batch:
    """Joints of `draw_configurations`, their poses, noise and times."""
    x0, _, condition, _ = _draw_poses(robot, config, count, progress, generator)
    if config.mode == "baseline" or config.reference_time == "zero":
        t = torch.rand(count, generator=generator, device=generator.device)
        r = torch.zeros_like(t)
    else:
        r, t = sample_times(count, config.flow_share, generator)
        if progress < config.gap_start:
            r = t.clone()
        elif progress >= config.one_step_start:
            rows = round(config.one_step_share * _gap_rows(config, count))
            r[:rows], t[:rows] = 0.0, 1.0
    x1 = torch.randn(x0.shape, generator=generator, device=generator.device)
    return Batch(x0, condition, x1, r, t)


def draw_estimates(
    robot: Robot, config: TrainConfig, count: int, progress: float, generator: torch.Generator
) -> Estimates:
    """Joints of `draw_configurations`, their poses, and several noises for each."""
    x0, targets, condition, given = _draw_poses(robot, config, count, progress, generator)
    shape = (count, config.estimate_samples, x0.shape[-1])
    x1 = torch.randn(shape, generator=generator, device=generator.device)
    return Estimates(x0, targets, condition, given, x1)


def draw_given(
    robot: Robot, config: TrainConfig, count: int, generator: torch.Generator
) -> Tensor | None:
    """(B, T, 2) which positions and orientations a pose keeps, of every tip at least one of two
    or neither, and of every pose at least one tip; None: nothing is ever dropped."""
    if config.drop_tip + config.drop_orientation + config.drop_position == 0:
        return None
    tips, device = robot.num_tips, generator.device
    chance = torch.rand(count, tips + 1, 3, generator=generator, device=device)
    # as likely to go as to stay, except one
    stays = chance[:, :-1, 0] < 0.5
    stays.scatter_(1, (chance[:, -1:, 1] * tips).long(), True)
    stays |= chance[:, -1:, 0] >= config.drop_tip
    orientation = chance[:, :-1, 1] >= config.drop_orientation
    position = ~orientation | (chance[:, :-1, 2] >= config.drop_position)
    return torch.stack((stays & position, stays & orientation), -1)


def _draw_poses(
    robot: Robot, config: TrainConfig, count: int, progress: float, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Normalised joints (B, J), their poses (B, T, 4, 4), conditions (B, C) and what those tell
    (B, T, 2)."""
    lower, upper = robot.limits(torch.float32, generator.device)
    collision_free = config.collision_free and progress >= config.collision_free_start
    q = draw_configurations(robot, count, generator, collision_free, exact=False)
    targets = robot.forward(q)
    given = draw_given(robot, config, count, generator)
    condition = NETWORKS[config.network].condition(targets, robot.workspace_scale, given)
    if given is None:
        given = targets.new_ones(count, robot.num_tips, 2, dtype=torch.bool)
    return normalise_joints(q, lower, upper), targets, condition, given


class Objective:
    """Loss of a network on a batch; holds the network's compiled forms.

    Args:
        network: to be trained.
        robot: whose kinematics the refinement term uses.
        config: terms, weights, precision.

    Raises:
        ConfigError: compilation is asked for and there is no C++ compiler.
    """

    def __init__(self, network: VelocityNetwork, robot: Robot, config: TrainConfig):
        self._network, self._robot, self._config = network, robot, config
        self._joints = joints_of_tips(robot)
        self._drops = config.drop_tip + config.drop_orientation + config.drop_position > 0
        self._forward, self._target = network, self._target_of
        self._one_step = network.one_step
        if config.compile:
            if not any(shutil.which(name) for name in (os.environ.get("CXX", ""), *_COMPILERS)):
                raise ConfigError(
                    f"compile is True, and there is no C++ compiler: none of {_COMPILERS} is found"
                )
            # forward-mode derivatives cannot be traced with symbolic sizes
            self._forward = torch.compile(network, dynamic=False)
            self._target = torch.compile(self._target_of, dynamic=False)
            self._one_step = torch.compile(network.one_step, dynamic=False)

    def uses_velocities(self, progress: float) -> bool:
        """Whether the terms on velocities act at this share of the run."""
        return progress < self._config.velocity_end or not self.uses_estimates(progress)

    def uses_estimates(self, progress: float) -> bool:
        """Whether the terms on one-step estimates act at this share of the run."""
        config = self._config
        weights = config.lambda_energy + config.lambda_kernel + config.lambda_refine
        return progress >= config.estimate_start and weights > 0

    def __call__(
        self, batch: Batch | None, estimates: Estimates | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Total loss of what is given, and its unweighted terms without gradient, by name."""
        config = self._config
        terms: dict[str, Tensor] = {}
        loss = torch.zeros(())
        if batch is not None:
            velocity_terms = self._velocity_terms(batch)
            loss = velocity_terms["flow"] + config.alpha_meanflow * velocity_terms["meanflow"]
            if config.lambda_disp > 0:
                loss = loss + config.lambda_disp * velocity_terms["dispersive"]
            terms.update(velocity_terms)
        if estimates is not None:
            estimate_terms = self._estimate_terms(estimates)
            weights = {
                "energy": config.lambda_energy,
                "kernel": config.lambda_kernel,
                "refine": config.lambda_refine,
            }
            loss = loss + sum(weights[name] * term for name, term in estimate_terms.items())
            terms.update(estimate_terms)
        return loss, {name: term.detach() for name, term in terms.items()}

    def _autocast(self, like: Tensor) -> torch.autocast:
        bfloat16 = self._config.precision == "bfloat16"
        return torch.autocast(like.device.type, torch.bfloat16, enabled=bfloat16)

    def _velocity_terms(self, batch: Batch) -> dict[str, Tensor]:
        config = self._config
        z, v = interpolate(batch.x0, batch.x1, batch.t), batch.x1 - batch.x0
        with self._autocast(z):
            target_rows = self._target_rows(len(z))
            target = v
            if target_rows > 0:
                rows = slice(target_rows)
                target = self._target(
                    z[rows], batch.r[rows], batch.t[rows], v[rows], batch.condition[rows]
                )
            u, features = self._forward(z, batch.r, batch.t, batch.condition)
        terms = self._velocity_errors(u.float(), v, target)
        if config.lambda_disp > 0:
            terms["dispersive"] = dispersive_loss(features, config.tau, config.dispersive_normalise)
        return terms

    def _estimate_terms(self, estimates: Estimates) -> dict[str, Tensor]:
        config = self._config
        with self._autocast(estimates.x1):
            x0_hat = self._one_step(estimates.x1, estimates.condition)
        x0_hat = x0_hat.float()
        terms = {}
        if config.lambda_energy > 0:

            def energy(x0_hat: Tensor, x0: Tensor) -> Tensor:
                return energy_score(x0_hat, x0, config.energy_power)

            terms["energy"] = self._score(energy, x0_hat, estimates.x0)
        if config.lambda_kernel > 0:
            lower, upper = self._robot.limits(x0_hat.dtype, x0_hat.device)
            in_radians = 0.5 * (upper - lower)
            terms["kernel"] = self._score(
                kernel_score, x0_hat * in_radians, estimates.x0 * in_radians
            )
        if config.lambda_refine > 0:
            targets, given = (
                rows.repeat_interleave(config.estimate_samples, 0)
                for rows in (estimates.targets, estimates.given)
            )
            terms["refine"] = refinement_loss(
                self._robot,
                x0_hat.flatten(0, 1),
                targets,
                config.refine_steps,
                config.refine_power,
                config.refine_epsilon,
                given if self._drops else None,
                self._joints if config.refine_tips else None,
            )
        return terms

    def _score(
        self, score: Callable[[Tensor, Tensor], Tensor], x0_hat: Tensor, x0: Tensor
    ) -> Tensor:
        """A proper score of all joints, and, weighted, those of the joints of each tip."""
        total = score(x0_hat, x0)
        if self._config.score_tips > 0:
            parts = [score(x0_hat[..., joints], x0[..., joints]) for joints in self._joints]
            total = total + self._config.score_tips * torch.stack(parts).sum()
        return total

    def _target_rows(self, count: int) -> int:
        """Rows whose target is the average velocity; the others, or all, have the flow term."""
        if self._config.mode == "baseline":
            return 0
        if self._config.reference_time == "zero":
            return count
        return _gap_rows(self._config, count)

    def _velocity_errors(self, u: Tensor, v: Tensor, target: Tensor) -> dict[str, Tensor]:
        config = self._config
        count, rows = len(u), self._target_rows(len(u))

        def error(u: Tensor, target: Tensor) -> Tensor:
            power, epsilon = config.adaptive_power, config.adaptive_epsilon
            return weighted_squared_error(u, target, power, epsilon).sum() / count

        if rows == 0:
            return {"flow": error(u, v), "meanflow": u.new_zeros(())}
        meanflow = error(u[:rows], target)
        if config.reference_time == "zero":
            return {"flow": error(u, v), "meanflow": meanflow}
        return {"flow": error(u[rows:], v[rows:]), "meanflow": meanflow}

    def _target_of(self, z: Tensor, r: Tensor, t: Tensor, v: Tensor, condition: Tensor) -> Tensor:
        config = self._config
        velocity = velocity_of(self._network, condition)
        return average_velocity_target(
            velocity, z, r, t, v, config.jvp_tangent, config.tangent_velocity
        )


def _gap_rows(config: TrainConfig, count: int) -> int:
    return count - round(config.flow_share * count)
