# SPDX-License-Identifier: Apache-2.0
"""Make candidate configurations exact in torch: damped least squares on any device, or Adam."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import geometry
from ..cuda.torch_step import axis_weights_torch, iterate_torch
from ..errors import OptionError
from ..kernels.refinement import COARSE_ITERATIONS, FINE_ITERATIONS
from ..kernels.step_settings import StepSettings
from ..robot.robot import Robot
from .goal import Goal
from .least_squares import pose_errors
from .refine import Refined, check_shapes, checked, judged
from .robot_arrays import stage_tolerances


def refine_lm_torch(
    robot: Robot,
    q0: Tensor,
    targets: Any,
    position_tolerance: float | np.ndarray = 1e-5,
    orientation_tolerance: float | np.ndarray = 1e-5,
    max_iterations: int = COARSE_ITERATIONS,
    *,
    position_weight: float | np.ndarray = 1.0,
    orientation_weight: float | np.ndarray = 1.0,
    axis_weights: np.ndarray | None = None,
) -> Refined:
    """The same refinement as `refine_lm`, in torch on the device of ``q0``.

    Args:
        robot: whose kinematics and limits.
        q0: (B, N, J) starts, rad or m.
        targets: (B, T, 4, 4) T_base_tip, tensor or array-like.
        position_tolerance: m, scalar or (T,).
        orientation_tolerance: rad, scalar or (T,).
        max_iterations: float32 steps of a sample at most.
        position_weight: what 1 m counts in the step, scalar or (T,).
        orientation_weight: what 1 rad counts in the step, scalar or (T,).
        axis_weights: (T, 6) factors to these for x y z rx ry rz of the targets' frames; where one
            is 0, the tip is free. None: 1 everywhere.

    Returns:
        All samples, in the order of ``q0``, on the CPU.

    Raises:
        OptionError: ``q0`` or ``targets`` have a wrong shape.
    """
    goals = torch.as_tensor(targets, dtype=torch.float64, device=q0.device)
    check_shapes(robot, tuple(q0.shape), tuple(goals.shape))
    settings = StepSettings(
        position_weight=position_weight,
        orientation_weight=orientation_weight,
        axis_weights=axis_weights,
    )
    coarse, fine = stage_tolerances(position_tolerance, orientation_tolerance)
    lower, upper = robot.limits(torch.float64, q0.device)
    problem = torch.arange(len(q0), device=q0.device).repeat_interleave(q0.shape[1])
    q = q0.detach().to(torch.float64).flatten(0, 1)
    finite = q.isfinite().all(-1)
    todo = finite.nonzero().squeeze(-1)
    near, close = iterate_torch(
        robot, q[todo].float(), goals[problem[todo]].float(), max_iterations,
        *coarse, settings,
    )  # fmt: skip
    q[todo] = near.double()
    todo = todo[close]
    q[todo], _ = iterate_torch(
        robot, q[todo], goals[problem[todo]], FINE_ITERATIONS, *fine, settings
    )
    continuous = torch.as_tensor(robot.continuous, device=q.device)
    wrapped = torch.where(continuous, q - 2 * torch.pi * torch.round(q / (2 * torch.pi)), q)
    q = torch.where(finite[:, None], wrapped.clamp(lower, upper), q)
    position_error, orientation_error = (
        error.unflatten(0, q0.shape[:2]).cpu().numpy()
        for error in geometry.pose_errors(
            robot.forward(q), goals[problem], axis_weights_torch(robot, axis_weights, q)
        )
    )
    q = q.unflatten(0, q0.shape[:2]).cpu().numpy()
    return judged(
        robot, q, position_error, orientation_error, position_tolerance, orientation_tolerance
    )


def refine_adam(
    robot: Robot, q_init: Tensor, target_pose: Tensor, steps: int = 10, lr: float = 0.05
) -> Tensor:
    """Adam on mean squared position error + 0.1 (1 - <quat, target quat>^2), clamped every step.

    The loss is summed over samples, so that the samples of a batch do not change each other's
    steps; Adam does not depend on the scale of a loss.

    Args:
        robot: whose kinematics and limits.
        q_init: (..., J) rad or m.
        target_pose: (..., T, 4, 4) T_base_tip, broadcast against the tips at ``q_init``.
        steps: how many.
        lr: learning rate, rad or m per step.

    Returns:
        (..., J), within the limits.
    """
    lower, upper = robot.limits(q_init.dtype, q_init.device)
    q = q_init.detach().clamp(lower, upper).requires_grad_()
    optimizer = torch.optim.Adam([q], lr=lr)
    with torch.enable_grad():
        for _ in range(steps):
            optimizer.zero_grad()
            T_base_tip = robot.forward(q)
            offset = T_base_tip[..., :3, 3] - target_pose[..., :3, 3]
            trace = (T_base_tip[..., :3, :3] * target_pose[..., :3, :3]).sum((-2, -1))
            # <quat, target quat>^2 = cos^2(angle / 2) = (1 + trace) / 4
            loss = (offset**2).mean(-1) + 0.1 * (1 - (1 + trace) / 4)
            loss.sum().backward()
            optimizer.step()
            with torch.no_grad():
                q.clamp_(lower, upper)
    return q.detach()


def refine_goal(robot: Robot, starts: np.ndarray, goal: Goal, kind: str, device: str) -> Refined:
    """Starts (B, N, J) for a goal, by a kind of `Refinement`; Adam runs on the CPU.

    Raises:
        OptionError: Adam, and the goal is not complete.
    """
    tolerances = goal.position_tolerance, goal.orientation_tolerance
    if kind == "lm":
        q0 = torch.from_numpy(starts).to(device)
        return refine_lm_torch(
            robot, q0, goal.T_base_tip, *tolerances, axis_weights=goal.axis_weights
        )
    if goal.asked is not None:
        raise OptionError("refinement 'adam' is for complete goals; use 'lm' for partial ones")
    q0, targets = checked(robot, starts, goal.T_base_tip)
    q = refine_adam(robot, torch.from_numpy(q0), torch.from_numpy(targets)[:, None]).numpy()
    return judged(robot, q, *pose_errors(robot, q, targets), *tolerances)
