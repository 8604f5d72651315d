# SPDX-License-Identifier: Apache-2.0
"""What a robot looks like: one body for each moving node of its tree, and one for its base."""

import io
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import trimesh
import yourdfpy
from trimesh.visual import TextureVisuals
from trimesh.visual.material import PBRMaterial

from ..bounds import MOST_MESH_BYTES, check_file_size
from ..errors import RobotError
from ..robot.composition import portable_urdf
from ..robot.packages import resolve_uri
from ..robot.robot import Robot

_LOG = logging.getLogger(__name__)

_GREY = (0.75, 0.76, 0.78, 1.0)
_FEW = 300  # triangles of a body, where few are wished
_FINEST = 1e-3  # m, corners of such a body that are nearer become one
_INSET = 2e-3  # m, that such a body is thinner, so that the solid one hides it where they are one
_BONE = 0.02  # m, radius of a line between joints
# The visual meshes of arms whose shipped URDF has primitives alone, because it stands alone.
_DETAILED = "package://example-robot-data/robots/panda_description/urdf/panda.urdf"


@dataclass(frozen=True, eq=False)
class Body:
    """What moves with one node, in the node's frame; node -1 is the base."""

    node: int
    scene: trimesh.Scene  # with its colours

    @cached_property
    def whole(self) -> trimesh.Trimesh:
        """All of it as one mesh."""
        return self.scene.to_mesh()

    def light(self, most: int) -> trimesh.Trimesh:
        """The same of so many triangles at most, and a little thinner."""
        light = trimesh.Trimesh(*_light(self.whole.vertices, self.whole.faces, most), process=False)
        light.vertices -= _INSET * light.vertex_normals
        return light

    def coarse(self) -> "Body":
        """The same of few triangles, in one colour."""
        light = trimesh.Trimesh(*_light(self.whole.vertices, self.whole.faces, _FEW), process=False)
        _paint(light, _GREY)
        return Body(self.node, trimesh.Scene(light))


def bodies_of(robot: Robot) -> list[Body]:
    """What there is to draw of a robot, never nothing.

    Of each link its visuals; where it has none or none can be read, its collision shapes. A robot
    without either is drawn as lines between its joints.
    """
    urdf, detailed, missing = _read(robot.urdf_path), _detailed_panda(), []
    scenes: dict[int, trimesh.Scene] = {}
    for name, link in urdf.link_map.items():
        if name not in robot.frames:
            continue
        node, T_node_link = robot.frames[name]
        meshes = _stand_in(urdf, name, detailed) or _meshes_of(link.visuals, missing)
        for mesh in meshes or _meshes_of(link.collisions, missing):
            mesh.apply_transform(T_node_link)
            scenes.setdefault(node, trimesh.Scene()).add_geometry(mesh)
    if missing:
        _LOG.warning(
            "%d shapes of %s are not drawn: %s", len(missing), robot.name, " ".join(missing[:1])
        )
    if not any(node >= 0 for node in scenes):
        scenes = _bones(robot)
    return [Body(node, scene) for node, scene in sorted(scenes.items())]


