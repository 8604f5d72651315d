# SPDX-License-Identifier: Apache-2.0
"""Pictures of an evaluation."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..pictures import draw_pictures
from .evaluate import Evaluation

_KINDS = ("exact", "raw", "refined", "best", "diverse")  # colours in this order, everywhere
_SHOWN = ((3, 4), (1, 6))  # pairs of joints, from 0, of the solution curve


def plot_evaluation(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Draw what the evaluation has.

    That is errors.png and steps.png, and with details calls.png, coverage.png and curve.png.

    Args:
        evaluation: see `evaluate`.
        folder: made when it does not exist.

    Returns:
        The files written.

    Raises:
        OptionError: matplotlib is not installed, or the folder cannot be written.
    """
    drawings = {"errors.png": _draw_errors, "steps.png": _draw_steps}
    if evaluation.calls:
        drawings["calls.png"] = _draw_calls
    if evaluation.exact is not None:
        drawings |= {"coverage.png": _draw_coverage, "curve.png": _draw_curve}

    def titled(draw: Callable[[Any, Evaluation], None], figure: Any) -> None:
        figure.suptitle(f"{evaluation.robot}, {evaluation.sampler}")
        draw(figure, evaluation)

    figures = {name: partial(titled, draw) for name, draw in drawings.items()}
    return draw_pictures(figures, folder, 120, figsize=(10, 4))


def _draw_errors(figure: Any, evaluation: Evaluation) -> None:
    series = evaluation.series
    shown = (
        (1e3 * series.position_error, "position error [mm]"),
        (np.rad2deg(series.orientation_error), "rotation error [deg]"),
    )
    for axes, (values, label) in zip(figure.subplots(1, 2), shown, strict=True):
        values = np.maximum(values, 1e-6)
        bins = np.geomspace(max(values.min(), 1e-3 * values.max()), values.max() * 1.001, 60)
        axes.hist(np.clip(values, bins[0], None), bins)
        axes.axvline(values.mean(), color="k", linestyle="--", label=f"mean {values.mean():.3g}")
        axes.set(xscale="log", xlabel=label, ylabel="raw samples")
        axes.legend()


def _draw_steps(figure: Any, evaluation: Evaluation) -> None:
    found = evaluation.after_steps
    time = [1e6 * values["time_of_sample"] for values in found.values()]
    shown = (("position_error", "position error [mm]", 1e3),
             ("orientation_error", "rotation error [deg]", 180 / np.pi))  # fmt: skip
    for axes, (name, label, factor) in zip(figure.subplots(1, 2), shown, strict=True):
        for statistic in ("mean", "median"):
            errors = [factor * values[f"{name}_{statistic}"] for values in found.values()]
            axes.plot(time, errors, "o-", label=statistic)
            for number, *place in zip(found, time, errors, strict=True):
                axes.annotate(f"{number}", place, textcoords="offset points", xytext=(4, 4))
        axes.set(yscale="log", ylabel=label, xlabel="time of a sample with its damped steps [us]")
        axes.legend()


def _draw_calls(figure: Any, evaluation: Evaluation) -> None:
    number = list(evaluation.calls)
    calls = evaluation.calls.values()
    shown = [
        ("position_error", "position error, mean [mm]", 1e3),
        ("orientation_error", "rotation error, mean [deg]", 180 / np.pi),
    ]
    if evaluation.exact is not None:
        shown.append(("mmd_squared", "MMD$^2$ to the exact posterior", 1.0))
    for axes, (metric, label, factor) in zip(
        figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True
    ):
        axes.plot(number, [call[metric] * factor for call in calls], "o-")
        axes.set(xscale="log", xlabel="network calls", ylabel=label, xticks=number)
        axes.set_xticklabels(number)
        axes.minorticks_off()
        axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))


def _draw_coverage(figure: Any, evaluation: Evaluation) -> None:
    assert evaluation.exact is not None
    axes = figure.subplots()
    for kind, by_count in evaluation.exact.coverage_by_samples.items():
        axes.plot(list(by_count), list(by_count.values()), "o-", color=_colour(kind), label=kind)
    diverse = evaluation.exact.draws["diverse"]
    axes.plot(
        diverse["samples"], diverse["coverage"], "*", markersize=12, color=_colour("diverse"),
        label="diverse",
    )  # fmt: skip
    axes.set(
        xscale="log", ylim=(0, 1.02), xlabel="samples", ylabel="share of the curve within 0.2 rad"
    )
    axes.legend()


def _draw_curve(figure: Any, evaluation: Evaluation) -> None:
    assert evaluation.exact is not None
    curve = evaluation.exact.curve
    # NaN ends a line.
    path = np.stack((curve.start, curve.end, np.full_like(curve.start, np.nan)), 1).reshape(-1, 7)
    every = figure.subplots(1, 2)
    for axes, (i, j) in zip(every, _SHOWN, strict=True):
        axes.plot(path[:, i], path[:, j], "k-", linewidth=1, label="all solutions")
        for kind in ("raw", "refined"):
            q = evaluation.series.draws[kind]
            axes.plot(q[:, i], q[:, j], ".", color=_colour(kind), alpha=0.7, label=kind)
        names = curve.robot.joint_names
        axes.set(xlabel=f"{names[i]} [rad]", ylabel=f"{names[j]} [rad]")
    every[0].legend()


def _colour(kind: str) -> str:
    return f"C{_KINDS.index(kind)}"
