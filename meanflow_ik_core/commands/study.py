# SPDX-License-Identifier: Apache-2.0
"""``meanflow-ik study``: several ways to train, side by side."""

from pathlib import Path
from typing import Annotated

import typer

from .options import BaseOption, DeviceOption, JsonOption, OutputOption, RobotOption, TipOption
from .output_files import check_file, check_folder, write_json
from .printing import print_json, print_table
from .progress import progress_bar


def study(
    folder: Annotated[
        Path | None, typer.Argument(help="Folder of settings files, one for each recipe.")
    ] = None,
    robot: RobotOption = "panda",
    base: BaseOption = None,
    tip: TipOption = None,
    out: Annotated[Path, typer.Option(help="Folder that gets a run for each recipe.")] = Path(
        "runs/study"
    ),
    poses: Annotated[int, typer.Option(help="Fresh reachable poses to judge on.")] = 300,
    detail_poses: Annotated[
        int, typer.Option(help="How many of them the costlier parts judge on.")
    ] = 100,
    progress: Annotated[bool, typer.Option(help="Show progress bars.")] = True,
    device: DeviceOption = "cpu",
    output: OutputOption = None,
    as_json: JsonOption = False,
    records_file: Annotated[
        Path | None,
        typer.Option("--table", help="Train nothing; print a file of --output as Markdown."),
    ] = None,
) -> None:
    """Train by several recipes and judge the networks side by side."""
    from ..errors import OptionError
    from ..robot.robot import load_robot
    from ..training.report import no_progress_bar
    from ..training.study import COLUMNS, markdown, read_records, table
    from ..training.study import study as run_study

    if records_file is not None:
        print(markdown(read_records(records_file)))
        return
    if folder is None:
        raise OptionError("study needs a folder of settings files, or --table FILE")
    check_folder("--out", out)
    check_file("--output", output)
    loaded = load_robot(robot, base, tip)
    bar = progress_bar if progress else no_progress_bar
    records = run_study(loaded, folder, out, poses, detail_poses, bar, device)
    if output is not None:
        write_json(output, records)
    if as_json:
        print_json({"recipes": records})
    else:
        print_table(f"recipes for {loaded.name}, {poses} poses", COLUMNS, table(records))
