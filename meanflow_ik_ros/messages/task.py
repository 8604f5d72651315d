# SPDX-License-Identifier: Apache-2.0
"""The task of a request: which axes of which tips it constrains, and by what objectives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from meanflow_ik_core.errors import IKError, OptionError
from meanflow_ik_core.objectives import build_objectives, spec_from_text
from meanflow_ik_core.solving.inputs import check_free_axes, check_links_free_axes
from meanflow_ik_ros.messages.errors import Codes, RequestError

if TYPE_CHECKING:
    from meanflow_ik_core.robot.robot import Robot
    from meanflow_ik_ros.messages.tips import TipLinks
    from meanflow_ik_ros.parameters import NodeParameters


@dataclass(frozen=True, eq=False)
class Task:
    """What solutions have to do beyond complete targets of all tips.

    tips: indices that have targets, rising; None: all.
    free_axes: tip to axes of its target that may be anything, as `IKSolver.solve` takes them.
    axes: (T, 6) bool along x y z rx ry rz, which are constrained; None: all.
    objectives: as `IKSolver.solve` takes them.
    """

    tips: tuple[int, ...] | None = None
    free_axes: Mapping[str, str] | None = None
    axes: np.ndarray | None = None
    objectives: tuple[Any, ...] = ()

    def arguments(self, targets: np.ndarray, robot: Robot) -> dict[str, Any]:
        """Targets (B, T, 4, 4) and this task, as `IKSolver.solve` takes them."""
        arguments = {"free_axes": self.free_axes, "objectives": self.objectives}
        if self.tips is None:
            return {"targets": targets, **arguments}
        names = [robot.tips[tip] for tip in self.tips]
        return {"targets": targets[:, list(self.tips)], "tips": names, **arguments}

    def of_tips(self, values: np.ndarray) -> np.ndarray:
        """Those of values (T, ...) whose tips have targets."""
        return values if self.tips is None else values[list(self.tips)]


COMPLETE = Task()


def task_from_request(
    request: Any, links: TipLinks, robot: Robot, parameters: NodeParameters
) -> Task:
    """The task of a request; the node's objectives where the request has none.

    Args:
        request: has free_axes, one text per link or none at all, and objectives.

    Raises:
        RequestError: not one text per link, unknown axes, nothing is asked for, axes that are free
            at the link but not at the tip, or an objective that does not exist.
    """
    free_axes = list(request.free_axes)
    texts = list(request.objectives) or list(parameters.objectives)
    if not free_axes and not texts and len(links.tips) == robot.num_tips:
        return COMPLETE
    try:
        tips, free, axes = tips_and_axes(free_axes, links, robot)
        return Task(tips, free, axes, objectives_from_texts(texts, robot))
    except IKError as error:
        raise RequestError(Codes.INVALID_GOAL_CONSTRAINTS, str(error)) from error


def tips_and_axes(
    free_axes: Sequence[str], links: TipLinks, robot: Robot
) -> tuple[tuple[int, ...] | None, Mapping[str, str] | None, np.ndarray | None]:
    """The fields `tips`, `free_axes` and `axes` of a `Task`.

    Raises:
        OptionError: as `task_from_request` says.
    """
    if free_axes and len(free_axes) != len(links.names):
        raise OptionError(
            f"{len(free_axes)} free_axes for {len(links.names)} tip links "
            f"({', '.join(links.names)}), expected none, or one for each"
        )
    tips = tuple(sorted(links.tips))
    free = {
        robot.tips[tip]: axes
        for tip, axes in zip(links.tips, free_axes, strict=False)
        if axes.strip()
    }
    axes = check_free_axes(robot, tips, free)
    if axes is not None:
        check_links_free_axes(robot, links.names, free)
    return None if len(tips) == robot.num_tips else tips, free or None, axes


def objectives_from_texts(texts: Sequence[str], robot: Robot) -> tuple[Any, ...]:
    """Objectives as `IKSolver.solve` takes them, from a name or YAML each; empty texts say nothing.

    Raises:
        OptionError: a text is not YAML, or no such objective exists.
        LinkError: an objective names a link that does not exist.
    """
    specs = [spec_from_text(text) for text in texts if text.strip()]
    build_objectives(specs, robot)
    return tuple(specs)
