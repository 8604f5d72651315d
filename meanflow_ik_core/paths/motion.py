# SPDX-License-Identifier: Apache-2.0
"""Whether a robot may go straight from one configuration to the next."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..collision.world_check import Contact
from ..world.scene import GRAZE, Scene

_SHORTEST = 1e-3  # m, what any sphere moves in a step that is not halved again
_SPHERES_OFF = 0.005  # m, how much nearer than its spheres a link may be


@dataclass(frozen=True)
class Motion:
    """The check of straight steps in joint space.

    A step is free where the distances at its two ends together exceed what any sphere of the robot
    moves in it. Else it is halved, and Coal asked in its middle, until spheres move by 1 mm.
    """

    scene: Scene
    avoid_self_collision: bool

    def in_collision(self, q: np.ndarray) -> np.ndarray:
        """(N,) bool of q (N, J)."""
        return self.scene.in_collision(q, self.avoid_self_collision, GRAZE)

    def contacts(self, q: np.ndarray) -> list[Contact]:
        """What touches in q (J,), the deepest first."""
        return self.scene.contacts(q[None], self.avoid_self_collision, GRAZE)[0]

    def blocked(self, q: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """(N,) bool: whether something touches on the way from q (N, J) to q + steps."""
        found = np.zeros(len(q), bool)
        owner, begin, end = np.arange(len(q)), q, q + steps
        if len(q):
            found |= self.in_collision(begin) | self.in_collision(end)
        gap_begin, gap_end = self._gaps(begin), self._gaps(end)
        while True:
            far = self._farthest(end - begin)
            open_steps = (far > _SHORTEST) & (far >= gap_begin + gap_end) & ~found[owner]
            if not open_steps.any():
                return found
            owner, begin, end = owner[open_steps], begin[open_steps], end[open_steps]
            gap_begin, gap_end = gap_begin[open_steps], gap_end[open_steps]
            middle = 0.5 * (begin + end)
            found[owner[self.in_collision(middle)]] = True
            gap = self._gaps(middle)
            owner = np.concatenate((owner, owner))
            begin, end = np.concatenate((begin, middle)), np.concatenate((middle, end))
            gap_begin, gap_end = np.concatenate((gap_begin, gap)), np.concatenate((gap, gap_end))

    def _gaps(self, q: np.ndarray) -> np.ndarray:
        """(N,) m that every link of q (N, J) may surely move."""
        cap = float(self._reach.sum()) if self._reach.size else 1.0
        gap = self.scene.distances().of(q, cap)[0][:, 0]
        if self.avoid_self_collision:
            gap = np.minimum(gap, self.scene.own_clearance.distance(q, cap))
        return np.maximum(gap - _SPHERES_OFF, 0.0)

    def _farthest(self, steps: np.ndarray) -> np.ndarray:
        """(N,) m that any sphere moves in steps (N, J) at most."""
        robot = self.scene.robot
        moved = np.abs(steps[:, robot.joint] * robot.multiplier)
        return (moved * self._reach).sum(1)

    @cached_property
    def _reach(self) -> np.ndarray:
        """(K,) m from the axis of a node to any sphere that it moves; 1 of a prismatic one."""
        robot = self.scene.robot
        reach = self.scene.distances().reach(len(robot.parent))
        if self.avoid_self_collision:
            own = self.scene.own_clearance
            moved = own.node >= 0
            np.maximum.at(reach, own.node[moved], np.linalg.norm(own.centre, axis=-1)[moved])
        largest = np.maximum(np.abs(robot.lower), np.abs(robot.upper))
        for node in reversed(range(len(robot.parent))):
            above = robot.parent[node]
            if above >= 0:
                arm = float(np.linalg.norm(robot.placement[node, :3, 3]))
                if robot.prismatic[node]:
                    arm += abs(robot.multiplier[node]) * largest[robot.joint[node]]
                    arm += abs(robot.offset[node])
                reach[above] = max(reach[above], arm + reach[node])
        return np.where(robot.prismatic, 1.0, reach)
