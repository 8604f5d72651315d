# SPDX-License-Identifier: Apache-2.0
"""Make candidate configurations exact: damped least squares (`lm`) or Adam on the pose error."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import geometry
from ..cuda.torch_step import axis_weights_torch, iterate_torch
from ..errors import OptionError
from ..kernels.descent import STAY
from ..kernels.refinement import COARSE_ITERATIONS, FINE_ITERATIONS, refine_starts
from ..kernels.step_settings import StepSettings
from ..robot.robot import Robot
from .goal import Goal
from .least_squares import pose_errors
from .robot_arrays import packed, stage_tolerances


@dataclass(frozen=True)
class Refined:
    """Configurations after refinement, and how far their tips are from the targets."""

    q: np.ndarray  # (B, N, J) float64
    position_error: np.ndarray  # (B, N, T) m
    orientation_error: np.ndarray  # (B, N, T) rad
    converged: np.ndarray  # (B, N) bool: within tolerance and within the limits


def refine_lm(
    robot: Robot,
    q0: np.ndarray,
    targets: np.ndarray,
    position_tolerance: float | np.ndarray = 1e-5,
    orientation_tolerance: float | np.ndarray = 1e-5,
    max_iterations: int = COARSE_ITERATIONS,
    *,
    position_weight: float | np.ndarray = 1.0,
    orientation_weight: float | np.ndarray = 1.0,
    axis_weights: np.ndarray | None = None,
    recombining: bool = True,
) -> Refined:
    """Damped least squares on the CPU: float32 steps, then float64 steps where those came close.

    Where the tips fall into parts that share no joint, a start that finds only some of them is
    completed with what others found; where none of several finds all of them, each part is refined
    without the others, so that one out of reach leaves them exact. Starts outside the limits are
    clipped into them. A start that is not finite is returned as it came, with infinite errors.

    Args:
        robot: whose kinematics and limits.
        q0: (B, N, J) starts, rad or m.
        targets: (B, T, 4, 4) T_base_tip.
        position_tolerance: m, scalar or (T,).
        orientation_tolerance: rad, scalar or (T,).
        max_iterations: float32 steps of a sample at most.
        position_weight: what 1 m counts in the step, scalar or (T,).
        orientation_weight: what 1 rad counts in the step, scalar or (T,).
        axis_weights: (T, 6) factors to these for x y z rx ry rz of the targets' frames; where one
            is 0, the tip is free. None: 1 everywhere.
        recombining: False leaves each start to itself, as a whole, whatever others found.

    Returns:
        All samples, in the order of ``q0``.

    Raises:
        OptionError: ``q0`` or ``targets`` have a wrong shape.
    """
    q0, targets = _checked(robot, q0, targets)
    q = q0.copy()
    arrays = packed(
        robot, position_tolerance, orientation_tolerance, axis_weights, position_weight,
        orientation_weight,
    )  # fmt: skip
    errors, converged = refine_starts(
        q, targets, _no_reference(q), *arrays, STAY, recombining, max_iterations
    )
    return Refined(q, errors[..., 0], errors[..., 1], converged)


def _no_reference(q: np.ndarray) -> np.ndarray:
    return np.zeros((q.shape[0], q.shape[2]))


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
    _check_shapes(robot, tuple(q0.shape), tuple(goals.shape))
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
    return _judged(
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


def _adam(robot: Robot, q0: np.ndarray, goal: Goal) -> Refined:
    if goal.asked is not None:
        raise OptionError("refinement 'adam' is for complete goals; use 'lm' for partial ones")
    q0, targets = _checked(robot, q0, goal.T_base_tip)
    q = refine_adam(robot, torch.from_numpy(q0), torch.from_numpy(targets)[:, None]).numpy()
    errors = pose_errors(robot, q, targets)
    return _judged(robot, q, *errors, goal.position_tolerance, goal.orientation_tolerance)


_CPU = torch.device("cpu")
REFINEMENTS = ("lm", "adam")


@dataclass(frozen=True)
class Refinement:
    """How starts are made exact.

    Raises:
        OptionError: there is no such kind.
    """

    kind: str = "lm"  # of `REFINEMENTS`
    recombining: bool = True  # whether parts that share no joint complete each other
    device: torch.device = _CPU

    def __post_init__(self) -> None:
        if self.kind not in REFINEMENTS:
            raise OptionError(
                f"unknown refinement {self.kind!r}; it is one of {', '.join(REFINEMENTS)}"
            )

    @property
    def is_compiled(self) -> bool:
        return self.kind == "lm" and self.device.type == "cpu"

    def refined(self, robot: Robot, starts: Tensor, goal: Goal, sliding: int = STAY) -> Refined:
        """Starts (B, N, J) for a goal; if compiled, they may slide to its reference."""
        tolerances = goal.position_tolerance, goal.orientation_tolerance
        if self.kind == "adam":
            return _adam(robot, starts.cpu().numpy(), goal)
        if not self.is_compiled:
            return refine_lm_torch(
                robot, starts.to(self.device), goal.T_base_tip, *tolerances,
                axis_weights=goal.axis_weights,
            )  # fmt: skip
        q = np.array(starts.numpy(), np.float64, order="C")
        errors, converged = refine_starts(
            q, goal.T_base_tip, goal.reference, *packed(robot, *tolerances, goal.axis_weights),
            sliding, self.recombining, COARSE_ITERATIONS,
        )  # fmt: skip
        return Refined(q, errors[..., 0], errors[..., 1], converged)


def _judged(
    robot: Robot, q, position_error, orientation_error, position_tolerance, orientation_tolerance
) -> Refined:
    unknown = ~np.isfinite(q).all(-1)
    if unknown.any():
        position_error[unknown] = np.inf
        orientation_error[unknown] = np.inf
    converged = (position_error <= position_tolerance).all(-1)
    converged &= (orientation_error <= orientation_tolerance).all(-1)
    return Refined(q, position_error, orientation_error, converged & robot.within_limits(q))


def _checked(robot: Robot, q0: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    q0 = np.ascontiguousarray(q0, np.float64)
    targets = np.ascontiguousarray(targets, np.float64)
    _check_shapes(robot, q0.shape, targets.shape)
    return q0, targets


def _check_shapes(robot: Robot, q0: tuple[int, ...], targets: tuple[int, ...]) -> None:
    if len(q0) != 3 or q0[2] != robot.num_joints:
        raise OptionError(f"q0 has shape {q0}; it must be (B, N, {robot.num_joints})")
    if targets != (q0[0], robot.num_tips, 4, 4):
        raise OptionError(
            f"targets have shape {targets}; they must be {(q0[0], robot.num_tips, 4, 4)}"
        )
