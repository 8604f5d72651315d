# SPDX-License-Identifier: Apache-2.0
"""What each objective does: its value with and without, at equal accuracy, and the time."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ..collision.clearance import SphereModel
from ..objectives import Objective, build_objectives
from ..progress import tracked
from ..robot.robot import Robot
from ..solving.result import IKResult
from ..solving.solver import IKSolver, load_solver
from .judge import Judge
from .result import BenchResult, Measure, at_least_one

TOLERANCE = 1e-5  # m and rad
# What acts on a solve: nothing but the order of the rows, then one more thing after another.
_STAGES: Mapping[str, Mapping[str, Any]] = {
    "ranking": {"objective_steps": 0, "guidance_choices": 1},
    "and null space": {"guidance_choices": 1},
    "and choice of samples (default)": {},
}
_GRADIENT_STEPS = 3


def run(
    *,
    robot: str | Robot = "panda",
    sampler: str = "auto",
    checkpoint: str | None = None,
    poses: int = 50,
    num_samples: int = 128,
    max_solutions: int = 16,
    seed: int = 0,
) -> BenchResult:
    """Values of every objective for random reachable poses that are free of self-collision."""
    at_least_one(poses=poses)
    solver = load_solver(robot, checkpoint=checkpoint, sampler=sampler)
    q, current = _free_configurations(solver.robot, poses, seed)
    T_base_tip = solver.robot.forward(q)
    solver.warm_up()
    measures: list[Measure] = []
    for spec in tracked(_specifications(solver.robot), "objectives"):
        (objective,) = build_objectives([spec], solver.robot)
        bench = _Run(solver, objective, T_base_tip, current, num_samples, max_solutions, seed)
        measures += [*bench.samples(), *bench.solutions()]
    return BenchResult.of_solver(
        "objectives", tuple(measures), solver,
        checkpoint=checkpoint, poses=poses, num_samples=num_samples, max_solutions=max_solutions,
        seed=seed, tolerance=TOLERANCE,
    )  # fmt: skip


def first_joint_to_half(q: torch.Tensor, robot: Robot) -> torch.Tensor:
    """(first joint - 0.5)^2, as a function of one's own."""
    return (q[..., 0] - 0.5) ** 2


