# SPDX-License-Identifier: Apache-2.0
"""The command line: ``meanflow-ik solve | train | study | evaluate | bench | add-robot``.

Heavy imports stand inside the commands, so that ``--help`` answers at once.
"""

import json
import logging
import os
import sys
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from .printing import plain, print_json, print_pairs, print_settings, print_solutions, print_table

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # rich would double the time that --help takes
    pretty_exceptions_enable=False,
    help="Many different, exact inverse kinematics solutions per target pose.",
)

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


def main() -> None:
    """Entry point: bad input ends with one line on stderr and exit code 2."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        app()
    except Exception as error:
        from ..errors import IKError

        if not isinstance(error, IKError):
            raise
        print(f"meanflow-ik: {error}", file=sys.stderr)
        sys.exit(2)


class _SeveralPoses(TyperCommand):
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


@app.command(cls=_SeveralPoses)
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
    from ..solving.solver import load_solver
    from .goal_options import goal_of_links, poses_from_options, read_poses

    T_base_link = (
        read_poses(poses) if poses else poses_from_options(xyz or (), rpy or (), quat or ())
    )
    from_urdf = Path(robot).suffix in (".urdf", ".xml")
    if tip and frame and not from_urdf:
        raise OptionError(f"--tip {tip[0]} and --frame {frame[0]}: --frame alone says which tip")
    loaded = _load_robot(robot, base, tip if from_urdf else None)
    links = frame or (() if from_urdf else tip) or ()
    goal = goal_of_links(loaded, T_base_link, links, free_axes or ())
    goals: list[Any] = [spec_from_text(text) for text in objective or []]
    if objectives is not None:
        goals += read_objectives(objectives, loaded)
    solver = load_solver(loaded, checkpoint, device, sampler)
    current = None
    if seed_state is not None:
        current = _read_numbers("--seed-state", seed_state)
    solver.warm_up()  # so that the times printed are those of a later call
    result = solver.solve(
        **goal, num_samples=num_samples, max_solutions=max_solutions, seed_state=current,
        seed=seed, select=select, timeout=timeout, avoid_self_collision=avoid_self_collision,
        objectives=goals,
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


@app.command()
def train(
    robot: RobotOption = "panda",
    base: BaseOption = None,
    tip: TipOption = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML file of settings; default: the trainer's defaults.")
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Overrides one setting; repeatable."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; default: runs/<robot>.")
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Start anew instead of resuming the run in --out.")
    ] = False,
    progress: Annotated[bool, typer.Option(help="Show the progress bar.")] = True,
    device: DeviceOption = "cpu",
    list_settings: Annotated[
        bool, typer.Option("--list-settings", help="Print all settings, defaults and bounds.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Train a network, or go on with a run; works under torchrun as well."""
    from ..training.config import TrainConfig, load_train_config, train_config_from_mapping

    if list_settings:
        print_settings(TrainConfig)
        return
    from ..training.trainer import train as run_training

    overrides = _read_settings(setting or [])
    if config is None:
        settings = train_config_from_mapping(overrides, "--set")
    else:
        settings = load_train_config(config, **overrides)
    loaded = _load_robot(robot, base, tip)
    folder = out or Path("runs") / loaded.name
    _check_folder("--out", folder)
    result = run_training(
        loaded, settings, folder, resume=not restart, progress=progress, device=device
    )
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


