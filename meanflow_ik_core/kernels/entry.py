# SPDX-License-Identifier: Apache-2.0
"""The compiled kernels: one damped least-squares step, and exact errors, for a tile of samples.

A tile is the samples that fill the lanes of one vector. All that is known about it lies in one
work buffer, a row per quantity and a column per sample (`simd.load` and `simd.store` move rows).
The robot comes in arrays, so the kernels are compiled once for all robots.
"""

import numpy as np

from .forward import forward
from .jacobian import jacobian
from .jit import cached_jit
from .layout import FRAME, PLAIN, SWING, work_rows
from .pose_error import difference, residual, target_axis, turn_error
from .simd import square_root, store, store3
from .step import step

# What became of a sample; an open one was not tried.
OPEN, FAILED, CONVERGED = 0, 1, 2


@cached_jit
def refine(
    q, targets, todo, outcome, work, nodes, columns, tips, moved, blocks, pairs, node_numbers,
    tip_numbers, bounds, damping_factor, damping_floor, max_step, max_iterations,
):  # fmt: skip
    """Step the samples `todo` of q until they converge; a lane that is done takes the next one."""
    num_joints, num_tips, width = bounds.shape[0], tips.shape[0], work.shape[1]
    per_problem = q.shape[1]
    rows = 3 * blocks.size
    (
        q_row, target_row, tip_row, e_row, y_row, ratio_row, map_row, jacobian_row, matrix_row, _,
    ) = work_rows(nodes.shape[0], num_joints, num_tips, blocks.size)  # fmt: skip
    work[:] = 0
    for i in range(0, 9, 4):
        store(work, i, 1.0)
    lane_problem = np.full(width, -1, np.int64)  # -1: idle
    lane_row = np.zeros(width, np.int64)
    lane_age = np.zeros(width, np.int64)
    cursor = 0
    active = 0
    while True:
        for lane in range(width):
            if lane_problem[lane] < 0 and cursor < todo.size:
                problem, row = todo[cursor] // per_problem, todo[cursor] % per_problem
                cursor += 1
                for j in range(num_joints):
                    work[q_row + j, lane] = min(max(q[problem, row, j], bounds[j, 0]), bounds[j, 1])
                for i in range(num_tips * FRAME):
                    work[target_row + i, lane] = targets[problem, i]
                lane_problem[lane] = problem
                lane_row[lane] = row
                lane_age[lane] = 0
                active += 1
        if active == 0:
            return
        forward(work, nodes, node_numbers, q_row)
        residual(work, tips, tip_numbers, target_row, tip_row, e_row, ratio_row, map_row)
        for lane in range(width):
            problem, row = lane_problem[lane], lane_row[lane]
            if problem < 0:
                continue
            done = work[ratio_row, lane] <= 1
            if done or lane_age[lane] >= max_iterations:
                for j in range(num_joints):
                    q[problem, row, j] = work[q_row + j, lane]
                outcome[problem, row] = CONVERGED if done else FAILED
                lane_problem[lane] = -1
                active -= 1
            lane_age[lane] += 1
        jacobian(
            work, nodes, columns, tips, node_numbers, tip_numbers, rows, tip_row, map_row,
            jacobian_row,
        )  # fmt: skip
        step(
            work, moved, blocks, pairs, bounds, rows, q_row, e_row, y_row, jacobian_row,
            matrix_row, damping_factor, damping_floor, max_step,
        )  # fmt: skip


@cached_jit
def evaluate(q, targets, errors, work, nodes, tips, node_numbers, tip_numbers):
    """Distance and angle to the targets, (B, N, T, 2), of what counts."""
    num_joints, num_tips, width = q.shape[2], tips.shape[0], work.shape[1]
    rows = work_rows(nodes.shape[0], num_joints, num_tips, 0)
    q_row, target_row, out_row, turn_row = rows[0], rows[1], rows[2], rows[6]
    work[:] = 0
    for i in range(0, 9, 4):
        store(work, i, 1.0)
    for problem in range(q.shape[0]):
        for i in range(num_tips * FRAME):
            store(work, target_row + i, targets[problem, i])
        for first in range(0, q.shape[1], width):
            count = min(width, q.shape[1] - first)
            for lane in range(count):
                for j in range(num_joints):
                    work[q_row + j, lane] = q[problem, first + lane, j]
            forward(work, nodes, node_numbers, q_row)
            for t in range(num_tips):
                frame, target = tips[t, 0] * FRAME, target_row + t * FRAME
                _, (d0, d1, d2), (r0, r1, r2), trace = difference(
                    work, frame, tip_numbers, t, target
                )
                distance = d0 * d0 + d1 * d1 + d2 * d2
                if tips[t, 3] != PLAIN:
                    distance = distance * 0.0
                    for i in range(3):
                        a0, a1, a2 = target_axis(work, target, i)
                        along = d0 * a0 + d1 * a1 + d2 * a2
                        distance += along * along * tip_numbers[t, 22 + i]
                sine, cosine = square_root(r0 * r0 + r1 * r1 + r2 * r2), trace - 1.0
                if tips[t, 4] >= SWING:
                    sine, cosine = turn_error(
                        work, frame, tip_numbers, t, target, tips[t, 4], tips[t, 5], turn_row
                    )
                store3(work, out_row, square_root(distance), sine, cosine)
                for lane in range(count):
                    error = errors[problem, first + lane, t]
                    error[0] = work[out_row, lane] if tips[t, 1] >= 0 else 0.0
                    error[1] = 0.0
                    if tips[t, 2] >= 0:
                        error[1] = np.arctan2(work[out_row + 1, lane], work[out_row + 2, lane])