def _light(vertices: np.ndarray, faces: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """The same of few triangles: corners that share a cell of a grid become one, their mean."""
    cell = _FINEST
    while True:
        numbers = np.round((vertices - vertices.min(0)) / cell).astype(np.int64)
        _, cells, counts = np.unique(
            numbers @ (1 << 42, 1 << 21, 1), return_inverse=True, return_counts=True
        )
        means = np.stack([np.bincount(cells, along) for along in vertices.T], 1) / counts[:, None]
        corners = cells[faces]
        corners = corners[(corners != np.roll(corners, 1, 1)).all(1)]
        if len(corners) <= most:
            return means, corners
        cell *= 1.25


def _read(path: Path) -> yourdfpy.URDF:
    """A URDF that is known to be one; its meshes are not read."""
    text = io.BytesIO(portable_urdf(path).encode())
    return yourdfpy.URDF.load(text, build_scene_graph=False, load_meshes=False)


def _meshes_of(shapes: list, missing: list[str]) -> list[trimesh.Trimesh]:
    """Visuals or collision shapes as meshes in the link's frame; those that cannot be read not."""
    found = []
    for shape in shapes:
        origin = np.eye(4) if shape.origin is None else shape.origin
        try:
            meshes = list(_meshes_of_geometry(shape.geometry))
        except Exception as error:  # readers of meshes fail in many ways
            missing.append(str(error))
            continue
        material = getattr(shape, "material", None)
        colour = getattr(getattr(material, "color", None), "rgba", None)
        for mesh in meshes:
            mesh.apply_transform(origin)
            if colour is not None or not _has_colour(mesh):
                _paint(mesh, _GREY if colour is None else colour)
        found += meshes
    return found


def _meshes_of_geometry(geometry: yourdfpy.Geometry) -> Iterator[trimesh.Trimesh]:
    if geometry.box is not None:
        yield trimesh.creation.box(geometry.box.size)
    if geometry.sphere is not None:
        yield trimesh.creation.icosphere(3, geometry.sphere.radius)
    if geometry.cylinder is not None:
        yield trimesh.creation.cylinder(geometry.cylinder.radius, geometry.cylinder.length)
    if geometry.mesh is not None:
        # what is not found kept its address, and raises a RobotError that says so
        file = resolve_uri(geometry.mesh.filename, Path.cwd())
        check_file_size(file, MOST_MESH_BYTES, RobotError)
        scale = np.ones(3) if geometry.mesh.scale is None else np.ones(3) * geometry.mesh.scale
        meshes = [m for m in _scene_of(file).dump() if isinstance(m, trimesh.Trimesh)]
        if not sum(len(mesh.faces) for mesh in meshes):
            raise RobotError(f"{file} holds no triangles")
        for mesh in meshes:
            mesh.apply_scale(scale)
            yield mesh


@lru_cache(64)  # two arms share their files
def _scene_of(file: Path) -> trimesh.Scene:
    """What a file holds, not to be changed."""
    return trimesh.load_scene(file)


def _has_colour(mesh: trimesh.Trimesh) -> bool:
    visual = mesh.visual
    return visual is not None and visual.kind is not None


def _paint(mesh: trimesh.Trimesh, rgba: tuple[float, float, float, float]) -> None:
    material = PBRMaterial(baseColorFactor=rgba, metallicFactor=0.1, roughnessFactor=0.6)
    mesh.visual = TextureVisuals(material=material)


def _detailed_panda() -> yourdfpy.URDF | None:
    try:
        return _read(resolve_uri(_DETAILED, Path.cwd()))
    except RobotError:  # the extra `robots` is not installed
        return None


def _stand_in(
    urdf: yourdfpy.URDF, link: str, detailed: yourdfpy.URDF | None
) -> list[trimesh.Trimesh]:
    """Meshes of a link of a Panda, whatever prefix it has, that is described by primitives."""
    shapes = urdf.link_map[link].visuals
    if detailed is None or not shapes or any(shape.geometry.mesh for shape in shapes):
        return []
    name = next((name for name in detailed.link_map if link.endswith(name)), None)
    if name is None:
        return []
    above, above_there = _origin_of(urdf, link), _origin_of(detailed, name)
    # the first link has none above it there, and may be mounted anywhere here
    if above_there is not None and (
        above is None or not np.allclose(above, above_there, atol=1e-3)
    ):
        return []
    return _meshes_of(detailed.link_map[name].visuals, [])


def _origin_of(urdf: yourdfpy.URDF, link: str) -> np.ndarray | None:
    """(4, 4) where a link stands in the one above it, None where there is none."""
    joint = next((joint for joint in urdf.joint_map.values() if joint.child == link), None)
    if joint is None:
        return None
    return np.eye(4) if joint.origin is None else joint.origin


def _bones(robot: Robot) -> dict[int, trimesh.Scene]:
    """Lines from each node to those that it carries, and to the tips."""
    scenes: dict[int, trimesh.Scene] = {}

    def add(node: int, end: np.ndarray) -> None:
        scene = scenes.setdefault(node, trimesh.Scene())
        shapes: list[trimesh.Trimesh] = [trimesh.creation.icosphere(2, 1.5 * _BONE)]
        if np.linalg.norm(end) > 1e-6:
            shapes.append(trimesh.creation.cylinder(_BONE, segment=[np.zeros(3), end]))
        for shape in shapes:
            _paint(shape, _GREY)
            scene.add_geometry(shape)

    for node, parent in enumerate(robot.parent):
        add(int(parent), robot.placement[node, :3, 3])
    for tip, node in enumerate(robot.tip_node):
        add(int(node), robot.tip_placement[tip, :3, 3])
    return scenes
