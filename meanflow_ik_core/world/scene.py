# SPDX-License-Identifier: Apache-2.0
"""What a world is at one moment, for those who ask it many questions."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..collision.clearance import SphereModel
from ..collision.contacts import Contact
from ..collision.obstacle_arrays import ObstacleArrays, obstacle_arrays
from ..collision.obstacles import Obstacle
from ..collision.own_body import OwnBody
from ..collision.self_collision import SelfCollision
from ..collision.world_check import WorldCheck
from ..collision.world_distance import WorldDistance
from ..robot.robot import Robot, kept_with_robot

_LOG = logging.getLogger(__name__)

# m, how far a solution stays away from what it must not touch: so near, Coal's answer for round
# shapes depends on what it was asked before.
GRAZE = 1e-4
_NAMED = 3  # contacts that a line of the log names at most
_usual_check = kept_with_robot(SelfCollision)
_READING = threading.Lock()  # a robot's shapes are read once: other threads wait for it


def own_check(robot: Robot, held: Mapping[str, float]) -> SelfCollision:
    """The check of a robot against itself with joints [rad or m] held."""
    with _READING:
        return _usual_check(robot).holding(held)


class Structure:
    """All of a world but where its obstacles are; what is built of it is built when first asked."""

    def __init__(
        self,
        robot: Robot,
        obstacles: Sequence[Obstacle],
        decisions: Mapping[tuple[str, str], bool],
        held: Mapping[str, float],
        padding: float,
        told: set[tuple[str, str]],
    ):
        """Keep what is given; ``told`` is what touched when `Scene.warn_of_seed` looked last."""
        self.told, self.seed_seen = told, False
        self.robot, self.obstacles = robot, tuple(obstacles)
        self.decisions, self.held, self.padding = dict(decisions), dict(held), padding
        self._building = threading.RLock()
        self._check: WorldCheck | None = None
        self._distances: dict[frozenset[str], WorldDistance] = {}
        self._rigid: dict[tuple[int, ...], frozenset[str]] = {}

    def __getstate__(self) -> dict[str, Any]:
        # Geometry is no part of a copy, which builds it when it is asked for.
        return {
            "robot": self.robot, "obstacles": self.obstacles, "decisions": self.decisions,
            "held": self.held, "padding": self.padding, "told": self.told,
        }  # fmt: skip

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)

    def holding(self, held: Mapping[str, float]) -> Structure:
        """The same with other joints held; what is built already is moved, not built anew."""
        other = Structure(self.robot, self.obstacles, self.decisions, held, self.padding, self.told)
        with self._building:
            if self._check is not None:
                check = other._check = self._check.holding(own_check(self.robot, held))
                other._distances = {
                    without: distances.holding(check)
                    for without, distances in self._distances.items()
                }
                other._arrays = self._arrays  # where obstacles are is no part of them
        return other

    def may_touch(self, names: Sequence[str]) -> np.ndarray:
        """(N, O) bool of links, or attached obstacles: which of the obstacles they may touch."""
        may = np.zeros((len(names), len(self.obstacles)), bool)
        column = {one.name: place for place, one in enumerate(self.obstacles)}
        rows: dict[str, list[int]] = {}
        for row, name in enumerate(names):
            rows.setdefault(name, []).append(row)
        # what is said of one obstacle counts more than what is said of all
        for every in (True, False):
            for (link, obstacle), allowed in self.decisions.items():
                if (obstacle == "*") == every and link in rows:
                    may[rows[link], slice(None) if every else column[obstacle]] = allowed
        return may

    @property
    def check(self) -> WorldCheck:
        with self._building:
            if self._check is None:
                own = own_check(self.robot, self.held)
                self._check = WorldCheck(
                    self.robot, own, self.obstacles, self.may_touch, self.padding
                )
            return self._check

    def distances(self, without: frozenset[str] = frozenset()) -> WorldDistance:
        """Distances of all links that move but some."""
        with self._building:
            if without not in self._distances:
                self._distances[without] = WorldDistance(
                    self.check, self.may_touch, self.padding, self._arrays, without
                )
            return self._distances[without]

    @cached_property
    def _arrays(self) -> ObstacleArrays:
        return obstacle_arrays([one for one in self.obstacles if one.link is None])

    def rigid_to(self, tips: tuple[int, ...]) -> frozenset[str]:
        """Links, and obstacles attached to them, that stand still where some tips do."""
        if tips not in self._rigid:
            nodes = set(self.robot.tip_node[list(tips)].tolist())
            links = {link for link, (node, _) in self.robot.frames.items() if node in nodes}
            carried = {one.name for one in self.obstacles if one.link in links}
            self._rigid[tips] = frozenset(links | carried)
        return self._rigid[tips]

    @cached_property
    def own_body(self) -> OwnBody:
        """What of the robot, and of what is attached to it, a camera may see."""
        return OwnBody(self.check)

    @cached_property
    def own_clearance(self) -> SphereModel:
        """Distances of the robot's own links."""
        return SphereModel(self.robot, self.check.own)


@dataclass(frozen=True, eq=False)
class Scene:
    """A snapshot of a `World`; it never changes."""

    structure: Structure
    poses: tuple[np.ndarray, ...]  # of the obstacles, T_base_shape or T_link_shape

    @property
    def robot(self) -> Robot:
        return self.structure.robot

    def in_collision(
        self, q: np.ndarray, self_collision: bool = False, margin: float = 0.0
    ) -> np.ndarray:
        """(N,) bool of configurations q (N, J), see `WorldCheck.in_collision`."""
        return self.structure.check.in_collision(q, self.poses, self_collision, margin)

    def contacts(
        self,
        q: np.ndarray,
        self_collision: bool = False,
        margin: float = 0.0,
        most_near: float = np.inf,
    ) -> list[list[Contact]]:
        """What touches in q (N, J), see `WorldCheck.contacts`."""
        return self.structure.check.contacts(q, self.poses, self_collision, margin, most_near)

    def warn_of_seed(self, q: np.ndarray) -> None:
        """Log in one line what attached obstacles touch in the first seed state (J,), if new."""
        carried = {one.name for one in self.structure.obstacles if one.link is not None}
        if self.structure.seed_seen or not carried:
            return
        self.structure.seed_seen = True
        contacts = self.contacts(q[None], self_collision=True)[0]
        touching = {one[:2]: one for one in contacts if not carried.isdisjoint(one[:2])}
        new = [one for pair, one in touching.items() if pair not in self.structure.told]
        self.structure.told.clear()
        self.structure.told.update(touching)
        if new:
            _LOG.warning(
                "touching in the seed state: %s%s; where that may be, name it in touch_links= or "
                "allow it",
                ", ".join(map(str, new[:_NAMED])),
                f" and {len(new) - _NAMED} more" if len(new) > _NAMED else "",
            )

    def fixed_contacts(self, q: np.ndarray, bodies: frozenset[str]) -> list[Contact]:
        """What some links touch in q (J,), see `WorldCheck.fixed_contacts`."""
        return self.structure.check.fixed_contacts(q, self.poses, bodies)

    def distances(self, without: frozenset[str] = frozenset()) -> WorldDistance:
        """Distances to the obstacles where they are now, of all links that move but some."""
        return self.structure.distances(without).at(self.poses)

    @property
    def own_clearance(self) -> SphereModel:
        return self.structure.own_clearance
