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
