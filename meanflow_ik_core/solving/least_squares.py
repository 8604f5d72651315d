# SPDX-License-Identifier: Apache-2.0
"""Damped least squares and exact pose errors on the CPU, for many samples of any robot at once.

Here a `Robot` becomes the arrays that the kernels read. The step is that of Levenberg and Marquardt
with damping proportional to the squared error (Sugihara 2011), over the joints that are free: those
at a limit that the error pulls outward are held. Steps are cut to a largest joint step and to the
limits. Errors of some axes of a target may be free.
"""

from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import numpy as np

from ..kernels.entry import CONVERGED, OPEN, evaluate, refine
from ..kernels.layout import (
    AXIS,
    AXIS_WEIGHTS,
    CARRIER,
    FIRST_NODE,
    FURTHER_NODE,
    ORIENTATION_MEASURE,
    ORIENTATION_PRECISION,
    ORIENTATION_ROW,
    ORIENTATION_WEIGHT,
    PLAIN,
    POSITION_MEASURE,
    POSITION_PRECISION,
    POSITION_ROW,
    POSITION_WEIGHT,
    SWING,
    TWIST,
    UNMOVED,
    WEIGHTED,
    work_rows,
)  # fmt: skip
from ..kernels.simd import LANES
from ..kernels.step_settings import StepSettings
from ..robot.robot import Robot

_UNBOUNDED = 1e9  # of a continuous joint, rad
_MANY_VIEWS = 256  # that are kept of one robot
_ROUNDING = {dtype: float(np.finfo(dtype).eps) for dtype in (np.float32, np.float64)}


def iterate(
    robot: Robot,
    q: np.ndarray,
    targets: np.ndarray,
    todo: np.ndarray,
    max_iterations: int,
    position_tolerance: float | np.ndarray,
    orientation_tolerance: float | np.ndarray,
    settings: StepSettings,
    dtype: type = np.float64,
) -> np.ndarray:
    """Step samples in place until they are within tolerance or out of iterations.

    Orientation errors count as 2 sin(angle / 2), and the errors of all tips in units of their
    tolerances are squared and added up; 1 is within tolerance. What becomes of a sample does not
    depend on the others.

    Args:
        robot: whose kinematics and limits.
        q: (B, N, J) float64, C-contiguous, changed in place. Starts outside the limits are
            clipped to them; continuous joints are not wrapped.
        targets: (B, T, 4, 4) T_base_tip.
        todo: (n,) int64, samples b * N + n to work on, in this order.
        max_iterations: steps of a sample at most.
        position_tolerance: m, scalar or (T,).
        orientation_tolerance: rad, scalar or (T,).
        settings: damping, largest step, weights.
        dtype: type of the arithmetic, numpy.float32 or numpy.float64.

    Returns:
        (B, N) int8: CONVERGED by the arithmetic of ``dtype``, FAILED, or OPEN if not in ``todo``.
    """
    view = _view(robot, settings.axis_weights)
    outcome = np.full(q.shape[:2], OPEN, np.int8)
    if len(view.active) == 0:
        outcome.ravel()[todo] = CONVERGED
        return outcome
    numbers, heaviest = _tip_numbers(view, settings, position_tolerance, orientation_tolerance)
    # Below the rounding of J J^T damping would not keep the matrix positive definite.
    floor = max(settings.damping_floor, 8 * _ROUNDING[dtype] * max(1.0, heaviest**2))
    node_numbers, bounds = view.in_type(dtype)
    refine(
        q, _target_rows(view.of_active(targets, 1)), todo, outcome, view.work_buffer(dtype),
        view.nodes, view.columns, view.tips, view.moved, view.blocks, view.pairs, node_numbers,
        numbers.astype(dtype), bounds, dtype(settings.damping_factor), dtype(floor),
        dtype(settings.max_step), max_iterations,
    )  # fmt: skip
    return outcome


