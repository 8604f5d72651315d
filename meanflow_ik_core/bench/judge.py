# SPDX-License-Identifier: Apache-2.0
"""An independent opinion on solutions: kinematics and limits by Pinocchio, from the URDF."""

from __future__ import annotations

import numpy as np
import pinocchio as pin

from ..robot.robot import Robot
from ..robot.urdf import Mimic, read_joint_elements, resolve_mimics
from ..solving.result import IKResult

MIN_SEPARATION = 0.01  # rad, of the largest joint difference of different solutions
# Rounding between two implementations of the same formula.
_ROUNDING = 1e-12


class Judge:
    """Kinematics of a robot by Pinocchio; shares nothing with `Robot` but names.

    It does not ask `PinocchioModel` either, by which the product places links: a judge that
    followed the same reading of mimics and held joints could not find a mistake in it.
    """

    def __init__(self, robot: Robot):
        self._robot = robot
        self._model = model = pin.buildModelFromUrdf(str(robot.urdf_path))
        self._data = model.createData()
        self._base = model.getFrameId(robot.base)
        self._tips = [model.getFrameId(tip) for tip in robot.tips]
        mimics = resolve_mimics(read_joint_elements(robot.urdf_path))
        self._held = pin.neutral(model)
        self._moved = []  # Pinocchio joint, our column, multiplier, offset
        for name, joint in zip(model.names, model.joints, strict=True):
            moved = mimics.get(name, Mimic(name, 1.0, 0.0))
            if moved.joint in robot.joint_names:
                column = robot.joint_names.index(moved.joint)
                self._moved.append((joint, column, moved.multiplier, moved.offset))
            elif moved.joint in robot.held:
                value = moved.multiplier * robot.held[moved.joint] + moved.offset
                _place(self._held, joint, value)

    def forward(self, q: np.ndarray) -> np.ndarray:
        """T_base_tip (N, T, 4, 4) of q (N, J)."""
        poses = np.empty((len(q), len(self._tips), 4, 4))
        for row, configuration in enumerate(q):
            pin.framesForwardKinematics(self._model, self._data, self._full(configuration))
            T_tip_in_base = self._data.oMf[self._base].inverse()
            for tip, frame in enumerate(self._tips):
                poses[row, tip] = (T_tip_in_base * self._data.oMf[frame]).homogeneous
        return poses

    def jacobian(self, q: np.ndarray) -> np.ndarray:
        """(N, T, 6, J) of q (N, J), rows linear then angular, axes of the base, at the tip."""
        result = np.zeros((len(q), len(self._tips), 6, self._robot.num_joints))
        world = pin.ReferenceFrame.LOCAL_WORLD_ALIGNED
        for row, configuration in enumerate(q):
            full = self._full(configuration)
            pin.computeJointJacobians(self._model, self._data, full)
            pin.updateFramePlacements(self._model, self._data)
            oMb = self._data.oMf[self._base]
            of_base = pin.getFrameJacobian(self._model, self._data, self._base, world)
            for tip, frame in enumerate(self._tips):
                lever = self._data.oMf[frame].translation - oMb.translation
                of_tip = pin.getFrameJacobian(self._model, self._data, frame, world)
                linear = of_tip[:3] - of_base[:3] + pin.skew(lever) @ of_base[3:]
                angular = of_tip[3:] - of_base[3:]
                both = np.vstack((oMb.rotation.T @ linear, oMb.rotation.T @ angular))
                for joint, column, multiplier, _ in self._moved:
                    result[row, tip, :, column] += multiplier * both[:, joint.idx_v]
        return result

    def errors(self, q: np.ndarray, T_base_tip: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Distances [m] and angles [rad], each (N, T), of q (N, J) to one target (T, 4, 4)."""
        reached = self.forward(q)
        position = np.linalg.norm(reached[..., :3, 3] - T_base_tip[:, :3, 3], axis=-1)
        angle = np.empty_like(position)
        for index in np.ndindex(*angle.shape):
            relative = T_base_tip[index[1], :3, :3].T @ reached[(*index, slice(3), slice(3))]
            angle[index] = np.linalg.norm(pin.log3(relative))
        return position, angle

    def accepts(
        self,
        q: np.ndarray,
        T_base_tip: np.ndarray,
        position_tolerance: float,
        orientation_tolerance: float,
    ) -> np.ndarray:
        """(N,) bool: q (N, J) reaches one target (T, 4, 4) within the tolerances and limits."""
        position, angle = self.errors(q, T_base_tip)
        close = (position <= position_tolerance + _ROUNDING).all(-1)
        close &= (angle <= orientation_tolerance + _ROUNDING).all(-1)
        return close & self.within_limits(q)

    def within_limits(self, q: np.ndarray) -> np.ndarray:
        """(N,) bool, by the limits that Pinocchio read; mimic joints must keep theirs too."""
        inside = np.asarray(np.isfinite(q).all(-1))
        for joint, column, multiplier, offset in self._moved:
            if joint.nq == 1:
                value = multiplier * q[:, column] + offset
                inside &= value >= self._model.lowerPositionLimit[joint.idx_q] - _ROUNDING
                inside &= value <= self._model.upperPositionLimit[joint.idx_q] + _ROUNDING
        return inside

    def count(
        self,
        result: IKResult,
        problem: int,
        T_base_tip: np.ndarray,
        position_tolerance: float,
        orientation_tolerance: float,
    ) -> tuple[int, int]:
        """How many of a problem's claimed solutions are right, and how many are not."""
        claimed = result.joint_positions[problem][result.valid[problem]]
        if not len(claimed):
            return 0, 0
        right = self.accepts(claimed, T_base_tip, position_tolerance, orientation_tolerance)
        return int(right.sum()), int((~right).sum())

    def _full(self, configuration: np.ndarray) -> np.ndarray:
        full = self._held.copy()
        for joint, column, multiplier, offset in self._moved:
            _place(full, joint, multiplier * configuration[column] + offset)
        return full


def different(q: np.ndarray, kept: np.ndarray | None = None) -> np.ndarray:
    """Those kept before (K, J), and the rows of q (N, J) that differ from all before them.

    That is by `MIN_SEPARATION` in some joint.
    """
    number = 0 if kept is None else len(kept)
    rows = q.copy() if kept is None else np.concatenate((kept, q))
    for row in q:
        if (np.abs(rows[:number] - row).max(-1, initial=0) >= MIN_SEPARATION).all():
            rows[number] = row
            number += 1
    return rows[:number]


def _place(full: np.ndarray, joint: pin.JointModel, value: float) -> None:
    full[joint.idx_q : joint.idx_q + joint.nq] = (
        value if joint.nq == 1 else (np.cos(value), np.sin(value))
    )
