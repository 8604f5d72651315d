# SPDX-License-Identifier: Apache-2.0
"""``meanflow-ik solve``: solutions for poses."""

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from .options import (
    AvoidSelfCollisionOption,
    BaseOption,
    CheckpointOption,
    DeviceOption,
    JsonOption,
    PlainCommand,
    ProcessesOption,
    RobotOption,
    SamplerOption,
    SchedulerOption,
    SeedOption,
    WorldOption,
)
from .pose_options import joined
from .printing import SolutionRow, print_json, print_solutions
from .progress import progress_line


class SolveCommand(PlainCommand):
    """Lets options of several numbers be repeated."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, joined(args))


def solve(
    xyz: Annotated[
        list[str] | None,
        typer.Option(
            metavar="X Y Z", help="Position of the pose in the base [m]. Repeat for several tips."
        ),
    ] = None,
    rpy: Annotated[
        list[str] | None,
        typer.Option(metavar="R P Y", help="Orientation of the pose: roll, pitch, yaw [rad]."),
    ] = None,
    quat: Annotated[
        list[str] | None,
        typer.Option(metavar="X Y Z W", help="Orientation of the pose: a unit quaternion."),
    ] = None,
    poses: Annotated[
        Path | None,
        typer.Option(
            help="A .npy file of many poses, (B, 4, 4), or (B, T, 4, 4) for T tips; instead of "
            "--xyz with --rpy or --quat."
        ),
    ] = None,
    frame: Annotated[
        list[str] | None,
        typer.Option(
            help="Link that is to reach the pose instead of the tip that it is fixed to. Repeat "
            "for each pose."
        ),
    ] = None,
    free_axes: Annotated[
        list[str] | None,
        typer.Option(
            metavar="AXES",
            help='Axes of the pose that may take any value, such as "rx ry rz" of '
            '"x y z rx ry rz", or "" for none. Repeat for each pose. Where all have "rx ry rz", no '
            "orientation need be given.",
        ),
    ] = None,
    robot: RobotOption = "panda",
    base: BaseOption = None,
    tip: Annotated[
        list[str] | None,
        typer.Option(
            help="Tip that the pose is for; tips without a pose may be anywhere. Repeat for each "
            "pose. Default: all tips. For a .urdf file, these links become the robot's tips."
        ),
    ] = None,
    sampler: SamplerOption = "auto",
    checkpoint: CheckpointOption = None,
    device: DeviceOption = "cpu",
    num_samples: Annotated[
        int, typer.Option(help="Starts that are refined for each pose, at first.")
    ] = 128,
    max_solutions: Annotated[
        int,
        typer.Option(
            help="Solutions for each pose, at most. In Python and ROS the default is 32; 8 fit a "
            "table."
        ),
    ] = 8,
    select: Annotated[
        str, typer.Option(help="Which solutions: best (ranked first) or diverse (far apart).")
    ] = "best",
    seed_state: Annotated[
        str | None,
        typer.Option(
            help="Current joint positions [rad or m], separated by commas. Solutions near them are "
            "ranked first."
        ),
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(help="Time limit [s]. What is found by then is the answer.")
    ] = None,
    avoid_self_collision: AvoidSelfCollisionOption = False,
    world: WorldOption = None,
    objective: Annotated[
        list[str] | None,
        typer.Option(
            help="What makes a solution better: a name, such as posture, manipulability, "
            "joint_limits or clearance, or YAML, such as '{name: posture, weight: 2}'. Repeat for "
            "several."
        ),
    ] = None,
    objectives: Annotated[
        Path | None, typer.Option(help="A YAML file of such objectives; see docs/objectives.md.")
    ] = None,
    seed: SeedOption = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Write the solutions of --poses to this .npz file and print a summary. Where it "
            "has a part of them, only the rest is computed."
        ),
    ] = None,
    scheduler: SchedulerOption = None,
    processes: ProcessesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find solutions for poses.

    Give one pose for each tip, as --xyz with --rpy or --quat, or many in a file, as --poses. The
    exit code is 1 when a pose has no valid solution. With --output, --scheduler or --processes the
    poses are solved in chunks, by all cores or a cluster; the seed is 0 then, unless one is given.
    """
    from ..errors import OptionError
    from .goal_options import goal_of_links, poses_from_options, read_poses
    from .output_files import check_file

    T_base_link = (
        read_poses(poses)
        if poses
        else poses_from_options(xyz or (), rpy or (), quat or (), free_axes or ())
    )
    from ..objectives import build_objectives, read_objectives, spec_from_text
    from ..robot.robot import load_robot
    from ..robot.sources import URDF_SUFFIXES, is_text
    from ..solving.goal import Preferences, Starts
    from ..solving.inputs import (
        at_frames,
        check_positive,
        check_seed,
        check_seed_state,
        check_targets,
        check_tips,
    )
    from ..solving.solver import load_solver
    from ..solving.why import Status
    from ..world.world import World

    in_chunks = not (output is None and scheduler is None and processes is None)
    if in_chunks and poses is None:
        raise OptionError("--output, --scheduler and --processes are for --poses")
    check_file("--output", output)
    current = None if seed_state is None else _read_numbers("--seed-state", seed_state)
    from_urdf = is_text(robot) or Path(robot).suffix.lower() in URDF_SUFFIXES
    if tip and frame and not from_urdf:
        raise OptionError(f"--tip {tip[0]} and --frame {frame[0]}: --frame alone says which tip")
    loaded = load_robot(robot, base, tip if from_urdf else None)
    links = frame or (() if from_urdf else tip) or ()
    goal = goal_of_links(loaded, T_base_link, links, free_axes or ())
    # What `solve` would refuse, before a network is read and the first call compiles.
    Starts(num_samples, None)
    Preferences(max_solutions, select, 0.0, 0.0, 0.0, avoid_self_collision)
    check_positive("timeout", timeout, "positive seconds", or_none=True)
    check_seed(seed)
    at_links = at_frames(loaded, goal["tips"])
    check_targets(at_links, goal["targets"], check_tips(at_links, goal["tips"]))
    check_seed_state(loaded, current, len(T_base_link))
    wanted: list[Any] = [spec_from_text(text) for text in objective or []]
    if objectives is not None:
        wanted += read_objectives(objectives, loaded)
    obstacles = None if world is None else World.load(world, loaded)
    solver = load_solver(loaded, checkpoint, device, sampler)
    targets = goal.pop("targets")
    options = {
        **goal, "num_samples": num_samples, "max_solutions": max_solutions, "seed_state": current,
        "seed": 0 if in_chunks and seed is None else seed, "select": select, "timeout": timeout,
        "avoid_self_collision": avoid_self_collision, "objectives": wanted, "world": obstacles,
    }  # fmt: skip
    if output is not None:
        _solve_into_file(solver, targets, options, output, scheduler, processes, as_json)
        return
    if in_chunks:
        from ..cluster.pose_batches import solve_in_chunks

        with progress_line():
            result = solve_in_chunks(solver, targets, options, scheduler, processes)
    else:
        solver.warm_up()  # so that the times printed are those of a later call
        result = solver.solve(targets, **options)
    if as_json:
        print_json(
            {
                "sampler": solver.sampler,
                "joint_names": solver.robot.joint_names,
                "joint_positions": result.joint_positions,
                "position_error": result.position_error,
                "orientation_error": result.orientation_error,
                "valid": result.valid,
                "status": [Status(status).name for status in result.status],
                "message": [result.explain(b) for b in range(len(result.status))],
                "distance": result.distance,
                "cost": result.cost,
                "objective_values": result.objective_values,
                "clearance": result.clearance,
                "world_clearance": result.world_clearance,
                "touches": None if world is None else result.touches,
                "origin": result.origin,
                "starts": result.starts,
                "timing": result.timing,
            }
        )
    else:
        _print_result(solver, result, [one.name() for one in build_objectives(wanted, loaded)])
        print(f"sampler: {solver.sampler_summary}")
    if not result.valid.any(-1).all():
        raise typer.Exit(1)


