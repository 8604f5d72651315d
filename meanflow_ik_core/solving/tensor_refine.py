# SPDX-License-Identifier: Apache-2.0
"""Make candidate configurations exact by Adam, in torch."""

import numpy as np
import torch
from torch import Tensor

from ..errors import OptionError
from ..robot.robot import Robot
from .goal import Goal
from .least_squares import pose_errors
from .refine import Refined, checked, judged


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


def adam(robot: Robot, starts: np.ndarray, goal: Goal) -> Refined:
    """Starts (B, N, J) for a goal, refined on the CPU.

    Raises:
        OptionError: the goal is not complete.
    """
    if goal.asked is not None:
        raise OptionError("refinement 'adam' is for complete goals; use 'lm' for partial ones")
    q0, targets = checked(robot, starts, goal.T_base_tip)
    q = refine_adam(robot, torch.from_numpy(q0), torch.from_numpy(targets)[:, None]).numpy()
    errors = pose_errors(robot, q, targets)
    return judged(robot, q, *errors, goal.position_tolerance, goal.orientation_tolerance)
