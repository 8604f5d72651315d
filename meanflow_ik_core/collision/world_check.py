# SPDX-License-Identifier: Apache-2.0
"""Whether a robot touches obstacles, exactly, by Coal: they and its own links in one pool."""

import copy
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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


class _Pairs(NamedTuple):
    """P pairs, in the order in which Pinocchio has them."""

    first: np.ndarray  # (P,) shapes of the geometry model
    second: np.ndarray  # (P,)
    margin: np.ndarray  # (P,) m
    own: np.ndarray  # (P,) bool, whether both belong to the robot or what it carries

    def some(self, wanted: np.ndarray) -> "_Pairs":
        return _Pairs(*(column[wanted] for column in self))

    def table(self, values: Any, size: int) -> np.ndarray:
        """(size, size) with values of the pairs above its diagonal, as Pinocchio reads them."""
        table = np.zeros((size, size), np.asarray(values).dtype)
        table[np.minimum(self.first, self.second), np.maximum(self.first, self.second)] = values
        return table


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

    pairs: _Pairs
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
        may_touch: Callable[[Sequence[str]], np.ndarray],
        padding: float,
    ):
        """Build the pairs; a pool is built when it is first asked.

        Args:
            robot: whose links.
            own: of the same robot, with the joints that are held.
            obstacles: with different names.
            may_touch: (N, O) bool of N links or attached obstacles: which obstacles they may touch.
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
        self._names = [*links, *(obstacle.name for obstacle in obstacles)]
        may = may_touch(self._names)
        self._pairs = self._all_pairs(may, padding)
        self._stages: dict[tuple[bool, float], list[_Stage]] = {}
        self._written: dict[tuple[bool, float], tuple] = {}
        self._asked: dict[_Question, _LookedAt] = {}
        self._turn = Lock()
        self._say_what_stands_in(may)

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
        if not (self_collision or not self._pairs.own.all()):
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
                if known[row] and len(results):
                    pin.computeCollisions(
                        kinematics.model, asked.model_data, asked.geometry, asked.data,
                        configuration, False,
                    )  # fmt: skip
                    for pair, result in enumerate(results):
                        if not result.isCollision():
                            continue
                        names = self._names[pairs.first[pair]], self._names[pairs.second[pair]]
                        apart = result.getContact(0).penetration_depth
                        depth = max(0.0, float(pairs.margin[pair]) + margin - apart)
                        deepest[names] = max(depth, deepest.get(names, 0.0))
                ordered = sorted(deepest.items(), key=lambda item: -item[1])
                found.append([Contact(*names, depth) for names, depth in ordered])
        return found

    def _looked_at(self, question: _Question) -> _LookedAt:
        own, bodies, margin = question
        wanted = own | ~self._pairs.own
        if bodies is not None:
            wanted &= np.array([name in bodies for name in self._names])[self._pairs.first]
        pairs = self._pairs.some(wanted)
        geometry = self._geometry(pairs, exact=True)
        data = geometry.createData()
        self._set_margins(data, geometry, pairs, margin)
        for request in data.collisionRequests:
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

    def _all_pairs(self, may: np.ndarray, padding: float) -> _Pairs:
        robot, links, obstacles = self.robot, self.own.shapes.links, self.obstacles
        count = len(links)
        moved = np.array([self._moved[joint] for joint in self._joint], bool)
        attached = np.array([one.link is not None for one in obstacles], bool)
        pad = np.array(
            [robot.padding.get(link, 0.0) for link in links] + [one.padding for one in obstacles]
        )
        body = np.append(np.ones(count, bool), attached)
        apart = body[:, None] & ~may
        # What moves, with what stands in the base.
        outside = apart & moved[:, None] & ~attached
        # What is attached, with links and others attached that move relative to it.
        inside = apart & attached & (moved[:, None] != moved[count:])
        inside[count:] &= np.triu(np.ones((len(obstacles),) * 2, bool), 1)
        for place in np.flatnonzero(attached):
            near = {obstacles[place].link, *obstacles[place].touch_links}
            inside[:count, place] &= [link not in near for link in links]
        own = [(pair.first, pair.second) for pair in self.own.shapes.exact.collisionPairs]
        pairs = np.concatenate(
            (np.array(own, np.int64).reshape(-1, 2), np.argwhere(outside), np.argwhere(inside))
        )
        pairs[len(own) :, 1] += count
        first, second = pairs.T
        is_own = np.ones(len(pairs), bool)
        is_own[len(own) : len(own) + outside.sum()] = False
        margin = np.where(is_own, 0.0, padding + pad[first] + pad[second])
        order = np.lexsort((np.maximum(first, second), np.minimum(first, second)))
        return _Pairs(first, second, margin, is_own).some(order)

    def _geometry(self, pairs: _Pairs, exact: bool) -> pin.GeometryModel:
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
        geometry.setCollisionPairs(pairs.table(True, geometry.ngeoms))
        return geometry

    def _set_margins(
        self, data: pin.GeometryData, geometry: pin.GeometryModel, pairs: _Pairs, more: float
    ) -> None:
        data.setSecurityMargins(geometry, pairs.table(pairs.margin + more, geometry.ngeoms))

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
            pairs = self._pairs.some(self_collision | ~self._pairs.own)
            for exact in (False, True) if self.own.shapes.differ else (True,):
                geometry = self._geometry(pairs, exact)
                pool = _Pool(self.own.kinematics.model, geometry, 1)
                self._set_margins(pool.getGeometryDatas()[0], geometry, pairs, margin)
                stages.append(_Stage(pool, pool.getGeometryModels()[0]))
            self._stages[key] = stages
        if not self._are_placed(self._written.get(key, (None, None)), poses):
            for stage in self._stages[key]:
                self._place(stage.geometry, poses)
            self._written[key] = poses, self._placements
        return self._stages[key]

    def _say_what_stands_in(self, may: np.ndarray) -> None:
        """Log which links that no joint moves touch an obstacle, for these are not checked."""
        shapes, links = self.own.shapes.exact.geometryObjects, self.own.shapes.links
        still = [index for index in range(len(links)) if not self._moved[self._joint[index]]]
        if not still or not self.obstacles:
            return
        poses = self.own.kinematics.shape_poses(
            0.5 * (self.robot.lower + self.robot.upper)[None], self.own.shapes.exact
        )[0]
        for place, obstacle in enumerate(self.obstacles):
            if obstacle.link is not None:
                continue
            touching = {
                links[index]
                for index in still
                if not may[index, place]
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
