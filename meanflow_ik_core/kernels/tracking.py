# SPDX-License-Identifier: Apache-2.0
"""One step of joints that follow a moving target, in one call that allocates nothing.

The lanes of the tile are steps of the same configuration with dampings from next to none to very
much. Of those that reduce the error about as far as any does, the most damped one is taken, for it
is the shortest; so the error never grows and joints stay calm near singularities. The joints stay
in a box: within their limits, and no farther from where they were than one step may go. Parts that
share no joint choose for themselves.

Where the box is not to blame for what is left of the error, the lanes look for the target from
anywhere, with other starts in each call.
"""

import numpy as np
from numba import boolean, float64, int64, void
from numba.extending import register_jitable

from .counter_stream import write_uniform
from .descent import place_base
from .forward import forward
from .jacobian import jacobian
from .jit import cached_jit, jit, linked_jit
from .layout import (
    FRAME,
    MOVED_ROWS,
    NUM_MOVED,
    ORIENTATION_ROW,
    POSITION_ROW,
    unpack,
    work_rows,
)  # fmt: skip
from .pose_error import exact_error, residual
from .poses import RIGID_TOLERANCE, make_orthonormal
from .refinement import write_frames
from .selection import joint_difference
from .simd import LANES, load, load3, store, store3
from .step import damping_of_error, step
from .track_state import CONVERGED, JOINT_AT_LIMIT, OFFERED, REACHED_TIPS, STARTS, state_of

# What became of a step; of a refused one, nothing.
REFUSED, REACHED, FOLLOWING, AT_LIMIT, SINGULAR = -1, 0, 1, 2, 3
_WORK, _INTEGERS, _FLOATS = float64[:, ::1], int64[::1], float64[::1]
_MOST_STEPS = 12
_SEARCH_STEPS = 14
_EXACT = 1e-18  # m^2 or rad^2, a square of errors that ends the steps
_STILL = 1e-6  # share of the square that a step must remove to be one
_FINE, _GAIN = 1e-12, 0.75  # a square from which on it must remove that share of it
_SHARE = 0.1  # of what the best lane gains, that the shortest step may do without
_LEAST_DAMPING, _DAMPING_RATIO = 1e-10, 5.0
_LEAST_PULL = 1e-6  # of the error, that holds a joint at its limit
_TURN = 2 * np.pi
_KEY = np.uint64(0x7AC)  # of the random numbers


@register_jitable
def rows_of_tracking(num_nodes, num_joints, num_tips, num_errors):
    """How many rows the work buffer has: those of `work_rows`, the dampings, squares of G parts."""
    return work_rows(num_nodes, num_joints, num_tips, num_errors).end + 1 + num_tips


@register_jitable
def _rows(arrays):
    return work_rows(
        arrays.nodes.shape[0], arrays.bounds.shape[0], arrays.tips.shape[0], arrays.blocks.size
    )


@linked_jit(void(_WORK, _INTEGERS, _FLOATS))
def _evaluate(work, integers, floats):
    """Write frames and errors of all lanes, and the square of each part's errors."""
    arrays = unpack(integers, floats)
    rows = _rows(arrays)
    forward(work, arrays.nodes, arrays.node_numbers, rows.q)
    residual(
        work, arrays.tips, arrays.tip_numbers, rows.target, rows.tip, rows.error, rows.ratio,
        rows.maps, rows.turn,
    )  # fmt: skip
    for t in range(arrays.tips.shape[0]):
        store(work, rows.end + 1 + t, 0.0)
    for e in range(arrays.blocks.size):
        row = rows.end + 1 + arrays.tip_parts[arrays.blocks[e]]
        x, y, z = load3(work, rows.error + 3 * e)
        store(work, row, load(work, row) + x * x + y * y + z * z)


@jit
def _write_pulls(work, arrays, rows, pull):
    """Write how the errors pull joints outward that are at a bound of their box; 0 elsewhere."""
    num_rows = 3 * arrays.blocks.size
    size = 0.0
    for i in range(num_rows):
        size += work[rows.error + i, 0] ** 2
    for j in range(pull.size):
        pull[j] = 0.0
        q, total = work[rows.q + j, 0], 0.0
        at_upper, at_lower = q >= arrays.bounds[j, 1], q <= arrays.bounds[j, 0]
        if not (at_upper or at_lower):
            continue
        for i in range(MOVED_ROWS, MOVED_ROWS + arrays.moved[j, NUM_MOVED]):
            row = arrays.moved[j, i]
            for k in range(row, row + 3):
                total += work[rows.jacobian + j * num_rows + k, 0] * work[rows.error + k, 0]
        if abs(total) > _LEAST_PULL * np.sqrt(size) and (
            (at_upper and total > 0.0) or (at_lower and total < 0.0)
        ):
            pull[j] = total


