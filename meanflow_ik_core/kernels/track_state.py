# SPDX-License-Identifier: Apache-2.0
"""What a tracker keeps between its steps, in one array of floats and one of integers."""

from typing import Any, NamedTuple

from numba.extending import register_jitable

# Numbers in `TrackState.numbers`.
STARTS, OFFERED, JOINT_AT_LIMIT, CONVERGED = 0, 1, 2, 3
# From here on, which of the G tips are reached.
REACHED_TIPS = 4


class TrackState(NamedTuple):
    """What is known of J joints that follow targets of G tips."""

    joints: Any  # (J,) where they are, rad or m
    before: Any  # (J,) where they were
    allowed: Any  # (J,) how far they may go in one step
    posture: Any  # (J,) that they drift to; NaN: anywhere
    margin: Any  # (J,) of the limits, that they drift out of; 0: none
    drift: Any  # (J,) in one step at most
    offer: Any  # (J,) that reaches a target which these joints do not
    aim: Any  # (J,) scratch
    pull: Any  # (J,) of the errors on each joint that is at a bound
    least: Any  # (G,) squares of the errors of each part
    numbers: Any  # int64, see above


@register_jitable
def state_of(floats, numbers, num_joints):
    """The `TrackState` in an array of 9 J + G floats, and the numbers."""
    j = num_joints
    return TrackState(
        floats[:j], floats[j : 2 * j], floats[2 * j : 3 * j], floats[3 * j : 4 * j],
        floats[4 * j : 5 * j], floats[5 * j : 6 * j], floats[6 * j : 7 * j], floats[7 * j : 8 * j],
        floats[8 * j : 9 * j], floats[9 * j :], numbers,
    )  # fmt: skip
