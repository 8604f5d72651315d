# SPDX-License-Identifier: Apache-2.0
"""The kernels of a search for one robot and what is asked of its tips."""

from functools import cached_property
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from ..kernels.descent import STAY
from ..kernels.layout import (
    AXIS,
    AXIS_COUNTS,
    AXIS_WEIGHTS,
    CARRIER,
    COUPLED,
    ORIENTATION_MEASURE,
    ORIENTATION_ROW,
    ORIENTATION_WEIGHT,
    POSITION_MEASURE,
    POSITION_PRECISION,
    POSITION_ROW,
    POSITION_WEIGHT,
    UNMOVED,
    RobotArrays,
    unpack,
)
from ..kernels.refinement import (
    ENTERING_ITERATIONS,
    FINE_ITERATIONS,
    IN_REACH,
    within_tolerances,
)
from ..kernels.search import Weights
from ..robot.robot import Robot
from .generated import RowFunction, compile_rows, robot_tables

DESCENT_TEXTS = ("kinematics.h", "least_squares.h", "descent.h")
SEARCH_TEXTS = ("kinematics.h", "least_squares.h", "counter_stream.h", "search.h")
ENTERING_TEXTS = ("kinematics.h", "least_squares.h", "enter.h")
SEARCH_NAMES = ("draw", "recombine", "find_lost", "finish_part", "finish", "choose")
_ALL, _ENTERED, _LOST = range(3)  # what `finish` of search.h works on
_ALONE = 32  # samples of a problem whose parts are refined one by one, as in `kernels.refinement`
_MANY = 64  # goals of a robot whose kernels are kept

Packed = tuple[np.ndarray, np.ndarray, np.ndarray]  # see `kernels.layout.pack`


class Candidates(NamedTuple):
    """Candidates on the device, N of each of B problems."""

    q: Tensor  # (B, N, J) float64
    errors: Tensor  # (B, N, G, 2) m and rad
    distance: Tensor  # (B, N) float64, rad to the reference
    cost: Tensor  # (B, N) float64
    valid: Tensor  # (B, N) uint8
    start: Tensor  # (B, N) int32, number of the start


