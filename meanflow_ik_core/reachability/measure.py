# SPDX-License-Identifier: Apache-2.0
"""The reachability map of a tip: solve every pose of a grid of voxels, in chunks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..bounds import FARTHEST_CORNER
from ..cluster.array_file import ArrayFile, fill_arrays
from ..cluster.digests import described
from ..errors import OptionError
from ..robot.reach import reach
from ..robot.robot import Robot, load_robot
from ..solving.goal import MOST_SAMPLES, Goal
from ..solving.inputs import (
    check_count,
    check_flag,
    check_free_axes,
    check_seed,
    check_world,
    is_number,
)
from ..solving.solver import IKSolver, load_solver
from ..world.world import World
from .branches import count_branches
from .map import ReachabilityMap
from .orientations import spread_orientations

SOLUTIONS = 16  # that are looked at for each pose, as far apart as there are
_POSES_PER_CHUNK = 4096
_POSES_AT_ONCE = 512  # whose arrays fit into a cache
_MOST_POSES = 2**28  # of a map, 2.4 GB
_TOLERANCE = 1e-5  # m and rad


def reachability_map(
    robot: str | Path | Robot = "panda",
    voxel: float = 0.05,
    orientations: int = 32,
    *,
    frame: str | None = None,
    box: Any = None,
    free_axes: str | None = None,
    starts: int = 64,
    seed: int = 0,
    world: World | None = None,
    avoid_self_collision: bool = False,
    output: str | Path | None = None,
    scheduler: str | None = None,
    processes: int | None = None,
) -> ReachabilityMap:
    """Find out what a tip reaches at the centres of voxels, with orientations all around.

    Each pose is solved from the same numbered random starts, wherever it is computed, so the map
    depends on nothing but what is asked. A pose counts as reached where one of them ends in a
    solution; see `ReachabilityMap` for what is measured there. Processes are spawned: a script
    calls this under ``if __name__ == "__main__":``.

    Args:
        robot: a robot of one tip, or what `load_robot` takes for one.
        voxel: edge of the voxels [m].
        orientations: how many, spread over all rotations and turned at random by the seed.
        frame: link fixed to the tip that is to reach the poses; None: the tip.
        box: (2, 3) m, the lowest and the highest corner in the base that centres lie between; None:
            all that the lengths of the links do not rule out.
        free_axes: axes of the poses that may be anything, such as "rz"; see `IKSolver.solve`.
        starts: random starts for each pose.
        seed: of starts and orientations.
        world: obstacles that solutions must not touch.
        avoid_self_collision: whether solutions must not touch the robot itself.
        output: NPZ file that is written while the map grows, and from which an interrupted one
            goes on; None: no file.
        scheduler: address of a Dask scheduler, such as "tcp://host:8786", whose workers have this
            package; None: this machine.
        processes: of this machine; None: one for each core.

    Raises:
        RobotError, LinkError: the robot or frame cannot be loaded.
        OptionError: the robot has several tips, an option is out of its range, or no voxel or too
            many are left.
        WorldError: the world is one of another robot.
        OutputError: the file is damaged, is another map, or cannot be written.
        ClusterError: Dask is missing, its scheduler does not answer, or workers die.
    """
    robot = robot if isinstance(robot, Robot) else load_robot(robot)
    if robot.num_tips != 1:
        raise OptionError(
            f"robot {robot.name!r} has the tips {', '.join(robot.tips)}; a map is of one: "
            "load_robot(..., tips=[...]), or --tip"
        )
    check_count("orientations", orientations, 1, _MOST_POSES)
    check_count("starts", starts, 1, MOST_SAMPLES)
    check_seed(seed)
    if seed is None:
        raise OptionError("seed is None; a map needs one, so that it can be made again")
    check_flag("avoid_self_collision", avoid_self_collision)
    scene = None if world is None else check_world(robot, world)
    at_frame = robot if frame is None else robot.at_frames([frame])
    tips = at_frame.tips
    free = {tips[0]: free_axes} if free_axes else None
    job = _VoxelJob(
        solver=load_solver(robot, sampler="uniform"),
        at_frame=at_frame,
        reach=reach(at_frame, 0)[1],
        asked=check_free_axes(at_frame, (0,), free),
        orientations=spread_orientations(orientations, int(seed) % 2**64),
        options={
            "num_samples": starts, "seed": seed, "avoid_self_collision": avoid_self_collision,
            "world": scene, "tips": tips, "free_axes": free,
        },
    )  # fmt: skip
    centers = _centers(at_frame, voxel, box, orientations)
    shape = len(centers), orientations
    measured = {
        "branches": np.zeros(shape, np.uint8),
        "limit_margin": np.full(shape, np.nan, np.float32),
        "singularity_margin": np.full(shape, np.nan, np.float32),
    }
    fixed = {"centers": centers, "orientations": job.orientations}
    question = {
        "robot": robot.name,
        "base": robot.base,
        "tip": tips[0],
        "kinematics": at_frame.fingerprint(),
        "voxel": float(voxel),
        "orientations": int(orientations),
        "box": None if box is None else np.asarray(box, np.float64).tolist(),
        "free_axes": free_axes or None,
        "starts": int(starts),
        "seed": int(seed),
        "world": described(world),
        "avoid_self_collision": bool(avoid_self_collision),
    }
    fill_arrays(
        job, centers, measured, max(1, _POSES_PER_CHUNK // orientations), "mapping voxels",
        None if output is None else ArrayFile(output, question, fixed), scheduler, processes,
    )  # fmt: skip
    return ReachabilityMap(question, **fixed, **measured)


def _centers(robot: Robot, voxel: float, box: Any, orientations: int) -> np.ndarray:
    """Centres (V, 3) of the voxels of a box that a tip may reach, by the lengths of its links."""
    if not (is_number(voxel) and 0 < voxel <= FARTHEST_CORNER):
        raise OptionError(
            f"voxel is {voxel!r}; it must be a positive length in metres, {FARTHEST_CORNER:g} at "
            "most"
        )
    middle, length = reach(robot, 0)
    low, high = middle - length, middle + length
    if box is not None:
        corners = _corners(box)
        low, high = np.maximum(low, corners[0]), np.minimum(high, corners[1])
    # The centres are odd multiples of half a voxel.
    with np.errstate(over="ignore", invalid="ignore"):  # of a voxel that is next to nothing
        first, last = np.ceil(low / voxel - 0.5), np.floor(high / voxel - 0.5)
        counts = np.maximum(last - first + 1, 0)
        poses = counts.prod() * orientations
    if not poses <= _MOST_POSES:
        raise OptionError(
            f"voxels of {voxel:g} m and {orientations} orientations make {poses:.2g} poses; at "
            f"most {_MOST_POSES:.2g} are possible"
        )
    axes = [
        (start + np.arange(count) + 0.5) * voxel for start, count in zip(first, counts, strict=True)
    ]
    centers = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    centers = centers[np.linalg.norm(centers - middle, axis=-1) <= length]
    if not len(centers):
        raise OptionError(
            f"no centre of a voxel of {voxel:g} m is in the box and within {length:.3g} m of "
            f"{middle.round(3).tolist()}, which {robot.tips[0]} cannot leave"
        )
    return centers


def _corners(box: Any) -> np.ndarray:
    try:
        if np.iscomplexobj(box):
            raise TypeError("it is complex")
        corners = np.array(box, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise OptionError(f"box is {box!r}; it must be two corners (2, 3) in metres") from error
    if corners.shape != (2, 3) or not np.isfinite(corners).all() or (corners[0] > corners[1]).any():
        raise OptionError(
            f"box is {corners.tolist()}; it must be the lowest and the highest corner in metres"
        )
    return corners


@dataclass(frozen=True)
class _VoxelJob:
    """Measures the poses of some voxels."""

    solver: IKSolver
    at_frame: Robot  # the solver's robot, with the frame that is to reach the poses as its tip
    reach: float  # m
    asked: np.ndarray | None  # (1, 6) bool along x y z rx ry rz of the poses; None: all
    orientations: np.ndarray  # (O, 3, 3)
    options: dict[str, Any]  # of `IKSolver.solve`

    def __call__(self, centers: np.ndarray) -> dict[str, np.ndarray]:
        """What is measured of voxels with centres (C, 3), (C, O) each."""
        rows = max(1, _POSES_AT_ONCE // len(self.orientations))
        parts = [self._measured(centers[first:][:rows]) for first in range(0, len(centers), rows)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _measured(self, centers: np.ndarray) -> dict[str, np.ndarray]:
        T = np.tile(np.eye(4), (len(centers), len(self.orientations), 1, 1, 1))
        T[..., 0, :3, 3] = centers[:, None]
        T[..., 0, :3, :3] = self.orientations
        T_base_tip = T.reshape(-1, 1, 4, 4)
        result = self.solver.solve(
            T_base_tip, max_solutions=SOLUTIONS, select="diverse", max_rounds=1,
            position_tolerance=_TOLERANCE, orientation_tolerance=_TOLERANCE, **self.options,
        )  # fmt: skip
        q, valid = result.joint_positions, result.valid
        reference = np.zeros((len(q), q.shape[-1]))
        goal = Goal(T_base_tip, reference, False, self.asked, _TOLERANCE, _TOLERANCE)
        pose, _ = np.nonzero(valid)
        measured = {
            "branches": count_branches(self.at_frame, goal, q, valid),
            "limit_margin": _best(valid, self._limit_margin(q[valid])),
            "singularity_margin": _best(
                valid, self._singularity_margin(q[valid], T_base_tip[pose, 0, :3, :3])
            ),
        }
        return {name: values.reshape(T.shape[:2]) for name, values in measured.items()}

    def _limit_margin(self, q: np.ndarray) -> np.ndarray:
        """(N,) How far the joint nearest to a limit is from it, in halves of its range."""
        robot = self.at_frame
        half = 0.5 * (robot.upper - robot.lower)
        share = 1 - np.abs(q - robot.lower - half) / half
        return share[:, ~robot.continuous].min(1, initial=1.0)

    def _singularity_margin(self, q: np.ndarray, rotation: np.ndarray) -> np.ndarray:
        """(N,) The smallest singular value of the rows of the Jacobian that are asked for."""
        jacobian = self.at_frame.jacobian(q)[:, 0]
        jacobian[:, :3] /= self.reach
        if self.asked is not None:
            to_pose = rotation.swapaxes(-1, -2)
            jacobian[:, :3], jacobian[:, 3:] = to_pose @ jacobian[:, :3], to_pose @ jacobian[:, 3:]
            jacobian = jacobian[:, self.asked[0]]
        squared = np.linalg.eigvalsh(jacobian @ jacobian.swapaxes(-1, -2))
        return np.sqrt(np.maximum(squared.min(-1), 0.0))


def _best(valid: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(B,) The largest of the values of valid rows (B, M) of each pose, NaN where there is none."""
    every = np.full(valid.shape, -np.inf)
    every[valid] = values
    return np.where(valid.any(1), every.max(1), np.nan)
