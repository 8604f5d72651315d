# SPDX-License-Identifier: Apache-2.0
"""The exact answer for a 7-joint arm: all solutions of a pose as curves, and how likely each is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import TargetError
from ..kernels.step_settings import StepSettings
from ..robot.robot import Robot
from ..solving.least_squares import iterate, pose_errors
from .closed_form import ClosedForm
from .distribution import squared_distances

_SWEEP = 256  # values of the last joint to begin with
_REFINEMENTS = 8  # each divides steps of the sweep by four
_LONGEST_LINK = 0.05  # rad; neighbours farther apart are not known to be on one curve
_LONGEST_JOIN = 0.5  # rad, over a turning point or a value of q7 that the closed form missed
_TURNING_POINT = 0.01  # rad; closer ends belong together, whatever rounding says of directions
_NEAR_LIMITS = 0.2  # rad; solutions farther outside do not matter
_SAME = 1e-6  # rad
_SHORTEST_BRANCH = 0.01  # rad; shorter ones come from rounding
_PROJECTION_STEPS = 20
_EXACT = 1e-9  # m and rad


@dataclass(frozen=True, eq=False)
class SolutionCurve:
    """The solutions of one pose within the limits, as links of branches, and p(q | pose).

    For q uniform within the limits, p(q | pose) has the density 1 / sqrt(det J J^T) per arc
    length, which is 1 / |det J_1..6| per q7 (coarea formula). A branch is a connected piece of
    the curve.
    """

    robot: Robot
    T_base_tip: np.ndarray  # (4, 4)
    start: np.ndarray  # (L, 7) rad, one end of each link
    end: np.ndarray  # (L, 7) rad
    length: np.ndarray  # (L,) rad
    mass: np.ndarray  # (L,) probability; sums to 1
    branch: np.ndarray  # (L,) int64, 0 is the most likely one

    @property
    def middle(self) -> np.ndarray:
        """(L, 7) rad; off the curve by less than 1e-3 rad where it is not nearly singular."""
        return 0.5 * (self.start + self.end)

    @property
    def branch_mass(self) -> np.ndarray:
        """(R,) probability of each branch, descending."""
        return np.bincount(self.branch, self.mass)

    def sample(self, count: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draw from p(q | pose).

        Args:
            count: N.
            random: source of randomness.

        Returns:
            q (N, 7) rad, exact solutions within the limits, and the branch (N,) of each.
        """
        link = random.choice(len(self.mass), count, p=self.mass)
        along = random.random((count, 1))
        q = self.start[link] + along * (self.end[link] - self.start[link])
        near, exact = _project(self.robot, self.T_base_tip, q)
        # At a limit the projection may be stuck, next to a singularity it may leave the link.
        lost = ~exact | (np.linalg.norm(q - near, axis=-1) > self.length[link])
        near[lost] = self.start[link[lost]]
        return near, self.branch[link]

    def nearest_branch(self, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Branch (N,) that is nearest to each q (N, 7), and its distance (N,) in rad."""
        squared = squared_distances(q, self.middle)
        nearest = squared.argmin(-1)
        return self.branch[nearest], np.sqrt(squared[np.arange(len(q)), nearest])


def density_per_length(robot: Robot, q: np.ndarray) -> np.ndarray:
    """1 / sqrt(det J J^T) (N,) at q (N, J) of a robot with one tip."""
    jacobian = robot.jacobian(q)[:, 0]
    return 1 / np.sqrt(np.linalg.det(jacobian @ jacobian.swapaxes(-1, -2)))


def trace_solutions(
    closed_form: ClosedForm, T_base_tip: np.ndarray, q_last: float | None = None
) -> SolutionCurve:
    """Find all solutions of a pose (4, 4), linked to branches.

    Sweeps the last joint, links mutual nearest neighbours of neighbouring values, and refines
    the steps where links are long or solutions appear or vanish.

    Args:
        closed_form: of the arm.
        T_base_tip: (4, 4).
        q_last: rad, of a known solution, whose branch may be too short for the sweep.

    Raises:
        TargetError: the pose has no solution within the limits, so that nothing has a probability.
    """
    robot = closed_form.robot
    q, links = _sweep(closed_form, T_base_tip, () if q_last is None else (q_last,))
    if len(q) == 0:
        raise TargetError("the pose has no solution")
    goes_on = ~np.isin(q[:, 6], (robot.lower[6], robot.upper[6]))
    for one, other in _loose_ends(q, links, goes_on & robot.within_limits(q, _NEAR_LIMITS)):
        q, links = _join(robot, T_base_tip, q, links, one, other)
    start, end, links = _cut_at_limits(robot, q, links)
    length = np.linalg.norm(end - start, axis=-1)
    branch = _components(len(q), links)[links[:, 0]]
    if len(branch) == 0:
        raise TargetError("the pose has no solution within the limits")
    total = np.bincount(branch, length)
    keep = total[branch] >= min(_SHORTEST_BRANCH, total.max())
    start, end, length, branch = start[keep], end[keep], length[keep], branch[keep]
    density = density_per_length(robot, start) + density_per_length(robot, end)
    mass = length * density / (length * density).sum()
    _, branch = np.unique(branch, return_inverse=True)
    rank = np.argsort(np.argsort(-np.bincount(branch, mass), kind="stable"), kind="stable")
    return SolutionCurve(robot, T_base_tip, start, end, length, mass, rank[branch])


def _sweep(
    closed_form: ClosedForm, T_base_tip: np.ndarray, known: tuple[float, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Solutions q (P, 7), within limits and not, and links (L, 2) between neighbouring q7."""
    x = np.empty(0)
    rows, q = np.empty(0, dtype=np.int64), np.empty((0, 7))
    more = np.union1d(closed_form.last_joint_sweep(_SWEEP), known)
    for _ in range(_REFINEMENTS + 1):
        more_rows, more_q = closed_form.solve(T_base_tip, more)
        rows = np.concatenate((rows, len(x) + more_rows))
        q = np.concatenate((q, more_q))
        x = np.concatenate((x, more))
        order = np.argsort(x, kind="stable")
        x = x[order]
        place = np.empty_like(order)
        place[order] = np.arange(len(x))
        by_row = np.argsort(place[rows], kind="stable")
        rows, q = place[rows][by_row], q[by_row]
        if len(q) == 0:
            return q, np.empty((0, 2), dtype=np.int64)
        links, open_gap = _link(closed_form.robot, rows, q, len(x))
        step = np.diff(x)[open_gap]
        more = np.concatenate([x[:-1][open_gap] + part * step for part in (0.25, 0.5, 0.75)])
        if len(more) == 0:
            break
    return q, links


def _link(
    robot: Robot, rows: np.ndarray, q: np.ndarray, num_rows: int
) -> tuple[np.ndarray, np.ndarray]:
    """Links (L, 2) between solutions of neighbouring rows, and which gaps (num_rows - 1,) have
    solutions that matter but no link."""
    count = np.bincount(rows, minlength=num_rows)
    column = np.arange(len(rows)) - np.repeat(np.cumsum(count) - count, count)
    table = np.full((num_rows, max(1, count.max(initial=0))), -1)
    table[rows, column] = np.arange(len(rows))
    # A solution that the closed form returns twice would take part in no mutual pair.
    within = _distances(q, table, table)
    lower = np.tril(np.ones(within.shape[1:], dtype=bool), -1)
    table[((within < _SAME) & lower).any(-1)] = -1
    distance = _distances(q, table[:-1], table[1:])
    to_next, to_last = distance.argmin(2), distance.argmin(1)
    gap, left = np.nonzero(distance.min(2) < _LONGEST_LINK)
    right = to_next[gap, left]
    mutual = to_last[gap, right] == left
    gap, left, right = gap[mutual], left[mutual], right[mutual]
    matters = np.zeros(table.shape, dtype=bool)
    matters[table >= 0] = robot.within_limits(q[table[table >= 0]], _NEAR_LIMITS)
    alone = np.stack((matters[:-1], matters[1:]))
    alone[0, gap, left] = alone[1, gap, right] = False
    links = np.column_stack((table[gap, left], table[gap + 1, right]))
    return links, np.asarray(alone.any((0, 2)))


def _distances(q: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(G, S, S) rad between the solutions of two tables (G, S) of indices; inf at -1."""
    squared = np.square(q[a][:, :, None] - q[b][:, None]).sum(-1)
    return np.where((a[:, :, None] < 0) | (b[:, None] < 0), np.inf, np.sqrt(squared))


def _loose_ends(q: np.ndarray, links: np.ndarray, goes_on: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of points with one link that continue one another, of those where the curve goes on."""
    degree = np.bincount(links.ravel(), minlength=len(q))
    inward = np.zeros_like(q)
    for one, other in (links.T, links.T[::-1]):
        inward[one] = q[other] - q[one]
    ends = np.flatnonzero((degree == 1) & goes_on)
    if len(ends) < 2:
        return []
    chord = q[ends][None] - q[ends][:, None]
    distance = np.linalg.norm(chord, axis=-1)
    inward = inward[ends] / np.linalg.norm(inward[ends], axis=-1, keepdims=True)
    # Only onward: at a turning point both sheets come from the same side.
    onward = np.einsum("abj,aj->ab", chord, inward) < -0.5 * distance
    allowed = (onward & onward.T & (distance < _LONGEST_JOIN)) | (distance < _TURNING_POINT)
    distance[~allowed | np.eye(len(ends), dtype=bool)] = np.inf
    pairs = []
    while np.isfinite(distance.min()):
        one, other = np.unravel_index(distance.argmin(), distance.shape)
        pairs.append((int(ends[one]), int(ends[other])))
        for taken in (one, other):
            distance[taken] = distance[:, taken] = np.inf
    return pairs


def _join(
    robot: Robot, T_base_tip: np.ndarray, q: np.ndarray, links: np.ndarray, one: int, other: int
) -> tuple[np.ndarray, np.ndarray]:
    """Solutions and links, with those between two ends added."""
    parts = int(np.ceil(np.linalg.norm(q[other] - q[one]) / _LONGEST_LINK))
    along = np.arange(1, parts)[:, None] / parts
    between, exact = _project(robot, T_base_tip, q[one] + along * (q[other] - q[one]))
    chord = np.diff(np.concatenate((q[[one]], between, q[[other]])), axis=0)
    if not exact.all() or np.linalg.norm(chord, axis=-1).max() > 2 * _LONGEST_LINK:
        return q, links  # they would be outside the limits
    chain = np.array([one, *range(len(q), len(q) + parts - 1), other])
    new = np.column_stack((chain[:-1], chain[1:]))
    return np.concatenate((q, between)), np.concatenate((links, new))


def _project(robot: Robot, T_base_tip: np.ndarray, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Solutions (N, 7) near q (N, 7), and which of them (N,) are exact; within the limits."""
    q, pose = q.copy(), T_base_tip[None, None]
    iterate(
        robot, q[None], pose, np.arange(len(q)), _PROJECTION_STEPS, _EXACT, _EXACT, StepSettings()
    )
    position, angle = (error[0, :, 0] for error in pose_errors(robot, q[None], pose))
    return q, (position <= _EXACT) & (angle <= _EXACT)


def _cut_at_limits(
    robot: Robot, q: np.ndarray, links: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The part of each link within the limits, its first end a solution; and the links kept."""
    inside = robot.within_limits(q)
    links = links[inside[links].any(-1)]
    links = np.where(inside[links[:, :1]], links, links[:, ::-1])
    start, end = q[links[:, 0]], q[links[:, 1]]
    step = end - start
    with np.errstate(divide="ignore", invalid="ignore"):
        room = np.where(step > 0, robot.upper - start, robot.lower - start) / step
    part = np.fmin(1, np.where(step == 0, np.inf, room).min(-1, initial=1))
    return start, start + part[:, None] * step, links


def _components(count: int, links: np.ndarray) -> np.ndarray:
    """(count,) the same number for points that links (L, 2) connect."""
    label = np.arange(count)
    while True:
        ends = label[links]
        lowest = ends.min(-1)
        new = label.copy()
        for side in (0, 1):
            np.minimum.at(new, ends[:, side], lowest)
        new = new[new]
        if (new == label).all():
            return label
        label = new
