# SPDX-License-Identifier: Apache-2.0
"""How good the raw one-step samples are, measured the same way during and after training."""

import torch

from .geometry import pose_errors
from .model import MeanFlowNetwork, condition_from_poses, denormalise_joints
from .robot import Robot

POSITION_TOLERANCE = 1e-3  # m
ORIENTATION_TOLERANCE = 1e-2  # rad


@torch.no_grad()
def validate(
    robot: Robot, network: MeanFlowNetwork, poses: int, samples: int, seed: int
) -> dict[str, float]:
    """Raw error, coverage and success after refinement on reachable poses.

    Args:
        poses: number of poses, of configurations uniform within the limits.
        samples: one-step samples per pose, clamped to the limits.
        seed: of poses and noise; the training stream is not touched.

    Returns:
        position_error_median, position_error_mean [m], orientation_error_median,
        orientation_error_mean [rad], over all samples and tips; recall_median [rad], distance
        from the configuration that made a pose to the nearest of its samples; spread [rad],
        standard deviation of a pose's samples; refined_success, share of samples that the
        refinement brings within tolerance and limits.
    """
    generator = torch.Generator(network.out.weight.device).manual_seed(seed)
    dtype = torch.float32
    lower, upper = robot.limits(dtype, generator.device)
    q_true = robot.random_configurations(poses, generator, dtype)
    targets = robot.forward(q_true)
    condition = condition_from_poses(targets, robot.workspace_scale)
    noise = torch.randn(
        poses, samples, robot.num_joints, generator=generator, device=generator.device
    )
    chunks = zip(noise.split(50), condition.split(50), strict=True)
    x0_hat = torch.cat([network.one_step(*chunk) for chunk in chunks])
    q = denormalise_joints(x0_hat.clamp(-1, 1), lower, upper)
    position, angle = pose_errors(robot.forward(q), targets[:, None])
    recall = (q - q_true[:, None]).norm(dim=-1).amin(-1)
    metrics = {
        "position_error_median": position.median().item(),
        "position_error_mean": position.mean().item(),
        "orientation_error_median": angle.median().item(),
        "orientation_error_mean": angle.mean().item(),
        "recall_median": recall.median().item(),
        "spread": q.std(1).mean().item(),
    }
    try:
        from .refine import refine_lm
    except ImportError:
        return metrics
    refined = refine_lm(
        robot,
        q.double().cpu().numpy(),
        targets.double().cpu().numpy(),
        POSITION_TOLERANCE,
        ORIENTATION_TOLERANCE,
    )
    return {**metrics, "refined_success": float(refined.converged.mean())}
