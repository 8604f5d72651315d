# SPDX-License-Identifier: Apache-2.0
"""Tables of the suite `peers`: for the terminal, for the documentation, for the README."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..errors import ConfigError
from .peer_solvers.known import PEERS
from .peer_solvers.ours import OURS
from .records import records_of
from .result import BenchResult
from .tables import markdown

LABELS = {"uniform": "ours, uniform", "meanflow": "ours, network", "tracked": "ours, tracked"}
# Of the README, in its order; those that were not there have no row.
_SHORT = (
    "uniform", "meanflow", "TRAC-IK", "toolbox", "optik", "roboplan", "pink", "mink", "ssik",
    "EAIK",
)  # fmt: skip


class Table(NamedTuple):
    """A table with a line about it."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


class Numbers:
    """The measures of a record by task, solver and what they are."""

    def __init__(self, record: BenchResult):
        self.values: dict[tuple[str, str, str], float] = {}
        for measure in record.measures:
            task, colon, rest = measure.what.partition(": ")
            solver, comma, what = rest.rpartition(", ")
            if colon and comma:
                self.values[task, solver, what] = measure.value
        self.solvers = list(dict.fromkeys(solver for _, solver, _ in self.values))

    def asked(self, task: str) -> list[str]:
        """The solvers of a task."""
        return [one for one in self.solvers if (task, one, "solved") in self.values]

    def milliseconds(self, task: str, solver: str, what: str) -> str:
        return _short(self.values.get((task, solver, what)))

    def share(self, task: str, solver: str, what: str = "solved") -> str:
        value = self.values.get((task, solver, what))
        # No share is rounded to all or nothing.
        return (
            "" if value is None else f"{100 * value:.4g}" if 0 < value < 1 else f"{100 * value:g}"
        )

    def both(self, task: str, solver: str) -> str:
        """Share solved, and the median of the time."""
        median = self.milliseconds(task, solver, "median")
        return f"{self.share(task, solver)} / {median}" if median else ""


def peers_tables(record: BenchResult) -> list[Table]:
    """All that the record says, in tables that fit into 80 columns."""
    numbers = Numbers(record)
    exact, coarse = "1e-5", "1 mm, 0.1 deg"
    one = [
        [
            _label(solver),
            *_solved_wrong_times(numbers, f"random, {exact}", solver),
            *_solved_wrong_times(numbers, f"random, {coarse}", solver),
        ]
        for solver in numbers.asked(f"random, {exact}")
    ]
    hard = [
        [
            _label(solver),
            *(
                numbers.both(f"{poses}, {exact}", solver)
                for poses in (
                    "near limits", "singular", "edge of reach", "beyond reach", "impossible turn",
                )
            ),
        ]
        for solver in numbers.asked(f"singular, {exact}")
    ]  # fmt: skip
    seeded = [
        [
            _label(solver),
            *(
                numbers.share(task, solver) if what == "solved"
                else numbers.milliseconds(task, solver, what)
                for task in ("seeded near it", "nearest to a random seed")
                for what in ("solved", "median", "95 %")
            ),
        ]
        for solver in numbers.asked("seeded near it")
    ]  # fmt: skip
    many = [
        [
            _label(solver),
            *(numbers.milliseconds(f"{n} different", solver, "median") for n in (10, 100)),
            numbers.milliseconds("100 different", solver, "95 %"),
            numbers.share("100 different", solver),
            *_against_exact(numbers, solver),
        ]
        for solver in numbers.asked("100 different")
    ]
    many += [
        [
            f"{_label(solver)}, diverse",
            "",
            *(numbers.milliseconds("100 diverse", solver, what) for what in ("median", "95 %")),
            numbers.share("100 diverse", solver),
            *_against_exact(numbers, f"{solver}, diverse"),
        ]
        for solver in numbers.asked("100 diverse")
    ]
    many.append(["100 drawn from it", "", "", "", "", *_against_exact(numbers, "drawn from it")])
    arms = [
        [
            _label(solver),
            *_solved_wrong_times(numbers, f"two arms, {exact}", solver),
            *_solved_wrong_times(numbers, f"two arms, {coarse}", solver),
        ]
        for solver in numbers.asked(f"two arms, {exact}")
    ]
    options = record.options
    halves = ("solved %", "wrong %", "ms", "95 %")
    twice = ("solver", *halves, *(f"coarse: {halves[0]}", *halves[1:]))
    return [
        Table(
            f"One solution of {options['poses']} random poses of the Panda, to 1e-5 m and rad, and "
            "to 1 mm and 0.1 deg (coarse).",
            twice,
            one,
        ),
        Table(
            f"{options['hard_poses']} hard poses of each kind, to 1e-5: solved in % / median in "
            "ms. The last two have no solution: solved are those for which none is claimed.",
            ("solver", "near limits", "singular", "edge of reach", "beyond reach", "turned"),
            hard,
        ),
        Table(
            "From joints near to a solution, and the nearest solution to random joints.",
            ("solver", "solved %", "ms", "95 %", "nearest: solved %", "ms", "95 %"),
            seeded,
        ),
        Table(
            f"Different solutions of {options['many_poses']} poses: medians in ms. Covered is the "
            "share of all solutions within 0.2 rad of the 100; MMD² is to the exact posterior.",
            ("solver", "10", "100", "95 %", "solved %", "covered %", "MMD²"),
            many,
        ),
        Table(f"One solution of {options['arms_poses']} random poses of two Pandas.", twice, arms),
    ]


