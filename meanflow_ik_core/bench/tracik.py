# SPDX-License-Identifier: Apache-2.0
"""Many different solutions of one pose: uniform starts and refinement, or TRAC-IK restarted.

Both are given the same poses in turn, the same tolerance, and the same notion of different. For
TRAC-IK only its own calls are timed, not the bookkeeping around them, and its processor time is
given as well: it runs two threads, and waits for them on a busy machine.
"""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import torch

from ..errors import OptionError, RobotError
from ..geometry import pose_errors, quat_xyzw_from_matrix
from ..robot.robot import Robot
from ..solving.solver import IKSolver, load_solver
from .judge import Judge
from .result import BenchResult, Measure, at_least_one, environment, torch_threads
from .solve import TOLERANCE

MIN_SEPARATION = 0.01  # rad, of the largest joint difference
# TRAC-IK bounds each of the three components, we bound their norm.
_EPSILON = TOLERANCE / math.sqrt(3)
# TRAC-IK keeps limits in float32.
_LIMIT_ROUNDING = 1e-6
_MOST_CALLS_PER_SOLUTION = 20
# In its turn TRAC-IK needs some 150 calls, our solver a single one; so ours gets several too. The
# first of them finds the caches full of TRAC-IK's data, and is reported on its own.
_CALLS_PER_TURN = 20


def run(
    *,
    robot: str | Robot = "panda",
    solutions: int = 100,
    poses: int = 10,
    repetitions: int = 3,
    num_samples: int = 400,
    timeout: float = 0.005,
    seed: int = 0,
) -> BenchResult:
    """Ratio of the times, interleaved; poses where either side falls short are counted."""
    at_least_one(solutions=solutions, poses=poses, repetitions=repetitions)
    solver = load_solver(robot, sampler="uniform")
    rival = TracIK(solver.robot, timeout)
    judge = Judge(solver.robot)
    generator = torch.Generator().manual_seed(seed)
    T_base_tip = solver.robot.forward(solver.robot.random_configurations(poses, generator).numpy())
    ours, first, theirs, their_cpu = np.zeros((4, poses, repetitions))
    short = {"ours": 0, "TRAC-IK": 0}
    random = np.random.default_rng(seed)
    with torch_threads(1):
        for _ in range(3):
            _solve(solver, T_base_tip[0], solutions, num_samples, seed)
        for row, target in enumerate(T_base_tip):
            for repetition in range(repetitions):
                turn = _CALLS_PER_TURN * (row * repetitions + repetition)
                calls = [
                    _solve(solver, target, solutions, num_samples, seed + turn + call)
                    for call in range(_CALLS_PER_TURN)
                ]
                first[row, repetition] = calls[0][1]
                ours[row, repetition] = np.mean([seconds for _, seconds in calls])
                for found, _ in calls:
                    right = judge.accepts(found, target, TOLERANCE, TOLERANCE)
                    short["ours"] += not (right.all() and count_different(found) == solutions)
                number, theirs[row, repetition], their_cpu[row, repetition] = (
                    rival.different_solutions(target[0], solutions, random)
                )
                short["TRAC-IK"] += number < solutions
    our_time, their_time = np.median(ours, 1), np.median(theirs, 1)
    their_cpu_time = np.median(their_cpu, 1)
    ratio, cpu_ratio = their_time / our_time, their_cpu_time / our_time
    measures = (
        Measure("times faster, median over poses", float(np.median(ratio)), "x", at_least=60),
        Measure("times faster, smallest", float(ratio.min()), "x"),
        Measure(
            "times faster, first call of a turn alone, median",
            float(np.median(their_time / np.median(first, 1))),
            "x",
        ),
        Measure("times faster than its processor time, median", float(np.median(cpu_ratio)), "x"),
        Measure("ours, median", float(np.median(our_time) * 1e3), "ms"),
        Measure("ours, first call of a turn, median", float(np.median(first) * 1e3), "ms"),
        Measure("TRAC-IK, median", float(np.median(their_time) * 1e3), "ms"),
        Measure(
            "TRAC-IK, processor time of its threads, median",
            float(np.median(their_cpu_time) * 1e3),
            "ms",
        ),
        Measure("ours, runs short of solutions", float(short["ours"]), "runs", at_most=0),
        Measure("TRAC-IK, runs short of solutions", float(short["TRAC-IK"]), "runs"),
    )
    options = {
        "robot": solver.robot.name, "solutions": solutions, "poses": poses,
        "repetitions": repetitions, "num_samples": num_samples, "timeout": timeout, "seed": seed,
        "tolerance": TOLERANCE, "epsilon": _EPSILON, "min_separation": MIN_SEPARATION,
    }  # fmt: skip
    return BenchResult("tracik", measures, options, environment())


