# SPDX-License-Identifier: Apache-2.0
"""``meanflow-ik bench``: measurements of the product."""

from pathlib import Path
from typing import Annotated

import typer

from .options import JsonOption, OutputOption, read_settings
from .output_files import check_file, write_json
from .printing import print_json, print_table
from .progress import progress_line


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
    table: Annotated[
        Path | None,
        typer.Option(
            help="Run nothing; print a folder of files of --output as Markdown, or its part of the "
            "suite."
        ),
    ] = None,
    summary: Annotated[
        Path | None,
        typer.Option(help="As --table, but only the most telling numbers of all suites."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the product.

    The exit code is 1 when a number misses its bar, and 0 where a suite has nothing to measure.
    """
    from ..bench import BENCHES
    from ..errors import OptionError

    if name is not None and name not in BENCHES:
        raise OptionError(f"unknown suite {name!r}; suites are {', '.join(BENCHES)}")
    if table is not None or summary is not None:
        from ..bench.report import TABLES, full_table, summary_table

        if table is None:
            print(summary_table(summary or Path()))
        else:
            print(TABLES[name](table) if name in TABLES else full_table(table, name or ""))
        return
    from ..bench.result import NothingToMeasure

    if name is None:
        rows = [[suite.name, suite.measures] for suite in BENCHES.values()]
        print_table("suites", ["suite", "measures"], rows, prose=True)
        return
    check_file("--output", output)
    try:
        with progress_line():
            result = BENCHES[name](**read_settings(option or []))
    except NothingToMeasure as reason:
        print(f"bench {name}: {reason}")
        return
    if output is not None:
        write_json(output, result.as_dict())
    if as_json:
        print_json(result.as_dict())
    else:
        options = ", ".join(f"{key}={value}" for key, value in result.options.items())
        print_table(f"{result.bench}: {options}", result.COLUMNS, result.rows())
    if not result.reached:
        raise typer.Exit(1)
