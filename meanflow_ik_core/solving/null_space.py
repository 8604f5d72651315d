# SPDX-License-Identifier: Apache-2.0
"""Better solutions of the same poses: steps down the objectives' gradient that no tip feels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..objectives import Objective, weighted_sum
from ..robot.robot import Robot
from .deadline import Deadline
from .goal import Goal
from .refine import Refined
from .refinement import Refinement

_FIRST_STEP = 0.2  # rad or m, of the joint that moves most
_LONGEST_STEP = 0.5
_SHORTEST_STEP = 1e-3
_LEAST_GAIN = 1e-3  # of the value, that a step promises by its gradient
_AT_LIMIT = 1e-9  # rad or m
# Added to the diagonal of J J^T: at a singularity the joints cannot move a tip in some direction,
# and without it the step there would be infinite.
_DAMPING = 1e-9
_ROWS_PER_PASS, _ROWS_IN_TIME = 256, 32  # together; as many where time is short
_FEW_OBJECTIVES = 4  # of more, fewer rows are looked at together
_NEVER = Deadline()


def rows_at_once(num_objectives: int) -> int:
    """Configurations that so many objectives look at between two looks at the clock."""
    return max(1, _ROWS_PER_PASS * _FEW_OBJECTIVES // max(_FEW_OBJECTIVES, num_objectives))


@dataclass(frozen=True)
class NullSpace:
    """What objectives have to say in a search, O of them."""

    robot: Robot
    objectives: Sequence[Objective]
    refinement: Refinement
    steps: int  # of each solution in its null space at most; 0: none
    deadline: Deadline = _NEVER  # of the search

    def values(self, q: np.ndarray, reference: np.ndarray) -> np.ndarray:
        """Values (N, O) of q (N, J), the current joints being (N, J).

        NaN where q is not finite, and where there is no time for more than a first part.
        """
        rows = np.flatnonzero(np.isfinite(q).all(-1))
        found = np.full((len(q), len(self.objectives)), np.nan)
        size = rows_at_once(len(self.objectives))
        for first in range(0, len(rows), size):
            if first and self.deadline.passed():
                break
            some = rows[first : first + size]
            current, here = torch.from_numpy(reference[some]), torch.from_numpy(q[some])
            with torch.no_grad():
                values = [one.near(current).value(here) for one in self.objectives]
            found[some] = torch.stack(values, -1).numpy()
        return found

    def weighted(self, q: np.ndarray, reference: np.ndarray) -> np.ndarray:
        """What the values count in the ranking, (N,); infinite where q is not finite."""
        weights = np.array([objective.weight for objective in self.objectives])
        return np.nan_to_num(self.values(q, reference) @ weights, nan=np.inf)

    def improved(self, q: np.ndarray, goal: Goal, deadline: Deadline) -> Refined:
        """Solutions (R, J) of R problems moved in their null spaces, see `improve`."""

        def refine(starts: Tensor, T_base_tip: np.ndarray) -> Refined:
            some = replace(goal, T_base_tip=T_base_tip, reference=starts[:, 0].numpy())
            return self.refinement.refined(self.robot, starts.numpy(), some)

        return improve(
            self.robot, self.objectives, q, goal.T_base_tip, goal.reference, refine, self.steps,
            goal.asked, deadline,
        )  # fmt: skip


def improve(
    robot: Robot,
    objectives: Sequence[Objective],
    solutions: np.ndarray,
    T_base_tip: np.ndarray,
    reference: np.ndarray,
    refine: Callable[[Tensor, np.ndarray], Refined],
    steps: int = 10,
    asked: np.ndarray | None = None,
    deadline: Deadline = _NEVER,
) -> Refined:
    """Move solutions along their null spaces to lower values of the objectives.

    Each step is the gradient without the part that moves a tip and without joints that would
    leave their limits, refined to the exact pose again, and taken only if that converges and the
    value is lower than before. Step lengths follow Barzilai and Borwein (1988).

    Args:
        robot: whose kinematics and limits.
        objectives: what to descend, weighted.
        solutions: (R, J) exact solutions.
        T_base_tip: (R, T, 4, 4) their targets.
        reference: (R, J) current joints, see `Objective.near`.
        refine: starts (R, 1, J) and targets to refined ones.
        steps: at most.
        asked: (T, 6) bool, axes x y z rx ry rz of the target that are asked for; None: all.
        deadline: looked at before every step.

    Returns:
        (R, 1, ...), where nothing better was found as refined from the solution itself. What
        there was no time for is as it came, with infinite errors and not converged.
    """
    parts = []
    at_once = _ROWS_IN_TIME if deadline.is_near() else rows_at_once(len(objectives))
    for first in range(0, max(1, len(solutions)), at_once):
        rows = slice(first, first + at_once)
        if first and deadline.passed():
            parts.append(_as_they_came(robot, solutions[first:]))
            break
        parts.append(
            _improve(
                robot, objectives, solutions[rows], T_base_tip[rows], reference[rows], refine,
                steps, asked, deadline,
            )
        )  # fmt: skip
    return Refined(*(np.concatenate(arrays) for arrays in zip(*map(_fields, parts), strict=True)))


def _improve(
    robot, objectives, solutions, T_base_tip, reference, refine, steps, asked, deadline
) -> Refined:
    near = [objective.near(torch.from_numpy(reference)) for objective in objectives]
    q = torch.from_numpy(np.array(solutions, np.float64))
    best = refine(q[:, None], T_base_tip)
    lower, upper = robot.limits(q.dtype)
    unlimited = torch.from_numpy(robot.continuous)
    lower = torch.where(unlimited, -torch.inf, lower)
    upper = torch.where(unlimited, torch.inf, upper)
    task = _task_axes(robot, T_base_tip, asked)
    value, gradient = _value_and_gradient(near, q)
    direction = _direction(robot, q, gradient, task, lower, upper)
    length = _FIRST_STEP / direction.abs().amax(-1).clamp(min=1e-12)
    for _ in range(steps):
        if deadline.passed():
            break
        longest = (direction.abs().amax(-1) * length).clamp(min=1e-12)
        length = length * (_LONGEST_STEP / longest).clamp(max=1.0)
        gain = -(gradient * direction).sum(-1) * length
        moving = (longest > _SHORTEST_STEP) & (gain > _LEAST_GAIN * value.abs() + 1e-9)
        if not moving.any():
            break
        rows = moving.nonzero().squeeze(-1)
        start = (q[rows] + length[rows, None] * direction[rows]).clamp(lower, upper)
        trial = refine(start[:, None], T_base_tip[rows.numpy()])
        found = torch.from_numpy(trial.q[:, 0])
        here = [objective.near(torch.from_numpy(reference)[rows]) for objective in objectives]
        new_value, new_gradient = _value_and_gradient(here, found)
        lower_value = new_value < value[rows]
        better = torch.from_numpy(trial.converged[:, 0]) & lower_value
        length[rows[~better]] *= 0.25
        rows, kept = rows[better], better.nonzero().squeeze(-1)
        if not len(rows):
            continue
        _replace(best, rows.numpy(), trial, kept.numpy())
        moved = found[kept] - q[rows]
        q[rows], value[rows], gradient[rows] = found[kept], new_value[kept], new_gradient[kept]
        before = direction[rows]
        direction[rows] = _direction(robot, q[rows], gradient[rows], task[rows], lower, upper)
        bend = (moved * (before - direction[rows])).sum(-1)
        guess = moved.square().sum(-1) / bend
        length[rows] = torch.where(bend > 0, guess, 2 * length[rows])
    return best


def _value_and_gradient(objectives: Sequence[Objective], q: Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        leaf = q.detach().clone().requires_grad_()
        value = weighted_sum(objectives, leaf)
        if not value.requires_grad:
            return value, torch.zeros_like(q)
        (gradient,) = torch.autograd.grad(value.sum(), leaf)
    return value.detach(), gradient.nan_to_num(0.0, 0.0, 0.0)


def _task_axes(robot: Robot, T_base_tip: np.ndarray, asked: np.ndarray | None) -> Tensor:
    """(R, m, 6 T) from velocities of all tips in the base's axes to those that a target asks."""
    rotation = torch.from_numpy(np.ascontiguousarray(T_base_tip[..., :3, :3]))
    tips = robot.num_tips
    axes = rotation.new_zeros(len(rotation), 2 * tips, 3, 2 * tips, 3)
    for tip in range(tips):
        for part in (2 * tip, 2 * tip + 1):
            axes[:, part, :, part] = rotation[:, tip].transpose(-1, -2)
    flat = axes.reshape(len(rotation), 6 * tips, 6 * tips)
    if asked is None:
        return flat
    return flat[:, torch.from_numpy(np.asarray(asked, dtype=bool).reshape(-1))]


