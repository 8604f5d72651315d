# SPDX-License-Identifier: Apache-2.0
"""Where the frames of objects are, and where the robot's joints, for one message."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from meanflow_ik_core.errors import LinkError
from meanflow_ik_ros.messages.errors import FrameError, RequestError, WorldCodes
from meanflow_ik_ros.messages.tips import FrameLookup
from meanflow_ik_ros.messages.world import matrix_of_pose

if TYPE_CHECKING:
    from meanflow_ik_core.robot.robot import Robot
    from meanflow_ik_ros.current_state import CurrentState


class Whereabouts:
    """Asks for each frame once; and as each that is unknown may be waited for, only for one such.

    Errors are a `RequestError` that names the object.
    """

    def __init__(
        self, robot: Robot, state: CurrentState, lookup: FrameLookup,
        placement: Callable[[str, str], np.ndarray],
    ) -> None:  # fmt: skip
        """Nothing is asked for yet.

        Args:
            robot: in whose base poses are.
            state: where its joints are.
            lookup: says where frames are.
            placement: says where a link (second) is on another one (first), as (4, 4).
        """
        self.robot, self._state, self._lookup = robot, state, lookup
        self._placement = placement
        self._known: dict[tuple[str, int, int], np.ndarray] = {}
        self._lost: tuple[str, FrameError] | None = None

    def pose(self, message: Any) -> tuple[np.ndarray, np.ndarray]:
        """T_frame_object and T_base_frame (4, 4) of an object's message."""
        T_frame_object = matrix_of_pose(f"object {message.id!r}", message.pose)
        return T_frame_object, self.frame_of(message)

    def frame_of(self, message: Any) -> np.ndarray:
        """T_base_frame (4, 4) of an object's message."""
        header = message.header
        return self.frame(f"object {message.id!r}", header.frame_id, header.stamp)

    def frame(self, where: str, frame_id: str, stamp: Any = None) -> np.ndarray:
        """T_base_frame (4, 4); an empty name is the base."""
        if not frame_id:
            return np.eye(4)
        key = (frame_id, 0, 0) if stamp is None else (frame_id, stamp.sec, stamp.nanosec)
        if key in self._known:
            return self._known[key]
        if self._lost is None:
            try:
                self._known[key] = self._lookup(frame_id, stamp)
                return self._known[key]
            except FrameError as error:
                self._lost = frame_id, error
        with suppress(LinkError):  # frames that are fixed to the base are known without a wait
            return self.robot.base_offset(frame_id)
        lost, error = self._lost
        said = error if lost == frame_id else f"not looked up, as frame {lost!r} is not known"
        raise RequestError(WorldCodes.FRAME_TRANSFORM_FAILURE, f"{where}: {said}") from error

    def fixed_to(self, link: str, frame_id: str) -> np.ndarray | None:
        """T_link_frame (4, 4) of a frame that is rigidly fixed to a link, else None."""
        frames, moving = self.robot.frames, self.robot.at_rest
        if frame_id == link:
            return np.eye(4)
        if frame_id not in frames or frame_id in moving or link in moving:
            return None
        same_node = frames[link][0] == frames[frame_id][0]
        return self._placement(link, frame_id) if same_node else None

    def q(self, what: str, id: str) -> np.ndarray:
        """Where the robot's joints (J,) are, once joint_states has told of all."""
        if self._state.missing:
            raise RequestError(
                WorldCodes.INVALID_ROBOT_STATE,
                f"to {what} {id!r}, joint_states must have told where all joints are; it has not "
                f"told of {', '.join(self._state.missing)}. An object in the frame of its link can "
                "be attached without",
            )
        return self._state.q
