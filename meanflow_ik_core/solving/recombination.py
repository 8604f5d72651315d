# SPDX-License-Identifier: Apache-2.0
"""The parts that a goal falls into."""

from collections.abc import Sequence
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from ..robot.robot import Robot


class Part(NamedTuple):
    """Tips whose joints move no other tip."""

    tips: np.ndarray  # indices
    joints: np.ndarray  # indices


_known_parts: WeakKeyDictionary[Robot, dict[tuple[int, ...], list[Part]]] = WeakKeyDictionary()


def independent_parts(robot: Robot, axis_weights: np.ndarray | None = None) -> list[Part]:
    """The parts that the tips with something asked for fall into, such as arms and each leg."""
    given = tuple(range(robot.num_tips))
    if axis_weights is not None:
        given = tuple(np.flatnonzero((np.asarray(axis_weights) != 0).any(1)).tolist())
    known = _known_parts.setdefault(robot, {})
    if given not in known:
        known[given] = _parts_of(robot, given)
    return known[given]


def _parts_of(robot: Robot, given: Sequence[int]) -> list[Part]:
    moves = robot.moves
    parts: list[tuple[list[int], np.ndarray]] = []
    for tip in given:
        coupled = [part for part in parts if (part[1] & moves[tip]).any()]
        parts = [part for part in parts if not (part[1] & moves[tip]).any()]
        tips = [tip, *(other for part in coupled for other in part[0])]
        parts.append((tips, np.logical_or.reduce([moves[other] for other in tips])))
    return [Part(np.array(sorted(tips)), np.flatnonzero(joints)) for tips, joints in parts]
