# SPDX-License-Identifier: Apache-2.0
"""Forward kinematics and Jacobian of arrays, compiled."""

from typing import Any

import numpy as np

from ..kernels.kinematics import frame_poses, tip_jacobians
from ..kernels.layout import (
    CARRIER,
    FIRST_NODE,
    FURTHER_NODE,
    ORIENTATION_MEASURE,
    ORIENTATION_ROW,
    PLAIN,
    POSITION_MEASURE,
    POSITION_ROW,
    UNMOVED,
)


class ArrayKinematics:
    """The kinematic tree of a robot as the arrays that kernels read, see `kernels.layout`.

    Args:
        robot: a `Robot`, whose docstring says what its arrays mean.

    Attributes:
        nodes, node_numbers: of the K nodes.
        columns: (T, K), what each node does to each tip.
    """

    def __init__(self, robot: Any):
        count, tips = len(robot.parent), robot.num_tips
        rotation = robot.placement[:, :3, :3]
        off_axis = rotation[:, [0, 0, 1, 2], [1, 2, 0, 0]]
        about_x = (np.abs(off_axis) < 1e-15).all(1) & (rotation[:, 0, 0] > 0)
        self.nodes = np.stack((robot.parent + 1, robot.joint, robot.prismatic, about_x), 1)
        self.node_numbers = np.column_stack(
            (robot.placement[:, :3].reshape(count, 12), robot.multiplier, robot.offset)
        )
        self.columns = np.where(robot.ancestors, FIRST_NODE, UNMOVED)
        for t, k in np.argwhere(self.columns):
            if self.columns[t, :k][robot.joint[:k] == robot.joint[k]].any():
                self.columns[t, k] = FURTHER_NODE
        self._carrier = np.array(robot.tip_node + 1, np.int64)
        self._placement = np.ascontiguousarray(robot.tip_placement[:, :3].reshape(tips, 12))
        self._tips = np.zeros((tips, 6), np.int64)
        self._tips[:, CARRIER] = self._carrier
        self._tips[:, POSITION_ROW] = 6 * np.arange(tips)
        self._tips[:, ORIENTATION_ROW] = 6 * np.arange(tips) + 3
        self._tips[:, [POSITION_MEASURE, ORIENTATION_MEASURE]] = PLAIN
        self._tip_numbers = np.column_stack((self._placement, np.ones((tips, 2))))

    def forward(self, q: np.ndarray) -> np.ndarray:
        """T_base_tip (N, T, 4, 4) of q (N, J)."""
        return frame_poses(q, self.nodes, self.node_numbers, self._carrier, self._placement)

    def jacobian(self, q: np.ndarray) -> np.ndarray:
        """(N, T, 6, J), rows linear then angular, in the axes of the base, of q (N, J)."""
        return tip_jacobians(
            q, self.nodes, self.node_numbers, self.columns, self._tips, self._tip_numbers
        )

    def node_poses(self, q: np.ndarray) -> np.ndarray:
        """T_base_node (N, K, 4, 4) of q (N, J)."""
        carrier = np.arange(1, len(self.nodes) + 1)
        placement = np.tile(np.eye(3, 4).ravel(), (len(carrier), 1))
        return frame_poses(q, self.nodes, self.node_numbers, carrier, placement)
