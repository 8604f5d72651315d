# SPDX-License-Identifier: Apache-2.0
"""A robot, and what is asked of its tips, as the arrays that the kernels read."""

from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from ..kernels.layout import (
    AXIS,
    AXIS_WEIGHTS,
    CARRIER,
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
    WEIGHTED,
    RobotArrays,
    pack,
)  # fmt: skip
from ..kernels.step_settings import StepSettings
from ..robot.robot import Robot
from .recombination import independent_parts

_UNBOUNDED = 1e9  # of a continuous joint, rad
_MANY = 256  # arrays that are kept of one robot
_ROUNDING = {dtype: float(np.finfo(dtype).eps) for dtype in (np.float32, np.float64)}
# Where float32 steps end and float64 steps take over; convergence is quadratic by then.
_COARSE_TOLERANCE = 1e-3
_FINE_TOLERANCE = 1e-9


class Packed(NamedTuple):
    """A robot for `refinement`: integers, float32 arrays to come close, float64 arrays to end."""

    integers: np.ndarray
    floats32: np.ndarray
    floats64: np.ndarray


_known: WeakKeyDictionary[Robot, dict[Any, Any]] = WeakKeyDictionary()


def packed(
    robot: Robot,
    position_tolerance: float | np.ndarray,
    orientation_tolerance: float | np.ndarray,
    axis_weights: np.ndarray | None = None,
    position_weight: float | np.ndarray = 1.0,
    orientation_weight: float | np.ndarray = 1.0,
) -> Packed:
    """The arrays of a robot for solutions within tolerance; arguments are those of `refine_lm`."""
    tolerances = position_tolerance, orientation_tolerance
    weights = position_weight, orientation_weight

    def make() -> Packed:
        settings = StepSettings(
            position_weight=position_weight,
            orientation_weight=orientation_weight,
            axis_weights=axis_weights,
        )
        coarse, fine = stage_tolerances(*tolerances)
        integers, floats32 = packed_for(robot, np.float32, coarse[0], coarse[1], settings)
        _, floats64 = packed_for(robot, np.float64, fine[0], fine[1], settings, solved=tolerances)
        return Packed(integers, floats32, floats64)

    return _remembered(robot, tuple(map(_key, (*tolerances, *weights, axis_weights))), make)


