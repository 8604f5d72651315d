# SPDX-License-Identifier: Apache-2.0
"""Draws the pictures of docs/concepts.md, docs/sampler.md and docs/training.md: ``make figures``.

One of them needs three small networks, which are trained first where they are not there yet. That
takes some minutes of one core.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

import meanflow_ik_core as mik
from meanflow_ik_core.evaluation.closed_form import ClosedForm
from meanflow_ik_core.evaluation.distribution import coverage
from meanflow_ik_core.evaluation.exactness import after_steps
from meanflow_ik_core.evaluation.posterior import SolutionCurve, trace_solutions
from meanflow_ik_core.evaluation.timed_samples import draw_samples
from meanflow_ik_core.network.checkpoint import read_checkpoint
from meanflow_ik_core.samplers import build_sampler
from meanflow_ik_core.samplers.meanflow import MeanFlowSampler
from meanflow_ik_core.solving.refine import refine_lm
from meanflow_ik_core.training.config import load_train_config
from meanflow_ik_core.training.study import read_records
from meanflow_ik_core.training.trainer import train

DOCS = Path(__file__).parent
STUDY = DOCS.parent / "meanflow_ik_core" / "recipes" / "study"
Q = np.array([0.3, -0.4, 0.2, -2.1, 0.3, 1.9, 0.6])  # rad, a solution of the pose that is drawn
MARGIN = 0.5  # rad around the solutions
RADIUS = 0.2  # rad, as in the tables of docs/sampler.md
SHOWN = (0, 6)  # joints, from 0
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
OUTSIDE = "#b0b0b0"
STEPS = (0, 1, 2, 3, 5, 8, 12, 24)  # of refinement
TOLERANCE = 1e-5  # m and rad
# Name of a network, its recipe, and settings that differ from it.
TERMS = {
    "score": ("11_energy", {}),
    "pull": ("12_energy_refine", {"lambda_energy": 0.0}),
    "both": ("12_energy_refine", {}),
}
# What the recipes of the study are trained with, by their numbers.
KINDS = {
    "one velocity, or its literal derivative": ("01", "02"),
    "Mean Flows": ("03", "04", "05", "06", "07", "08", "09"),
    "pull without a score": ("10",),
    "score alone": ("11",),
    "score and pull": (),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=DOCS / "images")
    parser.add_argument("--runs", type=Path, default=DOCS.parent / "runs" / "figures")
    parser.add_argument(
        "--iterations", type=int, help="of a short training, to try this; default: the recipe's"
    )
    arguments = parser.parse_args()
    robot = mik.load_robot("panda")
    curve = trace_solutions(ClosedForm(robot), robot.forward(Q)[0])
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, figure in {
        "study": study_of_recipes(read_records(DOCS / "training" / "study.json")),
        "learning_curves": learning_curves(DOCS / "training" / "curves.csv"),
        "steps": network_against_steps(robot),
        "solution_set": solution_set(curve),
        "one_step": one_step(curve),
        "pull_and_scores": pull_and_scores(curve, arguments.runs, arguments.iterations),
    }.items():
        path = arguments.out / f"{name}.png"
        figure.savefig(path, dpi=100, pil_kwargs={"optimize": True})
        print(path)


def solution_set(curve: SolutionCurve) -> Figure:
    """Arms of some solutions, and what the two kinds of choice take of the curves."""
    robot, count = curve.robot, 40
    solver = mik.load_solver(robot)
    figure = Figure(figsize=(12, 4.2), layout="constrained")
    arms, *others = figure.subplots(1, 3, width_ratios=(0.8, 1, 1))
    links = mik.load_robot("panda", tips=[f"panda_link{i}" for i in range(1, 9)])
    found = solver.solve(
        curve.T_base_tip[None], num_samples=1000, max_solutions=10, seed=1, select="diverse"
    )
    q = found.joint_positions[0]
    for points, colour in zip(links.forward(q)[:, :, :3, 3], colours(curve, q), strict=True):
        arms.plot(*seen(np.vstack(([0, 0, 0], points))), "o-", color=colour, linewidth=3, alpha=0.8)
    arms.plot(*seen(curve.T_base_tip[:3, 3]), "k*", markersize=16, zorder=3)
    arms.plot(*seen(np.zeros(3)), "ks", markersize=16)
    arms.set(title="ten solutions of one pose", aspect="equal")
    arms.set_axis_off()
    choices = {"best": "best: near the current joints", "diverse": "diverse: far apart"}
    for axes, (select, title) in zip(others, choices.items(), strict=True):
        found = solver.solve(
            curve.T_base_tip[None], num_samples=1000, max_solutions=count, seed=1, seed_state=Q,
            select=select,
        )  # fmt: skip
        q = found.joint_positions[0][found.valid[0]]
        covered = coverage(curve.middle, curve.length, q, RADIUS)
        draw_curve(axes, curve)
        draw(axes, curve, q, size=28)
        if select == "best":
            axes.plot(*Q[list(SHOWN)], "k+", markersize=13, markeredgewidth=2)
        label(axes, curve, f"{title}\n{len(q)} solutions cover {100 * covered:.0f} % of the curves")
    return figure


def one_step(curve: SolutionCurve) -> Figure:
    """Noise, raw samples and refined ones, in the colours of where they end."""
    robot, count = curve.robot, 600
    noise, raw = noise_and_samples(curve, read_checkpoint(None, robot), count)
    refined = refine_lm(robot, raw[None].astype(float), curve.T_base_tip[None, None])
    q = np.where(refined.converged[0][:, None], refined.q[0], np.nan)
    colour = colours(curve, q)
    figure = Figure(figsize=(12, 4.2), layout="constrained")
    first, second, third = figure.subplots(1, 3)
    first.scatter(*(noise @ directions(noise, colour)).T, s=9, c=colour)
    first.set(title="1. noise", xlabel="first direction", ylabel="second direction", aspect="equal")
    draw_curve(second, curve)
    second.scatter(*raw[:, SHOWN].T, s=9, c=colour)
    label(second, curve, "2. one network call")
    draw_curve(third, curve)
    third.scatter(*q[:, SHOWN].T, s=9, c=colour)
    label(third, curve, "3. refined: exact")
    return figure


def pull_and_scores(curve: SolutionCurve, runs: Path, iterations: int | None) -> Figure:
    """Raw samples of networks that were trained with one term, the other, and both."""
    figure = Figure(figsize=(12, 4.2), layout="constrained")
    titles = ("score alone", "pull alone", "score and pull")
    for axes, title, name in zip(figure.subplots(1, 3), titles, TERMS, strict=True):
        recipe, changed = TERMS[name]
        config = load_train_config(STUDY / f"{recipe}.yaml")
        if iterations is not None:
            few = {"warmup_steps": 1, "compile": False, "validation_poses": 8, "estimate_poses": 8}
            changed = {**changed, **few, "iterations": iterations}
        config = dataclasses.replace(config, **changed)
        result = train(curve.robot, config, runs / name)
        _, raw = noise_and_samples(
            curve, read_checkpoint(result.checkpoint, curve.robot), count=600
        )
        error = np.linalg.norm(
            curve.robot.forward(raw)[:, 0, :3, 3] - curve.T_base_tip[:3, 3], axis=-1
        )
        draw_curve(axes, curve)
        draw(axes, curve, raw, size=9)
        label(axes, curve, f"{title}\nmedian position error {1e3 * np.median(error):.0f} mm")
    return figure


def study_of_recipes(records: list[dict[str, Any]]) -> Figure:
    """Each recipe of the study by its accuracy and its distribution."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for record in records:
        number = record["recipe"][:2]
        error = 1e3 * record["metrics"]["position_error_mean"]
        mmd = record["draws"]["raw"]["mmd_squared"]
        kind = next((kind for kind, those in KINDS.items() if number in those), "score and pull")
        axes.plot(error, mmd, "o", color=COLOURS[list(KINDS).index(kind)])
        axes.annotate(number, (error, mmd), xytext=(4, 4), textcoords="offset points", fontsize=8)
    for kind, colour in zip(KINDS, COLOURS, strict=False):
        axes.plot([], [], "o", color=colour, label=kind)
    axes.set(
        xscale="log", yscale="log", xlabel="position error of raw samples, mean [mm]",
        ylabel="MMD$^2$ of raw samples to the exact posterior",
    )  # fmt: skip
    for axis, ticks in (
        (axes.xaxis, (70, 100, 200, 400, 800)),
        (axes.yaxis, (0.04, 0.06, 0.1, 0.2, 0.4, 0.8)),
    ):
        axis.set_minor_locator(NullLocator())
        axis.set_major_locator(FixedLocator(ticks))
        axis.set_major_formatter("{x:g}")
    axes.legend()
    return figure


