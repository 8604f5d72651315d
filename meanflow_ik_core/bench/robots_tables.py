# SPDX-License-Identifier: Apache-2.0
"""What the suite `robots` asks of every robot, and the tables of its records."""

from __future__ import annotations

from pathlib import Path

from .records import records_of
from .tables import Column, Row, markdown, measures_by_row, share, table

STEPS = 5  # damped least-squares steps, after which raw samples are judged again


def time_limit(num_tips: int) -> float:
    """Seconds in which a pose shall be solved."""
    return 0.02 if num_tips <= 2 else 0.05


_VALID = f"valid after {STEPS} steps"
_SAMPLES = (
    Column("network: position error", "meanflow: raw position error", unit="mm"),
    Column("rotation error", "meanflow: raw rotation error", unit="deg"),
    share(_VALID, f"meanflow: {_VALID}", ".4g"),
    Column("uniform: position error", "uniform: raw position error", unit="mm"),
    Column("rotation error", "uniform: raw rotation error", unit="deg"),
    share(_VALID, f"uniform: {_VALID}", ".4g"),
    Column(f"ratio: {_VALID}", f"ratio: {_VALID}"),
)


def _first_solution(heading: str, side: str) -> tuple[Column, ...]:
    return (
        Column(f"{heading}: starts", f"{side}: starts for the first solution"),
        share("solved in time", f"{side}: solved in {{limit:g}} ms", ".4g"),
        Column("median", f"{side}: first solution, median time", unit="ms"),
        Column("99 %", f"{side}: first solution, 99 % time", unit="ms"),
        share(
            "solved in processor time",
            f"{side}: within {{limit:g}} ms of processor time",
            ".4g",
        ),
        Column(
            "median processor time", f"{side}: first solution, median processor time", unit="ms"
        ),
    )


def _several_solutions(heading: str, side: str) -> tuple[Column, ...]:
    return (
        Column(f"{heading}: starts", f"{side}: starts for {{solutions}} solutions"),
        Column("median", f"{side}: {{solutions}} solutions, median time", unit="ms"),
        Column("mean", f"{side}: {{solutions}} solutions, mean time", unit="ms"),
        Column("95 %", f"{side}: {{solutions}} solutions, 95 % time", unit="ms"),
        Column("fewer", f"{side}: fewer than {{solutions}}"),
    )


def _ratios(heading: str, side: str) -> tuple[Column, ...]:
    what = f"ratio: faster than {side} to {{solutions}}"
    return (
        Column(f"{heading}: median", f"{what}, median"),
        Column("mean", f"{what}, mean"),
        Column("median of processor time", f"{what}, median of processor time"),
    )


_TABLES = {
    "samples": _SAMPLES,
    "first solution": (
        *_first_solution("network", "meanflow"),
        *_first_solution("uniform", "uniform"),
    ),
    "several solutions": (
        *_several_solutions("network", "meanflow"),
        *_several_solutions("uniform", "uniform"),
        *_several_solutions("plain restarts", "restarts"),
        *_ratios("times faster than uniform", "uniform starts"),
        *_ratios("than plain restarts", "plain restarts"),
    ),
}


def robots_table(folder: Path) -> str:
    """The suite `robots`: all robots at a glance, then a table of each kind of measure."""
    rows = []
    for record in records_of(folder, "robots"):
        for robot, measures in measures_by_row(record, ", ").items():
            limit = time_limit(int(measures["robot: tips"].value))
            numbers = {"limit": 1e3 * limit, "solutions": record.options["solutions"]}
            rows.append(Row((robot,), measures, numbers))
    tables = [table((title,), columns, rows) for title, columns in _TABLES.items()]
    return "\n\n".join([_overview(rows), *tables])


def _overview(rows: list[Row]) -> str:
    """A row per robot, with what its default sampler does."""
    solutions = next((row.numbers["solutions"] for row in rows), "several")
    table = [
        ["robot", "joints", "tips", "checkpoint", "raw error per tip", "solved", "first solution",
         f"{solutions} solutions"]
    ]  # fmt: skip
    for row in rows:
        size = row.cell(Column("", "robot: checkpoint", unit="MB"))
        side = "meanflow" if size else "uniform"
        position, rotation, *_ = _SAMPLES
        _, solved, first, *_ = _first_solution("", side)
        _, several, *_ = _several_solutions("", side)
        table.append(
            [
                *row.labels,
                row.cell(Column("", "robot: joints")),
                row.cell(Column("", "robot: tips")),
                size or "none: uniform starts",
                f"{row.cell(position)}, {row.cell(rotation)}" if size else "",
                f"{row.cell(solved)} in {row.numbers['limit']:g} ms",
                row.cell(first),
                row.cell(several),
            ]
        )
    return markdown(table)
