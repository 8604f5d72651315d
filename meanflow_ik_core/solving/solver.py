# SPDX-License-Identifier: Apache-2.0
"""From target poses to ranked solutions: sample, refine, select.

It is long because half of it says what `sample` and `solve` take and return.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..collision.clearance import SphereModel
from ..collision.self_collision import SelfCollision
from ..errors import RobotError, SeedError, TargetError
from ..objectives import Objective, build_objectives
from ..robot.robot import Robot, load_robot
from ..samplers import Sampler, build_sampler, resolve_sampler
from ..tensors import device_name, of_kind
from ..world.scene import GRAZE, Scene
from ..world.world import World
from .approximate import with_nearest, with_seeds
from .at_once import SearchAtOnce
from .deadline import Deadline, nothing
from .drawing import Drawing
from .goal import Goal, Guidance, Preferences, Starts
from .inputs import (
    at_frames,
    check_count,
    check_flag,
    check_free_axes,
    check_memory,
    check_positive,
    check_seed_state,
    check_targets,
    check_tips,
    check_tolerance,
    check_world,
    same_axes,
)
from .least_squares import pose_errors
from .partial_goals import given_from_asked
from .ranking import SELECTIONS
from .refinement import Refinement
from .result import IKResult
from .search import CHECKS_AT_ONCE, Search, SearchParts
from .self_motion import SelfMotion, redundant_parts, walk_self_motion
from .tracker import Tracker
from .world_guide import WorldGuide
from .world_search import WorldSearch

if TYPE_CHECKING:
    from .null_space import NullSpace

_LOG = logging.getLogger(__name__)

__all__ = ["IKResult", "IKSolver", "load_solver"]

# Starts drawn and refined together. On the CPU some milliseconds' worth, fewer where objectives
# choose among samples; elsewhere as many as memory is meant for, some 300 MB for an arm.
_STARTS_PER_PASS, _STARTS_ON_DEVICE = 4096, 1 << 20
_STARTS_AT_ONCE = 1 << 20  # drawn before one compiled call
# Of a call that has a limit and does not look at the clock: starts of all targets, and of one.
_STARTS_UNTIMED, _STARTS_OF_ONE_UNTIMED = 1 << 17, 1 << 14


class IKSolver:
    """Draws many starts per target, refines them all, and returns the best different solutions.

    Attributes:
        robot: whose targets are solved.
        sampler: name of the sampler of the first starts.
        device: where samples are drawn and refined, "cpu" or another name of torch for a device.
        starts_per_pass: how many starts are drawn and refined together, which bounds the memory
            and how often a timeout is looked at. None: as many as suit the device.
        clock: what timeouts are measured by, in seconds.
    """

    starts_per_pass: int | None = None
    clock: Callable[[], float] = time.perf_counter

    def __init__(self, robot: Robot, sampler: Sampler, sampler_name: str, device: Any = "cpu"):
        self.robot = robot
        self.device = device_name(device)
        self._device_search = None
        if self.device != "cpu":
            from ..cuda.search import DeviceSearch

            self._device_search = DeviceSearch(robot, self.device)
        self._samplers = {sampler_name: sampler}
        self._samplers.setdefault("uniform", build_sampler("uniform", robot, None, self.device))
        self.sampler = sampler_name

    def __getstate__(self) -> dict[str, Any]:
        # Geometry is no part of a copy, which reads it when it is asked for.
        return {
            name: value
            for name, value in self.__dict__.items()
            if name not in ("self_collision", "clearance")
        }

    @property
    def checkpoint(self) -> Mapping[str, Any] | None:
        """The record of the sampler's network, see `Checkpoint`; None where it has none."""
        return self._samplers[self.sampler].checkpoint

    @property
    def sampler_summary(self) -> str:
        """The sampler and the file of its network, in words."""
        path = "no checkpoint" if self.checkpoint is None else self.checkpoint["path"]
        return f"{self.sampler} ({path})"

    def sample(
        self,
        targets: Any,
        num_samples: int = 1000,
        seed: int | None = None,
        *,
        near: Any = None,
        objectives: Sequence[Any] = (),
        guidance_choices: int = 4,
        guidance_steps: int = 2,
        tips: Sequence[str] | None = None,
        free_axes: Mapping[str, str] | None = None,
    ) -> Any:
        """Raw samples: one call of the sampler, no refinement.

        Args:
            targets: T_base_tip, (B, 4, 4) for one tip or (B, T, 4, 4).
            num_samples: N, of each target.
            seed: the same seed gives the same samples; None draws a fresh one.
            near: (J,) or (B, J) joints that the samples shall be near to: a posture objective.
            objectives: what the samples shall be good for, see `solve`.
            guidance_choices: with objectives, how many samples each one is the best of.
            guidance_steps: with objectives, gradient steps of the noise; more calls.
            tips: as in `solve`.
            free_axes: as in `solve`.

        Returns:
            (B, N, J) float32 rad or m within the limits; a tensor when ``targets`` is one, on the
            device of the solver, else an array.

        Raises:
            TargetError: wrong shape, not finite, or not a rigid transform.
            SeedError: ``near`` has a wrong length, is not finite, or outside the limits.
            LinkError: an unknown tip, or one named twice.
            OptionError: an option is out of its range, there is no such objective, or the sampler
                is learned and needs complete goals.
        """
        check_count("num_samples", num_samples, 1)
        goal = self._goal(targets, tips, free_axes, near, "near")
        check_memory(self.robot, len(goal), "num_samples", num_samples)
        objectives = build_objectives(objectives, self.robot)
        if goal.seeded:
            from ..objectives.posture import Posture

            if not any(isinstance(one, Posture) for one in objectives):
                objectives.append(Posture(self.robot))
        guidance = Guidance(guidance_choices, guidance_steps)
        drawing = self._drawing(seed, guidance, objectives)
        q = drawing.samples(self.sampler, goal, 0, num_samples)
        if isinstance(q, np.ndarray):
            q = q.astype(np.float32, copy=False)
        return of_kind(targets, q)

    def solve(
        self,
        targets: Any,
        num_samples: int = 128,
        max_solutions: int = 32,
        seed_state: Any = None,
        seed: int | None = None,
        select: str = "best",
        timeout: float | None = None,
        *,
        position_tolerance: Any = 1e-5,
        orientation_tolerance: Any = 1e-5,
        error_weight: float = 1000.0,
        distance_weight: float = 1.0,
        min_separation: float = 0.01,
        avoid_self_collision: bool = False,
        world: World | Scene | None = None,
        refinement: str = "lm",
        objectives: Sequence[Any] = (),
        objective_steps: int = 10,
        guidance_choices: int = 4,
        guidance_steps: int = 0,
        tips: Sequence[str] | None = None,
        free_axes: Mapping[str, str] | None = None,
        max_rounds: int | None = None,
        recombining: bool = True,
        num_threads: int = 1,
        approximate: bool = False,
        time_limit: float | None = None,
        between: Callable[[], object] | None = None,
    ) -> IKResult:
        """Find up to ``max_solutions`` different exact solutions for every target.

        When the first ``num_samples`` starts do not give enough, more are drawn from the same
        sampler and then uniformly, until there are enough or the budget is spent. Where one
        solution is wanted without objectives, a round begins with a few starts, and no more are
        taken than it needs; from a seed state, solutions slide to the nearest that is connected.

        Args:
            targets: T_base_tip, (B, 4, 4) for one tip or (B, T, 4, 4).
            num_samples: starts per target of the first round, of which one solution may need fewer.
            max_solutions: M, rows of the result.
            seed_state: (J,) or (B, J) current joints: one more start, and what ``distance``
                refers to; clipped where they are up to 0.05 rad or m beyond a limit. Continuous
                joints of the solutions are on the turn that is nearest to theirs. None: the middle
                of the limits, which is no start.
            seed: of the random numbers; None draws a fresh one.
            select: "best" by cost, or "diverse", spread over the solution set.
            timeout: seconds from the call on, of which steps in the null space are a part. While
                they last, more starts are drawn for targets with too few solutions; then the call
                returns what it has, some milliseconds late: the pass of starts, step, or few
                checks under way are finished, and a first pass is always made. Many targets go in
                passes, each with its share of the time; those that none reached have no
                candidates. None: until a fixed number of starts. `warm_up` before, or the first
                call loads and compiles.
            position_tolerance: m, of a valid solution; one number, or one per target. What lies
                within the tolerances is a solution, also where no exact one is near.
            orientation_tolerance: rad, of a valid solution; one number, or one per target.
            error_weight: of the refine error in the ranking, per m and per rad.
            distance_weight: of the distance to the seed state in the ranking, per rad.
            min_separation: rad; solutions whose largest joint difference is smaller are the same.
            avoid_self_collision: only solutions free of self-collision are valid.
            world: obstacles; only solutions that touch none are valid, and rows are filled with
                such while starts last. Its state at the call counts, whatever changes later.
            refinement: "lm", damped least squares, or "adam", gradient descent on the pose error.
            objectives: what solutions shall be good for besides the pose: names, mappings such as
                {"name": "posture", "weight": 2.0}, or `Objective`; see docs/objectives.md. They
                guide the samples, move solutions in their null spaces, and count in the ranking;
                no solution becomes less exact or invalid by them.
            objective_steps: in the null space; 0: none.
            guidance_choices: how many samples each start is the best of; 1: no choice.
            guidance_steps: gradient steps of the samples' noise, each as dear as some ten choices;
                steps in the null space gain as much for less.
            tips: which tips the targets are for, in their order, or frames that are rigidly fixed
                to these; the others may be anywhere. None: all of the robot's, in its order.
            free_axes: for some of these, the axes among "x y z rx ry rz" of the target's
                frame that may be anything: "rx ry rz" asks for a position, "rz" leaves the turn
                about the target's z axis open. Errors are those to the nearest pose that is
                asked for. A learned sampler that needs complete goals leaves partial ones to the
                uniform one; ``origin`` says so.
            max_rounds: of starts, the first included, which has ``num_samples``; None: as many as
                it takes.
            recombining: complete a start that found only some of the tips that share no joint
                with what other starts found; False: plain restarts, to compare with.
            num_threads: that share the targets, where nothing is asked between compiled calls;
                the answer does not depend on it.
            approximate: where a target has no solution, its first row is the nearest configuration
                that steps of least squares come to, with its true errors; it is not valid, and
                marked in the result's ``approximate``. One that touches what it must not is left
                out.
            time_limit: seconds after which the call returns what it has, as a timeout does; but it
                is no reason to go on. Small searches in one compiled call are not cut short.
            between: called between parts of the search, for instance to let others have the
                solver; may raise. What it takes is a part of timeout and limit.

        Raises:
            TargetError: a target has the wrong shape, is not finite, or is not rigid.
            SeedError: the seed state has the wrong length, is not finite, or outside the limits.
            LinkError: an unknown tip, or one named twice.
            OptionError: an option is out of its range, or there is no such objective.
            RobotError: self-collision or a world is asked for and a collision shape cannot be
                read.
            WorldError: the world is one of another robot.
        """
        began = self.clock()
        robot = at_frames(self.robot, tips)
        starts = Starts(num_samples, max_rounds)
        # The device's search is made for the robot's own tips.
        on_device = self._device_search if robot is self.robot else None
        refining = Refinement(refinement, recombining, on_device)
        preferences = Preferences(
            max_solutions, select, error_weight, distance_weight, min_separation,
            avoid_self_collision,
        )  # fmt: skip
        check_positive("timeout", timeout, "positive seconds", or_none=True)
        check_positive("time_limit", time_limit, "positive seconds", or_none=True)
        seconds = min(math.inf if each is None else each for each in (timeout, time_limit))
        prolongs = timeout is not None and timeout <= seconds
        deadline = Deadline(began + seconds, self.clock, prolongs, between or nothing)
        check_count("objective_steps", objective_steps, 0)
        check_count("num_threads", num_threads, 1)
        check_flag("approximate", approximate)
        goal = self._goal(
            targets, tips, free_axes, seed_state, "seed_state", position_tolerance,
            orientation_tolerance,
        )  # fmt: skip
        check_memory(robot, len(goal), "max_solutions", max_solutions)
        guide = None
        if world is not None:
            scene = check_world(self.robot, world)
            guide = WorldGuide(scene, robot, avoid_self_collision, goal.asked)
            if goal.seeded:
                scene.warn_of_seed(goal.reference[0])
        scene = None if guide is None else guide.scene
        objectives = [one.within(scene) for one in build_objectives(objectives, robot)]
        guidance = Guidance(guidance_choices, guidance_steps, deadline=deadline)
        drawing = self._drawing(seed, guidance, objectives)
        sampler = self._sampler_for(goal)
        is_simple = refining.is_compiled and not objectives and guide is None
        if max_solutions == 1 and refining.is_compiled and not objectives:
            nearest = goal.seeded and distance_weight > 0
            is_drawn = not drawing.is_uniform(sampler)
            starts = starts.planned(nearest, avoid_self_collision, is_drawn, on_device is not None)
        per_pass = self.starts_per_pass or self._starts_per_pass(objectives)
        # Starts that are not drawn by the compiled search have to fit into memory.
        fits = drawing.is_uniform(sampler) or on_device is not None
        fits = fits or len(goal) * starts.first <= _STARTS_AT_ONCE
        if time_limit is not None:
            fits &= len(goal) * starts.budget <= _STARTS_UNTIMED
            fits &= starts.budget <= _STARTS_OF_ONE_UNTIMED
        if is_simple and drawing.is_uniform("uniform") and fits:
            at_once = SearchAtOnce(
                robot, starts, refining, preferences, drawing, per_pass, num_threads, on_device,
            )  # fmt: skip
            if not avoid_self_collision and timeout is None:
                result = at_once.result(goal, sampler, began, self.clock)
                result = with_seeds(result, robot, goal, preferences)
                return with_nearest(result, robot, goal, preferences) if approximate else result
            is_one_pass = len(goal) * starts.first <= per_pass
            # What may touch itself is looked at whatever the time: few, and those chosen at once.
            few = select == "best" and len(goal) * max_solutions <= CHECKS_AT_ONCE
            if is_one_pass and drawing.is_numbered(sampler) and (few or not avoid_self_collision):
                result = at_once.of_one_round().result(goal, sampler, began, self.clock)
                if (checked := self._complete(result, preferences)) is not None:
                    return checked
        parts = SearchParts(
            robot=robot,
            refinement=refining,
            drawing=drawing,
            deadline=deadline,
            in_collision=self._in_collision(guide, avoid_self_collision),
            null_space=self._null_space(objectives, refining, objective_steps, deadline),
            starts_per_pass=per_pass,
        )
        search = self.search_in_parts(guide, parts, goal, starts, preferences)
        search.run(sampler)
        result = search.result(sampler)
        found, result = result, with_seeds(result, robot, goal, preferences, parts.in_collision)
        if approximate:
            result = with_nearest(result, robot, goal, preferences, parts.in_collision)
        if result is not found and parts.null_space is not None:
            result = replace(result, objective_values=search.objective_values(result))
        if guide is not None:
            return guide.completed(result)
        if avoid_self_collision or "clearance" in [one.name() for one in objectives]:
            return replace(result, spheres=self.clearance)
        return result

    def search_in_parts(self, guide: WorldGuide | None, *search: Any) -> Search:
        """The search of a call; a subclass may have another one."""
        return Search(*search) if guide is None else WorldSearch(guide, *search)

    def _in_collision(
        self, guide: WorldGuide | None, avoid_self_collision: bool
    ) -> Callable[[np.ndarray], np.ndarray] | None:
        """What says of configurations (N, J) whether they are not valid."""
        if guide is not None:
            return guide.in_collision
        return self.self_collision.in_collision if avoid_self_collision else None

    def _complete(self, result: IKResult, preferences: Preferences) -> IKResult | None:
        """A result of starts that are refined whatever the time, where it is the answer, or None.

        It is where all rows are solutions, and free of self-collision where that is asked for.
        """
        if not result.valid.all():
            return None
        if not preferences.avoid_self_collision:
            return result
        q = result.joint_positions
        if self.self_collision.in_collision(q.reshape(-1, self.robot.num_joints)).any():
            return None
        return replace(result, spheres=self.clearance)

    def tracker(
        self,
        q0: Any,
        max_joint_step: float | None = None,
        velocity_scale: float = 1.0,
        dt: float | None = None,
        *,
        posture: Any = None,
        away_from_limits: bool = False,
        avoid_self_collision: bool = False,
        position_tolerance: Any = 1e-5,
        orientation_tolerance: Any = 1e-5,
        tips: Sequence[str] | None = None,
        free_axes: Mapping[str, str] | None = None,
        world: World | Scene | None = None,
    ) -> Tracker:
        """Follow a moving target from joints q0, in steps that are never larger than allowed.

        Each `Tracker.step` brings the joints as near to a target as one step may go. Where the
        target leaves them free, they move as little as they can, and at rest not at all.

        Args:
            q0: (J,) rad or m, where the joints are.
            max_joint_step: rad or m, of each joint in one step. None: as far as its speed allows;
                without ``dt``, 0.1.
            velocity_scale: share of the URDF's speed limits that joints may have.
            dt: seconds between two steps. None: speeds are not limited.
            posture: (J,) that joints drift to where the target leaves them free; None: they stay.
            away_from_limits: whether they drift out of the tenth of their range next to a limit.
            avoid_self_collision: refuse steps that end in self-collision; this is not a part of
                the compiled step, and takes longer. With a world, their ways are looked at too.
            position_tolerance: m, of a target that is reached; one number, or one per tip.
            orientation_tolerance: rad.
            tips: as in `solve`.
            free_axes: as in `solve`.
            world: obstacles; a step on whose way one is touched is refused. Its state at the call
                counts, until `Tracker.world` is given another one.

        Raises:
            SeedError: q0 or the posture has the wrong length, is not finite, or outside the
                limits; or the robot touches an obstacle at q0, or itself and shall not.
            LinkError: an unknown tip, or one named twice.
            OptionError: an option is out of its range, or a joint has no speed limit.
            RobotError: self-collision or a world is asked for and a collision shape cannot be
                read.
            WorldError: the world is one of another robot.
        """
        check_flag("avoid_self_collision", avoid_self_collision)
        check_flag("away_from_limits", away_from_limits)
        return Tracker(
            self.robot, self.solve, self.self_collision if avoid_self_collision else None, q0,
            max_joint_step, velocity_scale, dt, posture=posture, away_from_limits=away_from_limits,
            position_tolerance=position_tolerance, orientation_tolerance=orientation_tolerance,
            tips=tips, free_axes=free_axes, world=world,
        )  # fmt: skip

    def self_motions(
        self,
        q: Any,
        target: Any = None,
        *,
        tips: Sequence[str] | None = None,
        free_axes: Mapping[str, str] | None = None,
        avoid_self_collision: bool = False,
        world: World | Scene | None = None,
    ) -> list[SelfMotion]:
        """The solutions that are connected to one, for each part that can move in place.

        Such a part is an arm of seven joints, whose elbow goes round while its tip stays; or the
        whole robot, where no arm alone has a joint to spare.

        Args:
            q: (J,) a solution, to 1e-5 m and rad.
            target: (1, 4, 4), or (1, T, 4, 4) for T tips, that it is a solution of; None: the pose
                where it is.
            tips: as in `solve`.
            free_axes: as in `solve`.
            avoid_self_collision: end a walk where the robot touches itself.
            world: end a walk where the robot touches an obstacle.

        Returns:
            One walk for each part; none where no joint is to spare.

        Raises:
            SeedError: ``q`` does not solve the target, or touches what ends a walk; or it is no
                right seed state.
            IKError: as `solve`.
        """
        check_flag("avoid_self_collision", avoid_self_collision)
        robot = at_frames(self.robot, tips)
        start = check_seed_state(robot, q, 1, "q")
        if start is None:
            raise SeedError(f"q is None; it must be ({robot.num_joints},)")
        if target is None:
            target = robot.forward(start)[:, list(check_tips(robot, tips))]
        goal = self._goal(target, tips, free_axes, start[0], "q")
        if len(goal) != 1:
            raise TargetError(f"target has {len(goal)} poses of all tips; a walk is of one")
        errors = pose_errors(robot, start[None], goal.T_base_tip, goal.axis_weights)
        tolerances = goal.position_tolerance, goal.orientation_tolerance
        if not all((error <= most).all() for error, most in zip(errors, tolerances, strict=True)):
            raise SeedError(
                f"q is {errors[0].max():.3g} m and {errors[1].max():.3g} rad from the target; a "
                "walk begins at a solution"
            )
        guide = None
        if world is not None:
            scene = check_world(self.robot, world)
            guide = WorldGuide(scene, robot, avoid_self_collision, goal.asked)
        in_collision = self._in_collision(guide, avoid_self_collision)

        def blocked(one: np.ndarray) -> bool:
            return in_collision is not None and bool(in_collision(one[None])[0])

        if blocked(start[0]):
            touches = "itself"
            if guide is not None:
                found = guide.scene.contacts(start, avoid_self_collision, GRAZE)[0]
                touches = ", ".join(map(str, found))
            raise SeedError(f"q touches {touches}; a walk begins at a solution")
        return [
            walk_self_motion(robot, start[0], goal, part, blocked)
            for part in redundant_parts(robot, goal.asked)
        ]

    def warm_up(self) -> None:
        """Compile and load everything that the first call would otherwise wait for.

        Collision shapes that cannot be read are said to the log; what needs them refuses.
        """
        try:
            checked = bool(self.self_collision)
        except RobotError as error:
            _LOG.warning("self-collision cannot be looked for: %s", error)
            checked = False
        middle = 0.5 * (self.robot.lower + self.robot.upper)
        T_base_tip = self.robot.forward(middle)[None]
        for select in SELECTIONS:
            # One, which a compiled call finds, and more than are checked at once.
            for count in (1, 5):
                self.solve(
                    T_base_tip, 64, count, middle, select=select, avoid_self_collision=checked
                )

    @cached_property
    def self_collision(self) -> SelfCollision:
        return SelfCollision(self.robot)

    @cached_property
    def clearance(self) -> SphereModel:
        return SphereModel(self.robot, self.self_collision)

    def _goal(
        self, targets: Any, tips: Any, free_axes: Any, current: Any, name: str,
        position_tolerance: Any = 1e-5, orientation_tolerance: Any = 1e-5,
    ) -> Goal:  # fmt: skip
        """What a caller asks, checked; ``current`` are its joints, called ``name``."""
        robot = at_frames(self.robot, tips)
        tip_indices = check_tips(robot, tips)
        asked = check_free_axes(robot, tip_indices, free_axes)
        tolerances = (
            check_tolerance(robot, tip_indices, position_tolerance, "position_tolerance"),
            check_tolerance(robot, tip_indices, orientation_tolerance, "orientation_tolerance"),
        )
        T_base_tip = check_targets(robot, targets, tip_indices)
        seeds = check_seed_state(robot, current, len(T_base_tip), name)
        reference = seeds
        if reference is None:
            middle = 0.5 * (robot.lower + robot.upper)
            reference = np.repeat(middle[None], len(T_base_tip), 0)
        T_frame_tip = None
        if robot is not self.robot:
            T_frame_tip = np.linalg.inv(robot.tip_placement) @ self.robot.tip_placement
        return Goal(T_base_tip, reference, seeds is not None, asked, *tolerances, T_frame_tip)

    def _drawing(
        self, seed: int | None, guidance: Guidance, objectives: Sequence[Objective]
    ) -> Drawing:
        return Drawing(self.robot, self._samplers, self.device, seed, guidance, objectives)

    def _null_space(
        self, objectives: Sequence[Objective], refining: Refinement, steps: int, deadline: Deadline
    ) -> NullSpace | None:
        if not objectives:
            return None
        from .null_space import NullSpace

        return NullSpace(self.robot, objectives, refining, steps, deadline)

    def _starts_per_pass(self, objectives: Sequence[Objective]) -> int:
        if self.device != "cpu":
            return _STARTS_ON_DEVICE
        if objectives:
            from .null_space import rows_at_once

            return rows_at_once(len(objectives))
        return _STARTS_PER_PASS // self.robot.num_tips**2

    def _sampler_for(self, goal: Goal) -> str:
        """The solver's own sampler where it takes such goals, else the uniform one."""
        given = given_from_asked(goal.asked)
        takes_it = given is None or self._samplers[self.sampler].takes_partial_goals
        if goal.asked is not None and goal.T_frame_tip is not None:
            takes_it &= same_axes(np.linalg.inv(goal.T_frame_tip), goal.asked)
        return self.sampler if takes_it else "uniform"


def load_solver(
    robot: str | Path | Robot = "panda",
    checkpoint: str | Path | None = None,
    device: Any = "cpu",
    sampler: str = "auto",
) -> IKSolver:
    """Load a robot, its sampler and the refinement.

    Args:
        robot: a `Robot`, or what `load_robot` takes.
        checkpoint: name or path for the learned sampler; None: the shipped one of the robot.
        device: where samples are drawn and refined, "cpu" or "cuda", by name or as torch has it.
        sampler: "meanflow" (learned), "uniform" (random starts, no checkpoint), or "auto": the
            learned one where a checkpoint is given or shipped for the robot, else the uniform one.
            The attribute `IKSolver.sampler` says which.

    Raises:
        RobotError, LinkError: the robot cannot be loaded.
        CheckpointError: the checkpoint is missing, damaged, or of another robot.
        OptionError: unknown sampler or device, or a checkpoint for the uniform sampler.
    """
    loaded = robot if isinstance(robot, Robot) else load_robot(robot)
    where = device_name(device)
    name = resolve_sampler(sampler, loaded, checkpoint)
    return IKSolver(loaded, build_sampler(name, loaded, checkpoint, where), name, where)
