# SPDX-License-Identifier: Apache-2.0
"""What is asked of a solver and what it answered, as one view shows it; knows no browser."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..errors import LinkError, SeedError, WorldError
from ..robot.robot import Robot
from ..solving.inputs import check_free_axes
from ..solving.least_squares import pose_errors
from ..solving.self_motion import SelfMotion
from ..solving.solver import IKSolver, load_solver
from ..solving.tracker import Tracker, TrackStep
from ..world.world import World

NEAR = 0.5  # rad, of a solution that a shown arm stands for
_REFERENCE = 1000  # solutions that stand for the whole set
_TOLERANCE = 1e-5  # m and rad, of a solution
_SEED = 0  # one for all updates: the same starts make arms move little when the target does
_TCP = "tcp"  # ending of the name of a tool's centre point, by custom


@dataclass(frozen=True)
class Wishes:
    """What a user can choose."""

    sampler: str
    arms: int = 12
    select: str = "diverse"
    seed_weight: float = 1.0  # per rad of distance to the solid arm
    avoid_self_collision: bool = True
    free_axes: Mapping[str, str] = field(default_factory=dict)  # by tip
    objectives: Mapping[str, float] = field(default_factory=dict)  # weights by name
    speed: float = 0.5  # share of the joints' speed limits, of an arm that follows


@dataclass(frozen=True)
class Answer:
    """The arms of one update, the solid one first."""

    targets: np.ndarray  # (T, 4, 4) that they are for
    joint_positions: np.ndarray  # (M, J) rad or m; without a solution one, as near as it comes
    position_error: np.ndarray  # (M, T) m
    orientation_error: np.ndarray  # (M, T) rad
    valid: np.ndarray  # (M,) bool
    asked: int  # how many arms were wished for
    seconds: float  # that the solver took
    sentence: str  # what became of the target


class Session:
    """One robot, its targets, its world, and where its solid arm is."""

    def __init__(self, solver: IKSolver, frames: Sequence[str] = (), world: World | None = None):
        """Begin in the middle of the joints' limits.

        Args:
            solver: whose robot is shown.
            frames: links that take the targets instead of the tips that they are fixed to.
            world: obstacles from the start.

        Raises:
            LinkError: a frame is fixed to no tip, or two are to one.
            WorldError: the world is one of another robot.
        """
        if world is not None and world.robot is not solver.robot:
            raise WorldError("the world is one of another robot")
        self.solver = solver
        self.robot = solver.robot.at_frames(frames or tool_centres(solver.robot))
        self.world = World(solver.robot) if world is None else world
        self.samplers = list(dict.fromkeys((solver.sampler, "uniform")))
        self.wishes = Wishes(solver.sampler)
        self.current = 0.5 * (self.robot.lower + self.robot.upper)  # (J,) the solid arm
        self.targets = self.robot.forward(self.current)  # (T, 4, 4)
        self._tracker: Tracker | None = None

    def solve(self) -> Answer:
        """Solve for the targets; the best solution becomes the solid arm.

        Raises:
            IKError: a wish cannot be met.
        """
        wishes, targets = self.wishes, self.targets.copy()
        self.solver.sampler = wishes.sampler
        began = time.perf_counter()
        result = self.solver.solve(
            targets[None], max_solutions=wishes.arms, select=wishes.select,
            num_samples=max(128, 2 * wishes.arms), distance_weight=wishes.seed_weight,
            objectives=self._objectives(), approximate=True, **self._goal(),
        )  # fmt: skip
        seconds = time.perf_counter() - began
        rows = result.valid[0] if result.valid.any() else np.arange(wishes.arms) == 0
        answer = Answer(
            targets, result.joint_positions[0, rows], result.position_error[0, rows],
            result.orientation_error[0, rows], result.valid[0, rows], wishes.arms, seconds,
            result.explain(0),
        )  # fmt: skip
        if np.isfinite(answer.joint_positions[:1]).all():
            self.current = answer.joint_positions[0]
        return answer

    def answer_of(self, others: np.ndarray) -> Answer:
        """The solid arm and others (M, J), which are not solved for, and how far off they are."""
        q, targets = np.concatenate([self.current[None], others]), self.targets.copy()
        tips = tuple(range(self.robot.num_tips))
        asked = check_free_axes(self.robot, tips, self._goal()["free_axes"])
        position, orientation = pose_errors(
            self.robot, q[None], targets[None], None if asked is None else asked.astype(float)
        )
        valid = ((position[0] <= _TOLERANCE) & (orientation[0] <= _TOLERANCE)).all(-1)
        return Answer(targets, q, position[0], orientation[0], valid, len(q), 0.0, "")

    def coverage(self, shown: np.ndarray) -> tuple[float, int]:
        """Share of the solution set that arms (M, J) stand for, and how many solutions tell it.

        The set is what random restarts find of it; an arm stands for what is nearer than `NEAR`.
        """
        self.solver.sampler = "uniform"
        found = self.solver.solve(
            self.targets[None], num_samples=2 * _REFERENCE, max_solutions=_REFERENCE,
            max_rounds=1, **self._goal(),
        )  # fmt: skip
        known = found.joint_positions[0, found.valid[0]]
        if not len(known) or not len(shown):
            return 0.0, len(known)
        apart = known[:, None] - shown
        turns = 2 * np.pi * np.round(apart / (2 * np.pi))
        apart -= np.where(self.robot.continuous, turns, 0.0)
        return float((np.linalg.norm(apart, axis=-1).min(1) <= NEAR).mean()), len(known)

    def self_motions(self) -> list[SelfMotion]:
        """What is connected to the solid arm; it must be a solution."""
        goal = self._goal()
        return self.solver.self_motions(goal.pop("seed_state"), self.targets[None], **goal)

    def follow(self, seconds: float) -> TrackStep:
        """Move the solid arm towards the targets for some time.

        Raises:
            SeedError: it touches something where it is.
        """
        goal, targets = self._goal(), self.targets
        whole = goal["free_axes"] is None
        if whole:  # a tracker's targets are for tips; these say the same
            targets = targets @ np.linalg.inv(self.robot.tip_placement)
            targets = targets @ self.solver.robot.tip_placement
        if self._tracker is None:
            # free axes are those of the frames, so these become tips; of a robot without a world
            solver = self.solver if whole else load_solver(self.robot, sampler="uniform")
            try:
                self._tracker = solver.tracker(
                    goal["seed_state"], dt=seconds, velocity_scale=self.wishes.speed,
                    avoid_self_collision=goal["avoid_self_collision"], free_axes=goal["free_axes"],
                    world=goal["world"] if whole else None,
                )  # fmt: skip
            except SeedError as error:
                raise SeedError(
                    "the solid arm touches something: drag that away, or show solutions "
                    f"({str(error).removeprefix('q0 ')})"
                ) from error
        step = self._tracker.step(targets if self.robot.num_tips > 1 else targets[0])
        self.current = self.robot.clipped(step.joint_positions)
        return step

    def stop_following(self) -> None:
        """Begin anew with the next step, from where the solid arm is then."""
        self._tracker = None

    def _goal(self) -> dict:
        wishes = self.wishes
        return {
            "seed_state": self.current,
            "tips": self.robot.tips,
            "free_axes": {tip: axes for tip, axes in wishes.free_axes.items() if axes} or None,
            "avoid_self_collision": wishes.avoid_self_collision,
            "world": self.world if len(self.world) else None,
        }

    def _objectives(self) -> list[dict]:
        return [
            {"name": name, "weight": weight}
            for name, weight in self.wishes.objectives.items()
            if weight > 0
        ]


def tool_centres(robot: Robot) -> list[str]:
    """For each tip the tool's centre point that is fixed to it, where there is just one."""
    named: list[list[str]] = [[] for _ in robot.tips]
    for link in robot.frames:
        if link.lower().endswith(_TCP):
            try:
                named[robot.tip_offset(link)[0]].append(link)
            except LinkError:  # it is fixed to no tip
                continue
    return [links[0] for links in named if len(links) == 1]


def joined(before: np.ndarray, now: np.ndarray) -> np.ndarray:
    """The place of each of M arms now (M, J) among P places before (P, J), each its own; M <= P.

    Arms keep their places when they move little: the nearest pairs come first. Places without an
    arm are NaN.
    """
    apart = np.linalg.norm(now[:, None] - before, axis=-1)
    apart = np.where(np.isfinite(apart), apart, np.inf)
    places: dict[int, int] = {}
    taken: set[int] = set()
    for flat in np.argsort(apart, axis=None).tolist():
        arm, place = divmod(flat, len(before))
        if arm not in places and place not in taken:
            places[arm] = place
            taken.add(place)
            if len(places) == len(now):
                break
    return np.array([places[arm] for arm in range(len(now))], np.int64)
