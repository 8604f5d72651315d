# SPDX-License-Identifier: Apache-2.0
"""Messages of worlds, written without the code under test."""

from typing import Any

import numpy as np
from geometry_msgs.msg import Point, Pose, Quaternion
from meanflow_ik_ros.msg import WorldObject
from shape_msgs.msg import Mesh, MeshTriangle, SolidPrimitive


def pose_at(x: float, y: float, z: float, *quat_xyzw: float) -> Pose:
    turn = dict(zip("xyzw", quat_xyzw, strict=True)) if quat_xyzw else {}
    place = Point(x=float(x), y=float(y), z=float(z))
    return Pose(position=place, orientation=Quaternion(**turn))


def box(id: str, size: tuple, xyz: tuple, frame: str = "panda_link0", **fields: Any) -> WorldObject:
    message = WorldObject(id=id, pose=pose_at(*xyz), **fields)
    message.header.frame_id = frame
    message.primitives = [SolidPrimitive(type=SolidPrimitive.BOX, dimensions=list(size))]
    return message


def tetrahedron(edge: float) -> Mesh:
    corners = edge * np.array([(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)])
    return mesh(corners, np.array([(0, 2, 1), (0, 1, 3), (0, 3, 2), (1, 2, 3)]))


def mesh(corners: np.ndarray, triangles: np.ndarray) -> Mesh:
    return Mesh(
        vertices=[Point(x=x, y=y, z=z) for x, y, z in corners.tolist()],
        triangles=[MeshTriangle(vertex_indices=face) for face in triangles.tolist()],
    )
