# SPDX-License-Identifier: Apache-2.0
"""How good raw samples are, measured the same way during and after training."""

import numpy as np
import torch
from torch import Tensor

from ..geometry import pose_errors
from ..network.model import VelocityNetwork, denormalise_joints
from ..robot.robot import Robot
from ..solving.ranking import joint_distance
from ..solving.refine import refine_lm
from .configurations import draw_configurations
from .losses import joints_of_tips

POSITION_TOLERANCE = 1e-3  # m
ORIENTATION_TOLERANCE = 1e-2  # rad
# A sample was clamped when a joint is this close to a limit, in units of the joint's range.
_AT_LIMIT = 1e-6


@torch.no_grad()
def validate(
    robot: Robot,
    network: VelocityNetwork,
    poses: int,
    samples: int,
    seed: int,
    collision_free: bool = False,
) -> dict[str, float]:
    """What `measure_samples` says about one-step samples of a network on reachable poses.

    A network that takes partial goals is also asked for each pose without one of its tips, each in
    its turn: position_error_partial [m] and orientation_error_partial [rad] are means over the tips
    that are left, spread_partial [rad] is the spread of the joints that move the other one alone,
    and spread_whole [rad] that of the same joints when all tips are given.

    Args:
        poses: number of poses, of configurations as `draw_configurations` makes them.
        samples: one-step samples per pose, clamped to the limits.
        seed: of poses and noise; the training stream is not touched.
        collision_free: see `draw_configurations`.
    """
    generator = torch.Generator(network.out.weight.device).manual_seed(seed)
    dtype = torch.float32
    lower, upper = robot.limits(dtype, generator.device)
    q_true = draw_configurations(robot, poses, generator, collision_free)
    T_base_tip = robot.forward(q_true)
    noise = torch.randn(
        poses, samples, robot.num_joints, generator=generator, device=generator.device
    )

    def sampled(given: Tensor | None = None) -> np.ndarray:
        condition = network.condition(T_base_tip, robot.workspace_scale, given)
        chunks = zip(noise.split(50), condition.split(50), strict=True)
        x0_hat = torch.cat([network.one_step(*chunk) for chunk in chunks])
        return denormalise_joints(x0_hat.clamp(-1, 1), lower, upper).double().cpu().numpy()

    q = sampled()
    targets = T_base_tip.double().cpu().numpy()
    metrics = measure_samples(
        robot,
        q,
        q_true.double().cpu().numpy(),
        targets,
        POSITION_TOLERANCE,
        ORIENTATION_TOLERANCE,
    )
    if robot.num_tips > 1 and network.takes_partial_goals:
        dropped = torch.arange(poses, device=generator.device) % robot.num_tips
        given = dropped[:, None] != torch.arange(robot.num_tips, device=generator.device)
        partial = sampled(given[..., None].expand(-1, -1, 2))
        metrics |= _measure_partial(robot, q, partial, targets, given.cpu().numpy())
    return metrics


def _measure_partial(
    robot: Robot, q: np.ndarray, partial: np.ndarray, T_base_tip: np.ndarray, given: np.ndarray
) -> dict[str, float]:
    """Accuracy and spread of samples (B, N, J) for goals of which the tips (B, T) are given."""
    position, angle = pose_errors(robot.forward(partial), T_base_tip[:, None])
    joints = [set(group.tolist()) for group in joints_of_tips(robot)]
    spreads = []
    for tip in range(robot.num_tips):
        alone = sorted(joints[tip].difference(*joints[:tip], *joints[tip + 1 :]))
        rows = ~given[:, tip]
        if alone and rows.any():
            spreads.append([x[rows][..., alone].std(1).mean() for x in (partial, q)])
    spread_partial, spread_whole = np.mean(spreads, 0) if spreads else (0.0, 0.0)
    return {
        "position_error_partial": float(position.swapaxes(1, 2)[given].mean()),
        "orientation_error_partial": float(angle.swapaxes(1, 2)[given].mean()),
        "spread_partial": float(spread_partial),
        "spread_whole": float(spread_whole),
    }


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
