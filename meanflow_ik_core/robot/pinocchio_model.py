# SPDX-License-Identifier: Apache-2.0
"""A robot as Pinocchio sees it: all links of its URDF, not only those that move its tips."""

import copy
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pinocchio as pin

from .robot import Robot
from .urdf import read_urdf_model


class PinocchioModel:
    """Pinocchio's model of a robot's URDF, for configurations of the robot.

    Joints that mimic a joint follow it. Joints that the robot does not solve for stay at the value
    they are held at, or at 0.

    Attributes:
        model: Pinocchio's, with n joints, the first of which is none, and nq numbers in q.
        column: (n,) int64, the column of the robot's q that moves each joint; -1: none.
        held: joints that stay at a value, rad or m.
    """

    def __init__(self, robot: Robot):
        """Read the URDF.

        Args:
            robot: whose URDF.

        Raises:
            RobotError: it is no URDF.
        """
        urdf = read_urdf_model(robot.urdf_path)
        self.model = urdf.model
        self._robot = robot
        self.column = np.full(self.model.njoints, -1)
        self._base = self._frame(robot.base)
        self._resting = np.array(pin.neutral(self.model), np.float64)
        bounded, turning = [], []
        # (first place and count in Pinocchio's q, joint, multiplier, offset) of those that rest
        self._rests: list[tuple[int, int, str, float, float]] = []
        for index in range(1, self.model.njoints):
            joint, motion = self.model.joints[index], urdf.motion(self.model.names[index])
            if joint.nq not in (1, 2):  # floating or planar
                continue
            if motion.joint in robot.joint_names:
                self.column[index] = robot.joint_names.index(motion.joint)
                row = (joint.idx_q, self.column[index], motion.multiplier, motion.offset)
                (bounded if joint.nq == 1 else turning).append(row)
                continue
            rest = (joint.idx_q, joint.nq, motion.joint, motion.multiplier, motion.offset)
            self._rests.append(rest)
        self._bounded, self._turning = _columns(bounded), _columns(turning)
        self._hold({})

    def holding(self, held: Mapping[str, float]) -> "PinocchioModel":
        """The same model with these joints [rad or m] held, besides the robot's own."""
        other = copy.copy(self)
        other._hold(held)
        return other

    def _hold(self, held: Mapping[str, float]) -> None:
        self.held = {**self._robot.held, **held}
        self._resting = self._resting.copy()
        for first, count, joint, multiplier, offset in self._rests:
            value = multiplier * self.held.get(joint, 0.0) + offset
            # what turns without end is cosine and sine in Pinocchio
            place = slice(first, first + count)
            self._resting[place] = value if count == 1 else (np.cos(value), np.sin(value))

    def configurations(self, q: np.ndarray) -> np.ndarray:
        """Pinocchio's configurations (N, nq) of the robot's q (N, J)."""
        full = np.empty((len(q), len(self._resting)))
        full[:] = self._resting
        index, column, multiplier, offset = self._bounded
        full[:, index] = q[:, column] * multiplier + offset
        index, column, multiplier, offset = self._turning
        if len(index):
            angle = q[:, column] * multiplier + offset
            full[:, index], full[:, index + 1] = np.cos(angle), np.sin(angle)
        return full

    def link_poses(self, q: np.ndarray, links: Sequence[str]) -> np.ndarray:
        """T_base_link (N, L, 4, 4) of L links, for the robot's q (N, J)."""
        frames = [self._frame(link) for link in links]
        poses = np.empty((len(q), len(frames), 4, 4))
        for row, (data, T_base_root) in enumerate(self._placed(q)):
            for place, frame in enumerate(frames):
                poses[row, place] = (T_base_root * data.oMf[frame]).homogeneous
        return poses

    def shape_poses(self, q: np.ndarray, geometry: pin.GeometryModel) -> np.ndarray:
        """T_base_shape (N, G, 4, 4) of G shapes on the model's links, for the robot's q (N, J)."""
        geometry_data = geometry.createData()
        poses = np.empty((len(q), geometry.ngeoms, 4, 4))
        for row, (data, T_base_root) in enumerate(self._placed(q)):
            pin.updateGeometryPlacements(self.model, data, geometry, geometry_data)
            for place, T_root_shape in enumerate(geometry_data.oMg):
                poses[row, place] = (T_base_root * T_root_shape).homogeneous
        return poses

    def root_to_base(self) -> pin.SE3:
        """T_root_base, where all joints rest that the robot does not solve for."""
        data = self.model.createData()
        pin.framesForwardKinematics(self.model, data, self._resting)
        return data.oMf[self._base]

    def _placed(self, q: np.ndarray) -> Iterator[tuple[pin.Data, pin.SE3]]:
        """For each row of q (N, J) the placements of all frames, and where the root is."""
        data = self.model.createData()
        for configuration in self.configurations(q):
            pin.framesForwardKinematics(self.model, data, configuration)
            yield data, data.oMf[self._base].inverse()

    def _frame(self, link: str) -> int:
        return self.model.getFrameId(link, pin.FrameType.BODY)


def _columns(rows: list[tuple]) -> tuple[np.ndarray, ...]:
    """Of rows: the index in Pinocchio's q, the column in the robot's, multiplier, offset."""
    table = np.array(rows).reshape(-1, 4)
    return table[:, 0].astype(int), table[:, 1].astype(int), table[:, 2], table[:, 3]
