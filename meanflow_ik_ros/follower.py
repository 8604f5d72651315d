# SPDX-License-Identifier: Apache-2.0
"""Follows a stream of stamped targets, from where the robot is until they stop coming.

The stamps of the targets are the clock: between two targets joints go no farther than their speed
allows in the time between the two stamps. So the same stream makes the same motion, however late
and unevenly its messages arrive.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from meanflow_ik_core.errors import IKError, TargetError
from meanflow_ik_core.solving.tracker import TrackStatus as Status
from meanflow_ik_ros.msg import TrackStatus

if TYPE_CHECKING:
    from meanflow_ik_core.robot.robot import Robot
    from meanflow_ik_core.solving.tracker import Tracker, TrackStep
    from meanflow_ik_ros.parameters import NodeParameters

_STATUS = {
    Status.REACHED: TrackStatus.REACHED,
    Status.FOLLOWING: TrackStatus.FOLLOWING,
    Status.BLOCKED: TrackStatus.BLOCKED,
    Status.ELSEWHERE: TrackStatus.ELSEWHERE,
}
_NS = 1_000_000_000


@dataclass(frozen=True, eq=False)
class Pursuit:
    """What a stream of targets is followed with.

    robot: whose tips are the links that the targets are for.
    places: which of its tips, in the order of the targets' poses.
    asked: as `check_free_axes` returns it, (T, 6) or None.
    tracker: of that robot, where the joints are.
    parameters: that the stream is followed by to its end.
    """

    robot: Robot
    places: tuple[int, ...]
    asked: np.ndarray | None
    tracker: Tracker
    parameters: NodeParameters


@dataclass(frozen=True, eq=False)
class Followed:
    """What to say after a target or a tick.

    status: of `msg/TrackStatus`.
    message: why, where the joints stand.
    q, velocities: (J,) where the joints are, in rad or m, and per second; None: nobody knows.
    stamp_ns: the time of the targets at which they are there.
    seconds: from the joints before to these; 0 where they stand.
    step: errors and what else is known of a step.
    """

    status: int
    message: str = ""
    q: np.ndarray | None = None
    velocities: np.ndarray | None = None
    stamp_ns: int = 0
    seconds: float = 0.0
    step: TrackStep | None = None


class Follower:
    """Follows one stream at a time; belongs to one thread.

    Times are integers, ns of the node's clock.

    Args:
        start: makes what the targets of a source are followed with; may raise an IKError.
    """

    def __init__(self, start: Callable[[str], Pursuit]) -> None:
        self._start = start
        self._pursuit: Pursuit | None = None
        self._source = ""
        self._target = np.eye(4)
        self._moving = False
        # Stamps of the last target and of the joints; when a target was heard, and the next tick.
        self._stamp = self._reached = self._heard = self._due = 0

    @property
    def pursuit(self) -> Pursuit | None:
        """What the stream is followed with; None: there is no stream."""
        return self._pursuit

    def seconds_to_tick(self, now: int) -> float | None:
        """Until `tick` is due; None: it never is."""
        if self._pursuit is None:
            return None
        if self._why_over(now):
            return 0.0
        timeout = int(self._pursuit.parameters.track_incoming_command_timeout * _NS)
        due = self._heard + timeout
        return max(0, min(due, self._due) if self._moving else due) / _NS - now / _NS

    def take(
        self, source: str, T_base_link: Callable[[Pursuit], np.ndarray], stamp: int, now: int
    ) -> Followed | None:
        """Follow a target; None: the next tick does, because the joints are ahead of it.

        Args:
            source: of the stream.
            T_base_link: the target (G, 4, 4) for the links of the pursuit; may raise an IKError.
            stamp: of the target; 0: now.
        """
        try:
            stamp = stamp or now
            if self._why_over(now):
                self._pursuit = None
            began = time.monotonic_ns()
            pursuit = self._pursuit or self._start(source)
            heard = now + time.monotonic_ns() - began  # a start may take long
            self._check_stamp(pursuit, source, stamp, now)
            target = T_base_link(pursuit)
            _check_near(pursuit, target)
        except IKError as error:
            return self.stand(TrackStatus.REFUSED, str(error))
        period = int(pursuit.parameters.track_publish_period * _NS)
        if self._pursuit is None:
            self._pursuit, self._source, self._reached = pursuit, source, stamp - period
        elif not self._moving:
            # The joints have stood since then; only what passed since the target is motion.
            self._reached = max(self._reached, stamp - period)
        self._target = target[0] if len(pursuit.places) == 1 else target
        self._stamp, self._heard, self._moving = stamp, heard, True
        if stamp <= self._reached:
            return None
        # A period more than between ticks, so that a target that is a little late comes in time.
        self._due = now + 2 * period
        return self._step(stamp - self._reached)

    def tick(self, now: int) -> Followed | None:
        """Go on towards the last target where none has come for a while; stop after a long one."""
        seconds = self.seconds_to_tick(now)
        if self._pursuit is None or seconds is None or seconds > 0:
            return None
        parameters = self._pursuit.parameters
        if why := self._why_over(now):
            return self.stop(why)
        period = int(parameters.track_publish_period * _NS)
        self._due = max(self._due, now - period) + period
        return self._step(period)

    def stand(self, status: int, message: str) -> Followed:
        """Let the joints stand until the next good target."""
        self._moving = False
        if self._pursuit is None:
            return Followed(status, message)
        q = self._pursuit.tracker.joint_positions
        return Followed(status, message, q, np.zeros_like(q), self._reached)

    def stop(self, message: str) -> Followed:
        """End the stream; the next target starts another."""
        stood = self.stand(TrackStatus.STANDING, message)
        self._pursuit = None
        return stood

    def _why_over(self, now: int) -> str:
        """Why the stream has ended; empty: it has not, or there is none."""
        if self._pursuit is None:
            return ""
        timeout = self._pursuit.parameters.track_incoming_command_timeout
        since = (now - self._heard) / _NS
        if abs(since) < timeout:
            return ""
        if since < 0:  # a simulator was reset, or a recording begins again
            return f"the node's clock went back by {-since:.3g} s"
        return f"no good target has come for {timeout:g} s"

    def _step(self, duration: int) -> Followed:
        pursuit, seconds = self._pursuit, duration / _NS
        assert pursuit is not None
        before = pursuit.tracker.joint_positions
        try:
            step = pursuit.tracker.step(self._target, dt=seconds)
        except IKError as error:
            return self.stand(TrackStatus.REFUSED, str(error))
        self._reached += duration
        q = step.joint_positions
        return Followed(
            _STATUS[step.status], "", q, (q - before) / seconds, self._reached, seconds, step
        )

    def _check_stamp(self, pursuit: Pursuit, source: str, stamp: int, now: int) -> None:
        timeout = pursuit.parameters.track_incoming_command_timeout
        age = (now - stamp) / _NS
        if abs(age) > timeout:
            when = "old" if age > 0 else "ahead of this node's clock"
            raise TargetError(
                f"the target is {abs(age):.3f} s {when}; track_incoming_command_timeout allows "
                f"{timeout:g} s"
            )
        if self._pursuit is None:
            return
        if source != self._source:
            raise TargetError(f"targets of {self._source} are being followed")
        if stamp <= self._stamp:
            raise TargetError(
                f"the target's stamp is {(self._stamp - stamp) / _NS:g} s before that of the last "
                "one; each must be later"
            )


def _check_near(pursuit: Pursuit, target: np.ndarray) -> None:
    """Raise a TargetError where a target (G, 4, 4) is far from where the links are.

    Axes that are free do not count, and angles only where the whole orientation is asked for.
    """
    parameters = pursuit.parameters
    links = pursuit.robot.forward(pursuit.tracker.joint_positions)
    for place, T_wanted in zip(pursuit.places, target, strict=True):
        T_link = links[place]
        offset = T_link[:3, 3] - T_wanted[:3, 3]
        cosine = 0.5 * (float(np.vdot(T_link[:3, :3], T_wanted[:3, :3])) - 1.0)
        angle = math.acos(min(max(cosine, -1.0), 1.0))
        if pursuit.asked is not None:
            offset = T_wanted[:3, :3].T @ offset * pursuit.asked[place, :3]
            angle = angle if pursuit.asked[place, 3:].all() else 0.0
        distance = math.hypot(*offset.tolist())
        # `not` as nothing is near that is not a number.
        if not (distance <= parameters.track_max_distance and angle <= parameters.track_max_angle):
            raise TargetError(
                f"the target of {pursuit.robot.tips[place]} is {distance:.3g} m and {angle:.3g} "
                f"rad away; track_max_distance allows {parameters.track_max_distance:g} m, "
                f"track_max_angle {parameters.track_max_angle:g} rad"
            )