class TracIK:
    """TRAC-IK (Beeson and Ames 2015, package pytracik), restarted from random seeds."""

    def __init__(self, robot: Robot, timeout: float):
        """Build its solver.

        Raises:
            OptionError: pytracik is not installed.
            RobotError: it does not see the same joints in the URDF.
        """
        try:
            import pytracik
        except ImportError as error:
            raise OptionError(
                "the comparison needs the package pytracik: pip install 'meanflow-ik-ros[bench]'"
            ) from error
        self._robot = robot
        self._ik = pytracik.ik
        self._solver: Any = pytracik.TRAC_IK(
            robot.base, robot.tips[0], robot.urdf_path.read_text(), timeout, _EPSILON,
            pytracik.SolveType.Speed,
        )  # fmt: skip
        number = pytracik.get_num_joints(self._solver)
        if number != robot.num_joints or robot.num_tips != 1:
            raise RobotError(
                f"TRAC-IK sees {number} joints between {robot.base} and {robot.tips[0]}; "
                f"{robot.name!r} has {robot.num_joints} and {robot.num_tips} tips"
            )

    def different_solutions(
        self, T_base_tip: np.ndarray, wanted: int, random: np.random.Generator
    ) -> tuple[int, float, float]:
        """How many different valid solutions of one pose (4, 4) it found; seconds inside it, by
        the clock and of the processor (it works in two threads)."""
        robot = self._robot
        quat_xyzw = quat_xyzw_from_matrix(T_base_tip[:3, :3]).tolist()
        x, y, z = T_base_tip[:3, 3].tolist()
        kept = np.empty((wanted, robot.num_joints))
        number, seconds, processor_seconds = 0, 0.0, 0.0
        for _ in range(wanted * _MOST_CALLS_PER_SOLUTION):
            start = random.uniform(robot.lower, robot.upper)
            began, processor_began = time.perf_counter(), time.process_time()
            answer = self._ik(self._solver, start, x, y, z, *quat_xyzw)
            seconds += time.perf_counter() - began
            processor_seconds += time.process_time() - processor_began
            if answer[0] < 0:
                continue
            q = np.asarray(answer[1:])
            if self._is_valid(q, T_base_tip) and _is_different(q, kept[:number]):
                kept[number] = q
                number += 1
                if number == wanted:
                    break
        return number, seconds, processor_seconds

    def _is_valid(self, q: np.ndarray, T_base_tip: np.ndarray) -> bool:
        if not self._robot.within_limits(q, _LIMIT_ROUNDING):
            return False
        distance, angle = pose_errors(self._robot.forward(q)[0], T_base_tip)
        return bool(distance <= TOLERANCE and angle <= TOLERANCE)


def count_different(q: np.ndarray) -> int:
    """How many of q (N, J) differ from all before them by `MIN_SEPARATION` in some joint."""
    kept: list[np.ndarray] = []
    for row in q:
        if _is_different(row, np.array(kept).reshape(-1, q.shape[1])):
            kept.append(row)
    return len(kept)


def _is_different(q: np.ndarray, others: np.ndarray) -> bool:
    return bool((np.abs(others - q).max(-1, initial=0) >= MIN_SEPARATION).all())


def _solve(
    solver: IKSolver, target: np.ndarray, solutions: int, num_samples: int, seed: int
) -> tuple[np.ndarray, float]:
    """The valid solutions (N, J) of one target (T, 4, 4), and seconds."""
    began = time.perf_counter()
    result = solver.solve(
        target[None], num_samples=num_samples, max_solutions=solutions, seed=seed,
        position_tolerance=TOLERANCE, orientation_tolerance=TOLERANCE,
        min_separation=MIN_SEPARATION,
    )  # fmt: skip
    seconds = time.perf_counter() - began
    return result.joint_positions[0][result.valid[0]], seconds
