# SPDX-License-Identifier: Apache-2.0
"""Branches of the solutions of a pose: which solutions are connected without leaving the pose.

Two solutions are taken to be connected where the way between them can be halved again and again:
its middle, refined to the pose, lies within the limits and between the two. Each solution tries the
nearest one of another branch. A solution of an arm without redundancy is a branch of its own.
"""

import numpy as np

from ..robot.robot import Robot
from ..solving.goal import Goal
from ..solving.refine import refine_lm

_ROUNDS = 4  # in which each solution tries another one
_FARTHEST = 3.0  # rad, of ways that are tried
_HALVINGS = 3  # of a way
_STRAY = 0.7  # of a way's length, what its middle may be away from either end
_STEPS = 8  # of refinement, for a middle


def count_branches(robot: Robot, goal: Goal, q: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """How many branches (B,) the solutions of B poses belong to.

    Args:
        robot: whose solutions.
        goal: the poses.
        q: (B, M, J) rad or m, all solutions different.
        valid: (B, M) bool: which rows are solutions.
    """
    most = valid.shape[1]
    own = np.arange(most, dtype=np.int16)
    branch = np.tile(own, (len(valid), 1))  # the lowest number of a solution in it
    linked = np.tile(np.eye(most, dtype=bool), (len(valid), 1, 1))
    length = _lengths(robot, q)
    length[~(valid[:, :, None] & valid[:, None] & (length < _FARTHEST))] = np.inf
    for _ in range(_ROUNDS):
        length[branch[:, :, None] == branch[:, None]] = np.inf
        problem, one, other = _nearest_pairs(length)
        if not len(problem):
            break
        length[problem, one, other] = length[problem, other, one] = np.inf
        connected = _connected(robot, goal.of(problem), q[problem, one], q[problem, other])
        problem, one, other = problem[connected], one[connected], other[connected]
        linked[problem, one, other] = linked[problem, other, one] = True
        _join(branch, linked, np.unique(problem))
    return ((branch == own) & valid).sum(1)


def _join(branch: np.ndarray, linked: np.ndarray, problems: np.ndarray) -> None:
    """Give solutions that links (B, M, M) connect the lowest branch (B, M) among them."""
    while len(problems):
        before = branch[problems]
        lowest = np.where(linked[problems], before[:, None], branch.shape[1]).min(2)
        branch[problems] = lowest
        problems = problems[(lowest != before).any(1)]


def _lengths(robot: Robot, q: np.ndarray) -> np.ndarray:
    """(B, M, M) float32 rad, of the ways between solutions (B, M, J)."""
    squared = np.zeros((*q.shape[:2], q.shape[1]), np.float32)
    for joint, is_continuous in enumerate(robot.continuous):
        values = q[..., joint].astype(np.float32)
        way = _short(values[:, :, None] - values[:, None], is_continuous)
        squared += way * way
    return np.sqrt(squared)


def _way(robot: Robot, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """From configurations (P, J) to others."""
    way = end - start
    way[:, robot.continuous] = _short(way[:, robot.continuous], True)
    return way


def _short(way: np.ndarray, is_continuous: bool) -> np.ndarray:
    """Differences of a joint, the short way round where it is continuous."""
    return way - 2 * np.pi * np.round(way / (2 * np.pi)) if is_continuous else way


def _nearest_pairs(length: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Problems and two of their solutions: each and its nearest, by lengths (B, M, M), once."""
    problem, one = np.nonzero(np.isfinite(length.min(2)))
    other = length[problem, one].argmin(1)
    flat = np.ravel_multi_index(
        (problem, np.minimum(one, other), np.maximum(one, other)), length.shape
    )
    problem, one, other = np.unravel_index(np.unique(flat), length.shape)
    return problem, one, other


def _connected(robot: Robot, goal: Goal, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Whether solutions (P, J) are connected with others of the same P poses."""
    connected = np.ones(len(start), bool)
    pair = np.arange(len(start))  # that a part of a way belongs to
    for _ in range(_HALVINGS):
        way = _way(robot, start, end)
        refined = refine_lm(
            robot, (start + 0.5 * way)[:, None], goal.T_base_tip[pair], goal.position_tolerance,
            goal.orientation_tolerance, _STEPS, axis_weights=goal.axis_weights, recombining=False,
        )  # fmt: skip
        middle = refined.q[:, 0]
        halves = [np.linalg.norm(_way(robot, middle, one), axis=-1) for one in (start, end)]
        between = np.maximum(*halves) <= _STRAY * np.linalg.norm(way, axis=-1)
        connected[pair[~(refined.converged[:, 0] & between)]] = False
        kept = connected[pair]
        start, middle, end, pair = start[kept], middle[kept], end[kept], np.tile(pair[kept], 2)
        start, end = np.concatenate((start, middle)), np.concatenate((middle, end))
    return connected
