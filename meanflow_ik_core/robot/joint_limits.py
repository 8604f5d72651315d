# SPDX-License-Identifier: Apache-2.0
"""The values that joints can have: limits of the file, narrowed by the joints that mimic them."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..bounds import FARTHEST_JOINT
from ..errors import RobotError
from ..plain_numbers import plain_float
from .urdf import MOVING_JOINTS, UrdfModel, listing

_LOG = logging.getLogger(__name__)
# Wider limits are meant as none: 16 turns, which no joint with a cable makes, and a kilometre.
_WIDEST_TURN, _WIDEST_SLIDE = 32 * np.pi, 1e3  # rad, m


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
            value = plain_float(given)
        except (TypeError, ValueError):
            value = np.nan
        if not np.isfinite(value):
            raise RobotError(f"held joint {name!r} is {given!r}; it must be a number [rad or m]")
        low, high = range_with_followers(name, urdf)
        if not low - 1e-9 <= value <= high + 1e-9:
            raise RobotError(
                f"held joint {name!r} is {value:.10g}, outside of its limits, those of joints that "
                f"mimic it included: [{low:.10g}, {high:.10g}]"
            )
        checked[name] = value
    return checked


def range_with_followers(name: str, urdf: UrdfModel) -> tuple[float, float]:
    """The values [rad or m] of a joint that keep it and joints that mimic it in their limits.

    A follower whose limits leave the joint no range is not meant to stop it: the PR2's gripper has
    one that turns the other way, with the limits of the others.
    """
    low, high = _limits_in_file(name, urdf)
    for _, least, most in _ranges_of_followers(name, urdf):
        if max(low, least) < min(high, most):
            low, high = max(low, least), min(high, most)
    return max(low, -FARTHEST_JOINT), min(high, FARTHEST_JOINT)


def fixed_joints(urdf: UrdfModel) -> dict[str, float]:
    """Joints whose two limits are one value [rad or m], which they are held at."""
    ranges = {
        name: _limits_in_file(name, urdf)
        for name in urdf.elements
        if urdf.kind(name) in MOVING_JOINTS and name not in urdf.mimics
    }
    return {name: low for name, (low, high) in ranges.items() if low == high}


def joint_limits(
    joint_names: Sequence[str], urdf: UrdfModel
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lower and upper limits (J,) [rad or m] of joints, and which (J,) turn without end.

    A joint that turns without end, or by so much that its limits are meant as none, has the limits
    -pi and pi, unless a joint that mimics it stops it.

    Raises:
        RobotError: a joint has no limits, or none that suit the joints that mimic it.
    """
    lower, upper = np.array([_limits_in_file(name, urdf) for name in joint_names]).reshape(-1, 2).T
    continuous = np.array([_is_continuous(name, urdf) for name in joint_names], bool)
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
    pairs = zip(joint_names, continuous, strict=True)
    if wide := [name for name, turns in pairs if turns and urdf.kind(name) != "continuous"]:
        _LOG.warning(
            "limits of %s are more than %.0f turns apart: taken as continuous: %s",
            urdf.path, _WIDEST_TURN / (2 * np.pi), ", ".join(wide),
        )  # fmt: skip
    for name, low, high in zip(joint_names, lower, upper, strict=True):
        if not (np.isfinite(low) and np.isfinite(high) and low < high):
            lacks = ", for its <limit> has neither lower nor upper" if low == -np.inf else ""
            raise RobotError(
                f"joint {name!r} of {urdf.path} has no usable limits: [{low}, {high}]{lacks}; "
                "hold it at a value, or give it limits"
            )
        if urdf.kind(name) == "prismatic" and high - low > _WIDEST_SLIDE:
            raise RobotError(
                f"joint {name!r} of {urdf.path} slides from {low:g} to {high:g} m, which are no "
                "limits; hold it at a value, or give it limits that are"
            )
    return lower, upper, continuous


def velocity_limits(joint_names: Sequence[str], urdf: UrdfModel) -> np.ndarray:
    """(J,) rad/s or m/s that keep joints, and those that mimic them, below the speeds of the file.

    Infinite where the file says nothing.
    """
    most = np.array([_speed_in_file(name, urdf) for name in joint_names])
    for follower, mimic in urdf.mimics.items():
        moves = mimic.multiplier != 0 and urdf.kind(follower) in MOVING_JOINTS
        if moves and mimic.joint in joint_names:
            place = joint_names.index(mimic.joint)
            speed = _speed_in_file(follower, urdf) / abs(mimic.multiplier)
            most[place] = min(most[place], speed)
    return most


def _speed_in_file(name: str, urdf: UrdfModel) -> float:
    limit = urdf.elements[name].find("limit")
    return float("inf" if limit is None else limit.get("velocity", "inf"))


def _is_continuous(name: str, urdf: UrdfModel) -> bool:
    low, high = _limits_in_file(name, urdf)
    wide = np.isfinite(low) and high - low > _WIDEST_TURN
    return urdf.kind(name) == "continuous" or (urdf.kind(name) == "revolute" and wide)


def _limits_in_file(name: str, urdf: UrdfModel) -> tuple[float, float]:
    """What the file says of a joint; infinite where it says nothing.

    Raises:
        RobotError: the lower limit is above the upper one.
    """
    limit = urdf.elements[name].find("limit")
    silent = limit is None or not {"lower", "upper"} & set(limit.attrib)
    if limit is None or silent or urdf.kind(name) == "continuous":
        return -np.inf, np.inf
    low, high = (float(limit.get(key, "0")) for key in ("lower", "upper"))
    if low > high:
        raise RobotError(
            f"joint {name!r} of {urdf.path} has no usable limits: [{low}, {high}]; "
            "hold it at a value, or give it limits"
        )
    safety = urdf.elements[name].find("safety_controller")
    if urdf.soft_limits and safety is not None:
        soft_low = max(low, float(safety.get("soft_lower_limit", "-inf")))
        soft_high = min(high, float(safety.get("soft_upper_limit", "inf")))
        if soft_low < soft_high:
            return soft_low, soft_high
    return low, high


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
