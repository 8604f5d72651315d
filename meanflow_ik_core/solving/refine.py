# SPDX-License-Identifier: Apache-2.0
"""Make candidate configurations exact: damped least squares (`lm`) or Adam on the pose error."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import geometry
from ..cuda.torch_step import axis_weights_torch, iterate_torch
from ..errors import OptionError
from ..kernels.entry import CONVERGED, FAILED, OPEN
from ..kernels.step_settings import StepSettings
from ..robot.robot import Robot
from .least_squares import iterate, pose_errors
from .recombination import Part, independent_parts, recombine

# Where float32 steps end and float64 steps take over; convergence is quadratic by then.
_COARSE_TOLERANCE = 1e-3
_FINE_TOLERANCE = 1e-9
_FINE_ITERATIONS = 8
# Between two looks at the clock so many samples are refined, for a robot of one tip; for T tips
# T^2 times fewer. Either takes a millisecond or two.
_SAMPLES_PER_PASS = 2048
# Where no sample of a problem reaches all of its tips, the parts of so many are refined one by one.
_ALONE = 32


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
    max_iterations: int = 15,
    *,
    time_limit: float | None = None,
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
        time_limit: seconds after which the remaining starts are left as they are; looked at
            about once per millisecond.
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
    started = time.perf_counter()
    q0, targets = _checked(robot, q0, targets)
    finite = np.asarray(np.isfinite(q0).all(-1))
    whole = bool(finite.all())
    q = _into_limits(robot, q0 if whole else np.where(finite[..., None], q0, 0.0))
    settings = StepSettings(
        position_weight=position_weight,
        orientation_weight=orientation_weight,
        axis_weights=axis_weights,
    )
    coarse, fine = _stage_tolerances(position_tolerance, orientation_tolerance)
    todo = np.flatnonzero(finite)
    several = recombining and robot.num_tips > 1
    parts = independent_parts(robot, axis_weights) if several else []
    # Whole problems, so that what is recombined does not depend on the other problems.
    size = max(1, _SAMPLES_PER_PASS // robot.num_tips**2)
    size -= size % q.shape[1] if 0 < q.shape[1] < size else 0
    for first in range(0, len(todo), size):
        if time_limit is not None and first and time.perf_counter() - started > time_limit:
            break
        batch = todo[first : first + size]
        start, stop = batch[0] // q.shape[1], batch[-1] // q.shape[1] + 1
        part = q[start:stop], targets[start:stop]
        batch = batch - start * q.shape[1]
        outcome = iterate(robot, *part, batch, max_iterations, *coarse, settings, np.float32)
        if len(parts) > 1:
            _recombine(robot, *part, outcome, parts, axis_weights, *coarse)
        close = np.flatnonzero(outcome == CONVERGED)
        iterate(robot, *part, close, _FINE_ITERATIONS, *fine, settings)
    q = _into_limits(robot, q)
    if not whole:
        q = np.where(finite[..., None], q, q0)
    tolerances = position_tolerance, orientation_tolerance
    refined = _judged(robot, q, *pose_errors(robot, q, targets, axis_weights), *tolerances)
    if len(parts) < 2 or q.shape[1] < 2:  # a step from a known configuration has one start
        return refined
    missed = np.flatnonzero(~refined.converged.any(1) & finite.all(1))
    left = None if time_limit is None else time_limit - (time.perf_counter() - started)
    if not len(missed) or (left is not None and left <= 0):
        return refined
    q[missed] = _part_by_part(
        robot, q[missed], targets[missed], parts, *tolerances, max_iterations, left, axis_weights
    )
    return _judged(robot, q, *pose_errors(robot, q, targets, axis_weights), *tolerances)


def refine_lm_torch(
    robot: Robot,
    q0: Tensor,
    targets: Any,
    position_tolerance: float | np.ndarray = 1e-5,
    orientation_tolerance: float | np.ndarray = 1e-5,
    max_iterations: int = 15,
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
    coarse, fine = _stage_tolerances(position_tolerance, orientation_tolerance)
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
        robot, q[todo], goals[problem[todo]], _FINE_ITERATIONS, *fine, settings
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


def _adam(
    robot: Robot,
    q0: np.ndarray,
    targets: np.ndarray,
    position_tolerance: float | np.ndarray = 1e-5,
    orientation_tolerance: float | np.ndarray = 1e-5,
    axis_weights: np.ndarray | None = None,
    **settings: Any,
) -> Refined:
    if axis_weights is not None:
        raise OptionError("refinement 'adam' is for complete goals; use 'lm' for partial ones")
    q0, targets = _checked(robot, q0, targets)
    goals = torch.from_numpy(targets)[:, None]
    q = refine_adam(robot, torch.from_numpy(q0), goals, **settings).numpy()
    errors = pose_errors(robot, q, targets)
    return _judged(robot, q, *errors, position_tolerance, orientation_tolerance)


# Each (robot, q0, targets, position_tolerance, orientation_tolerance, ...) -> Refined.
REFINEMENTS: dict[str, Callable[..., Refined]] = {"lm": refine_lm, "adam": _adam}


def _recombine(
    robot: Robot,
    q: np.ndarray,
    targets: np.ndarray,
    outcome: np.ndarray,
    parts: Sequence[Part],
    axis_weights: np.ndarray | None,
    position_tolerance: float | np.ndarray,
    orientation_tolerance: float | np.ndarray,
) -> None:
    """Complete samples that failed in some of their parts only; see `recombine`."""
    failed = outcome == FAILED
    if not failed.any():
        return
    position, orientation = pose_errors(robot, q, targets, axis_weights)
    close = (position <= position_tolerance) & (orientation <= orientation_tolerance)
    close &= (outcome != OPEN)[..., None]
    for problem in np.flatnonzero(failed.any(1)):
        done = recombine(q[problem], close[problem], failed[problem], parts)
        outcome[problem, done] = CONVERGED


def _part_by_part(
    robot: Robot,
    q: np.ndarray,
    targets: np.ndarray,
    parts: Sequence[Part],
    position_tolerance: float | np.ndarray,
    orientation_tolerance: float | np.ndarray,
    max_iterations: int,
    time_limit: float | None,
    axis_weights: np.ndarray | None,
) -> np.ndarray:
    """Samples (B, N, J) with every part as near as it comes: a part far from its target holds back
    the steps of the others."""
    some = q[:, :_ALONE]
    q = q.copy()
    close = np.zeros((*q.shape[:2], robot.num_tips), bool)
    for part in parts:
        weights = np.zeros((robot.num_tips, 6))
        weights[part.tips] = 1.0 if axis_weights is None else axis_weights[part.tips]
        alone = refine_lm(
            robot, some, targets, position_tolerance, orientation_tolerance, max_iterations,
            time_limit=None if time_limit is None else time_limit / len(parts),
            axis_weights=weights,
        )  # fmt: skip
        q[:, :_ALONE, part.joints] = alone.q[..., part.joints]
        close[:, :_ALONE, part.tips] = alone.converged[..., None]
    for problem in range(len(q)):
        recombine(q[problem], close[problem], ~close[problem].all(1), parts)
    return q


_Tolerance = float | np.ndarray


def _stage_tolerances(
    position: _Tolerance, orientation: _Tolerance
) -> tuple[tuple[_Tolerance, _Tolerance], tuple[_Tolerance, _Tolerance]]:
    """Position and orientation tolerance of the float32 steps, and of the float64 steps."""
    return (_coarse(position), _coarse(orientation)), (_fine(position), _fine(orientation))


def _coarse(tolerance: _Tolerance) -> _Tolerance:
    if isinstance(tolerance, float):
        return max(_COARSE_TOLERANCE, 0.1 * tolerance)
    return np.maximum(_COARSE_TOLERANCE, 0.1 * np.asarray(tolerance))


def _fine(tolerance: _Tolerance) -> _Tolerance:
    if isinstance(tolerance, float):
        return min(_FINE_TOLERANCE, tolerance)
    return np.minimum(_FINE_TOLERANCE, np.asarray(tolerance))


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


def _into_limits(robot: Robot, q: np.ndarray) -> np.ndarray:
    if robot.continuous.any():
        turn = 2 * np.pi
        q = np.where(robot.continuous, q - turn * np.round(q / turn), q)
    return np.minimum(np.maximum(q, robot.lower), robot.upper)


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
