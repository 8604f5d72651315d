# SPDX-License-Identifier: Apache-2.0
"""What markers show: arms, axes and lines of text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from geometry_msgs.msg import Point, Pose, Vector3
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker

from meanflow_ik_core.geometry import matrix_from_rpy
from meanflow_ik_ros.markers.visuals import RobotVisuals
from meanflow_ik_ros.messages.poses import poses_from_matrices

# From the best rank to the last: green, teal, blue, violet, rose. Told apart by the colour-blind.
RANK_COLOURS = np.array(
    [
        (0.10, 0.70, 0.35),
        (0.08, 0.62, 0.72),
        (0.20, 0.42, 0.85),
        (0.50, 0.32, 0.80),
        (0.82, 0.34, 0.55),
    ]
)
AXIS_COLOURS = ((0.86, 0.20, 0.18), (0.25, 0.65, 0.25), (0.18, 0.38, 0.85))


def rank_colour(rank: int, count: int) -> tuple[float, float, float]:
    """Red, green, blue of candidate `rank` of `count`, 0 being the best."""
    place = rank / max(count - 1, 1) * (len(RANK_COLOURS) - 1)
    anchors = np.arange(len(RANK_COLOURS))
    red, green, blue = (float(np.interp(place, anchors, column)) for column in RANK_COLOURS.T)
    return red, green, blue


def arm_markers(visuals: RobotVisuals, q: Any, opacity: float, header: Header) -> Iterator[Marker]:
    """One arm per row of q (M, J), best first; each has a namespace, so that RViz can hide it."""
    if len(q) == 0:
        return
    poses = iter(poses_from_matrices(visuals.poses(q).reshape(-1, 4, 4)))
    for rank in range(len(q)):
        red, green, blue = rank_colour(rank, len(q))
        colour = ColorRGBA(r=red, g=green, b=blue, a=float(opacity))
        for index, visual in enumerate(visuals.visuals):
            yield Marker(
                header=header,
                ns=f"candidate_{rank:03d}",
                id=index,
                type=visual.kind,
                action=Marker.ADD,
                pose=next(poses),
                scale=Vector3(x=visual.scale[0], y=visual.scale[1], z=visual.scale[2]),
                color=colour,
                mesh_resource=visual.mesh,
            )


def axes_markers(
    frame: np.ndarray, length: float, name: str, header: Header, first_id: int = 0
) -> Iterator[Marker]:
    """Red, green and blue rods along x, y and z of a frame (4, 4)."""
    rods = np.tile(frame, (3, 1, 1))
    # A cylinder stands along its own z.
    turns = matrix_from_rpy([(0.0, np.pi / 2, 0.0), (-np.pi / 2, 0.0, 0.0), (0.0, 0.0, 0.0)])
    rods[:, :3, :3] = frame[:3, :3] @ turns
    rods[:, :3, 3] += 0.5 * length * frame[:3, :3].T
    for axis, pose in enumerate(poses_from_matrices(rods)):
        red, green, blue = AXIS_COLOURS[axis]
        yield Marker(
            header=header,
            ns=name,
            id=first_id + axis,
            type=Marker.CYLINDER,
            action=Marker.ADD,
            pose=pose,
            scale=Vector3(x=0.08 * length, y=0.08 * length, z=float(length)),
            color=ColorRGBA(r=red, g=green, b=blue, a=1.0),
        )


def text_marker(
    text: str,
    position: Any,
    height: float,
    colour: tuple[float, float, float],
    name: str,
    header: Header,
    id: int,
) -> Marker:
    """A line of text with its middle at `position` (3,), that always faces the viewer."""
    x, y, z = (float(value) for value in position)
    red, green, blue = colour
    return Marker(
        header=header,
        ns=name,
        id=id,
        type=Marker.TEXT_VIEW_FACING,
        action=Marker.ADD,
        pose=Pose(position=Point(x=x, y=y, z=z)),
        scale=Vector3(z=float(height)),
        color=ColorRGBA(r=red, g=green, b=blue, a=1.0),
        text=text,
    )