def _solve_into_file(
    solver: Any, targets: Any, options: dict[str, Any], output: Path, scheduler: str | None,
    processes: int | None, as_json: bool,
) -> None:  # fmt: skip
    """Solve into a file, and print how many poses have solutions."""
    from ..cluster.pose_batches import solve_into_file
    from .output_files import going_on

    with going_on(output):
        arrays = solve_into_file(solver, targets, options, output, scheduler, processes)
    solved = int(arrays["valid"].any(-1).sum())
    if as_json:
        print_json({"poses": len(targets), "solved": solved, "output": str(output)})
    else:
        print(f"{solved} of {len(targets)} poses have solutions: {output}")
    if solved < len(targets):
        raise typer.Exit(1)


def _print_result(solver: Any, result: Any, objectives: list[str]) -> None:
    """A table for each pose, then where solutions came from and how long it took."""
    robot = solver.robot
    sliding = robot.joint[robot.prismatic].tolist()
    units = ["m" if joint in sliding else "rad" for joint in range(robot.num_joints)]
    joints = dict(zip(robot.joint_names, units, strict=True))
    to_world, touches = result.world_clearance, result.touches
    for b in range(len(result.valid)):
        rows = [
            SolutionRow(
                bool(result.valid[b, m]),
                result.joint_positions[b, m],
                result.position_error[b, m].max(),
                result.orientation_error[b, m].max(),
                result.distance[b, m],
                result.cost[b, m],
                () if result.objective_values is None else result.objective_values[b, m],
                math.nan if result.clearance is None else result.clearance[b, m],
                math.nan if to_world is None else to_world[b, m],
                "; ".join(str(contact) for contact in touches[b][m]),
            )
            for m in range(result.valid.shape[1])
            if result.origin[b, m]
        ]
        print_solutions(f"pose {b + 1}: {result.explain(b)}", joints, objectives, rows)
    spent = ", ".join(f"{name} {1e3 * value:.2f} ms" for name, value in result.timing.items())
    starts = ", ".join(f"{count} {name}" for name, count in result.starts.items())
    origins = ", ".join(f"{count} {name}" for name, count in result.origin_counts().items())
    print(f"time: {spent}")
    print(f"starts: {starts}; solutions: {origins or 'none'}")


def _read_numbers(option: str, text: str) -> list[float]:
    """Numbers that are separated by commas."""
    from ..errors import OptionError
    from ..plain_numbers import plain_float

    try:
        return [plain_float(part) for part in text.split(",")]
    except ValueError as error:
        raise OptionError(f"{option} is {text!r}; it must be numbers with commas") from error
