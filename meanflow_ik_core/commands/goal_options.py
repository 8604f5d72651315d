# SPDX-License-Identifier: Apache-2.0
"""Goals as the command line has them: poses, the links that shall be there, and free axes.

Poses are checked before anything heavy is imported.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import OptionError, TargetError
from ..geometry import matrix_from_quat_xyzw, matrix_from_rpy
from .pose_options import pose_numbers

if TYPE_CHECKING:
    from ..robot.robot import Robot


def poses_from_options(
    xyz: Sequence[str], rpy: Sequence[str], quat: Sequence[str], free_axes: Sequence[str]
) -> np.ndarray:
    """(1, G, 4, 4) of what the options say; see `pose_numbers`."""
    positions, rotations = pose_numbers(xyz, rpy, quat, free_axes, "--poses")
    T = np.tile(np.eye(4), (1, len(positions), 1, 1))
    T[0, :, :3, 3] = positions
    T[0, :, :3, :3] = matrix_from_quat_xyzw(rotations) if quat else matrix_from_rpy(rotations)
    return T


def read_poses(path: Path) -> np.ndarray:
    """The array (B, 4, 4) or (B, G, 4, 4) of a .npy file; TargetError where there is none."""
    try:
        # Mapped, a file that claims more than it has is refused before memory is taken.
        poses = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, MemoryError, OverflowError, zipfile.BadZipFile) as error:
        why = "it holds Python objects" if "Python objects" in str(error) else error
        raise TargetError(f"cannot read poses from {path}: {why}") from error
    if not isinstance(poses, np.ndarray):
        names = ", ".join(poses.files)
        raise TargetError(f"{path} is an archive of arrays ({names}); --poses takes a .npy file")
    if poses.ndim not in (3, 4) or poses.shape[-2:] != (4, 4) or poses.dtype.kind not in "fiu":
        raise TargetError(
            f"{path} has the shape {poses.shape} and the type {poses.dtype}; it must hold numbers "
            "of the shape (B, 4, 4), or (B, T, 4, 4) for T tips"
        )
    if not np.isfinite(poses).all():
        raise TargetError(f"{path} has entries that are not finite")
    return np.array(poses)


def goal_of_links(
    robot: Robot, poses: np.ndarray, links: Sequence[str], free_axes: Sequence[str]
) -> dict[str, Any]:
    """Targets, tips and free axes as `IKSolver.solve` takes them.

    Args:
        robot: whose tips.
        poses: (B, 4, 4) or (B, G, 4, 4), T_base_link of G links.
        links: that are fixed to a tip each; none: the robot's tips.
        free_axes: one text of axes per link, or none at all.

    Raises:
        LinkError: a link is fixed to no tip.
        OptionError: poses, links and free axes are not equally many, or axes are wrong.
    """
    from ..solving.inputs import check_free_axes, check_tips

    poses = poses[:, None] if poses.ndim == 3 else poses
    names = list(links or robot.tips)
    if poses.ndim != 4 or poses.shape[1] != len(names):
        given = f"{poses.shape[1]} poses" if poses.ndim == 4 else f"poses of shape {poses.shape}"
        raise OptionError(
            f"{given} for {', '.join(names)}; repeat --xyz and --rpy or --quat for each of them, "
            "or name some with --tip"
        )
    if free_axes and len(free_axes) != len(names):
        raise OptionError(f"{len(free_axes)} --free-axes for {len(names)} poses")
    at_frames = robot.at_frames(names)
    free = {name: axes for name, axes in zip(names, free_axes, strict=False) if axes.strip()}
    check_free_axes(at_frames, check_tips(at_frames, names), free)
    return {"targets": poses, "tips": names, "free_axes": free or None}
