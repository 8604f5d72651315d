# SPDX-License-Identifier: Apache-2.0
"""What a search knows of the world: what touches, how far the rest is, and the ways out."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ..collision.sphere_bodies import lanes_of_motion
from ..collision.world_distance import WorldDistance
from ..kernels.null_space import project_on_null_space
from ..robot.robot import Robot
from ..world.scene import GRAZE, Scene
from .result import IKResult

FARTHEST = 0.03  # m, up to where distances are looked at
_CLEAR = 0.005  # m, where it is pushed to
_LONGEST_PUSH = 0.7  # rad or m, of the joint that moves most
PUSHES = np.array([0.7, 1.0, 1.5, 2.5])  # how far, as shares of what the gradient promises
_STEPS = (0.03, 0.6)  # rad or m, least and longest step from a free solution


@dataclass(frozen=True)
class WorldGuide:
    """What a search knows of the world, and of the robot itself where that is asked."""

    scene: Scene
    robot: Robot  # the scene's, with the frames that the goal is for as its tips
    avoid_self_collision: bool
    asked: np.ndarray | None  # (T, 6) bool, as in a `Goal`

    @cached_property
    def fixed(self) -> frozenset[str]:
        """Links and attached obstacles that stand where a complete goal puts them."""
        return self.scene.structure.rigid_to(tuple(np.flatnonzero(self._axes.all(1)).tolist()))

    @cached_property
    def distances(self) -> WorldDistance:
        """Of what the joints can still move where the goal is reached."""
        return self.scene.distances(self.fixed)

    @cached_property
    def _axes(self) -> np.ndarray:
        asked = np.ones((self.robot.num_tips, 6), bool) if self.asked is None else self.asked
        return np.ascontiguousarray(asked, np.bool_)

    def in_collision(self, q: np.ndarray) -> np.ndarray:
        return self.scene.in_collision(q, self.avoid_self_collision, GRAZE)

    def gaps(self, q: np.ndarray, of_links: bool) -> tuple[np.ndarray, np.ndarray]:
        """(N,) to obstacles and (N,) between links where that is asked, up to the farthest."""
        gap = self.distances.of(q, FARTHEST)[0][:, 0]
        own = np.full(len(q), FARTHEST)
        if of_links and self.avoid_self_collision:
            own = np.minimum(self.scene.own_clearance.distance(q, FARTHEST), FARTHEST)
        return gap, own

    def pushed(self, q: np.ndarray, T_base_tip: np.ndarray) -> np.ndarray:
        """Starts (N, P, J) from near misses q (N, J), away from what is nearest."""
        gap, slope = self.distances.of(q, FARTHEST, gradient=True)
        direction = self._within_null_space(slope[:, 0], q, T_base_tip)
        square = (direction * direction).sum(-1)
        length = (_CLEAR - gap[:, 0]) / np.maximum(square, 1e-6)
        longest = np.abs(direction).max(-1) * length
        length *= np.minimum(1.0, _LONGEST_PUSH / np.maximum(longest, 1e-9) / PUSHES[-1])
        steps = direction * length[:, None]
        return self._clipped(q[:, None] + steps[:, None] * PUSHES[:, None])

    def spread(self, q: np.ndarray, T_base_tip: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Starts (N, J) by random steps in the null spaces of q (N, J)."""
        direction = self._within_null_space(rng.normal(size=q.shape), q, T_base_tip)
        longest = np.abs(direction).max(-1, keepdims=True)
        length = np.exp(rng.uniform(np.log(_STEPS[0]), np.log(_STEPS[1]), (len(q), 1)))
        return self._clipped(q + direction / np.maximum(longest, 1e-9) * length)

    def ways(self, q: np.ndarray, T_base_tip: np.ndarray) -> np.ndarray:
        """(N, J) directions in the null spaces of q (N, J), whose largest joint moves by 1."""
        along = np.linalg.eigh(np.cov(q.T))[1][:, -1]
        direction = self._within_null_space(np.tile(along, (len(q), 1)), q, T_base_tip)
        return direction / np.maximum(np.abs(direction).max(-1, keepdims=True), 1e-9)

    def completed(self, result: IKResult) -> IKResult:
        """The result with what is known of the world."""
        return replace(
            result, scene=self.scene, avoids_self_collision=self.avoid_self_collision,
            spheres=self.scene.own_clearance if self.avoid_self_collision else None,
        )  # fmt: skip

    def _within_null_space(
        self, directions: np.ndarray, q: np.ndarray, T_base_tip: np.ndarray
    ) -> np.ndarray:
        robot = self.robot
        found = np.ascontiguousarray(directions)
        project_on_null_space(
            found, lanes_of_motion(robot, q), robot.parent, robot.prismatic, robot.placement,
            robot.joint, robot.multiplier, robot.tip_node, robot.tip_placement, self._axes,
            np.ascontiguousarray(T_base_tip[:, :3, :3]),
        )  # fmt: skip
        return found

    def _clipped(self, q: np.ndarray) -> np.ndarray:
        robot = self.robot
        inside = np.clip(q, robot.lower, robot.upper)
        return np.where(robot.continuous, q, inside)
