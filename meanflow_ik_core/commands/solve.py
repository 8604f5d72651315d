# SPDX-License-Identifier: Apache-2.0
"""``meanflow-ik solve``: solutions for poses."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from .options import (
    BaseOption,
    CheckpointOption,
    DeviceOption,
    JsonOption,
    RobotOption,
    SamplerOption,
    SeedOption,
)
from .printing import print_json, print_solutions


class SolveCommand(TyperCommand):
    """Lets options of several numbers be repeated: --xyz 1 2 3 means --xyz "1 2 3"."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        joined, rest = [], list(args)
        while rest:
            joined.append(rest.pop(0))
            numbers = []
            width = {"--xyz": 3, "--rpy": 3, "--quat": 4}.get(joined[-1], 0)
            while rest and len(numbers) < width and not rest[0].startswith("--"):
                numbers.append(rest.pop(0))
            joined += [" ".join(numbers)] if width else []
        return super().parse_args(ctx, joined)


def solve(
    xyz: Annotated[
        list[str] | None,
        typer.Option(metavar="X Y Z", help="Position in the base [m]; repeat for several tips."),
    ] = None,
    rpy: Annotated[
        list[str] | None,
        typer.Option(metavar="R P Y", help="Its orientation, roll pitch yaw [rad]."),
    ] = None,
    quat: Annotated[
        list[str] | None,
        typer.Option(metavar="X Y Z W", help="Its orientation, quaternion."),
    ] = None,
    poses: Annotated[
        Path | None, typer.Option(help="Instead: a .npy file of poses (B, 4, 4) or (B, T, 4, 4).")
    ] = None,
    frame: Annotated[
        list[str] | None,
        typer.Option(help="Link, fixed to a tip, that shall be there; one for each pose."),
    ] = None,
    free_axes: Annotated[
        list[str] | None,
        typer.Option(
            metavar="AXES",
            help='Of "x y z rx ry rz" of the pose what may be anything, "": nothing; one for each '
            "pose.",
        ),
    ] = None,
    robot: RobotOption = "panda",
    base: BaseOption = None,
    tip: Annotated[
        list[str] | None,
        typer.Option(
            help="Tip of the robot that a pose is for, the others may be anywhere, default: all; "
            "of a .urdf file the links that are its tips. Repeat for several."
        ),
    ] = None,
    sampler: SamplerOption = "meanflow",
    checkpoint: CheckpointOption = None,
    device: DeviceOption = "cpu",
    num_samples: Annotated[int, typer.Option(help="Starts per pose.")] = 128,
    max_solutions: Annotated[int, typer.Option(help="Solutions per pose at most.")] = 8,
    select: Annotated[str, typer.Option(help="best (ranked) or diverse (spread out).")] = "best",
    seed_state: Annotated[
        str | None, typer.Option(help="Current joints, comma separated [rad or m].")
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(help="Seconds; then what there is is the answer.")
    ] = None,
    avoid_self_collision: Annotated[bool, typer.Option("--avoid-self-collision")] = False,
    objective: Annotated[
        list[str] | None,
        typer.Option(
            help="A name, as posture, manipulability, joint_limits or clearance, or YAML, as "
            '"{name: posture, weight: 2}"; repeat for several.'
        ),
    ] = None,
    objectives: Annotated[
        Path | None, typer.Option(help="A YAML file of objectives, see docs/objectives.md.")
    ] = None,
    seed: SeedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Solve for a pose (--xyz with --rpy or --quat), one for each tip, or a file (--poses)."""
    from ..errors import OptionError
    from ..objectives import read_objectives, spec_from_text
    from ..robot.robot import load_robot
    from ..solving.solver import load_solver
    from .goal_options import goal_of_links, poses_from_options, read_poses

    T_base_link = (
        read_poses(poses) if poses else poses_from_options(xyz or (), rpy or (), quat or ())
    )
    from_urdf = Path(robot).suffix in (".urdf", ".xml")
    if tip and frame and not from_urdf:
        raise OptionError(f"--tip {tip[0]} and --frame {frame[0]}: --frame alone says which tip")
    loaded = load_robot(robot, base, tip if from_urdf else None)
    links = frame or (() if from_urdf else tip) or ()
    goal = goal_of_links(loaded, T_base_link, links, free_axes or ())
    wanted: list[Any] = [spec_from_text(text) for text in objective or []]
    if objectives is not None:
        wanted += read_objectives(objectives, loaded)
    solver = load_solver(loaded, checkpoint, device, sampler)
    current = None
    if seed_state is not None:
        current = _read_numbers("--seed-state", seed_state)
    solver.warm_up()  # so that the times printed are those of a later call
    result = solver.solve(
        **goal, num_samples=num_samples, max_solutions=max_solutions, seed_state=current,
        seed=seed, select=select, timeout=timeout, avoid_self_collision=avoid_self_collision,
        objectives=wanted,
    )  # fmt: skip
    if as_json:
        print_json(
            {
                "joint_names": solver.robot.joint_names,
                "joint_positions": result.joint_positions,
                "position_error": result.position_error,
                "orientation_error": result.orientation_error,
                "valid": result.valid,
                "distance": result.distance,
                "cost": result.cost,
                "objective_values": result.objective_values,
                "clearance": result.clearance,
                "origin": result.origin,
                "starts": result.starts,
                "timing": result.timing,
            }
        )
    else:
        print_solutions(solver.robot.joint_names, result)
    if not result.valid.any(-1).all():
        raise typer.Exit(1)


def _read_numbers(option: str, text: str) -> list[float]:
    from ..errors import OptionError

    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise OptionError(f"{option} is {text!r}; it must be numbers with commas") from error
