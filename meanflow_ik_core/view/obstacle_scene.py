# SPDX-License-Identifier: Apache-2.0
"""Obstacles in the scene, each with a gizmo that moves it in the world."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import trimesh
import viser
import viser.transforms as tf

from ..collision.obstacles import Obstacle, Shape
from ..world.world import World
from .arms import solid_name

_COLOUR = (196, 132, 60)
_PLANE = 4.0  # m, edge of what is shown of a half-space
_FARTHER, _MOST_STEPS = 0.1, 30  # m, and how often a new obstacle is put so much farther away
KINDS = ("box", "sphere", "cylinder")  # that can be added


class ObstacleScene:
    """Draws a world, and changes it when an obstacle is dragged."""

    def __init__(self, server: viser.ViserServer, world: World, changed: Callable[[], None]):
        self._scene, self._world, self._changed = server.scene, world, changed
        self._gizmos: dict[str, viser.TransformControlsHandle] = {}
        self._attached: list[viser.MeshHandle | viser.PointCloudHandle] = []
        self.redraw()

    def redraw(self) -> None:
        """Draw the obstacles that the world has now."""
        for handle in (*self._gizmos.values(), *self._attached):
            handle.remove()
        self._gizmos, self._attached = {}, []
        for number, name in enumerate(self._world.names()):
            obstacle = self._world.obstacle(name)
            if obstacle.link is None:
                self._gizmos[name] = self._gizmo(number, obstacle)
            else:
                self._attach(number, obstacle)

    def add(
        self, kind: str, size: tuple[float, float, float], position: np.ndarray,
        arm: np.ndarray | None = None,
    ) -> str:  # fmt: skip
        """Add an obstacle of a kind of `KINDS` to the world; returns its name.

        Args:
            kind: of the shape.
            size: m, of a box its edges, of others the first is the diameter, the last the length.
            position: (3,) m.
            arm: (J,) rad or m, that it shall not touch; it stands farther from the base then.

        Raises:
            WorldError: a size is not positive.
        """
        was_free = arm is not None and not self._world.in_collision(arm)
        number = 1
        while (name := f"{kind} {number}") in self._world:
            number += 1
        if kind == "box":
            self._world.add_box(name, size, xyz=position)
        elif kind == "sphere":
            self._world.add_sphere(name, size[0] / 2, xyz=position)
        else:
            self._world.add_cylinder(name, size[0] / 2, size[2], xyz=position)
        away = np.array([*position[:2], 0.0]) if np.any(position[:2]) else np.array([1.0, 0.0, 0.0])
        away *= _FARTHER / np.linalg.norm(away)
        for step in range(1, _MOST_STEPS):
            if not was_free or not self._world.in_collision(arm):
                break
            self._world.move(name, xyz=position + step * away)
        self.redraw()
        return name

    def remove(self, name: str) -> None:
        """Take an obstacle out of the world, if it is still there."""
        if name in self._world:
            self._world.remove(name)
            self.redraw()

    def _gizmo(self, number: int, obstacle: Obstacle) -> viser.TransformControlsHandle:
        place = tf.SE3.from_matrix(obstacle.pose)
        name, size = f"/world/{number}", _extent(obstacle.shape)
        gizmo = self._scene.add_transform_controls(
            name, scale=float(np.clip(0.8 * size, 0.1, 0.3)), depth_test=False, opacity=0.6,
            disable_sliders=True, disable_rotations=obstacle.shape.kind == "sphere",
            wxyz=place.rotation().wxyz, position=place.translation(),
        )  # fmt: skip
        self._draw(f"{name}/shape", obstacle.shape)

        @gizmo.on_update
        def _(event: viser.TransformControlsEvent) -> None:
            if event.client is not None:
                self._world.move(
                    obstacle.name,
                    xyz=event.target.position,
                    quat_xyzw=np.roll(event.target.wxyz, -1),
                )
                self._changed()

        return gizmo

    def _attach(self, number: int, obstacle: Obstacle) -> None:
        assert obstacle.link is not None
        node, T_node_link = self._world.robot.frames[obstacle.link]
        handle = self._draw(f"{solid_name(node)}/attached {number}", obstacle.shape)
        place = tf.SE3.from_matrix(T_node_link @ obstacle.pose)
        handle.wxyz, handle.position = place.rotation().wxyz, place.translation()
        self._attached.append(handle)

    def _draw(self, name: str, shape: Shape) -> viser.MeshHandle | viser.PointCloudHandle:
        if shape.kind == "points":
            assert shape.vertices is not None
            return self._scene.add_point_cloud(
                name, shape.vertices, colors=_COLOUR, point_size=shape.sizes[0]
            )
        mesh = mesh_of_shape(shape)
        return self._scene.add_mesh_simple(
            name, mesh.vertices, mesh.faces, color=_COLOUR, flat_shading=True,
            side="double",
        )  # fmt: skip


def mesh_of_shape(shape: Shape) -> trimesh.Trimesh:
    """Any shape but points as a mesh; of a half-space a thin plate at its surface."""
    if shape.kind == "mesh":
        return trimesh.Trimesh(shape.vertices, shape.triangles, process=False)
    if shape.kind == "half_space":
        plate = trimesh.creation.box((_PLANE, _PLANE, 0.004))
        plate.apply_translation((0, 0, -0.002))
        return plate
    if shape.kind == "box":
        return trimesh.creation.box(shape.sizes)
    if shape.kind == "sphere":
        return trimesh.creation.icosphere(3, *shape.sizes)
    if shape.kind == "cone":
        radius, length = shape.sizes
        cone = trimesh.creation.cone(radius, length)
        cone.apply_translation((0, 0, -length / 2))
        return cone
    radius, length = shape.sizes
    create = {"cylinder": trimesh.creation.cylinder, "capsule": trimesh.creation.capsule}
    return create[shape.kind](radius=radius, height=length)


def _extent(shape: Shape) -> float:
    """m, about how large it is."""
    return (
        0.3 if shape.kind in ("points", "half_space") else float(max(mesh_of_shape(shape).extents))
    )
