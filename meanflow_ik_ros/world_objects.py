# SPDX-License-Identifier: Apache-2.0
"""Objects as ROS has them, of several shapes under one id, in the world of the solver."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from meanflow_ik_core.bounds import MOST_CHANGES, MOST_CONTACTS
from meanflow_ik_core.collision.obstacles import Shape
from meanflow_ik_core.errors import WorldError
from meanflow_ik_core.world.decisions import Decisions
from meanflow_ik_core.world.world import World
from meanflow_ik_ros.scene_problems import SceneProblems

if TYPE_CHECKING:
    from meanflow_ik_core.robot.robot import Robot

OCTOMAP = "<octomap>"  # MoveIt's name of the octomap in its matrix of allowed collisions


@dataclass(frozen=True, eq=False)
class Part:
    """One shape of an object.

    kind: as `World` has an ``add_`` method for it.
    arguments: of that method.
    T_object_part: (4, 4); a half-space is solid where z < 0.
    shape: of the solver, once the part has been in a world.
    """

    kind: str
    arguments: Mapping[str, Any]
    T_object_part: np.ndarray
    shape: Shape | None = None


@dataclass(frozen=True, eq=False)
class WorldObject:
    """An object by its id; where it is, the world knows.

    padding: m.
    frame: that it moves with, with its pose (4, 4) T_frame_object there; empty: none.
    link: that it is attached to, with the links that it may touch besides; None: none.
    of_scene: whether MoveIt's planning scene has brought it.
    """

    id: str
    parts: tuple[Part, ...]
    padding: float = 0.0
    frame: str = ""
    T_frame_object: np.ndarray = field(default_factory=lambda: np.eye(4))
    link: str | None = None
    touch_links: tuple[str, ...] = ()
    of_scene: bool = False

    def has_shapes_of(self, other: WorldObject) -> bool:
        """Whether its parts are those of another object, though elsewhere in it."""
        return self.padding == other.padding and [
            (part.kind, _plain(part.arguments)) for part in self.parts
        ] == [(part.kind, _plain(part.arguments)) for part in other.parts]

    def names(self) -> list[str]:
        """Of its parts in the world."""
        if len(self.parts) == 1:
            return [self.id]
        return [f"{self.id}[{index}]" for index in range(len(self.parts))]


@dataclass(frozen=True, eq=False)
class AllowedMatrix:
    """Which links and objects may touch.

    place: of N names in the matrix.
    allowed: (N, N) bool, symmetric.
    defaults: of names, for pairs that are not in the matrix.
    """

    place: Mapping[str, int]
    allowed: np.ndarray
    defaults: Mapping[str, bool]

    def allows(self, first: str, second: str) -> bool:
        """Whether two may touch: by their entry, else by the defaults of both, else not."""
        i, j = self.place.get(first), self.place.get(second)
        if i is not None and j is not None:
            return bool(self.allowed[i, j])
        known = [self.defaults[name] for name in (first, second) if name in self.defaults]
        return bool(known) and all(known)

    def knows(self, both: set[str]) -> bool:
        """Whether it says anything of two."""
        return both <= self.place.keys() or not both.isdisjoint(self.defaults)

    def without(self, name: str) -> AllowedMatrix:
        """The matrix that says nothing of one of the names."""
        place = {one: index for one, index in self.place.items() if one != name}
        defaults = {one: may for one, may in self.defaults.items() if one != name}
        return replace(self, place=place, defaults=defaults)


def _plain(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments that can be compared; where a plane lies in its part is no part of its shape."""
    return {
        key: value.tobytes() if isinstance(value, np.ndarray) else value
        for key, value in arguments.items()
        if key != "T_pose_plane"
    }


