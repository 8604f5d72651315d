# SPDX-License-Identifier: Apache-2.0
"""What the solver is asked: the form that every kind of request for solutions takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from geometry_msgs.msg import PoseStamped

from meanflow_ik_ros.messages.task import COMPLETE, Task

if TYPE_CHECKING:
    from meanflow_ik_core.world.scene import Scene
    from meanflow_ik_core.world.world import World


@dataclass(frozen=True, eq=False)
class IKQuery:
    """A request that has passed every check.

    targets: (B, T, 4, 4) T_base_tip in the robot's own order of tips.
    T_tip_link: (T, 4, 4) the links that were asked for, seen from the robot's tips.
    seed_state: (J,) within the limits.
    approximate: whether the nearest configuration is an answer where there is no solution.
    world: that solutions must not touch; None: none.
    poses: the targets as they came, in their order; empty where they came in an array.
    """

    targets: np.ndarray
    T_tip_link: np.ndarray
    seed_state: np.ndarray
    num_samples: int
    max_solutions: int
    avoid_self_collision: bool
    task: Task = COMPLETE
    approximate: bool = False
    world: World | Scene | None = None
    poses: tuple[PoseStamped, ...] = ()

    @property
    def stamp(self) -> Any:
        """The stamp of the first pose, which answers carry."""
        return self.poses[0].header.stamp