def _specifications(robot: Robot) -> Sequence[Mapping[str, Any]]:
    chain = np.flatnonzero(robot.ancestors[0])[::-1]  # from the tip to the base
    middle = chain[len(chain) // 2]
    link = next(name for name, (node, _) in robot.frames.items() if node == middle)
    side = np.array((0.0, 0.5, 0.5)) * robot.workspace_scale
    return (
        {"name": "posture"},
        {"name": "manipulability"},
        {"name": "joint_limits"},
        {"name": "clearance", "margin": 0.1},
        {"name": "link_point", "link": link, "position": side.tolist()},
        {"name": "link_direction", "link": link, "direction": (0.0, 0.0, 1.0)},
        {"name": "custom", "function": first_joint_to_half},
    )


def _free_configurations(robot: Robot, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Twice (count, J) random configurations whose links are apart."""
    generator = torch.Generator().manual_seed(seed)
    model, found = SphereModel(robot), []
    while sum(len(rows) for rows in found) < 2 * count:
        q = robot.random_configurations(4 * count, generator)
        found.append(q[model.distance(q) > 0].numpy())
    free = np.concatenate(found)
    return free[:count], free[count : 2 * count]


class _Run:
    """One objective on one set of targets (N, T, 4, 4), from current joints (N, J)."""

    def __init__(
        self,
        solver: IKSolver,
        objective: Objective,
        T_base_tip: np.ndarray,
        current: np.ndarray,
        num_samples: int,
        max_solutions: int,
        seed: int,
    ):
        self._solver, self._objective = solver, objective
        self._T_base_tip, self._current = T_base_tip, current
        self._sizes = num_samples, max_solutions
        self._seed = seed
        self._judge = Judge(solver.robot)

    def samples(self) -> list[Measure]:
        """Raw samples with and without guidance."""
        settings: dict[str, Mapping[str, Any] | None] = {
            "": None,
            ", best of 4": {"guidance_choices": 4, "guidance_steps": 0},
            f", {_GRADIENT_STEPS} gradient steps": {
                "guidance_choices": 1,
                "guidance_steps": _GRADIENT_STEPS,
            },
        }
        values, errors = [], []
        name = self._objective.name()
        for how, options in settings.items():
            goals = [] if options is None else [self._objective.near(self._near())]
            q = self._solver.sample(
                self._T_base_tip, self._sizes[0], self._seed, objectives=goals, **(options or {})
            )
            off = self._solver.robot.forward(q) - self._T_base_tip[:, None]
            error = np.linalg.norm(off[..., :3, 3], axis=-1)
            values.append(
                Measure(f"{name}: samples{how}, mean value", float(self._values(q).mean()))
            )
            errors.append(
                Measure(
                    f"{name}: samples{how}, mean position error", 1e3 * float(error.mean()), "mm"
                )
            )
        return values + errors

    def solutions(self) -> list[Measure]:
        """Solutions with and without the objective."""
        name = self._objective.name()
        plain, plain_value, _, plain_time = self._solved([], {})
        measures = [
            Measure(f"{name}: without, value of the first row", plain_value[:, 0].mean()),
            Measure(f"{name}: without, lowest value of all rows", plain_value.min(1).mean()),
        ]
        solved, value, largest, both = plain, plain_value, 0.0, plain
        for stage, options in _STAGES.items():
            solved, value, largest, seconds = self._solved([self._objective], options)
            both = plain & solved
            measures += [
                Measure(f"{name}: {stage}, value of the first row", value[:, 0].mean()),
                Measure(f"{name}: {stage}, time against without", seconds / plain_time),
            ]
        before, after = plain_value[both, 0].mean(), value[both, 0].mean()
        measures += [
            Measure(f"{name}: value saved", float(before - after), at_least=0.0),
            Measure(f"{name}: poses lost", float((plain & ~solved).sum()), at_most=0),
            Measure(f"{name}: largest error by Pinocchio", largest, "m or rad", at_most=TOLERANCE),
        ]
        return measures

    def _solved(
        self, goals: Sequence[Objective], options: Mapping[str, Any]
    ) -> tuple[np.ndarray, np.ndarray, float, float]:
        """Solved (N,), values (N, M) with NaN-free padding, largest error, median seconds."""
        num_samples, rows = self._sizes
        solved = np.zeros(len(self._T_base_tip), dtype=bool)
        values = np.full((len(solved), rows), np.nan)
        largest, seconds = 0.0, np.empty(len(solved))
        for problem, target in enumerate(self._T_base_tip):
            started = time.perf_counter()
            result: IKResult = self._solver.solve(
                target[None], num_samples, rows, self._current[problem], self._seed + problem,
                objectives=goals, distance_weight=0.0 if goals else 1.0, **options,
            )  # fmt: skip
            seconds[problem] = time.perf_counter() - started
            q = result.joint_positions[0][result.valid[0]]
            solved[problem] = len(q) > 0
            if len(q):
                errors = self._judge.errors(q, target)
                largest = max(largest, *(float(error.max()) for error in errors))
                assert self._judge.within_limits(q).all()
                found = self._values(q[None], self._near()[problem])[0]
                values[problem] = np.append(found, np.full(rows - len(q), found.max()))
        values[~solved] = np.nanmax(values) if solved.any() else 0.0
        return solved, values, largest, float(np.median(seconds))

    def _near(self) -> torch.Tensor:
        return torch.from_numpy(self._current)[:, None]

    def _values(self, q: np.ndarray, near: torch.Tensor | None = None) -> np.ndarray:
        objective = self._objective.near(self._near() if near is None else near)
        with torch.no_grad():
            return objective.value(torch.from_numpy(q).double()).numpy()
