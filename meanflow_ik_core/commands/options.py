# SPDX-License-Identifier: Apache-2.0
"""Options that several commands share."""

from pathlib import Path
from typing import Annotated, Any

import typer

RobotOption = Annotated[
    str, typer.Option("--robot", help="Name of a robot, or path of a robot .yaml or .urdf file.")
]
TipOption = Annotated[
    list[str] | None, typer.Option("--tip", help="Tip link of a .urdf file; repeat for several.")
]
BaseOption = Annotated[
    str | None, typer.Option("--base", help="Base link of a .urdf file; default: its root link.")
]
SamplerOption = Annotated[
    str, typer.Option("--sampler", help="meanflow (learned) or uniform (random restarts).")
]
CheckpointOption = Annotated[
    str | None, typer.Option("--checkpoint", help="Name or path; default: the shipped one.")
]
DeviceOption = Annotated[str, typer.Option("--device", help="cpu or cuda.")]
SeedOption = Annotated[int | None, typer.Option("--seed", help="Seed of the random numbers.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
OutputOption = Annotated[
    Path | None, typer.Option("--output", help="Also write the JSON to this file.")
]


def read_settings(pairs: list[str]) -> dict[str, Any]:
    import yaml

    from ..errors import ConfigError

    settings = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"--set takes KEY=VALUE, not {pair!r}")
        try:
            settings[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            said = " ".join(str(error).split())
            raise ConfigError(f"--set {pair!r} is not YAML: {said}") from error
    return settings