class WorldObjects:
    """A world and the objects that its obstacles are parts of.

    It is changed by one owner; `copy` is cheap, so that changes can be tried and dropped. Methods
    raise a `WorldError` for what the world refuses, and where a copy is changed in more shapes than
    `MOST_CHANGES`; that ids exist is the caller's part.

    world: of the solver.
    objects: by id.
    decisions: by link, or id of an attached object, and id, or "*": whether they may touch.
    clouds: names of clouds of points, which are obstacles without an object, and by
        `time.monotonic` when their points were measured.
    matrix: what of the planning scene may touch, where `decisions` say nothing; None: nothing.
    problems: what of the planning scene could not be taken, and why; with any of them the world is
        not known.
    """

    def __init__(self, robot: Robot) -> None:
        self.world = World(robot)
        self.objects: dict[str, WorldObject] = {}
        self.decisions = Decisions()
        self.clouds: dict[str, float] = {}
        self.matrix: AllowedMatrix | None = None
        self.problems = SceneProblems()
        self._changes = 0  # shapes that were added, moved, attached or detached

    def copy(self) -> WorldObjects:
        """Of its own, with the same content."""
        other = WorldObjects(self.world.robot)
        other.world = self.world.copy()
        other.objects, other.decisions = dict(self.objects), self.decisions.copy()
        other.clouds, other.matrix = dict(self.clouds), self.matrix
        other.problems = self.problems.copy()
        return other

    def emptied(self) -> WorldObjects:
        """One with the same clouds and objects of the planning scene, and nothing else."""
        other = WorldObjects(self.world.robot)
        other.matrix, other.problems = self.matrix, self.problems.copy()
        for name, measured in self.clouds.items():
            other.clouds[name] = measured
            if name in self.world:
                cloud = self.world.obstacle(name)
                other.world.add_shape(name, cloud.shape, pose=cloud.pose)
        for known in self.objects.values():
            if known.of_scene:
                pose = self.pose(known.id)
                other.add(replace(known, link=None, touch_links=()), pose)
                if known.link:
                    other.attach(known.id, known.link, known.touch_links, T_link_object=pose)
        other.decide_by_matrix()
        other._changes = 0
        return other

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Changes that are all made, or none of them where an exception leaves."""
        before = self.copy()
        try:
            yield
        except BaseException:
            self.__dict__.update(before.__dict__ | {"_changes": self._changes})
            raise

    def pose(self, id: str) -> np.ndarray:
        """(4, 4) T_base_object, or T_link_object of an attached one."""
        known = self.objects[id]
        first = self.world.obstacle(known.names()[0]).pose
        return first @ np.linalg.inv(known.parts[0].T_object_part)

    def add(self, added: WorldObject, T_base_object: np.ndarray) -> None:
        """Add an object that is not attached, or replace one."""
        self._count(added.parts)
        if added.id in self.objects:
            self._take_out(added.id)
        self._extend(replace(added, parts=()), added.parts, T_base_object)

    def append(self, known: WorldObject, parts: Sequence[Part]) -> None:
        """Add parts to an object that is not attached; those that it has stay as they are."""
        pose = self.pose(known.id)
        if len(known.parts) == 1:  # beside others its shape has another name in the world
            self.add(replace(known, parts=(*known.parts, *parts)), pose)
        else:
            self._count(parts)
            self._extend(known, parts, pose)

    def _extend(self, known: WorldObject, parts: Sequence[Part], T_base_object: np.ndarray) -> None:
        together = replace(known, parts=(*known.parts, *parts))
        names = together.names()[len(known.parts) :]
        new = []
        for name, part in zip(names, parts, strict=True):
            place = {"pose": T_base_object @ part.T_object_part, "padding": known.padding}
            shape = Shape("half_space") if part.kind == "half_space" else part.shape
            if shape is not None:
                self.world.add_shape(name, shape, **place)
            else:
                getattr(self.world, f"add_{part.kind}")(name, **part.arguments, **place)
            new.append(replace(part, shape=self.world.obstacle(name).shape))
        self.objects[known.id] = replace(known, parts=(*known.parts, *new))
        for link, allowed in self.decisions.of(known.id).items():
            self._decide(link, names, allowed)

    def _count(self, parts: Sequence[Part]) -> None:
        """Count a change of parts, unless there are too many in a message."""
        changes = self._changes + len(parts)
        if changes > MOST_CHANGES:
            raise WorldError(
                f"{changes} shapes added, moved, attached or detached in one message; "
                f"{MOST_CHANGES} are the most"
            )
        self._changes = changes

    def remove(self, id: str) -> None:
        """Remove an object, and what was allowed or forbidden of it."""
        self._take_out(id)
        self.decisions.forget(id)

    def move(self, moved: WorldObject, T_base_object: np.ndarray) -> None:
        """Put an object, whose parts may stand elsewhere in it than before, to another place."""
        self._count(moved.parts)
        parts = []
        for name, part in zip(moved.names(), moved.parts, strict=True):
            self.world.move(name, T_base_object @ part.T_object_part)
            parts.append(replace(part, shape=self.world.obstacle(name).shape))
        self.objects[moved.id] = replace(moved, parts=tuple(parts))

    def attach(
        self,
        id: str,
        link: str,
        touch_links: Sequence[str],
        q: np.ndarray | None = None,
        T_link_object: np.ndarray | None = None,
    ) -> None:
        """Attach an object, from where it is in a configuration (J,), or at a pose (4, 4)."""
        known = self.objects[id]
        self._count(known.parts)
        for name, part in zip(known.names(), known.parts, strict=True):
            pose = None if T_link_object is None else T_link_object @ part.T_object_part
            self.world.attach(
                name, link, None if pose is not None else q, pose, touch_links=tuple(touch_links)
            )
        self.objects[id] = replace(
            known, frame="", T_frame_object=np.eye(4), link=link, touch_links=tuple(touch_links)
        )

    def detach(self, id: str, q: np.ndarray) -> None:
        """Leave an attached object where a configuration (J,) puts it."""
        known = self.objects[id]
        self._count(known.parts)
        for name in known.names():
            self.world.detach(name, q)
        self.objects[id] = replace(known, link=None, touch_links=())

    def decide(self, link: str, id: str, allowed: bool) -> None:
        """Allow, or forbid again, that a link, or an attached object, touches an object or all."""
        self.decisions.tell(link, id, allowed)
        if len(self.decisions) > MOST_CONTACTS:
            raise WorldError(
                f"{len(self.decisions)} allowed_contacts; {MOST_CONTACTS} are the most"
            )
        self._decide(link, self._names(id), allowed)

    def set_cloud(
        self,
        name: str,
        points: Any,
        resolution: float,
        measured: float,
        pose: np.ndarray | None = None,
    ) -> None:
        """Add a cloud of points (N, 3), or replace it; without points it is free.

        Args:
            name: of the cloud, which is the id of no object.
            points: m.
            resolution: m, edge of a cell.
            measured: by `time.monotonic`.
            pose: (4, 4) of the frame of the points in the base; None: the base.
        """
        if len(points):
            self.world.add_points(name, points, resolution, pose=pose, replace=True)
            for link, allowed in self.decisions.of(name).items():
                self._decide(link, [name], allowed)
        else:
            self.remove_cloud(name)
        self.clouds[name] = measured

    def remove_cloud(self, name: str) -> None:
        """Forget a cloud, if there is one."""
        if name in self.world:
            self.world.remove(name)
        self.clouds.pop(name, None)

    def decide_by_matrix(self) -> None:
        """Allow what the matrix says of the scene's objects, where `decisions` say nothing."""
        world, matrix = self.world, self.matrix
        before = world.decisions()
        if matrix is None and not any(before.values()):
            return
        attached = [id for id, known in self.objects.items() if known.link]
        links = [*world.robot.frames, *attached]
        of_scene = [id for id, known in self.objects.items() if known.of_scene]
        of_scene += [OCTOMAP] if OCTOMAP in world else []
        for id in of_scene:
            names = self._names(id)
            for link in links:
                if link == id or (link, id) in self.decisions or (link, "*") in self.decisions:
                    continue
                may = matrix is not None and matrix.allows(link, id)
                for pair in itertools.product(self._names(link), names):
                    if may != before.get(pair, False):
                        (world.allow if may else world.forbid)(*pair)

    def locked(self) -> Iterator[WorldObject]:
        """Objects that move with a frame."""
        return (known for known in self.objects.values() if known.frame)

    def _take_out(self, id: str) -> None:
        for name in self.objects.pop(id).names():
            self.world.remove(name)

    def _names(self, id: str) -> list[str]:
        if id in self.objects:
            return self.objects[id].names()
        links = self.world.robot.frames
        # A cloud may be without points, or not there yet.
        return [id] if id == "*" or id in links or id in self.world else []

    def _decide(self, link: str, names: Sequence[str], allowed: bool) -> None:
        decide = self.world.allow if allowed else self.world.forbid
        for pair in itertools.product(self._names(link), names):
            decide(*pair)
