# SPDX-License-Identifier: Apache-2.0
"""Make candidate configurations exact: damped least squares (`lm`) or Adam on the pose error."""

import time
from dataclasses import dataclass

import numpy as np

from .errors import OptionError
from .kernels import StepSettings, iterate, pose_errors
from .robot import Robot

# Where float32 steps end and float64 steps take over; convergence is quadratic by then.
_COARSE_TOLERANCE = 1e-3
_COARSE_FLOOR = 1e-6
_FINE_TOLERANCE = 1e-9
_FINE_ITERATIONS = 8
_SAMPLES_PER_PASS = 2048


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
    wanted: int | None = None,
    time_limit: float | None = None,
    position_weight: float | np.ndarray = 1.0,
    orientation_weight: float | np.ndarray = 1.0,
) -> Refined:
    """Damped least squares on the CPU: float32 steps, then float64 steps where those came close.

    Starts outside the limits are clipped into them. A start that is not finite is returned as it
    came, with infinite errors.

    Args:
        q0: (B, N, J) starts, rad or m.
        targets: (B, T, 4, 4) T_base_tip.
        position_tolerance, orientation_tolerance: m and rad, scalar or (T,).
        max_iterations: float32 steps of a sample at most.
        wanted: leave a problem's remaining starts as they are once so many have converged.
        time_limit: seconds after which the remaining starts are left as they are.
        position_weight, orientation_weight: what 1 m and 1 rad count in the step, scalar or (T,).

    Returns:
        All samples in the order of ``q0``.
    """
    started = time.perf_counter()
    q0, targets = _checked(robot, q0, targets)
    finite = np.isfinite(q0).all(-1)
    q = _into_limits(robot, np.where(finite[..., None], q0, 0.0))
    weights = {"position_weight": position_weight, "orientation_weight": orientation_weight}
    coarse = StepSettings(damping_floor=_COARSE_FLOOR, **weights)
    fine = StepSettings(**weights)
    tolerances = (np.asarray(position_tolerance), np.asarray(orientation_tolerance))
    coarse_tolerances = [np.maximum(_COARSE_TOLERANCE, 0.1 * t) for t in tolerances]
    fine_tolerances = [np.minimum(_FINE_TOLERANCE, t) for t in tolerances]
    found = np.zeros(len(q), np.int64)
    enough = np.iinfo(np.int64).max if wanted is None else wanted
    todo = np.flatnonzero(finite)
    for first in range(0, len(todo), _SAMPLES_PER_PASS):
        if time_limit is not None and first and time.perf_counter() - started > time_limit:
            break
        batch = todo[first : first + _SAMPLES_PER_PASS]
        start, stop = batch[0] // q.shape[1], batch[-1] // q.shape[1] + 1
        part = (q[start:stop], targets[start:stop])
        batch = batch - start * q.shape[1]
        close = iterate(
            robot, *part, batch, found[start:stop].copy(), enough, max_iterations,
            *coarse_tolerances, coarse, np.float32,
        )  # fmt: skip
        batch = np.flatnonzero(close)
        iterate(
            robot, *part, batch, found[start:stop], enough, _FINE_ITERATIONS,
            *fine_tolerances, fine,
        )  # fmt: skip
    q = np.where(finite[..., None], _into_limits(robot, q), q0)
    position_error, orientation_error = pose_errors(robot, q, targets)
    position_error[~finite] = np.inf
    orientation_error[~finite] = np.inf
    converged = (position_error <= tolerances[0]).all(-1)
    converged &= (orientation_error <= tolerances[1]).all(-1)
    return Refined(q, position_error, orientation_error, converged & robot.within_limits(q))


def _into_limits(robot: Robot, q: np.ndarray) -> np.ndarray:
    if robot.continuous.any():
        turn = 2 * np.pi
        q = np.where(robot.continuous, q - turn * np.round(q / turn), q)
    return np.clip(q, robot.lower, robot.upper)


def _checked(robot: Robot, q0: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    q0 = np.ascontiguousarray(q0, np.float64)
    targets = np.ascontiguousarray(targets, np.float64)
    if q0.ndim != 3 or q0.shape[2] != robot.num_joints:
        raise OptionError(f"q0 has shape {q0.shape}; it must be (B, N, {robot.num_joints})")
    if targets.shape != (len(q0), robot.num_tips, 4, 4):
        raise OptionError(
            f"targets have shape {targets.shape}; they must be {(len(q0), robot.num_tips, 4, 4)}"
        )
    return q0, targets
