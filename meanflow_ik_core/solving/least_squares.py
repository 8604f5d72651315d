# SPDX-License-Identifier: Apache-2.0
"""Damped least squares and exact pose errors on the CPU, for many samples of any robot at once.

The step is that of Levenberg and Marquardt with damping proportional to the squared error
(Sugihara 2011), over the joints that are free: those at a limit that the error pulls outward are
held. Steps are cut to a largest joint step and to the limits. Errors of some axes of a target may
be free.
"""

import numpy as np

from ..kernels.entry import CONVERGED, OPEN, evaluate, refine
from ..kernels.step_settings import StepSettings
from ..robot.robot import Robot
from .robot_arrays import packed, packed_for


def iterate(
    robot: Robot,
    q: np.ndarray,
    targets: np.ndarray,
    todo: np.ndarray,
    max_iterations: int,
    position_tolerance: float | np.ndarray,
    orientation_tolerance: float | np.ndarray,
    settings: StepSettings,
    dtype: type = np.float64,
) -> np.ndarray:
    """Step samples in place until they are within tolerance or out of iterations.

    Orientation errors count as 2 sin(angle / 2), and the errors of all tips in units of their
    tolerances are squared and added up; 1 is within tolerance. What becomes of a sample does not
    depend on the others.

    Args:
        robot: whose kinematics and limits.
        q: (B, N, J) float64, C-contiguous, changed in place. Starts outside the limits are
            clipped to them; continuous joints are not wrapped.
        targets: (B, T, 4, 4) T_base_tip.
        todo: (n,) int64, samples b * N + n to work on, in this order.
        max_iterations: steps of a sample at most.
        position_tolerance: m, scalar or (T,).
        orientation_tolerance: rad, scalar or (T,).
        settings: damping, largest step, weights.
        dtype: type of the arithmetic, numpy.float32 or numpy.float64.

    Returns:
        (B, N) int8: CONVERGED by the arithmetic of ``dtype``, FAILED, or OPEN if not in ``todo``.
    """
    outcome = np.full(q.shape[:2], OPEN, np.int8)
    packed_robot = packed_for(robot, dtype, position_tolerance, orientation_tolerance, settings)
    if settings.axis_weights is not None and not np.any(settings.axis_weights):
        outcome.ravel()[todo] = CONVERGED
    else:
        refine(q, _contiguous(targets), todo, outcome, *packed_robot, max_iterations)
    return outcome


def pose_errors(
    robot: Robot, q: np.ndarray, targets: np.ndarray, axis_weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """How far the tips are from their targets, exactly, in float64.

    Args:
        robot: whose kinematics.
        q: (B, N, J) rad or m.
        targets: (B, T, 4, 4) T_base_tip.
        axis_weights: (T, 6) as in `StepSettings`; where it is 0, the tip is free. Errors are those
            to the nearest pose that is allowed, 0 for a tip that is all free.

    Returns:
        Distance [m] and angle [rad], each (B, N, T).
    """
    if axis_weights is not None and not np.any(axis_weights):
        return np.zeros((*q.shape[:2], robot.num_tips)), np.zeros((*q.shape[:2], robot.num_tips))
    robot_arrays = packed(robot, 1.0, 1.0, axis_weights)
    errors = evaluate(
        _contiguous(q), _contiguous(targets), robot_arrays.integers, robot_arrays.floats64
    )
    return errors[..., 0], errors[..., 1]


def _contiguous(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array, np.float64)
