# SPDX-License-Identifier: Apache-2.0
"""How far from a fixed point a tip can be at most, proven by the lengths of links."""

import numpy as np

from .robot import Robot

_ROUNDS = 50  # of the choice of points on the axes
_TINY = 1e-6  # m


def reach(robot: Robot, tip: int) -> tuple[np.ndarray, float]:
    """A point fixed to the base, and what the tip's distance from it never exceeds.

    Turning about its axis moves no point of the axis. So the tip is no farther from a point of the
    first axis than the distances add up to between points of neighbouring axes, whichever they
    are. The points are chosen so that the sum is small (Weiszfeld's weights); shifts add to it.

    Args:
        robot: whose tip.
        tip: its index.

    Returns:
        The point (3,) in the base [m], and the length [m].
    """
    nodes = np.flatnonzero(robot.ancestors[tip])  # from the base to the tip
    turning = nodes[~robot.prismatic[nodes]]
    if not len(turning):
        return _shifted(robot, tip, nodes)
    # From each axis to the next, or to the tip: offset (n, 3), and where the next axis points.
    offsets, directions = [], []
    length = 0.0
    T = np.eye(4)  # of a node, seen from the last axis, or from the base
    for node in nodes.tolist():
        T = T @ robot.placement[node]
        if robot.prismatic[node]:
            middle, half = _shift(robot, node)
            T = T @ _along_z(middle)
            length += half
        else:
            offsets.append(T[:3, 3])
            directions.append(T[:3, 2])
            T = np.eye(4)
    offsets.append((T @ robot.tip_placement[tip])[:3, 3])
    directions.append(np.zeros(3))
    origin, axis = offsets.pop(0), directions.pop(0)
    along = _points_on_axes(np.array(offsets), np.array(directions))
    gaps = _gaps(np.array(offsets), np.array(directions), along)
    return origin + along[0] * axis, length + float(np.linalg.norm(gaps, axis=1).sum())


def _shifted(robot: Robot, tip: int, nodes: np.ndarray) -> tuple[np.ndarray, float]:
    """As `reach`, of a tip that no joint turns: from the middle of its shifts."""
    T, length = np.eye(4), 0.0
    for node in nodes.tolist():
        middle, half = _shift(robot, node)
        T = T @ robot.placement[node] @ _along_z(middle)
        length += half
    return (T @ robot.tip_placement[tip])[:3, 3], length


def _shift(robot: Robot, node: int) -> tuple[float, float]:
    """Middle and half of the range [m] that a prismatic node shifts by."""
    joint = robot.joint[node]
    ends = robot.multiplier[node] * np.array([robot.lower[joint], robot.upper[joint]])
    ends += robot.offset[node]
    return float(ends.mean()), float(np.ptp(ends)) / 2


def _along_z(metres: float) -> np.ndarray:
    T = np.eye(4)
    T[2, 3] = metres
    return T


def _gaps(offsets: np.ndarray, directions: np.ndarray, along: np.ndarray) -> np.ndarray:
    """(n, 3) From the point on each axis to that on the next, in the frame of the former."""
    gaps = offsets + along[1:, None] * directions
    gaps[:, 2] -= along[:-1]
    return gaps


def _points_on_axes(offsets: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """(n + 1,) Where on n axes, and at the tip, points lie that make the sum of gaps small [m]."""
    count = len(offsets)
    along = np.zeros(count + 1)
    # Each gap is linear in the places: its columns (3, n) are -z and the next axis's direction.
    columns = np.zeros((count, 3, count))
    for i in range(count):
        columns[i, 2, i] = -1.0
        if i + 1 < count:
            columns[i, :, i + 1] = directions[i]
    for _ in range(_ROUNDS):
        gaps = _gaps(offsets, directions, along)
        root = np.sqrt(1.0 / np.maximum(np.linalg.norm(gaps, axis=1), _TINY))
        a = (root[:, None, None] * columns).reshape(-1, count)
        b = (root[:, None] * offsets).ravel()
        along[:-1] = np.linalg.lstsq(a, -b, rcond=None)[0]
    return along
