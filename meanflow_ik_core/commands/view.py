# SPDX-License-Identifier: Apache-2.0
"""``meanflow-ik view``: a robot in a browser."""

import logging
from importlib.util import find_spec
from typing import Annotated

import typer

from .options import (
    BaseOption,
    CheckpointOption,
    RobotOption,
    SamplerOption,
    TipOption,
    WorldOption,
)


def view(
    robot: RobotOption = "panda",
    base: BaseOption = None,
    tip: TipOption = None,
    frame: Annotated[
        list[str] | None,
        typer.Option(
            help="Link that takes a target instead of the tip that it is fixed to. Repeat for "
            "several. Default: a link whose name ends in tcp, where just one is fixed to the tip."
        ),
    ] = None,
    sampler: SamplerOption = "auto",
    checkpoint: CheckpointOption = None,
    world: WorldOption = None,
    coarse: Annotated[
        bool,
        typer.Option(
            "--coarse", help="Draw few triangles, for computers without a graphics processor."
        ),
    ] = False,
    host: Annotated[
        str,
        typer.Option(
            help="Address to listen at. Whoever can reach it can use the page: 0.0.0.0 is everyone."
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(help="Port to listen at. Where it is taken, the next one is used.")
    ] = 8080,
) -> None:
    """Show a robot in a browser: drag its target and see many solutions."""
    from ..errors import OptionError

    if find_spec("viser") is None or find_spec("yourdfpy") is None:
        raise OptionError(
            "the viewer needs viser and yourdfpy, which the extra `view` brings: "
            "pip install '.[view]'"
        )
    from ..robot.robot import load_robot
    from ..solving.solver import load_solver
    from ..view.address import free_port
    from ..view.page import Page
    from ..view.session import Session
    from ..world.world import World

    logging.getLogger("websockets").setLevel(logging.WARNING)
    used = free_port(host, port)
    loaded = load_robot(robot, base, tip)
    obstacles = None if world is None else World.load(world, loaded)
    solver = load_solver(loaded, checkpoint, "cpu", sampler)
    solver.warm_up()
    session = Session(solver, frame or (), obstacles)
    page = Page(session, host, used, coarse)
    used = page.server.get_port()
    if port not in (0, used):
        print(f"port {port} is taken")
    print(f"{loaded.name} is shown at http://{host}:{used}, until Ctrl-C", flush=True)
    try:
        page.run()
    except KeyboardInterrupt:
        page.stop()
