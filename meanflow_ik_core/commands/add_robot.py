# SPDX-License-Identifier: Apache-2.0
"""``meanflow-ik add-robot``: the file that makes a URDF a robot."""

from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer

from .options import BaseOption, PlainCommand, TipOption
from .printing import print_table


class AddRobotCommand(PlainCommand):
    """Lets an option be followed by several values: --hold a=1 b=2 means --hold a=1 --hold b=2."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        several, option, spread = ("--tip", "--hold", "--ignore"), "", []
        for arg in args:
            if arg == "--":
                spread += args[args.index(arg) :]
                break
            if arg.startswith("-") and not arg.lstrip("-")[:1].isdigit():
                option = arg if arg in several else ""
                spread += [] if option else [arg]
            else:
                spread += [option, arg] if option else [arg]
        values = [value for name, value in pairwise(spread) if name in several]
        files = [
            v for v in values if Path(v).suffix in (".urdf", ".xml", ".xacro", ".yaml", ".yml")
        ]
        if files:
            ctx.fail(f"{files[0]!r} is taken for a value of an option; write it first, or after --")
        return super().parse_args(ctx, spread)


def add_robot(
    urdf: Annotated[
        str,
        typer.Argument(help="A URDF, its package:// address, or a robot .yaml to make anew."),
    ],
    tip: TipOption = None,
    base: BaseOption = None,
    hold: Annotated[
        list[str] | None,
        typer.Option(
            metavar="JOINT=VALUE",
            help="Joints that stay at a value [rad or m] instead of being solved for.",
        ),
    ] = None,
    srdf: Annotated[
        Path | None,
        typer.Option(
            help="MoveIt SRDF. Pairs that it disables need no check; those with the reason Never "
            "are looked at anew."
        ),
    ] = None,
    ignore: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LINK:LINK",
            help="Pairs of links that need no check, such as those that touch in most "
            "configurations.",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="The file to write. Default: <name of the URDF>.yaml.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
    samples: Annotated[
        int,
        typer.Option(
            help="Random configurations; pairs that stay apart in all of them need no check."
        ),
    ] = 10_000,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the configurations.")] = 0,
) -> None:
    """Write the .yaml that makes a URDF a robot.

    It names base and tips, and the pairs of links that need no check for self-collision.
    """
    from ..errors import OptionError
    from ..plain_numbers import plain_float
    from ..robot.sources import robot_name
    from .robot_file_draft import draft_robot_file, write_robot_file

    path = output or Path(f"{robot_name(urdf)}.yaml")
    if path.exists() and not force:
        raise OptionError(f"{path} exists; --force replaces it")
    held = {}
    for pair in hold or []:
        joint, _, value = pair.partition("=")
        try:
            held[joint] = plain_float(value)
        except ValueError:
            raise OptionError(f"--hold takes JOINT=VALUE, not {pair!r}") from None
    pairs = []
    for pair in ignore or []:
        first, colon, second = pair.partition(":")
        if not colon:
            raise OptionError(f"--ignore takes LINK:LINK, not {pair!r}")
        pairs.append((first, second))
    draft = draft_robot_file(urdf, path, base, tip, held, srdf, samples, seed, pairs)
    write_robot_file(draft, path, force)
    print_table(path.name, ["", ""], draft.rows(), prose=True)
    print(f"joints: {', '.join(draft.robot.joint_names)}")
