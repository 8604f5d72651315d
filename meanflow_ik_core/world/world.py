# SPDX-License-Identifier: Apache-2.0
"""Obstacles by name around a robot.

It is long because half of it says what its methods take and refuse.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..collision.contacts import Contact
from ..collision.obstacles import Obstacle, Shape
from ..errors import WorldError
from ..robot.robot import Robot
from .decisions import Decisions
from .files import load_world, save_world
from .inputs import (
    checked_links,
    checked_name,
    checked_number,
    checked_points,
    checked_pose,
    frozen,
    unknown_name,
)
from .joint_inputs import configurations, held_joints
from .scene import Scene, Structure, own_check
from .shape_inputs import (
    box_shape,
    cloud_shape,
    half_space_pose,
    known_options,
    mesh_shape,
    round_shape,
)


class World:
    """Obstacles that a robot must not touch; lengths in metres, poses in the robot's base.

    Every obstacle has a name. `add_box` and its like place it by ``pose=`` (4, 4), or by ``xyz=``
    and ``quat_xyzw=``, and take ``padding=`` [m] and ``replace=True``, without which a name that
    is taken is refused. Padding of the obstacle, of the world and of a link add up. Links that no
    solved joint moves are not checked. All methods may be called from several threads; a solve
    reads one snapshot.

    Bad input raises a `WorldError`; so does a joint that is farther from 0 than 100,000 rad or m.
    """

    def __init__(self, robot: Robot, padding: float = 0.0):
        """An empty world.

        Args:
            robot: whose links must not touch.
            padding: m, what comes nearer to any obstacle touches it.
        """
        if not isinstance(robot, Robot):
            raise WorldError(f"robot is {robot!r}; it must be a Robot, see load_robot")
        self.robot = robot
        self.padding = checked_number("the world", "padding", padding, least=0.0)
        self._obstacles: dict[str, Obstacle] = {}
        self._decisions = Decisions()
        self._held: dict[str, float] = {}
        self._told: set[tuple[str, str]] = set()  # contacts that were warned of
        self._structure: Structure | None = None
        self._scene: Scene | None = None
        self._lock = threading.RLock()

    def __getstate__(self) -> dict[str, Any]:
        with self._lock:
            return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return len(self._obstacles)

    def __contains__(self, name: object) -> bool:
        return name in self._obstacles

    # What there is

    def names(self) -> list[str]:
        """Names of all obstacles, in the order in which they were added."""
        with self._lock:
            return list(self._obstacles)

    def obstacle(self, name: str) -> Obstacle:
        """What is known of an obstacle."""
        with self._lock:
            return self._known(name)

    def held(self) -> dict[str, float]:
        """Joints [rad or m] that `hold` was told, besides those of the robot's file."""
        with self._lock:
            return dict(self._held)

    def decisions(self) -> dict[tuple[str, str], bool]:
        """What `allow` (True) and `forbid` (False) were told, by link and obstacle."""
        with self._lock:
            return dict(self._decisions.items())

    def __copy__(self) -> "World":
        return self.copy()

    def copy(self) -> "World":
        """A world of its own with the same content, which is cheap."""
        with self._lock:
            other = World(self.robot, self.padding)
            other._obstacles = dict(self._obstacles)
            other._decisions, other._held = self._decisions.copy(), dict(self._held)
            other._structure, other._scene = self._structure, self._scene
            return other

    # Obstacles

    def add_box(self, name: str, size: Any, **place: Any) -> None:
        """Add a box with full edges ``size`` (3,) along its axes."""
        self._add(name, lambda where: box_shape(where, size), place)

    def add_sphere(self, name: str, radius: float, **place: Any) -> None:
        """Add a sphere."""
        self._add(name, lambda where: round_shape(where, "sphere", radius=radius), place)

    def add_cylinder(self, name: str, radius: float, length: float, **place: Any) -> None:
        """Add a cylinder along z around its origin."""
        self._add_round("cylinder", name, radius, length, place)

    def add_capsule(self, name: str, radius: float, length: float, **place: Any) -> None:
        """Add a capsule along z around its origin; its length is without the caps."""
        self._add_round("capsule", name, radius, length, place)

    def add_cone(self, name: str, radius: float, length: float, **place: Any) -> None:
        """Add a cone along z, its tip at z = length / 2."""
        self._add_round("cone", name, radius, length, place)

    def add_half_space(
        self, name: str, normal: Any = (0, 0, 1), offset: float = 0.0, **options: Any
    ) -> None:
        """Add what is solid where ``normal . x < offset``; the normal (3,) is scaled to length 1.

        It has no pose of its own; ``padding`` and ``replace`` are its options.
        """
        where = f"half_space {name!r}"
        known_options(where, options, ("padding", "replace"))
        pose = half_space_pose(where, normal, offset)
        self._add(name, lambda _: Shape("half_space"), {"pose": pose, **options})

    def add_mesh(
        self,
        name: str,
        file: str | Path | None = None,
        *,
        vertices: Any = None,
        triangles: Any = None,
        scale: Any = 1.0,
        convex: bool = False,
        **place: Any,
    ) -> None:
        """Add a mesh, from a file or from its corners.

        A mesh is a surface: what lies wholly inside touches nothing, unless it is convex.

        Args:
            name: of the obstacle.
            file: .stl, .obj, .dae and what else Coal reads, by path.
            vertices: (V, 3) m, instead of a file.
            triangles: (F, 3) integers, which three vertices make a triangle.
            scale: one number, or one along each axis, that lengths are multiplied by.
            convex: take its convex hull, which is solid.
            place: see `World`.
        """

        def shape(where: str) -> Shape:
            return mesh_shape(where, file, vertices, triangles, scale, convex)

        self._add(name, shape, place)

    def add_points(self, name: str, points: Any, resolution: Any = None, **place: Any) -> None:
        """Add a cloud of points (N, 3): every cell of an octree that has a point in it is solid.

        Args:
            name: of the obstacle.
            points: (N, 3) m, in the frame of ``pose``.
            resolution: m, edge of a cell.
            place: see `World`; ``replace=True`` for the next frame of a camera.
        """

        self._add(name, lambda where: cloud_shape(where, points, resolution), place)

    def add_shape(self, name: str, shape: Shape, **place: Any) -> None:
        """Add another obstacle of the shape that one has; nothing of it is built again."""
        if not isinstance(shape, Shape):
            raise WorldError(f"shape is {shape!r}; take that of an obstacle, see `obstacle`")
        self._add(name, lambda _: shape, place)

    def move(self, name: str, pose: Any = None, *, xyz: Any = None, quat_xyzw: Any = None) -> None:
        """Give an obstacle that is not attached another pose in the base."""
        with self._lock:
            old = self._known(name)
            where = f"{old.shape.kind} {name!r}"
            if old.link is not None:
                raise WorldError(f"{where} is attached to {old.link!r}; detach it to move it")
            new = replace(old, pose=checked_pose(where, pose, xyz, quat_xyzw))
            self._obstacles[name] = new
            # The structure stays: it does not know where obstacles are.
            self._scene = None

    def remove(self, name: str) -> None:
        """Remove an obstacle, and what was allowed or forbidden of it."""
        with self._editing():
            self._known(name)
            del self._obstacles[name]
            self._decisions.forget(name)

    def clear(self) -> None:
        """Remove all obstacles; joints stay held, and links that may touch anything still may."""
        with self._editing():
            for name in self._obstacles:
                self._decisions.forget(name)
            self._obstacles.clear()

    def attach(
        self,
        name: str,
        link: str,
        q: Any = None,
        pose: Any = None,
        touch_links: Sequence[str] = (),
    ) -> None:
        """Let an obstacle move with a link: it is part of the robot from then on.

        Args:
            name: of the obstacle, which is neither a half-space nor a cloud of points.
            link: of the robot, which it may touch.
            q: (J,) in which it is where it is now; or else:
            pose: (4, 4) T_link_obstacle.
            touch_links: other links that it may touch, such as fingers.
        """
        with self._editing():
            old = self._known(name)
            where = f"{old.shape.kind} {name!r}"
            if old.shape.kind in ("half_space", "points"):
                raise WorldError(f"{where} cannot be attached; only solid shapes and meshes can")
            if old.link is not None:
                raise WorldError(f"{where} is attached to {old.link!r} already")
            if not isinstance(link, str) or link not in self.robot.frames:
                raise unknown_name(link, self.robot.frames, "link")
            if (q is None) == (pose is None):
                raise WorldError(f"to attach {where}, give either q= or pose=")
            touching = checked_links(touch_links, self.robot.frames, "touch_links")
            T_link_obstacle = (
                checked_pose(where, pose)
                if q is None
                else frozen(np.linalg.inv(self._link_pose(q, link)) @ old.pose)
            )
            self._obstacles[name] = replace(
                old, pose=T_link_obstacle, link=link, touch_links=touching
            )

    def detach(self, name: str, q: Any) -> None:
        """Leave an attached obstacle where a configuration (J,) puts it."""
        with self._editing():
            old = self._known(name)
            if old.link is None:
                raise WorldError(f"{old.shape.kind} {name!r} is not attached")
            T_base_obstacle = frozen(self._link_pose(q, old.link) @ old.pose)
            self._obstacles[name] = replace(
                old, pose=T_base_obstacle, link=None, touch_links=frozenset()
            )

    def allow(self, link: str, obstacle: str) -> None:
        """Let a link, or an attached obstacle, touch an obstacle; "*" means every one."""
        self._decide(link, obstacle, True)

    def forbid(self, link: str, obstacle: str) -> None:
        """Take back what `allow` said, also of one obstacle where all are allowed."""
        self._decide(link, obstacle, False)

    def hold(self, joints: Mapping[str, float]) -> None:
        """Say where joints [rad or m] are that are not solved for, such as those of fingers.

        One that is a little beyond a limit, by a tenth of its range at most, is held at the limit.

        Raises:
            WorldError: a joint does not exist, is solved for, or is farther beyond its limits.
        """
        told = held_joints(self.robot, joints)
        with self._lock:
            new = {**self._held, **told}
            if new == self._held:
                return
            self._held, self._scene = new, None
            if self._structure is not None:
                self._structure = self._structure.holding(new)

    # Questions

    def in_collision(self, q: Any) -> Any:
        """(...) bool for configurations q (..., J): whether the robot touches an obstacle.

        Coal decides, on the collision shapes of the URDF and all padding. The robot's own links
        among themselves are not looked at. A configuration that is not finite counts as touching.
        """
        flat, shape = configurations(self.robot, q)
        found = self.snapshot().in_collision(flat).reshape(shape)
        return q.new_tensor(found.tolist()).bool() if hasattr(q, "new_tensor") else found

    def contacts(self, q: Any) -> list:
        """What touches: [(link, obstacle, depth in m)], the deepest first, of a configuration (J,).

        Of configurations (N, J) a list of N such lists.

        Raises:
            WorldError: a configuration is not finite; nobody knows what touches there.
        """
        flat, shape = configurations(self.robot, q)
        if not np.isfinite(flat).all():
            raise WorldError("contacts got joints that are not finite")
        found: list[list[Contact]] = self.snapshot().contacts(flat)
        return found if shape else found[0]

    def distance(self, q: Any, cap: float = np.inf) -> Any:
        """Distance [m] of the robot to the nearest obstacle, negative where they overlap.

        It is that of spheres which follow the robot's shapes to some millimetres, to shapes in
        closed form; to meshes and clouds on a grid. `in_collision` is exact.

        Args:
            q: (..., J), an array or a tensor, through which gradients flow.
            cap: m, what is farther away is this far.

        Returns:
            (...), of the kind of ``q``; infinite without obstacles, NaN where q is not finite.
        """
        configurations(self.robot, q)
        if not (isinstance(cap, float) and cap == np.inf):
            cap = checked_number("distance", "cap", cap, least=0.0)
        return self.snapshot().distances().distance(q, cap)

    def on_robot(self, points: Any, q: Any, margin: float = 0.0) -> np.ndarray:
        """(N,) bool: which points (N, 3) in the base [m] a camera sees of the robot itself.

        That is what lies nearer than a margin to spheres which follow the shapes of all links, and
        of what is attached to them, to some millimetres.

        Args:
            points: m.
            q: (J,) rad or m.
            margin: m.
        """
        flat, shape = configurations(self.robot, q)
        if shape or not np.isfinite(flat).all():
            raise WorldError(f"q has shape {(*shape, flat.shape[1])}; it must be one finite (J,)")
        margin = checked_number("on_robot", "margin", margin, least=0.0)
        cloud = checked_points("on_robot", "points", points)
        return self.snapshot().structure.own_body.covers(flat[0], cloud, margin)

    def snapshot(self) -> Scene:
        """What the world is now, for many questions; later changes are no part of it."""
        with self._lock:
            if self._structure is None:
                self._structure = Structure(
                    self.robot, list(self._obstacles.values()), self.decisions(), self._held,
                    self.padding, self._told,
                )  # fmt: skip
            if self._scene is None:
                poses = tuple(obstacle.pose for obstacle in self._obstacles.values())
                self._scene = Scene(self._structure, poses)
            return self._scene

    # Files

    @classmethod
    def load(cls, path: str | Path, robot: Robot) -> "World":
        """Read a world from YAML, or from the text that MoveIt saves as ``.scene``.

        A file runs no code, and names no file outside its own folder and of packages.

        Raises:
            WorldError: it cannot be read, or names what does not exist.
        """
        world = cls(robot)
        load_world(world, _path(path))
        return world

    def save(self, path: str | Path) -> None:
        """Write the world as YAML that `load` reads."""
        save_world(self, _path(path))

    # What they share

    @contextmanager
    def _editing(self) -> Iterator[None]:
        with self._lock:
            yield
            self._structure = self._scene = None

    def _known(self, name: str) -> Obstacle:
        if not isinstance(name, str) or name not in self._obstacles:
            raise unknown_name(name, self._obstacles, "obstacle")
        return self._obstacles[name]

    def _add_round(
        self, kind: str, name: str, radius: float, length: float, place: dict[str, Any]
    ) -> None:
        def shape(where: str) -> Shape:
            return round_shape(where, kind, radius=radius, length=length)

        self._add(name, shape, place)

    def _add(self, name: str, shape: Any, place: dict[str, Any]) -> None:
        """Add what a function makes of the words that messages name the obstacle by."""
        where = f"obstacle {checked_name(name)!r}"
        known_options(where, place, ("pose", "xyz", "quat_xyzw", "padding", "replace"))
        options = dict(place)
        padding = checked_number(where, "padding", options.pop("padding", 0.0), least=0.0)
        replacing = options.pop("replace", False)
        pose = checked_pose(where, *(options.get(key) for key in ("pose", "xyz", "quat_xyzw")))
        made = shape(where)
        with self._editing():
            if name in self._obstacles and not replacing:
                raise WorldError(f"{where} exists already; pass replace=True to replace it")
            if name in self.robot.frames:
                raise WorldError(f"{where} has the name of a link of {self.robot.name!r}")
            self._obstacles[name] = Obstacle(name, made, pose, padding)

    def _decide(self, link: str, obstacle: str, allowed: bool) -> None:
        with self._editing():
            if link not in self.robot.frames and link not in self._obstacles:
                raise unknown_name(link, [*self.robot.frames, *self._obstacles], "link")
            if obstacle != "*" and obstacle not in self._obstacles:
                raise unknown_name(obstacle, self._obstacles, "obstacle")
            self._decisions.tell(link, obstacle, allowed)

    def _link_pose(self, q: Any, link: str) -> np.ndarray:
        flat, shape = configurations(self.robot, q)
        if shape:
            raise WorldError(f"q has shape {(*shape, flat.shape[1])}; it must be one (J,)")
        if not np.isfinite(flat).all():
            raise WorldError("q has numbers that are not finite")
        return own_check(self.robot, self._held).kinematics.link_poses(flat, [link])[0, 0]


def _path(path: Any) -> Path:
    if not isinstance(path, str | Path):
        raise WorldError(f"the file of a world is {path!r}; it must be a path")
    return Path(path)
