# SPDX-License-Identifier: Apache-2.0
"""Terms of the loss of the average-velocity network, as functions of tensors.

Symbols: x0 data, x1 noise, z_t = (1 - t) x0 + t x1, v = x1 - x0, r <= t, u the average velocity.
"MeanFlow": Geng et al. 2025, "Mean Flows for One-step Generative Modeling", equation numbers of
that paper. "Improved MeanFlow": Geng et al. 2025, "Improved Mean Flows".
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.func import functional_call, jvp

from ..errors import OptionError
from ..evaluation.distribution import BANDWIDTHS
from ..network.model import VelocityNetwork, denormalise_joints, normalise_joints
from ..robot.robot import Robot
from .config import JVP_TANGENTS, TANGENT_VELOCITIES

Velocity = Callable[[Tensor, Tensor, Tensor], Tensor]  # (z (B, J), r (B,), t (B,)) -> u (B, J)

DAMPING = 1e-2
MAX_STEP = 0.5  # rad or m


def velocity_of(network: VelocityNetwork, condition: Tensor) -> Velocity:
    """The network's u as a function of (z, r, t) for fixed conditions (B, C)."""
    state = {**dict(network.named_parameters()), **dict(network.named_buffers())}

    def velocity(z: Tensor, r: Tensor, t: Tensor) -> Tensor:
        return functional_call(network, state, (z, r, t, condition))[0]

    return velocity