@app.command()
def study(
    folder: Annotated[
        Path | None, typer.Argument(help="Folder of settings files, one per recipe.")
    ] = None,
    robot: RobotOption = "panda",
    base: BaseOption = None,
    tip: TipOption = None,
    out: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path("runs/study"),
    poses: Annotated[int, typer.Option(help="Number of fresh reachable poses.")] = 300,
    detail_poses: Annotated[int, typer.Option(help="Of those, for the costlier parts.")] = 100,
    progress: Annotated[bool, typer.Option(help="Show the progress bars.")] = True,
    device: DeviceOption = "cpu",
    output: Annotated[Path | None, typer.Option(help="Also write the JSON to this file.")] = None,
    as_json: JsonOption = False,
    records_file: Annotated[
        Path | None, typer.Option("--table", help="Only print such a file as Markdown.")
    ] = None,
) -> None:
    """Train with every settings file of a folder and judge the networks side by side."""
    from ..errors import OptionError
    from ..training.study import COLUMNS, markdown, read_records, table
    from ..training.study import study as run_study

    if records_file is not None:
        print(markdown(read_records(records_file)))
        return
    if folder is None:
        raise OptionError("study needs a folder of settings files, or --table FILE")
    _check_folder("--out", out)
    _check_file("--output", output)
    loaded = _load_robot(robot, base, tip)
    records = run_study(loaded, folder, out, poses, detail_poses, progress, device)
    if output is not None:
        output.write_text(json.dumps(plain(records), allow_nan=False, indent=1) + "\n")
    if as_json:
        print_json({"recipes": records})
    else:
        print_table(f"recipes for {loaded.name}, {poses} poses", COLUMNS, table(records))


