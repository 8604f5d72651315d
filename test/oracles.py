# SPDX-License-Identifier: Apache-2.0
"""The independent judge of solutions: Pinocchio on the robot's URDF, nothing of our kinematics."""

from importlib import metadata

import numpy as np
import pinocchio as pin
from example_robots import draw

import meanflow_ik_core as mik
from meanflow_ik_core.evaluation.closed_form import ClosedForm


class Judge:
    """Pinocchio's reading of a robot's URDF, with its own mimic joints; held joints are held."""

    def __init__(self, robot: mik.Robot):
        self._robot = robot
        self.model = pin.buildModelFromUrdf(str(robot.urdf_path), mimic=True)
        self._data = self.model.createData()
        self._base = self.model.getFrameId(robot.base)
        self._tips = [self.model.getFrameId(tip) for tip in robot.tips]
        self._joints = [self.model.joints[self.model.getJointId(n)] for n in robot.joint_names]
        self._neutral = pin.neutral(self.model)
        for name, value in dict(robot.held).items():
            _place(self._neutral, self.model.joints[self.model.getJointId(name)], value)

    def configuration(self, q: np.ndarray) -> np.ndarray:
        """Pinocchio's configuration for q (J,); joints that are not the robot's stand at zero."""
        full = self._neutral.copy()
        for joint, value in zip(self._joints, q, strict=True):
            _place(full, joint, value)
        return full

    def link(self, q: np.ndarray, name: str) -> pin.SE3:
        """T_base_link of any link of the URDF, for q (J,)."""
        self._move(q)
        return self._in_base(self.model.getFrameId(name))

    def poses(self, q: np.ndarray) -> np.ndarray:
        """(T, 4, 4) for q (J,)."""
        self._move(q)
        return np.stack([self._in_base(tip).homogeneous for tip in self._tips])

    def jacobian(self, q: np.ndarray) -> np.ndarray:
        """(T, 6, J) for q (J,): rows linear then angular, in the axes of the base, at the tip."""
        pin.computeJointJacobians(self.model, self._data, self.configuration(q))
        pin.updateFramePlacements(self.model, self._data)
        of_base = pin.getFrameJacobian(self.model, self._data, self._base, pin.LOCAL)
        columns = [joint.idx_v for joint in self._joints]
        found = []
        for tip in self._tips:
            T_base_tip = self._in_base(tip)
            of_tip = pin.getFrameJacobian(self.model, self._data, tip, pin.LOCAL)
            relative = of_tip - T_base_tip.toActionMatrixInverse() @ of_base
            found.append((np.kron(np.eye(2), T_base_tip.rotation) @ relative)[:, columns])
        return np.stack(found)

    def errors(self, q: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Position [m] and rotation [rad] errors (T,) of q (J,) for targets (T, 4, 4)."""
        reached = self.poses(q)
        position = np.linalg.norm(reached[:, :3, 3] - targets[:, :3, 3], axis=-1)
        pairs = zip(reached, targets, strict=True)
        rotation = [np.linalg.norm(pin.log3(a[:3, :3].T @ b[:3, :3])) for a, b in pairs]
        return position, np.array(rotation)

    def accepts(self, q: np.ndarray, targets: np.ndarray, tolerance: float = 1e-5) -> bool:
        """Whether q (J,) is finite, within limits and within tolerance of targets (T, 4, 4)."""
        lower, upper = self._robot.lower, self._robot.upper
        inside = self._robot.continuous | ((q >= lower) & (q <= upper))
        errors = np.concatenate(self.errors(q, targets))
        return bool(np.isfinite(q).all() and inside.all() and (errors <= tolerance).all())

    def shapes(self, kind: pin.GeometryType) -> pin.GeometryModel:
        """The collision shapes or the visuals of the URDF."""
        path = self._robot.urdf_path
        folders = [str(path.parent)]
        if any(d.name == "example-robot-data" for d in metadata.distributions()):
            wheel = metadata.distribution("example-robot-data")
            folders.append(str(wheel.locate_file("cmeel.prefix/share")))
        return pin.buildGeomFromUrdf(self.model, str(path), kind, package_dirs=folders)

    def shape_poses(self, shapes: pin.GeometryModel, q: np.ndarray) -> list[np.ndarray]:
        """T_base_shape (4, 4) of each of the shapes, for q (J,)."""
        self._move(q)
        placed = shapes.createData()
        pin.updateGeometryPlacements(self.model, self._data, shapes, placed)
        base = self._data.oMf[self._base]
        return [base.actInv(placement).homogeneous for placement in placed.oMg]

    def collides(self, shapes: pin.GeometryModel, q: np.ndarray) -> list[bool]:
        """For each of q (N, J) whether a collision pair of the shapes touches."""
        placed = shapes.createData()
        return [
            pin.computeCollisions(
                self.model, self._data, shapes, placed, self.configuration(row), True
            )
            for row in q
        ]

    def _move(self, q: np.ndarray) -> None:
        pin.framesForwardKinematics(self.model, self._data, self.configuration(q))

    def _in_base(self, frame: int) -> pin.SE3:
        return self._data.oMf[self._base].actInv(self._data.oMf[frame])


def _place(full: np.ndarray, joint: pin.JointModel, value: float) -> None:
    placed = value if joint.nq == 1 else (np.cos(value), np.sin(value))
    full[joint.idx_q : joint.idx_q + joint.nq] = placed


def fixed_offset(robot: mik.Robot, parent: str, child: str) -> pin.SE3:
    """T_parent_child of two links that no joint moves apart."""
    judge, q = Judge(robot), np.zeros(robot.num_joints)
    return judge.link(q, parent).actInv(judge.link(q, child))


def reachable(robot: mik.Robot, count: int, seed: int = 0) -> np.ndarray:
    """(count, T, 4, 4) poses of random configurations."""
    judge = Judge(robot)
    return np.stack([judge.poses(q) for q in draw(robot, count, seed).numpy()])


def solutions_within_limits(
    closed_form: ClosedForm, T_base_tip: np.ndarray, q_last: np.ndarray | int
) -> np.ndarray:
    """Solutions (S, 7) of a pose (4, 4) for values of the last joint, or so many even ones."""
    if isinstance(q_last, int):
        q_last = closed_form.last_joint_sweep(q_last)
    q = closed_form.solve(T_base_tip, q_last)[1]
    return q[closed_form.robot.within_limits(q)]
