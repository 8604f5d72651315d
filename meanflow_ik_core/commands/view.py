# SPDX-License-Identifier: Apache-2.0
"""``meanflow-ik view``: a robot in a browser."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import (
    BaseOption,
    CheckpointOption,
    RobotOption,
    SamplerOption,
    TipOption,
    WorldOption,
)

if TYPE_CHECKING:
    from ..reachability.map import ReachabilityMap


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
    map_file: Annotated[
        Path | None,
        typer.Option(
            "--map", help="A reachability map to show: a .npz file of `meanflow-ik reachability`."
        ),
    ] = None,
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
    reachability = None if map_file is None else _map_of(map_file, robot, base)
    solver = load_solver(loaded, checkpoint, "cpu", sampler)
    solver.warm_up()
    session = Session(solver, frame or (), obstacles)
    page = Page(session, host, used, coarse, reachability)
    used = page.server.get_port()
    if port not in (0, used):
        print(f"port {port} is taken")
    print(f"{loaded.name} is shown at http://{host}:{used}, until Ctrl-C", flush=True)
    try:
        page.run()
    except KeyboardInterrupt:
        page.stop()


def _map_of(path: Path, robot: str, base: str | None) -> ReachabilityMap:
    """The map of a file; OptionError where it is one of another robot."""
    from ..errors import LinkError, OptionError
    from ..reachability.map import ReachabilityMap
    from ..robot.robot import load_robot

    found = ReachabilityMap.load(path)
    asked = found.question
    try:
        same = load_robot(robot, base, [asked["tip"]]).fingerprint() == asked["kinematics"]
    except LinkError:
        same = False
    if not same:
        raise OptionError(
            f"--map {path} is a map of {asked['robot']} from {asked['base']} to {asked['tip']}, "
            f"whose kinematics are not those of {robot}"
        )
    return found
