# SPDX-License-Identifier: Apache-2.0
"""What Python calls of the kernels: damped least squares, and exact errors, of many samples.

A tile is the samples that fill the lanes of one vector. All that is known about it lies in one
work buffer (R, LANES), a row per quantity and a column per sample (`Rows`; `simd.load` and
`simd.store` move rows). The robot comes in arrays (see `layout`), so the kernels are compiled once
for all robots.
"""

import numpy as np
from numba import float32, float64, int8, int64

from .forward import forward, place_base
from .jacobian import jacobian
from .jit import cached_jit
from .layout import FRAME, ORIENTATION_ROW, POSITION_ROW, work_rows
from .pose_error import exact_error, residual
from .simd import store, store3
from .step import step

# What became of a sample; an open one was not tried.
OPEN, FAILED, CONVERGED = 0, 1, 2


def compile_all() -> None:
    """Compile `refine` and `evaluate` for all types that they are called with, or load them."""
    samples, rows, indices = float64[:, :, ::1], float64[:, ::1], int64[:, ::1]
    for real in (float32, float64):
        matrix = real[:, ::1]
        refine.compile(
            (
                samples, rows, int64[::1], int8[:, ::1], matrix, indices, indices, indices,
                indices, int64[::1], indices, matrix, matrix, matrix, real, real, real, int64,
            )
        )  # fmt: skip
    evaluate.compile((samples, rows, float64[:, :, :, ::1], rows, indices, indices, rows, rows))


@cached_jit
def refine(
    q, targets, todo, outcome, work, nodes, columns, tips, moved, blocks, pairs, node_numbers,
    tip_numbers, bounds, damping_factor, damping_floor, max_step, max_iterations,
):  # fmt: skip
    """Step samples until they converge or run out of iterations; a free lane takes the next.

    Args:
        q: (B, N, J) float64 rad or m, changed in place.
        targets: (B, 12 G) float64, frames of the targets.
        todo: (n,) int64, samples b * N + n.
        outcome: (B, N) int8, written for these: FAILED or CONVERGED.
        work: the buffer of a tile; its type is that of the arithmetic.
        nodes, columns, tips, moved, blocks, pairs, node_numbers, tip_numbers, bounds: `layout`.
        damping_factor: damping per squared weighted error.
        damping_floor: damping that is always added.
        max_step: rad or m, of the joint that moves most.
        max_iterations: steps of a sample at most.
    """
    num_joints, num_tips, width = bounds.shape[0], tips.shape[0], work.shape[1]
    per_problem = q.shape[1]
    rows = work_rows(nodes.shape[0], num_joints, num_tips, blocks.size)
    work[:] = 0
    place_base(work)
    lane_problem = np.full(width, -1, np.int64)  # -1: idle
    lane_row = np.zeros(width, np.int64)
    lane_age = np.zeros(width, np.int64)
    cursor = active = 0
    while True:
        for lane in range(width):
            if lane_problem[lane] < 0 and cursor < todo.size:
                problem, row = todo[cursor] // per_problem, todo[cursor] % per_problem
                cursor += 1
                for j in range(num_joints):
                    work[rows.q + j, lane] = min(
                        max(q[problem, row, j], bounds[j, 0]), bounds[j, 1]
                    )
                for i in range(num_tips * FRAME):
                    work[rows.target + i, lane] = targets[problem, i]
                lane_problem[lane] = problem
                lane_row[lane] = row
                lane_age[lane] = 0
                active += 1
        if active == 0:
            return
        forward(work, nodes, node_numbers, rows.q)
        residual(
            work, tips, tip_numbers, rows.target, rows.tip, rows.error, rows.ratio, rows.maps,
            rows.turn,
        )  # fmt: skip
        for lane in range(width):
            problem, row = lane_problem[lane], lane_row[lane]
            if problem < 0:
                continue
            done = work[rows.ratio, lane] <= 1
            if done or lane_age[lane] >= max_iterations:
                for j in range(num_joints):
                    q[problem, row, j] = work[rows.q + j, lane]
                outcome[problem, row] = CONVERGED if done else FAILED
                lane_problem[lane] = -1
                active -= 1
            lane_age[lane] += 1
        jacobian(
            work, nodes, columns, tips, node_numbers, tip_numbers, 3 * blocks.size, rows.tip,
            rows.maps, rows.jacobian,
        )  # fmt: skip
        step(
            work, moved, blocks, pairs, bounds, 3 * blocks.size, rows.q, rows.error,
            rows.solution, rows.jacobian, rows.matrix, damping_factor, damping_floor, max_step,
        )  # fmt: skip


@cached_jit
def evaluate(q, targets, errors, work, nodes, tips, node_numbers, tip_numbers):
    """Write distance [m] and angle [rad] to the targets, of what counts, to errors (B, N, G, 2).

    The other arguments are those of `refine`, all in float64.
    """
    num_joints, num_tips, width = q.shape[2], tips.shape[0], work.shape[1]
    rows = work_rows(nodes.shape[0], num_joints, num_tips, 0)
    work[:] = 0
    place_base(work)
    for problem in range(q.shape[0]):
        for i in range(num_tips * FRAME):
            store(work, rows.target + i, targets[problem, i])
        for first in range(0, q.shape[1], width):
            count = min(width, q.shape[1] - first)
            for lane in range(count):
                for j in range(num_joints):
                    work[rows.q + j, lane] = q[problem, first + lane, j]
            forward(work, nodes, node_numbers, rows.q)
            for t in range(num_tips):
                distance, sine, cosine = exact_error(
                    work, tips, tip_numbers, t, rows.target, rows.turn
                )
                store3(work, rows.tip, distance, sine, cosine)
                for lane in range(count):
                    error = errors[problem, first + lane, t]
                    error[0] = work[rows.tip, lane] if tips[t, POSITION_ROW] >= 0 else 0.0
                    error[1] = 0.0
                    if tips[t, ORIENTATION_ROW] >= 0:
                        error[1] = np.arctan2(work[rows.tip + 1, lane], work[rows.tip + 2, lane])
