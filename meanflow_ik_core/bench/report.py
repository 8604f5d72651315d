# SPDX-License-Identifier: Apache-2.0
"""Records of all suites as Markdown: every measure, or the most telling ones."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from ..errors import ConfigError
from .peers_tables import Table, peers_markdown, peers_tables, readme_table, solvers_table
from .records import read_records
from .result import BenchResult, Measure
from .robots_tables import robots_table
from .tables import (
    clearance_table,
    latency_table,
    markdown,
    missed,
    objectives_table,
    sampler_table,
)

# Suites that have tables of their own; the choice of a sampler; what the README shows.
TABLES: dict[str, Callable[[Path], str]] = {
    "robots": robots_table,
    "objectives": objectives_table,
    "clearance": clearance_table,
    "latency": latency_table,
    "sampler": sampler_table,
    "peers": peers_markdown,
    "solvers": solvers_table,
    "readme": readme_table,
}
# Suites whose results are read in several tables, on a terminal too.
RESULT_TABLES: dict[str, Callable[[BenchResult], list[Table]]] = {"peers": peers_tables}
_MARKED = re.compile(r"(<!-- bench (\S+) (\S+) -->\n)(?:.*?\n)??(<!-- end -->)", re.DOTALL)

# What comes first in a table; other suites follow.
_ORDER = (
    "kinematics",
    "solve",
    "limits",
    "unreachable",
    "kernel",
    "cold",
    "raw",
    "path",
    "track",
    "clearance",
    "objectives",
    "robots",
    "training",
    "gpu",
    "ros",
)
# What a reader wants to know first: suite, measure, how it reads.
_SUMMARY = (
    ("kinematics", "largest difference of poses", "FK against Pinocchio, largest difference"),
    ("kinematics", "largest difference of Jacobians", "Jacobian, the same"),
    ("solve", "share of poses solved", "2,000 random reachable poses: solved to 1e-5 m and rad"),
    ("solve", "median time per pose", "the same: median time, up to 32 solutions per pose"),
    ("limits", "share of poses solved", "200 poses whose every solution is near a limit: solved"),
    ("unreachable", "beyond the reach: false claims", "beyond the reach: false claims"),
    ("unreachable", "beyond the reach: median time", "the same: median time"),
    ("unreachable", "impossible orientation: false claims", "impossible orientation: false claims"),
    ("unreachable", "impossible orientation: median time", "the same: median time"),
    ("kernel", "times faster than eager torch", "LM step against eager torch, one thread"),
    ("latency", "panda, one solution: {sampler}, median", "one solution of a pose"),
    ("latency", "panda, seeded near it: {sampler}, median", "the same from a seed near to it"),
    (
        "latency",
        "panda, nearest to a random seed: {sampler}, solved",
        "the same from a random seed: within 2 % of the nearest that exists",
    ),
    ("latency", "panda, nearest to a random seed: {sampler}, median", "the same: median time"),
    ("latency", "panda, 100 different: {sampler}, median", "100 different solutions of a pose"),
    ("peers", "100 different: times faster than TRAC-IK", "the same against TRAC-IK"),
    (
        "latency",
        "panda, 100 diverse of 1,000 starts: {sampler}, median",
        "100 diverse solutions of 1,000 starts",
    ),
    (
        "latency",
        "panda, 1,000 poses, one each: {sampler}, median",
        "1,000 poses in one call, one solution each",
    ),
    ("ros", "median round trip", "service round trip, 64 solutions, two processes"),
    ("ros", "batch of 1000 x 8: median round trip", "the same for 1,000 targets x 8 solutions"),
    ("ros", "path of 100 waypoints: median round trip", "the same for a path of 100 waypoints"),
    ("ros", "goal topic to best_candidate, median", "goal topic to best_candidate"),
    ("raw", "median time", "1,000 raw samples of one pose, one network call"),
)


def table_named(name: str, folder: Path) -> str:
    """The tables of a suite, of the README, or "all" and "summary" of all suites, from records.

    Raises:
        ConfigError: see `read_records`, or the suite has no record.
    """
    if name in TABLES:
        return TABLES[name](folder)
    if name == "summary":
        return summary_table(folder)
    return full_table(folder, "" if name == "all" else name)


def with_tables(text: str, root: Path) -> str:
    """A text of Markdown whose marked tables are those of the records.

    They stand between the lines ``<!-- bench NAME FOLDER -->`` and ``<!-- end -->``.

    Args:
        text: whose other lines stay.
        root: what the folders of the records are relative to.

    Raises:
        ConfigError: see `table_named`.
    """

    def filled(found: re.Match[str]) -> str:
        begin, name, folder, end = found.groups()
        return f"{begin}{table_named(name, root / folder)}\n{end}"

    return _MARKED.sub(filled, text)


def full_table(folder: Path, only: str = "") -> str:
    """Every measure of every record of suites without a table of their own, or of one suite.

    Raises:
        ConfigError: see `read_records`, or the suite has no record.
    """
    rows = [["suite", "measure", "value", "bar"]]
    for record in _in_order(read_records(folder)):
        if record.bench in TABLES if not only else record.bench != only:
            continue
        sampler = record.options.get("sampler", "")
        label = f"{record.bench}, `{sampler}`" if sampler else record.bench
        for measure in record.measures:
            rows.append([label, measure.what, _value(measure), _bar(measure)])
            label = ""
    if only and len(rows) == 1:
        raise ConfigError(f"{folder} has no record of the suite {only!r}")
    return markdown(rows)


def summary_table(folder: Path) -> str:
    """The measures that a reader wants to know first, random restarts beside the network.

    Raises:
        ConfigError: see `read_records`.
    """
    found: dict[tuple[str, str], dict[str, Measure]] = {}
    for record in read_records(folder):
        measures = {measure.what: measure for measure in record.measures}
        found[record.bench, record.options.get("sampler", "")] = measures
    rows = [["what", "bar", "random restarts", "network"]]
    for suite, what, text in _SUMMARY:
        cells = [found.get((suite, sampler), {}).get(what) for sampler in ("uniform", "meanflow")]
        if (suite, "") in found:
            names = dict.fromkeys(what.format(sampler=one) for one in ("uniform", "meanflow"))
            cells = [*(found[suite, ""].get(name) for name in names), None][:2]
        if any(cells):
            bar = _bar(next(cell for cell in cells if cell))
            rows.append([text, bar, *("" if cell is None else _value(cell) for cell in cells)])
    return markdown(rows)


def _in_order(records: list[BenchResult]) -> list[BenchResult]:
    def place(record: BenchResult) -> tuple[int, str, str]:
        known = _ORDER.index(record.bench) if record.bench in _ORDER else len(_ORDER)
        return known, record.bench, record.options.get("sampler", "")

    return sorted(records, key=place)


def _value(measure: Measure) -> str:
    text = f"{measure.value:.4g} {measure.unit}".strip()
    if _is_share(measure):
        text = f"{100 * measure.value:.4g} %"
    return text + missed(measure)


def _bar(measure: Measure) -> str:
    if measure.at_least is not None:
        low = measure.at_least
        return f"≥ {100 * low:g} %" if _is_share(measure) else f"≥ {low:g}"
    return "" if measure.at_most is None else f"≤ {measure.at_most:g}"


def _is_share(measure: Measure) -> bool:
    return measure.unit == "" and measure.at_least is not None and measure.at_least <= 1
