# SPDX-License-Identifier: Apache-2.0
"""How good raw samples are, measured the same way during and after training."""

import numpy as np

from ..geometry import pose_errors
from ..robot.robot import Robot
from ..solving.ranking import joint_distance
from ..solving.refine import refine_lm

# A sample was clamped when a joint is this close to a limit, in units of the joint's range.
_AT_LIMIT = 1e-6


def measure_samples(
    robot: Robot,
    q: np.ndarray,
    q_true: np.ndarray,
    T_base_tip: np.ndarray,
    position_tolerance: float,
    orientation_tolerance: float,
) -> dict[str, float]:
    """Raw error, coverage and success after refinement of samples within the limits.

    Args:
        q: (B, N, J) samples.
        q_true: (B, J) configurations that made the poses.
        T_base_tip: (B, T, 4, 4) poses.
        position_tolerance: m, of the refinement.
        orientation_tolerance: rad, of the refinement.

    Returns:
        position_error_mean, _median, _95 [m] and orientation_error_mean, _median, _95 [rad]
        (95: quantile), over all samples and tips, and for several tips the means of each,
        position_error_<tip> and orientation_error_<tip>; inside_limits, share of samples without a
        joint at a limit, that is, not clamped; recall_median [rad], distance from the
        configuration that made a pose to the nearest of its samples; spread [rad], standard
        deviation of a pose's samples, mean over joints; refined_success, share of samples that
        the refinement brings within tolerance and limits.
    """
    position, angle = pose_errors(robot.forward(q), T_base_tip[:, None])
    at_limit = np.minimum(q - robot.lower, robot.upper - q) < _AT_LIMIT * (
        robot.upper - robot.lower
    )
    recall = joint_distance(robot, q, q_true[:, None]).min(-1)
    refined = refine_lm(robot, q, T_base_tip, position_tolerance, orientation_tolerance)
    return {
        **_statistics("position_error", position),
        **_statistics("orientation_error", angle),
        **_per_tip("position_error", robot, position),
        **_per_tip("orientation_error", robot, angle),
        "inside_limits": float((~(at_limit & ~robot.continuous).any(-1)).mean()),
        "recall_median": float(np.median(recall)),
        "spread": float(q.std(1).mean()),
        "refined_success": float(refined.converged.mean()),
    }


def _statistics(name: str, values: np.ndarray) -> dict[str, float]:
    return {
        f"{name}_mean": float(values.mean()),
        f"{name}_median": float(np.median(values)),
        f"{name}_95": float(np.quantile(values, 0.95)),
    }


def _per_tip(name: str, robot: Robot, values: np.ndarray) -> dict[str, float]:
    if robot.num_tips == 1:
        return {}
    means = values.mean((0, 1)).tolist()
    return {f"{name}_{tip}": mean for tip, mean in zip(robot.tips, means, strict=True)}
