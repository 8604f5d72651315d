# SPDX-License-Identifier: Apache-2.0
"""Points of a PointCloud2, and the cells of a grid that they fill."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from sensor_msgs.msg import PointField

from meanflow_ik_core.bounds import MOST_POINTS
from meanflow_ik_core.errors import WorldError
from meanflow_ik_core.world.shape_inputs import filled_cells

_TYPES = {PointField.FLOAT32: "f4", PointField.FLOAT64: "f8"}
_AT_ONCE = 1 << 16  # points


def cells_from_cloud(
    message: Any, resolution: float, T_base_cloud: np.ndarray, farthest: float
) -> np.ndarray:
    """Middles (C, 3) of the cells [m] of the base in which finite points of a PointCloud2 lie.

    Args:
        message: the cloud.
        resolution: m, edge of a cell.
        T_base_cloud: (4, 4).
        farthest: m from the base, at most 2**20 cells; what is farther away is left out.

    Raises:
        WorldError: it has no x, y, z that are floats, less data than it says, too many points, or
            they fill too many cells.
    """
    return filled_cells("the cloud", _points(message), resolution, T_base_cloud, farthest)


def _points(message: Any) -> Iterator[np.ndarray]:
    """Points (N, 3) float64 of a PointCloud2, some at a time; errors as above."""
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
        return
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
    size = max(1, _AT_ONCE // message.width)
    for begin in range(0, message.height, size):
        for left in range(0, message.width, _AT_ONCE):
            some = cloud[begin : begin + size, left : left + _AT_ONCE]
            yield np.stack([some[axis].astype(np.float64) for axis in "xyz"], -1).reshape(-1, 3)
