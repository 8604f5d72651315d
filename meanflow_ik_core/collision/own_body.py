# SPDX-License-Identifier: Apache-2.0
"""Which points lie on the robot itself, as a camera sees it."""

from dataclasses import replace

import numpy as np

from .sphere_bodies import find_bodies, find_homes, fitted_obstacle
from .world_check import WorldCheck


class OwnBody:
    """Spheres of all links of a robot, also of those that never move, and of what is attached."""

    def __init__(self, check: WorldCheck):
        """Find the spheres, or take those found before.

        Args:
            check: of the robot and what is attached to it.

        Raises:
            RobotError: a collision shape has no surface.
        """
        self._robot = robot = check.robot
        bodies = find_bodies(robot, check.own, set(check.own.shapes.links))
        node, centre, radius = [bodies.node], [bodies.centre], [bodies.radius]
        carried = [one for one in check.obstacles if one.link is not None]
        if carried:
            q = robot.random_configurations(3, np.random.default_rng(0))
            links = check.own.kinematics.link_poses(q, [one.link or "" for one in carried])
            homes = find_homes(robot, q, links)
            for one, (home, T_node_link) in zip(carried, homes, strict=True):
                spheres, _ = fitted_obstacle(replace(one, pose=T_node_link @ one.pose))
                node.append(np.full(len(spheres.radius), home))
                centre.append(spheres.centre)
                radius.append(spheres.radius)
        self._node, self._centre = np.concatenate(node), np.concatenate(centre)
        self._radius = np.concatenate(radius)

    def covers(self, q: np.ndarray, points: np.ndarray, margin: float) -> np.ndarray:
        """(N,) bool of points (N, 3) in the base [m]: nearer than a margin [m] in q (J,)."""
        nodes = self._robot.arrays.node_poses(q[None])[0]
        # The node -1 is the base, which stands last.
        T_base_node = np.concatenate((nodes, np.eye(4)[None]))[self._node]
        middle = (T_base_node[:, :3, :3] @ self._centre[..., None])[..., 0] + T_base_node[:, :3, 3]
        covered = np.zeros(len(points), bool)
        for centre, reach in zip(middle, self._radius + margin, strict=True):
            offset = points - centre
            covered |= np.einsum("ij,ij->i", offset, offset) < reach * reach
        return covered
