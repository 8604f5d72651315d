# SPDX-License-Identifier: Apache-2.0
"""Options that several commands share."""

from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import typer
from typer.core import TyperCommand


class PlainCommand(TyperCommand):
    """A command that refuses numbers with underscores, of which Python takes 1_0 for 10."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        texts, _, order = self.make_parser(ctx).parse_args(list(args))
        kinds = get_type_hints(self.callback)
        for param in order:
            kind, text = kinds.get(str(param.name)), texts.get(str(param.name))
            if "_" in str(text) and {int, float} & {kind, *get_args(kind)}:
                ctx.fail(f"{param.opts[0]} is {text!r}; a number has no underscore")
        return super().parse_args(ctx, args)


RobotOption = Annotated[
    str, typer.Option("--robot", help="A robot's name, or the path of its .yaml or .urdf file.")
]
TipOption = Annotated[
    list[str] | None,
    typer.Option(
        "--tip",
        help="Link that poses are given for. Repeat for several. Default: those of the robot's "
        ".yaml file, or the only leaf link of a .urdf file.",
    ),
]
BaseOption = Annotated[
    str | None,
    typer.Option(
        "--base",
        help="Link that poses refer to. Default: that of the robot's .yaml file, or the root link "
        "of a .urdf file.",
    ),
]
SamplerOption = Annotated[
    str,
    typer.Option(
        "--sampler",
        help="What proposes joint positions: meanflow (a trained network), uniform (at random), or "
        "auto: meanflow where the robot has a network, else uniform.",
    ),
]
CheckpointOption = Annotated[
    str | None,
    typer.Option(
        "--checkpoint",
        help="Trained network, by name or path. Default: the one shipped for the robot, if any.",
    ),
]
WorldOption = Annotated[
    Path | None,
    typer.Option(
        "--world",
        help="A YAML file of obstacles, or a .scene file of MoveIt, that solutions must not touch; "
        "see docs/world.md.",
    ),
]
AvoidSelfCollisionOption = Annotated[
    bool,
    typer.Option(
        "--avoid-self-collision",
        help="Only count solutions in which the robot does not touch itself.",
    ),
]
DeviceOption = Annotated[str, typer.Option("--device", help="Where networks compute: cpu or cuda.")]
SeedOption = Annotated[
    int | None, typer.Option("--seed", help="Seed of the random numbers. Default: a new one.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
OutputOption = Annotated[
    Path | None, typer.Option("--output", help="Also write the result to this file, as JSON.")
]
SchedulerOption = Annotated[
    str | None,
    typer.Option(
        "--scheduler",
        metavar="ADDRESS",
        help="Dask scheduler that shares the work, such as tcp://host:8786. Default: this machine.",
    ),
]
ProcessesOption = Annotated[
    int | None,
    typer.Option(
        "--processes", help="Processes of this machine. Default: one for each core that it has."
    ),
]


def read_settings(pairs: list[str]) -> dict[str, Any]:
    """What --set options say, each KEY=VALUE with a value in YAML.

    Raises:
        ConfigError: one has no =, or its value is not YAML.
    """
    from ..errors import ConfigError
    from ..plain_yaml import plain_from_text

    settings = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"--set takes KEY=VALUE, not {pair!r}")
        settings[key.strip()] = plain_from_text(value, f"--set {pair!r}", ConfigError)
    return settings