@linked_jit(void(_WORK, _INTEGERS, _FLOATS, _FLOATS, boolean))
def _step(work, integers, floats, pull, together):
    """Step all lanes, with their own dampings where they are ``together`` at one configuration.

    Then ``pull`` (J,) is written: how the errors pull joints outward that are at a bound of their
    box; 0 elsewhere.
    """
    arrays = unpack(integers, floats)
    rows = _rows(arrays)
    jacobian(
        work, arrays.nodes, arrays.columns, arrays.tips, arrays.node_numbers, arrays.tip_numbers,
        3 * arrays.blocks.size, rows.tip, rows.maps, rows.jacobian,
    )  # fmt: skip
    if together:
        for lane in range(LANES):
            work[rows.end, lane] = _LEAST_DAMPING * _DAMPING_RATIO**lane
        _write_pulls(work, arrays, rows, pull)
    else:
        store(work, rows.end, damping_of_error(work, arrays, rows))
    step(work, arrays, rows, load(work, rows.end), False)


@jit
def _begin(work, rows, q):
    """Bring all lanes to joints q (J,)."""
    for j in range(q.size):
        store(work, rows.q + j, q[j])


@jit
def _choose(work, arrays, rows, state, q):
    """Let each part go where the best of its lanes goes; False where no part gains by it."""
    moves = False
    for part in range(state.least.size):
        squares = work[rows.end + 1 + part]
        before = best = state.least[part]
        for lane in range(LANES):
            best = min(best, squares[lane])
        least_gain = _GAIN if before <= _FINE else _STILL
        if before <= _EXACT or not (best <= _EXACT or best < before * (1.0 - least_gain)):
            continue
        enough = max(_EXACT, min(4.0 * best, best + _SHARE * (before - best)))
        lane = LANES - 1
        while squares[lane] > enough:
            lane -= 1
        state.least[part] = squares[lane]
        moves = True
        for j in range(q.size):
            if arrays.joint_parts[j] == part:
                q[j] = work[rows.q + j, lane]
    return moves


@jit
def _approach(work, integers, boxed, rows, state, q):
    """Bring q (J,) as near to the target as its box lets it; whether it came to rest."""
    box = unpack(integers, boxed)
    for _ in range(_MOST_STEPS):
        _begin(work, rows, q)
        _evaluate(work, integers, boxed)
        exact = True
        for part in range(state.least.size):
            state.least[part] = work[rows.end + 1 + part, 0]
            exact = exact and state.least[part] <= _EXACT
        if exact:
            return True
        _step(work, integers, boxed, state.pull, True)
        _evaluate(work, integers, boxed)
        if not _choose(work, box, rows, state, q):
            return True
    return False


@jit
def _measure(work, integers, floats, rows, q, of_active, errors):
    """Write the errors (T, 2) of q (J,) in m and rad, and which tips are reached; whether all."""
    arrays = unpack(integers, floats)
    _begin(work, rows, q)
    _evaluate(work, integers, floats)
    all_reached = True
    for g in range(arrays.tips.shape[0]):
        distance, sine, cosine = exact_error(
            work, arrays.tips, arrays.tip_numbers, g, rows.target, rows.turn
        )
        store3(work, rows.tip, distance, sine, cosine)
        error = errors[arrays.active[g]]
        error[0] = work[rows.tip, 0] if arrays.tips[g, POSITION_ROW] >= 0 else 0.0
        error[1] = 0.0
        if arrays.tips[g, ORIENTATION_ROW] >= 0:
            error[1] = np.arctan2(work[rows.tip + 1, 0], work[rows.tip + 2, 0])
        of_active[g] = error[0] <= arrays.tolerances[g, 0] and error[1] <= arrays.tolerances[g, 1]
        all_reached = all_reached and of_active[g] == 1
    return all_reached


@jit
def _short_way(delta, continuous):
    return delta - _TURN * np.rint(delta / _TURN) if continuous == 1 else delta


@jit
def _write_drifted(arrays, state, q):
    """Write where joints drift in one step, without regard to the target; whether they do.

    Their ways are shortened together, so that they come to rest where the target lets them come
    no nearer.
    """
    longest = 1.0
    for j in range(q.size):
        most, margin, joint = state.drift[j], state.margin[j], state.joints[j]
        wanted = 0.0
        if margin > 0.0:
            below = arrays.limits[j, 0] + margin - joint
            above = joint - arrays.limits[j, 1] + margin
            wanted = max(below, 0.0) - max(above, 0.0)
        if state.posture[j] == state.posture[j]:
            wanted += _short_way(state.posture[j] - joint, arrays.continuous[j])
        q[j] = wanted
        longest = max(longest, abs(wanted) / most)
    drifts = False
    for j in range(q.size):
        drifts = drifts or q[j] != 0.0
        moved = state.joints[j] + q[j] / longest
        q[j] = min(max(moved, arrays.bounds[j, 0]), arrays.bounds[j, 1])
    return drifts


