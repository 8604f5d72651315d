# SPDX-License-Identifier: Apache-2.0
"""Random configurations to learn from and to be judged on."""

import math

import torch
from torch import Tensor

from ..collision.clearance import SphereModel
from ..collision.self_collision import SelfCollision
from ..errors import RobotError
from ..robot.robot import Robot, kept_with_robot

# Spheres follow a shape to a few millimetres, but not its convex hull; what they call closer than
# this is taken for touching, all else is checked exactly, which costs several times as much.
_SURELY_TOUCHING = -0.01  # m
_PROBES = 2048
_LEAST_SHARE = 1e-2


def draw_configurations(
    robot: Robot,
    count: int,
    generator: torch.Generator,
    collision_free: bool = False,
    exact: bool = True,
) -> Tensor:
    """(count, J) float32, uniform within the limits, or among those that do not touch themselves.

    Args:
        robot: whose joints are drawn.
        count: how many configurations.
        generator: the only source of randomness.
        collision_free: draw those alone that do not touch themselves.
        exact: check them exactly. False: on spheres alone, which is right for some 96 of 100 (see
            `SphereModel`) and takes a third of the time: enough to learn from, not to judge by.

    Raises:
        RobotError: nearly every configuration of the robot touches itself.
    """
    if not collision_free:
        return robot.random_configurations(count, generator, torch.float32)
    check = _free_share(robot)
    free: list[Tensor] = []
    missing = count
    while missing > 0:
        # So many are enough nearly always; the number depends on nothing but the stream, so that
        # runs repeat.
        drawn = math.ceil(1.1 * missing / check.share) + 8
        q = robot.random_configurations(drawn, generator, torch.float32)
        q = check.free(q, exact)[:missing]
        free.append(q)
        missing -= len(q)
    return torch.cat(free)


class _FreeShare:
    """Which configurations do not touch themselves, and their share of uniform ones."""

    def __init__(self, robot: Robot):
        self._exact = SelfCollision(robot)
        self._spheres = SphereModel(robot, self._exact)
        seed = torch.Generator().manual_seed(0)
        probes = robot.random_configurations(_PROBES, seed, torch.float32)
        self.share = len(self.free(probes, exact=True)) / _PROBES
        if self.share < _LEAST_SHARE:
            raise RobotError(
                f"of {_PROBES} random configurations of {robot.name!r} only {self.share:.1%} do "
                "not touch themselves; links that always touch belong into ignore_collisions"
            )

    @torch.no_grad()
    def free(self, q: Tensor, exact: bool) -> Tensor:
        """Those rows of q (N, J) that do not touch themselves."""
        if not exact:
            return q[self._spheres.distance(q, cap=0.0) >= 0]
        q = q[self._spheres.distance(q, cap=0.0) > _SURELY_TOUCHING]
        touching = torch.from_numpy(self._exact.in_collision(q.double().cpu().numpy()))
        return q[~touching.to(q.device)]


_free_share = kept_with_robot(_FreeShare)