class GoalKernels:
    """Kernels, compiled when they are first asked for.

    Args:
        robot: of any tree.
        arrays: the robot and its goal, see `kernels.layout.pack`.
        device: cuda or cpu.

    Raises:
        ConfigError: from methods, the kernels cannot be compiled or loaded.
    """

    def __init__(self, robot: Robot, arrays: Packed, device: torch.device):
        integers, floats32, floats64 = arrays
        self._coarse, self._fine = (
            unpack.py_func(integers, floats32),
            unpack.py_func(integers, floats64),
        )
        self._robot, self._device = robot, device
        self.active = self._fine.active  # (G,) which of the tips
        self.num_parts = int(self._fine.tip_parts.max()) + 1
        precision = slice(POSITION_PRECISION, POSITION_PRECISION + 2)
        weights, slack, within = within_tolerances.py_func(self._fine.tolerances)
        self._of_stages = [
            self._coarse.tip_numbers[:, precision], self._fine.tip_numbers[:, precision],
            self._fine.tolerances, within, slack, weights,
        ]  # fmt: skip

    def settings(self, weights: Weights) -> np.ndarray:
        """What the kernels read as settings, float64."""
        return np.concatenate([weights[:3], *(one.ravel() for one in self._of_stages)])

    def draw(
        self, keys: Tensor, seeds: Tensor | None, given: Tensor | None, first: int, count: int
    ) -> tuple[Tensor, Tensor]:
        """Starts of each problem, and their numbers.

        Args:
            keys: (B,) int64, the bits of the keys of uniform starts.
            seeds: (B, J) float64, which come before the others; None: none.
            given: (B, count, J) float32; None: they are uniform.
            first: number of the first.
            count: how many.

        Returns:
            q (B, N, J) float64 and numbers (B, N) int32.
        """
        seeded = int(seeds is not None)
        shape = len(keys), seeded + count
        q = self._empty(*shape, self._robot.num_joints)
        start = self._empty(*shape, dtype=torch.int32)
        self._search["draw"](
            (
                keys, keys if seeds is None else seeds, keys if given is None else given, q, start,
                shape[1], seeded, first, 0 if given is None else count,
            ),
            start.numel(),
        )  # fmt: skip
        return q, start

    def refine(
        self, settings: Tensor, target: Tensor, reference: Tensor, q: Tensor, start: Tensor,
        iterations: int, sliding: int, recombining: bool,
    ) -> Candidates:  # fmt: skip
        """Refine starts in place, as `kernels.refinement.refine` does.

        Args:
            settings: see `settings`.
            target: (B, G, 4, 4) float64.
            reference: (B, J) float64, where samples slide to and what distances refer to.
            q: (B, N, J) float64 starts, rad or m.
            start: (B, N) int32, their numbers.
            iterations: of the float32 steps, at most.
            sliding: see `kernels.descent`.
            recombining: whether parts that share no joint complete each other.
        """
        batch, count = q.shape[:2]
        rows = batch * count
        outcome, valid = (self._empty(batch, count, dtype=torch.uint8) for _ in range(2))
        several = recombining and self.num_parts > 1
        found = self._empty(rows if self.num_parts > 1 else 0, dtype=torch.int32)
        lost = self._empty(batch if several else 0, dtype=torch.uint8)
        errors = self._empty(batch, count, len(self.active), 2)
        distance, cost = self._empty(batch, count), self._empty(batch, count)
        descend, others = self._descent[sliding != STAY], self._search

        def finish(which: int) -> None:
            results = errors, distance, cost, valid
            others["finish"](
                (settings, target, reference, lost, q, outcome, *results, count, which), rows
            )

        def steps(kernel: RowFunction, how: int, part: int) -> None:
            state = lost, q, outcome, found
            kernel((settings, target, reference, *state, count, iterations, how, part), rows)

        steps(descend, sliding, -1)
        if several:
            have = torch.empty_like(found)
            others["recombine"]((lost, q, outcome, found, have, count, 0), batch)
        finish(_ALL)
        self._enter((settings, target, errors, valid, q, outcome, count), rows)
        finish(_ENTERED)
        if several and count > 1:  # a step from a known configuration has one start
            others["find_lost"]((valid, outcome, found, lost, count), batch)
            for part in range(self.num_parts):
                steps(self._descent[False], STAY, part)
                others["finish_part"](
                    (settings, target, lost, q, outcome, found, count, part), rows
                )
            others["recombine"]((lost, q, outcome, found, have, count, 1), batch)
            finish(_LOST)
        return Candidates(q, errors, distance, cost, valid, start)

    def choose(
        self, settings: Tensor, candidates: Candidates, diverse: bool, results: tuple[Tensor, ...]
    ) -> None:
        """Write the rows to return of each problem, best first.

        Args:
            settings: see `settings`.
            candidates: to choose among.
            diverse: whether valid ones shall be far apart.
            results: (B, M, ...) joints, position errors, orientation errors, and the numbers of
                the rows: see search.h.
        """
        most = results[0].shape[1]
        nearest = torch.empty_like(candidates.cost)
        chosen = self._empty(len(nearest), most, dtype=torch.int32)
        self._search["choose"](
            (
                settings, *candidates, nearest, chosen, *results, nearest.shape[1], most,
                int(diverse),
            ),
            len(nearest),
        )  # fmt: skip

    def _empty(self, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=self._device)

    @cached_property
    def _descent(self) -> "_Descent":
        tables = goal_tables(self._robot, self._coarse)
        return _Descent(tables, self._device)

    @cached_property
    def _enter(self) -> RowFunction:
        tables = goal_tables(self._robot, self._fine) | {"ENTERING": 1}
        return compile_rows(ENTERING_TEXTS, tables, ("enter",), self._device, "double")["enter"]

    @cached_property
    def _search(self) -> dict[str, RowFunction]:
        tables = goal_tables(self._robot, self._fine)
        return compile_rows(
            SEARCH_TEXTS,
            tables,
            SEARCH_NAMES,
            self._device,
            "double",
            blocks=("choose", "recombine"),
        )


