# SPDX-License-Identifier: Apache-2.0
"""Sphinx directives that make the reference from what the product itself reads.

``ros-interfaces`` takes the .msg and .srv files of a folder, ``settings`` a dataclass of settings,
``command-line`` the typer application.
"""

from __future__ import annotations

import dataclasses
import importlib
import math
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).parents[2]
PACKAGE = "meanflow_ik_ros"
# type, name, value of a constant or default of a field, comment
FIELD = re.compile(r"(\S+)\s+(\w+)\s*(?:=\s*([^#]*?)|\s([^#]*?))?\s*(?:#\s*(.*))?$")


def table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    """Lines of a Markdown table, with an empty one after it; none without rows."""
    if not rows:
        return []
    cells = [header, ("---",) * len(header), *rows]
    lines = (" | ".join(cell.replace("|", r"\|") for cell in row) for row in cells)
    return [*(f"| {line} |" for line in lines), ""]


def part_of_interface(text: str) -> list[str]:
    """Markdown of the fields and constants of a message, a request or a response."""
    lines: list[str] = []
    fields: list[tuple[str, str, str]] = []
    constants: list[tuple[str, str, str]] = []

    def close() -> None:
        lines.extend(table(("constant", "value", "meaning"), constants))
        lines.extend(table(("field", "type", "meaning"), fields))
        fields.clear()
        constants.clear()

    last = fields
    for line in filter(str.strip, text.splitlines()):
        comment = line.strip().removeprefix("#").strip()
        if line.startswith("#"):
            if fields or constants:
                close()
                lines.append("")
            lines.append(comment)
        elif line.lstrip().startswith("#"):  # goes on with the comment of the line above
            name, kind, meaning = last[-1]
            last[-1] = (name, kind, f"{meaning} {comment}")
        elif found := FIELD.match(line):
            kind, name, value, default, meaning = found.groups(default="")
            if "=" in line.partition("#")[0]:
                last = constants
                last.append((f"`{name}`", value, meaning))
            else:
                last = fields
                kind += f", default {default}" if default else ""
                last.append((f"`{name}`", kind, meaning))
        else:
            raise ValueError(f"not a line of an interface: {line!r}")
        if lines and last and not lines[-1].startswith("|") and lines[-1]:
            lines.append("")
    close()
    return lines


def interface(path: Path) -> list[str]:
    """Markdown of a .msg or .srv file: its first comment, then its parts."""
    parts = path.read_text().split("\n---\n")
    about, _, first = parts[0].partition("\n\n")
    parts[0] = first if about.startswith("#") else parts[0]
    said = " ".join(line.removeprefix("#").strip() for line in about.splitlines())
    name = f"`{PACKAGE}/{path.suffix[1:]}/{path.stem}`"
    lines = [f"### {path.stem}", "", f"{name}. {said}", ""]
    headings = ("**Request**", "**Response**") if len(parts) == 2 else ("",)
    for heading, part in zip(headings, parts, strict=True):
        described = part_of_interface(part)
        if heading:
            lines += [heading if described else f"{heading}: empty", ""]
        lines += [*described, ""]
    return lines


class RosInterfaces(SphinxDirective):
    """All interfaces of a folder below the root of the repository."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        lines: list[str] = []
        for path in sorted((ROOT / self.arguments[0]).iterdir()):
            self.env.note_dependency(str(path))
            lines += interface(path)
        return self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)


def bounds_of(field: dataclasses.Field[Any]) -> str:
    """What a setting may be, in words."""
    limits = field.metadata
    if limits["choices"]:
        return ", ".join(f"`{choice}`" for choice in limits["choices"])
    if limits["low"] is None:
        return ""
    low = f"{'above' if limits['low_open'] else 'from'} {limits['low']:,.10g}"
    return low if math.isinf(limits["high"]) else f"{low} to {limits['high']:,.10g}"


class Settings(SphinxDirective):
    """The fields of a dataclass of settings, given as module.Class."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        module, _, name = self.arguments[0].rpartition(".")
        rows = []
        for field in dataclasses.fields(getattr(importlib.import_module(module), name)):
            default = list(field.default) if isinstance(field.default, tuple) else field.default
            fixed = " Fixed at the start." if field.metadata["read_only"] else ""
            kind = type(field.default).__name__.replace("tuple", "list of str")
            meaning = field.metadata["help"] + fixed
            rows.append((f"`{field.name}`", kind, f"`{default!r}`", bounds_of(field), meaning))
        header = ("name", "type", "default", "values", "meaning")
        return self.parse_text_to_nodes("\n".join(table(header, rows)))


class CommandLine(SphinxDirective):
    """What ``--help`` of each command says."""

    def run(self) -> list[nodes.Node]:
        from typer.main import get_command

        from meanflow_ik_core.commands.app import app

        group: Any = get_command(app)
        lines = []
        for name, command in group.commands.items():
            context = command.make_context(
                f"meanflow-ik {name}", [], resilient_parsing=True, max_content_width=84,
                terminal_width=84,
            )  # fmt: skip
            text = command.get_help(context)
            lines += [f"## `meanflow-ik {name}`", "", "```text", text, "```", ""]
        return self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("ros-interfaces", RosInterfaces)
    app.add_directive("settings", Settings)
    app.add_directive("command-line", CommandLine)
    return {"parallel_read_safe": True}
