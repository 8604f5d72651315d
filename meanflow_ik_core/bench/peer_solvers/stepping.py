# SPDX-License-Identifier: Apache-2.0
"""Steps of differential kinematics, restarted at random: what users of these libraries write.

They take any number of tips.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np

from ...robot.robot import Robot
from .peer import Restarter, bare_urdf

_STEPS = 30  # of a start
_DAMPING = 1e-3  # of the tasks of pink and mink


class _Stepper(Restarter):
    """From a start at most `_STEPS` steps, until all tips are within the tolerance."""

    any_robot = True

    def _attempt(self, goal: Any, start: np.ndarray) -> np.ndarray | None:
        self._begin(start)
        for _ in range(_STEPS):
            errors = self._errors(goal)
            if self._is_close(errors):
                return self._joints()
            if not self._step(goal, errors):
                return None
        return None

    def _is_close(self, errors: list[np.ndarray]) -> bool:
        position, orientation = self.tolerance
        return all(
            np.linalg.norm(error[:3]) < position and np.linalg.norm(error[3:]) < orientation
            for error in errors
        )

    @abstractmethod
    def _begin(self, start: np.ndarray) -> None:
        """Be at a configuration (J,)."""

    @abstractmethod
    def _errors(self, goal: Any) -> list[np.ndarray]:
        """(6,) of each tip, linear then angular."""

    @abstractmethod
    def _step(self, goal: Any, errors: list[np.ndarray]) -> bool:
        """Make a step; False where that is not possible."""

    @abstractmethod
    def _joints(self) -> np.ndarray:
        """(J,) where it is."""


class Clik(_Stepper):
    """Closed-loop inverse kinematics in Python, as Pinocchio's documentation shows it."""

    name, install = "CLIK", "pip install pin"
    settings = (
        "Pinocchio's example with full steps (its own are tenths), clamped to the limits, damping "
        "1e-6, restarts every 30 steps"
    )

    def _open(self, robot: Robot) -> None:
        import pinocchio as pin

        self._pin, model = pin, pin.buildModelFromXML(bare_urdf(robot))
        self._model, self._data = model, model.createData()
        self._base = model.getFrameId(robot.base)
        self._tips = [model.getFrameId(tip) for tip in robot.tips]
        self._columns = [model.joints[model.getJointId(name)].idx_q for name in robot.joint_names]
        self._lower, self._upper = model.lowerPositionLimit, model.upperPositionLimit
        self._damping = 1e-6 * np.eye(6 * robot.num_tips)

    def _goal(self, target: np.ndarray) -> Any:
        self._pin.framesForwardKinematics(self._model, self._data, self._pin.neutral(self._model))
        base = self._data.oMf[self._base]
        return [base * self._pin.SE3(T) for T in target]

    def _begin(self, start: np.ndarray) -> None:
        self._q = np.empty(self._model.nq)
        self._q[self._columns] = start

    def _errors(self, goal: Any) -> list[np.ndarray]:
        pin, data = self._pin, self._data
        pin.framesForwardKinematics(self._model, data, self._q)
        self._to_goal = [
            data.oMf[tip].actInv(oMt) for tip, oMt in zip(self._tips, goal, strict=True)
        ]
        return [pin.log(T).vector for T in self._to_goal]

    def _step(self, goal: Any, errors: list[np.ndarray]) -> bool:
        pin = self._pin
        pin.computeJointJacobians(self._model, self._data, self._q)
        jacobian = np.concatenate(
            [
                -pin.Jlog6(T.inverse())
                @ pin.getFrameJacobian(self._model, self._data, tip, pin.ReferenceFrame.LOCAL)
                for T, tip in zip(self._to_goal, self._tips, strict=True)
            ]
        )
        error = np.concatenate(errors)
        v = -jacobian.T @ np.linalg.solve(jacobian @ jacobian.T + self._damping, error)
        self._q = np.clip(pin.integrate(self._model, self._q, v), self._lower, self._upper)
        return True

    def _joints(self) -> np.ndarray:
        return self._q[self._columns]


