# SPDX-License-Identifier: Apache-2.0
"""Pictures of the suite `peers`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..pictures import draw_pictures
from .peer_solvers.ours import OURS
from .peer_solvers.peer import EXACT
from .peers_tables import BUDGETS_MS, COUNTS, DIFFERENT, LABELS, RANDOM, Numbers
from .result import BenchResult

_RANDOM = f"{RANDOM}, {EXACT}"
_COLOURS = (*(f"C{place}" for place in range(10)), "navy", "olive")  # of peers
_MARKS = "os^vDPX<>*hpd"


def plot_peers(record: BenchResult, folder: Path) -> list[Path]:
    """Draw the time against the number of solutions, and the share solved against the time.

    That is peers-solutions.png and peers-success.png.

    Args:
        record: of the suite.
        folder: made when it does not exist.

    Returns:
        The files written.

    Raises:
        OptionError: matplotlib is not installed, or the folder cannot be written.
    """
    numbers = Numbers(record)
    drawings = {
        "peers-solutions.png": lambda figure: _draw_solutions(figure.subplots(), numbers),
        "peers-success.png": lambda figure: _draw_success(figure.subplots(), numbers),
    }
    return draw_pictures(drawings, folder, 100, figsize=(7.5, 4.2))


def _draw_solutions(axes: Any, numbers: Numbers) -> None:
    """A point where at least half of the poses have so many."""
    for solver in numbers.asked(_RANDOM):
        points = [(1, numbers.values[_RANDOM, solver, "median"])]
        for count in COUNTS:
            task = DIFFERENT.format(count)
            if numbers.values.get((task, solver, "solved"), 0.0) >= 0.5:
                points.append((count, numbers.values[task, solver, "median"]))
        axes.plot(*zip(*points, strict=True), **_style(numbers, solver))
    axes.set(
        xscale="log", yscale="log", xlabel="different solutions of a pose",
        ylabel="processor time, median [ms]", xticks=[1, *COUNTS],
    )  # fmt: skip
    axes.set_xticklabels([1, *COUNTS])
    axes.minorticks_off()
    _finish(axes)


def _draw_success(axes: Any, numbers: Numbers) -> None:
    for solver in numbers.asked(_RANDOM):
        shares = [
            100 * numbers.values[_RANDOM, solver, f"within {budget:g} ms"] for budget in BUDGETS_MS
        ]
        axes.plot(BUDGETS_MS, shares, **_style(numbers, solver))
    axes.set(
        xscale="log", xlabel="processor time for one pose [ms]", ylabel="poses solved to 1e-5 [%]",
        ylim=(-2, 102),
    )  # fmt: skip
    ticks = [0.02, 0.1, 1, 10, 50]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    _finish(axes)


def _finish(axes: Any) -> None:
    axes.grid(True, which="major", alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)


def _style(numbers: Numbers, solver: str) -> dict[str, Any]:
    ours = [kind.name for kind in OURS]
    place = numbers.solvers.index(solver)
    peers = [one for one in numbers.asked(_RANDOM) if one not in ours]
    colour = "black" if solver in ours else _COLOURS[peers.index(solver) % len(_COLOURS)]
    return {
        "label": LABELS.get(solver, solver),
        "color": colour,
        "linestyle": "--" if solver == "meanflow" else "-",
        "linewidth": 2.2 if solver in ours else 1.2,
        "marker": _MARKS[place % len(_MARKS)],
        "markersize": 5,
        "zorder": 3 if solver in ours else 2,
    }
