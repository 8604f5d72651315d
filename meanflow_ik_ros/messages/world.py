# SPDX-License-Identifier: Apache-2.0
"""Objects of the world from messages, and back; those of MoveIt have the same fields."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from geometry_msgs.msg import Point
from sensor_msgs.msg import JointState
from shape_msgs.msg import Mesh, MeshTriangle, Plane, SolidPrimitive

from meanflow_ik_core.errors import WorldError
from meanflow_ik_core.world.inputs import checked_pose, checked_vector
from meanflow_ik_ros.messages.fields import doubles
from meanflow_ik_ros.messages.poses import poses_from_matrices
from meanflow_ik_ros.msg import AllowedContact, AttachedWorldObject
from meanflow_ik_ros.msg import WorldObject as WorldObjectMessage
from meanflow_ik_ros.world_objects import Part, WorldObject

if TYPE_CHECKING:
    from meanflow_ik_ros.world_objects import WorldObjects

# The numbers of dimensions of the primitives that a world can have, and what they are there.
_PRIMITIVES = {
    SolidPrimitive.BOX: ("box", 3),
    SolidPrimitive.SPHERE: ("sphere", 1),
    SolidPrimitive.CYLINDER: ("cylinder", 2),
    SolidPrimitive.CONE: ("cone", 2),
}


def matrix_of_pose(where: str, pose: Any) -> np.ndarray:
    """(4, 4) of a pose; WorldError unless it is finite and its quaternion of unit length."""
    position, orientation = pose.position, pose.orientation
    quat_xyzw = (orientation.x, orientation.y, orientation.z, orientation.w)
    return checked_pose(where, None, (position.x, position.y, position.z), quat_xyzw)


def operation_of(message: Any) -> int:
    """The number of an operation, which MoveIt's message has as a byte."""
    operation = message.operation
    return operation[0] if isinstance(operation, bytes) else int(operation)


def object_from_message(message: Any) -> WorldObject:
    """The object of a message, not locked to its frame.

    Raises:
        WorldError: it has no shape, one that no world can have, or more poses than shapes.
    """
    where = f"object {message.id!r}"
    parts = [
        *_placed(where, "primitive", message.primitives, message.primitive_poses, _primitive),
        *_placed(
            where, "mesh", message.meshes, message.mesh_poses, _mesh,
            convex=bool(getattr(message, "convex", False)),
        ),
        *_placed(where, "plane", message.planes, message.plane_poses, _plane),
    ]  # fmt: skip
    if not parts:
        raise WorldError(f"{where} has no shapes; it needs primitives, meshes or planes")
    return WorldObject(message.id, tuple(parts), float(getattr(message, "padding", 0.0)))


def has_shapes(message: Any) -> bool:
    """Whether a message brings shapes."""
    return bool(len(message.primitives) or len(message.meshes) or len(message.planes))


def places_from_message(message: Any, known: WorldObject) -> list[np.ndarray] | None:
    """T_object_part (4, 4) of each part of an object that moves; None: where they were.

    Raises:
        WorldError: it brings other numbers of poses than the object has shapes.
    """
    where = f"object {message.id!r}"
    poses = {
        "primitive_poses": message.primitive_poses,
        "mesh_poses": message.mesh_poses,
        "plane_poses": message.plane_poses,
    }
    if not any(len(given) for given in poses.values()):
        return None
    kinds = [{"mesh": 1, "half_space": 2}.get(part.kind, 0) for part in known.parts]
    places: list[np.ndarray | None] = [None] * len(kinds)
    for kind, (field, given) in enumerate(poses.items()):
        own = [place for place, one in enumerate(kinds) if one == kind]
        if len(given) != len(own):
            raise WorldError(
                f"MOVE of {where} has {len(given)} {field}; the object has {len(own)} such shapes"
            )
        for place, pose in zip(own, given, strict=True):
            T_object_shape = matrix_of_pose(where, pose)
            # A plane of other coefficients than z = 0 stands elsewhere than its pose.
            if kind == 2:
                T_object_shape = T_object_shape @ known.parts[place].arguments["T_pose_plane"]
            places[place] = T_object_shape
    return [place for place in places if place is not None]


def _placed(
    where: str, what: str, shapes: Sequence[Any], poses: Sequence[Any], read: Any, **options: Any
) -> Iterator[Part]:
    if len(poses) > len(shapes):
        raise WorldError(f"{where} has {len(poses)} poses for {len(shapes)} shapes of {what}")
    for index, shape in enumerate(shapes):
        name = f"{what} {index} of {where}"
        pose = matrix_of_pose(name, poses[index]) if index < len(poses) else np.eye(4)
        kind, arguments, T_pose_part = read(name, shape, **options)
        yield Part(kind, arguments, pose @ T_pose_part)