def _direction(
    robot: Robot, q: Tensor, gradient: Tensor, task: Tensor, lower: Tensor, upper: Tensor
) -> Tensor:
    """(R, J) minus the gradient within the null space and the limits; 0 where there is none."""
    jacobian = task @ robot.jacobian(q).flatten(1, 2)
    eye = _DAMPING * torch.eye(jacobian.shape[1], dtype=q.dtype)
    free = torch.ones_like(q, dtype=torch.bool)
    direction = torch.zeros_like(q)
    # one joint after another may turn out to be held by its limit
    for _ in range(3):
        own = jacobian * free[:, None]
        downhill = torch.where(free, -gradient, 0.0)
        right = own @ downhill[..., None]
        pull = torch.linalg.solve(own @ own.transpose(-1, -2) + eye, right)
        direction = downhill - (own.transpose(-1, -2) @ pull)[..., 0]
        stuck = (q <= lower + _AT_LIMIT) & (direction < 0)
        stuck |= (q >= upper - _AT_LIMIT) & (direction > 0)
        if not (stuck & free).any():
            break
        free &= ~stuck
    direction = torch.where(free, direction, 0.0)
    # what is left of a gradient without null space is rounding
    size, full = direction.abs().amax(-1), gradient.abs().amax(-1)
    return torch.where((size > 1e-6 * full)[:, None], direction, 0.0)


def _as_they_came(robot: Robot, solutions: np.ndarray) -> Refined:
    error = np.full((len(solutions), 1, robot.num_tips), np.inf)
    return Refined(solutions[:, None], error, error, np.zeros((len(solutions), 1), dtype=bool))


def _fields(refined: Refined) -> tuple[np.ndarray, ...]:
    return refined.q, refined.position_error, refined.orientation_error, refined.converged


def _replace(best: Refined, rows: np.ndarray, trial: Refined, kept: np.ndarray) -> None:
    for ours, theirs in zip(_fields(best), _fields(trial), strict=True):
        ours[rows] = theirs[kept]
