# SPDX-License-Identifier: Apache-2.0
"""How far a robot is from obstacles: fast, in batches and differentiable, on spheres."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..kernels.obstacles import GRID, SIZES, obstacle_distances
from .obstacle_arrays import ObstacleArrays
from .sphere_bodies import find_bodies, find_homes, fitted_obstacle, lanes_of_motion, moved_centres
from .world_check import WorldCheck

_ROWS_PER_PASS = 2048  # as many as stay in the caches
# Edges of a cell: a surface is at a point of the grid that is near it (1.3, see `mark_triangles`),
# values between those of eight of its points (0.9). The middle of a cell of a cloud is nearer to
# such a point (0.9), but the cell is solid up to its corners (0.4).
_GRID_OFF = 2.2


class WorldDistance:
    """Spheres instead of the shapes of all links that move, and of what is attached to them.

    Attributes:
        links: names of the L bodies with spheres, links and attached obstacles.
    """

    def __init__(
        self,
        check: WorldCheck,
        may_touch: Callable[[Sequence[str]], np.ndarray],
        padding: float,
        arrays: ObstacleArrays,
        without: frozenset[str] = frozenset(),
    ):
        """Find spheres, or take those found before.

        Args:
            check: of the same obstacles.
            may_touch: (N, O) bool of N links or attached obstacles: which obstacles they may touch.
            padding: m, added to that of the obstacles and of the links.
            arrays: of the obstacles that are not attached.
            without: bodies that are left out.

        Raises:
            RobotError: a collision shape has no surface.
        """
        robot = self._robot = check.robot
        bodies = find_bodies(robot, check.own, [x for x in check.moving if x not in without])
        pads = [robot.padding.get(link, 0.0) for link in bodies.links]
        sizes = np.diff(bodies.first)
        names, node, centre, radius = list(bodies.links), [bodies.node], [bodies.centre], []
        self._check, self._homes = check, list(bodies.links)  # links that the bodies are rigid to
        radius.append(bodies.radius + np.repeat(pads, sizes))
        lacks = bodies.lack.tolist()
        carried = [one for one in check.obstacles if one.link and one.name not in without]
        for obstacle, home, T_node_link in _homes(check, [one.link or "" for one in carried]):
            one = carried[obstacle]
            spheres, lack = fitted_obstacle(replace(one, pose=T_node_link @ one.pose))
            names.append(one.name)
            self._homes.append(one.link or "")
            node.append(np.full(len(spheres.radius), home))
            centre.append(spheres.centre)
            radius.append(spheres.radius + one.padding)
            lacks.append(lack)
            sizes = np.append(sizes, len(spheres.radius))
        self.links = tuple(names)
        self._places = [i for i, one in enumerate(check.obstacles) if one.link is None]
        body, obstacle = np.nonzero(~may_touch(names)[:, self._places])
        self._spheres = _with_links_around(
            np.concatenate(node).astype(np.int64), np.concatenate(centre),
            np.concatenate(radius) + padding, np.concatenate(([0], np.cumsum(sizes))),
        )  # fmt: skip
        first = np.searchsorted(body, np.arange(len(names) + 1))
        self._pairs = first, np.ascontiguousarray(obstacle)
        self._arrays = arrays
        self._lack = max(lacks, default=0.0)
        self._at: tuple[Sequence[np.ndarray], WorldDistance] | None = None

    def holding(self, check: WorldCheck) -> "WorldDistance":
        """The same distances with the held joints where another check of the world holds them."""
        moved = copy.copy(self)
        node, centre, radius, first = self._spheres
        count, links = first[-1], len(self._homes)
        own, before = check.own, self._check.own.kinematics
        inner = moved_centres(own, before, self._homes, first, node[:count], centre[:count])
        around = moved_centres(
            own, before, self._homes, np.arange(links + 1), node[count:], centre[count:]
        )
        moved._spheres = node, np.concatenate((inner, around)), radius, first
        moved._check, moved._at = check, None
        return moved

    def at(self, poses: Sequence[np.ndarray]) -> "WorldDistance":
        """The distances where the check's obstacles have these poses."""
        known = self._at
        if known is None or known[0] is not poses:
            moved = copy.copy(self)
            moved._arrays = self._arrays.at([poses[place] for place in self._places])
            known = self._at = poses, moved
        return known[1]

    @property
    def slack(self) -> float:
        """m that a link may be nearer to an obstacle at most than the distance says."""
        kinds, numbers, _ = self._arrays
        edges = numbers[kinds[:, 0] == GRID, SIZES + 3]
        return self._lack + _GRID_OFF * float(edges.max(initial=0.0))

    def reach(self, num_nodes: int) -> np.ndarray:
        """(K,) m from the origin of each node to the farthest sphere that is fixed to it."""
        node, centre, _, first = self._spheres
        reach = np.zeros(num_nodes)
        own = np.flatnonzero(node[: first[-1]] >= 0)
        np.maximum.at(reach, node[own], np.linalg.norm(centre[own], axis=-1))
        return reach

    def distance(self, q: Any, cap: float = np.inf) -> Any:
        """(...) m of q (..., J), see `World.distance`."""
        if hasattr(q, "detach"):
            from .tensor_distance import distance_of_tensor

            return distance_of_tensor(self, q, cap)
        array = np.asarray(q)
        dtype = array.dtype if array.dtype == np.float32 else np.float64
        flat = array.reshape(-1, array.shape[-1])
        return self.of(flat, cap)[0][:, 0].astype(dtype).reshape(array.shape[:-1])

    def of(
        self, q: np.ndarray, cap: float = np.inf, of_links: bool = False, gradient: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Distances (N, R) m of q (N, J), and their gradients (N, R, J) where they are wanted.

        Args:
            q: rad or m.
            cap: m, what is farther is this far, and has the gradient 0.
            of_links: whether each of the L bodies has a distance of its own.
            gradient: whether gradients are wanted.

        Returns:
            R is L or 1; a row of q that is not finite has NaN.
        """
        robot = self._robot
        q = np.asarray(q, np.float64)
        num_rows = len(self.links) if of_links else 1
        found = np.full((len(q), num_rows), cap, np.float64)
        slopes = np.zeros((len(q) if gradient else 0, num_rows, robot.num_joints))
        known = np.isfinite(q).all(-1)
        rows = np.flatnonzero(known)
        for begin in range(0, len(rows) if len(self._pairs[1]) else 0, _ROWS_PER_PASS):
            some = rows[begin : begin + _ROWS_PER_PASS]
            arguments = (
                lanes_of_motion(robot, q[some]), robot.parent, robot.prismatic, robot.placement,
                robot.joint, robot.multiplier, robot.num_joints, *self._spheres, *self._pairs,
                *self._arrays, cap, of_links, gradient,
            )  # fmt: skip
            distances, gradients = obstacle_distances(*arguments)
            found[some] = distances[: len(some)]
            if gradient:
                slopes[some] = gradients[: len(some)]
        found[~known] = np.nan
        return found, slopes


def _homes(check: WorldCheck, links: Sequence[str]) -> list[tuple[int, int, np.ndarray]]:
    """For each place of a list of links its number, the node it moves with, and T_node_link."""
    if not links:
        return []
    q = check.robot.random_configurations(3, np.random.default_rng(0))
    poses = check.own.kinematics.link_poses(q, links)
    return [(place, *home) for place, home in enumerate(find_homes(check.robot, q, poses))]


def _with_links_around(
    node: np.ndarray, centre: np.ndarray, radius: np.ndarray, first: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Node, centre, radius of all spheres and of one around each link, and first spheres."""
    links = len(first) - 1
    around_node, middle, around = np.zeros(links, np.int64), np.zeros((links, 3)), np.zeros(links)
    for link in range(links):
        own = slice(first[link], first[link + 1])
        around_node[link] = node[own][0]
        middle[link] = 0.5 * (centre[own].min(0) + centre[own].max(0))
        around[link] = (np.linalg.norm(centre[own] - middle[link], axis=-1) + radius[own]).max()
    return (
        np.append(node, around_node).astype(np.int64), np.append(centre, middle, 0),
        np.append(radius, around), first.astype(np.int64),
    )  # fmt: skip
