# SPDX-License-Identifier: Apache-2.0
"""The network for trees: targets are a set of tokens, one per tip, any part of which may be left
out."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..geometry import matrix_from_quat_xyzw
from .model import QUATERNION_CONDITION, VelocityNetwork, condition_from_poses
from .sizes import POSE_FEATURES, TokenSizes

TOKEN_CONDITION = QUATERNION_CONDITION + 2  # position and quaternion, then whether each is given


def token_condition_from_poses(
    T_base_tip: Tensor, workspace_scale: float, given: Tensor | None = None
) -> Tensor:
    """Condition (..., 9 T) of the poses (..., T, 4, 4) of all tips.

    Per tip: position / workspace_scale, the unit quaternion x, y, z, w, and 1 or 0 for each of the
    two: whether it is asked for. What is not is replaced by zeros and the unit rotation.

    Args:
        T_base_tip: poses; those of tips that are not given may hold anything.
        workspace_scale: m.
        given: bool, broadcast to (..., T, 2), columns position and orientation; None: everything.
    """
    batch = T_base_tip.shape[:-2]
    if given is None:
        given = torch.ones(2, dtype=torch.bool, device=T_base_tip.device)
    given = given.expand(*batch, 2)
    eye = torch.eye(4, dtype=T_base_tip.dtype, device=T_base_tip.device)
    columns = torch.cat((given[..., 1:].expand(*batch, 3), given[..., :1]), -1)
    poses = torch.where(columns[..., None, :], T_base_tip, eye)
    pose = condition_from_poses(poses, workspace_scale).unflatten(-1, (-1, QUATERNION_CONDITION))
    return torch.cat((pose, given.to(pose.dtype)), -1).flatten(-2)


class TokenNetwork(VelocityNetwork):
    """Network whose targets are a set of tokens that attend to one another.

    Every tip has linear maps of its own for the position and for the rotation matrix, learned
    vectors that stand in for what is not given, and a bias that tells who it is; in that it knows
    the tips by their order. A small transformer encoder runs over the T tokens once per pose.

    Args:
        sizes, named: those of `TokenSizes`, by position or by name; the condition has 9 T entries,
            see `token_condition_from_poses`.

    Raises:
        OptionError: a size is not a positive integer, or num_heads does not divide token_dim.
    """

    kind = TokenSizes.kind

    def __init__(self, *sizes: int, **named: int):
        self.sizes: TokenSizes
        super().__init__(TokenSizes(*sizes, **named))

    def _add_targets(self) -> None:
        num_tips, width = self.num_tips, self.sizes.token_dim
        self.pose_weight = nn.Parameter(torch.empty(num_tips, POSE_FEATURES, width))
        # Added to a token: what stands for a position or an orientation that is left out, and
        # which tip the token is of.
        self.absent = nn.Parameter(torch.empty(num_tips, 2, width))
        self.identity = nn.Parameter(torch.empty(num_tips, width))
        for parameter in (self.pose_weight, self.absent, self.identity):
            nn.init.uniform_(parameter, -(POSE_FEATURES**-0.5), POSE_FEATURES**-0.5)
        self.token_blocks = nn.ModuleList(
            _TokenBlock(width, self.sizes.num_heads) for _ in range(self.sizes.token_depth)
        )
        self.token_out = nn.Linear(num_tips * width, self.sizes.context_dim)

    @staticmethod
    def condition(
        T_base_tip: Tensor, workspace_scale: float, given: Tensor | None = None
    ) -> Tensor:
        return token_condition_from_poses(T_base_tip, workspace_scale, given)

    def _pose_features(self, condition: Tensor) -> Tensor:
        token = condition.unflatten(-1, (self.num_tips, TOKEN_CONDITION))
        rotation = matrix_from_quat_xyzw(token[..., 3:QUATERNION_CONDITION]).flatten(-2)
        given = token[..., QUATERNION_CONDITION:] > 0.5
        # Not a product: what is not given may be NaN, and NaN times 0 is NaN.
        pose = torch.cat(
            (
                torch.where(given[..., :1], token[..., :3], 0.0),
                torch.where(given[..., 1:], rotation, 0.0),
            ),
            -1,
        )
        return self.encode(torch.cat((pose, 1 - given.to(pose.dtype)), -1))

    def encode(self, features: Tensor) -> Tensor:
        """What the encoder makes of position / scale, rotation matrix, and 1 for each that is left
        out, (B, T, 14), with zeros for what is left out."""
        weight = torch.cat((self.pose_weight, self.absent), 1)
        tokens = torch.einsum("btf,tfd->btd", features, weight) + self.identity
        for block in self.token_blocks:
            tokens = block(tokens)
        return self.token_out(tokens.flatten(-2))


class _TokenBlock(nn.Module):
    """x + attention(layer_norm(x)), then x + W2 silu(W1 layer_norm(x)).

    The softmax is written out: with a handful of tokens it costs nothing, and every kind of
    derivative goes through it.
    """

    def __init__(self, token_dim: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.query_key_value = nn.Linear(token_dim, 3 * token_dim)
        self.joined = nn.Linear(token_dim, token_dim)
        self.first = nn.Linear(token_dim, 2 * token_dim)
        self.second = nn.Linear(2 * token_dim, token_dim)

    def forward(self, tokens: Tensor) -> Tensor:
        width = tokens.shape[-1:]
        heads = self.query_key_value(F.layer_norm(tokens, width))
        # (B, 3, heads, T, D / heads)
        heads = heads.unflatten(-1, (3, self.num_heads, -1)).permute(0, 2, 3, 1, 4)
        query, key, value = heads.unbind(1)
        score = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        mixed = (score.softmax(-1) @ value).transpose(1, 2).flatten(-2)
        tokens = tokens + self.joined(mixed)
        return tokens + self.second(F.silu(self.first(F.layer_norm(tokens, width))))
