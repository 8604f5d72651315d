# SPDX-License-Identifier: Apache-2.0
"""What ~/markers shows of a goal: the goal, its candidates as translucent arms, and a legend."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from builtin_interfaces.msg import Duration
from std_msgs.msg import Header
from visualization_msgs.msg import Marker, MarkerArray

from meanflow_ik_ros.markers.shapes import arm_markers, axes_markers, rank_colour, text_marker
from meanflow_ik_ros.markers.visuals import RobotVisuals

if TYPE_CHECKING:
    from meanflow_ik_core.robot.robot import Robot
    from meanflow_ik_ros.msg import IKSolution

_REMEMBERED = 5
LEGEND_LINES = 12
_GREY = (0.5, 0.5, 0.5)  # readable before a light and a dark background


class GoalMarkers:
    """Makes one MarkerArray per goal, knowing what a viewer has been shown before.

    A marker that stays keeps its namespace and id, so that RViz moves it instead of building it
    anew, which would flicker. What is too many is deleted in every array again, because a slow
    viewer may have missed the one before. A viewer that has just come may show what an earlier
    run of the node drew: then everything is deleted first.
    """

    def __init__(self, robot: Robot) -> None:
        self.base = robot.base
        self._visuals = RobotVisuals(robot)
        q = robot.random_configurations(500, np.random.default_rng(0))
        self._reach = float(np.linalg.norm(robot.forward(q)[..., :3, 3], axis=-1).max())
        # What the last arrays showed: a viewer that missed one is put right by the next.
        self._shown: deque[set[tuple[str, int]]] = deque(maxlen=_REMEMBERED)
        self._viewers = 0

    def start(self) -> MarkerArray:
        """The first array of a run: nothing, and what an earlier run drew goes."""
        header = Header(frame_id=self.base)
        return MarkerArray(markers=[Marker(header=header, action=Marker.DELETEALL)])

    def update(
        self,
        solutions: Sequence[IKSolution],
        T_base_goal: np.ndarray,
        stamp: Any,
        *,
        count: int,
        opacity: float,
        lifetime_s: float,
        viewers: int,
    ) -> MarkerArray:
        """The array of one goal.

        Args:
            solutions: best first; only the valid ones are drawn.
            T_base_goal: (T, 4, 4) what was asked for.
            count: draw at most so many.
            lifetime_s: after which viewers forget the markers; 0: never.
            viewers: how many subscribers there are.
        """
        valid = [solution for solution in solutions if solution.valid]
        drawn = valid[:count]
        header = Header(stamp=stamp, frame_id=self.base)
        markers = [
            *self._legend(drawn, len(valid), header),
            *(
                marker
                for tip, pose in enumerate(T_base_goal)
                for marker in axes_markers(pose, 0.12 * self._reach, "goal", header, 3 * tip)
            ),
            *arm_markers(
                self._visuals,
                np.array([solution.joint_state.position for solution in drawn]),
                opacity,
                header,
            ),
        ]
        whole, rest = divmod(lifetime_s, 1.0)
        lifetime = Duration(sec=int(whole), nanosec=int(1e9 * rest))
        for marker in markers:
            marker.lifetime = lifetime
            # Viewers place it anew with every frame: the transform may come later than the
            # marker, or its stamp be too old.
            marker.frame_locked = True
        return MarkerArray(markers=[*self._deletions(markers, header, viewers), *markers])

    def _deletions(self, markers: list[Marker], header: Header, viewers: int) -> list[Marker]:
        new = {(marker.ns, marker.id) for marker in markers}
        start_over = viewers == 0 or viewers != self._viewers
        self._viewers = viewers
        if start_over:
            self._shown.clear()
            self._shown.append(new)
            return [Marker(header=header, action=Marker.DELETEALL)]
        surplus = sorted(set().union(*self._shown) - new)
        self._shown.append(new)
        return [Marker(header=header, ns=ns, id=id, action=Marker.DELETE) for ns, id in surplus]

    def _legend(self, drawn: list[IKSolution], valid: int, header: Header) -> list[Marker]:
        """Lines that stand beside the robot, each in the colour of the arm that it is about."""
        title = f"{len(drawn)} of {valid} solutions" if valid else "no solution"
        lines = [(title, _GREY)]
        lines += [
            (f"{rank + 1}: {solution.distance:.2f} rad away", rank_colour(rank, len(drawn)))
            for rank, solution in enumerate(drawn[:LEGEND_LINES])
        ]
        top, step = self._reach * np.array([0.0, 0.65, 0.7]), 0.05 * self._reach
        return [
            text_marker(
                text,
                top - [0.0, 0.0, step * row],
                0.6 * step,
                colour,
                "legend",
                header,
                row,
            )
            for row, (text, colour) in enumerate(lines)
        ]
