# SPDX-License-Identifier: Apache-2.0
"""Where a pose's frame stands relative to the robot's base: rigidly fixed frames, then TF."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pinocchio as pin

from meanflow_ik_core.errors import IKError, LinkError

if TYPE_CHECKING:
    from rclpy.node import Node

    from meanflow_ik_core.robot import Robot

TF_WAIT_S = 0.2


class FrameError(IKError):
    """A frame is neither fixed to the base nor known to TF."""


class Frames:
    """Looks up T_base_frame; TF is asked only where tf2_ros is installed."""

    def __init__(self, robot: Robot, node: Node | None = None) -> None:
        self.robot = robot
        self._buffer: Any = None
        self._listener: Any = None
        if node is not None:
            try:
                import tf2_ros
            except ImportError:
                return
            self._buffer = tf2_ros.Buffer(node=node)
            self._listener = tf2_ros.TransformListener(self._buffer, node)

    def T_base_frame(self, frame_id: str, stamp: Any = None) -> np.ndarray:
        """Pose (4, 4) of `frame_id` in the base frame at `stamp` (builtin_interfaces Time).

        Raises:
            FrameError: the frame is unknown; the message names the known ones.
        """
        try:
            return self.robot.base_offset(frame_id)
        except LinkError as error:
            unknown = f"no transform from frame {frame_id!r} to {self.robot.base!r}: {error}"
        if self._buffer is None:
            raise FrameError(f"{unknown}; tf2_ros, which knows of other frames, is not installed")
        import tf2_ros
        from rclpy.duration import Duration
        from rclpy.time import Time

        try:
            stamped = self._buffer.lookup_transform(
                self.robot.base,
                frame_id,
                Time() if stamp is None else Time.from_msg(stamp),
                timeout=Duration(nanoseconds=int(TF_WAIT_S * 1e9)),
            )
        except tf2_ros.TransformException as error:
            raise FrameError(f"{unknown}; tf2_ros: {error}") from error
        rotation, translation = stamped.transform.rotation, stamped.transform.translation
        quaternion = pin.Quaternion(rotation.w, rotation.x, rotation.y, rotation.z).normalized()
        position = np.array([translation.x, translation.y, translation.z])
        return pin.SE3(quaternion, position).homogeneous

    def close(self) -> None:
        """Stop listening to TF."""
        if self._listener is not None:
            self._listener.unregister()
            self._listener = self._buffer = None
