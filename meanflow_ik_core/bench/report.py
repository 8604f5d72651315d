# SPDX-License-Identifier: Apache-2.0
"""Markdown tables of records that `meanflow-ik bench --output` wrote."""

import json
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
