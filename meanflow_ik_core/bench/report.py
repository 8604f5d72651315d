# SPDX-License-Identifier: Apache-2.0
"""Markdown tables of records that `meanflow-ik bench --output` wrote."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigError

_ORDER = (
    "kinematics",
    "solve",
    "limits",
    "unreachable",
    "kernel",
    "tracik",
    "raw",
    "path",
    "clearance",
    "objectives",
    "robots",
    "training",
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
    ("tracik", "times faster, median over poses", "100 different solutions of one pose vs TRAC-IK"),
    ("ros", "median round trip", "service round trip, 64 solutions, two processes"),
    ("ros", "batch of 1000 x 8: median round trip", "the same for 1,000 targets x 8 solutions"),
    ("ros", "path of 100 waypoints: median round trip", "the same for a path of 100 waypoints"),
    ("ros", "goal topic to best_candidate, median", "goal topic to best_candidate"),
    ("raw", "median time", "1,000 raw samples of one pose, one network call"),
    ("raw", "different solutions, median time", "100 different valid solutions of one pose"),
)


def read_records(folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Records by suite and sampler ("" where there is none), in the order of the suites.

    Raises:
        ConfigError: the folder has no records, or a file is not one.
    """
    records = {}
    for path in sorted(folder.glob("*.json")):
        try:
            record = json.loads(path.read_text())
            key = (record["bench"], record["options"].get("sampler", ""))
            records[key] = {measure["what"]: measure for measure in record["measures"]}
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{path} is not a record of `meanflow-ik bench`: {error}") from error
    if not records:
        raise ConfigError(f"{folder} has no records (*.json) of `meanflow-ik bench --output`")
    order = {suite: place for place, suite in enumerate(_ORDER)}
    return dict(
        sorted(records.items(), key=lambda item: (order.get(item[0][0], len(order)), *item[0]))
    )


def full_table(folder: Path, only: str = "") -> str:
    """Every measure of every record, or of those of one suite."""
    rows = ["| suite | measure | value | bar |", "|---|---|---|---|"]
    for (suite, sampler), measures in read_records(folder).items():
        if only not in ("", suite):
            continue
        label = f"{suite}, `{sampler}`" if sampler else suite
        for measure in measures.values():
            rows.append(f"| {label} | {measure['what']} | {_value(measure)} | {_bar(measure)} |")
            label = ""
    return "\n".join(row.replace("  |", " |") for row in rows)


# Tables of the suite `robots`: title, and columns as heading, side, measure.
_ROBOTS = (
    (
        "samples",
        (
            ("network: position error", "meanflow", "raw position error"),
            ("rotation error", "meanflow", "raw rotation error"),
            ("valid after 5 steps", "meanflow", "valid after"),
            ("uniform: position error", "uniform", "raw position error"),
            ("rotation error", "uniform", "raw rotation error"),
            ("valid after 5 steps", "uniform", "valid after"),
            ("ratio: valid after 5 steps", "ratio", "valid after"),
        ),
    ),
    (
        "first solution",
        tuple(
            (f"{name}: {heading}" if place == 0 else heading, side, what)
            for name, side in (("network", "meanflow"), ("uniform", "uniform"))
            for place, (heading, what) in enumerate(
                (
                    ("starts", "starts for the first solution"),
                    ("solved in time", "solved in"),
                    ("median", "first solution, median time"),
                    ("99 %", "first solution, 99 % time"),
                    ("solved in processor time", "within"),
                    ("median processor time", "first solution, median processor time"),
                )
            )
        ),
    ),
    (
        "several solutions",
        (
            *(
                (f"{name}: {heading}" if place == 0 else heading, side, what)
                for name, side in (
                    ("network", "meanflow"),
                    ("uniform", "uniform"),
                    ("plain restarts", "restarts"),
                )
                for place, (heading, what) in enumerate(
                    (
                        ("starts", "starts for {solutions} solutions"),
                        ("median", "{solutions} solutions, median time"),
                        ("mean", "{solutions} solutions, mean time"),
                        ("95 %", "{solutions} solutions, 95 % time"),
                        ("fewer", "fewer than"),
                    )
                )
            ),
            *(
                (f"{name}: {kind}" if kind == "median" else kind, "ratio", f"{what}, {kind}")
                for name, what in (
                    (
                        "times faster than uniform",
                        "faster than uniform starts to {solutions}",
                    ),
                    (
                        "than plain restarts",
                        "faster than plain restarts to {solutions}",
                    ),
                )
                for kind in ("median", "mean", "median of processor time")
            ),
        ),
    ),
)


