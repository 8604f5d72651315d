# SPDX-License-Identifier: Apache-2.0
"""Where a pose's frame stands relative to the robot's base: rigidly fixed frames, then TF."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from rclpy.clock_type import ClockType
from rclpy.time import Time

from meanflow_ik_core.errors import LinkError
from meanflow_ik_ros.messages.errors import FrameError
from meanflow_ik_ros.messages.fields import nanoseconds_from_stamp
from meanflow_ik_ros.messages.poses import rigid_transform

if TYPE_CHECKING:
    from rclpy.node import Node

    from meanflow_ik_core.robot.robot import Robot

_POLL_S = 0.005


class Frames:
    """Looks up T_base_frame; TF is asked only where tf2_ros is installed.

    timeout_s: how long to wait for a transform that is not there yet.
    max_age_s: the latest transform is refused once it is older than this, or farther ahead of the
        node's clock; 0: it never is.
    """

    def __init__(
        self,
        robot: Robot,
        node: Node | None = None,
        timeout_s: float = 0.2,
        max_age_s: float = 10.0,
    ) -> None:
        self.robot = robot
        self.timeout_s = timeout_s
        self.max_age_s = max_age_s
        self._node = node
        self._stopped = threading.Event()
        self._buffer: Any = None
        self._listener: Any = None
        if node is not None:
            try:
                import tf2_ros
            except ImportError:
                return
            self._buffer = tf2_ros.Buffer(node=node)
            # Its subscriptions are in a reentrant callback group of their own, so that they go on
            # while a callback of the node waits here.
            self._listener = tf2_ros.TransformListener(self._buffer, node)

    def T_base_frame(self, frame_id: str, stamp: Any = None) -> np.ndarray:
        """Pose (4, 4) of `frame_id` in the base frame.

        Args:
            stamp: builtin_interfaces Time at which; zero or None: the latest that is known.

        Raises:
            FrameError: the frame is not known, not at that time, or only from long ago.
        """
        return self._found(frame_id, stamp, self.timeout_s, self.max_age_s)

    def latest(self, frame_id: str, max_age_s: float) -> np.ndarray:
        """Pose (4, 4) of `frame_id` in the base frame as it is known now; waits for nothing.

        Raises:
            FrameError: the frame is not known, or only from longer ago than `max_age_s`.
        """
        return self._found(frame_id, None, 0.0, max_age_s)

    def _found(self, frame_id: str, stamp: Any, timeout_s: float, max_age_s: float) -> np.ndarray:
        try:
            return self.robot.base_offset(frame_id)
        except LinkError as error:
            not_fixed = str(error)
        failed = f"no transform from frame {frame_id!r} to {self.robot.base!r}"
        if self._buffer is None:
            raise FrameError(
                f"{failed}: {not_fixed}; tf2_ros, which knows of other frames, is not installed"
            )
        import tf2_ros

        when_ns = 0 if stamp is None else nanoseconds_from_stamp(stamp)
        if when_ns < 0:
            raise FrameError(f"{failed}: the stamp is negative, {when_ns / 1e9:g} s")
        when = Time(nanoseconds=when_ns, clock_type=ClockType.ROS_TIME)
        deadline = time.monotonic() + timeout_s
        # The buffer's own timeout polls as well, more slowly, and cannot be stopped.
        while True:
            try:
                return self._lookup(frame_id, when, max_age_s)
            except (tf2_ros.TransformException, FrameError) as error:
                if time.monotonic() >= deadline or self._stopped.wait(_POLL_S):
                    raise FrameError(f"{failed}: {error}; {not_fixed}") from error

    def _lookup(self, frame_id: str, when: Any, max_age_s: float) -> np.ndarray:
        """What the buffer knows now; an exception of tf2_ros, or FrameError where it is too old."""
        stamped = self._buffer.lookup_transform(self.robot.base, frame_id, when)
        since_ns = nanoseconds_from_stamp(stamped.header.stamp)
        # A chain of static transforms has no stamp, and is never too old.
        if when.nanoseconds == 0 and since_ns and max_age_s and self._node is not None:
            age_s = 1e-9 * (self._node.get_clock().now().nanoseconds - since_ns)
            if age_s > max_age_s:
                raise FrameError(
                    f"the latest one is {age_s:.1f} s old, at most {max_age_s:g} s are allowed"
                )
            # Some localisation stamps its transforms with the time until which they hold.
            if self.max_age_s and -age_s > self.max_age_s:
                raise FrameError(
                    f"the latest one is {-age_s:.1f} s ahead of this node's clock, at most "
                    f"{self.max_age_s:g} s are allowed"
                )
        rotation, translation = stamped.transform.rotation, stamped.transform.translation
        return rigid_transform(
            [translation.x, translation.y, translation.z],
            [rotation.x, rotation.y, rotation.z, rotation.w],
        )

    def forget(self) -> None:
        """Drop what TF has said, because the clock went back: it would stay the latest for long.

        tf2_ros means to do so by itself, which fails in its Python version.
        """
        if self._buffer is not None:
            self._buffer.clear()

    def stop_waiting(self) -> None:
        """Let whoever waits for a transform, now or later, go on with a FrameError at once."""
        self._stopped.set()

    def close(self) -> None:
        """Take what listens to TF off the node."""
        self.stop_waiting()
        if self._node is None or self._listener is None:
            return
        self._listener.unregister()
        self._listener = None
        # The buffer's service tf2_frames.
        if (service := getattr(self._buffer, "srv", None)) is not None:
            self._node.destroy_service(service)