def learning_curves(record: Path) -> Figure:
    """Errors of raw samples over the samples that a network was trained with."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    shown = {"position_error_mm": "position error, mean [mm]",
             "rotation_error_deg": "rotation error, mean [deg]"}  # fmt: skip
    with record.open() as lines:
        rows = list(csv.DictReader(lines))
    for axes, (column, title) in zip(figure.subplots(1, 2), shown.items(), strict=True):
        for colour, (run, those) in zip(
            COLOURS, itertools.groupby(rows, lambda row: row["run"]), strict=False
        ):
            points = [(float(row["million_samples"]), float(row[column])) for row in those]
            axes.plot(*np.transpose(points), "o-", color=colour, markersize=3, label=run)
        axes.set(xscale="log", yscale="log", xlabel="samples [M]", ylabel=title)
        for axis, ticks in (
            (axes.xaxis, (10, 30, 100, 300, 1000)),
            (axes.yaxis, (5, 10, 20, 30, 50, 100, 200)),
        ):
            low, high = axis.get_view_interval()
            axis.set_minor_locator(NullLocator())
            axis.set_major_locator(FixedLocator([tick for tick in ticks if low < tick < high]))
            axis.set_major_formatter("{x:g}")
        axes.grid(alpha=0.3)
    axes.legend()
    return figure


def network_against_steps(robot: mik.Robot) -> Figure:
    """What samples cost with their steps of refinement, and how good they are then."""
    torch.set_num_threads(1)
    poses = robot.forward(robot.random_configurations(300, np.random.default_rng(0)))
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for colour, (name, label) in zip(
        COLOURS, {"uniform": "random start", "meanflow": "network sample"}.items(), strict=False
    ):
        sampler = build_sampler(name, robot, None, "cpu")
        found, time = samples_after_steps(robot, sampler, poses)
        errors = [1e3 * values["position_error_median"] for values in found.values()]
        valid = [100 * values["valid"] for values in found.values()]
        for axes, heights in ((left, errors), (right, valid)):
            axes.plot(time, heights, "o-", color=colour, markersize=4, label=label)
            for steps, *place in zip(found, time, heights, strict=True):
                axes.annotate(
                    f"{steps}", place, xytext=(4, 4), textcoords="offset points", fontsize=8
                )
    left.set(yscale="log", ylim=(1e-10, 3e3), ylabel="position error, median [mm]")
    right.set(ylim=(0, 105), ylabel="valid [%]")
    for axes in (left, right):
        axes.set(xlim=(0, None), xlabel="time of a sample with its steps [us]")
        axes.grid(alpha=0.3)
        axes.legend(loc="lower left" if axes is left else "upper left")
    return figure


def samples_after_steps(
    robot: mik.Robot, sampler: Any, poses: np.ndarray
) -> tuple[dict[int, dict[str, float]], np.ndarray]:
    """100 samples of each pose (B, 1, 4, 4) after `STEPS`; least time [us] of three runs."""
    times = []
    for _ in range(3):
        generator = torch.Generator().manual_seed(0)
        q, spent = draw_samples(sampler, poses, 100, generator)
        found = after_steps(robot, q, poses, TOLERANCE, TOLERANCE, STEPS)
        times.append([1e6 * (spent / 100 + values["step_time"]) for values in found.values()])
    return found, np.min(times, 0)


def noise_and_samples(
    curve: SolutionCurve, network: Any, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Noise (N, 7), and the joints (N, 7) that one call of a network makes of it."""
    sampler = MeanFlowSampler(curve.robot, network)
    noise = torch.randn(1, count, 7, generator=torch.Generator().manual_seed(0))
    target = torch.from_numpy(curve.T_base_tip)[None, None].float()
    return noise[0].numpy(), sampler.map_from_noise(target)(noise)[0].numpy()


