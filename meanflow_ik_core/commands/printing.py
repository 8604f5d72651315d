# SPDX-License-Identifier: Apache-2.0
"""How the command line prints: JSON for scripts, tables for people."""

import json
import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

_WIDE = 200  # columns where nobody says how many there are


def print_json(content: dict[str, Any]) -> None:
    """One JSON object; arrays become lists, what is not finite becomes null."""
    print(json.dumps(plain(content), allow_nan=False))


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


def output_console() -> Any:
    """What tables are printed to: as wide as the terminal, or as COLUMNS says; wide elsewhere."""
    from rich.console import Console

    known = sys.stdout.isatty() or "COLUMNS" in os.environ
    # Without markup, for "[m]" is a unit.
    return Console(width=None if known else _WIDE, markup=False, highlight=False)


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    prose: bool = False,
    to: Any = None,
) -> None:
    """Print a table that fits: where rows are too long it is turned, or cut into blocks.

    Args:
        title: a line before the table.
        columns: headings.
        rows: cells.
        prose: whether the last column is a text, which is wrapped instead.
        to: the console; None: `output_console`.
    """
    to = to or output_console()
    to.print(title, soft_wrap=True)
    lines = [tuple(columns), *map(tuple, rows)]
    blocks = [lines] if prose else _blocks(lines, to.width)
    if len(blocks) > 1:
        turned = _blocks(list(zip(*lines, strict=True)), to.width)
        blocks = turned if len(turned) < len(blocks) else blocks
    for head, *body in blocks:
        _print_block(to, head, body, prose)


def _blocks(lines: Sequence[Sequence[str]], width: int) -> list[list[Sequence[str]]]:
    """Lines of cells cut into parts that fit, each with the first cell of the lines."""
    blocks, first, count = [], 1, len(lines[0])
    while first < count or not blocks:
        last = first + 1
        while last < count and _width(_part(lines, first, last + 1)) <= width:
            last += 1
        blocks.append(_part(lines, first, last))
        first = last
    return blocks


def _part(lines: Sequence[Sequence[str]], first: int, last: int) -> list[Sequence[str]]:
    return [(line[0], *line[first:last]) for line in lines]


def _width(lines: Iterable[Sequence[str]]) -> int:
    """Of a table of such lines of cells."""
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    return sum(widths) + len(widths) - 1


def _print_block(
    to: Any, columns: Sequence[str], rows: Iterable[Sequence[str]], prose: bool
) -> None:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    for index, column in enumerate(columns):
        is_text = prose and index == len(columns) - 1
        left = index == 0 or is_text
        table.add_column(
            column, justify="left" if left else "right", no_wrap=not is_text, overflow="fold"
        )
    for row in rows:
        table.add_row(*row)
    to.print(table)


def print_pairs(title: str, content: dict[str, Any]) -> None:
    rows = [
        [key, f"{value:.6g}" if isinstance(value, float) else str(value)]
        for key, value in content.items()
    ]
    print_table(title, ["", "value"], rows, prose=True)


def print_settings(config: Any) -> None:
    import dataclasses

    rows = []
    for field in dataclasses.fields(config):
        about = field.metadata
        allowed = " | ".join(about["choices"])
        if about["low"] is not None:
            allowed = f"{about['low']} .. {about['high']}"
        meaning = f"{about['help']} ({allowed})" if allowed else about["help"]
        rows.append([field.name, str(field.default), meaning])
    columns = ["setting", "default", "meaning (allowed)"]
    print_table("settings of training", columns, rows, prose=True)


class SolutionRow(NamedTuple):
    """What a table shows of a solution."""

    valid: bool
    joints: Sequence[float]  # rad or m
    position_error: float  # m, the largest of the tips
    orientation_error: float  # rad
    distance: float  # rad
    cost: float
    objective_values: Sequence[float]  # empty: no objectives
    clearance: float  # m; NaN: not asked for
    world_clearance: float = math.nan  # m; NaN: not asked for
    touches: str = ""  # what touches what; empty: nothing, or not asked for


def print_solutions(
    title: str,
    joints: Mapping[str, str],
    objectives: Sequence[str],
    solutions: Sequence[SolutionRow],
    to: Any = None,
) -> None:
    """Print those of ranked solutions that are valid, or the nearest miss where none is.

    Args:
        title: a line before the table.
        joints: names and units.
        objectives: names; as many as the rows have values.
        solutions: best first.
        to: see `print_table`.
    """
    solutions = [row for row in solutions if row.valid] or solutions[:1]
    pairs = zip(short_names(list(joints)), joints.values(), strict=True)
    names = [f"{name} [{unit}]" for name, unit in pairs]
    columns = ["rank", "valid", *names, "error [m]", "error [rad]", "distance [rad]"]
    with_clearance = any(not math.isnan(row.clearance) for row in solutions)
    columns += ["clearance [m]"] * with_clearance
    with_world = any(not math.isnan(row.world_clearance) for row in solutions)
    columns += ["to world [m]"] * with_world
    columns += ["cost", *objectives] if objectives else []
    with_touches = any(row.touches for row in solutions)
    columns += ["touches"] * with_touches
    rows = []
    for rank, row in enumerate(solutions, start=1):
        cells = [str(rank), "yes" if row.valid else "no", *(f"{q:.4f}" for q in row.joints)]
        cells += [f"{row.position_error:.1e}", f"{row.orientation_error:.1e}"]
        cells += [f"{row.distance:.3f}"] + [f"{row.clearance:.4f}"] * with_clearance
        cells += [f"{row.world_clearance:.4f}"] * with_world
        if objectives:
            cells += [f"{value:.4g}" for value in (row.cost, *row.objective_values)]
        cells += [row.touches] * with_touches
        rows.append(cells)
    print_table(title, columns, rows, to=to)


def short_names(names: list[str]) -> list[str]:
    """Names without the words, between underscores, that all of them begin with or have in the
    same place; the last word of each stays."""
    words = [name.split("_") for name in names]
    least = min(map(len, words), default=0)
    same = len(set(map(len, words))) == 1
    dropped: set[int] = set()
    for place in range(least - 1):
        shared = len({parts[place] for parts in words}) == 1
        if shared and (same or len(dropped) == place):
            dropped.add(place)
    return ["_".join(p for i, p in enumerate(parts) if i not in dropped) for parts in words]
