# SPDX-License-Identifier: Apache-2.0
"""Where a robot's visuals belong, by Pinocchio, and where a marker is."""

import numpy as np
import pinocchio as pin
import pytest
from oracles import Judge
from visualization_msgs.msg import Marker

SHAPES = {"Box": Marker.CUBE, "Cylinder": Marker.CYLINDER, "Sphere": Marker.SPHERE}


def expected_markers(robot, q) -> list[tuple[int, list[float], np.ndarray]]:
    """Type, scale and pose in the base of every visual, through Pinocchio's GeometryModel."""
    judge = Judge(robot)
    visuals = judge.shapes(pin.GeometryType.VISUAL)
    expected = []
    poses = judge.shape_poses(visuals, q)
    for item, pose in zip(visuals.geometryObjects, poses, strict=True):
        shape = item.geometry
        kind = type(shape).__name__
        if kind == "Box":
            scale = (2 * shape.halfSide).tolist()
        elif kind == "Cylinder":
            scale = [2 * shape.radius, 2 * shape.radius, 2 * shape.halfLength]
        else:
            scale = [2 * shape.radius] * 3
        expected.append((SHAPES[kind], scale, pose))
    return expected


def matrix_of(marker: Marker) -> np.ndarray:
    place, turn = marker.pose.position, marker.pose.orientation
    quaternion = pin.Quaternion(turn.w, turn.x, turn.y, turn.z)
    assert quaternion.norm() == pytest.approx(1, abs=1e-12)
    return pin.SE3(quaternion.matrix(), np.array([place.x, place.y, place.z])).homogeneous
