# SPDX-License-Identifier: Apache-2.0
"""The visuals of a robot's URDF, and where they are for a configuration."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from visualization_msgs.msg import Marker

from meanflow_ik_core.errors import RobotError
from meanflow_ik_core.geometry import matrix_from_rpy
from meanflow_ik_core.robot.pinocchio_model import PinocchioModel
from meanflow_ik_core.robot.urdf import read_urdf

if TYPE_CHECKING:
    from meanflow_ik_core.robot.robot import Robot


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
    for link in read_urdf(urdf_path).iter("link"):
        for element in link.findall("visual"):
            name = link.get("name", "")
            shape = element.find("geometry/*")
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