# Of names that go on with a number.
_BEGINNINGS = ("solved in", "within", "valid after", "fewer than")


def robots_table(folder: Path) -> str:
    """The suite `robots`: all robots at a glance, then a table of each kind of measure."""
    (record,) = _records_of(folder, "robots")[:1] or [{"measures": [], "options": {}}]
    solutions = str(record["options"].get("solutions", ""))
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for measure in record["measures"]:
        robot, _, rest = measure["what"].partition(", ")
        side = rest.partition(": ")[0]
        found.setdefault(robot, {}).setdefault(side, []).append(measure)
    tables = [_robots_overview(found, solutions)]
    for title, columns in _ROBOTS:
        rows = [[title, *(heading for heading, _, _ in columns)]]
        for robot, sides in found.items():
            cells = [
                _robot_cell(sides.get(side, ()), what.format(solutions=solutions))
                for _, side, what in columns
            ]
            rows.append([robot, *cells])
        tables.append(_markdown(rows))
    return "\n\n".join(tables)


def _robots_overview(found: dict[str, dict[str, list[dict[str, Any]]]], solutions: str) -> str:
    """A row per robot, with what its default sampler does."""
    rows = [
        ["robot", "joints", "tips", "checkpoint", "raw error per tip", "solved", "first solution",
         f"{solutions} solutions"]
    ]  # fmt: skip
    for robot, sides in found.items():
        of_robot, own = sides.get("robot", ()), sides.get("meanflow", sides.get("uniform", ()))
        size = _robot_cell(of_robot, "checkpoint")
        limit = next((m["what"] for m in own if ": solved in " in m["what"]), "").partition(" in ")
        error = [_robot_cell(own, f"raw {kind} error") for kind in ("position", "rotation")]
        rows.append(
            [
                robot,
                _robot_cell(of_robot, "joints"),
                _robot_cell(of_robot, "tips"),
                size or "none: uniform starts",
                ", ".join(error) if size else "",
                f"{_robot_cell(own, 'solved in')} in {limit[2]}",
                _robot_cell(own, "first solution, median time"),
                _robot_cell(own, f"{solutions} solutions, median time"),
            ]
        )
    return _markdown(rows)


def _robot_cell(measures: Sequence[dict[str, Any]], what: str) -> str:
    """The measure whose name begins like that, or nothing."""
    for measure in measures:
        name = measure["what"].partition(": ")[2]
        if name == what or (what in _BEGINNINGS and name.startswith(what)):
            text = (
                f"{measure['value']:.3g}" if measure["value"] < 1e3 else f"{measure['value']:.0f}"
            )
            if measure["unit"] == "" and what in ("solved in", "within", "valid after"):
                text = f"{100 * measure['value']:.4g} %"
            if measure["unit"] in ("mm", "deg", "ms", "MB"):
                text = f"{text} {measure['unit']}"
            return text + (" **missed**" if measure["reached"] is False else "")
    return ""


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    head, *body = (f"| {' | '.join(row)} |".replace("  |", " |") for row in rows)
    return "\n".join([head, "|---" * len(rows[0]) + "|", *body])


