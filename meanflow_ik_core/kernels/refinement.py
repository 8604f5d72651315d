# SPDX-License-Identifier: Apache-2.0
"""From starts to exact configurations: float32 steps, then float64 steps where those came close.

A tolerance is a region. Where no exact configuration is near, as for an arm of five joints, further
steps lead to the nearest one whose errors lie within the tolerances.

Where the tips fall into parts that share no joint, a start that finds only some of them is
completed with what others found; where none of several finds all of them, each part is refined
without the others, so that one out of reach leaves them exact: a part far from its target holds
back the steps of the others.
"""

import numpy as np
from numba import boolean, int64, void

from .descent import (
    CONVERGED,
    ERRORS,
    FAILED,
    FLOATS32,
    FLOATS64,
    INTEGERS,
    OPEN,
    ROWS,
    SAMPLES,
    STAY,
    WORK32,
    WORK64,
    descend,
    measure,
    work_buffer,
)  # fmt: skip
from .jit import cached_jit, jit, linked_jit
from .layout import (
    AXIS_WEIGHTS,
    FRAME,
    ORIENTATION_PRECISION,
    PLAIN,
    POSITION_MEASURE,
    POSITION_PRECISION,
    POSITION_SLACK,
    POSITION_WEIGHT,
    unpack,
)  # fmt: skip
from .recombination import parts_found, recombine

COARSE_ITERATIONS = 15
FINE_ITERATIONS = 8
ENTERING_ITERATIONS = 30
_SLACK = 0.9  # of a tolerance; the rest is where steps end
IN_REACH = 4.0  # times the sum of the squared tolerances
_LEAST_WEIGHT = 1e-3  # of an error in units of its tolerance, relative to that of the strictest
_ALONE = 32  # samples of a problem whose parts are refined one by one
_TURN = 2 * np.pi


@jit
def write_frames(T_base_tip, active, frames):
    """Write targets (B, T, 4, 4) as frames (B, 12 G): axes, then origin, tip by tip."""
    for b in range(frames.shape[0]):
        for g in range(active.size):
            pose = T_base_tip[b, active[g]]
            for c in range(4):
                for r in range(3):
                    frames[b, g * FRAME + 3 * c + r] = pose[r, c]


@jit
def _listed(outcome, which, todo):
    """Write the samples with an outcome to todo; returns how many."""
    count = 0
    flat = outcome.reshape(outcome.size)
    for i in range(flat.size):
        if flat[i] == which:
            todo[count] = i
            count += 1
    return count


@jit
def _ignore(tip_numbers):
    """Let the errors of a tip count nothing."""
    for i in range(POSITION_WEIGHT, ORIENTATION_PRECISION + 1):
        tip_numbers[i] = 0
    for i in range(AXIS_WEIGHTS, AXIS_WEIGHTS + 6):
        tip_numbers[i] = 0


@jit
def _part_by_part(
    q, frames, errors, outcome, todo, coarse_work, fine_work, integers, floats32, floats64,
    iterations,
):  # fmt: skip
    """Bring every part of the samples (1, N, J) of one problem as near as it comes."""
    fine = unpack(integers, floats64)
    num_parts = num_parts_of(fine)
    some = min(_ALONE, q.shape[1])
    start = q[:, :some].copy()
    own_outcome = np.full((1, some), OPEN, np.int8)
    own_errors = np.empty((1, some, errors.shape[2], 2))
    found = np.zeros((q.shape[1], num_parts), np.bool_)
    own_found = np.empty((some, num_parts), np.bool_)
    reference = start[:, 0].copy()
    for part in range(num_parts):
        # Copies, for other threads read the robot as well.
        own_floats32, own_floats64 = floats32.copy(), floats64.copy()
        own_coarse, own_fine = unpack(integers, own_floats32), unpack(integers, own_floats64)
        for t in range(fine.tip_parts.size):
            if fine.tip_parts[t] != part:
                _ignore(own_coarse.tip_numbers[t])
                _ignore(own_fine.tip_numbers[t])
        alone = start.copy()
        for i in range(some):
            todo[i] = i
        descend(
            alone, frames, reference, todo, some, own_outcome, coarse_work, integers, own_floats32,
            iterations, STAY,
        )  # fmt: skip
        count = _listed(own_outcome, CONVERGED, todo)
        descend(
            alone, frames, reference, todo, count, own_outcome, fine_work, integers, own_floats64,
            FINE_ITERATIONS, STAY,
        )  # fmt: skip
        for i in range(some):
            todo[i] = i
        measure(alone, frames, todo, some, own_errors, fine_work, integers, floats64)
        parts_found(own_errors[0], own_outcome[0], fine.tolerances, fine, own_found)
        for n in range(some):
            found[n, part] = own_found[n, part]
            for j in range(q.shape[2]):
                if fine.joint_parts[j] == part:
                    q[0, n, j] = alone[0, n, j]
    for n in range(q.shape[1]):
        outcome[0, n] = FAILED
    recombine(q[0], found, outcome[0], fine.joint_parts)


