# SPDX-License-Identifier: Apache-2.0
"""A fresh Python process until its first solution, with what is compiled in the cache."""

from __future__ import annotations

import resource
import subprocess
import sys
import time

import numpy as np

from ..errors import OptionError
from ..progress import tracked
from .result import BenchResult, Measure, at_least_one, environment

_PROGRAM = """
import sys
import meanflow_ik_core as mik
solver = mik.load_solver(sys.argv[1], sampler=sys.argv[2])
robot = solver.robot
T_base_tip = robot.forward(0.7 * robot.lower + 0.3 * robot.upper)
assert solver.solve(T_base_tip[None], max_solutions=1, seed=0).valid.all()
"""
_BARS = {"uniform": 1.4, "auto": 1.6}  # s, of the Panda


def run(*, robot: str = "panda", repetitions: int = 10) -> BenchResult:
    """Median time of the process, by the clock and of the processor, uniform and by default.

    Raises:
        OptionError: the process ends with an error, which it prints.
    """
    at_least_one(repetitions=repetitions)
    seconds = np.zeros((len(_BARS), 2, repetitions))
    for sampler in _BARS:
        _first_solution(robot, sampler)  # compiles, where nothing is compiled yet
    for repetition in tracked(range(repetitions), "processes of each sampler"):
        for place, sampler in enumerate(_BARS):
            seconds[place, :, repetition] = _first_solution(robot, sampler)
    measures: list[Measure] = []
    for (sampler, bar), (clock, busy) in zip(_BARS.items(), np.median(seconds, -1), strict=True):
        bars = {"at_most": bar if robot == "panda" else None}
        measures += [
            Measure(f"{sampler}: first solution, median time", float(clock), "s", **bars),
            Measure(f"{sampler}: first solution, median processor time", float(busy), "s"),
        ]
    options = {"robot": robot, "repetitions": repetitions}
    return BenchResult("cold", tuple(measures), options, environment())


def _first_solution(robot: str, sampler: str) -> tuple[float, float]:
    """Seconds of a process that solves one pose, by the clock and of the processor."""
    began, busy_began = time.perf_counter(), _children_busy()
    done = subprocess.run([sys.executable, "-c", _PROGRAM, robot, sampler], check=False)
    if done.returncode:
        raise OptionError(f"a process that solves for {robot!r} ended with {done.returncode}")
    return time.perf_counter() - began, _children_busy() - busy_began


def _children_busy() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
