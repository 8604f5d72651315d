# SPDX-License-Identifier: Apache-2.0
"""What a request asks for beyond complete poses: some tips only, free axes, objectives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from meanflow_ik_core.errors import IKError
from meanflow_ik_core.inputs import check_free_axes
from meanflow_ik_core.objectives import build_objectives

if TYPE_CHECKING:
    from meanflow_ik_core.robot import Robot

_SAME_AXES = 1e-9


class WishError(IKError):
    """Free axes or objectives that are not what they should be."""


@dataclass(frozen=True, eq=False)
class Asked:
    """What is asked for of each tip.

    tips: indices that have targets, rising; None: all.
    free_axes: tip to axes of its target that may be anything, as `IKSolver.solve` takes them.
    axes: (T, 6) bool along x y z rx ry rz; None: everything.
    """

    tips: tuple[int, ...] | None = None
    free_axes: Mapping[str, str] | None = None
    axes: np.ndarray | None = None

    def arguments(self, targets: np.ndarray, robot: Robot) -> dict[str, Any]:
        """Targets (B, T, 4, 4), tips and free axes as `IKSolver.solve` takes them."""
        if self.tips is None:
            return {"targets": targets, "free_axes": self.free_axes}
        names = [robot.tips[tip] for tip in self.tips]
        given = targets[:, list(self.tips)]
        return {"targets": given, "tips": names, "free_axes": self.free_axes}

    def of_tips(self, values: np.ndarray) -> np.ndarray:
        """Those of values (T, ...) whose tips have targets."""
        return values if self.tips is None else values[list(self.tips)]


COMPLETE = Asked()


def asked_from_request(
    order: Sequence[int],
    links: Sequence[str],
    free_axes: Sequence[str],
    T_tip_frame: np.ndarray,
    robot: Robot,
) -> Asked:
    """What a request asks for.

    Args:
        order: tips in the order of the links.
        links: what the request's targets are about.
        free_axes: one text of axes per link, or none at all.
        T_tip_frame: (T, 4, 4) the links, seen from the robot's tips.

    Raises:
        WishError: not one text per link, or axes that are free at the link but not at the tip.
        IKError: unknown axes, or nothing is asked for.
    """
    if free_axes and len(free_axes) != len(links):
        raise WishError(
            f"{len(free_axes)} free_axes for {len(links)} tip links ({', '.join(links)}), expected "
            "none, or one for each"
        )
    given = tuple(sorted(order))
    free = {
        robot.tips[tip]: axes for tip, axes in zip(order, free_axes, strict=False) if axes.strip()
    }
    axes = check_free_axes(robot, given, free)
    for tip, link in zip(order, links, strict=True):
        if axes is not None and not _same_at_frame(~axes[tip], T_tip_frame[tip]):
            raise WishError(
                f"free_axes {free[robot.tips[tip]]!r} of {link}: they are not those of the robot's "
                f"tip {robot.tips[tip]}; load the robot with {link} as its tip"
            )
    every = given == tuple(range(robot.num_tips))
    return Asked(None if every else given, free or None, axes)


def _same_at_frame(free: np.ndarray, T_tip_frame: np.ndarray) -> bool:
    """Whether motions along free axes (6,) of a frame are such of the tip that it is fixed to."""
    rotation, shift = T_tip_frame[:3, :3], T_tip_frame[:3, 3]
    motions = np.eye(6)[:, free]
    turning = rotation @ motions[3:]
    moved = np.concatenate((rotation @ motions[:3] + np.cross(shift, turning.T).T, turning))
    return bool(np.abs(moved[~free]).max(initial=0.0) < _SAME_AXES)


def objectives_from_texts(texts: Sequence[str], robot: Robot) -> tuple[Any, ...]:
    """Objectives as `IKSolver.solve` takes them, from a name or YAML each; empty texts say nothing.

    Raises:
        WishError: a text is not YAML, or no such objective exists.
    """
    specs = []
    for text in texts:
        if not text.strip():
            continue
        try:
            specs.append(yaml.safe_load(text))
        except yaml.YAMLError as error:
            raise WishError(f"objective {text!r} is not YAML: {error}") from error
    try:
        build_objectives(specs, robot)
    except IKError as error:
        raise WishError(str(error)) from error
    return tuple(specs)
