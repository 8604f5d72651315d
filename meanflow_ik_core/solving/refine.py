# SPDX-License-Identifier: Apache-2.0
"""Make candidate configurations exact by damped least squares, compiled, on the CPU."""

from dataclasses import dataclass

import numpy as np

from ..errors import OptionError
from ..kernels.descent import STAY
from ..kernels.refinement import COARSE_ITERATIONS, refine_starts
from ..robot.robot import Robot
from .robot_arrays import packed


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
    """Damped least squares: float32 steps, then float64 steps where those came close.

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
    q0, targets = checked(robot, q0, targets)
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


def judged(
    robot: Robot, q, position_error, orientation_error, position_tolerance, orientation_tolerance
) -> Refined:
    """Configurations (B, N, J) with their errors (B, N, T), which of them are solutions."""
    unknown = ~np.isfinite(q).all(-1)
    if unknown.any():
        position_error[unknown] = np.inf
        orientation_error[unknown] = np.inf
    converged = (position_error <= position_tolerance).all(-1)
    converged &= (orientation_error <= orientation_tolerance).all(-1)
    return Refined(q, position_error, orientation_error, converged & robot.within_limits(q))


def checked(robot: Robot, q0: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Starts (B, N, J) and targets (B, T, 4, 4) as float64, or an `OptionError`."""
    q0 = np.ascontiguousarray(q0, np.float64)
    targets = np.ascontiguousarray(targets, np.float64)
    check_shapes(robot, q0.shape, targets.shape)
    return q0, targets


def check_shapes(robot: Robot, q0: tuple[int, ...], targets: tuple[int, ...]) -> None:
    """`OptionError` where starts and targets have other shapes."""
    if len(q0) != 3 or q0[2] != robot.num_joints:
        raise OptionError(f"q0 has shape {q0}; it must be (B, N, {robot.num_joints})")
    if targets != (q0[0], robot.num_tips, 4, 4):
        raise OptionError(
            f"targets have shape {targets}; they must be {(q0[0], robot.num_tips, 4, 4)}"
        )
