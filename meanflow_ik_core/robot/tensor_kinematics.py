# SPDX-License-Identifier: Apache-2.0
"""Forward kinematics and Jacobian of tensors, on any device, with gradients."""

from typing import Any

import numpy as np
import torch
from torch import Tensor


class TensorKinematics:
    """The kinematic tree of a robot as tensors of one dtype and device.

    Args:
        robot: a `Robot`, whose docstring says what its arrays mean.
        dtype: of the tensors.
        device: of the tensors.

    Attributes:
        lower: (J,) rad or m.
        upper: (J,) rad or m.
    """

    @torch.inference_mode(False)  # what is kept must be able to take part in gradients later
    def __init__(self, robot: Any, dtype: torch.dtype, device: torch.device):
        def tensor(array: np.ndarray) -> Tensor:
            return torch.as_tensor(array, dtype=dtype, device=device)

        self.lower, self.upper = tensor(robot.lower), tensor(robot.upper)
        self._parent: list[int] = robot.parent.tolist()
        self._tip_node: list[int] = robot.tip_node.tolist()
        self._is_prismatic: list[bool] = robot.prismatic.tolist()
        self._joint = torch.as_tensor(robot.joint, device=device)
        self._multiplier, self._offset = tensor(robot.multiplier), tensor(robot.offset)
        self._rotation = list(tensor(robot.placement[:, :3, :3]))
        self._translation = list(tensor(robot.placement[:, :3, 3]))
        self._tip_rotation = list(tensor(robot.tip_placement[:, :3, :3]))
        self._tip_translation = list(tensor(robot.tip_placement[:, :3, 3]))
        self._ancestors = tensor(robot.ancestors)
        self._prismatic = torch.as_tensor(robot.prismatic, device=device)
        self._bottom = tensor(np.array([0.0, 0.0, 0.0, 1.0]))  # of a rigid transform
        count = len(robot.parent)
        speed = np.zeros((count, robot.num_joints))  # of each node, per speed of each joint
        speed[np.arange(count), robot.joint] = robot.multiplier
        self._speed = tensor(speed)

    def node_poses(self, q: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Rotations (..., 3, 3) and origins (..., 3) in the base of each of the K nodes."""
        motion = q[..., self._joint] * self._multiplier + self._offset
        cosine, sine = motion.cos().unbind(-1), motion.sin().unbind(-1)
        shift = motion.unbind(-1)
        rotations: list[Tensor] = []
        origins: list[Tensor] = []
        for k, parent in enumerate(self._parent):
            rotation, origin = self._rotation[k], self._translation[k]
            if parent >= 0:
                origin = origins[parent] + rotations[parent] @ origin
                rotation = rotations[parent] @ rotation
            if self._is_prismatic[k]:
                origin = origin + shift[k][..., None] * rotation[..., 2]
                rotation = rotation.expand(*q.shape[:-1], 3, 3)
            else:
                x, y, z = rotation.unbind(-1)
                c, s = cosine[k][..., None], sine[k][..., None]
                turned_x = x * c + y * s
                rotation = torch.stack((turned_x, y * c - x * s, z.expand_as(turned_x)), -1)
                origin = origin.expand_as(turned_x)
            rotations.append(rotation)
            origins.append(origin)
        return rotations, origins

    def forward(self, q: Tensor) -> Tensor:
        """T_base_tip (..., T, 4, 4) of q (..., J)."""
        rotation, position = self._tips(*self.node_poses(q))
        top = torch.cat((rotation, position[..., None]), -1)
        bottom = self._bottom.expand(*top.shape[:-2], 1, 4)
        return torch.cat((top, bottom), -2)

    def jacobian(self, q: Tensor) -> Tensor:
        """(..., T, 6, J), rows linear then angular, in the axes of the base, of q (..., J)."""
        rotations, origins = self.node_poses(q)
        _, tip_position = self._tips(rotations, origins)
        axis = torch.stack([rotation[..., 2] for rotation in rotations], -2)  # (..., K, 3)
        arm = tip_position[..., :, None, :] - torch.stack(origins, -2)[..., None, :, :]
        axes = axis[..., None, :, :].expand_as(arm)  # (..., T, K, 3)
        prismatic = self._prismatic[:, None]
        linear = torch.where(prismatic, axes, torch.linalg.cross(axes, arm))
        angular = torch.where(prismatic, torch.zeros_like(axes), axes)
        columns = torch.cat((linear, angular), -1) * self._ancestors[..., None]
        return columns.transpose(-1, -2) @ self._speed

    def _tips(self, rotations: list[Tensor], origins: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Rotations (..., T, 3, 3) and positions (..., T, 3) of the tips in the base."""
        tips = list(enumerate(self._tip_node))
        rotation = torch.stack([rotations[n] @ self._tip_rotation[i] for i, n in tips], -3)
        position = torch.stack(
            [origins[n] + rotations[n] @ self._tip_translation[i] for i, n in tips], -2
        )
        return rotation, position


def kinematics_of(robot: Any, dtype: torch.dtype, device: torch.device | None) -> TensorKinematics:
    """The kinematics of a robot, made once; device None is the CPU."""
    key = (dtype, device or torch.device("cpu"))
    if key not in robot._on_device:
        robot._on_device[key] = TensorKinematics(robot, *key)
    return robot._on_device[key]


def random_configurations(
    robot: Any, count: int, generator: torch.Generator | int | None, dtype: torch.dtype | None
) -> Tensor:
    """See `Robot.random_configurations`."""
    if isinstance(generator, int):
        generator = torch.Generator().manual_seed(generator)
    device = None if generator is None else generator.device
    dtype = torch.float64 if dtype is None else dtype
    lower, upper = robot.limits(dtype, device)
    unit = torch.rand(count, robot.num_joints, generator=generator, dtype=dtype, device=device)
    return lower + unit * (upper - lower)
