# SPDX-License-Identifier: Apache-2.0
"""Whether a robot touches obstacles, exactly, by Coal: they and its own links in one pool."""

import copy
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Any

import coal
import numpy as np
import pinocchio as pin

from ..robot.robot import Robot
from .contacts import Bodies, Contact, Pairs, distance_if_touching, transform
from .obstacles import Obstacle
from .self_collision import SelfCollision, threads_of_torch_kept

_LOG = logging.getLogger(__name__)
_CHUNK = 32  # configurations checked between two chances for other threads to run
_Pool = pin.BroadPhaseManagerPool_DynamicAABBTreeCollisionManager


@dataclass
class _Stage:
    """A pool of Pinocchio's."""

    pool: Any
    geometry: pin.GeometryModel  # the pool's own
    own: list[int]  # pairs of it that are the robot's own
    with_own: bool = True  # whether these are looked at
    placed: tuple = (None, None)  # poses of the obstacles, and placements that these refer to

    def hits(self, full: np.ndarray) -> np.ndarray:
        """(N,) bool, which of the configurations of the model have a contact."""
        hit = pin.computeCollisionsInParallel(1, self.pool, np.asfortranarray(full.T), True)
        return np.asarray(hit, dtype=bool)

    def look_at_own(self, wanted: bool) -> None:
        """Whether the robot's own pairs are looked at from now on."""
        if wanted != self.with_own:
            data = self.pool.getGeometryDatas()[0]
            switch = data.activateCollisionPair if wanted else data.deactivateCollisionPair
            for pair in self.own:
                switch(pair)
            self.with_own = wanted


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
        shapes = list(own.shapes.exact.geometryObjects)
        self._joint = [shape.parentJoint for shape in shapes]
        self.moving = tuple(
            dict.fromkeys(
                link for link, joint in zip(links, self._joint, strict=True) if self._moved[joint]
            )
        )
        homes = self._homes()
        self._joint += [joint for joint, _, _ in homes]
        self._frames = [frame for _, frame, _ in homes]
        self._T_joint_frame = np.array([T for _, _, T in homes]).reshape(-1, 4, 4)
        self._names = [*links, *(obstacle.name for obstacle in obstacles)]
        may = may_touch(self._names)
        self._pairs = self._all_pairs(may, padding)
        self._stages: dict[float, tuple[_Stage | None, list[_Stage]]] = {}  # by margin
        self._plane = np.array(
            [False] * len(links) + [one.shape.kind == "half_space" for one in obstacles], bool
        )
        T_joint_link = [shape.placement.homogeneous for shape in shapes]
        self._T_joint_link = np.array(T_joint_link).reshape(-1, 4, 4)
        coals = [one.geometry for one in shapes] + [one.shape.geometry for one in obstacles]
        self._bodies = Bodies(own.kinematics.model, self._joint, coals)
        self._turn = Lock()
        self._say_what_stands_in(may)

    def holding(self, own: SelfCollision) -> "WorldCheck":
        """The same check with the held joints where another check of the robot holds them."""
        other = copy.copy(self)
        other.own = own
        moved = np.array([T for _, _, T in other._homes()]).reshape(-1, 4, 4)
        if not np.array_equal(moved, self._T_joint_frame):
            other._T_joint_frame = moved
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
                    planes, stages = self._placed_stages(margin, poses)
                    if planes is not None:
                        hit = planes.hits(full)
                        touching[rows[hit]] = True
                        rows, full = rows[~hit], full[~hit]
                    for stage in stages:
                        if not len(rows):
                            break
                        stage.look_at_own(self_collision)
                        hit = stage.hits(full)
                        rows, full = rows[hit], full[hit]
                touching[rows] = True
        return touching

    def contacts(
        self,
        q: np.ndarray,
        poses: Sequence[np.ndarray],
        self_collision: bool = False,
        margin: float = 0.0,
        most_near: float = np.inf,
    ) -> list[list[Contact]]:
        """What touches in each of the configurations q (N, J), the deepest first.

        The arguments are those of `in_collision`, and ``most_near``: with so many pairs of shapes
        near one another in those looked at, no further configuration is, and the list ends there.
        The depth is that of the shapes with all padding; in a mesh or a cloud of points it is that
        of the contact that Coal finds first.
        """
        pairs = self._pairs.some(self_collision | ~self._pairs.own)
        return self._contacts(pairs, q, poses, margin, most_near)

    def fixed_contacts(
        self, q: np.ndarray, poses: Sequence[np.ndarray], bodies: frozenset[str]
    ) -> list[Contact]:
        """What some links or attached obstacles touch in one configuration (J,)."""
        wanted = np.array([name in bodies for name in self._names], bool)
        pairs = self._pairs.some(wanted[self._pairs.first] & ~self._pairs.own)
        return self._contacts(pairs, q[None], poses, 0.0)[0]

    def _contacts(
        self,
        pairs: Pairs,
        q: np.ndarray,
        poses: Sequence[np.ndarray],
        margin: float,
        most_near: float = np.inf,
    ) -> list[list[Contact]]:
        found: list[list[Contact]] = []
        configurations = self.own.kinematics.configurations(np.nan_to_num(q))
        known = np.asarray(np.isfinite(q).all(-1))
        shapes = self._bodies.shapes
        with self._turn:
            T_joint_shape = np.concatenate((self._T_joint_link, self._T_joint_obstacle(poses)))
            for row, configuration in enumerate(configurations):
                if most_near <= 0:
                    break
                deepest: dict[tuple[str, str], float] = {}
                where = self._bodies.poses(configuration, T_joint_shape)
                near = self._bodies.near(where, pairs, margin) if known[row] else np.zeros(0, int)
                most_near -= len(near)
                some = pairs.some(near)
                columns = some.first.tolist(), some.second.tolist(), (some.margin + margin).tolist()
                places = {shape: transform(where[shape]) for shape in {*columns[0], *columns[1]}}
                for first, second, gap in zip(*columns, strict=True):
                    apart = distance_if_touching(
                        (shapes[first], places[first]), (shapes[second], places[second]), gap
                    )
                    if apart is not None:
                        names = self._names[first], self._names[second]
                        deepest[names] = max(0.0, gap - apart, deepest.get(names, 0.0))
                ordered = sorted(deepest.items(), key=lambda item: -item[1])
                found.append([Contact(*names, depth) for names, depth in ordered])
        return found

    def _homes(self) -> list[tuple[int, int, np.ndarray]]:
        """The joint and the frame that each obstacle moves with, and T_joint_frame of its pose."""
        kinematics = self.own.kinematics
        # The base may hang on joints that are held, so that it stands still in the root alone.
        homes: dict[str | None, tuple[int, int, np.ndarray]]
        homes = {None: (0, 0, kinematics.root_to_base().homogeneous)}
        for link in {one.link for one in self.obstacles if one.link is not None}:
            index = kinematics.model.getFrameId(link, pin.FrameType.BODY)
            frame = kinematics.model.frames[index]
            homes[link] = frame.parentJoint, index, frame.placement.homogeneous
        return [homes[one.link] for one in self.obstacles]

    def _all_pairs(self, may: np.ndarray, padding: float) -> Pairs:
        robot, links, obstacles = self.robot, self.own.shapes.links, self.obstacles
        count = len(links)
        above = [self._moved[joint] for joint in self._joint]  # joints that move each shape
        numbers = {joints: number for number, joints in enumerate(dict.fromkeys(above))}
        group = np.array([numbers[joints] for joints in above], int)
        moved = np.array(list(map(bool, above)), bool)
        attached = np.array([one.link is not None for one in obstacles], bool)
        pad = np.array(
            [robot.padding.get(link, 0.0) for link in links] + [one.padding for one in obstacles]
        )
        body = np.append(np.ones(count, bool), attached)
        apart = body[:, None] & ~may
        # What moves, with what stands in the base.
        outside = apart & moved[:, None] & ~attached
        # What is attached, with links and others attached that move relative to it.
        inside = apart & attached & (group[:, None] != group[count:])
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
        return Pairs(first, second, margin, is_own).some(order)

    @cached_property
    def _geometry(self) -> pin.GeometryModel:
        """All shapes, without pairs. Pinocchio takes time by the cube of their number."""
        geometry = self.own.shapes.exact.copy()
        geometry.removeAllCollisionPairs()
        joints = self._joint[len(self.own.shapes.links) :]
        for one, joint, frame in zip(self.obstacles, joints, self._frames, strict=True):
            geometry.addGeometryObject(
                pin.GeometryObject(
                    f"world/{one.name}", joint, frame, pin.SE3.Identity(), one.shape.geometry
                )
            )
        return geometry

    def _T_joint_obstacle(self, poses: Sequence[np.ndarray]) -> np.ndarray:
        return self._T_joint_frame @ np.array(poses).reshape(-1, 4, 4)

    def _placed_stages(
        self, margin: float, poses: Sequence[np.ndarray]
    ) -> tuple[_Stage | None, list[_Stage]]:
        """The pairs with half-spaces, and the others in geometries to ask one after another: hulls
        are quicker, and if free, all is."""
        if margin not in self._stages:
            differ = self.own.shapes.differ
            planes = self._stage(differ, margin, True) if self._plane.any() else None
            hulls_first = (True, False) if differ else (False,)
            stages = [self._stage(hulls, margin, False) for hulls in hulls_first]
            self._stages[margin] = planes, stages
        planes, stages = self._stages[margin]
        first = len(self.own.shapes.links)
        for stage in stages if planes is None else (planes, *stages):
            if stage.placed[0] is poses and stage.placed[1] is self._T_joint_frame:
                continue
            for place, placement in enumerate(self._T_joint_obstacle(poses), first):
                stage.geometry.geometryObjects[place].placement = pin.SE3(placement)
            stage.placed = poses, self._T_joint_frame
        return planes, stages

    def _stage(self, hulls: bool, margin: float, of_planes: bool) -> _Stage:
        geometry, model = self._geometry.copy(), self.own.kinematics.model
        if hulls:
            for place, hull in enumerate(self.own.shapes.hulls.geometryObjects):
                geometry.geometryObjects[place].geometry = hull.geometry
        has_plane = self._plane[self._pairs.first] | self._plane[self._pairs.second]
        pairs = self._pairs.some(has_plane == of_planes)
        geometry.setCollisionPairs(pairs.table(True, geometry.ngeoms))
        if of_planes:
            pool = pin.GeometryPool(model, geometry, 1)
        else:
            # Coal's tree misses contacts where more than one of its boxes is infinite.
            for place in np.flatnonzero(self._plane).tolist():
                geometry.geometryObjects[place].geometry = coal.Sphere(1e-9)
            pool = _Pool(model, geometry, 1)
        margins = pairs.table(pairs.margin + margin, geometry.ngeoms)
        pool.getGeometryDatas()[0].setSecurityMargins(geometry, margins)
        return _Stage(pool, pool.getGeometryModels()[0], np.flatnonzero(pairs.own).tolist())

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
                    shapes[index].geometry, transform(poses[index]), obstacle.shape.geometry,
                    transform(obstacle.pose), coal.CollisionRequest(), coal.CollisionResult(),
                )
            }  # fmt: skip
            if touching:
                _LOG.info(
                    "%s of %s, which no joint moves, touch %r; they are not checked",
                    ", ".join(sorted(touching)), self.robot.name, obstacle.name,
                )  # fmt: skip
