# SPDX-License-Identifier: Apache-2.0
"""Candidates as translucent arms for RViz: the URDF's visuals, placed by Pinocchio."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pinocchio as pin
from geometry_msgs.msg import Point, Pose, Quaternion, Vector3
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker

from meanflow_ik_core.errors import RobotError
from meanflow_ik_core.geometry import matrix_from_rpy, quat_xyzw_from_matrix
from meanflow_ik_core.robot.pinocchio_model import PinocchioModel

if TYPE_CHECKING:
    from meanflow_ik_core.robot.robot import Robot

# From the best rank to the last: green, teal, blue, violet, rose. Told apart by the colour-blind.
RANK_COLOURS = np.array(
    [
        (0.10, 0.70, 0.35),
        (0.08, 0.62, 0.72),
        (0.20, 0.42, 0.85),
        (0.50, 0.32, 0.80),
        (0.82, 0.34, 0.55),
    ]
)
AXIS_COLOURS = ((0.86, 0.20, 0.18), (0.25, 0.65, 0.25), (0.18, 0.38, 0.85))


@dataclass(frozen=True, eq=False)
class Visual:
    """One visual of a link.

    kind: Marker.CUBE, CYLINDER, SPHERE or MESH_RESOURCE.
    scale: (3,) extents [m]; of a mesh, its factors.
    T_link_visual: (4, 4).
    mesh: URI of a MESH_RESOURCE.
    """

    link: str
    kind: int
    scale: tuple[float, float, float]
    T_link_visual: np.ndarray
    mesh: str = ""


class RobotVisuals:
    """Places the visuals of a robot; made once, used for every set of candidates."""

    def __init__(self, robot: Robot) -> None:
        self.visuals = read_visuals(robot.urdf_path)
        self._model = PinocchioModel(robot)
        self._links = [visual.link for visual in self.visuals]
        self._T_link_visual = np.array([v.T_link_visual for v in self.visuals]).reshape(-1, 4, 4)

    def poses(self, q: Any) -> np.ndarray:
        """T_base_visual (M, V, 4, 4) of the V visuals for q (M, J); other joints rest."""
        q = np.atleast_2d(np.asarray(q, dtype=np.float64))
        return self._model.link_poses(q, self._links) @ self._T_link_visual


def read_visuals(urdf_path: Path) -> list[Visual]:
    """Visuals of a URDF in the order of the file.

    Raises:
        RobotError: a visual has a geometry that is no box, cylinder, sphere or mesh.
    """
    visuals = []
    for link in ElementTree.parse(urdf_path).getroot().iter("link"):
        for element in link.findall("visual"):
            name = link.get("name", "")
            shape = next(iter(element.find("geometry") or ()), None)
            kind, scale, mesh = marker_shape(shape, name, urdf_path)
            visuals.append(Visual(name, kind, scale, transform_of(element), mesh))
    return visuals


def marker_shape(
    shape: ElementTree.Element | None, link: str, urdf_path: Path
) -> tuple[int, tuple[float, float, float], str]:
    """Marker type, scale (3,) and mesh URI of what a <geometry> holds."""
    tag = "nothing" if shape is None else shape.tag
    if shape is not None and tag == "box":
        return Marker.CUBE, numbers(shape.get("size")), ""
    if shape is not None and tag == "cylinder":
        diameter = 2 * float(shape.get("radius", "nan"))
        return Marker.CYLINDER, (diameter, diameter, float(shape.get("length", "nan"))), ""
    if shape is not None and tag == "sphere":
        diameter = 2 * float(shape.get("radius", "nan"))
        return Marker.SPHERE, (diameter, diameter, diameter), ""
    if shape is not None and tag == "mesh":
        uri = shape.get("filename", "")
        if "://" not in uri:
            uri = (urdf_path.parent / uri).resolve().as_uri()
        return Marker.MESH_RESOURCE, numbers(shape.get("scale", "1 1 1")), uri
    raise RobotError(
        f"a visual of link {link!r} in {urdf_path} holds {tag}, "
        "expected box, cylinder, sphere or mesh"
    )


def transform_of(element: ElementTree.Element) -> np.ndarray:
    """(4, 4) of the <origin> of an element; identity where there is none."""
    transform, origin = np.eye(4), element.find("origin")
    if origin is not None:
        transform[:3, :3] = matrix_from_rpy(numbers(origin.get("rpy", "0 0 0")))
        transform[:3, 3] = numbers(origin.get("xyz", "0 0 0"))
    return transform


def numbers(text: str | None) -> tuple[float, float, float]:
    """Three numbers of a URDF attribute."""
    x, y, z = (float(word) for word in (text or "").split())
    return x, y, z


def rank_colour(rank: int, count: int) -> tuple[float, float, float]:
    """Red, green, blue of candidate `rank` of `count`, 0 being the best."""
    place = rank / max(count - 1, 1) * (len(RANK_COLOURS) - 1)
    anchors = np.arange(len(RANK_COLOURS))
    red, green, blue = (float(np.interp(place, anchors, column)) for column in RANK_COLOURS.T)
    return red, green, blue


def arm_markers(visuals: RobotVisuals, q: Any, opacity: float, header: Header) -> Iterator[Marker]:
    """One arm per row of q (M, J), best first; each has a namespace, so that RViz can hide it."""
    if len(q) == 0:
        return
    poses = visuals.poses(q)
    positions = poses[..., :3, 3].tolist()
    quats_xyzw = quat_xyzw_from_matrix(poses[..., :3, :3]).tolist()
    for rank in range(len(poses)):
        red, green, blue = rank_colour(rank, len(poses))
        colour = ColorRGBA(r=red, g=green, b=blue, a=float(opacity))
        for index, visual in enumerate(visuals.visuals):
            x, y, z = positions[rank][index]
            qx, qy, qz, qw = quats_xyzw[rank][index]
            yield Marker(
                header=header,
                ns=f"candidate_{rank:03d}",
                id=index,
                type=visual.kind,
                action=Marker.ADD,
                pose=Pose(
                    position=Point(x=x, y=y, z=z),
                    orientation=Quaternion(x=qx, y=qy, z=qz, w=qw),
                ),
                scale=Vector3(x=visual.scale[0], y=visual.scale[1], z=visual.scale[2]),
                color=colour,
                mesh_resource=visual.mesh,
            )


def axes_markers(
    pose: np.ndarray, length: float, name: str, header: Header, first_id: int = 0
) -> Iterator[Marker]:
    """Red, green and blue rods along x, y and z of a frame (4, 4)."""
    rods = (pin.rpy.rpyToMatrix(0.0, np.pi / 2, 0.0), pin.rpy.rpyToMatrix(-np.pi / 2, 0.0, 0.0))
    for axis, turn in enumerate((*rods, np.eye(3))):
        middle = pose[:3, 3] + 0.5 * length * pose[:3, axis]
        x, y, z, w = pin.Quaternion(pose[:3, :3] @ turn).coeffs().tolist()
        red, green, blue = AXIS_COLOURS[axis]
        yield Marker(
            header=header,
            ns=name,
            id=first_id + axis,
            type=Marker.CYLINDER,
            action=Marker.ADD,
            pose=Pose(
                position=Point(x=float(middle[0]), y=float(middle[1]), z=float(middle[2])),
                orientation=Quaternion(x=x, y=y, z=z, w=w),
            ),
            scale=Vector3(x=0.08 * length, y=0.08 * length, z=float(length)),
            color=ColorRGBA(r=red, g=green, b=blue, a=1.0),
        )


def text_marker(
    text: str,
    position: Any,
    height: float,
    colour: tuple[float, float, float],
    name: str,
    header: Header,
    id: int,
) -> Marker:
    """A line of text with its middle at `position` (3,), that always faces the viewer."""
    x, y, z = (float(value) for value in position)
    red, green, blue = colour
    return Marker(
        header=header,
        ns=name,
        id=id,
        type=Marker.TEXT_VIEW_FACING,
        action=Marker.ADD,
        pose=Pose(position=Point(x=x, y=y, z=z)),
        scale=Vector3(z=float(height)),
        color=ColorRGBA(r=red, g=green, b=blue, a=1.0),
        text=text,
    )