@jit
def num_parts_of(arrays):
    """How many parts there are."""
    most = -1
    for t in range(arrays.tip_parts.size):
        most = max(most, arrays.tip_parts[t])
    return most + 1


@jit
def _wrapped(x, continuous):
    return x - _TURN * np.rint(x / _TURN) if continuous == 1 else x


@jit
def _finish(q, frames, errors, valid, todo, count, work, integers, floats):
    """Bring samples into the limits, measure them, and mark those that are solutions."""
    arrays = unpack(integers, floats)
    num_joints, per_problem = q.shape[2], q.shape[1]
    limits = arrays.limits
    for i in range(count):
        b, n = todo[i] // per_problem, todo[i] % per_problem
        for j in range(num_joints):
            x = _wrapped(q[b, n, j], arrays.continuous[j])
            q[b, n, j] = min(max(x, limits[j, 0]), limits[j, 1])
    measure(q, frames, todo, count, errors, work, integers, floats)
    for i in range(count):
        b, n = todo[i] // per_problem, todo[i] % per_problem
        good = True
        for t in range(errors.shape[2]):
            for k in range(2):
                good &= errors[b, n, t, k] <= arrays.tolerances[t, k]
        valid[b, n] = good


@jit
def within_tolerances(tolerances):
    """Weights of errors, their slack and their precision (3, G, 2) for steps into tolerances.

    Args:
        tolerances: (G, 2) m and rad.
    """
    numbers = np.empty((3, tolerances.shape[0], 2))
    least = tolerances.min()
    for t in range(tolerances.shape[0]):
        for k in range(2):
            tolerance = tolerances[t, k]
            size = tolerance if k == 0 else 2 * np.sin(0.5 * min(tolerance, np.pi))
            numbers[0, t, k] = max(least / tolerance, _LEAST_WEIGHT)
            numbers[1, t, k] = _SLACK * size
            numbers[2, t, k] = ((1 - _SLACK) * size) ** -2
    return numbers


@jit
def _enter_tolerances(
    q, frames, reference, errors, valid, todo, count, outcome, work, integers, floats
):  # fmt: skip
    """Take samples that are no solutions to where their errors lie within the tolerances.

    Steps that reduce errors alone end where their sum of squares is least. Of samples there only
    those can have a solution nearby whose sum is at most that of the tolerances. Steps from there
    reduce what of each error is beyond its tolerance, in units of the tolerances.
    """
    arrays = unpack(integers, floats)
    per_problem, num_tips = q.shape[1], errors.shape[2]
    within = 0.0
    for t in range(num_tips):
        within += arrays.tolerances[t, 0] ** 2 + arrays.tolerances[t, 1] ** 2
    some = 0
    for i in range(count):
        b, n = todo[i] // per_problem, todo[i] % per_problem
        total = 0.0
        for t in range(num_tips):
            total += errors[b, n, t, 0] ** 2 + errors[b, n, t, 1] ** 2
        if not valid[b, n] and total <= IN_REACH * within:
            todo[some] = todo[i]
            some += 1
    if some == 0:
        return
    # A copy, for other threads read the robot as well.
    own_floats = floats.copy()
    own = unpack(integers, own_floats)
    weights, slack, precision = within_tolerances(arrays.tolerances)
    for t in range(num_tips):
        numbers = own.tip_numbers[t]
        for k in range(2):
            if arrays.tips[t, POSITION_MEASURE + k] == PLAIN:
                numbers[POSITION_WEIGHT + k] *= weights[t, k]
            for i in range(AXIS_WEIGHTS + 3 * k, AXIS_WEIGHTS + 3 * k + 3):
                numbers[i] *= weights[t, k]
            numbers[POSITION_SLACK + k] = slack[t, k]
            numbers[POSITION_PRECISION + k] = precision[t, k]
    descend(
        q, frames, reference, todo, some, outcome, work, integers, own_floats,
        ENTERING_ITERATIONS, STAY,
    )  # fmt: skip
    _finish(q, frames, errors, valid, todo, some, work, integers, floats)


