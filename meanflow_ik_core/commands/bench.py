# SPDX-License-Identifier: Apache-2.0
"""``meanflow-ik bench``: measurements of the product."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import JsonOption, OutputOption, read_settings
from .output_files import check_file, check_plots, write_json
from .printing import print_json, print_table
from .progress import progress_line

if TYPE_CHECKING:
    from ..bench.result import BenchResult

_LINE = 80


def bench(
    name: Annotated[
        str | None, typer.Argument(help="The suite to run. Without one, suites are listed.")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="An option of the suite. Repeat for several."
        ),
    ] = None,
    output: OutputOption = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="A short run, for suites that have one.")
    ] = False,
    plots: Annotated[
        Path | None,
        typer.Option(help="Also draw the pictures of the suite into this folder: peers."),
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(
            help="Run nothing; print a folder of files of --output as Markdown, or its part of the "
            "suite, for the README (readme), or about samplers (sampler)."
        ),
    ] = None,
    summary: Annotated[
        Path | None,
        typer.Option(help="As --table, but only the most telling numbers of all suites."),
    ] = None,
    write_tables: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Run nothing; put tables of records into a file of Markdown, between its lines "
            "<!-- bench NAME FOLDER --> and <!-- end -->. Repeat for several.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the product.

    The exit code is 1 when a number misses its bar, and 0 where a suite has nothing to measure.
    """
    from ..bench import BENCHES
    from ..bench.result import NothingToMeasure
    from ..errors import OptionError

    if write_tables:
        _write_tables(write_tables)
        return
    check_plots(plots)
    if table is not None or summary is not None:
        _print_records(table, summary, name, plots)
        return
    if name is None:
        rows = [[suite.name, suite.measures] for suite in BENCHES.values()]
        print_table("suites", ["suite", "measures"], rows, prose=True)
        return
    if name not in BENCHES:
        raise OptionError(f"unknown suite {name!r}; suites are {', '.join(BENCHES)}")
    check_file("--output", output)
    draw = _plots_of(name, plots)
    options = {**_quick(name, quick), **read_settings(option or [])}
    try:
        with progress_line():
            result = BENCHES[name](**options)
    except NothingToMeasure as reason:
        print(f"bench {name}: {reason}")
        return
    if output is not None:
        write_json(output, result.as_dict())
    draw(result)
    if as_json:
        print_json(result.as_dict())
    else:
        _print_result(result)
    if not result.reached:
        raise typer.Exit(1)


def _quick(name: str, quick: bool) -> Mapping[str, Any]:
    """Options of a short run of a suite, where one is asked for."""
    from ..bench import BENCHES
    from ..errors import OptionError

    if not quick:
        return {}
    options = BENCHES[name].quick
    if options is None:
        those = ", ".join(suite.name for suite in BENCHES.values() if suite.quick is not None)
        raise OptionError(f"the suite {name!r} has no short run; those of {those} have")
    return options


def _plots_of(name: str, folder: Path | None) -> Callable[[BenchResult], Any]:
    """What draws the pictures of a suite's result into a folder."""
    from ..errors import OptionError

    if folder is None:
        return lambda result: None
    if name != "peers":
        raise OptionError(f"--plots {folder}: pictures are of the suite peers, not of {name!r}")
    from ..bench.peers_plots import plot_peers

    return lambda result: print(
        *(f"drawn: {path}" for path in plot_peers(result, folder)), sep="\n"
    )


def _print_result(result: BenchResult) -> None:
    from ..bench.report import RESULT_TABLES

    if result.bench in RESULT_TABLES:
        for title, columns, rows in RESULT_TABLES[result.bench](result):
            print_table(textwrap.fill(title, _LINE), columns, rows)
            print()
        missed = [row for row in result.rows() if row[-1] == "NO"]
        if missed:
            print_table("bars that are missed", result.COLUMNS, missed)
    else:
        options = ", ".join(f"{key}={value}" for key, value in result.options.items())
        print_table(f"{result.bench}: {options}", result.COLUMNS, result.rows())
    for note in result.notes:
        print(textwrap.fill(note, _LINE))


def _print_records(
    table: Path | None, summary: Path | None, name: str | None, plots: Path | None
) -> None:
    """Print records as Markdown, and draw the pictures of those of a suite."""
    from ..bench import BENCHES
    from ..bench.report import TABLES, table_named
    from ..errors import OptionError

    if name is not None and name not in {*BENCHES, *TABLES}:
        raise OptionError(f"unknown suite {name!r}; suites are {', '.join(BENCHES)}")
    if table is None:
        print(table_named("summary", summary or Path()))
        return
    print(table_named(name or "all", table))
    if plots is not None:
        from ..bench.peers_tables import record_of_peers

        _plots_of(name or "all", plots)(record_of_peers(table))


def _write_tables(files: list[Path]) -> None:
    """Put the tables of the records into files, whose folders of records are here."""
    from ..bench.report import with_tables
    from ..errors import OptionError

    for path in files:
        check_file("--write-tables", path)
        if not path.is_file():
            raise OptionError(f"--write-tables {path}: there is no such file")
        text = path.read_text(encoding="utf-8")
        path.write_text(with_tables(text, Path()), encoding="utf-8")
