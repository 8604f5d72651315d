# SPDX-License-Identifier: Apache-2.0
"""The command line: ``meanflow-ik solve | train | study | evaluate | bench | add-robot
| reachability | view``.

Each command is a module, which imports what is heavy inside its function: so ``--help`` answers at
once.
"""

import logging
import sys

import typer

from .add_robot import AddRobotCommand, add_robot
from .bench import bench
from .evaluate import evaluate
from .options import PlainCommand
from .reachability import reachability
from .solve import SolveCommand, solve
from .study import study
from .train import train
from .view import view

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # rich would double the time that --help takes
    pretty_exceptions_enable=False,
    help="Many different, exact inverse kinematics solutions per target pose.",
)
app.command(cls=SolveCommand)(solve)
app.command(cls=AddRobotCommand)(add_robot)
for _command in (train, study, evaluate, bench, reachability, view):
    app.command(cls=PlainCommand)(_command)


def main() -> None:
    """Entry point: bad input ends with one line on stderr and exit code 2."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        app()
    except Exception as error:
        from ..errors import IKError
        from ..tensors import INSTALL_TORCH

        said = str(error)
        if isinstance(error, ModuleNotFoundError) and error.name == "torch":
            said = f"this command needs torch, which the extra `train` brings: {INSTALL_TORCH}"
        elif not isinstance(error, IKError):
            raise
        print(f"meanflow-ik: {said}", file=sys.stderr)
        sys.exit(2)