def _primitive(where: str, shape: Any) -> tuple[str, dict[str, Any], np.ndarray]:
    if shape.type not in _PRIMITIVES:
        raise WorldError(
            f"{where} has type {shape.type}; there are BOX 1, SPHERE 2, CYLINDER 3 and CONE 4"
        )
    kind, count = _PRIMITIVES[shape.type]
    sizes = [float(size) for size in shape.dimensions]
    if len(sizes) != count:
        raise WorldError(f"{where}, a {kind}, has {len(sizes)} dimensions; it needs {count}")
    if kind == "box":
        return kind, {"size": sizes}, np.eye(4)
    if kind == "sphere":
        return kind, {"radius": sizes[0]}, np.eye(4)
    length, radius = sizes
    return kind, {"radius": radius, "length": length}, np.eye(4)


def _mesh(where: str, shape: Any, convex: bool) -> tuple[str, dict[str, Any], np.ndarray]:
    vertices = np.array([(p.x, p.y, p.z) for p in shape.vertices], np.float64).reshape(-1, 3)
    triangles = np.array([t.vertex_indices for t in shape.triangles], np.int64)
    arguments = {"vertices": vertices, "triangles": triangles.reshape(-1, 3), "convex": convex}
    return "mesh", arguments, np.eye(4)


def _plane(where: str, shape: Any) -> tuple[str, dict[str, Any], np.ndarray]:
    """a x + b y + c z + d = 0, of which (a, b, c) points into the free."""
    coefficients = checked_vector(where, "coef", list(shape.coef), 4)
    length = float(np.linalg.norm(coefficients[:3]))
    if length < 1e-9:
        raise WorldError(f"{where} has coef {coefficients.tolist()}; a, b, c must have a length")
    normal = coefficients[:3] / length
    T = np.eye(4)
    T[:3, 2] = normal
    T[:3, 0] = np.cross(np.eye(3)[np.abs(normal).argmin()], normal)
    T[:3, 0] /= np.linalg.norm(T[:3, 0])
    T[:3, 1] = np.cross(normal, T[:3, 0])
    T[:3, 3] = -coefficients[3] / length * normal
    return "half_space", {"T_pose_plane": T}, T


def messages_from_objects(
    objects: WorldObjects,
) -> tuple[list[WorldObjectMessage], list[AttachedWorldObject]]:
    """Messages that make the same objects."""
    free, attached = [], []
    for known in objects.objects.values():
        message = _message(known, objects.pose(known.id))
        message.header.frame_id = known.link or known.frame or objects.world.robot.base
        if known.link is None:
            free.append(message)
        else:
            attached.append(
                AttachedWorldObject(
                    link_name=known.link, object=message, touch_links=list(known.touch_links)
                )
            )
    return free, attached


def _message(known: WorldObject, pose: np.ndarray) -> WorldObjectMessage:
    message = WorldObjectMessage(
        id=known.id,
        operation=WorldObjectMessage.ADD,
        padding=known.padding,
        frame_locked=bool(known.frame),
        convex=any(part.arguments.get("convex", False) for part in known.parts),
    )
    own = known.T_frame_object if known.frame else pose
    message.pose, *places = poses_from_matrices(
        np.stack((own, *(part.T_object_part for part in known.parts)))
    )
    for part, place in zip(known.parts, places, strict=True):
        given = part.arguments
        if part.kind == "half_space":
            message.planes.append(Plane(coef=[0.0, 0.0, 1.0, 0.0]))
            message.plane_poses.append(place)
        elif part.kind == "mesh":
            corners = [Point(x=x, y=y, z=z) for x, y, z in given["vertices"].tolist()]
            faces = [MeshTriangle(vertex_indices=face) for face in given["triangles"].astype("u4")]
            message.meshes.append(Mesh(vertices=corners, triangles=faces))
            message.mesh_poses.append(place)
        else:
            kind = next(key for key, (name, _) in _PRIMITIVES.items() if name == part.kind)
            sizes = given.get("size") or [given[k] for k in ("length", "radius") if k in given]
            message.primitives.append(SolidPrimitive(type=kind, dimensions=sizes))
            message.primitive_poses.append(place)
    return message


def contacts_from_objects(objects: WorldObjects) -> list[AllowedContact]:
    """What is allowed, and what is forbidden of it."""
    return [
        AllowedContact(link=link, id=id, allowed=allowed)
        for (link, id), allowed in objects.decisions.items()
    ]


def held_from_objects(objects: WorldObjects) -> JointState:
    """Where the joints are that are held."""
    held = objects.world.held()
    return JointState(name=list(held), position=doubles(list(held.values())))
