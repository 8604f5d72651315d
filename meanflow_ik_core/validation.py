# SPDX-License-Identifier: Apache-2.0
"""How good raw samples are, measured the same way during and after training."""

import numpy as np
import torch

from .geometry import pose_errors
from .model import MeanFlowNetwork, condition_from_poses, denormalise_joints
from .ranking import joint_distance
from .refine import refine_lm
from .robot import Robot

POSITION_TOLERANCE = 1e-3  # m
ORIENTATION_TOLERANCE = 1e-2  # rad
# A sample was clamped when a joint is this close to a limit, in units of the joint's range.
_AT_LIMIT = 1e-6


@torch.no_grad()
def validate(
    robot: Robot, network: MeanFlowNetwork, poses: int, samples: int, seed: int
) -> dict[str, float]:
    """What `measure_samples` says about one-step samples of a network on reachable poses.

    Args:
        poses: number of poses, of configurations uniform within the limits.
        samples: one-step samples per pose, clamped to the limits.
        seed: of poses and noise; the training stream is not touched.
    """
    generator = torch.Generator(network.out.weight.device).manual_seed(seed)
    dtype = torch.float32
    lower, upper = robot.limits(dtype, generator.device)
    q_true = robot.random_configurations(poses, generator, dtype)
    T_base_tip = robot.forward(q_true)
    condition = condition_from_poses(T_base_tip, robot.workspace_scale)
    noise = torch.randn(
        poses, samples, robot.num_joints, generator=generator, device=generator.device
    )
    chunks = zip(noise.split(50), condition.split(50), strict=True)
    x0_hat = torch.cat([network.one_step(*chunk) for chunk in chunks])
    q = denormalise_joints(x0_hat.clamp(-1, 1), lower, upper)
    return measure_samples(
        robot,
        q.double().cpu().numpy(),
        q_true.double().cpu().numpy(),
        T_base_tip.double().cpu().numpy(),
        POSITION_TOLERANCE,
        ORIENTATION_TOLERANCE,
    )


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
        (95: quantile), over all samples and tips; inside_limits, share of samples without a
        joint at a limit, that is, not clamped; recall_median [rad], distance from the
        configuration that made a pose to the nearest of its samples; spread [rad], standard
        deviation of a pose's samples, mean over joints; refined_success, share of samples that
        the refinement brings within tolerance and limits.
    """
    position, angle = pose_errors(
        torch.from_numpy(robot.forward(q)), torch.from_numpy(T_base_tip)[:, None]
    )
    at_limit = np.minimum(q - robot.lower, robot.upper - q) < _AT_LIMIT * (
        robot.upper - robot.lower
    )
    recall = joint_distance(robot, q, q_true[:, None]).min(-1)
    refined = refine_lm(robot, q, T_base_tip, position_tolerance, orientation_tolerance)
    return {
        **_statistics("position_error", position.numpy()),
        **_statistics("orientation_error", angle.numpy()),
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
