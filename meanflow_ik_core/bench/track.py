# SPDX-License-Identifier: Apache-2.0
"""How a tracker follows moving targets: how fast, how near, and never faster than allowed."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..paths.path import solve_path
from ..progress import tracked
from ..robot.robot import Robot
from ..solving.solver import IKSolver, load_solver
from ..solving.tracker import TrackStatus
from .judge import Judge
from .path import random_motions
from .peer_solvers.closed_forms import Ssik
from .peer_solvers.known import is_panda
from .peer_solvers.peer import Searcher, Stopwatch
from .result import BenchResult, Measure, at_least_one, environment
from .solve import TOLERANCE

# A motion takes this share of the joints' speed limits, so that a tracker may do it otherwise.
_SHARE_OF_SPEED = 0.25
_NEAR_LIMIT = 0.005  # rad or m
_AROUND = 0.6  # rad or m, of each joint, how far a motion goes from the middle at most
_DRAWS = 200  # of which the one nearest to a singularity is taken
_REST = 100  # steps after the end of each motion, of which the first half is for settling
_ROUNDING = 1e-9  # share of a step
# ms of processor time, of one tip and of several.
_MEDIAN_MS, _MEDIAN_MS_OF_SEVERAL, _SLOWEST_MS = 0.04, 0.08, 0.1


def run(
    *,
    robot: str | Robot = "panda",
    paths: int = 200,
    waypoints: int = 200,
    seed: int = 0,
) -> BenchResult:
    """Targets reached beside those of a path search, steps beside the allowed ones, times."""
    at_least_one(paths=paths, waypoints=waypoints - 1)
    solver = load_solver(robot, sampler="uniform")
    robot = solver.robot
    measures = [
        *measure_smooth(solver, smooth_motions(robot, paths, waypoints, seed), seed),
        *measure_reference(solver, random_motions(robot, paths, waypoints, seed)),
    ]
    options = {
        "robot": robot.name, "paths": paths, "waypoints": waypoints, "seed": seed,
        "tolerance": TOLERANCE,
    }  # fmt: skip
    return BenchResult("track", tuple(measures), options, environment())


def smooth_motions(robot: Robot, paths: int, waypoints: int, seed: int) -> np.ndarray:
    """(paths, W, J): arcs whose middle is near a limit, or near a singularity, in turn."""
    random = np.random.default_rng(seed)
    motions = np.empty((paths, waypoints, robot.num_joints))
    along = np.linspace(-1, 1, waypoints)[:, None]
    for row in tracked(range(paths), "paths"):
        drawn = random.uniform(robot.lower, robot.upper, (_DRAWS, robot.num_joints))
        jacobian = robot.jacobian(drawn).reshape(_DRAWS, -1, robot.num_joints)
        middle = drawn[np.linalg.svd(jacobian, compute_uv=False)[:, -1].argmin()]
        if row % 2:
            middle, joint = drawn[0], random.integers(robot.num_joints)
            near = robot.lower[joint] + _NEAR_LIMIT, robot.upper[joint] - _NEAR_LIMIT
            middle[joint] = random.choice(near)
        ends = middle + random.uniform(-_AROUND, _AROUND, (2, robot.num_joints))
        first, last = np.clip(ends, robot.lower, robot.upper)
        bend = 0.5 * (first + last) - middle
        motions[row] = middle + along * 0.5 * (last - first) + along**2 * bend
    return np.clip(motions, robot.lower, robot.upper)


@dataclass(frozen=True, eq=False)
class Track:
    """What a tracker made of the W targets of a motion."""

    q: np.ndarray  # (1 + W, J), the first one where it began
    reached: np.ndarray  # (W,) bool, as it says
    offers: dict[int, np.ndarray]  # target to joints (J,) that reach it, as it says
    seconds: np.ndarray  # (W,) of the processor


def follow(tracker: Any, targets: np.ndarray) -> Track:
    """Follow targets (W, 4, 4), or (W, T, 4, 4) for several tips."""
    q, reached, offers = [tracker.joint_positions], [], {}
    seconds = np.zeros(len(targets))
    for row, target in enumerate(targets):
        began = time.process_time_ns()
        step = tracker.step(target)
        seconds[row] = 1e-9 * (time.process_time_ns() - began)
        q.append(step.joint_positions)
        reached.append(step.status is TrackStatus.REACHED)
        if step.offer is not None:
            offers[row] = step.offer
    return Track(np.stack(q), np.array(reached), offers, seconds)


def measure_smooth(solver: IKSolver, motions: np.ndarray, seed: int) -> list[Measure]:
    """Follow motions (paths, W, J) within speed limits, and search a path for them."""
    robot, judge = solver.robot, Judge(solver.robot)
    reached = offered = searched = wrong = 0
    largest = unrest = 0.0
    seconds = []
    for row, motion in enumerate(tracked(motions, "motions")):
        poses = robot.forward(motion)
        targets = poses[:, 0] if robot.num_tips == 1 else poses
        dt = _time_step(robot, motion)
        track = follow(
            solver.tracker(
                motion[0], dt=dt, position_tolerance=TOLERANCE, orientation_tolerance=TOLERANCE
            ),
            np.concatenate((targets, np.repeat(targets[-1:], _REST, 0))),
        )
        moved = np.abs(np.diff(track.q, axis=0))
        largest = max(largest, float((moved / (robot.velocity_limit * dt)).max()))
        if track.reached[len(motion) - 1]:
            unrest = max(unrest, float(moved[-_REST // 2 :].max()))
        claims = {i: track.q[i + 1] for i in np.flatnonzero(track.reached)} | track.offers
        for target, q in claims.items():
            pose = poses[min(target, len(poses) - 1)]
            wrong += not judge.accepts(q[None], pose, TOLERANCE, TOLERANCE).all()
        reached += int(track.reached[: len(motion)].sum())
        offered += sum(target < len(motion) for target in track.offers)
        seconds.append(track.seconds[: len(motion)])
        found = solve_path(
            solver, poses, motion[0], np.arange(len(motion)) * dt, max_joint_step=None,
            position_tolerance=TOLERANCE, orientation_tolerance=TOLERANCE, seed=seed + row,
        )  # fmt: skip
        searched += len(found.joint_positions)
    total, busy = motions.shape[0] * motions.shape[1], np.concatenate(seconds)
    median = _MEDIAN_MS if robot.num_tips == 1 else _MEDIAN_MS_OF_SEVERAL
    return [
        Measure(
            "median processor time of a step", 1e3 * float(np.median(busy)), "ms", at_most=median
        ),
        Measure(
            "99.9 % processor time of a step", 1e3 * float(np.quantile(busy, 0.999)), "ms",
            at_most=_SLOWEST_MS,
        ),
        Measure("largest step beside the allowed one", largest, at_most=1 + _ROUNDING),
        Measure("largest step at rest", unrest, "rad", at_most=_ROUNDING),
        Measure("wrong claims", float(wrong), "targets", at_most=0),
        Measure("share of targets reached", reached / total),
        Measure("share reached, or joints offered that do", (reached + offered) / total),
        Measure("share reached by a path search, until it breaks", searched / total),
    ]  # fmt: skip


def measure_reference(solver: IKSolver, motions: np.ndarray) -> list[Measure]:
    """Follow motions (paths, W, J) without speed limits, beside ssik where it is installed."""
    robot = solver.robot
    ours, theirs = [], []
    ssik = _ssik(robot)
    for motion in motions:
        poses = robot.forward(motion)
        targets = poses[:, 0] if robot.num_tips == 1 else poses
        ours.append(follow(solver.tracker(motion[0]), targets))
        if ssik is not None:
            theirs.append(_follow_by(ssik, motion[0], targets))
    known = float(np.abs(np.diff(motions, axis=1)).max())
    measures = [Measure("reference paths: largest step of the known motions", known, "rad")]
    medians = []
    for name, tracks in {"ours": ours, "ssik": theirs}.items():
        if tracks:
            busy = np.concatenate([track.seconds for track in tracks])
            steps = np.stack([np.diff(track.q, axis=0) for track in tracks])
            reached = float(np.mean([track.reached for track in tracks]))
            medians.append(1e3 * float(np.median(busy)))
            slowest = 1e3 * float(np.quantile(busy, 0.999))
            measures += [
                Measure(f"reference paths, {name}: median processor time", medians[-1], "ms"),
                Measure(f"reference paths, {name}: 99.9 % processor time", slowest, "ms"),
                Measure(
                    f"reference paths, {name}: largest step", float(np.abs(steps).max()), "rad"
                ),
                Measure(f"reference paths, {name}: share of targets reached", reached),
            ]
    if theirs:
        ratio = medians[0] / medians[1]
        measures.append(Measure("processor time beside ssik's", ratio, "x", at_most=2.0))
    return measures


def _ssik(robot: Robot) -> Ssik | None:
    """The peer; None for another robot, or where it is not installed."""
    try:
        return Ssik(robot, Judge(robot), 0) if is_panda(robot) else None
    except ImportError:
        return None


def _follow_by(peer: Searcher, q0: np.ndarray, targets: np.ndarray) -> Track:
    """Follow targets (W, 4, 4) by solves, each seeded with the solution before."""
    q, reached, seconds = [q0], [], np.zeros(len(targets))
    for row, target in enumerate(targets):
        watch = Stopwatch()
        found = peer.near(watch, target[None], q[-1])
        seconds[row] = watch.busy
        q.append(found[0] if len(found) else q[-1])
        reached.append(len(found) > 0)
    return Track(np.stack(q), np.array(reached), {}, seconds)


def _time_step(robot: Robot, motion: np.ndarray) -> float:
    """Seconds between two configurations of a motion (W, J)."""
    fastest = (np.abs(np.diff(motion, axis=0)) / robot.velocity_limit).max()
    return float(fastest) / _SHARE_OF_SPEED
