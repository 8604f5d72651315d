# SPDX-License-Identifier: Apache-2.0
"""Rate of training, in the same run for the plain form of the same steps."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ..progress import tracked
from ..robot.robot import Robot, load_robot
from ..training.config import TrainConfig, load_train_config
from ..training.trainer import Run
from .result import BenchResult, Measure, at_least_one, environment, torch_threads

_FORMS = {
    "plain: float32": {"precision": "float32", "compile": False},
    "bfloat16": {"precision": "bfloat16", "compile": False},
    "bfloat16, compiled": {"precision": "bfloat16", "compile": True},
}


def run(
    *,
    robot: str | Robot = "panda",
    config: str = "",
    device: str = "cpu",
    rounds: int = 5,
    steps: int = 5,
    threads: int = 1,
) -> BenchResult:
    """Samples per second of whole steps: data, loss, gradient, update and averaging.

    The forms take turns, ``steps`` steps at a time; the median of the ``rounds`` counts.

    Args:
        config: settings file or recipe; "": the defaults with all terms on estimates as well.
        threads: of torch; 0 leaves its number.
    """
    at_least_one(rounds=rounds, steps=steps)
    arm = robot if isinstance(robot, Robot) else load_robot(robot)
    if config:
        settings = load_train_config(config)
    else:
        settings = TrainConfig(
            estimate_start=0.0, lambda_energy=1.0, lambda_kernel=1.0, lambda_refine=1.0
        )
    rates: dict[str, list[float]] = {name: [] for name in _FORMS}
    with torch_threads(threads or torch.get_num_threads()), tempfile.TemporaryDirectory() as folder:
        used = torch.get_num_threads()
        runs = {
            name: Run(
                arm, replace(settings, **form), Path(folder) / name, 0, 1, torch.device(device)
            )
            for name, form in _FORMS.items()
        }
        for each in runs.values():  # compiles
            each.train_step(1.0)
        for _ in tracked(range(rounds), "rounds"):
            for name, each in runs.items():
                rates[name].append(_rate(each, steps))
    median = {name: float(np.median(values)) for name, values in rates.items()}
    plain, _, best = median.values()
    measures = (
        *(Measure(name, value, "samples/s") for name, value in median.items()),
        Measure("times faster than plain", best / plain, at_least=2.0),
        Measure("torch threads", float(used)),
    )
    options = {
        "robot": arm.name, "config": config, "device": device, "rounds": rounds, "steps": steps,
        "threads": used,
    }  # fmt: skip
    return BenchResult("training", measures, options, environment())


def _rate(run: Run, steps: int) -> float:
    """Samples per second; reading the loss waits for the device."""
    before, started = run.samples, time.perf_counter()
    for _ in range(steps):
        terms = run.train_step(1.0)
    terms["loss"].item()
    return (run.samples - before) / (time.perf_counter() - started)