def objectives_table(folder: Path) -> str:
    """The suite `objectives`, a row per robot and objective."""
    columns = (
        ("without", "without, value of the first row", "{:.3g}"),
        ("ranking", "ranking, value of the first row", "{:.3g}"),
        ("+ null space", "and null space, value of the first row", "{:.3g}"),
        (
            "+ choice of samples",
            "and choice of samples (default), value of the first row",
            "{:.3g}",
        ),
        ("times: ranking", "ranking, time against without", "{:.2g}"),
        ("+ null space", "and null space, time against without", "{:.2g}"),
        ("+ choice", "and choice of samples (default), time against without", "{:.2g}"),
        ("largest error", "largest error by Pinocchio", "{:.1e}"),
        ("samples", "samples, mean value", "{:.3g}"),
        ("best of 4", "samples, best of 4, mean value", "{:.3g}"),
        ("3 gradient steps", "samples, 3 gradient steps, mean value", "{:.3g}"),
        ("their error, mm", "samples, mean position error", "{:.3g}"),
        ("best of 4", "samples, best of 4, mean position error", "{:.3g}"),
        ("3 gradient steps", "samples, 3 gradient steps, mean position error", "{:.3g}"),
    )
    rows = [
        "| robot, sampler | objective | " + " | ".join(title for title, _, _ in columns) + " |",
        "|---" * (len(columns) + 2) + "|",
    ]
    for record in _records_of(folder, "objectives"):
        found = {measure["what"]: measure["value"] for measure in record["measures"]}
        label = f"{record['options']['robot']}, `{record['options']['sampler']}`"
        for name in dict.fromkeys(what.partition(":")[0] for what in found):
            cells = [form.format(found[f"{name}: {what}"]) for _, what, form in columns]
            rows.append(f"| {label} | `{name}` | {' | '.join(cells)} |")
            label = ""
    return "\n".join(row.replace("  |", " |") for row in rows)


def clearance_table(folder: Path) -> str:
    """The suite `clearance`, a row per robot."""
    columns: list[str] = []
    cells: dict[str, list[str]] = {}
    for record in _records_of(folder, "clearance"):
        for measure in record["measures"]:
            robot, _, what = measure["what"].partition(": ")
            title = f"{what}, us" if measure["unit"] else what
            if title not in columns:
                columns.append(title)
            share = "called" in what or what == "touching"
            text = f"{100 * measure['value']:.2g} %" if share else f"{measure['value']:.3g}"
            cells.setdefault(robot, []).append(text)
    rows = [f"| robot | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    return "\n".join(rows + [f"| {robot} | {' | '.join(row)} |" for robot, row in cells.items()])


def _records_of(folder: Path, suite: str) -> list[dict[str, Any]]:
    """All records of a suite, one after another."""
    read_records(folder)
    records = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    return [record for record in records if record["bench"] == suite]


def summary_table(folder: Path) -> str:
    """The measures that a reader wants to know first, random restarts beside the network."""
    records = read_records(folder)
    rows = ["| what | bar | random restarts | network |", "|---|---|---|---|"]
    for suite, what, text in _SUMMARY:
        found = {
            sampler: measures for (name, sampler), measures in records.items() if name == suite
        }
        cells = [found.get(sampler, {}).get(what) for sampler in ("uniform", "meanflow")]
        cells = [found[""][what], None] if "" in found else cells
        if any(cells):
            bar = _bar(next(cell for cell in cells if cell))
            rows.append(f"| {text} | {bar} | {' | '.join(_value(cell) for cell in cells)} |")
    return "\n".join(row.replace("  |", " |") for row in rows)


def _value(measure: dict[str, Any] | None) -> str:
    if measure is None:
        return ""
    text = f"{measure['value']:.4g} {measure['unit']}".strip()
    if measure["unit"] == "" and measure["at_least"] is not None and measure["at_least"] <= 1:
        text = f"{100 * measure['value']:.4g} %"
    return text + (" **missed**" if measure["reached"] is False else "")


def _bar(measure: dict[str, Any]) -> str:
    if measure["at_least"] is not None:
        low = measure["at_least"]
        return f"≥ {100 * low:g} %" if measure["unit"] == "" and low <= 1 else f"≥ {low:g}"
    return "" if measure["at_most"] is None else f"≤ {measure['at_most']:g}"


# Suites that have a table of their own.
TABLES = {"robots": robots_table, "objectives": objectives_table, "clearance": clearance_table}
