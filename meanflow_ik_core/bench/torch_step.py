# SPDX-License-Identifier: Apache-2.0
"""The damped least-squares step of the kernels, in batched torch: what they are compared with."""

from typing import Any

import torch
from torch import Tensor

from ..geometry import quat_xyzw_from_matrix, turn_between
from ..kernels.step_settings import StepSettings
from ..robot.robot import Robot


def lm_step(
    robot: Robot, q: Tensor, T_base_tip: Tensor, settings: StepSettings
) -> tuple[Tensor, Tensor, Tensor]:
    """Take one step with every sample; the formula is that of `kernels.step`.

    Args:
        robot: whose kinematics and limits.
        q: (M, J) within the limits, rad or m.
        T_base_tip: (M, T, 4, 4) targets.
        settings: damping, largest step, weights.

    Returns:
        q after the step (M, J), and the squared position and orientation errors before it (M, T).
    """
    axes = _axis_weights(robot, settings.axis_weights, q)
    reached = robot.forward(q)
    offset = T_base_tip[..., :3, 3] - reached[..., :3, 3]
    axis, trace = turn_between(reached, T_base_tip)
    half = trace + 1
    # 1 + trace is 4 cos^2(angle / 2), so this is 2 sin(angle / 2) axis.
    turn = axis / half.clamp(min=1e-6).sqrt()[..., None]
    # The axis vanishes at half a turn; the trace does not.
    orientation_square = torch.where(half > 1e-3, (turn**2).sum(-1), 3 - trace)
    columns = robot.jacobian(q)  # (M, T, 6, J)
    position_square = (offset**2).sum(-1)
    if axes is not None:
        offset, turn, columns = _in_target_axes(
            robot, T_base_tip, reached, offset, turn, columns, axes, orientation_square
        )
        counts = (axes != 0).to(q.dtype)
        position_square = (offset**2 * counts[:, :3]).sum(-1)

    weights = torch.stack(
        (_per_tip(settings.position_weight, q), _per_tip(settings.orientation_weight, q)), -1
    ).broadcast_to(robot.num_tips, 2)
    weights = weights.repeat_interleave(3, -1)
    weights = (weights if axes is None else weights * axes).flatten()  # (6 T)
    error = torch.cat((offset, turn), -1).flatten(-2) * weights  # (M, 6 T)
    jacobian = columns.flatten(-3, -2) * weights[:, None]  # (M, 6 T, J)

    lower, upper = robot.limits(q.dtype, q.device)
    continuous = torch.as_tensor(robot.continuous, device=q.device)
    pull = (jacobian.mT @ error[..., None]).squeeze(-1)
    blocked = ((q >= upper) & (pull > 0)) | ((q <= lower) & (pull < 0))
    free = ~blocked | continuous
    jacobian = jacobian * free[:, None, :]

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


def _axis_weights(robot: Robot, axis_weights: Any, like: Tensor) -> Tensor | None:
    """Axis weights (T, 6) of `StepSettings` as a tensor; None for none."""
    if axis_weights is None:
        return None
    weights = torch.as_tensor(axis_weights, dtype=like.dtype, device=like.device)
    return weights.broadcast_to(robot.num_tips, 6)


def _in_target_axes(
    robot: Robot,
    T_base_tip: Tensor,
    reached: Tensor,
    offset: Tensor,
    turn: Tensor,
    columns: Tensor,
    axes: Tensor,
    orientation_square: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Errors (M, T, 3) and Jacobian (M, T, 6, J) in the targets' axes, measured as in `kernels`.

    Writes the squares of the rotation errors that count to ``orientation_square`` (M, T).
    """
    inverse = T_base_tip[..., :3, :3].mT
    turned = inverse @ reached[..., :3, :3]
    offset = (inverse @ offset[..., None]).squeeze(-1)
    turn = (inverse @ turn[..., None]).squeeze(-1)
    linear, angular = inverse @ columns[..., :3, :], inverse @ columns[..., 3:, :]
    for t in range(robot.num_tips):
        counted = (axes[t, 3:] != 0).tolist()
        if sum(counted) == 0:
            orientation_square[:, t] = 0.0
        elif sum(counted) == 2:
            free = counted.index(False)
            i, k = (free + 1) % 3, (free + 2) % 3
            half = turned[:, t, free, free] + 1  # 2 cos^2(angle / 2)
            scale = (2 / half.clamp(min=1e-6)).sqrt()
            turn[:, t, free] = 0.0
            turn[:, t, i] = turned[:, t, k, free] * scale
            turn[:, t, k] = -turned[:, t, i, free] * scale
            square = (turn[:, t] ** 2).sum(-1)
            orientation_square[:, t] = torch.where(half > 1e-3, square, 4 - 2 * half)
        elif sum(counted) == 1:
            kept = counted.index(True)
            i, k = (kept + 1) % 3, (kept + 2) % 3
            quat = quat_xyzw_from_matrix(turned[:, t])
            turn[:, t] = 0.0
            turn[:, t, kept] = -2 * quat[:, kept]
            # The derivative of the quaternion's vector part v is (w omega + omega x v) / 2.
            angular[:, t, kept] = (
                quat[:, 3, None] * angular[:, t, kept]
                + quat[:, k, None] * angular[:, t, i]
                - quat[:, i, None] * angular[:, t, k]
            )
            orientation_square[:, t] = turn[:, t, kept] ** 2
    return offset, turn, torch.cat((linear, angular), -2)


def _per_tip(value: Any, like: Tensor) -> Tensor:
    return torch.as_tensor(value, dtype=like.dtype, device=like.device)