def interpolate(x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
    """z_t (B, J) on the straight path from data (t = 0) to noise (t = 1)."""
    return torch.lerp(x0, x1, t[:, None])


def sample_times(
    count: int, flow_share: float, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Times 0 <= r <= t < 1, uniform and sorted; the last flow_share of the rows has r = t.

    Returns:
        r (count,), t (count,).
    """
    device = None if generator is None else generator.device
    pair = torch.rand(count, 2, generator=generator, device=device)
    r, t = pair.amin(-1), pair.amax(-1)
    # Rows that are plain flow matching have a uniform t, not the larger of two.
    rows = slice(gap_rows(count, flow_share), None)
    t[rows] = pair[rows, 0]
    r[rows] = t[rows]
    return r, t


def gap_rows(count: int, flow_share: float) -> int:
    """How many rows of `sample_times` have r < t; they come first."""
    return count - round(flow_share * count)


def average_velocity_target(
    velocity: Velocity,
    z: Tensor,
    r: Tensor,
    t: Tensor,
    v: Tensor,
    jvp_tangent: str = "total",
    tangent_velocity: str = "sample",
) -> Tensor:
    """What u(z, r, t) must equal for the MeanFlow identity to hold; carries no gradient.

    total: v - (t - r) (w . d_z u + d_t u), MeanFlow eq. 10, with w = v, or with w = u(z, t, t),
    the network's own velocity, as in improved MeanFlow. partial: v - (t - r) d_t u, which leaves
    out how z moves; it is not the identity, and is here to reproduce what it does.

    Args:
        velocity: u(z, r, t).
        z: (B, J), r: (B,), t: (B,), v: (B, J).
        jvp_tangent: "total" | "partial".
        tangent_velocity: "sample" | "network".

    Returns:
        (B, J).

    Raises:
        OptionError: an option has a value that does not exist.
    """
    if jvp_tangent not in JVP_TANGENTS or tangent_velocity not in TANGENT_VELOCITIES:
        raise OptionError(
            f"jvp_tangent is {jvp_tangent!r} and tangent_velocity is {tangent_velocity!r}; "
            f"they must be one of {JVP_TANGENTS} and of {TANGENT_VELOCITIES}"
        )
    with torch.no_grad():
        if jvp_tangent == "partial":
            z_tangent = torch.zeros_like(z)
        elif tangent_velocity == "network":
            z_tangent = velocity(z, t, t).to(z.dtype)
        else:
            z_tangent = v
        tangents = (z_tangent, torch.zeros_like(r), torch.ones_like(t))
        du_dt = jvp(velocity, (z, r, t), tangents)[1]
        return v - (t - r)[:, None] * du_dt.to(z.dtype)


def weighted_squared_error(
    u: Tensor, target: Tensor, power: float = 0.0, epsilon: float = 1e-2
) -> Tensor:
    """Squared error of each row, divided by stop_grad(error + epsilon)^power (MeanFlow eq. 22).

    Returns:
        (B,); mean over J, so that power = 0 gives the rows of the ordinary mean squared error.
    """
    square = (u.to(target.dtype) - target).square()
    if power == 0:
        return square.mean(-1)
    return square.mean(-1) / (square.detach().sum(-1) + epsilon) ** power


def dispersive_loss(features: Tensor, tau: float = 0.5, normalise: bool = True) -> Tensor:
    """log of the mean over pairs of exp(-d^2 / tau): small when features lie far apart.

    With ``normalise`` d^2 is divided by the feature dimension. Without it, and with the 1e-8 that
    the plain form adds inside the log, every exponential of wide features underflows and the
    gradient is exactly zero.

    Args:
        features: (B, D), B >= 2.

    Returns:
        scalar.
    """
    count, width = features.shape
    features = features.float()
    norm = features.square().sum(-1)
    square_distance = (norm[:, None] + norm[None, :] - 2 * features @ features.T).clamp_min(0)
    other = ~torch.eye(count, dtype=torch.bool, device=features.device)
    if not normalise:
        kernel = torch.exp(-square_distance / tau) * other
        return torch.log(kernel.sum() / (count * (count - 1)) + 1e-8)
    exponent = (-square_distance / (tau * width)).masked_fill(~other, -torch.inf)
    pairs = features.new_full((), count * (count - 1))
    return torch.logsumexp(exponent.flatten(), 0) - pairs.log()


def damped_step(
    robot: Robot,
    q: Tensor,
    targets: Tensor,
    damping: float = DAMPING,
    max_step: float = MAX_STEP,
    given: Tensor | None = None,
) -> Tensor:
    """One damped least-squares step of joints towards target poses, kept within the limits.

    dq = J^T (J J^T + damping (|e|^2 + 1e-3) I)^-1 e, shortened to at most max_step per joint.

    Args:
        robot: whose kinematics and limits.
        q: (B, J) rad or m.
        targets: (B, T, 4, 4).
        damping: factor of the squared error, in which m^2 and rad^2 weigh the same.
        max_step: rad or m.
        given: bool (B, T, 2), positions and orientations that count; None: all.

    Returns:
        (B, J).
    """
    poses = robot.forward(q)
    jacobian = robot.jacobian(q).flatten(1, 2)
    turn = targets[..., :3, :3] @ poses[..., :3, :3].transpose(-1, -2)
    shift = targets[..., :3, 3] - poses[..., :3, 3]
    error = torch.cat((shift, rotation_vector(turn)), -1).flatten(1)
    if given is not None:
        rows = given.repeat_interleave(3, -1).flatten(1)
        error = torch.where(rows, error, 0.0)
        jacobian = torch.where(rows[..., None], jacobian, 0.0)
    scale = damping * (error.square().sum(-1) + 1e-3)
    eye = torch.eye(error.shape[-1], dtype=q.dtype, device=q.device)
    gram = jacobian @ jacobian.transpose(-1, -2) + scale[:, None, None] * eye
    solution = torch.cholesky_solve(error[..., None], torch.linalg.cholesky(gram))
    step = (jacobian.transpose(-1, -2) @ solution).squeeze(-1)
    step = step * (max_step / step.abs().amax(-1, keepdim=True).clamp_min(1e-9)).clamp_max(1)
    lower, upper = robot.limits(q.dtype, q.device)
    return torch.minimum(torch.maximum(q + step, lower), upper)


def rotation_vector(rotation: Tensor) -> Tensor:
    """Axis times angle (..., 3) of rotation matrices, except at exactly pi, where it is zero."""
    vee = 0.5 * torch.stack(
        (
            rotation[..., 2, 1] - rotation[..., 1, 2],
            rotation[..., 0, 2] - rotation[..., 2, 0],
            rotation[..., 1, 0] - rotation[..., 0, 1],
        ),
        -1,
    )
    sine = vee.norm(dim=-1, keepdim=True)
    cosine = 0.5 * (rotation.diagonal(dim1=-2, dim2=-1).sum(-1, keepdim=True) - 1)
    return vee * torch.where(sine > 1e-6, torch.atan2(sine, cosine) / sine.clamp_min(1e-6), 1.0)


def refinement_loss(
    robot: Robot,
    x0_hat: Tensor,
    targets: Tensor,
    steps: int = 1,
    power: float = 0.0,
    epsilon: float = 1e-5,
    given: Tensor | None = None,
    groups: Sequence[Tensor] | None = None,
) -> Tensor:
    """Mean of |x0_hat - stop_grad(refined x0_hat)|^2: Gauss-Newton form of the pose error.

    Args:
        x0_hat: (B, J) normalised one-step estimates.
        targets: (B, T, 4, 4).
        steps: damped steps that make the refined estimate.
        power, epsilon: see `weighted_squared_error`.
        given: bool (B, T, 2), what of the targets counts; None: all.
        groups: indices of joints whose error is weighted by itself; their terms are added. None:
            one group of all joints.

    Returns:
        scalar.
    """
    lower, upper = robot.limits(x0_hat.dtype, x0_hat.device)
    with torch.no_grad():
        q = denormalise_joints(x0_hat, lower, upper)
        for _ in range(steps):
            q = damped_step(robot, q, targets, given=given)
        refined = normalise_joints(q, lower, upper)
    if groups is None:
        return weighted_squared_error(x0_hat, refined, power, epsilon).mean()
    terms = [
        weighted_squared_error(x0_hat[:, group], refined[:, group], power, epsilon).mean()
        for group in groups
    ]
    return torch.stack(terms).sum()


def energy_score(x0_hat: Tensor, x0: Tensor, power: float = 1.0) -> Tensor:
    """Mean over poses of E|X - x0|^p - E|X - X'|^p / 2, without bias from N samples each.

    A strictly proper scoring rule for 0 < p < 2 (Gneiting & Raftery 2007): over poses and the one
    known solution of each, its mean is smallest for the generator whose samples are the posterior,
    although no pose ever shows more than one of its solutions. The second term keeps samples apart.

    Args:
        x0_hat: (B, N, J) one-step estimates, N >= 2.
        x0: (B, J) the joints that the poses come from.
        power: p.

    Returns:
        scalar.
    """
    return _score(x0_hat, x0, lambda square: (square + 1e-6) ** (0.5 * power))


def kernel_score(x0_hat: Tensor, x0: Tensor) -> Tensor:
    """Mean over poses of E k(X, X') / 2 - E k(X, x0), k the kernel of `mmd_squared`.

    The same rule with distances that saturate; its minimum is that of the squared maximum mean
    discrepancy. Arguments as of `energy_score`, in rad.
    """

    def dissimilarity(square: Tensor) -> Tensor:
        return -torch.stack([(square / (-2 * width**2)).exp() for width in BANDWIDTHS]).mean(0)

    return _score(x0_hat, x0, dissimilarity)


def _score(x0_hat: Tensor, x0: Tensor, of_square: Callable[[Tensor], Tensor]) -> Tensor:
    """E d(X, x0) - E d(X, X') / 2 of a dissimilarity d that is given the squared distance."""
    count = x0_hat.shape[1]
    to_data = of_square((x0_hat - x0[:, None]).square().sum(-1)).mean()
    pairs = of_square((x0_hat[:, :, None] - x0_hat[:, None]).square().sum(-1))
    apart = pairs.sum((1, 2)) - pairs.diagonal(dim1=1, dim2=2).sum(1)
    return to_data - apart.mean() / (2 * count * (count - 1))