def notes(record: BenchResult) -> list[str]:
    """Who is missing, and what went wrong."""
    missing, faults = record.options["missing"], record.options["faults"]
    lines = [f"Not installed, and so not asked: {missing}."] if missing else []
    return lines + [f"{who}: {what}." for who, what in faults.items()]


def peers_markdown(folder: Path) -> str:
    """The tables of the suite `peers`."""
    record = record_of_peers(folder)
    parts = [
        f"{table.title}\n\n{markdown([table.head, *table.rows])}" for table in peers_tables(record)
    ]
    return "\n\n".join([*parts, *notes(record)])


def solvers_table(folder: Path) -> str:
    """How each solver is asked; no record says it."""
    kinds = (*OURS, *PEERS.values())
    rows = [
        [_label(kind.name), kind.settings, kind.install and f"`{kind.install}`"] for kind in kinds
    ]
    return markdown([["solver", "how it is asked", "what brings it"], *rows])


def readme_table(folder: Path) -> str:
    """What a reader of the README wants to know, one row per solver."""
    record = record_of_peers(folder)
    numbers, exact = Numbers(record), "random, 1e-5"
    head = [
        "solver", "solved to 1e-5", "one solution, median / 95 %", "100 different", "covered",
        "two arms",
    ]  # fmt: skip
    body = []
    for solver in _SHORT:
        if solver not in numbers.asked(exact):
            continue
        times = " / ".join(numbers.milliseconds(exact, solver, what) for what in ("median", "95 %"))
        arms = numbers.milliseconds("two arms, 1e-5", solver, "median")
        share = numbers.share("two arms, 1e-5", solver)
        body.append(
            [
                f"**{_label(solver)}**" if solver in LABELS else solver,
                f"{numbers.share(exact, solver)} %",
                f"{times} ms",
                *_hundred(numbers, solver),
                f"{arms} ms" + ("" if share == "100" else f", {share} %") if arms else "",
            ]
        )
    return markdown([head, *body])


def _hundred(numbers: Numbers, solver: str) -> tuple[str, str]:
    """The time of 100 different solutions, and what they cover; of ours also of spread ones."""
    if numbers.values["100 different", solver, "solved"] < 0.5:
        return "no", ""
    time = f"{numbers.milliseconds('100 different', solver, 'median')} ms"
    covered = f"{_against_exact(numbers, solver)[0]} %"
    if solver in numbers.asked("100 diverse"):
        time += f"; spread {numbers.milliseconds('100 diverse', solver, 'median')} ms"
        covered += f"; spread {_against_exact(numbers, f'{solver}, diverse')[0]} %"
    return time, covered


def record_of_peers(folder: Path) -> BenchResult:
    """The record of the suite, the last one by file name where there are several.

    Raises:
        ConfigError: there is none.
    """
    records = records_of(folder, "peers")
    if not records:
        raise ConfigError(f"{folder} has no record of the suite 'peers'")
    return records[-1]


def _solved_wrong_times(numbers: Numbers, task: str, solver: str) -> list[str]:
    shares = [numbers.share(task, solver, what) for what in ("solved", "wrong")]
    return shares + [numbers.milliseconds(task, solver, what) for what in ("median", "95 %")]


def _against_exact(numbers: Numbers, solver: str) -> tuple[str, str]:
    """Coverage in percent, and MMD^2; empty where it is not known."""
    task = "against the exact answer"
    covered = numbers.values.get((task, solver, "coverage"))
    mmd = numbers.values.get((task, solver, "mmd_squared"))
    return (
        "" if covered is None else f"{100 * covered:.0f}",
        "" if mmd is None or mmd != mmd else f"{mmd:.4f}".replace("0.", "."),
    )


def _short(milliseconds: float | None) -> str:
    if milliseconds is None:
        return ""
    return f"{milliseconds:.2g}" if milliseconds < 100 else f"{milliseconds:.0f}"


def _label(solver: str) -> str:
    return LABELS.get(solver, solver)
