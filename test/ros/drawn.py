# SPDX-License-Identifier: Apache-2.0
"""Where a robot's visuals belong, by Pinocchio, and where a marker is."""

import numpy as np
import pinocchio as pin
import pytest
from visualization_msgs.msg import Marker

SHAPES = {"Box": Marker.CUBE, "Cylinder": Marker.CYLINDER, "Sphere": Marker.SPHERE}


def expected_markers(robot, q) -> list[tuple[int, list[float], np.ndarray]]:
    """Type, scale and pose in the base of every visual, through Pinocchio's GeometryModel."""
    model = pin.buildModelFromUrdf(str(robot.urdf_path), mimic=True)
    shapes = pin.buildGeomFromUrdf(model, str(robot.urdf_path), pin.GeometryType.VISUAL)
    data, shape_data = model.createData(), shapes.createData()
    full = pin.neutral(model)
    for name, value in zip(robot.joint_names, q, strict=True):
        joint = model.joints[model.getJointId(name)]
        full[joint.idx_q : joint.idx_q + joint.nq] = (
            value if joint.nq == 1 else (np.cos(value), np.sin(value))
        )
    pin.framesForwardKinematics(model, data, full)
    pin.updateGeometryPlacements(model, data, shapes, shape_data)
    base = data.oMf[model.getFrameId(robot.base)]
    expected = []
    for index, item in enumerate(shapes.geometryObjects):
        shape = item.geometry
        kind = type(shape).__name__
        if kind == "Box":
            scale = (2 * shape.halfSide).tolist()
        elif kind == "Cylinder":
            scale = [2 * shape.radius, 2 * shape.radius, 2 * shape.halfLength]
        else:
            scale = [2 * shape.radius] * 3
        expected.append((SHAPES[kind], scale, base.actInv(shape_data.oMg[index]).homogeneous))
    return expected


def matrix_of(marker: Marker) -> np.ndarray:
    place, turn = marker.pose.position, marker.pose.orientation
    quaternion = pin.Quaternion(turn.w, turn.x, turn.y, turn.z)
    assert quaternion.norm() == pytest.approx(1, abs=1e-12)
    return pin.SE3(quaternion.matrix(), np.array([place.x, place.y, place.z])).homogeneous
