# SPDX-License-Identifier: Apache-2.0
"""How good a sampler is on fresh poses: one judgement for every sampler and robot."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import OptionError, RobotError
from ..progress import stage, tracked
from ..robot.robot import Robot, load_robot
from ..samplers import Sampler, build_sampler, resolve_sampler
from ..samplers.meanflow import MeanFlowSampler, knows_one_call_only
from ..solving.solver import IKSolver
from ..tensors import device_name
from .closed_form import ClosedForm
from .exactness import (
    MATCH_ROWS,
    STEPS,
    Exactness,
    after_steps,
    coverage_by_samples,
    match,
)
from .options import check_options
from .posterior import trace_solutions
from .samples import measure_samples
from .timed_samples import draw_samples, draw_solutions, refine_samples, sample_errors

_DEGREES = 180 / np.pi
# What a table shows of the metrics: metric, label, unit, factor from metres, radians and shares.
_ROWS = (
    ("position_error_mean", "position error, mean", "mm", 1e3),
    ("position_error_median", "position error, median", "mm", 1e3),
    ("position_error_95", "position error, 95 %", "mm", 1e3),
    ("orientation_error_mean", "rotation error, mean", "deg", _DEGREES),
    ("orientation_error_median", "rotation error, median", "deg", _DEGREES),
    ("orientation_error_95", "rotation error, 95 %", "deg", _DEGREES),
    ("inside_limits", "inside the limits before clamping", "%", 1e2),
    ("recall_median", "recall: distance to the true joints, median", "rad", 1.0),
    ("spread", "spread: standard deviation per joint", "rad", 1.0),
    ("refined_success", "valid after refinement", "%", 1e2),
    ("sample_time", "time of sampling, per pose", "ms", 1e3),
)
_CALLS = (1, 2, 4, 8)
_COUNTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)  # of samples, up to those asked for
Table = tuple[str, tuple[str, ...], list[tuple[str, ...]]]


@dataclass(frozen=True)
class Series:
    """What plots show besides the numbers."""

    position_error: np.ndarray  # (S,) m
    orientation_error: np.ndarray  # (S,) rad
    draws: dict[str, np.ndarray]  # kind of draw -> (N, J) of the first pose


@dataclass(frozen=True)
class Evaluation:
    """What was judged, and the metrics of `evaluate`."""

    robot: str
    sampler: str
    checkpoint: str | None
    num_calls: int
    poses: int
    samples: int
    seed: int
    position_tolerance: float  # m
    orientation_tolerance: float  # rad
    metrics: dict[str, float]
    # number of damped steps -> what `after_steps` says, and time_of_sample [s], steps included
    after_steps: dict[int, dict[str, float]]
    detail_poses: int
    # number of network calls -> errors and time, and MMD^2 where the exact answer is known
    calls: dict[int, dict[str, float]]
    without_calls: str | None  # why one call is all that was judged
    # selection -> seconds per pose for sample, refine, select; solutions per pose
    stages: dict[str, dict[str, float]]
    exact: Exactness | None
    without_exact: str | None  # why there is no exact answer
    series: Series = field(repr=False, compare=False)

    COLUMNS = ("metric", "value", "unit")

    def rows(self) -> list[tuple[str, str, str]]:
        """A table with `COLUMNS`."""
        return [
            (label, f"{self.metrics[metric] * factor:.4g}", unit)
            for metric, label, unit, factor in _ROWS
        ]

    def tables(self) -> list[Table]:
        """Everything, as tables of title, columns and rows."""
        tables: list[Table] = [("samples", self.COLUMNS, self.rows())]
        for title, first, content in (
            ("after damped steps", "steps", self.after_steps),
            (f"network calls, {self.detail_poses} poses", "calls", self.calls),
            (f"solve, {self.detail_poses} poses", "select", self.stages),
        ):
            if content:
                names = list(next(iter(content.values())))
                labels = [_label_and_factor(name) for name in names]
                rows = [
                    (
                        str(key),
                        *(f"{value[n] * f:.4g}" for n, (_, f) in zip(names, labels, strict=True)),
                    )
                    for key, value in content.items()
                ]
                tables.append((title, (first, *(label for label, _ in labels)), rows))
        if self.exact is not None:
            draws = self.exact.draws
            rows = [
                (label, *(f"{draw[name]:.4g}" for draw in draws.values()))
                for name, label in MATCH_ROWS
            ]
            title = f"against the exact answer, {self.exact.poses} poses"
            tables.append((title, ("metric", *draws), rows))
        return tables

    def as_dict(self) -> dict[str, Any]:
        """The numbers, ready for JSON; m, rad, seconds and shares."""
        content = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "series"}
        if self.exact is not None:
            content["exact"] = {
                "poses": self.exact.poses,
                "draws": self.exact.draws,
                "coverage_by_samples": self.exact.coverage_by_samples,
            }
        return content


def _label_and_factor(name: str) -> tuple[str, float]:
    """Of a column, from metres, radians and seconds per pose."""
    units = {
        "position": ("mm", 1e3), "orientation": ("deg", _DEGREES), "valid": ("%", 1e2),
        "time": ("us", 1e6),
    }  # fmt: skip
    if name in ("sample_time", "sample", "refine", "select"):
        return f"{name.replace('_', ' ')} [ms]", 1e3
    unit, factor = units.get(name.split("_")[0], ("", 1.0))
    return name.replace("_", " ") + (f" [{unit}]" if unit else ""), factor


def evaluate(
    robot: str | Path | Robot = "panda",
    sampler: str | Sampler = "auto",
    *,
    checkpoint: str | Path | None = None,
    num_calls: int = 1,
    poses: int = 1000,
    samples: int = 100,
    seed: int = 0,
    device: str = "cpu",
    position_tolerance: float = 1e-5,
    orientation_tolerance: float = 1e-5,
    detail_poses: int = 0,
    exact: bool | None = None,
) -> Evaluation:
    """Judge a sampler on poses of configurations that are uniform within the limits.

    Args:
        robot: a `Robot`, or what `load_robot` takes.
        sampler: a `Sampler`, or the name of one, as in `load_solver`.
        checkpoint: name or path, for a sampler given by name; None: the robot's own.
        num_calls: network calls per sample, for the sampler "meanflow".
        poses: B.
        samples: N per pose.
        seed: of poses and samples.
        device: "cpu" or "cuda", for a sampler given by name.
        position_tolerance: m, of a valid solution after refinement.
        orientation_tolerance: rad, of a valid solution after refinement.
        detail_poses: how many of the poses, from the first on, take part in what costs more:
            several network calls where the network knows them, the solver, and the exact answer.
            0: none of it.
        exact: compare with the exact answer (see `ClosedForm`); None: where there is one.

    Returns:
        The metrics of `measure_samples`, and sample_time, seconds per pose; and the details.

    Raises:
        OptionError: unknown sampler or device, or a number below one; ``exact`` without EAIK.
        RobotError: ``exact`` for a robot without a closed form.
        CheckpointError: the checkpoint is missing, damaged, or of another robot.
    """
    check_options(num_calls, poses, samples, detail_poses, exact)
    arm = robot if isinstance(robot, Robot) else load_robot(robot)
    closed_form, without_exact = _closed_form(arm, exact) if detail_poses else (None, None)
    judged, name = sampler, type(sampler).__name__
    if isinstance(judged, str):
        name = resolve_sampler(judged, arm, checkpoint)
        judged = _sampler_from_name(name, arm, checkpoint, num_calls, device)
    generator = torch.Generator(device).manual_seed(seed)
    # The poses do not depend on the device.
    q_true = arm.random_configurations(poses, torch.Generator().manual_seed(seed)).numpy()
    T_base_tip = arm.forward(q_true)
    stage(f"{poses} poses are sampled")
    q, sample_time = draw_samples(judged, T_base_tip, samples, generator)
    tolerances = position_tolerance, orientation_tolerance
    stage("samples are refined")
    metrics = measure_samples(arm, q, q_true, T_base_tip, *tolerances)
    first = T_base_tip[: min(detail_poses, poses)]
    random = np.random.default_rng(seed)
    draws: dict[str, list[np.ndarray]] = {"raw": list(q[: max(1, len(first))])}
    stages, calls, exactness = {}, {}, None
    if len(first):
        solver = IKSolver(arm, judged, name, device)
        solver.warm_up()
        draws["refined"] = refine_samples(
            arm, judged, q[: len(first)], first, tolerances, generator
        )
        solved, stages = draw_solutions(solver, first, samples, seed, tolerances)
        draws |= solved
    curves, reference = [], []
    if closed_form is not None:
        curves = [
            trace_solutions(closed_form, pose[0], known[6])
            for pose, known in tracked(
                list(zip(first, q_true, strict=False)), "poses whose exact answer is traced"
            )
        ]
        # MMD^2 needs two exact samples, even where one is asked of the sampler.
        count = max(samples, 2)
        reference = [curve.sample(count, random)[0] for curve in curves]
        draws = {"exact": [curve.sample(count, random)[0] for curve in curves], **draws}
        counts = [count for count in _COUNTS if count < samples] + [samples]
        exactness = Exactness(
            len(first),
            {kind: match(curves, reference, drawn) for kind, drawn in draws.items()},
            {
                # A part of the diverse ones is less diverse than a choice of as many would be.
                kind: coverage_by_samples(curves, drawn, counts, random)
                for kind, drawn in draws.items()
                if kind != "diverse"
            },
            curves[0],
        )
    numbers, without_calls = (), None
    if name == "meanflow" and len(first):
        numbers, without_calls = _numbers_of_calls(judged)
    for number in numbers:
        stage(f"{number} network calls")
        several = _sampler_from_name(name, arm, checkpoint, number, device)
        drawn, spent = draw_samples(several, first, samples, generator)
        errors = sample_errors(arm, drawn, first)
        calls[number] = {
            "position_error": float(errors[0].mean()),
            "orientation_error": float(errors[1].mean()),
            "sample_time": spent,
        }
        if curves:
            calls[number]["mmd_squared"] = match(curves, reference, list(drawn))["mmd_squared"]
    series = Series(
        *sample_errors(arm, q, T_base_tip), {kind: drawn[0] for kind, drawn in draws.items()}
    )
    steps = after_steps(arm, q, T_base_tip, *tolerances, STEPS, reference)
    for found in steps.values():
        found["time_of_sample"] = sample_time / samples + found.pop("step_time")
    used = arm.name if checkpoint is None and name == "meanflow" else checkpoint
    return Evaluation(
        arm.name, name, None if used is None else str(used), num_calls, poses, samples, seed,
        position_tolerance, orientation_tolerance, {**metrics, "sample_time": sample_time},
        steps, len(first), calls, without_calls, stages, exactness, without_exact, series,
    )  # fmt: skip


def _closed_form(robot: Robot, exact: bool | None) -> tuple[ClosedForm | None, str | None]:
    """The closed form, or why there is none."""
    if exact is False:
        return None, "not asked for"
    try:
        return ClosedForm(robot), None
    except (OptionError, RobotError) as error:
        if exact:
            raise
        return None, str(error)


def _numbers_of_calls(judged: Sampler) -> tuple[tuple[int, ...], str | None]:
    """The numbers of network calls that a network knows, and why they are no more."""
    if judged.checkpoint is not None and knows_one_call_only(judged.checkpoint):
        return (1,), "the network was trained for one call only (velocity_end: 0)"
    return _CALLS, None


def _sampler_from_name(
    name: str, robot: Robot, checkpoint: str | Path | None, num_calls: int, device: str
) -> Sampler:
    where = device_name(device)
    if num_calls == 1:
        return build_sampler(name, robot, checkpoint, where)
    if name != "meanflow":
        raise OptionError(f"num_calls is {num_calls}; only the sampler 'meanflow' has calls")
    return MeanFlowSampler.build(robot, checkpoint, where, num_calls)
