# SPDX-License-Identifier: Apache-2.0
"""The values that joints can have: limits of the file, narrowed by the joints that mimic them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import RobotError
from .urdf import MOVING_JOINTS, UrdfModel, listing


def checked_held(held: Mapping[str, Any], urdf: UrdfModel) -> dict[str, float]:
    """The joints [rad or m] that are held at a value.

    Raises:
        RobotError: one does not exist, cannot be held, or cannot have its value.
    """
    checked = {}
    for name, given in held.items():
        if name not in urdf.elements:
            raise RobotError(
                f"held joint {name!r} is unknown; joints are {listing(list(urdf.elements), name)}"
            )
        if name in urdf.mimics:
            leader = urdf.mimics[name].joint
            raise RobotError(f"held joint {name!r} mimics {leader!r}; hold that one")
        if urdf.kind(name) not in MOVING_JOINTS:
            raise RobotError(
                f"held joint {name!r} is {urdf.kind(name)}; "
                f"only {', '.join(MOVING_JOINTS)} can be held"
            )
        try:
            value = float(given)
        except (TypeError, ValueError):
            value = np.nan
        if not np.isfinite(value):
            raise RobotError(f"held joint {name!r} is {given!r}; it must be a number [rad or m]")
        low, high = _limits_in_file(name, urdf)
        for _, least, most in _ranges_of_followers(name, urdf):
            low, high = max(low, least), min(high, most)
        if not low - 1e-9 <= value <= high + 1e-9:
            raise RobotError(
                f"held joint {name!r} is {value:.10g}, outside of its limits, those of joints that "
                f"mimic it included: [{low:.10g}, {high:.10g}]"
            )
        checked[name] = value
    return checked


def joint_limits(
    joint_names: Sequence[str], urdf: UrdfModel
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lower and upper limits (J,) [rad or m] of joints, and which (J,) turn without end.

    A continuous joint has the limits -pi and pi, unless a joint that mimics it stops it.

    Raises:
        RobotError: a joint has no limits, or none that suit the joints that mimic it.
    """
    model, joints = urdf.model, [urdf.joint(name) for name in joint_names]
    continuous = np.array([urdf.kind(name) == "continuous" for name in joint_names])
    lower = np.array([model.lowerPositionLimit[joint.idx_q] for joint in joints])
    upper = np.array([model.upperPositionLimit[joint.idx_q] for joint in joints])
    lower[continuous], upper[continuous] = -np.pi, np.pi
    for place, name in enumerate(joint_names):
        for follower, low, high in _ranges_of_followers(name, urdf):
            if continuous[place] and np.isfinite((low, high)).all():
                lower[place], upper[place], continuous[place] = low, high, False
            lower[place], upper[place] = max(lower[place], low), min(upper[place], high)
            if lower[place] > upper[place]:
                raise RobotError(
                    f"joint {name!r} of {urdf.path} has no value within its limits at which "
                    f"{follower!r}, which mimics it, is within its own"
                )
    for name, low, high in zip(joint_names, lower, upper, strict=True):
        if not (np.isfinite(low) and np.isfinite(high) and low < high):
            raise RobotError(
                f"joint {name!r} of {urdf.path} has no usable limits: [{low}, {high}]; "
                "hold it at a value, or give it limits"
            )
    return lower, upper, continuous


def _limits_in_file(name: str, urdf: UrdfModel) -> tuple[float, float]:
    """What the file says of a joint; infinite where it says nothing."""
    limit = urdf.elements[name].find("limit")
    silent = limit is None or not {"lower", "upper"} & set(limit.attrib)
    if silent or urdf.kind(name) == "continuous":
        return -np.inf, np.inf
    index = urdf.joint(name).idx_q
    return float(urdf.model.lowerPositionLimit[index]), float(urdf.model.upperPositionLimit[index])


def _ranges_of_followers(name: str, urdf: UrdfModel) -> Iterator[tuple[str, float, float]]:
    """For each joint that mimics this one, the values of this one that keep it in its limits."""
    for follower, mimic in urdf.mimics.items():
        if mimic.joint != name or urdf.kind(follower) not in MOVING_JOINTS:
            continue
        low, high = _limits_in_file(follower, urdf)
        if mimic.multiplier == 0:
            inside = low <= mimic.offset <= high
            yield (follower, -np.inf, np.inf) if inside else (follower, np.inf, -np.inf)
        else:
            ends = [(limit - mimic.offset) / mimic.multiplier for limit in (low, high)]
            yield follower, min(ends), max(ends)
