# SPDX-License-Identifier: Apache-2.0
"""``meanflow-ik reachability``: what a tip reaches, voxel by voxel."""

import math
from pathlib import Path
from typing import Annotated

import typer

from .options import (
    AvoidSelfCollisionOption,
    BaseOption,
    JsonOption,
    ProcessesOption,
    RobotOption,
    SchedulerOption,
    WorldOption,
)
from .printing import print_json


def reachability(
    robot: RobotOption = "panda",
    base: BaseOption = None,
    tip: Annotated[
        str | None, typer.Option(help="Tip that the map is of, where the robot has several.")
    ] = None,
    frame: Annotated[
        str | None, typer.Option(help="Link fixed to the tip that is to reach the poses.")
    ] = None,
    voxel: Annotated[float, typer.Option(help="Edge of the voxels [m].")] = 0.05,
    orientations: Annotated[
        int, typer.Option(help="Orientations at each voxel, spread over all rotations.")
    ] = 32,
    box: Annotated[
        str | None,
        typer.Option(
            metavar='"X Y Z X Y Z"',
            help="Lowest and highest corner in the base [m] of the part to map. Default: all that "
            "the links are long enough for.",
        ),
    ] = None,
    free_axes: Annotated[
        str | None,
        typer.Option(metavar="AXES", help='Axes of the poses that may take any value: "rz".'),
    ] = None,
    starts: Annotated[int, typer.Option(help="Random starts for each pose.")] = 64,
    seed: Annotated[int, typer.Option(help="Seed of starts and orientations.")] = 0,
    world: WorldOption = None,
    avoid_self_collision: AvoidSelfCollisionOption = False,
    output: Annotated[
        Path,
        typer.Option(
            help="The map, a .npz file. Where it has a part of this map, only the rest is computed."
        ),
    ] = Path("reachability.npz"),
    picture: Annotated[Path | None, typer.Option(help="Also draw the map, as .png.")] = None,
    scheduler: SchedulerOption = None,
    processes: ProcessesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Map what a tip reaches.

    For every voxel: how many of the orientations are reached, on how many branches of solutions,
    and how far from joint limits and singularities. Ctrl-C stops; the same command goes on.
    """
    import numpy as np

    from ..errors import OptionError
    from ..pictures import check_picture
    from ..plain_numbers import plain_float
    from ..reachability.measure import reachability_map
    from ..reachability.picture import draw_map
    from ..robot.robot import load_robot
    from ..world.world import World
    from .output_files import check_file, going_on

    check_file("--output", output)
    check_file("--picture", picture)
    if picture is not None:
        check_picture(picture)
    corners = None
    if box is not None:
        try:
            corners = np.array([plain_float(word) for word in box.split()]).reshape(2, 3)
        except ValueError as error:
            raise OptionError(
                f"--box is {box!r}; it must be six numbers, two corners x y z [m]"
            ) from error
    if picture is not None and picture.resolve() == output.resolve():
        raise OptionError(f"--picture is {picture}, which is the file of --output")
    loaded = load_robot(robot, base, None if tip is None else [tip])
    obstacles = None if world is None else World.load(world, loaded)
    with going_on(output):
        found = reachability_map(
            loaded, voxel, orientations, frame=frame, box=corners, free_axes=free_axes,
            starts=starts, seed=seed, world=obstacles, avoid_self_collision=avoid_self_collision,
            output=output, scheduler=scheduler, processes=processes,
        )  # fmt: skip
    if picture is not None:
        draw_map(found, picture)
    reached = found.reached > 0
    means = {
        name: float(np.nanmean(found.of_voxels(name))) if reached.any() else math.nan
        for name in ("reached", "branches", "limit_margin", "singularity_margin")
    }
    if as_json:
        summary = {
            "voxels": len(reached),
            "voxels_reached": int(reached.sum()),
            "volume_reached": float(reached.sum() * voxel**3),
            "mean_of_voxels_reached": means,
        }
        print_json({**found.question, **summary, "output": str(output)})
        return
    print(
        f"{loaded.tips[0] if frame is None else frame} reaches {reached.sum()} of {len(reached)} "
        f"voxels, {reached.sum() * voxel**3:.3g} m^3"
    )
    if reached.any():
        print(
            f"there, on average: {100 * means['reached']:.0f} % of the orientations; for each of "
            f"these {means['branches']:.1f} branches, {means['limit_margin']:.2f} from limits, "
            f"{means['singularity_margin']:.2f} from singularities"
        )
    print(f"map: {output}" + ("" if picture is None else f"; picture: {picture}"))
