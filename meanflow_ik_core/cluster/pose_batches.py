# SPDX-License-Identifier: Apache-2.0
"""Solve many poses in chunks, on the cores of this machine or on a Dask cluster.

Chunks are always cut in the same way, so the answer does not depend on who computes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import OptionError
from ..progress import tracked
from ..solving.result import IKResult, joined_results
from ..solving.solver import IKSolver
from .array_file import ArrayFile, fill_arrays
from .chunks import computed
from .digests import described

_POSES_PER_CHUNK = 256


def solve_in_chunks(
    solver: IKSolver,
    targets: np.ndarray,
    options: Mapping[str, Any],
    scheduler: str | None = None,
    processes: int | None = None,
) -> IKResult:
    """As `IKSolver.solve`, on several processes or machines.

    Args:
        solver: that solves.
        targets: (B, 4, 4) or (B, T, 4, 4).
        options: of `IKSolver.solve`: an integer as seed, and no limit of time.
        scheduler, processes: see `computed`.

    Raises:
        OptionError: an option is none that a call takes, or there is no seed or a limit of time.
        ClusterError: see `computed`.
    """
    _check_repeatable(options)
    starts = range(0, max(1, len(targets)), _POSES_PER_CHUNK)
    chunks = {start: targets[start:][:_POSES_PER_CHUNK] for start in starts}
    results = {}
    with closing(computed(_Solve(solver, options), chunks, scheduler, processes)) as answers:
        for _ in tracked(chunks, "solving"):
            start, results[start] = next(answers)
    return joined_results([results[start] for start in starts])


def solve_into_file(
    solver: IKSolver,
    targets: np.ndarray,
    options: Mapping[str, Any],
    output: str | Path,
    scheduler: str | None = None,
    processes: int | None = None,
) -> dict[str, np.ndarray]:
    """As `solve_in_chunks`, into an NPZ file from which an interrupted run goes on.

    Args:
        solver, targets, options, scheduler, processes: see `solve_in_chunks`.
        output: the file; what it has already is not computed again.

    Returns:
        Arrays of an `IKResult`, which the file has as well: joint_positions, position_error,
        orientation_error, valid, distance and status.

    Raises:
        OptionError, ClusterError: see `solve_in_chunks`.
        OutputError: the file is damaged, has other results, or cannot be written.
    """
    _check_repeatable(options)
    robot, checkpoint = solver.robot, solver.checkpoint
    question = {
        "robot": robot.name,
        "kinematics": robot.fingerprint(),
        "joint_names": list(robot.joint_names),
        "sampler": solver.sampler,
        "checkpoint": None if checkpoint is None else checkpoint["sha256"],
        "poses": described(targets),
        **described(options),
    }
    batch, most = len(targets), options["max_solutions"]
    arrays = {
        "joint_positions": np.full((batch, most, robot.num_joints), np.nan),
        "position_error": np.full((batch, most, robot.num_tips), np.inf),
        "orientation_error": np.full((batch, most, robot.num_tips), np.inf),
        "valid": np.zeros((batch, most), bool),
        "distance": np.full((batch, most), np.inf),
        "status": np.zeros(batch, np.uint8),
    }
    fill_arrays(
        _SolveToArrays(solver, options, tuple(arrays)), targets, arrays, _POSES_PER_CHUNK,
        "solving", ArrayFile(output, question), scheduler, processes,
    )  # fmt: skip
    return arrays


def _check_repeatable(options: Mapping[str, Any]) -> None:
    if options.get("seed") is None:
        raise OptionError("work in chunks needs a seed, so that a chunk can be computed again")
    for name in ("timeout", "time_limit"):
        if options.get(name) is not None:
            raise OptionError(f"{name} is {options[name]!r}; work in chunks has no limit of time")


@dataclass(frozen=True)
class _Solve:
    solver: IKSolver
    options: Mapping[str, Any]

    def __call__(self, targets: np.ndarray) -> IKResult:
        return self.solver.solve(targets, **self.options)


@dataclass(frozen=True)
class _SolveToArrays:
    solver: IKSolver
    options: Mapping[str, Any]
    names: tuple[str, ...]

    def __call__(self, targets: np.ndarray) -> dict[str, np.ndarray]:
        result = self.solver.solve(targets, **self.options)
        return {name: getattr(result, name) for name in self.names}
