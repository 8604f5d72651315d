# SPDX-License-Identifier: Apache-2.0
"""Whether a robot touches obstacles, exactly, by Coal: they and its own links in one pool."""

import copy
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import compress
from threading import Lock
from typing import Any, NamedTuple

import coal
import numpy as np
import pinocchio as pin

from ..robot.robot import Robot
from .obstacles import Obstacle
from .self_collision import SelfCollision, threads_of_torch_kept

_LOG = logging.getLogger(__name__)
_CHUNK = 32  # configurations checked between two chances for other threads to run
_Pool = pin.BroadPhaseManagerPool_DynamicAABBTreeCollisionManager


class Contact(NamedTuple):
    """Two things that touch, and how deep: they come apart by a shift of so many metres."""

    link: str
    other: str  # an obstacle, or a second link
    depth: float

    def __str__(self) -> str:
        return f"{self.link} and {self.other} by {1e3 * self.depth:.1f} mm"


class _Pair(NamedTuple):
    first: int  # shapes of the geometry model
    second: int
    margin: float  # m
    own: bool  # whether both belong to the robot or what it carries


class _Stage(NamedTuple):
    pool: Any  # Pinocchio's
    geometry: pin.GeometryModel  # the pool's own


class _Question(NamedTuple):
    """Which contacts are asked for."""

    self_collision: bool
    bodies: frozenset[str] | None  # of these with obstacles; None: of all
    margin: float  # m


@dataclass
class _LookedAt:
    """The pairs of a question, and Pinocchio's geometry of them."""

    pairs: list[_Pair]
    geometry: pin.GeometryModel
    data: pin.GeometryData
    model_data: pin.Data
    placed: tuple = (None, None)  # poses of the obstacles, and placements that these refer to


