# SPDX-License-Identifier: Apache-2.0
"""Points of a PointCloud2, and the cells of a grid that they fill."""

from __future__ import annotations

from typing import Any

import numpy as np
from sensor_msgs.msg import PointField

from meanflow_ik_core.errors import WorldError

# The largest depth image of cameras in use, 3840 x 2160, has fewer.
MOST_POINTS = 10_000_000
_TYPES = {PointField.FLOAT32: "f4", PointField.FLOAT64: "f8"}
_BITS = 21  # of a cell's number along each axis, in one integer


def points_from_cloud(message: Any) -> np.ndarray:
    """Points (N, 3) float64 of a PointCloud2 that are finite.

    Raises:
        WorldError: it has no x, y, z that are floats, less data than it says, or too many points.
    """
    count = message.height * message.width
    if count > MOST_POINTS:
        raise WorldError(f"the cloud has {count} points; {MOST_POINTS} are the most")
    fields = {field.name: field for field in message.fields}
    step, order = message.point_step, ">" if message.is_bigendian else "<"
    formats, offsets = [], []
    for axis in "xyz":
        field = fields.get(axis)
        kind = None if field is None else _TYPES.get(field.datatype)
        if field is None or kind is None:
            names = ", ".join(f"{name} (datatype {f.datatype})" for name, f in fields.items())
            raise WorldError(
                f"the cloud needs x, y, z of datatype 7 or 8; it has {names or 'no fields'}"
            )
        if field.offset + int(kind[1]) > step:
            raise WorldError(f"{axis} of the cloud is at {field.offset} of points of {step} bytes")
        formats.append(order + kind)
        offsets.append(field.offset)
    if not count:
        return np.zeros((0, 3))
    row, width = message.row_step, message.width * step
    if row < width or len(message.data) < (message.height - 1) * row + width:
        raise WorldError(
            f"the cloud has {len(message.data)} bytes in rows of {row}; {message.height} x "
            f"{message.width} points of {step} bytes need more"
        )
    data = np.frombuffer(message.data, np.uint8)
    layout = np.dtype(
        {"names": list("xyz"), "formats": formats, "offsets": offsets, "itemsize": step}
    )
    cloud = np.ndarray((message.height, message.width), layout, data, 0, (row, step))
    points = np.stack([cloud[axis].astype(np.float64) for axis in "xyz"], -1).reshape(-1, 3)
    return points[np.isfinite(points).all(-1)]


def cells_from_points(points: np.ndarray, resolution: float) -> np.ndarray:
    """Middles (C, 3) of the cells [m] in which points (N, 3) lie, within 2**20 cells of 0."""
    cells = np.floor(points / resolution).astype(np.int64) + (1 << (_BITS - 1))
    numbers = np.unique((cells[:, 0] << 2 * _BITS) | (cells[:, 1] << _BITS) | cells[:, 2])
    mask = (1 << _BITS) - 1
    parts = np.stack((numbers >> 2 * _BITS, (numbers >> _BITS) & mask, numbers & mask), -1)
    return (parts - (1 << (_BITS - 1)) + 0.5) * resolution
