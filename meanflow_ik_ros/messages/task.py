# SPDX-License-Identifier: Apache-2.0
"""The task of a request: which axes of which tips it constrains, and by what objectives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from meanflow_ik_core.bounds import MOST_OBJECTIVES
from meanflow_ik_core.errors import IKError, OptionError
from meanflow_ik_core.objectives import build_objectives, spec_from_text
from meanflow_ik_core.solving.inputs import check_free_axes
from meanflow_ik_ros.messages.errors import Codes, RequestError

if TYPE_CHECKING:
    from meanflow_ik_core.robot.robot import Robot
    from meanflow_ik_ros.messages.tips import TipLinks
    from meanflow_ik_ros.parameters import NodeParameters


@dataclass(frozen=True, eq=False)
class Task:
    """What solutions have to do beyond complete targets of the robot's own tips.

    tips: indices that have targets, rising; None: all.
    links: that the targets are for, in the order of these tips; None: the tips themselves.
    free_axes: link to axes of its target that may be anything, as `IKSolver.solve` takes them.
    objectives: as `IKSolver.solve` takes them.
    """

    tips: tuple[int, ...] | None = None
    links: tuple[str, ...] | None = None
    free_axes: Mapping[str, str] | None = None
    objectives: tuple[Any, ...] = ()

    def goal(self, T_base_link: np.ndarray) -> dict[str, Any]:
        """Poses (B, T, 4, 4) of the links, or tips, and this task, as `IKSolver.solve` and
        `solve_path` take them."""
        targets = T_base_link if self.tips is None else T_base_link[:, list(self.tips)]
        return {"targets": targets, "tips": self.links, "free_axes": self.free_axes}

    def of_tips(self, values: np.ndarray) -> np.ndarray:
        """Those of values (T, ...) whose tips have targets."""
        return values if self.tips is None else values[list(self.tips)]


COMPLETE = Task()


def task_from_request(
    free_axes: Sequence[str],
    objectives: Sequence[str],
    links: TipLinks,
    robot: Robot,
    parameters: NodeParameters,
) -> Task:
    """The task of a request.

    Args:
        free_axes: one text per link, or none at all: then the node's.
        objectives: names or YAML.
        links: that the targets are for.
        robot: whose tips.
        parameters: the node's.

    Raises:
        RequestError: not one text per link, unknown axes, nothing is asked for, or an objective
            that does not exist.
    """
    own = dict(zip(links.names, axes_of_tips(parameters, robot, links.tips), strict=True))
    if free_axes and len(free_axes) != len(links.names):
        raise RequestError(
            Codes.INVALID_GOAL_CONSTRAINTS,
            f"{len(free_axes)} free_axes for {len(links.names)} tip links "
            f"({', '.join(links.names)}), expected none, or one for each",
        )
    axes = dict(zip(links.names, free_axes, strict=True)) if free_axes else own
    free = {link: text for link, text in axes.items() if text.strip()}
    ordered = tuple(name for _, name in sorted(zip(links.tips, links.names, strict=True)))
    if not free and not objectives and ordered == robot.tips:
        return COMPLETE
    try:
        check_free_axes(robot.at_frames(ordered), tuple(sorted(links.tips)), free)
        wanted = objectives_from_texts(objectives, robot)
    except IKError as error:
        raise RequestError(Codes.INVALID_GOAL_CONSTRAINTS, str(error)) from error
    tips = None if len(ordered) == robot.num_tips else tuple(sorted(links.tips))
    return Task(tips, None if ordered == robot.tips else ordered, free or None, wanted)


def axes_of_tips(parameters: NodeParameters, robot: Robot, tips: Sequence[int]) -> list[str]:
    """The node's free axes of some tips: it has one text for all tips, or one for each.

    Raises:
        OptionError: it has another number of texts.
    """
    texts = list(parameters.free_axes) or [""]
    if len(texts) not in (1, robot.num_tips):
        raise OptionError(
            f"parameter free_axes has {len(texts)} texts; it must have one for all tips, or one "
            f"for each of {', '.join(robot.tips)}"
        )
    every = texts * robot.num_tips if len(texts) == 1 else texts
    return [every[tip] for tip in tips]


def objectives_from_texts(texts: Sequence[str], robot: Robot) -> tuple[Any, ...]:
    """Objectives as `IKSolver.solve` takes them, from a name or YAML each; empty texts say nothing.

    Raises:
        OptionError: a text is not YAML, or no such objective exists.
        LinkError: an objective names a link that does not exist.
    """
    if len(texts) > MOST_OBJECTIVES:
        raise OptionError(f"{len(texts)} objectives; {MOST_OBJECTIVES} are the most")
    specs = [spec_from_text(text) for text in texts if text.strip()]
    build_objectives(specs, robot)
    return tuple(specs)
