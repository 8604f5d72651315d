# SPDX-License-Identifier: Apache-2.0
"""The clearance on spheres against Coal's exact check: disagreements and time."""

from __future__ import annotations

import time

import torch

from ..collision.clearance import SphereModel
from ..collision.self_collision import SelfCollision
from ..progress import tracked
from ..robot.robot import load_robot
from .result import BenchResult, Measure, at_least_one, environment
from .targets import target_generator

_MARGIN = 0.01  # m
_REPETITIONS = 3


def run(
    *, robots: str = "panda,dual_panda", configurations: int = 4096, seed: int = 0
) -> BenchResult:
    """Shares of uniform configurations that the spheres judge differently, and times.

    Args:
        robots: names with commas.
        configurations: how many, in one batch.
    """
    at_least_one(configurations=configurations)
    measures: list[Measure] = []
    for name in tracked(robots.split(","), "robots"):
        robot = load_robot(name.strip())
        check = SelfCollision(robot)
        model = SphereModel(robot, check)
        # Other configurations than those that the corrections of the spheres were found from.
        generator = target_generator(seed)
        q = robot.random_configurations(configurations, generator, torch.float32)
        exact_input = q.double().numpy()
        gap = model.distance(q)
        touching = torch.from_numpy(check.in_collision(exact_input))
        spheres_time, exact_time = [], []
        for _ in range(_REPETITIONS):
            started = time.process_time()
            model.distance(q, cap=_MARGIN)
            spheres_time.append(time.process_time() - started)
            started = time.process_time()
            check.in_collision(exact_input)
            exact_time.append(time.process_time() - started)
        scale = 1e6 / configurations
        found = {
            "spheres": (len(model.radius), ""),
            "pairs of links": (len(model.pairs), ""),
            "touching": (touching.float().mean(), ""),
            "touching, called free": ((touching & (gap > 0)).float().mean(), ""),
            "free, called touching": ((~touching & (gap <= 0)).float().mean(), ""),
            "touching, called farther than 10 mm": (
                (touching & (gap > _MARGIN)).float().mean(),
                "",
            ),
            "free, called nearer than 10 mm": ((~touching & (gap <= _MARGIN)).float().mean(), ""),
            "spheres, time per configuration": (scale * min(spheres_time), "us"),
            "exact check, time per configuration": (scale * min(exact_time), "us"),
        }
        measures += [
            Measure(f"{robot.name}: {what}", float(value), unit)
            for what, (value, unit) in found.items()
        ]
    options = {"robots": robots, "configurations": configurations, "seed": seed}
    return BenchResult("clearance", tuple(measures), options, environment())
