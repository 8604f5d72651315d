# SPDX-License-Identifier: Apache-2.0
"""Whether a robot may go straight from one configuration to the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..collision.contacts import Contact
from .scene import GRAZE, Scene

_SHORTEST = 1e-3  # m, what any sphere moves in a step that is not halved again
_SPHERES_OFF = 0.005  # m, how much nearer to each other than their spheres links may be
_CLOSE = 0.005  # m, a distance that Coal is asked for where spheres do not tell


@dataclass(frozen=True)
class Motion:
    """The check of straight steps in joint space.

    A step is free where the distances at its two ends together exceed what any sphere of the robot
    moves in it. Else it is halved, and Coal asked in its middle, until spheres move by 1 mm.
    """

    scene: Scene
    avoid_self_collision: bool

    def in_collision(self, q: np.ndarray, margin: float = GRAZE) -> np.ndarray:
        """(N,) bool of q (N, J): whether something is nearer than a margin [m]."""
        return self.scene.in_collision(q, self.avoid_self_collision, margin)

    def contacts(self, q: np.ndarray) -> list[Contact]:
        """What touches in q (J,), the deepest first."""
        return self.scene.contacts(q[None], self.avoid_self_collision, GRAZE)[0]

    def blocked(self, q: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """(N,) bool: whether something touches on the way from q (N, J) to q + steps."""
        return self.touching(q, steps)[0]

    def touching(self, q: np.ndarray, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As `blocked`, and where on each way (N, J) something touches that was found first.

        That is the beginning where it touches, else the end, else between them.
        """
        end = q + steps
        hit = self.in_collision(np.concatenate((q, end))).reshape(2, -1)
        found, where = hit[0] | hit[1], np.where(hit[0, :, None], q, end)
        owner = np.flatnonzero(~found)
        begin, end = q[owner], end[owner]
        gap_begin, gap_end = self.gaps(begin), self.gaps(end)
        while True:
            far = self.farthest(end - begin)
            open_steps = (far > _SHORTEST) & (far >= gap_begin + gap_end)
            open_steps &= ~found[owner]
            if not open_steps.any():
                return found, where
            owner, begin, end = owner[open_steps], begin[open_steps], end[open_steps]
            gap_begin, gap_end = gap_begin[open_steps], gap_end[open_steps]
            middle = 0.5 * (begin + end)
            hit = self.in_collision(middle)
            found[owner[hit]], where[owner[hit]] = True, middle[hit]
            gap = self.gaps(middle)
            owner = np.concatenate((owner, owner))
            begin, end = np.concatenate((begin, middle)), np.concatenate((middle, end))
            gap_begin, gap_end = np.concatenate((gap_begin, gap)), np.concatenate((gap, gap_end))

    def gaps(self, q: np.ndarray) -> np.ndarray:
        """(N,) m that every link of q (N, J) may move."""
        cap = float(self._reach.sum()) if self._reach.size else 1.0
        distances = self.scene.distances()
        gap = distances.of(q, cap)[0][:, 0] - distances.slack
        if self.avoid_self_collision:
            own = self.scene.own_clearance.distance(q, cap) - _SPHERES_OFF
            gap = np.minimum(gap, own)
        return np.maximum(gap, 0.0)

    def farthest(self, steps: np.ndarray) -> np.ndarray:
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


class StepGuard:
    """Says of one small step after another whether something touches on its way.

    It remembers how far any sphere may still move since distances were last looked at. Far from
    everything, most steps need neither a distance nor Coal.
    """

    def __init__(self, scene: Scene, avoid_self_collision: bool):
        """Build what the first step would otherwise wait for.

        Args:
            scene: the world.
            avoid_self_collision: whether the robot must not touch itself at the ends of steps.
        """
        self.scene, self._avoids_self_collision = scene, avoid_self_collision
        self._motion = Motion(scene, False)
        self._here = 0.5 * (scene.robot.lower + scene.robot.upper)
        self._left = 0.0  # m that any sphere may still move from there
        self._refused: tuple[np.ndarray, np.ndarray, list[Contact]] | None = None
        self._motion.touching(self._here[None], np.zeros((1, len(self._here))))
        self._motion.in_collision(self._here[None], _CLOSE)
        self.contacts(self._here)

    def contacts(self, q: np.ndarray) -> list[Contact]:
        """What touches in q (J,), the deepest first."""
        asked = q[None], self._avoids_self_collision, GRAZE
        return self.scene.contacts(*asked)[0] if self.scene.in_collision(*asked)[0] else []

    def contacts_on_way(self, begin: np.ndarray, end: np.ndarray) -> list[Contact]:
        """What a step from one configuration (J,) to another touches; empty where it is free.

        Where something touches at its beginning already, a step is free that lessens all contacts.
        """
        if self._refused is not None:
            last_begin, last_end, touches = self._refused
            if np.array_equal(begin, last_begin) and np.array_equal(end, last_end):
                return touches
        self._refused = None
        touches = self._contacts_on_way(begin, end)
        if not touches and self._avoids_self_collision:
            touches = self.contacts(end)
        if touches:
            self._refused = begin.copy(), end.copy(), touches
        return touches

    def _contacts_on_way(self, begin: np.ndarray, end: np.ndarray) -> list[Contact]:
        motion = self._motion
        far = float(motion.farthest((end - begin)[None])[0])
        left = self._left if np.array_equal(begin, self._here) else 0.0
        if far < left:
            self._here, self._left = end.copy(), left - far
            return []
        gap = float(motion.gaps(end[None])[0])
        if left + gap <= far < left + _CLOSE and not motion.in_collision(end[None], _CLOSE)[0]:
            gap = _CLOSE
        if far >= left + gap:
            found, where = motion.touching(begin[None], (end - begin)[None])
            touches = motion.contacts(where[0]) if found[0] else []
            if touches and not (np.array_equal(where[0], begin) and self._lessens(touches, end)):
                return touches
        self._here, self._left = end.copy(), gap
        return []

    def is_of_world(self, touches: Sequence[Contact]) -> bool:
        """Whether an obstacle is among what touches, and not only the robot itself."""
        names = {obstacle.name for obstacle in self.scene.structure.obstacles}
        return any(names & {contact.link, contact.other} for contact in touches)

    def _lessens(self, touches: list[Contact], end: np.ndarray) -> bool:
        before = {(contact.link, contact.other): contact.depth for contact in touches}
        return all(
            contact.depth < before.get((contact.link, contact.other), 0.0)
            for contact in self._motion.contacts(end)
        )
