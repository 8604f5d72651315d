# SPDX-License-Identifier: Apache-2.0
"""The damped least-squares step of the kernels, in batched torch on any device."""

from typing import Any

import torch
from torch import Tensor

from .kernels import StepSettings
from .robot import Robot

# Samples that have converged are sorted out so often; each time waits for the device.
_STEPS_PER_PASS = 4


def lm_step(
    robot: Robot, q: Tensor, T_base_tip: Tensor, settings: StepSettings
) -> tuple[Tensor, Tensor, Tensor]:
    """One step of every sample; the formula stands in `kernels`.

    Args:
        robot: whose kinematics and limits.
        q: (M, J) within the limits, rad or m.
        T_base_tip: (M, T, 4, 4) targets.
        settings: damping, largest step, weights.

    Returns:
        q after the step (M, J), and the squared position and orientation errors before it (M, T).
    """
    reached = robot.forward(q)
    offset = T_base_tip[..., :3, 3] - reached[..., :3, 3]
    axis, trace = _turn(reached, T_base_tip)
    half = trace + 1
    # 1 + trace is 4 cos^2(angle / 2), so this is 2 sin(angle / 2) axis.
    turn = axis / half.clamp(min=1e-6).sqrt()[..., None]
    position_square = (offset**2).sum(-1)
    # The axis vanishes at half a turn; the trace does not.
    orientation_square = torch.where(half > 1e-3, (turn**2).sum(-1), 3 - trace)

    weights = torch.stack(
        (_per_tip(settings.position_weight, q), _per_tip(settings.orientation_weight, q)), -1
    ).broadcast_to(robot.num_tips, 2)
    weights = weights.repeat_interleave(3, -1).flatten()  # (6 T)
    error = torch.cat((offset, turn), -1).flatten(-2) * weights  # (M, 6 T)
    jacobian = robot.jacobian(q).flatten(-3, -2) * weights[:, None]  # (M, 6 T, J)

    lower, upper = robot.limits(q.dtype, q.device)
    continuous = torch.as_tensor(robot.continuous, device=q.device)
    pull = (jacobian.mT @ error[..., None]).squeeze(-1)
    blocked = ((q >= upper) & (pull > 0)) | ((q <= lower) & (pull < 0))
    jacobian = jacobian * (~blocked | continuous)[:, None, :]

    # Below the rounding of J J^T damping would not keep the matrix positive definite.
    rounding = 8 * torch.finfo(q.dtype).eps * (weights**2).amax().clamp(min=1.0)
    floor = rounding.clamp(min=settings.damping_floor)
    damping = settings.damping_factor * (error**2).sum(-1) + floor
    matrix = jacobian @ jacobian.mT
    matrix.diagonal(dim1=-2, dim2=-1).add_(damping[:, None])
    solution, _ = torch.linalg.solve_ex(matrix, error[..., None])
    step = (jacobian.mT @ solution).squeeze(-1)
    longest = step.abs().amax(-1, keepdim=True).clamp(min=settings.max_step)
    stepped = q + step * (settings.max_step / longest)
    stepped = torch.where(continuous, stepped, stepped.clamp(lower, upper))
    return stepped, position_square, orientation_square


def iterate_torch(
    robot: Robot,
    q: Tensor,
    T_base_tip: Tensor,
    max_iterations: int,
    position_tolerance: Any,
    orientation_tolerance: Any,
    settings: StepSettings,
) -> tuple[Tensor, Tensor]:
    """Step samples until they are within tolerance, as `kernels.iterate`.

    Args:
        robot: whose kinematics and limits.
        q: (M, J) rad or m; clipped into the limits.
        T_base_tip: (M, T, 4, 4) targets.
        max_iterations: steps of a sample at most.
        position_tolerance: m, scalar or (T,).
        orientation_tolerance: rad, scalar or (T,).
        settings: damping, largest step, weights.

    Returns:
        (M, J), and (M) bool: stopped within tolerance.
    """
    lower, upper = robot.limits(q.dtype, q.device)
    continuous = torch.as_tensor(robot.continuous, device=q.device)
    q = torch.where(continuous, q, q.clamp(lower, upper))
    position_tolerance = _per_tip(position_tolerance, q)
    orientation_tolerance = _per_tip(orientation_tolerance, q)
    converged = torch.zeros(len(q), dtype=torch.bool, device=q.device)
    todo = torch.arange(len(q), device=q.device)
    for iteration in range(max_iterations + 1):
        if iteration % _STEPS_PER_PASS == 0:
            todo = todo[~converged[todo]]
            if len(todo) == 0:
                break
        stepped, position, orientation = lm_step(robot, q[todo], T_base_tip[todo], settings)
        ratio = position / position_tolerance**2 + orientation / orientation_tolerance**2
        done = ratio.sum(-1) <= 1
        converged[todo] = done
        if iteration < max_iterations:
            q[todo] = torch.where(done[:, None], q[todo], stepped)
    return q, converged


def pose_errors_torch(reached: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Distance [m] and angle [rad] (...) between poses (..., 4, 4)."""
    axis, trace = _turn(reached, wanted)
    distance = (wanted[..., :3, 3] - reached[..., :3, 3]).norm(dim=-1)
    return distance, torch.atan2(axis.norm(dim=-1), trace - 1)


def _turn(reached: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """2 sin(angle) axis (..., 3) and trace (...) of the rotation between poses (..., 4, 4)."""
    a, b = reached[..., :3, :3], wanted[..., :3, :3]
    return torch.linalg.cross(a, b, dim=-2).sum(-1), (a * b).sum((-2, -1))


def _per_tip(value: Any, like: Tensor) -> Tensor:
    return torch.as_tensor(value, dtype=like.dtype, device=like.device)
