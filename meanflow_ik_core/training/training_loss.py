# SPDX-License-Identifier: Apache-2.0
"""The loss of a training step: the terms that the settings ask for, weighted and added."""

import os
import shutil
from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import ConfigError
from ..network.model import VelocityNetwork
from ..robot.robot import Robot
from .batches import Batch, Estimates
from .config import TrainConfig
from .losses import (
    average_velocity_target,
    dispersive_loss,
    energy_score,
    gap_rows,
    interpolate,
    kernel_score,
    refinement_loss,
    velocity_of,
    weighted_squared_error,
)

_COMPILERS = ("g++", "c++", "clang++")


class TrainingLoss:
    """Loss of a network on the data of a step; holds the network's compiled forms.

    Args:
        network: to be trained.
        robot: whose kinematics the refinement term uses.
        config: terms, weights, precision.

    Raises:
        ConfigError: compilation is asked for and there is no C++ compiler.
    """

    def __init__(self, network: VelocityNetwork, robot: Robot, config: TrainConfig):
        self._network, self._robot, self._config = network, robot, config
        self._joints = [row.nonzero().squeeze(-1) for row in torch.from_numpy(robot.moves)]
        self._forward, self._target = network, self._target_of
        self._one_step = network.one_step
        if config.compile:
            if not any(shutil.which(name) for name in (os.environ.get("CXX", ""), *_COMPILERS)):
                raise ConfigError(
                    f"compile is True, and there is no C++ compiler: none of {_COMPILERS} is found"
                )
            # Forward-mode derivatives cannot be traced with symbolic sizes.
            self._forward = torch.compile(network, dynamic=False)
            self._target = torch.compile(self._target_of, dynamic=False)
            self._one_step = torch.compile(network.one_step, dynamic=False)

    def uses_velocities(self, progress: float, step: int) -> bool:
        """Whether the terms on velocities act at this share of the run, and at this step."""
        config = self._config
        if not self.uses_estimates(progress):
            return True
        return progress < config.velocity_end and step % config.velocity_every == 0

    def uses_estimates(self, progress: float) -> bool:
        """Whether the terms on one-step estimates act at this share of the run."""
        config = self._config
        return progress >= config.estimate_start and any(config.estimate_weights.values())

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
            weights = config.estimate_weights
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
                given if config.drops else None,
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
        return gap_rows(count, self._config.flow_share)

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