class Pink(_Stepper):
    """Tasks in a quadratic program, on Pinocchio (package pin-pink)."""

    name, install = "pink", "pip install pin-pink daqp"
    settings = (
        "a `FrameTask` per tip (costs 1, Levenberg-Marquardt damping 1e-3), solver daqp, its "
        "default limits, steps of 1 s, restarts every 30 steps"
    )

    def _open(self, robot: Robot) -> None:
        import daqp  # noqa: F401 - the solver of its program
        import pink
        import pinocchio as pin

        self._pin, self._pink = pin, pink
        self._model = pin.buildModelFromXML(bare_urdf(robot))
        self._data = self._model.createData()
        joints = self._model.joints
        self._columns = [joints[self._model.getJointId(name)].idx_q for name in robot.joint_names]
        self._tasks = [
            pink.tasks.FrameTask(tip, 1.0, 1.0, lm_damping=_DAMPING) for tip in robot.tips
        ]
        neutral = pink.Configuration(self._model, self._data, pin.neutral(self._model))
        self._T_world_base = neutral.get_transform_frame_to_world(robot.base)

    def _goal(self, target: np.ndarray) -> Any:
        for task, T in zip(self._tasks, target, strict=True):
            task.set_target(self._T_world_base * self._pin.SE3(T))

    def _begin(self, start: np.ndarray) -> None:
        q = np.empty(self._model.nq)
        q[self._columns] = start
        self._at = self._pink.Configuration(self._model, self._data, q)

    def _errors(self, goal: Any) -> list[np.ndarray]:
        return [task.compute_error(self._at) for task in self._tasks]

    def _step(self, goal: Any, errors: list[np.ndarray]) -> bool:
        try:
            v = self._pink.solve_ik(self._at, self._tasks, 1.0, "daqp", safety_break=False)
        except self._pink.exceptions.NoSolutionFound:
            return False
        self._at.integrate_inplace(v, 1.0)
        return True

    def _joints(self) -> np.ndarray:
        return self._at.q[self._columns]


class Mink(_Stepper):
    """The same idea on MuJoCo (package mink)."""

    name, install = "mink", "pip install mink daqp"
    settings = (
        "a `FrameTask` per tip (costs 1, Levenberg-Marquardt damping 1e-3), solver daqp, joint "
        "limits, steps of 1 s, restarts every 30 steps"
    )

    def _open(self, robot: Robot) -> None:
        import daqp  # noqa: F401 - the solver of its program
        import mink
        import mujoco

        self._mink = mink
        spec = mujoco.MjSpec.from_string(bare_urdf(robot))  # pyright: ignore[reportAttributeAccessIssue]
        spec.compiler.fusestatic = False
        # The URDF says nothing of masses, which MuJoCo wants.
        spec.compiler.boundmass = spec.compiler.boundinertia = 1e-3
        model = spec.compile()
        self._columns = [int(model.joint(name).qposadr[0]) for name in robot.joint_names]
        self._tasks = [
            mink.FrameTask(tip, "body", 1.0, 1.0, lm_damping=_DAMPING) for tip in robot.tips
        ]
        self._limits = [mink.ConfigurationLimit(model)]
        self._at = mink.Configuration(model)
        self._at.update(np.zeros(model.nq))
        self._T_world_base = self._at.get_transform_frame_to_world(robot.base, "body")

    def _goal(self, target: np.ndarray) -> Any:
        for task, T in zip(self._tasks, target, strict=True):
            task.set_target(self._T_world_base @ self._mink.SE3.from_matrix(T))

    def _begin(self, start: np.ndarray) -> None:
        q = np.empty(self._at.nq)
        q[self._columns] = start
        self._at.update(q)

    def _errors(self, goal: Any) -> list[np.ndarray]:
        return [task.compute_error(self._at) for task in self._tasks]

    def _step(self, goal: Any, errors: list[np.ndarray]) -> bool:
        try:
            v = self._mink.solve_ik(self._at, self._tasks, 1.0, "daqp", limits=self._limits)
        except self._mink.exceptions.NoSolutionFound:
            return False
        self._at.integrate_inplace(v, 1.0)
        return True

    def _joints(self) -> np.ndarray:
        return self._at.q[self._columns].copy()
