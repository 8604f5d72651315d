# SPDX-License-Identifier: Apache-2.0
"""What Python calls of the kernels of least squares: steps of samples, and exact errors.

The robot comes in arrays (see `layout`), so the kernels are compiled once for all robots.
"""

import numpy as np
from numba import float32, float64, int8, int64

from . import descent
from .descent import STAY, descend, measure, work_buffer
from .jit import cached_jit
from .layout import FRAME, unpack
from .refinement import of_all_tips, write_frames

OPEN, FAILED, CONVERGED = descent.OPEN, descent.FAILED, descent.CONVERGED


def compile_all() -> None:
    """Compile `refine` and `evaluate` for all types that they are called with, or load them."""
    samples, poses, integers = float64[:, :, ::1], float64[:, :, :, ::1], int64[::1]
    for real in (float32, float64):
        refine.compile((samples, poses, integers, int8[:, ::1], integers, real[::1], int64))
    evaluate.compile((samples, poses, integers, float64[::1]))


@cached_jit
def refine(q, T_base_tip, todo, outcome, integers, floats, max_iterations):
    """Step samples until they converge or run out of iterations, see `descent.descend`.

    Args:
        q: (B, N, J) float64 rad or m, changed in place.
        T_base_tip: (B, T, 4, 4) float64.
        todo: (n,) int64, samples b * N + n.
        outcome: (B, N) int8, written for these: FAILED or CONVERGED.
        integers, floats: the robot, see `layout.pack`; the type of the floats is that of the
            arithmetic.
        max_iterations: steps of a sample at most.
    """
    arrays = unpack(integers, floats)
    frames = np.empty((q.shape[0], FRAME * arrays.active.size))
    write_frames(T_base_tip, arrays.active, frames)
    work = work_buffer(arrays, floats)
    reference = np.empty((q.shape[0], q.shape[2]))
    descend(
        q, frames, reference, todo, todo.size, outcome, work, integers, floats, max_iterations, STAY
    )  # fmt: skip


@cached_jit
def evaluate(q, T_base_tip, integers, floats):
    """Distance [m] and angle [rad] of what counts to the targets, (B, N, T, 2).

    Arguments are those of `refine`, all in float64.
    """
    arrays = unpack(integers, floats)
    frames = np.empty((q.shape[0], FRAME * arrays.active.size))
    write_frames(T_base_tip, arrays.active, frames)
    todo = np.arange(q.shape[0] * q.shape[1])
    errors = np.empty((q.shape[0], q.shape[1], arrays.active.size, 2))
    work = work_buffer(arrays, floats)
    measure(q, frames, todo, todo.size, errors, work, integers, floats)
    return of_all_tips(errors, arrays.active, T_base_tip.shape[1])
