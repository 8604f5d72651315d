# SPDX-License-Identifier: Apache-2.0
"""What a request asks for beyond complete poses: some tips only, free axes, objectives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from meanflow_ik_core.errors import OptionError
from meanflow_ik_core.objectives import build_objectives, spec_from_text
from meanflow_ik_core.solving.inputs import check_free_axes, check_links_free_axes

if TYPE_CHECKING:
    from meanflow_ik_core.robot.robot import Robot


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
    robot: Robot,
) -> Asked:
    """What a request asks for.

    Args:
        order: tips in the order of the links.
        links: what the request's targets are about.
        free_axes: one text of axes per link, or none at all.

    Raises:
        OptionError: not one text per link, unknown axes, nothing is asked for, or axes that are
            free at the link but not at the tip.
    """
    if free_axes and len(free_axes) != len(links):
        raise OptionError(
            f"{len(free_axes)} free_axes for {len(links)} tip links ({', '.join(links)}), expected "
            "none, or one for each"
        )
    given = tuple(sorted(order))
    free = {
        robot.tips[tip]: axes for tip, axes in zip(order, free_axes, strict=False) if axes.strip()
    }
    axes = check_free_axes(robot, given, free)
    if axes is not None:
        check_links_free_axes(robot, links, free)
    every = given == tuple(range(robot.num_tips))
    return Asked(None if every else given, free or None, axes)


def objectives_from_texts(texts: Sequence[str], robot: Robot) -> tuple[Any, ...]:
    """Objectives as `IKSolver.solve` takes them, from a name or YAML each; empty texts say nothing.

    Raises:
        OptionError: a text is not YAML, or no such objective exists.
        LinkError: an objective names a link that does not exist.
    """
    specs = [spec_from_text(text) for text in texts if text.strip()]
    build_objectives(specs, robot)
    return tuple(specs)
