# SPDX-License-Identifier: Apache-2.0
"""The average-velocity network and the numbers that it sees: joints in [-1, 1] and conditions.

Symbols as in Geng et al. 2025 ("Mean Flows for One-step Generative Modeling"): x0 data, x1 noise,
z_t = (1 - t) x0 + t x1, and u(z, r, t, condition) the average velocity between r and t, so that
z_r = z_t - (t - r) u.
"""

import math
from dataclasses import asdict
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..geometry import matrix_from_quat_xyzw, quat_xyzw_from_matrix
from .sizes import POSE_FEATURES, TIME_DIM, TIME_FREQUENCIES, MlpSizes, NetworkSizes

QUATERNION_CONDITION = 7  # position / workspace_scale (3), quat_xyzw (4), per tip


def normalise_joints(q: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Joints (..., J) in rad or m to [-1, 1] by their limits (J,)."""
    return 2 * (q - lower) / (upper - lower) - 1


def denormalise_joints(x0: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Inverse of `normalise_joints`; values beyond [-1, 1] give joints beyond their limits."""
    return lower + 0.5 * (x0 + 1) * (upper - lower)


def condition_from_poses(T_base_tip: Tensor, workspace_scale: float) -> Tensor:
    """Network condition (..., 7 T) of the poses (..., T, 4, 4) of all tips.

    Per tip: position / workspace_scale, then the unit quaternion x, y, z, w.
    """
    quat_xyzw = quat_xyzw_from_matrix(T_base_tip[..., :3, :3])
    return torch.cat((T_base_tip[..., :3, 3] / workspace_scale, quat_xyzw), -1).flatten(-2)


class VelocityNetwork(nn.Module):
    """Residual MLP on z, scaled and shifted in every block by a context of targets and times.

    The input layer is a sum of linear maps of z and of the context, which is the same as one
    linear map of their concatenation. The context does not depend on z, so that N samples of one
    pose pay for it once (`one_step`). A leaf says how targets become a context.
    """

    kind: ClassVar[str]  # that of its sizes
    frequencies: Tensor  # (F,) rad

    def __init__(self, sizes: NetworkSizes):
        super().__init__()
        self.sizes = sizes
        self.num_joints, self.num_tips = sizes.num_joints, sizes.num_tips
        # The order of the layers is that of their parameters in the states of optimizers.
        self._add_times()
        self._add_targets()
        self._add_trunk()

    @property
    def takes_partial_goals(self) -> bool:
        """Or the network needs the position and the orientation of every tip."""
        return self.sizes.takes_partial_goals

    @property
    def config(self) -> dict[str, int]:
        """Arguments that make this network again."""
        return asdict(self.sizes)

    def arrays(self) -> dict[str, np.ndarray]:
        """All weights, float32, see `NetworkSizes.shapes`."""
        state = self.state_dict()
        return {name: weight.detach().float().cpu().numpy() for name, weight in state.items()}

    @staticmethod
    def condition(
        T_base_tip: Tensor, workspace_scale: float, given: Tensor | None = None
    ) -> Tensor:
        """What `forward` wants to know of target poses.

        Args:
            T_base_tip: (..., T, 4, 4).
            workspace_scale: m, of the robot.
            given: bool, broadcast to (..., T, 2): whether the position and the orientation of a tip
                are asked for; None: all of them.

        Raises:
            OptionError: the network needs all tips, and not all are given.
        """
        raise NotImplementedError

    def forward(self, z: Tensor, r: Tensor, t: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Average velocity between times r and t.

        Args:
            z: (B, J) point of the path at time t.
            r: (B,) earlier time, 0 is data.
            t: (B,) later time, 1 is noise.
            condition: (B, C), see `condition`.

        Returns:
            u (B, J), and the features (B, hidden_dim) of block depth // 2.
        """
        return self._trunk(z, self.context(r, t, condition))

    def one_step(self, z: Tensor, condition: Tensor) -> Tensor:
        """x0_hat = z - u(z, 0, 1, condition) for N noises of each of B poses, in one call.

        Args:
            z: (B, N, J) Gaussian noise.
            condition: (B, C).

        Returns:
            (B, N, J) normalised joints.
        """
        times = torch.zeros_like(condition[:, 0]), torch.ones_like(condition[:, 0])
        context = self.context(*times, condition)
        return z - self._trunk(z, context[:, None])[0]

    def _pose_features(self, condition: Tensor) -> Tensor:
        """(B, context_dim) of the targets alone."""
        raise NotImplementedError

    def _add_targets(self) -> None:
        """The layers that turn targets into the context's input."""
        raise NotImplementedError

    def _add_times(self) -> None:
        # Slow waves only: the target of the MeanFlow loss holds the derivative in t, which with 8
        # periods in [0, 1] grows without bound after some 8 M samples.
        frequencies = math.pi * torch.logspace(-2, 1, TIME_FREQUENCIES, base=2.0)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.time_mlp = nn.Sequential(
            nn.Linear(2 * TIME_FREQUENCIES, TIME_DIM), nn.SiLU(), nn.Linear(TIME_DIM, TIME_DIM)
        )
        self.time_in = nn.Linear(2 * TIME_DIM, self.sizes.context_dim)

    def _add_trunk(self) -> None:
        sizes, hidden, context = self.sizes, self.sizes.hidden_dim, self.sizes.context_dim
        self.feature_block = sizes.depth // 2
        self.context_mlp = nn.Linear(context, context)
        self.context_blocks = nn.ModuleList(
            _ContextBlock(context) for _ in range(sizes.context_depth)
        )
        self.z_in = nn.Linear(sizes.num_joints, hidden)
        self.context_in = nn.Linear(context, hidden, bias=False)
        self.blocks = nn.ModuleList(_Block(hidden, context) for _ in range(sizes.depth))
        self.out = nn.Linear(hidden, sizes.num_joints)
        # With u = 0 the loss begins at E|v|^2, whatever the width and depth.
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def _times(self, r: Tensor, t: Tensor) -> Tensor:
        phase = torch.stack((t, t - r), -1)[..., None] * self.frequencies
        return self.time_in(self.time_mlp(torch.cat((phase.sin(), phase.cos()), -1)).flatten(-2))

    def context(self, r: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """(B, context_dim) of times (B,) and conditions (B, C), which does not depend on z."""
        hidden = F.silu(self._pose_features(condition) + self._times(r, t))
        context = F.silu(self.context_mlp(hidden))
        for block in self.context_blocks:
            context = block(context)
        return context

    def _trunk(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.z_in(z) + self.context_in(context)
        features = hidden
        for index, block in enumerate(self.blocks):
            hidden = block(hidden, context)
            if index == self.feature_block:
                features = hidden
        return self.out(F.silu(hidden)), features


class MeanFlowNetwork(VelocityNetwork):
    """Network whose targets are one vector, the poses of all tips side by side.

    Args:
        sizes, named: those of `MlpSizes`, by position or by name; the condition has 7 T entries,
            see `condition_from_poses`.

    Raises:
        OptionError: a size is not a positive integer.
    """

    kind = MlpSizes.kind

    def __init__(self, *sizes: int, **named: int):
        super().__init__(MlpSizes(*sizes, **named))

    def _add_targets(self) -> None:
        self.pose_in = nn.Linear(POSE_FEATURES * self.num_tips, self.sizes.context_dim)

    @staticmethod
    def condition(
        T_base_tip: Tensor, workspace_scale: float, given: Tensor | None = None
    ) -> Tensor:
        MlpSizes.check_given(given)
        return condition_from_poses(T_base_tip, workspace_scale)

    def _pose_features(self, condition: Tensor) -> Tensor:
        pose = condition.unflatten(-1, (self.num_tips, QUATERNION_CONDITION))
        # A quaternion and its negative have the same matrix, and so the same answer.
        rotation = matrix_from_quat_xyzw(pose[..., 3:]).flatten(-2)
        return self.pose_in(torch.cat((pose[..., :3], rotation), -1).flatten(-2))


class _ContextBlock(nn.Module):
    """c + W2 silu(W1 layer_norm(c))."""

    def __init__(self, context_dim: int):
        super().__init__()
        self.first = nn.Linear(context_dim, context_dim)
        self.second = nn.Linear(context_dim, context_dim)

    def forward(self, context: Tensor) -> Tensor:
        normed = F.layer_norm(context, context.shape[-1:])
        return context + self.second(F.silu(self.first(normed)))


class _Block(nn.Module):
    """h + W2 silu(W1 (layer_norm(h) (1 + scale) + shift)), scale and shift from the context."""

    def __init__(self, hidden_dim: int, context_dim: int):
        super().__init__()
        self.first = nn.Linear(hidden_dim, hidden_dim)
        self.second = nn.Linear(hidden_dim, hidden_dim)
        self.modulation = nn.Linear(context_dim, 2 * hidden_dim)

    def forward(self, hidden: Tensor, context: Tensor) -> Tensor:
        scale, shift = self.modulation(context).chunk(2, -1)
        normed = F.layer_norm(hidden, hidden.shape[-1:])
        return hidden + self.second(F.silu(self.first(normed * (1 + scale) + shift)))