def pose_errors(
    robot: Robot, q: np.ndarray, targets: np.ndarray, axis_weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """How far the tips are from their targets, exactly, in float64.

    Args:
        robot: whose kinematics.
        q: (B, N, J) rad or m.
        targets: (B, T, 4, 4) T_base_tip.
        axis_weights: (T, 6) as in `StepSettings`; where it is 0, the tip is free. Errors are those
            to the nearest pose that is allowed, 0 for a tip that is all free.

    Returns:
        Distance [m] and angle [rad], each (B, N, T).
    """
    view = _view(robot, axis_weights)
    errors = np.zeros((*q.shape[:2], len(view.active), 2))
    if len(view.active) > 0:
        evaluate(
            np.ascontiguousarray(q, np.float64), _target_rows(view.of_active(targets, 1)), errors,
            view.work_buffer(np.float64), view.nodes, view.tips, view.node_numbers,
            view.tip_numbers,
        )  # fmt: skip
    if len(view.active) < robot.num_tips:
        of_all = np.zeros((*q.shape[:2], robot.num_tips, 2))
        of_all[:, :, view.active] = errors
        errors = of_all
    return errors[..., 0], errors[..., 1]


def _tip_numbers(
    view: "_View", settings: StepSettings, position_tolerance, orientation_tolerance
) -> tuple[np.ndarray, float]:
    """Tip numbers of `_View` with weights and tolerances, and the largest weight."""
    numbers = view.tip_numbers.copy()
    for column, value in (
        (POSITION_WEIGHT, settings.position_weight),
        (ORIENTATION_WEIGHT, settings.orientation_weight),
        (POSITION_PRECISION, position_tolerance),
        (ORIENTATION_PRECISION, orientation_tolerance),
    ):
        numbers[:, column] = value if np.isscalar(value) else view.of_active(np.asarray(value), 0)
    numbers[:, POSITION_PRECISION : ORIENTATION_PRECISION + 1] **= -2.0
    weights = numbers[:, POSITION_WEIGHT : ORIENTATION_WEIGHT + 1]
    if settings.axis_weights is not None:
        of_axes = numbers[:, AXIS_WEIGHTS : AXIS_WEIGHTS + 6]
        of_axes *= np.repeat(weights, 3, 1)
        # Where errors are brought to the target's axes, the weights are in what brings them.
        weights[view.tips[:, POSITION_MEASURE : ORIENTATION_MEASURE + 1] != PLAIN] = 1.0
        return numbers, float(of_axes.max())
    return numbers, float(weights.max())


@dataclass(frozen=True)
class _View:
    """The arrays of a robot and of the axes that count, as `kernels.layout` describes them.

    Weights and tolerances of the tips are 1 in ``tip_numbers``; those of a call are put in there.
    """

    active: np.ndarray  # (G,) indices of the tips that something is asked of
    nodes: np.ndarray
    columns: np.ndarray
    tips: np.ndarray
    moved: np.ndarray
    blocks: np.ndarray
    pairs: np.ndarray
    node_numbers: np.ndarray
    tip_numbers: np.ndarray
    bounds: np.ndarray
    work_rows: int
    _typed: dict = field(default_factory=dict, repr=False)

    def of_active(self, values: np.ndarray, axis: int) -> np.ndarray:
        """Take the values of the active tips from those of all tips."""
        if values.ndim <= axis or len(self.active) == values.shape[axis]:
            return values
        return values.take(self.active, axis)

    def in_type(self, dtype: type) -> tuple[np.ndarray, np.ndarray]:
        """Node numbers and bounds in a type of arithmetic."""
        if dtype not in self._typed:
            self._typed[dtype] = self.node_numbers.astype(dtype), self.bounds.astype(dtype)
        return self._typed[dtype]

    def work_buffer(self, dtype: type) -> np.ndarray:
        # A vector that crosses cache lines takes twice as long to load.
        buffer = np.empty(self.work_rows * LANES + 64, dtype)
        first = -buffer.__array_interface__["data"][0] % 64 // buffer.itemsize
        return buffer[first : first + self.work_rows * LANES].reshape(self.work_rows, LANES)


_known_views: WeakKeyDictionary[Robot, dict[bytes, _View]] = WeakKeyDictionary()


def _view(robot: Robot, axis_weights: np.ndarray | None) -> _View:
    views = _known_views.setdefault(robot, {})
    key = b"" if axis_weights is None else np.asarray(axis_weights, np.float64).tobytes()
    if key not in views:
        if len(views) >= _MANY_VIEWS:
            views.clear()
        views[key] = _view_of_robot(robot, axis_weights)
    return views[key]


def _view_of_robot(robot: Robot, axis_weights: np.ndarray | None) -> _View:
    weights = np.ones((robot.num_tips, 6))
    if axis_weights is not None:
        weights = np.array(np.broadcast_to(axis_weights, weights.shape), np.float64)
    active = np.flatnonzero((weights != 0).any(1))
    weights = weights[active]
    count = len(robot.parent)
    columns = np.where(robot.ancestors[active], FIRST_NODE, UNMOVED)
    for t, k in np.argwhere(columns):
        if columns[t, :k][robot.joint[:k] == robot.joint[k]].any():
            columns[t, k] = FURTHER_NODE
    tips, blocks = _error_rows(robot.tip_node[active] + 1, weights)
    moves = robot.moves[active]
    moved = np.zeros((robot.num_joints, 1 + len(blocks)), np.int64)
    for j, by_tip in enumerate(moves.T):
        which = np.flatnonzero(by_tip[blocks])
        moved[j, : 1 + len(which)] = len(which), *(3 * which)
    rotation = robot.placement[:, :3, :3]
    off_axis = rotation[:, [0, 0, 1, 2], [1, 2, 0, 0]]
    about_x = (np.abs(off_axis) < 1e-15).all(1) & (rotation[:, 0, 0] > 0)
    nodes = np.stack((robot.parent + 1, robot.joint, robot.prismatic, about_x), 1)
    node_numbers = np.column_stack(
        (robot.placement[:, :3].reshape(count, 12), robot.multiplier, robot.offset)
    )
    lower = np.where(robot.continuous, -_UNBOUNDED, robot.lower)
    upper = np.where(robot.continuous, _UNBOUNDED, robot.upper)
    return _View(
        active=active,
        nodes=np.ascontiguousarray(nodes, np.int64),
        columns=columns,
        tips=tips,
        moved=moved,
        blocks=blocks,
        pairs=_pairs(moves),
        node_numbers=np.ascontiguousarray(node_numbers),
        tip_numbers=np.column_stack(
            (
                robot.tip_placement[active, :3].reshape(-1, 12),
                np.ones((len(active), 4)),
                weights,
                weights != 0,
            )
        ),
        bounds=np.stack((lower, upper), 1),
        work_rows=work_rows(count, len(lower), len(active), len(blocks)).end,
    )


def _error_rows(tip_frame: np.ndarray, axis_weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The arrays ``tips`` and ``blocks`` of `_View`."""
    tips = np.full((len(tip_frame), 6), -1, np.int64)
    blocks: list[int] = []
    for t, weights in enumerate(axis_weights.reshape(-1, 2, 3)):
        tips[t, CARRIER] = tip_frame[t]
        tips[t, POSITION_MEASURE] = tips[t, ORIENTATION_MEASURE] = PLAIN
        tips[t, AXIS] = 0
        columns = (POSITION_ROW, POSITION_MEASURE), (ORIENTATION_ROW, ORIENTATION_MEASURE)
        for axes, (row, measure) in zip(weights, columns, strict=True):
            counted = np.flatnonzero(axes)
            if len(counted) == 0:
                continue
            tips[t, row] = 3 * len(blocks)
            blocks.append(t)
            if row == ORIENTATION_ROW and len(counted) < 3:
                tips[t, measure] = SWING if len(counted) == 2 else TWIST
                tips[t, AXIS] = np.flatnonzero(axes == 0)[0] if len(counted) == 2 else counted[0]
            elif (axes != 1).any():
                tips[t, measure] = WEIGHTED
    return tips, np.array(blocks, np.int64)


def _pairs(moves: np.ndarray) -> np.ndarray:
    """The array of that name in `_View`, from which joints move which tips (G, J)."""
    count, num_joints = moves.shape
    filled = np.einsum("aj,bj->ab", moves.astype(int), moves.astype(int)) > 0
    for b in range(count):  # eliminating a tip couples all later tips that it is coupled with
        later = filled[:, b] & (np.arange(count) > b)
        filled |= later[:, None] & later
    pairs = np.zeros((count, count, 4 + num_joints), np.int64)
    for a, b in np.ndindex(count, count):
        runs = _runs(moves[a] & moves[b])
        pairs[a, b, : 2 + runs.size] = (filled[a, b], len(runs), *runs.ravel())
    return pairs.reshape(count * count, -1)


def _runs(marked: np.ndarray) -> np.ndarray:
    """First index and length of each run of True, (R, 2)."""
    edges = np.flatnonzero(np.diff(marked, prepend=False, append=False))
    return np.stack((edges[::2], edges[1::2] - edges[::2]), 1)


def _target_rows(targets: np.ndarray) -> np.ndarray:
    """(B, T, 4, 4) poses as (B, 12 T): axes, then origin, tip by tip."""
    columns = np.swapaxes(targets[..., :3, :], -1, -2)
    return np.ascontiguousarray(columns, np.float64).reshape(len(targets), 12 * targets.shape[1])
