# SPDX-License-Identifier: Apache-2.0
"""One training step's data and loss, as the configuration asks for."""

import os
import shutil
from dataclasses import dataclass

import torch
from torch import Tensor

from .errors import ConfigError
from .losses import (
    average_velocity_target,
    dispersive_loss,
    interpolate,
    refinement_loss,
    sample_times,
    velocity_of,
    weighted_squared_error,
)
from .model import MeanFlowNetwork, condition_from_poses, normalise_joints
from .robot import Robot
from .train_config import TrainConfig

_COMPILERS = ("g++", "c++", "clang++")


@dataclass(frozen=True)
class Batch:
    """Fresh samples of one step."""

    x0: Tensor  # (B, J) normalised joints
    targets: Tensor  # (B, T, 4, 4) their poses
    condition: Tensor  # (B, 7 T)
    x1: Tensor  # (B, J) noise
    r: Tensor  # (B,)
    t: Tensor  # (B,)


def draw_batch(
    robot: Robot, config: TrainConfig, count: int, progress: float, generator: torch.Generator
) -> Batch:
    """Joints uniform within the limits, their poses, noise and times."""
    lower, upper = robot.limits(torch.float32, generator.device)
    q = robot.random_configurations(count, generator, torch.float32)
    targets = robot.forward(q)
    if config.mode == "baseline" or config.reference_time == "zero":
        t = torch.rand(count, generator=generator, device=generator.device)
        r = torch.zeros_like(t)
    else:
        r, t = sample_times(count, config.flow_share, generator)
        if progress >= config.one_step_start:
            rows = round(config.one_step_share * _gap_rows(config, count))
            r[:rows], t[:rows] = 0.0, 1.0
    return Batch(
        x0=normalise_joints(q, lower, upper),
        targets=targets,
        condition=condition_from_poses(targets, robot.workspace_scale),
        x1=torch.randn(q.shape, generator=generator, device=generator.device),
        r=r,
        t=t,
    )


class Objective:
    """Loss of a network on a batch; holds the network's compiled forms.

    Args:
        network: to be trained.
        robot: whose kinematics the refinement term uses.
        config: terms, weights, precision.

    Raises:
        ConfigError: compilation is asked for and there is no C++ compiler.
    """

    def __init__(self, network: MeanFlowNetwork, robot: Robot, config: TrainConfig):
        self._network, self._robot, self._config = network, robot, config
        self._forward, self._target = network, self._target_of
        if config.compile:
            if not any(shutil.which(name) for name in (os.environ.get("CXX", ""), *_COMPILERS)):
                raise ConfigError(
                    f"compile is True, and there is no C++ compiler: none of {_COMPILERS} is found"
                )
            # forward-mode derivatives cannot be traced with symbolic sizes
            self._forward = torch.compile(network, dynamic=False)
            self._target = torch.compile(self._target_of, dynamic=False)

    def __call__(self, batch: Batch, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Total loss, and its unweighted terms without gradient, by name."""
        config = self._config
        z, v = interpolate(batch.x0, batch.x1, batch.t), batch.x1 - batch.x0
        count = len(z)
        refined_rows = 0
        if config.lambda_refine > 0 and progress >= config.refine_start:
            refined_rows = max(1, round(config.refine_share * count))
        with torch.autocast(z.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
            target_rows = self._target_rows(count)
            target = v
            if target_rows > 0:
                rows = slice(target_rows)
                target = self._target(
                    z[rows], batch.r[rows], batch.t[rows], v[rows], batch.condition[rows]
                )
            # the one-step estimates ride in the same call: u at r = 0, t = 1 of the first noises
            extra = slice(refined_rows)
            u, features = self._forward(
                torch.cat((z, batch.x1[extra])),
                torch.cat((batch.r, torch.zeros_like(batch.r[extra]))),
                torch.cat((batch.t, torch.ones_like(batch.t[extra]))),
                torch.cat((batch.condition, batch.condition[extra])),
            )
        u = u.float()
        terms = self._velocity_terms(u[:count], v, target)
        loss = terms["flow"] + config.alpha_meanflow * terms["meanflow"]
        if config.lambda_disp > 0:
            terms["dispersive"] = dispersive_loss(
                features[:count], config.tau, config.dispersive_normalise
            )
            loss = loss + config.lambda_disp * terms["dispersive"]
        if refined_rows:
            x0_hat = batch.x1[extra] - u[count:]
            terms["refine"] = refinement_loss(
                self._robot, x0_hat, batch.targets[extra], config.refine_steps
            )
            loss = loss + config.lambda_refine * terms["refine"]
        return loss, {name: term.detach() for name, term in terms.items()}

    def _target_rows(self, count: int) -> int:
        """Rows whose target is the average velocity; the others, or all, have the flow term."""
        if self._config.mode == "baseline":
            return 0
        if self._config.reference_time == "zero":
            return count
        return _gap_rows(self._config, count)

    def _velocity_terms(self, u: Tensor, v: Tensor, target: Tensor) -> dict[str, Tensor]:
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
