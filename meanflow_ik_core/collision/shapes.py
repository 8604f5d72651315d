# SPDX-License-Identifier: Apache-2.0
"""Collision shapes of a URDF as Coal's: primitives, meshes, and the convex hulls of those."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import NamedTuple

import coal
import numpy as np
import pinocchio as pin

from ..bounds import FARTHEST_CORNER
from ..errors import RobotError
from ..plain_numbers import plain_float
from ..robot.packages import resolve_uri
from ..robot.urdf import linked_name, read_joint_elements, read_urdf
from .mesh_files import Mesh, MeshReader, tree_from_mesh

_FLAT = 1e-9  # extent of a mesh in its thinnest direction, as a share of the longest
_Pair = tuple[coal.CollisionGeometry, coal.CollisionGeometry]  # exact, hull


class Shapes(NamedTuple):
    """The G shapes of a robot twice, in the same order and without pairs."""

    exact: pin.GeometryModel
    hulls: pin.GeometryModel  # every mesh replaced by its convex hull
    links: tuple[str, ...]  # G, the link of each shape
    differ: bool  # whether any mesh is not convex


def read_shapes(urdf_path: Path, model: pin.Model) -> Shapes:
    """The collision shapes of every link.

    Raises:
        RobotError: a shape is malformed, or its mesh does not exist or cannot be read.
    """
    exact, hulls = pin.GeometryModel(), pin.GeometryModel()
    meshes: dict[tuple, _Pair] = {}
    links: list[str] = []
    with MeshReader(RobotError) as reader:
        for link in read_urdf(urdf_path).findall("link"):
            name = link.get("name", "")
            for index, element in enumerate(link.findall("collision")):
                frame_index = model.getFrameId(name, pin.FrameType.BODY)
                frame = model.frames[frame_index]
                try:
                    pair = _shape(element, urdf_path, meshes, reader)
                    placement = frame.placement * _origin(element)
                except (TypeError, ValueError) as error:
                    raise RobotError(
                        f"a collision shape of link {name!r} in {urdf_path} is malformed: {error}"
                    ) from error
                links.append(name)
                for geometry, shape in zip((exact, hulls), pair, strict=True):
                    geometry.addGeometryObject(
                        pin.GeometryObject(
                            f"{name}_{index}", frame.parentJoint, frame_index, placement, shape
                        )
                    )
    differ = any(mesh is not hull for mesh, hull in meshes.values())
    return Shapes(exact, hulls, tuple(links), differ)


def neighbours(urdf_path: Path) -> set[frozenset[str]]:
    """Pairs of links with shapes that one joint connects, which may touch where they meet.

    Links without shapes that hang on fixed joints in between count as parts of that joint. Unlike
    in MoveIt, two links that hang on the same link without shapes are no neighbours.
    """
    links = read_urdf(urdf_path).findall("link")
    shaped = {link.get("name", "") for link in links if link.find("collision") is not None}
    above = {
        linked_name(joint, "child"): (linked_name(joint, "parent"), joint.get("type") != "fixed")
        for joint in read_joint_elements(urdf_path).values()
    }
    pairs = set()
    for link in shaped:
        place, moving = link, 0
        while place in above and (place == link or place not in shaped):
            place, moves = above[place]
            moving += moves
        if place != link and place in shaped and moving <= 1:
            pairs.add(frozenset((link, place)))
    return pairs


def _numbers(text: str | None, count: int, default: float) -> np.ndarray:
    values = np.array([plain_float(word) for word in (text or "").split()] or [default] * count)
    if values.shape != (count,) or not np.isfinite(values).all():
        raise ValueError(f"{text!r} must be {count} numbers")
    return values


def _sizes(shape: ElementTree.Element, key: str, count: int = 1) -> np.ndarray:
    values = _numbers(shape.get(key), count, np.nan)
    if not ((values > 0) & (values <= FARTHEST_CORNER)).all():
        raise ValueError(
            f"the {key} of its {shape.tag} is {shape.get(key)!r}; it must be positive, and at most "
            f"{FARTHEST_CORNER:g}"
        )
    return values


def _origin(element: ElementTree.Element) -> pin.SE3:
    origin = element.find("origin")
    if origin is None:
        return pin.SE3.Identity()
    rpy = _numbers(origin.get("rpy"), 3, 0.0)
    return pin.SE3(pin.rpy.rpyToMatrix(*rpy), _numbers(origin.get("xyz"), 3, 0.0))


def _shape(
    element: ElementTree.Element, urdf_path: Path, meshes: dict[tuple, _Pair], reader: MeshReader
) -> _Pair:
    holder = element.find("geometry")
    shape = None if holder is None or len(holder) == 0 else holder[0]
    if shape is None:
        raise ValueError("it has no geometry")
    if shape.tag == "mesh":
        scale = _numbers(shape.get("scale"), 3, 1.0)
        if not scale.all():
            raise ValueError(f"the scale of its mesh is {shape.get('scale')!r}; 0 leaves nothing")
        key = (shape.get("filename"), *scale)
        if key not in meshes:
            path = resolve_uri(shape.get("filename") or "", urdf_path)
            meshes[key] = _read_mesh(path, scale, urdf_path, reader)
        return meshes[key]
    if shape.tag == "box":
        solid = coal.Box(*_sizes(shape, "size", 3))
    elif shape.tag == "sphere":
        solid = coal.Sphere(*_sizes(shape, "radius"))
    elif shape.tag in ("cylinder", "capsule"):
        kind = coal.Cylinder if shape.tag == "cylinder" else coal.Capsule
        solid = kind(*_sizes(shape, "radius"), *_sizes(shape, "length"))
    else:
        raise ValueError(f"<{shape.tag}> is no box, sphere, cylinder, capsule or mesh")
    return solid, solid


def _read_mesh(path: Path, scale: np.ndarray, urdf_path: Path, reader: MeshReader) -> _Pair:
    what = f"mesh {path}, which {urdf_path} names,"
    corners, triangles = reader.read(path, what)
    metres = corners * (scale * _metres_of_unit(path))
    mesh = tree_from_mesh(Mesh(metres, triangles), what, RobotError)
    hull = convex_hull(mesh)
    if hull is None:
        return mesh, mesh
    # A convex mesh is its hull, which is quicker to check and solid.
    return (hull, hull) if hull.num_points == mesh.num_vertices else (mesh, hull)


def convex_hull(mesh: coal.BVHModelBase) -> coal.ConvexBase | None:
    """The convex hull of a mesh; None where it is flat and encloses no volume."""
    corners = np.array(mesh.vertices())
    extents = np.linalg.svd(corners - corners.mean(0), compute_uv=False)
    if len(corners) < 4 or extents[2] <= _FLAT * extents[0]:
        return None  # of some flat meshes Coal's hull ends the process
    try:
        mesh.buildConvexHull(True, "Qt")
    except RuntimeError:
        return None
    return mesh.convex


def _metres_of_unit(path: Path) -> float:
    """The unit of a COLLADA file [m], which Coal does not look at, and RViz does; else 1."""
    if path.suffix.lower() != ".dae":
        return 1.0
    try:
        for _, element in ElementTree.iterparse(path):
            tag = element.tag.rpartition("}")[2]
            if tag == "unit":
                metres = float(element.get("meter", "1"))
                return metres if 0 < metres < np.inf else 1.0
            if tag == "asset":
                break
    except (ElementTree.ParseError, ValueError, LookupError):
        pass  # Coal says whether it can read the file
    return 1.0
