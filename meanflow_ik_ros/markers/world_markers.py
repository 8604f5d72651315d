# SPDX-License-Identifier: Apache-2.0
"""What ~/world_markers shows: the objects of the node's world."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from geometry_msgs.msg import Point, Vector3
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from meanflow_ik_core.bounds import MOST_SHOWN_TRIANGLES
from meanflow_ik_ros.messages.poses import poses_from_matrices
from meanflow_ik_ros.world_objects import Part

if TYPE_CHECKING:
    from meanflow_ik_ros.world_objects import WorldObject, WorldObjects

FREE, ATTACHED = (0.45, 0.55, 0.60), (0.62, 0.35, 0.72)
SOLID, ALLOWED = 0.9, 0.25  # opacity; a ghost is what some link may touch
PLANE_M = 4.0  # edge of the square that stands for a half-space
_CONE_SIDES = 24


def world_markers(content: WorldObjects) -> MarkerArray:
    """All objects, each in a namespace of its own, in the frame that it moves with.

    Clouds are left out: viewers show their topics. Where all meshes together have more triangles
    than `MOST_SHOWN_TRIANGLES`, those for which none are left are boxes around themselves.
    """
    boxed = _boxed(content)
    base = content.world.robot.base
    allowed = {name for (_, name), may in content.world.decisions().items() if may}
    markers = [Marker(header=Header(frame_id=base), action=Marker.DELETEALL)]
    for known in content.objects.values():
        red, green, blue = FREE if known.link is None else ATTACHED
        ghost = not allowed.isdisjoint(["*", *known.names()])
        colour = ColorRGBA(r=red, g=green, b=blue, a=ALLOWED if ghost else SOLID)
        header = Header(frame_id=known.link or known.frame or base)
        pose = known.T_frame_object if known.frame else content.pose(known.id)
        markers += _markers(known, pose, header, colour, boxed)
    return MarkerArray(markers=markers)


def _boxed(content: WorldObjects) -> set[Part]:
    """Meshes that are shown as boxes."""
    left, boxed = MOST_SHOWN_TRIANGLES, set()
    for known in content.objects.values():
        for part in known.parts:
            count = len(part.arguments["triangles"]) if part.kind == "mesh" else 0
            if count > left:
                boxed.add(part)
            else:
                left -= count
    return boxed


def _markers(
    known: WorldObject, pose: np.ndarray, header: Header, colour: ColorRGBA, boxed: set[Part]
) -> Iterator[Marker]:
    places = np.stack([pose @ part.T_object_part for part in known.parts])
    for index, (part, place) in enumerate(zip(known.parts, places, strict=True)):
        marker = Marker(
            header=header,
            ns=known.id,
            id=index,
            action=Marker.ADD,
            color=colour,
            # With every frame of the viewer: it moves with what it is in.
            frame_locked=True,
        )
        if part in boxed:
            part, T_mesh_box = _box_around(part.arguments["vertices"])
            place = place @ T_mesh_box
        _shape(marker, part)
        if part.kind == "half_space":
            place = place.copy()
            place[:3, 3] -= 0.5 * marker.scale.z * place[:3, 2]
        (marker.pose,) = poses_from_matrices(place[None])
        yield marker


def _box_around(vertices: np.ndarray) -> tuple[Part, np.ndarray]:
    """A box around corners (V, 3) of a mesh, and where it is there."""
    low, high = vertices.min(0), vertices.max(0)
    T_mesh_box = np.eye(4)
    T_mesh_box[:3, 3] = 0.5 * (low + high)
    size = np.maximum(high - low, 1e-3).tolist()  # of a flat one, viewers show nothing
    return Part("box", {"size": size}, T_mesh_box), T_mesh_box


def _shape(marker: Marker, part: Part) -> None:
    given = part.arguments
    if part.kind in ("mesh", "cone"):
        marker.type = Marker.TRIANGLE_LIST
        marker.scale = Vector3(x=1.0, y=1.0, z=1.0)
        corners = (
            given["vertices"][given["triangles"]]
            if part.kind == "mesh"
            else _cone(given["radius"], given["length"])
        )
        marker.points = [Point(x=x, y=y, z=z) for x, y, z in corners.reshape(-1, 3).tolist()]
        return
    kind, sizes = {
        "box": lambda: (Marker.CUBE, given["size"]),
        "sphere": lambda: (Marker.SPHERE, [2 * given["radius"]] * 3),
        "cylinder": lambda: (Marker.CYLINDER, [2 * given["radius"]] * 2 + [given["length"]]),
        "half_space": lambda: (Marker.CUBE, [PLANE_M, PLANE_M, 0.01]),
    }[part.kind]()
    marker.type, marker.scale = kind, Vector3(**dict(zip("xyz", sizes, strict=True)))


def _cone(radius: float, length: float) -> np.ndarray:
    """(F, 3, 3) corners of the triangles of a cone along z, its tip at z = length / 2."""
    angle = np.linspace(0, 2 * np.pi, _CONE_SIDES + 1)
    rim = np.stack(
        [radius * np.cos(angle), radius * np.sin(angle), np.full(len(angle), -length / 2)], -1
    )
    tip, middle = np.array((0, 0, length / 2)), np.array((0, 0, -length / 2))
    side = [(rim[i], rim[i + 1], tip) for i in range(_CONE_SIDES)]
    bottom = [(rim[i + 1], rim[i], middle) for i in range(_CONE_SIDES)]
    return np.array(side + bottom)
