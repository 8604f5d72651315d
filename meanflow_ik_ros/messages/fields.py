# SPDX-License-Identifier: Apache-2.0
"""Single fields of messages: counts that have a default, stamps, numbers, unit quaternions."""

from __future__ import annotations

import array
from typing import TYPE_CHECKING, Any

import numpy as np

from meanflow_ik_ros.messages.errors import Codes, RequestError

if TYPE_CHECKING:
    from meanflow_ik_ros.parameters import NodeParameters

# A quaternion printed with four digits is off by up to 1e-4; beyond 1e-3 it is a mistake.
QUATERNION_NORM_TOLERANCE = 1e-3


def count_from_request(
    request: Any, name: str, parameters: NodeParameters, default: int | None = None
) -> int:
    """The count in the field `name`; for 0 `default`, or where that is None, the parameter.

    Raises:
        RequestError: the count is above the parameter max_num_samples.
    """
    count, most = int(getattr(request, name)), parameters.max_num_samples
    if count > most:
        raise RequestError(
            Codes.INVALID_GOAL_CONSTRAINTS,
            f"{name} is {count}, the node's parameter max_num_samples allows {most}",
        )
    return count or (getattr(parameters, name) if default is None else default)


def nanoseconds_from_stamp(stamp: Any) -> int:
    """A stamp of a message; 0 where it has none. It may be negative, which no Time of rclpy is."""
    return stamp.sec * 1_000_000_000 + stamp.nanosec


def doubles(values: Any) -> array.array:
    """What a float64[] field takes; from bytes it is 50 times faster than from a list."""
    return array.array("d", np.ascontiguousarray(values, dtype=np.float64).tobytes())


def doubles_by_row(values: np.ndarray) -> list[array.array]:
    """`doubles` of each row of (N, D)."""
    flat, width = doubles(values), values.shape[1]
    return [flat[start : start + width] for start in range(0, len(flat), width)]
