# SPDX-License-Identifier: Apache-2.0
"""``meanflow-ik train``: a network for a robot."""

from pathlib import Path
from typing import Annotated

import typer

from .options import BaseOption, DeviceOption, JsonOption, RobotOption, TipOption, read_settings
from .output_files import check_folder
from .printing import print_json, print_pairs, print_settings
from .progress import progress_bar


def train(
    robot: RobotOption = "panda",
    base: BaseOption = None,
    tip: TipOption = None,
    config: Annotated[
        str | None,
        typer.Option(
            help="YAML file of settings, or a recipe of the package: panda, trees, seed. Default: "
            "those of --list-settings."
        ),
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Replaces one setting. Repeat for several."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run. Default: runs/<robot>.")
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Start anew, even where the folder holds a run.")
    ] = False,
    progress: Annotated[bool, typer.Option(help="Show a progress bar.")] = True,
    device: DeviceOption = "cpu",
    list_settings: Annotated[
        bool,
        typer.Option("--list-settings", help="Only print all settings, with defaults and bounds."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Train a network, or go on with a run.

    Works under torchrun as well.
    """
    from ..training.config import TrainConfig, load_train_config, train_config_from_mapping

    if list_settings:
        print_settings(TrainConfig)
        return
    from ..robot.robot import load_robot

    overrides = read_settings(setting or [])
    if config is None:
        settings = train_config_from_mapping(overrides, "--set")
    else:
        settings = load_train_config(config, **overrides)
    loaded = load_robot(robot, base, tip)
    folder = out or Path("runs") / loaded.name
    check_folder("--out", folder)
    from ..training.report import no_progress_bar
    from ..training.trainer import train as run_training

    bar = progress_bar if progress else no_progress_bar
    result = run_training(loaded, settings, folder, not restart, bar, device)
    summary = {
        "finished": result.finished,
        "steps": result.step,
        "samples": result.samples,
        "seconds": result.seconds,
        "checkpoint": str(result.checkpoint),
        **result.metrics,
    }
    if as_json:
        print_json(summary)
    else:
        print_pairs("training", summary)
