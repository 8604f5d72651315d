# SPDX-License-Identifier: Apache-2.0
"""Where the robot's joints are, by what joint_states said last.

This is the seed of requests that bring none, and the reference of their ranking.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from sensor_msgs.msg import JointState

from meanflow_ik_core.bounds import FARTHEST_JOINT
from meanflow_ik_core.world.joint_inputs import OVERSHOOT, holdable_joints
from meanflow_ik_ros.messages.joints import known_positions, limit_violations
from meanflow_ik_ros.rare_log import WARN_EVERY_S, trace

if TYPE_CHECKING:
    from meanflow_ik_core.robot.robot import Robot


class CurrentState:
    """Collects joint positions, of which several publishers may each know a part.

    q: (J,) within the limits, their middle until all joints are known; continuous joints are on the
        turn that was heard. It is replaced as a whole and messages are taken in one thread:
        readers need no lock.
    others: joints that are not solved for and move no tip, such as those of fingers, of which
        something was heard, and where they are [rad or m]; replaced as a whole as well.
    """

    def __init__(self, robot: Robot, logger: Any) -> None:
        self.robot = robot
        self.q = 0.5 * (robot.lower + robot.upper)
        self.others: dict[str, float] = {}
        self._names = frozenset(robot.joint_names)
        self._others = holdable_joints(robot)
        self._logger = logger
        self._positions: dict[str, float] = {}
        self._times: dict[str, float] = {}  # when each was heard
        self._heard = 0.0  # by time.monotonic; 0: never
        self._longest_age = 0.0

    def receive(self, state: JointState) -> None:
        """Take what a message says of this robot's joints; a bad one is passed over with a log."""
        try:
            positions = known_positions(state, self._names)
            if far := [name for name, at in positions.items() if abs(at) > FARTHEST_JOINT]:
                self._logger.warning(
                    f"joint_states: passed over: {far[0]} is {positions[far[0]]:g}; a joint is at "
                    f"most {FARTHEST_JOINT:g} rad or m from 0",
                    throttle_duration_sec=WARN_EVERY_S,
                )
                return
            others = self._at_limits(known_positions(state, self._others))
            if others.items() - self.others.items():
                self.others = {**self.others, **others}
            if not positions:
                return
            now = time.monotonic()
            if self._heard:
                self._longest_age = max(self._longest_age, now - self._heard)
            self._heard = now
            self._times.update(dict.fromkeys(positions, now))
            self._positions.update(positions)
            if self.missing:
                return
            q = np.array([self._positions[name] for name in self.robot.joint_names])
            self._say_at_limit(limit_violations(q, self.robot))
            self.q = self.robot.clipped(q)
        except Exception:
            self._logger.error(f"joint_states: {trace()}", throttle_duration_sec=WARN_EVERY_S)

    def _at_limits(self, others: Mapping[str, float]) -> dict[str, float]:
        """Positions of joints that are not solved for, at their limits where they are beyond."""
        taken, outside = {}, []
        for name, at in others.items():
            low, high = self._others[name]
            taken[name] = min(max(at, low), high)
            if abs(at - taken[name]) > OVERSHOOT * (high - low):
                outside.append(f"{name} {at:.6g} (limits {low:.6g} to {high:.6g})")
        self._say_at_limit(", ".join(outside))
        return taken

    def _say_at_limit(self, outside: str) -> None:
        if outside:
            self._logger.warning(
                f"joint_states: taken at the limit: {outside}",
                throttle_duration_sec=WARN_EVERY_S,
            )

    @property
    def missing(self) -> list[str]:
        """Joints of the robot of which nothing has been heard."""
        return [name for name in self.robot.joint_names if name not in self._positions]

    def oldest(self) -> tuple[str, float]:
        """Which joint was heard of longest ago, and how long that is [s]; none may be missing.

        The time is infinite for what was heard before `expire`.
        """
        times = self._times
        name = min(self.robot.joint_names, key=lambda name: times.get(name, -math.inf))
        return name, time.monotonic() - times.get(name, -math.inf)

    def expire(self) -> None:
        """Take all that was heard for old, infinitely for `oldest`; `q` stays."""
        self._times = {}

    def ages(self) -> tuple[float, float] | None:
        """How old the state is and how old it became since the last call [s]; None: never heard."""
        if not self._heard:
            return None
        age = time.monotonic() - self._heard
        longest, self._longest_age = max(age, self._longest_age), 0.0
        return age, longest