class _Descent(dict[bool, RowFunction]):
    """The steps in float, without and with slides."""

    def __init__(self, tables: dict[str, Any], device: torch.device):
        super().__init__()
        self._tables, self._device = tables, device

    def __missing__(self, sliding: bool) -> RowFunction:
        tables = self._tables | {"SLIDING": int(sliding)}
        # What its last digits miss, the steps in double find.
        rows = compile_rows(DESCENT_TEXTS, tables, ("descend",), self._device, fast=True)
        self[sliding] = rows["descend"]
        return self[sliding]


_known: WeakKeyDictionary[Robot, dict[Any, tuple[Packed, GoalKernels]]] = WeakKeyDictionary()


def goal_kernels(robot: Robot, arrays: Packed, device: torch.device) -> GoalKernels:
    """The kernels of a robot and its goal, made once for the same arrays."""
    known = _known.setdefault(robot, {})
    key = (id(arrays[2]), device)
    if key not in known:
        if len(known) >= _MANY:
            known.clear()
        known[key] = arrays, GoalKernels(robot, arrays, device)  # the arrays keep their identity
    return known[key][1]


def goal_tables(robot: Robot, arrays: RobotArrays) -> dict[str, Any]:
    """What stands before the texts: that of `robot_tables`, and what is asked of which tips."""
    tips, numbers, active = arrays.tips, arrays.tip_numbers, arrays.active
    count, joints = len(active), robot.num_joints
    moves = robot.moves[active]
    both = moves[:, None] & moves
    # Joints that move two tips come first in their order; one more entry is read and not used.
    common = np.zeros((count, count, joints + 1), int)
    common[..., :joints] = np.argsort(~both, axis=-1, kind="stable")
    error_of = np.full(robot.num_tips, -1)
    error_of[active] = np.arange(count)
    asked = tips[:, [POSITION_ROW, ORIENTATION_ROW]] >= 0
    measures = np.where(asked, tips[:, [POSITION_MEASURE, ORIENTATION_MEASURE]], -1)
    factor, floor, longest = arrays.damping.tolist()
    return robot_tables(robot) | {
        "TIPS": count,
        "ALL_TIPS": robot.num_tips,
        "PARTS": int(arrays.tip_parts.max()) + 1,
        "ALONE": _ALONE,
        "ALL": _ALL,
        "LOST": _LOST,
        "ENTERING": 0,
        "ENTERING_ITERATIONS": ENTERING_ITERATIONS,
        "IN_REACH": IN_REACH,
        "FINE_ITERATIONS": FINE_ITERATIONS,
        "DAMPING_FACTOR": factor,
        "DAMPING_FLOOR": floor,
        "MAX_STEP": longest,
        # Places in the settings.
        "ERROR_WEIGHT": 0,
        "DISTANCE_WEIGHT": 1,
        "SEPARATION": 2,
        "COARSE": 3,
        "FINE": 3 + 2 * count,
        "TOLERANCES": 3 + 4 * count,
        "WITHIN": 3 + 6 * count,
        "tip_node": tips[:, CARRIER] - 1,
        "tip_placement": numbers[:, :12].astype(float),
        "ancestor": (arrays.columns != UNMOVED).astype(int),
        "position_measure": measures[:, 0],
        "orientation_measure": measures[:, 1],
        "free_axis": tips[:, AXIS],
        "position_weight": numbers[:, POSITION_WEIGHT],
        "orientation_weight": numbers[:, ORIENTATION_WEIGHT],
        "axis_weight": numbers[:, AXIS_WEIGHTS : AXIS_WEIGHTS + 6],
        "axis_counts": numbers[:, AXIS_COUNTS : AXIS_COUNTS + 6],
        "moves": moves.astype(int),
        "moves_any": moves.any(0).astype(int),
        "common": common,
        "num_common": both.sum(-1),
        "coupled": arrays.pairs[:, COUPLED],
        "tip_part": arrays.tip_parts,
        "joint_part": arrays.joint_parts,
        "tip_error_of": error_of,
        "continuous": arrays.continuous,
        "lower_bound": arrays.bounds[:, 0],
        "upper_bound": arrays.bounds[:, 1],
        "limits": arrays.limits,
    }
