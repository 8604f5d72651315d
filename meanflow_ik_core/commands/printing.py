# SPDX-License-Identifier: Apache-2.0
"""How the command line prints: JSON for scripts, tables for people."""

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any


def print_json(content: dict[str, Any]) -> None:
    """One JSON object; arrays become lists, what is not finite becomes null."""
    print(json.dumps(plain(content), allow_nan=False))


_JOINT_COLUMNS = 8  # more joints than this share one column


def plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not abs(value) < float("inf"):
        return None
    return value


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    width = None if sys.stdout.isatty() else 200
    # Without markup, for "[m]" is a unit.
    Console(width=width, markup=False).print(table)


def print_pairs(title: str, content: dict[str, Any]) -> None:
    rows = [
        [key, f"{value:.6g}" if isinstance(value, float) else str(value)]
        for key, value in content.items()
    ]
    print_table(title, ["", "value"], rows)


def print_settings(config: Any) -> None:
    import dataclasses

    rows = []
    for field in dataclasses.fields(config):
        about = field.metadata
        allowed = " | ".join(about["choices"])
        if about["low"] is not None:
            allowed = f"{about['low']} .. {about['high']}"
        rows.append([field.name, str(field.default), allowed, about["help"]])
    print_table("settings of training", ["setting", "default", "allowed", "meaning"], rows)


def print_solutions(joint_names: tuple[str, ...], result: Any) -> None:
    apart = len(joint_names) <= _JOINT_COLUMNS
    for problem in range(len(result.valid)):
        rows = []
        for row in range(result.valid.shape[1]):
            if not result.origin[problem, row]:
                continue
            joints = [f"{value:.4f}" for value in result.joint_positions[problem, row]]
            rows.append(
                [
                    str(row + 1),
                    "yes" if result.valid[problem, row] else "no",
                    *(joints if apart else [" ".join(joints)]),
                    f"{result.position_error[problem, row].max():.1e}",
                    f"{result.orientation_error[problem, row].max():.1e}",
                    f"{result.distance[problem, row]:.3f}",
                    result.origin[problem, row],
                ]
            )
        names = joint_names if apart else ["joints"]
        columns = ["rank", "valid", *names, "error [m]", "error [rad]", "distance", "origin"]
        print_table(
            f"pose {problem + 1}: {int(result.valid[problem].sum())} solutions", columns, rows
        )
    if not apart:
        print(f"joints: {', '.join(joint_names)}")
    spent = ", ".join(f"{name} {1e3 * value:.2f} ms" for name, value in result.timing.items())
    starts = ", ".join(f"{count} {name}" for name, count in result.starts.items())
    print(f"time: {spent}; starts: {starts}")
