# SPDX-License-Identifier: Apache-2.0
"""``meanflow-ik evaluate``: how good a sampler is."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from .options import (
    BaseOption,
    CheckpointOption,
    DeviceOption,
    JsonOption,
    OutputOption,
    RobotOption,
    SamplerOption,
    TipOption,
)
from .output_files import check_file, check_plots, write_json
from .printing import print_json, print_table
from .progress import progress_line


def evaluate(
    robot: RobotOption = "panda",
    base: BaseOption = None,
    tip: TipOption = None,
    sampler: SamplerOption = "auto",
    checkpoint: CheckpointOption = None,
    num_calls: Annotated[int, typer.Option(help="Network calls for each sample.")] = 1,
    poses: Annotated[int, typer.Option(help="Fresh reachable poses to judge on.")] = 1000,
    samples: Annotated[int, typer.Option(help="Samples for each pose.")] = 100,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the poses and samples.")] = 0,
    device: DeviceOption = "cpu",
    detail_poses: Annotated[
        int,
        typer.Option(
            help="How many of the poses the costlier parts judge on: more network calls, the "
            "solver, the exact answer."
        ),
    ] = 100,
    exact: Annotated[
        bool | None,
        typer.Option(
            "--exact/--no-exact",
            help="Compare with the exact answer. Default: where it is known, which takes 7 joints "
            "and the package EAIK.",
        ),
    ] = None,
    plots: Annotated[Path | None, typer.Option(help="Folder that plots are drawn into.")] = None,
    output: OutputOption = None,
    as_json: JsonOption = False,
) -> None:
    """Judge a sampler on fresh poses.

    Measured are errors, success after refinement, the distance from the exact answer, and time.
    """
    from ..evaluation.options import check_options
    from ..progress import stage
    from ..robot.robot import load_robot

    check_options(num_calls, poses, samples, detail_poses, exact)
    check_file("--output", output)
    check_plots(plots)
    loaded = load_robot(robot, base, tip)
    with progress_line():
        stage("torch is loaded")
        from ..evaluation.evaluate import evaluate as judge

        evaluation = judge(
            loaded, sampler, checkpoint=checkpoint, num_calls=num_calls, poses=poses,
            samples=samples, seed=seed, device=device, detail_poses=detail_poses, exact=exact,
        )  # fmt: skip
    if output is not None:
        write_json(output, evaluation.as_dict())
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
        if evaluation.without_calls:
            print(f"without more network calls: {evaluation.without_calls}")
        if evaluation.without_exact and exact is None:
            print(f"without the exact answer: {evaluation.without_exact}")
