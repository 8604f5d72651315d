# SPDX-License-Identifier: Apache-2.0
"""Damped least squares, and exact errors, of many samples, a tile at a time.

A tile is the samples that fill the lanes of one vector. All that is known about it lies in one
work buffer (R, LANES), a row per quantity and a column per sample (`Rows`; `simd.load` and
`simd.store` move rows). Samples come as q (B, N, J), N of each of B problems, and a list says which
of them, b * N + n, are worked on. What becomes of a sample does not depend on the others.
"""

import numpy as np
from numba import float32, float64, int8, int64, void

from .forward import forward, place_base
from .jacobian import jacobian
from .jit import jit, linked_jit
from .layout import FRAME, ORIENTATION_ROW, POSITION_ROW, unpack, work_rows
from .pose_error import exact_error, residual
from .simd import LANES, store, store3
from .step import damping_of_error, step

# What became of a sample; an open one was not tried.
OPEN, FAILED, CONVERGED = 0, 1, 2
# Whether samples slide towards the reference of their problem: not at all, once they have
# converged, or from the first step on.
STAY, SLIDE_AFTERWARDS, SLIDE_AT_ONCE = 0, 1, 2
_SLIDING_STEPS = 12  # at most
_STILL = 2e-3  # rad or m, of the joint that moves most in the last step of a slide

# Types of what several of these functions take: samples, rows per problem, lists, and the robot.
SAMPLES, ROWS, LIST, INTEGERS = float64[:, :, ::1], float64[:, ::1], int64[::1], int64[::1]
FLOATS32, FLOATS64, WORK32, WORK64 = float32[::1], float64[::1], float32[:, ::1], float64[:, ::1]
ERRORS, OUTCOMES = float64[:, :, :, ::1], int8[:, ::1]


@jit
def work_buffer(arrays, floats):
    """A work buffer for a robot, in the type of the floats."""
    num_nodes, num_joints = arrays.nodes.shape[0], arrays.bounds.shape[0]
    rows = work_rows(num_nodes, num_joints, arrays.tips.shape[0], arrays.blocks.size)
    # A vector that crosses cache lines takes twice as long to load.
    raw = np.zeros(rows.end * LANES + 64, floats.dtype)
    first = (-np.int64(raw.ctypes.data) % 64) // floats.itemsize
    return raw[first : first + rows.end * LANES].reshape((rows.end, LANES))


@jit
def _clear(work):
    for row in range(work.shape[0]):
        store(work, row, 0.0)


