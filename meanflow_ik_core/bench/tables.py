# SPDX-License-Identifier: Apache-2.0
"""Markdown tables of the suites whose records have one: rows, and the measure of each column."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from .records import records_of
from .result import BenchResult, Measure


class Column(NamedTuple):
    """One measure of every row, and how it reads."""

    heading: str
    what: str  # name of the measure without that of the row, with the row's numbers in braces
    digits: str = ".3g"  # of what is below 1000; the rest is rounded to whole numbers
    scale: float = 1.0
    unit: str = ""


class Row(NamedTuple):
    """What a table says of one thing."""

    labels: tuple[str, ...]
    measures: Mapping[str, Measure]
    numbers: Mapping[str, float]  # what names of measures contain, see `Column.what`

    def cell(self, column: Column) -> str:
        """The measure of a column, empty where there is none."""
        measure = self.measures.get(column.what.format(**self.numbers))
        if measure is None:
            return ""
        value = column.scale * measure.value
        digits = column.digits if abs(value) < 1e3 else ".0f"
        return f"{value:{digits}} {column.unit}".strip() + missed(measure)


def missed(measure: Measure) -> str:
    """What follows a value that misses its bar."""
    return " **missed**" if measure.reached is False else ""


def share(heading: str, what: str, digits: str) -> Column:
    """A column of shares, in percent."""
    return Column(heading, what, digits, 1e2, "%")


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """The rows as a table, the first one its head."""
    head, *body = (f"| {' | '.join(row)} |".replace("  |", " |") for row in rows)
    return "\n".join([head, "|---" * len(rows[0]) + "|", *body])


def table(labels: Sequence[str], columns: Sequence[Column], rows: Iterable[Row]) -> str:
    """A table with a column for each label of the rows, and those of their measures."""
    head = [*labels, *(column.heading for column in columns)]
    return markdown([head, *([*row.labels, *map(row.cell, columns)] for row in rows)])


def measures_by_row(record: BenchResult, end: str) -> dict[str, dict[str, Measure]]:
    """Measures by the two parts of their names, that of the row before ``end`` and the rest."""
    rows: dict[str, dict[str, Measure]] = {}
    for measure in record.measures:
        row, _, what = measure.what.partition(end)
        rows.setdefault(row, {})[what] = measure
    return rows


_OBJECTIVES = (
    Column("without", "without, value of the first row"),
    Column("ranking", "ranking, value of the first row"),
    Column("+ null space", "and null space, value of the first row"),
    Column("+ choice of samples", "and choice of samples (default), value of the first row"),
    Column("times: ranking", "ranking, time against without", ".2g"),
    Column("+ null space", "and null space, time against without", ".2g"),
    Column("+ choice", "and choice of samples (default), time against without", ".2g"),
    Column("largest error", "largest error by Pinocchio", ".1e"),
    Column("samples", "samples, mean value"),
    Column("best of 4", "samples, best of 4, mean value"),
    Column("3 gradient steps", "samples, 3 gradient steps, mean value"),
    Column("their error, mm", "samples, mean position error"),
    Column("best of 4", "samples, best of 4, mean position error"),
    Column("3 gradient steps", "samples, 3 gradient steps, mean position error"),
)
_CLEARANCE = (
    Column("spheres", "spheres"),
    Column("pairs of links", "pairs of links"),
    *(
        share(what, what, ".2g")
        for what in (
            "touching",
            "touching, called free",
            "free, called touching",
            "touching, called farther than 10 mm",
            "free, called nearer than 10 mm",
        )
    ),
    *(
        Column(f"{what}, us", what)
        for what in ("spheres, time per configuration", "exact check, time per configuration")
    ),
)

# What is wanted, the sampler that serves it best, and the row of the suite `latency` with its cost.
_CHOICES = (
    ("one exact solution", "`uniform`", "panda, one solution"),
    ("the next step of a motion, from a seed near to it", "either", "panda, seeded near it"),
    ("the solution nearest to a seed anywhere", "`uniform`", "panda, nearest to a random seed"),
    ("100 different solutions", "`uniform`", "panda, 100 different"),
    (
        "100 solutions spread as all solutions are (below)",
        "`meanflow`",
        "panda, 100 diverse of 1,000 starts",
    ),
    ("one solution for each of 1,000 poses", "`uniform`", "panda, 1,000 poses, one each"),
    (
        "one solution of two Pandas, free of self-collision",
        "`uniform`",
        "dual_panda, one solution, free of self-collision",
    ),
    (
        "the same of a G1 with hands and feet",
        "`uniform`",
        "g1, one solution, free of self-collision",
    ),
)


def latency_table(folder: Path) -> str:
    """The suite `latency`, a row per robot and task, a column per sampler: median / 95 % in ms."""
    names, body = {"uniform": "`uniform`", "meanflow": "network"}, []
    for row, measures in _latency_rows(folder).items():
        robot, _, task = row.partition(", ")
        bars = [measures.get(f"{solver}, median") for solver in names]
        bar = " / ".join(f"{bar.at_most:g}" if bar and bar.at_most else "-" for bar in bars)
        cells = [
            _latency(measures, solver) + _missed_by(measures, solver, ("median", "solved"))
            for solver in names
        ]
        body.append([robot, task, "" if bar == "- / -" else f"≤ {bar}", *cells])
    return markdown([["robot", "task", "bar", *names.values()], *body])


def sampler_table(folder: Path) -> str:
    """Which sampler serves what, and what that takes with each, by the suite `latency`."""
    rows = _latency_rows(folder)
    head = ["what you want", "sampler", "`uniform`: median / 95 %, ms", "`meanflow`"]
    body = [
        [want, which, *(_latency(rows.get(row, {}), one) for one in ("uniform", "meanflow"))]
        for want, which, row in _CHOICES
    ]
    return markdown([head, *body])


def _latency_rows(folder: Path) -> dict[str, dict[str, Measure]]:
    """The measures of robot and task, by solver and what they are."""
    rows: dict[str, dict[str, Measure]] = {}
    for record in records_of(folder, "latency"):
        rows |= measures_by_row(record, ": ")
    return rows


def _latency(measures: Mapping[str, Measure], solver: str) -> str:
    """Median / 95 % of a solver, and the share of poses that it solved where it is not all."""
    if f"{solver}, solved" not in measures:
        return ""
    median, most, solved = (
        measures[f"{solver}, {what}"].value for what in ("median", "95 %", "solved")
    )
    times = " / ".join(f"{one:.2g}" if one < 100 else f"{one:.0f}" for one in (median, most))
    return times if solved == 1 else f"{times}, {100 * solved:.3g} %"


def _missed_by(measures: Mapping[str, Measure], solver: str, whats: Sequence[str]) -> str:
    found = (measures.get(f"{solver}, {what}") for what in whats)
    return next(filter(None, (missed(measure) for measure in found if measure)), "")


def objectives_table(folder: Path) -> str:
    """The suite `objectives`, a row per robot and objective."""
    rows = []
    for record in records_of(folder, "objectives"):
        label = f"{record.options['robot']}, `{record.options['sampler']}`"
        for name, measures in measures_by_row(record, ": ").items():
            rows.append(Row((label, f"`{name}`"), measures, {}))
            label = ""
    return table(("robot, sampler", "objective"), _OBJECTIVES, rows)


def clearance_table(folder: Path) -> str:
    """The suite `clearance`, a row per robot."""
    rows = (
        Row((robot,), measures, {})
        for record in records_of(folder, "clearance")
        for robot, measures in measures_by_row(record, ": ").items()
    )
    return table(("robot",), _CLEARANCE, rows)
