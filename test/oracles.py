# SPDX-License-Identifier: Apache-2.0
"""The independent judge of solutions: Pinocchio on the robot's URDF, nothing of our kinematics."""

import numpy as np
import pinocchio as pin

import meanflow_ik_core as mik
from meanflow_ik_core.evaluation.closed_form import ClosedForm

_TORSO_MIMICS = {"left_twist": ("left_elbow", -0.5, 0.25)}


class Judge:
    """Forward kinematics by Pinocchio for the tips of a robot whose base is its root link."""

    def __init__(self, robot):
        self._tips = robot.tips
        self._names = robot.joint_names
        self._lower, self._upper = robot.lower, robot.upper
        self._continuous = robot.continuous
        self._model = pin.buildModelFromUrdf(str(robot.urdf_path))
        self._data = self._model.createData()

    def poses(self, q: np.ndarray) -> np.ndarray:
        """(T, 4, 4) for q (J,)."""
        values = dict(zip(self._names, q, strict=True))
        full = pin.neutral(self._model)
        for index in range(1, self._model.njoints):
            name = self._model.names[index]
            source, factor, shift = _TORSO_MIMICS.get(name, (name, 1.0, 0.0))
            if source in values:
                joint, value = self._model.joints[index], factor * values[source] + shift
                full[joint.idx_q : joint.idx_q + joint.nq] = (
                    value if joint.nq == 1 else (np.cos(value), np.sin(value))
                )
        pin.framesForwardKinematics(self._model, self._data, full)
        frames = [self._model.getFrameId(tip) for tip in self._tips]
        return np.stack([self._data.oMf[frame].homogeneous for frame in frames])

    def errors(self, q: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Position [m] and rotation [rad] errors (T,) of q (J,) for targets (T, 4, 4)."""
        reached = self.poses(q)
        position = np.linalg.norm(reached[:, :3, 3] - targets[:, :3, 3], axis=-1)
        pairs = zip(reached, targets, strict=True)
        rotation = [np.linalg.norm(pin.log3(a[:3, :3].T @ b[:3, :3])) for a, b in pairs]
        return position, np.array(rotation)

    def accepts(self, q: np.ndarray, targets: np.ndarray, tolerance: float = 1e-5) -> bool:
        """Whether q (J,) is finite, within limits and within tolerance of targets (T, 4, 4)."""
        inside = self._continuous | ((q >= self._lower) & (q <= self._upper))
        errors = np.concatenate(self.errors(q, targets))
        return bool(np.isfinite(q).all() and inside.all() and (errors <= tolerance).all())


def pinocchio_kinematics(robot: mik.Robot, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """T_base_tip and the Jacobian by Pinocchio, joint values assigned by name."""
    model = pin.buildModelFromUrdf(str(robot.urdf_path))
    data = model.createData()
    mimics = {"left_twist": ("left_elbow", -0.5, 0.25)}
    values = dict(zip(robot.joint_names, q, strict=True)) | dict(robot.held)
    full, columns = pin.neutral(model), {}
    for index in range(1, model.njoints):
        source, multiplier, offset = mimics.get(model.names[index], (model.names[index], 1.0, 0.0))
        value = values.get(source)
        if value is None:
            continue
        joint, angle = model.joints[index], multiplier * value + offset
        full[joint.idx_q : joint.idx_q + joint.nq] = (
            angle if joint.nq == 1 else (np.cos(angle), np.sin(angle))
        )
        if source in robot.joint_names:
            columns[joint.idx_v] = (robot.joint_names.index(source), multiplier)
    pin.computeJointJacobians(model, data, full)
    pin.updateFramePlacements(model, data)
    base = model.getFrameId(robot.base)
    oMb = data.oMf[base]
    poses, jacobians = [], []
    for tip in robot.tips:
        frame = model.getFrameId(tip)
        bMt = oMb.inverse() * data.oMf[frame]
        J_tip = pin.getFrameJacobian(model, data, frame, pin.LOCAL_WORLD_ALIGNED)
        J_base = pin.getFrameJacobian(model, data, base, pin.LOCAL_WORLD_ALIGNED)
        arm = data.oMf[frame].translation - oMb.translation
        relative = J_tip - J_base
        relative[:3] -= np.cross(J_base[3:].T, arm).T
        rotation = np.kron(np.eye(2), oMb.rotation.T)
        full_jacobian = rotation @ relative
        jacobian = np.zeros((6, robot.num_joints))
        for column, (joint, multiplier) in columns.items():
            jacobian[:, joint] += multiplier * full_jacobian[:, column]
        poses.append(bMt.homogeneous)
        jacobians.append(jacobian)
    return np.stack(poses), np.stack(jacobians)


def solutions_within_limits(
    closed_form: ClosedForm, T_base_tip: np.ndarray, q_last: np.ndarray | int
) -> np.ndarray:
    """Solutions (S, 7) of a pose (4, 4) for values of the last joint, or so many even ones."""
    if isinstance(q_last, int):
        q_last = closed_form.last_joint_sweep(q_last)
    q = closed_form.solve(T_base_tip, q_last)[1]
    return q[closed_form.robot.within_limits(q)]