@jit
def _search(work, integers, floats, rows, state, reached):
    """Write the offer, the configuration nearest to the joints that is found to reach the target.

    Joints that move no tip but those that are ``reached`` (G,) stay where they are. Returns
    whether one is found.
    """
    arrays = unpack(integers, floats)
    joints, numbers, start = state.joints, state.numbers, state.aim
    for lane in range(LANES):
        if lane == 0 and numbers[OFFERED] == 1:
            start[:] = state.offer
        else:
            write_uniform(_KEY, numbers[STARTS], arrays.limits, start)
            numbers[STARTS] += 1
        for j in range(start.size):
            free = False
            for i in range(MOVED_ROWS, MOVED_ROWS + arrays.moved[j, NUM_MOVED]):
                free = free or reached[arrays.blocks[arrays.moved[j, i] // 3]] == 0
            work[rows.q + j, lane] = start[j] if free else joints[j]
    for _ in range(_SEARCH_STEPS):
        _evaluate(work, integers, floats)
        _step(work, integers, floats, state.pull, False)
    _evaluate(work, integers, floats)
    nearest = np.inf
    for lane in range(LANES):
        exact = True
        for part in range(state.least.size):
            exact = exact and work[rows.end + 1 + part, lane] <= _EXACT
        if not exact:
            continue
        distance = 0.0
        for j in range(start.size):
            delta = joint_difference(work[rows.q + j, lane], joints[j], arrays.continuous[j])
            distance = max(distance, delta)
        if distance < nearest:
            nearest = distance
            for j in range(start.size):
                delta = work[rows.q + j, lane] - joints[j]
                state.offer[j] = joints[j] + _short_way(delta, arrays.continuous[j])
    return nearest < np.inf


@cached_jit
def track(T_base_tip, frames, floats_of_state, numbers, errors, work, integers, floats, boxed):
    """Go one step towards a target.

    Args:
        T_base_tip: (1, T, 4, 4) float64, of which rotations are made orthonormal in place.
        frames: (1, 12 G) float64 scratch.
        floats_of_state, numbers: see `state_of`.
        errors: (T, 2) written: m and rad, 0 for a tip without a target.
        work: see `rows_of_tracking`; it begins as zeros.
        integers, floats: the robot, see `layout.pack`, in float64.
        boxed: the floats once more, whose bounds are written here.

    Returns:
        What became of it, see above. Where the target is no pose, the joints stay.
    """
    if make_orthonormal(T_base_tip) > RIGID_TOLERANCE:
        return REFUSED
    arrays, box = unpack(integers, floats), unpack(integers, boxed)
    num_joints, num_tips = arrays.bounds.shape[0], arrays.tips.shape[0]
    rows = _rows(arrays)
    state = state_of(floats_of_state, numbers, num_joints)
    joints, before = state.joints, state.before
    write_frames(T_base_tip, arrays.active, frames)
    place_base(work)
    for i in range(num_tips * FRAME):
        store(work, rows.target + i, frames[0, i])
    for j in range(num_joints):
        before[j] = joints[j]
        box.bounds[j, 0] = max(arrays.bounds[j, 0], joints[j] - state.allowed[j])
        box.bounds[j, 1] = min(arrays.bounds[j, 1], joints[j] + state.allowed[j])
    rest = False
    if numbers[CONVERGED] == 1 and _write_drifted(arrays, state, state.aim):
        _approach(work, integers, boxed, rows, state, state.aim)
        numbers[CONVERGED] = _is_exact(state)
    else:
        numbers[CONVERGED] = 0
    if numbers[CONVERGED] == 0:
        state.aim[:] = before
        rest = _approach(work, integers, boxed, rows, state, state.aim)
        numbers[CONVERGED] = _is_exact(state)
    joints[:] = state.aim
    reached = numbers[REACHED_TIPS:]
    if _measure(work, integers, floats, rows, joints, reached, errors):
        numbers[OFFERED] = 0
        return REACHED
    hardest = 0.0
    numbers[JOINT_AT_LIMIT] = -1
    for j in range(num_joints):
        if state.pull[j] == 0.0:
            continue
        limit = arrays.bounds[j, 1 if state.pull[j] > 0.0 else 0]
        if joints[j] != limit:
            rest = False
        elif abs(state.pull[j]) > hardest:
            hardest = abs(state.pull[j])
            numbers[JOINT_AT_LIMIT] = j
    if not rest:
        numbers[OFFERED] = 0
        return FOLLOWING
    numbers[OFFERED] = _search(work, integers, floats, rows, state, reached)
    return SINGULAR if numbers[JOINT_AT_LIMIT] < 0 else AT_LIMIT


@jit
def _is_exact(state):
    for part in range(state.least.size):
        if state.least[part] > _EXACT:
            return 0
    return 1


def compile_track() -> None:
    """Compile `track`, or load it."""
    poses, rows, floats, integers = float64[:, :, :, ::1], _WORK, _FLOATS, _INTEGERS
    track.compile((poses, rows, floats, integers, rows, rows, integers, floats, floats))