def packed_for(
    robot: Robot,
    dtype: type,
    position_tolerance: Any,
    orientation_tolerance: Any,
    settings: StepSettings,
    solved: tuple[Any, Any] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The arrays for steps that end within the tolerances, packed; see `kernels.layout`.

    Args:
        robot: whose kinematics and limits.
        dtype: of the floats.
        position_tolerance: m, scalar or (T,), where steps end.
        orientation_tolerance: rad, scalar or (T,).
        settings: damping, largest step, weights.
        solved: tolerances of a solution; None: the same.
    """
    arrays = _remembered(
        robot, _key(settings.axis_weights), lambda: _arrays(robot, settings.axis_weights)
    )
    numbers = arrays.tip_numbers.copy()
    for column, value in (
        (POSITION_WEIGHT, settings.position_weight),
        (ORIENTATION_WEIGHT, settings.orientation_weight),
        (POSITION_PRECISION, position_tolerance),
        (ORIENTATION_PRECISION, orientation_tolerance),
    ):
        numbers[:, column] = _of_tips(robot, value)[arrays.active]
    numbers[:, POSITION_PRECISION : ORIENTATION_PRECISION + 1] **= -2.0
    weights = numbers[:, POSITION_WEIGHT : ORIENTATION_WEIGHT + 1]
    heaviest = weights.max(initial=0.0)
    if settings.axis_weights is not None:
        of_axes = numbers[:, AXIS_WEIGHTS : AXIS_WEIGHTS + 6]
        of_axes *= np.repeat(weights, 3, 1)
        # Where errors are brought to the target's axes, the weights are in what brings them.
        weights[arrays.tips[:, POSITION_MEASURE : ORIENTATION_MEASURE + 1] != PLAIN] = 1.0
        heaviest = of_axes.max(initial=0.0)
    # Below the rounding of J J^T damping would not keep the matrix positive definite.
    floor = max(settings.damping_floor, 8 * _ROUNDING[dtype] * max(1.0, heaviest**2))
    of_solutions = (position_tolerance, orientation_tolerance) if solved is None else solved
    tolerances = np.stack([_of_tips(robot, one)[arrays.active] for one in of_solutions], 1)
    damping = np.array((settings.damping_factor, floor, settings.max_step))
    return pack(arrays._replace(tip_numbers=numbers, tolerances=tolerances, damping=damping), dtype)


def stage_tolerances(position: Any, orientation: Any) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Position and orientation tolerance of the float32 steps, and of the float64 steps."""
    a, b = np.asarray(position), np.asarray(orientation)
    coarse = np.maximum(_COARSE_TOLERANCE, 0.1 * a), np.maximum(_COARSE_TOLERANCE, 0.1 * b)
    return coarse, (np.minimum(_FINE_TOLERANCE, a), np.minimum(_FINE_TOLERANCE, b))


def _of_tips(robot: Robot, value: Any) -> np.ndarray:
    return np.broadcast_to(np.asarray(value, np.float64), robot.num_tips)


def _key(value: Any) -> Any:
    return (
        value if value is None or isinstance(value, float) else np.asarray(value, float).tobytes()
    )


def _remembered(robot: Robot, key: Any, make: Any) -> Any:
    known = _known.setdefault(robot, {})
    found = known.get(key)
    if found is None:
        if len(known) >= _MANY:
            known.clear()
        found = known[key] = make()
    return found


def _arrays(robot: Robot, axis_weights: np.ndarray | None) -> RobotArrays:
    """Weights and tolerances of the tips are 1 here."""
    weights = np.ones((robot.num_tips, 6))
    if axis_weights is not None:
        weights = np.array(np.broadcast_to(axis_weights, weights.shape), np.float64)
    active = np.flatnonzero((weights != 0).any(1))
    weights = weights[active]
    tips, blocks = _error_rows(robot.tip_node[active] + 1, weights)
    moves = robot.moves[active]
    moved = np.zeros((robot.num_joints, 1 + len(blocks)), np.int64)
    for j, by_tip in enumerate(moves.T):
        which = np.flatnonzero(by_tip[blocks])
        moved[j, : 1 + len(which)] = len(which), *(3 * which)
    tip_parts = np.full(robot.num_tips, -1)
    joint_parts = np.full(robot.num_joints, -1)
    for number, part in enumerate(independent_parts(robot, axis_weights)):
        tip_parts[part.tips] = number
        joint_parts[part.joints] = number
    lower = np.where(robot.continuous, -_UNBOUNDED, robot.lower)
    upper = np.where(robot.continuous, _UNBOUNDED, robot.upper)
    return RobotArrays(
        nodes=robot.arrays.nodes,
        columns=robot.arrays.columns[active],
        tips=tips,
        moved=moved,
        blocks=blocks,
        pairs=_pairs(moves),
        continuous=robot.continuous,
        active=active,
        tip_parts=tip_parts[active],
        joint_parts=joint_parts,
        node_numbers=robot.arrays.node_numbers,
        tip_numbers=np.column_stack(
            (
                robot.tip_placement[active, :3].reshape(-1, 12),
                np.ones((len(active), 4)),
                weights,
                weights != 0,
                np.zeros((len(active), 2)),
            )
        ),
        bounds=np.stack((lower, upper), 1),
        limits=np.stack((robot.lower, robot.upper), 1),
        tolerances=np.ones((len(active), 2)),
        damping=np.ones(3),
    )


def _error_rows(tip_frame: np.ndarray, axis_weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The arrays ``tips`` and ``blocks`` of `kernels.layout`."""
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
    """The array of that name in `kernels.layout`, from which joints move which tips (G, J)."""
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
