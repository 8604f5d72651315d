# SPDX-License-Identifier: Apache-2.0
"""Pose messages to matrices and back."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from geometry_msgs.msg import Point, Pose, PoseArray, PoseStamped, Quaternion

from meanflow_ik_core.geometry import matrix_from_quat_xyzw, quat_xyzw_from_matrix
from meanflow_ik_ros.messages.errors import Codes, RequestError
from meanflow_ik_ros.messages.fields import QUATERNION_NORM_TOLERANCE


def matrix_from_pose(stamped: PoseStamped) -> np.ndarray:
    """(4, 4) of a pose; RequestError unless it is finite and its quaternion of unit length."""
    position, orientation = stamped.pose.position, stamped.pose.orientation
    xyz = [position.x, position.y, position.z]
    quat_xyzw = [orientation.x, orientation.y, orientation.z, orientation.w]
    if not all(map(math.isfinite, (*xyz, *quat_xyzw))):
        raise RequestError(
            Codes.INVALID_GOAL_CONSTRAINTS,
            f"target is not finite: position {xyz}, quaternion xyzw {quat_xyzw}",
        )
    norm = math.hypot(*quat_xyzw)
    if abs(norm - 1) > QUATERNION_NORM_TOLERANCE:
        raise RequestError(
            Codes.INVALID_GOAL_CONSTRAINTS,
            f"quaternion xyzw {quat_xyzw} has length {norm:.6g}, expected 1 "
            f"(within {QUATERNION_NORM_TOLERANCE:g})",
        )
    return rigid_transform(xyz, quat_xyzw)


def rigid_transform(xyz: Sequence[float], quat_xyzw: Sequence[float]) -> np.ndarray:
    """(4, 4) of a position and a quaternion of any length but zero."""
    # The matrix is written out: for four numbers, calls of array libraries take longer than a
    # tenth of a solve.
    norm = math.hypot(*quat_xyzw)
    x, y, z, w = (value / norm for value in quat_xyzw)
    return np.array(
        (
            (1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w), xyz[0]),
            (2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w), xyz[1]),
            (2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y), xyz[2]),
            (0.0, 0.0, 0.0, 1.0),
        )
    )


def matrices_from_poses(poses: PoseArray) -> np.ndarray:
    """(N, 4, 4); RequestError that names the first pose that is not finite or of unit length."""
    numbers = np.array(
        [
            (p.x, p.y, p.z, o.x, o.y, o.z, o.w)
            for p, o in ((pose.position, pose.orientation) for pose in poses.poses)
        ],
        dtype=np.float64,
    ).reshape(-1, 7)
    norm = np.linalg.norm(numbers[:, 3:], axis=1)
    bad = ~np.isfinite(numbers).all(1) | ~(np.abs(norm - 1) <= QUATERNION_NORM_TOLERANCE)
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        raise RequestError(
            Codes.INVALID_GOAL_CONSTRAINTS,
            f"pose {first} of {len(numbers)}: position {numbers[first, :3].tolist()}, quaternion "
            f"xyzw {numbers[first, 3:].tolist()} of length {norm[first]:.6g}; expected finite "
            f"numbers and length 1 (within {QUATERNION_NORM_TOLERANCE:g})",
        )
    matrices = np.tile(np.eye(4), (len(numbers), 1, 1))
    matrices[:, :3, :3] = matrix_from_quat_xyzw(numbers[:, 3:])
    matrices[:, :3, 3] = numbers[:, :3]
    return matrices


def poses_from_matrices(matrices: np.ndarray) -> list[Pose]:
    """The poses of matrices (N, 4, 4)."""
    positions = matrices[:, :3, 3].tolist()
    quats_xyzw = quat_xyzw_from_matrix(matrices[:, :3, :3]).tolist()
    return [
        Pose(position=Point(x=x, y=y, z=z), orientation=Quaternion(x=qx, y=qy, z=qz, w=qw))
        for (x, y, z), (qx, qy, qz, qw) in zip(positions, quats_xyzw, strict=True)
    ]


def pose_message(T_frame_link: np.ndarray, frame_id: str) -> PoseStamped:
    """A pose (4, 4) in frame `frame_id`, stamp zero."""
    (pose,) = poses_from_matrices(T_frame_link[None])
    message = PoseStamped(pose=pose)
    message.header.frame_id = frame_id
    return message