@app.command()
def evaluate(
    robot: RobotOption = "panda",
    base: BaseOption = None,
    tip: TipOption = None,
    sampler: SamplerOption = "meanflow",
    checkpoint: CheckpointOption = None,
    num_calls: Annotated[int, typer.Option(help="Network calls per sample.")] = 1,
    poses: Annotated[int, typer.Option(help="Number of fresh reachable poses.")] = 1000,
    samples: Annotated[int, typer.Option(help="Samples per pose.")] = 100,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the poses and samples.")] = 0,
    device: DeviceOption = "cpu",
    detail_poses: Annotated[
        int, typer.Option(help="Poses of the costlier parts: network calls, solver, exact answer.")
    ] = 100,
    exact: Annotated[
        bool | None,
        typer.Option(
            "--exact/--no-exact",
            help="Compare with the exact answer; default: where it is known (7 joints, EAIK).",
        ),
    ] = None,
    plots: Annotated[Path | None, typer.Option(help="Folder to draw plots into.")] = None,
    output: Annotated[Path | None, typer.Option(help="Also write the JSON to this file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Judge a sampler on fresh poses: errors, success after refinement, the exact answer, time."""
    from ..evaluation.evaluate import evaluate as judge

    _check_file("--output", output)
    _check_folder("--plots", plots)
    evaluation = judge(
        _load_robot(robot, base, tip), sampler, checkpoint=checkpoint, num_calls=num_calls,
        poses=poses, samples=samples, seed=seed, device=device, detail_poses=detail_poses,
        exact=exact,
    )  # fmt: skip
    if output is not None:
        output.write_text(json.dumps(plain(evaluation.as_dict()), indent=1) + "\n")
    if plots is not None:
        from ..evaluation.plots import plot_evaluation

        for path in plot_evaluation(evaluation, plots):
            print(path, file=sys.stderr)
    if as_json:
        print_json(evaluation.as_dict())
    else:
        name = evaluation.checkpoint or "no checkpoint"
        print(f"{evaluation.robot}, {evaluation.sampler} ({name}): {poses} poses x {samples}")
        for table in evaluation.tables():
            print_table(*table)
        if evaluation.without_exact and exact is None:
            print(f"without the exact answer: {evaluation.without_exact}")


@app.command()
def bench(
    name: Annotated[str | None, typer.Argument(help="A suite; none: list them.")] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="An option of the suite; repeatable."),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Also write the JSON to this file.")] = None,
    table: Annotated[
        Path | None,
        typer.Option(
            help="Only print a folder of such files as Markdown, or its part of the suite."
        ),
    ] = None,
    summary: Annotated[
        Path | None, typer.Option(help="The same, the most telling numbers alone.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the product; exit code 1 when a number misses its bar."""
    if table is not None or summary is not None:
        from ..bench.report import TABLES, full_table, summary_table

        if table is None:
            print(summary_table(summary or Path()))
        else:
            print(TABLES[name](table) if name in TABLES else full_table(table, name or ""))
        return
    from ..bench import BENCHES
    from ..errors import OptionError

    if name is None:
        rows = [[suite.name, suite.measures] for suite in BENCHES.values()]
        print_table("suites", ["suite", "measures"], rows)
        return
    if name not in BENCHES:
        raise OptionError(f"unknown suite {name!r}; suites are {', '.join(BENCHES)}")
    _check_file("--output", output)
    result = BENCHES[name](**_read_settings(option or []))
    if output is not None:
        output.write_text(json.dumps(plain(result.as_dict()), indent=1) + "\n")
    if as_json:
        print_json(result.as_dict())
    else:
        options = ", ".join(f"{key}={value}" for key, value in result.options.items())
        print_table(f"{result.bench}: {options}", result.COLUMNS, result.rows())
    if not result.reached:
        raise typer.Exit(1)


class _ManyValues(TyperCommand):
    """Lets an option be followed by several values: --tips a b means --tips a --tips b."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        several, option, spread = ("--tips", "--hold"), "", []
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
        files = [v for v in values if Path(v).suffix in (".urdf", ".xml", ".yaml", ".yml")]
        if files:
            ctx.fail(f"{files[0]!r} is taken for a value of an option; write it first, or after --")
        return super().parse_args(ctx, spread)


@app.command(cls=_ManyValues)
def add_robot(
    urdf: Annotated[
        str, typer.Argument(help="A URDF, its package:// address, or a robot .yaml to renew.")
    ],
    tips: Annotated[
        list[str] | None,
        typer.Option("--tips", help="Links that targets are given for: --tips left right."),
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="Link that poses refer to; default: the root link.")
    ] = None,
    hold: Annotated[
        list[str] | None,
        typer.Option(metavar="JOINT=VALUE", help="Joints that stay at a value [rad or m]."),
    ] = None,
    srdf: Annotated[
        Path | None, typer.Option(help="MoveIt SRDF whose disabled pairs are taken over.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="The file to write; default: <name of the urdf>.yaml.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
    samples: Annotated[
        int, typer.Option(help="Random configurations to look for pairs that never touch in.")
    ] = 10_000,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the configurations.")] = 0,
) -> None:
    """Write the file that makes a URDF a robot, with the pairs of links that need no check."""
    from ..errors import OptionError
    from .robot_description import describe_robot, write_robot_file

    path = output or Path(f"{Path(urdf).stem}.yaml")
    if path.exists() and not force:
        raise OptionError(f"{path} exists; --force replaces it")
    held = {}
    for pair in hold or []:
        joint, _, value = pair.partition("=")
        try:
            held[joint] = float(value)
        except ValueError:
            raise OptionError(f"--hold takes JOINT=VALUE, not {pair!r}") from None
    description = describe_robot(urdf, path, base, tips, held, srdf, samples, seed)
    write_robot_file(description, path, force)
    print_table(path.name, ["", ""], description.rows())
    print(f"joints: {', '.join(description.robot.joint_names)}")


def _load_robot(robot: str, base: str | None, tips: list[str] | None):
    from ..robot.robot import load_robot

    return load_robot(robot, base=base, tips=tips)


def _check_folder(option: str, path: Path | None) -> None:
    """Before the work: OptionError where a folder cannot be made or written to."""
    from ..errors import OptionError

    if path is not None:
        there = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            raise OptionError(f"{option} {path}: {there} is no folder that can be written to")


def _check_file(option: str, path: Path | None) -> None:
    """Before the work: OptionError where a file cannot be written."""
    from ..errors import OptionError

    if path is None:
        return
    if path.is_dir() or not path.parent.is_dir():
        what = f"{path} is a folder" if path.is_dir() else f"there is no folder {path.parent}"
        raise OptionError(f"{option} {path}: {what}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise OptionError(f"{option} {path}: it cannot be written")


def _read_numbers(option: str, text: str) -> list[float]:
    from ..errors import OptionError

    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise OptionError(f"{option} is {text!r}; it must be numbers with commas") from error


def _read_settings(pairs: list[str]) -> dict[str, Any]:
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