def directions(noise: np.ndarray, colour: list[str]) -> np.ndarray:
    """Two directions (7, 2) of the noise (N, 7) in which the means of the colours differ most."""
    of = np.array(colour)
    means = [noise[of == each].mean(0) for each in sorted(set(colour) - {OUTSIDE})]
    return np.linalg.svd(np.array(means) - noise.mean(0))[2][:2].T


def seen(points: np.ndarray) -> np.ndarray:
    """Where points (..., 3) m stand in a picture (2, ...), from a little above."""
    turn, tilt = np.deg2rad(-35), np.deg2rad(15)
    right = np.array([np.cos(turn), np.sin(turn), 0])
    away = np.array([-np.sin(turn), np.cos(turn), 0])
    up = np.sin(tilt) * away + np.cos(tilt) * np.array([0, 0, 1])
    return np.stack((points @ right, points @ up))


def colours(curve: SolutionCurve, q: np.ndarray) -> list[str]:
    """A colour for each of q (N, 7) by the branch nearest to it; grey where q is NaN."""
    known = np.isfinite(q).all(-1)
    branch = np.full(len(q), -1)
    branch[known] = curve.nearest_branch(q[known])[0]
    return [OUTSIDE if one < 0 else COLOURS[one % len(COLOURS)] for one in branch]


def draw_curve(axes: Any, curve: SolutionCurve) -> None:
    """All solutions, as lines."""
    # NaN ends a line.
    path = np.stack((curve.start, curve.end, np.full_like(curve.start, np.nan)), 1).reshape(-1, 7)
    axes.plot(*path[:, SHOWN].T, color="#909090", linewidth=1, zorder=1)


def draw(axes: Any, curve: SolutionCurve, q: np.ndarray, size: float) -> None:
    axes.scatter(*q[:, SHOWN].T, s=size, c=colours(curve, q), zorder=2)


def label(axes: Any, curve: SolutionCurve, title: str) -> None:
    """Title, names of the two joints, and a frame around all solutions."""
    axes.set_title(title)
    ends = np.vstack((curve.start, curve.end))
    for joint, side in zip(SHOWN, ("x", "y"), strict=True):
        getattr(axes, f"set_{side}label")(f"joint {joint + 1} [rad]")
        low, high = ends[:, joint].min(), ends[:, joint].max()
        getattr(axes, f"set_{side}lim")(low - MARGIN, high + MARGIN)


if __name__ == "__main__":
    main()
