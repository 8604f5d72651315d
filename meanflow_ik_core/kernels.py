# SPDX-License-Identifier: Apache-2.0
"""Damped least squares and exact pose errors on the CPU, for many samples of any robot at once.

The step is that of Levenberg and Marquardt with damping proportional to the squared error
(Sugihara 2011), over the joints that are free: those at a limit that the error pulls outward are
held. Steps are cut to a largest joint step and to the limits.
"""

import time
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
from numba import float32, float64, int8, int64

from .robot import Robot
from .simd import LANES
from .tiles import OPEN, evaluate, refine, work_rows

_UNBOUNDED = 1e9  # of a continuous joint, rad


@dataclass(frozen=True)
class StepSettings:
    """What one damped least-squares step depends on besides the poses."""

    damping_factor: float = 1e-2  # damping per squared weighted error
    damping_floor: float = 1e-9  # at least; more where the arithmetic's rounding asks for it
    max_step: float = 1.5  # rad or m, of the joint that moves most
    position_weight: float | np.ndarray = 1.0  # per m; scalar or (T,)
    orientation_weight: float | np.ndarray = 1.0  # per rad; scalar or (T,)


def iterate(
    robot: Robot,
    q: np.ndarray,
    targets: np.ndarray,
    todo: np.ndarray,
    found: np.ndarray,
    wanted: int,
    max_iterations: int,
    position_tolerance: float | np.ndarray,
    orientation_tolerance: float | np.ndarray,
    settings: StepSettings,
    dtype: type = np.float64,
) -> np.ndarray:
    """Step samples in place until they are within tolerance or out of iterations.

    Orientation errors count as 2 sin(angle / 2), and the errors of all tips in units of their
    tolerances are squared and added up; 1 is within tolerance. Without `wanted`, what becomes of
    a sample does not depend on the others.

    Args:
        robot: whose kinematics and limits.
        q: (B, N, J) float64, C-contiguous, changed in place. Starts outside the limits are
            clipped to them; continuous joints are not wrapped.
        targets: (B, T, 4, 4) T_base_tip.
        todo: (n,) int64, samples b * N + n to work on, in this order.
        found: (B,) int64, converged samples of a problem so far; counted up in place.
        wanted: the other samples of a problem that has found so many are left where they are.
        max_iterations: steps of a sample at most.
        position_tolerance: m, scalar or (T,).
        orientation_tolerance: rad, scalar or (T,).
        settings: see there.
        dtype: type of the arithmetic, numpy.float32 or numpy.float64.

    Returns:
        (B, N) int8 of `tiles`: CONVERGED by the arithmetic of ``dtype``, FAILED, or OPEN.
    """
    arrays = _arrays(robot)
    per_tip = np.empty((robot.num_tips, 4))
    per_tip[:, 0] = settings.position_weight
    per_tip[:, 1] = settings.orientation_weight
    per_tip[:, 2] = np.square(1.0 / np.asarray(position_tolerance))
    per_tip[:, 3] = np.square(1.0 / np.asarray(orientation_tolerance))
    # Below the rounding of J J^T damping would not keep the matrix positive definite.
    floor = max(
        settings.damping_floor, 8 * np.finfo(dtype).eps * max(1.0, per_tip[:, :2].max() ** 2)
    )
    outcome = np.full(q.shape[:2], OPEN, np.int8)
    refine(
        q, _target_rows(targets), todo, outcome, found, wanted, arrays.work_buffer(dtype),
        arrays.nodes, arrays.columns, arrays.tips, arrays.node_numbers.astype(dtype),
        np.concatenate((arrays.tip_numbers, per_tip), 1).astype(dtype),
        arrays.bounds.astype(dtype), dtype(settings.damping_factor),
        dtype(floor), dtype(settings.max_step), max_iterations,
    )  # fmt: skip
    return outcome