@linked_jit(
    *(
        void(SAMPLES, ROWS, ROWS, LIST, int64, OUTCOMES, work, INTEGERS, floats, int64, int64)
        for work, floats in ((WORK32, FLOATS32), (WORK64, FLOATS64))
    )
)
def descend(
    q, frames, reference, todo, count, outcome, work, integers, floats, max_iterations, sliding
):  # fmt: skip
    """Step samples until they converge or run out of iterations; a free lane takes the next.

    Args:
        q: (B, N, J) float64 rad or m, changed in place.
        frames: (B, 12 G) float64, frames of the targets.
        reference: (B, J) rad or m, where samples slide to.
        todo: int64, of which the first ``count`` are samples b * N + n.
        count: how many.
        outcome: (B, N) int8, written for these: FAILED or CONVERGED.
        work: see `work_buffer`; its type is that of the arithmetic.
        integers, floats: the robot, see `layout.pack`, in that type.
        max_iterations: steps of a sample at most, but for those of a slide.
        sliding: STAY, SLIDE_AFTERWARDS or SLIDE_AT_ONCE.
    """
    arrays = unpack(integers, floats)
    num_joints, num_tips, width = arrays.bounds.shape[0], arrays.tips.shape[0], work.shape[1]
    bounds, num_errors, per_problem = arrays.bounds, arrays.blocks.size, q.shape[1]
    rows = work_rows(arrays.nodes.shape[0], num_joints, num_tips, num_errors)
    _clear(work)
    place_base(work)
    lane_problem = np.full(width, -1, np.int64)  # -1: idle
    lane_row = np.zeros(width, np.int64)
    lane_age = np.zeros(width, np.int64)
    cursor = active = 0
    while True:
        for lane in range(width):
            if lane_problem[lane] < 0 and cursor < count:
                problem, row = todo[cursor] // per_problem, todo[cursor] % per_problem
                cursor += 1
                for j in range(num_joints):
                    work[rows.q + j, lane] = min(
                        max(q[problem, row, j], bounds[j, 0]), bounds[j, 1]
                    )
                for i in range(num_tips * FRAME):
                    work[rows.target + i, lane] = frames[problem, i]
                if sliding != STAY:
                    for j in range(num_joints):
                        work[rows.reference + j, lane] = reference[problem, j]
                    for i in range(3 * num_errors):
                        work[rows.solution + i, lane] = 0
                    work[rows.slides, lane] = 1 if sliding == SLIDE_AT_ONCE else 0
                    work[rows.motion, lane] = 0 if sliding == SLIDE_AFTERWARDS else 1
                lane_problem[lane] = problem
                lane_row[lane] = row
                lane_age[lane] = 0
                active += 1
        if active == 0:
            return
        forward(work, arrays.nodes, arrays.node_numbers, rows.q)
        residual(
            work, arrays.tips, arrays.tip_numbers, rows.target, rows.tip, rows.error, rows.ratio,
            rows.maps, rows.turn,
        )  # fmt: skip
        for lane in range(width):
            problem, row = lane_problem[lane], lane_row[lane]
            if problem < 0:
                continue
            done = work[rows.ratio, lane] <= 1
            limit = max_iterations
            if sliding != STAY and work[rows.slides, lane] > 0:
                limit = max_iterations + _SLIDING_STEPS
                done = done and work[rows.motion, lane] <= _STILL
                if sliding == SLIDE_AFTERWARDS and lane_age[lane] >= limit:
                    done = True  # it had converged, so it will again
            elif sliding != STAY and done:
                work[rows.slides, lane] = 1
                lane_age[lane] = max_iterations
                done = False
                limit = max_iterations + 1
            if done or lane_age[lane] >= limit:
                for j in range(num_joints):
                    q[problem, row, j] = work[rows.q + j, lane]
                outcome[problem, row] = CONVERGED if done else FAILED
                lane_problem[lane] = -1
                active -= 1
            lane_age[lane] += 1
        if active == 0 and cursor >= count:
            return
        jacobian(
            work, arrays.nodes, arrays.columns, arrays.tips, arrays.node_numbers,
            arrays.tip_numbers, 3 * num_errors, rows.tip, rows.maps, rows.jacobian,
        )  # fmt: skip
        step(work, arrays, rows, damping_of_error(work, arrays, rows), sliding != STAY)


@linked_jit(void(SAMPLES, ROWS, LIST, int64, ERRORS, WORK64, INTEGERS, FLOATS64))
def measure(q, frames, todo, count, errors, work, integers, floats):
    """Write distance [m] and angle [rad] to the targets, of what counts, to errors (B, N, G, 2).

    The other arguments are those of `descend`, all in float64.
    """
    arrays = unpack(integers, floats)
    num_joints, num_tips, width = q.shape[2], arrays.tips.shape[0], work.shape[1]
    rows = work_rows(arrays.nodes.shape[0], num_joints, num_tips, arrays.blocks.size)
    tips, per_problem = arrays.tips, q.shape[1]
    _clear(work)
    place_base(work)
    for first in range(0, count, width):
        lanes = min(width, count - first)
        for lane in range(lanes):
            problem, row = todo[first + lane] // per_problem, todo[first + lane] % per_problem
            for j in range(num_joints):
                work[rows.q + j, lane] = q[problem, row, j]
            for i in range(num_tips * FRAME):
                work[rows.target + i, lane] = frames[problem, i]
        forward(work, arrays.nodes, arrays.node_numbers, rows.q)
        for t in range(num_tips):
            distance, sine, cosine = exact_error(
                work, tips, arrays.tip_numbers, t, rows.target, rows.turn
            )
            store3(work, rows.tip, distance, sine, cosine)
            for lane in range(lanes):
                problem, row = todo[first + lane] // per_problem, todo[first + lane] % per_problem
                error = errors[problem, row, t]
                error[0] = work[rows.tip, lane] if tips[t, POSITION_ROW] >= 0 else 0.0
                error[1] = 0.0
                if tips[t, ORIENTATION_ROW] >= 0:
                    error[1] = np.arctan2(work[rows.tip + 1, lane], work[rows.tip + 2, lane])