class WorldCheck:
    """Checks links that joints move, and obstacles attached to them, against the other obstacles.

    Two obstacles are never checked against each other. Where the robot's own links are to be
    checked too, it is by the pairs of a `SelfCollision`, and by those of what is attached with
    all links that move relative to it but those that it may touch.

    Attributes:
        robot: whose links.
        own: places the links and knows the pairs of the robot alone.
        obstacles: in the order of the poses that the methods take; these may change, all else
            may not.
        moving: names of the links with shapes that a joint moves.
    """

    def __init__(
        self,
        robot: Robot,
        own: SelfCollision,
        obstacles: Sequence[Obstacle],
        allowed: Callable[[str, str], bool],
        padding: float,
    ):
        """Build the pairs; a pool is built when it is first asked.

        Args:
            robot: whose links.
            own: of the same robot, with the joints that are held.
            obstacles: with different names.
            allowed: whether a link, or the name of an attached obstacle, may touch an obstacle.
            padding: m, added to that of the obstacles and of the links.
        """
        self.robot, self.own, self.obstacles = robot, own, tuple(obstacles)
        self._moved = own.solved_above()
        links = own.shapes.links
        shapes = own.shapes.exact.geometryObjects
        self._joint = [shape.parentJoint for shape in shapes]
        self.moving = tuple(
            dict.fromkeys(
                link for link, joint in zip(links, self._joint, strict=True) if self._moved[joint]
            )
        )
        self._T_root_base = own.kinematics.root_to_base()
        self._placements = [self._placement(obstacle) for obstacle in obstacles]
        self._joint += [joint for joint, _, _ in self._placements]
        self._pairs = self._all_pairs(allowed, padding)
        self._names = [*links, *(obstacle.name for obstacle in obstacles)]
        self._stages: dict[tuple[bool, float], list[_Stage]] = {}
        self._written: dict[tuple[bool, float], tuple] = {}
        self._asked: dict[_Question, _LookedAt] = {}
        self._turn = Lock()
        self._say_what_stands_in(allowed)

    def holding(self, own: SelfCollision) -> "WorldCheck":
        """The same check with the held joints where another check of the robot holds them."""
        other = copy.copy(self)
        other.own, other._T_root_base = own, own.kinematics.root_to_base()
        if other._T_root_base != self._T_root_base:
            other._placements = [other._placement(obstacle) for obstacle in self.obstacles]
        return other

    def in_collision(
        self,
        q: np.ndarray,
        poses: Sequence[np.ndarray],
        self_collision: bool = False,
        margin: float = 0.0,
    ) -> np.ndarray:
        """(N,) bool for configurations q (N, J); one that is not finite counts as touching.

        Args:
            q: rad or m.
            poses: of each obstacle, as in `Obstacle.pose`.
            self_collision: whether the robot must not touch itself either.
            margin: m, added to all padding, and between the robot's own links.
        """
        touching = np.asarray(~np.isfinite(q).all(-1))
        if not any(self_collision or not pair.own for pair in self._pairs):
            return touching
        todo = np.flatnonzero(~touching)
        with threads_of_torch_kept():
            for start in range(0, len(todo), _CHUNK):
                rows = todo[start : start + _CHUNK]
                full = self.own.kinematics.configurations(q[rows])
                with self._turn:
                    for stage in self._placed_stages((self_collision, margin), poses):
                        hit = pin.computeCollisionsInParallel(
                            1, stage.pool, np.asfortranarray(full.T), True
                        )
                        hit = np.asarray(hit, dtype=bool)
                        rows, full = rows[hit], full[hit]
                        if not len(rows):
                            break
                touching[rows] = True
        return touching

    def contacts(
        self,
        q: np.ndarray,
        poses: Sequence[np.ndarray],
        self_collision: bool = False,
        margin: float = 0.0,
    ) -> list[list[Contact]]:
        """What touches in each of the configurations q (N, J), the deepest first.

        The arguments are those of `in_collision`. The depth is that of the shapes with all padding;
        in a mesh or a cloud of points it is that of the contact that Coal finds first.
        """
        return self._contacts(_Question(self_collision, None, margin), q, poses)

    def fixed_contacts(
        self, q: np.ndarray, poses: Sequence[np.ndarray], bodies: frozenset[str]
    ) -> list[Contact]:
        """What some links or attached obstacles touch in one configuration (J,)."""
        return self._contacts(_Question(False, bodies, 0.0), q[None], poses)[0]

    def _contacts(
        self, question: _Question, q: np.ndarray, poses: Sequence[np.ndarray]
    ) -> list[list[Contact]]:
        found: list[list[Contact]] = []
        kinematics, margin = self.own.kinematics, question.margin
        full = kinematics.configurations(np.nan_to_num(q))
        known = np.asarray(np.isfinite(q).all(-1))
        with self._turn:
            if question not in self._asked:
                self._asked[question] = self._looked_at(question)
            asked = self._asked[question]
            pairs, results = asked.pairs, asked.data.collisionResults
            if not self._are_placed(asked.placed, poses):
                self._place(asked.geometry, poses)
                asked.placed = poses, self._placements
            for row, configuration in enumerate(full):
                deepest: dict[tuple[str, str], float] = {}
                if known[row] and pairs:
                    pin.computeCollisions(
                        kinematics.model, asked.model_data, asked.geometry, asked.data,
                        configuration, False,
                    )  # fmt: skip
                    hit = [result.isCollision() for result in results]
                    for pair, result in compress(zip(pairs, results, strict=True), hit):
                        names = self._names[pair.first], self._names[pair.second]
                        depth = max(
                            0.0, pair.margin + margin - result.getContact(0).penetration_depth
                        )
                        deepest[names] = max(depth, deepest.get(names, 0.0))
                ordered = sorted(deepest.items(), key=lambda item: -item[1])
                found.append([Contact(*names, depth) for names, depth in ordered])
        return found

    def _looked_at(self, question: _Question) -> _LookedAt:
        own, bodies, margin = question
        pairs = [
            pair
            for pair in self._pairs
            if (own or not pair.own) and (bodies is None or self._names[pair.first] in bodies)
        ]
        geometry = self._geometry(pairs, exact=True)
        data = geometry.createData()
        for request, pair in zip(data.collisionRequests, pairs, strict=True):
            request.security_margin = pair.margin + margin
            request.enable_contact = True
        return _LookedAt(pairs, geometry, data, self.own.kinematics.model.createData())

    def _placement(self, obstacle: Obstacle) -> tuple[int, int, pin.SE3]:
        """The joint and the frame that an obstacle moves with, and T_joint_frame of its pose."""
        kinematics = self.own.kinematics
        link = obstacle.link or self.robot.base
        index = kinematics.model.getFrameId(link, pin.FrameType.BODY)
        if obstacle.link is None:
            # The base may hang on joints that are held, so that it stands still in the root alone.
            return 0, 0, self._T_root_base
        frame = kinematics.model.frames[index]
        return frame.parentJoint, index, frame.placement

    def _all_pairs(self, allowed: Callable[[str, str], bool], padding: float) -> list[_Pair]:
        robot, links = self.robot, self.own.shapes.links
        count = len(links)
        pairs = [
            _Pair(pair.first, pair.second, 0.0, True)
            for pair in self.own.shapes.exact.collisionPairs
        ]
        for place, obstacle in enumerate(self.obstacles):
            index = count + place
            if obstacle.link is None:
                margin = padding + obstacle.padding
                for shape, link in enumerate(links):
                    if self._moved[self._joint[shape]] and not allowed(link, obstacle.name):
                        own = robot.padding.get(link, 0.0)
                        pairs.append(_Pair(shape, index, margin + own, False))
                continue
            for shape, link in enumerate(links):
                apart = self._moved[self._joint[shape]] != self._moved[self._joint[index]]
                may = link == obstacle.link or link in obstacle.touch_links
                if apart and not may and not allowed(link, obstacle.name):
                    pairs.append(_Pair(shape, index, 0.0, True))
            for other, fixed in enumerate(self.obstacles):
                if allowed(obstacle.name, fixed.name):
                    continue
                if fixed.link is None and self._moved[self._joint[index]]:
                    margin = padding + obstacle.padding + fixed.padding
                    pairs.append(_Pair(index, count + other, margin, False))
                second = count + other
                apart = self._moved[self._joint[index]] != self._moved[self._joint[second]]
                if fixed.link is not None and other > place and apart:
                    pairs.append(_Pair(index, second, 0.0, True))
        return pairs

    def _geometry(self, pairs: list[_Pair], exact: bool) -> pin.GeometryModel:
        shapes = self.own.shapes
        geometry = (shapes.exact if exact else shapes.hulls).copy()
        geometry.removeAllCollisionPairs()
        for obstacle, (joint, frame, T_joint_frame) in zip(
            self.obstacles, self._placements, strict=True
        ):
            geometry.addGeometryObject(
                pin.GeometryObject(
                    f"world/{obstacle.name}", joint, frame,
                    T_joint_frame * pin.SE3(obstacle.pose), obstacle.shape.geometry,
                )
            )  # fmt: skip
        for pair in pairs:
            geometry.addCollisionPair(pin.CollisionPair(pair.first, pair.second))
        return geometry

    def _are_placed(self, placed: tuple, poses: Sequence[np.ndarray]) -> bool:
        return placed[0] is poses and placed[1] is self._placements

    def _place(self, geometry: pin.GeometryModel, poses: Sequence[np.ndarray]) -> None:
        first = len(self.own.shapes.links)
        for place, pose in enumerate(poses):
            placement = self._placements[place][2] * pin.SE3(pose)
            geometry.geometryObjects[first + place].placement = placement

    def _placed_stages(self, key: tuple[bool, float], poses: Sequence[np.ndarray]) -> list[_Stage]:
        """The geometries to ask one after another: hulls are quicker, and if free, all is."""
        self_collision, margin = key
        if key not in self._stages:
            stages = []
            pairs = [pair for pair in self._pairs if self_collision or not pair.own]
            for exact in (False, True) if self.own.shapes.differ else (True,):
                geometry = self._geometry(pairs, exact)
                pool = _Pool(self.own.kinematics.model, geometry, 1)
                requests = pool.getGeometryDatas()[0].collisionRequests
                for index, pair in enumerate(pairs):
                    requests[index].security_margin = pair.margin + margin
                stages.append(_Stage(pool, pool.getGeometryModels()[0]))
            self._stages[key] = stages
        if not self._are_placed(self._written.get(key, (None, None)), poses):
            for stage in self._stages[key]:
                self._place(stage.geometry, poses)
            self._written[key] = poses, self._placements
        return self._stages[key]

    def _say_what_stands_in(self, allowed: Callable[[str, str], bool]) -> None:
        """Log which links that no joint moves touch an obstacle, for these are not checked."""
        shapes, links = self.own.shapes.exact.geometryObjects, self.own.shapes.links
        still = [index for index in range(len(links)) if not self._moved[self._joint[index]]]
        if not still or not self.obstacles:
            return
        poses = self.own.kinematics.shape_poses(
            0.5 * (self.robot.lower + self.robot.upper)[None], self.own.shapes.exact
        )[0]
        for obstacle in self.obstacles:
            if obstacle.link is not None:
                continue
            touching = {
                links[index]
                for index in still
                if not allowed(links[index], obstacle.name)
                and coal.collide(
                    shapes[index].geometry, _transform(poses[index]), obstacle.shape.geometry,
                    _transform(obstacle.pose), coal.CollisionRequest(), coal.CollisionResult(),
                )
            }  # fmt: skip
            if touching:
                _LOG.info(
                    "%s of %s, which no joint moves, touch %r; they are not checked",
                    ", ".join(sorted(touching)), self.robot.name, obstacle.name,
                )  # fmt: skip


def _transform(pose: np.ndarray) -> coal.Transform3s:
    return coal.Transform3s(pose[:3, :3], pose[:3, 3])