def pose_errors(robot: Robot, q: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far the tips are from their targets, exactly, in float64.

    Args:
        robot: whose kinematics.
        q: (B, N, J) rad or m.
        targets: (B, T, 4, 4) T_base_tip.

    Returns:
        Distance [m] and angle [rad], each (B, N, T).
    """
    arrays = _arrays(robot)
    errors = np.empty((*q.shape[:2], robot.num_tips, 2))
    evaluate(
        np.ascontiguousarray(q, np.float64), _target_rows(targets), errors,
        arrays.work_buffer(np.float64), arrays.nodes, arrays.tips, arrays.node_numbers,
        arrays.tip_numbers,
    )  # fmt: skip
    return errors[..., 0], errors[..., 1]


def compile_kernels() -> float:
    """Compile the kernels, or load them from numba's cache; returns the seconds that took.

    They serve every robot. The cache lies beside this file, or in the user's cache folder where
    that is read-only, or in NUMBA_CACHE_DIR.
    """
    start = time.perf_counter()
    samples, rows, indices = float64[:, :, ::1], float64[:, ::1], int64[:, ::1]
    for real in (float32, float64):
        matrix = real[:, ::1]
        refine.compile(
            (
                samples, rows, int64[::1], int8[:, ::1], int64[::1], int64, matrix,
                indices, indices, int64[::1], matrix, matrix, matrix, real, real, real, int64,
            )
        )  # fmt: skip
    evaluate.compile((samples, rows, float64[:, :, :, ::1], rows, indices, int64[::1], rows, rows))
    return time.perf_counter() - start


@dataclass(frozen=True)
class _Arrays:
    """A robot as the kernels read it."""

    nodes: np.ndarray  # (K, 4) int64: parent + 1, joint, prismatic, placement turns about x only
    columns: np.ndarray  # (T, K) int64: 0 does not move the tip, 1 first node of a joint, 2 further
    tips: np.ndarray  # (T,) int64: node + 1 that carries the tip
    node_numbers: np.ndarray  # (K, 14): placement (3, 4), multiplier, offset
    tip_numbers: np.ndarray  # (T, 12): placement (3, 4)
    bounds: np.ndarray  # (J, 2)

    def work_buffer(self, dtype: type) -> np.ndarray:
        rows = work_rows.py_func(len(self.nodes), len(self.bounds), len(self.tips))[-1]
        return np.empty((rows, LANES), dtype)


_known_arrays: WeakKeyDictionary[Robot, _Arrays] = WeakKeyDictionary()


def _arrays(robot: Robot) -> _Arrays:
    arrays = _known_arrays.get(robot)
    if arrays is None:
        arrays = _known_arrays[robot] = _arrays_from_robot(robot)
    return arrays


def _arrays_from_robot(robot: Robot) -> _Arrays:
    count = len(robot.parent)
    columns = np.zeros((robot.num_tips, count), np.int64)
    for t, node in enumerate(robot.tip_node):
        while node >= 0:
            columns[t, node] = 1
            node = robot.parent[node]
        for k in np.flatnonzero(columns[t]):
            if (columns[t, :k] * (robot.joint[:k] == robot.joint[k])).any():
                columns[t, k] = 2
    rotation = robot.placement[:, :3, :3]
    off_axis = rotation[:, [0, 0, 1, 2], [1, 2, 0, 0]]
    about_x = (np.abs(off_axis) < 1e-15).all(1) & (rotation[:, 0, 0] > 0)
    nodes = np.stack((robot.parent + 1, robot.joint, robot.prismatic, about_x), 1)
    node_numbers = np.column_stack(
        (robot.placement[:, :3].reshape(count, 12), robot.multiplier, robot.offset)
    )
    lower = np.where(robot.continuous, -_UNBOUNDED, robot.lower)
    upper = np.where(robot.continuous, _UNBOUNDED, robot.upper)
    return _Arrays(
        nodes=np.ascontiguousarray(nodes, np.int64),
        columns=columns,
        tips=np.ascontiguousarray(robot.tip_node + 1, np.int64),
        node_numbers=np.ascontiguousarray(node_numbers),
        tip_numbers=np.ascontiguousarray(robot.tip_placement[:, :3]).reshape(-1, 12),
        bounds=np.stack((lower, upper), 1),
    )


def _target_rows(targets: np.ndarray) -> np.ndarray:
    """(B, T, 4, 4) poses as (B, 12 T): axes, then origin, tip by tip."""
    columns = np.swapaxes(targets[..., :3, :], -1, -2)
    return np.ascontiguousarray(columns, np.float64).reshape(len(targets), 12 * targets.shape[1])
