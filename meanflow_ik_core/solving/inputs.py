# SPDX-License-Identifier: Apache-2.0
"""What a caller hands to the solver, checked and brought into one form."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from numbers import Integral, Real
from typing import Any

import numpy as np

from ..bounds import FARTHEST_TARGET
from ..errors import LinkError, OptionError, SeedError, TargetError, WorldError
from ..kernels.poses import RIGID_TOLERANCE, ROUNDED, make_orthonormal
from ..robot.robot import Robot
from ..tensors import array_from
from ..world.joint_inputs import far_joint
from ..world.scene import Scene
from ..world.world import World

_LOG = logging.getLogger(__name__)

_MOST_NUMBERS = 2**28  # of a result, 2 GB
AXES = ("x", "y", "z", "rx", "ry", "rz")  # of a target's frame
_SAME_AXES = 1e-9  # how little of a motion along free axes of a frame may not be free at the tip
# How far outside a limit a seed may be, rad or m: encoders are some milliradians off. What is
# farther outside is a mistake, such as degrees.
SEED_TOLERANCE = 0.05


def is_number(value: Any) -> bool:
    return type(value) is float or (isinstance(value, Real) and not isinstance(value, bool))


def check_count(name: str, value: Any, least: int, most: int | None = None) -> None:
    """OptionError where a value is no integer, or less or more than allowed."""
    right = type(value) is int or (isinstance(value, Integral) and not isinstance(value, bool))
    if not right or int(value) < least or (most is not None and int(value) > most):
        at_most = "" if most is None else f" and at most {most}"
        raise OptionError(
            f"{name} is {value!r}; it must be an integer of at least {least}{at_most}"
        )


def check_memory(robot: Robot, batch: int, name: str, count: int) -> None:
    """OptionError where so many samples or solutions per target would not fit into memory."""
    most = _MOST_NUMBERS // (robot.num_joints + 2 * robot.num_tips + 4)
    if batch * count > most:
        raise OptionError(
            f"{name} is {count}; for {batch} targets it must be at most {most // batch}"
        )


def check_positive(name: str, value: Any, what: str = "positive", or_none: bool = False) -> None:
    """OptionError where a value is no number above 0; None is right where it is allowed."""
    if not ((is_number(value) and value > 0) or (or_none and value is None)):
        raise OptionError(f"{name} is {value!r}; it must be {what}{', or None' if or_none else ''}")


def check_flag(name: str, value: Any) -> None:
    """OptionError where a value is neither True nor False."""
    if not isinstance(value, bool | np.bool_):
        raise OptionError(f"{name} is {value!r}; it must be True or False")


def check_seed(seed: Any) -> None:
    """OptionError where a seed of random numbers is neither None nor an integer of 64 bits."""
    right = isinstance(seed, Integral) and not isinstance(seed, bool)
    if seed is not None and not (right and -(2**63) <= int(seed) < 2**64):
        raise OptionError(f"seed is {seed!r}; it must be an integer of 64 bits, or None")


def at_frames(robot: Robot, tips: Any) -> Robot:
    """The robot, with the frames among the names of tips in place of the tips they are fixed to.

    Raises:
        LinkError: a link is fixed to no tip, or two are fixed to one.
    """
    names = [tips] if isinstance(tips, str) else tips
    known = isinstance(names, Sequence) and all(
        isinstance(name, str) and name in robot.frames for name in names
    )
    return robot.at_frames(names) if known else robot  # else `check_tips` says what is wrong


def check_tips(robot: Robot, tips: Any) -> tuple[int, ...]:
    """Indices of the tips that targets are given for, in the targets' order; None: all tips.

    Raises:
        LinkError: no tip, an unknown one, or one named twice.
    """
    if tips is None:
        return tuple(range(robot.num_tips))
    exist = f"robot {robot.name!r} has the tips {', '.join(robot.tips)}"
    if not isinstance(tips, Iterable):
        raise LinkError(f"tips is {tips!r}; {exist}")
    names = [tips] if isinstance(tips, str) else list(tips)
    if not names:
        raise LinkError(f"tips is empty; {exist}")
    for name in names:
        if name not in robot.tips:
            raise LinkError(f"unknown tip {name!r}; {exist}")
        if names.count(name) > 1:
            raise LinkError(f"tip {name!r} is named twice; {exist}")
    return tuple(robot.tips.index(name) for name in names)


def check_free_axes(robot: Robot, tips: tuple[int, ...], free_axes: Any) -> np.ndarray | None:
    """What is asked for of each tip, (T, 6) bool along `AXES`; None: everything.

    Args:
        robot: whose tips.
        tips: indices of the tips that targets are given for.
        free_axes: tip to the axes of its target that may be anything, as "rx ry rz"; or None.

    Raises:
        LinkError: an unknown tip, or one without a target.
        OptionError: unknown axes, or nothing is left to ask for.
    """
    if free_axes is None and len(tips) == robot.num_tips:
        return None
    asked = np.zeros((robot.num_tips, 6), bool)
    asked[list(tips)] = True
    if free_axes is not None and not isinstance(free_axes, Mapping):
        raise OptionError(
            f"free_axes is {free_axes!r}; it must be a mapping of tips to axes such as 'rx ry rz'"
        )
    for tip, axes in (free_axes or {}).items():
        if tip not in robot.tips or robot.tips.index(tip) not in tips:
            named = ", ".join(robot.tips[index] for index in tips)
            raise LinkError(f"free_axes names {tip!r}; the tips with a target are {named}")
        if not isinstance(axes, Iterable):
            raise OptionError(f"free_axes of {tip!r} is {axes!r}; axes are {' '.join(AXES)}")
        names = axes.split() if isinstance(axes, str) else list(axes)
        unknown = [name for name in names if name not in AXES]
        if unknown:
            raise OptionError(
                f"free_axes of {tip!r} has {unknown[0]!r}; axes are {' '.join(AXES)}, "
                "of the target's frame"
            )
        asked[robot.tips.index(tip), [AXES.index(name) for name in names]] = False
    if not asked.any():
        raise OptionError("all axes of all tips are free; nothing is asked for")
    return None if asked.all() else asked


def same_axes(T_tip_frame: np.ndarray, asked: np.ndarray) -> bool:
    """Whether axes that are free at frames are free in the same way at the tips.

    Args:
        T_tip_frame: (T, 4, 4), of frames that are fixed to the tips.
        asked: (T, 6) bool along `AXES`.
    """
    for T, constrained in zip(T_tip_frame, asked, strict=True):
        motions = np.eye(6)[:, ~constrained]
        turning = T[:3, :3] @ motions[3:]
        moved = np.concatenate((T[:3, :3] @ motions[:3] + np.cross(T[:3, 3], turning.T).T, turning))
        if np.abs(moved[constrained]).max(initial=0.0) >= _SAME_AXES:
            return False
    return True


def check_tolerance(robot: Robot, tips: tuple[int, ...], value: Any, name: str) -> Any:
    """A tolerance for all tips, or (T,): one for each target, brought to the robot's order.

    Raises:
        OptionError: not positive, or neither one nor as many as there are targets.
    """
    if isinstance(value, float) and value > 0:
        return value
    try:
        tolerance = np.array(value, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise OptionError(f"{name} is {value!r}; it must be positive") from error
    if isinstance(value, bool) or not (tolerance > 0).all():
        raise OptionError(f"{name} is {value!r}; it must be positive")
    if tolerance.ndim == 0:
        return float(tolerance)
    if tolerance.shape != (len(tips),):
        names = ", ".join(robot.tips[index] for index in tips)
        raise OptionError(
            f"{name} has the shape {tolerance.shape}; it must be one number, or one for each of "
            f"{names}"
        )
    every = np.full(robot.num_tips, tolerance.max())
    every[list(tips)] = tolerance
    return every


def check_targets(robot: Robot, targets: Any, tips: tuple[int, ...] | None = None) -> np.ndarray:
    """Target poses as (B, T, 4, 4) float64, rotations made orthonormal to the last digit.

    Args:
        robot: whose tips.
        targets: (B, G, 4, 4), or (B, 4, 4) for one tip.
        tips: indices of the G tips that targets are given for; None: all. Others come back with
            the identity.

    Raises:
        TargetError: wrong shape, not numbers, not finite, not a rigid transform, or farther away
            than `FARTHEST_TARGET`.
    """
    every_tip = tuple(range(robot.num_tips))
    tips = every_tip if tips is None else tips
    count = len(tips)
    try:
        array = array_from(targets)
        if np.iscomplexobj(array):
            raise TypeError("they are complex")
        T_base_tip = np.array(array, dtype=np.float64, order="C")
    except (TypeError, ValueError, OverflowError) as error:
        raise TargetError(f"targets are not an array of numbers: {error}") from error
    if T_base_tip.ndim == 3 and count == 1:
        T_base_tip = T_base_tip[:, None]
    if T_base_tip.ndim != 4 or T_base_tip.shape[1:] != (count, 4, 4):
        one = "(B, 4, 4) or " if count == 1 else ""
        names = ", ".join(robot.tips[index] for index in tips)
        what = "with the tips" if count == robot.num_tips else "with targets for"
        raise TargetError(
            f"targets have the shape {np.shape(array)}; robot {robot.name!r} "
            f"{what} {names} takes {one}(B, {count}, 4, 4)"
        )
    deviation = make_orthonormal(T_base_tip)
    if deviation > RIGID_TOLERANCE:
        raise _why_not_rigid(np.array(array, dtype=np.float64).reshape(T_base_tip.shape))
    if np.abs(T_base_tip).max(initial=0.0) > FARTHEST_TARGET:
        raise TargetError(
            f"targets have a position {np.abs(T_base_tip).max():.3g} m away; "
            f"{FARTHEST_TARGET:g} m is the farthest"
        )
    if deviation > ROUNDED:
        _say_that_poses_are_rounded()
    if tips == every_tip:
        return T_base_tip
    every = np.tile(np.eye(4), (len(T_base_tip), robot.num_tips, 1, 1))
    every[:, list(tips)] = T_base_tip
    return every


@cache
def _say_that_poses_are_rounded() -> None:
    _LOG.warning("targets are rounded: the nearest rigid transforms are taken (said once)")


def _why_not_rigid(T_base_tip: np.ndarray) -> TargetError:
    if not np.isfinite(T_base_tip).all():
        return TargetError("targets have entries that are not finite")
    rotation = T_base_tip[..., :3, :3]
    gram = rotation.swapaxes(-1, -2) @ rotation
    deviation = max(
        np.abs(gram - np.eye(3)).max(initial=0.0),
        np.abs(T_base_tip[..., 3, :] - (0, 0, 0, 1)).max(initial=0.0),
    )
    return TargetError(
        f"targets are not rigid transforms: R^T R or the last row is off by {deviation:.2g} "
        f"(allowed {RIGID_TOLERANCE:g}), or a determinant is -1"
    )


def check_seed_state(
    robot: Robot, seed_state: Any, batch: int, name: str = "seed_state"
) -> np.ndarray | None:
    """Seed states as (B, J) float64 within the limits, or None when none is given.

    One that is a little outside of them is clipped. Continuous joints keep their turn.

    Raises:
        SeedError: wrong shape, not numbers, not finite, or far outside the limits.
    """
    if seed_state is None:
        return None
    joints = robot.num_joints
    try:
        array = array_from(seed_state)
        if np.iscomplexobj(array):
            raise TypeError("they are complex")
        seeds = np.array(array, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise SeedError(f"{name} is not an array of numbers: {error}") from error
    if seeds.shape not in ((joints,), (batch, joints)):
        raise SeedError(
            f"{name} has the shape {seeds.shape}; it must be ({joints},) or ({batch}, {joints})"
        )
    seeds = seeds if seeds.ndim == 2 else np.repeat(seeds[None], batch, 0)
    if ((seeds >= robot.lower) & (seeds <= robot.upper)).all():
        return seeds
    if not np.isfinite(seeds).all():
        raise SeedError(f"{name} has values that are not finite: {seeds.tolist()}")
    outside = ~robot.continuous & (
        (seeds < robot.lower - SEED_TOLERANCE) | (seeds > robot.upper + SEED_TOLERANCE)
    )
    if outside.any():
        row, joint = np.argwhere(outside)[0]
        raise SeedError(
            f"{name} has {robot.joint_names[joint]} = {seeds[row, joint]:g}; "
            f"its limits are [{robot.lower[joint]:g}, {robot.upper[joint]:g}]"
        )
    if said := far_joint(robot, seeds):
        raise SeedError(f"{name} has {said}")
    return robot.clipped(seeds)


def check_world(robot: Robot, world: Any) -> Scene:
    """What a world is now, or a `WorldError` where it is none, or one of another robot.

    A snapshot of a world stays what it is. Which frames fixed to its tips a robot is solved for
    makes no difference to a world.
    """
    if not isinstance(world, World | Scene):
        raise WorldError(f"world is {world!r}; it must be a World")
    other = world.robot
    if other.tips != robot.tips:
        with suppress(LinkError):
            other = other.at_frames(robot.tips)
    if other is not robot:
        same = other.urdf_path == robot.urdf_path and other.fingerprint() == robot.fingerprint()
        if not same:
            raise WorldError(
                f"the world is of the robot {other.name!r}, with {len(other.joint_names)} joints; "
                f"this is {robot.name!r}, with {len(robot.joint_names)}"
            )
    return world if isinstance(world, Scene) else world.snapshot()