@linked_jit(
    void(
        SAMPLES, ROWS, ROWS, ERRORS, boolean[:, ::1], WORK32, WORK64, INTEGERS, FLOATS32, FLOATS64,
        int64, boolean, int64,
    )
)  # fmt: skip
def refine(
    q, frames, reference, errors, valid, coarse_work, fine_work, integers, floats32, floats64,
    sliding, recombining, iterations,
):  # fmt: skip
    """Refine starts in place.

    Args:
        q: (B, N, J) float64 starts, rad or m; one that is not finite is left as it is.
        frames: (B, 12 G), see `write_frames`.
        reference: (B, J), where samples slide to.
        errors: (B, N, G, 2), written: m and rad; infinite where a start is not finite.
        valid: (B, N) bool, written: within tolerance; all end within the limits.
        coarse_work, fine_work: see `work_buffer`, in float32 and float64.
        integers, floats32, floats64: the robot, see `layout.pack`.
        sliding: see `descent`.
        recombining: whether parts that share no joint complete each other.
        iterations: of the float32 steps, at most.
    """
    coarse, fine = unpack(integers, floats32), unpack(integers, floats64)
    batch, per_problem, num_joints = q.shape
    outcome = np.full((batch, per_problem), OPEN, np.int8)
    todo = np.empty(batch * per_problem, np.int64)
    known = np.empty(batch * per_problem, np.int64)
    num_known = 0
    for b in range(batch):
        for n in range(per_problem):
            total = 0.0
            for j in range(num_joints):
                total += q[b, n, j] * 0.0
            if total == 0.0:
                for j in range(num_joints):
                    q[b, n, j] = _wrapped(q[b, n, j], fine.continuous[j])
                known[num_known] = b * per_problem + n
                num_known += 1
            else:
                for t in range(errors.shape[2]):
                    errors[b, n, t, 0] = errors[b, n, t, 1] = np.inf
                valid[b, n] = False
    descend(
        q, frames, reference, known, num_known, outcome, coarse_work, integers, floats32,
        iterations, sliding,
    )  # fmt: skip
    num_parts = num_parts_of(fine)
    several = recombining and num_parts > 1
    found = np.empty((per_problem if several else 0, num_parts), np.bool_)
    if several:
        measure(q, frames, known, num_known, errors, fine_work, integers, floats64)
        tolerances = np.empty((fine.tip_parts.size, 2))
        for t in range(fine.tip_parts.size):
            tolerances[t, 0] = coarse.tip_numbers[t, POSITION_PRECISION] ** -0.5
            tolerances[t, 1] = coarse.tip_numbers[t, ORIENTATION_PRECISION] ** -0.5
        for b in range(batch):
            parts_found(errors[b], outcome[b], tolerances, fine, found)
            recombine(q[b], found, outcome[b], fine.joint_parts)
    count = _listed(outcome, CONVERGED, todo)
    descend(
        q, frames, reference, todo, count, outcome, fine_work, integers, floats64, FINE_ITERATIONS,
        STAY,
    )  # fmt: skip
    _finish(q, frames, errors, valid, known, num_known, fine_work, integers, floats64)
    _enter_tolerances(
        q, frames, reference, errors, valid, known, num_known, outcome, fine_work, integers,
        floats64,
    )  # fmt: skip
    if several and per_problem > 1:  # a step from a known configuration has one start
        for b in range(batch):
            hopeless = True
            for n in range(per_problem):
                hopeless &= not valid[b, n] and outcome[b, n] != OPEN
            if not hopeless:
                continue
            own = slice(b, b + 1)
            _part_by_part(
                q[own], frames[own], errors[own], outcome[own], todo, coarse_work, fine_work,
                integers, floats32, floats64, iterations,
            )  # fmt: skip
            for n in range(per_problem):
                todo[n] = n
            _finish(
                q[own], frames[own], errors[own], valid[own], todo, per_problem, fine_work,
                integers, floats64,
            )  # fmt: skip


@cached_jit
def refine_starts(
    q, T_base_tip, reference, integers, floats32, floats64, sliding, recombining, iterations
):  # fmt: skip
    """Refine starts q (B, N, J) in place, see `refine`.

    Args:
        q: (B, N, J) float64.
        T_base_tip: (B, T, 4, 4) float64.
        reference: (B, J), where samples slide to.
        integers, floats32, floats64: the robot, see `layout.pack`.
        sliding, recombining, iterations: see `refine`.

    Returns:
        Errors in m and rad (B, N, T, 2), 0 for a tip without a target, and valid (B, N).
    """
    coarse, fine = unpack(integers, floats32), unpack(integers, floats64)
    frames = np.empty((q.shape[0], FRAME * fine.active.size))
    write_frames(T_base_tip, fine.active, frames)
    errors = np.empty((q.shape[0], q.shape[1], fine.active.size, 2))
    valid = np.zeros(q.shape[:2], np.bool_)
    refine(
        q, frames, reference, errors, valid, work_buffer(coarse, floats32),
        work_buffer(fine, floats64), integers, floats32, floats64, sliding, recombining,
        iterations,
    )  # fmt: skip
    return of_all_tips(errors, fine.active, T_base_tip.shape[1]), valid


@jit
def of_all_tips(errors, active, num_tips):
    """Errors (B, N, G, 2) as (B, N, T, 2)."""
    of_all = np.zeros((errors.shape[0], errors.shape[1], num_tips, 2))
    for g in range(active.size):
        for b in range(errors.shape[0]):
            for n in range(errors.shape[1]):
                for i in range(2):
                    of_all[b, n, active[g], i] = errors[b, n, g, i]
    return of_all
