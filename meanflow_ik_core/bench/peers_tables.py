# SPDX-License-Identifier: Apache-2.0
"""Tables of the suite `peers`: for the terminal, for the documentation, for the README."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..errors import ConfigError
from .peer_solvers.known import PEERS
from .peer_solvers.ours import OURS
from .peer_solvers.peer import COARSE, EXACT
from .records import records_of
from .result import BenchResult
from .tables import markdown
from .tasks import NEAR, NEAREST

# What names of measures are made of.
RANDOM, TWO_ARMS, DIFFERENT = "random", "two arms", "{} different"
COUNTS = (3, 10, 30, 100)  # of different solutions; the most are compared with the exact answer
MOST = COUNTS[-1]
DIVERSE = f"{MOST} diverse"
AGAINST_EXACT = "against the exact answer"
DRAWN = "drawn from it"  # as good as so many solutions can be
BUDGETS_MS = (
    0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 7, 10, 15, 20, 30, 50,
)  # fmt: skip
_TOLERANCES = (EXACT, COARSE)
_HARD = ("near limits", "singular", "edge of reach", "beyond reach", "impossible turn")
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
        return "" if value is None else f"{100 * value:.4g}"

    def both(self, task: str, solver: str) -> str:
        """Share solved, and the median of the time."""
        median = self.milliseconds(task, solver, "median")
        return f"{self.share(task, solver)} / {median}" if median else ""


def peers_tables(record: BenchResult) -> list[Table]:
    """All that the record says, in tables that fit into 80 columns."""
    numbers, options = Numbers(record), record.options
    halves = ("solved %", "wrong %", "ms", "95 %")
    twice = ("solver", *halves, *(f"coarse: {halves[0]}", *halves[1:]))
    return [
        Table(
            f"One solution of {options['poses']} random poses of the Panda, to 1e-5 m and rad, and "
            "to 1 mm and 0.1 deg (coarse).",
            twice,
            _to_tolerances(numbers, RANDOM),
        ),
        Table(
            f"{options['hard_poses']} hard poses of each kind, to 1e-5: solved in % / median in "
            "ms. The last two have no solution: solved are those for which none is claimed.",
            ("solver", *_HARD[:-1], "turned"),
            [
                [_label(solver), *(numbers.both(f"{poses}, {EXACT}", solver) for poses in _HARD)]
                for solver in numbers.asked(f"{_HARD[1]}, {EXACT}")
            ],
        ),
        Table(
            "From joints near to a solution, and the nearest solution to random joints.",
            ("solver", "solved %", "ms", "95 %", "nearest: solved %", "ms", "95 %"),
            _seeded(numbers),
        ),
        Table(
            f"Different solutions of {options['many_poses']} poses: medians in ms. Covered is the "
            "share of all solutions within 0.2 rad of the 100; MMD² is to the exact posterior.",
            ("solver", "10", "100", "95 %", "solved %", "covered %", "MMD²"),
            _many(numbers),
        ),
        Table(
            f"One solution of {options['arms_poses']} random poses of two Pandas.",
            twice,
            _to_tolerances(numbers, TWO_ARMS),
        ),
    ]


def _to_tolerances(numbers: Numbers, poses: str) -> list[list[str]]:
    """Shares solved and wrong, and the times, to each tolerance."""
    return [
        [
            _label(solver),
            *(
                cell
                for tolerance in _TOLERANCES
                for task in [f"{poses}, {tolerance}"]
                for cell in (
                    numbers.share(task, solver, "solved"),
                    numbers.share(task, solver, "wrong"),
                    numbers.milliseconds(task, solver, "median"),
                    numbers.milliseconds(task, solver, "95 %"),
                )
            ),
        ]
        for solver in numbers.asked(f"{poses}, {EXACT}")
    ]


def _seeded(numbers: Numbers) -> list[list[str]]:
    return [
        [
            _label(solver),
            *(
                cell
                for task in (NEAR, NEAREST)
                for cell in (
                    numbers.share(task, solver),
                    numbers.milliseconds(task, solver, "median"),
                    numbers.milliseconds(task, solver, "95 %"),
                )
            ),
        ]
        for solver in numbers.asked(NEAR)
    ]


def _many(numbers: Numbers) -> list[list[str]]:
    most = DIFFERENT.format(MOST)
    rows = [
        [
            _label(solver),
            numbers.milliseconds(DIFFERENT.format(10), solver, "median"),
            *(numbers.milliseconds(most, solver, what) for what in ("median", "95 %")),
            numbers.share(most, solver),
            *_against_exact(numbers, solver),
        ]
        for solver in numbers.asked(most)
    ]
    rows += [
        [
            f"{_label(solver)}, diverse",
            "",
            *(numbers.milliseconds(DIVERSE, solver, what) for what in ("median", "95 %")),
            numbers.share(DIVERSE, solver),
            *_against_exact(numbers, f"{solver}, diverse"),
        ]
        for solver in numbers.asked(DIVERSE)
    ]
    return [*rows, [f"{MOST} {DRAWN}", "", "", "", "", *_against_exact(numbers, DRAWN)]]


def peers_markdown(folder: Path) -> str:
    """The tables of the suite `peers`."""
    record = record_of_peers(folder)
    parts = [
        f"{table.title}\n\n{markdown([table.head, *table.rows])}" for table in peers_tables(record)
    ]
    return "\n\n".join([*parts, *record.notes])


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
    numbers, exact, arms = Numbers(record), f"{RANDOM}, {EXACT}", f"{TWO_ARMS}, {EXACT}"
    head = [
        "solver", "solved to 1e-5", "one solution, median / 95 %", "100 different", "covered",
        "two arms",
    ]  # fmt: skip
    body = []
    for solver in _SHORT:
        if solver not in numbers.asked(exact):
            continue
        times = " / ".join(numbers.milliseconds(exact, solver, what) for what in ("median", "95 %"))
        time, share = numbers.milliseconds(arms, solver, "median"), numbers.share(arms, solver)
        body.append(
            [
                f"**{_label(solver)}**" if solver in LABELS else solver,
                f"{numbers.share(exact, solver)} %",
                f"{times} ms",
                *_hundred(numbers, solver),
                f"{time} ms" + ("" if share == "100" else f", {share} %") if time else "",
            ]
        )
    return markdown([head, *body])


def _hundred(numbers: Numbers, solver: str) -> tuple[str, str]:
    """The time of 100 different solutions, and what they cover; of ours also of spread ones."""
    most = DIFFERENT.format(MOST)
    if numbers.values[most, solver, "solved"] < 0.5:
        return "no", ""
    time = f"{numbers.milliseconds(most, solver, 'median')} ms"
    covered = f"{_against_exact(numbers, solver)[0]} %"
    if solver in numbers.asked(DIVERSE):
        time += f"; spread {numbers.milliseconds(DIVERSE, solver, 'median')} ms"
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


def _against_exact(numbers: Numbers, solver: str) -> tuple[str, str]:
    """Coverage in percent, and MMD^2; empty where it is not known."""
    covered = numbers.values.get((AGAINST_EXACT, solver, "coverage"))
    mmd = numbers.values.get((AGAINST_EXACT, solver, "mmd_squared"))
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
