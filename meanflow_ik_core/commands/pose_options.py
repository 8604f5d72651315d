# SPDX-License-Identifier: Apache-2.0
"""Poses as options have them: --xyz with --rpy or --quat, repeated for several links."""

import itertools
import math
from collections.abc import Iterable, Sequence

from ..errors import TargetError
from ..plain_numbers import plain_float

_WIDTHS = {"--xyz": 3, "--rpy": 3, "--quat": 4}
_ORIENTATION = {"rx", "ry", "rz"}
# A quaternion printed with four digits is off by up to 1e-4; beyond 1e-3 it is a mistake.
_QUATERNION_NORM_TOLERANCE = 1e-3


def joined(arguments: Iterable[str]) -> list[str]:
    """Arguments in which --xyz 1 2 3 has become --xyz="1 2 3", so that it can be repeated."""
    found, rest = [], list(arguments)
    while rest:
        word = rest.pop(0)
        numbers = []
        while rest and len(numbers) < _WIDTHS.get(word, 0) and not rest[0].startswith("--"):
            numbers.append(rest.pop(0))
        found.append(f"{word}={' '.join(numbers)}" if word in _WIDTHS else word)
    return found


def pose_numbers(
    xyz: Sequence[str], rpy: Sequence[str], quat: Sequence[str], free_axes: Sequence[str],
    instead: str,
) -> tuple[list[list[float]], list[list[float]]]:  # fmt: skip
    """Positions (G, 3) [m], and as many of either roll, pitch, yaw [rad] or quaternions x y z w.

    Args:
        xyz, rpy, quat: what the options say, each a text of numbers.
        free_axes: of each pose; where all leave the orientation free, none need be given, and it is
            roll, pitch, yaw 0.
        instead: the option that stands in place of poses, for the message.

    Raises:
        TargetError: they do not go together, or a text is not so many numbers or no unit
            quaternion.
    """
    option, turns = ("--quat", quat) if quat else ("--rpy", rpy)
    free = len(free_axes) == len(xyz) and all({*a.split()} >= _ORIENTATION for a in free_axes)
    if xyz and free and not turns:
        turns = ["0 0 0"] * len(xyz)
    if not xyz or not turns or (rpy and quat):
        raise TargetError(f"give {instead}, or --xyz and one of --rpy and --quat")
    if len(xyz) != len(turns):
        raise TargetError(f"{len(xyz)} --xyz and {len(turns)} {option}; a pose needs one of each")
    positions = [_numbers("--xyz", text) for text in xyz]
    rotations = [_numbers(option, text) for text in turns]
    for length in itertools.starmap(math.hypot, rotations if quat else ()):
        if not abs(length - 1) <= _QUATERNION_NORM_TOLERANCE:
            raise TargetError(f"--quat has the length {length:g}; a unit quaternion has 1")
    return positions, rotations


def _numbers(option: str, text: str) -> list[float]:
    try:
        numbers = [plain_float(part) for part in text.split()]
    except ValueError:
        numbers = []
    if len(numbers) != _WIDTHS[option]:
        raise TargetError(f"{option} is {text!r}; it must be {_WIDTHS[option]} numbers")
    if not all(map(math.isfinite, numbers)):
        raise TargetError(f"{option} is {text!r}, which is not finite")
    return numbers
