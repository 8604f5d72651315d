# SPDX-License-Identifier: Apache-2.0
"""From target poses to ranked solutions: sample, refine, select."""

import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..collision.clearance import SphereModel
from ..collision.self_collision import SelfCollision
from ..errors import OptionError
from ..objectives import Objective, build_objectives, values
from ..objectives.posture import Posture
from ..robot.robot import Robot, load_robot
from ..samplers import Sampler, build_sampler
from .guidance import Guidance, guided_samples
from .inputs import (
    check_count,
    check_free_axes,
    check_seed,
    check_seed_state,
    check_targets,
    check_tips,
    check_tolerance,
)
from .null_space import improve
from .partial_goals import given_from_asked, turned_at_random
from .ranking import SELECTIONS
from .refine import REFINEMENTS, Refined, refine_lm_torch
from .search import IKResult, Search, SearchObjectives, SearchParts, SolveOptions

__all__ = ["IKResult", "IKSolver", "load_solver"]

# Starts drawn and refined together. On the CPU some milliseconds' worth, fewer where objectives
# choose among samples; elsewhere as many as memory is meant for, some 300 MB for an arm.
_STARTS_PER_PASS, _GUIDED_PER_PASS, _STARTS_ON_DEVICE = 4096, 256, 1 << 20


class IKSolver:
    """Draws many starts per target, refines them all, and returns the best different solutions.

    Attributes:
        robot: whose targets are solved.
        sampler: name of the sampler of the first starts.
        device: where samples are drawn.
        starts_per_pass: how many starts are drawn and refined together, which bounds the memory
            and how often a timeout is looked at. None: as many as suit the device.
    """

    starts_per_pass: int | None = None

    def __init__(self, robot: Robot, sampler: Sampler, sampler_name: str, device: torch.device):
        self.robot = robot
        self.device = device
        self._samplers = {sampler_name: sampler}
        self._samplers.setdefault("uniform", build_sampler("uniform", robot, None, device))
        self.sampler = sampler_name

    @property
    def checkpoint(self) -> Mapping[str, Any] | None:
        """What `load_checkpoint` says of the sampler's network; None: it has none."""
        return self._samplers[self.sampler].checkpoint

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
            num_samples: N.
            seed: the same seed gives the same samples; None draws a fresh one.
            near: (J,) or (B, J) joints that the samples shall be near to: a posture objective.
            objectives: what the samples shall be good for, see `solve`.
            guidance_choices: with objectives, how many samples each one is the best of.
            guidance_steps: with objectives, gradient steps of the noise; more calls.
            tips: as in `solve`.
            free_axes: as in `solve`.

        Returns:
            (B, N, J) rad or m within the limits; a tensor when ``targets`` is one, else an array.

        Raises:
            TargetError: wrong shape, not finite, or not a rigid transform.
            SeedError: ``near`` has a wrong length, is not finite, or outside the limits.
            LinkError: an unknown tip, or one named twice.
            OptionError: an option is out of its range, there is no such objective, or the sampler
                is learned and needs complete goals.
        """
        check_count("num_samples", num_samples, 1)
        tip_indices = check_tips(self.robot, tips)
        asked = check_free_axes(self.robot, tip_indices, free_axes)
        T_base_tip = check_targets(self.robot, targets, tip_indices)
        objectives = build_objectives(objectives, self.robot)
        current = check_seed_state(self.robot, near, len(T_base_tip), "near")
        if current is not None and not any(isinstance(one, Posture) for one in objectives):
            objectives.append(Posture(self.robot))
        guidance = Guidance(guidance_choices, guidance_steps)
        reference = self._reference(current, len(T_base_tip))
        q = self._draw(
            self.sampler, T_base_tip, num_samples, self._generator(seed), reference, objectives,
            guidance, asked,
        )  # fmt: skip
        return q if isinstance(targets, Tensor) else q.cpu().numpy()

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
        refinement: str = "lm",
        objectives: Sequence[Any] = (),
        objective_steps: int = 10,
        guidance_choices: int = 4,
        guidance_steps: int = 0,
        tips: Sequence[str] | None = None,
        free_axes: Mapping[str, str] | None = None,
        max_rounds: int | None = None,
        recombining: bool = True,
    ) -> IKResult:
        """Find up to ``max_solutions`` different exact solutions for every target.

        When the first ``num_samples`` starts do not give enough, more are drawn from the same
        sampler and then uniformly, until there are enough or the budget is spent.

        Args:
            targets: T_base_tip, (B, 4, 4) for one tip or (B, T, 4, 4).
            num_samples: starts per target of the first round.
            max_solutions: M, rows of the result.
            seed_state: (J,) or (B, J) current joints: one more start, and what ``distance``
                refers to. None: the middle of the limits, which is no start.
            seed: of the random numbers; None draws a fresh one.
            select: "best" by cost, or "diverse", spread over the solution set.
            timeout: seconds from the call on, of which steps in the null space are a part. While
                they last, more starts are drawn for targets with too few solutions; then the call
                returns what it has, some milliseconds late: the pass of starts, step, or few
                checks under way are finished, and a first pass is always made. Many targets go in
                passes, each with its share of the time; those that none reached have no
                candidates. None: until a fixed number of starts. `warm_up` before, or the first
                call loads and compiles.
            position_tolerance: m, of a valid solution; one number, or one per target.
            orientation_tolerance: rad, of a valid solution; one number, or one per target.
            error_weight: of the refine error in the ranking, per m and per rad.
            distance_weight: of the distance to the seed state in the ranking, per rad.
            min_separation: rad; solutions whose largest joint difference is smaller are the same.
            avoid_self_collision: only solutions free of self-collision are valid.
            refinement: "lm", damped least squares, or "adam", gradient descent on the pose error.
            objectives: what solutions shall be good for besides the pose: names, mappings such as
                {"name": "posture", "weight": 2.0}, or `Objective`; see docs/objectives.md. They
                guide the samples, move solutions in their null spaces, and count in the ranking;
                no solution becomes less exact or invalid by them.
            objective_steps: in the null space; 0: none.
            guidance_choices: how many samples each start is the best of; 1: no choice.
            guidance_steps: gradient steps of the samples' noise, each as dear as some ten choices;
                steps in the null space gain as much for less.
            tips: which tips the targets are for, in their order; the others may be anywhere.
                None: all of the robot's, in its order.
            free_axes: for some of these tips, the axes among "x y z rx ry rz" of the target's
                frame that may be anything: "rx ry rz" asks for a position, "rz" leaves the turn
                about the target's z axis open. Errors are those to the nearest pose that is
                asked for. A learned sampler that needs complete goals leaves partial ones to the
                uniform one; ``origin`` says so.
            max_rounds: of starts, the first included; None: as many as it takes.
            recombining: complete a start that found only some of the tips that share no joint
                with what other starts found; False: plain restarts, to compare with.

        Raises:
            TargetError: a target has the wrong shape, is not finite, or is not rigid.
            SeedError: the seed state has the wrong length, is not finite, or outside the limits.
            LinkError: an unknown tip, or one named twice.
            OptionError: an option is out of its range, or there is no such objective.
            RobotError: self-collision is asked for and a collision shape cannot be read.
        """
        began = time.perf_counter()
        robot = self.robot
        tip_indices = check_tips(robot, tips)
        asked = check_free_axes(robot, tip_indices, free_axes)
        options = SolveOptions(
            num_samples, max_solutions, select, refinement, timeout,
            check_tolerance(robot, tip_indices, position_tolerance, "position_tolerance"),
            check_tolerance(robot, tip_indices, orientation_tolerance, "orientation_tolerance"),
            error_weight, distance_weight, min_separation, avoid_self_collision, objective_steps,
            max_rounds, recombining,
        )  # fmt: skip
        T_base_tip = check_targets(robot, targets, tip_indices)
        seeds = check_seed_state(robot, seed_state, len(T_base_tip))
        reference = self._reference(seeds, len(T_base_tip))
        objectives = build_objectives(objectives, robot)
        guidance = Guidance(guidance_choices, guidance_steps)
        generator = self._generator(seed)
        parts = SearchParts(
            robot=robot,
            samplers=(self._sampler_for(asked), "uniform"),
            draw=lambda name, poses, count, current: self._draw(
                name, poses, count, generator, current, objectives, guidance, asked
            ),
            refine=lambda starts, poses, limit: self._refine(starts, poses, options, asked, limit),
            in_collision=self.self_collision.in_collision if avoid_self_collision else None,
            objectives=self._search_objectives(objectives, options, asked) if objectives else None,
            clearance=self._clearance_of(objectives, options),
            starts_per_pass=self.starts_per_pass or self._starts_per_pass(objectives),
        )
        search = Search(parts, T_base_tip, reference, options, began)
        search.run(seeds)
        return search.result()

    def warm_up(self) -> None:
        """Compile and load everything that the first call would otherwise wait for."""
        middle = 0.5 * (self.robot.lower + self.robot.upper)
        for select in SELECTIONS:
            self.solve(
                self.robot.forward(middle)[None],
                4,
                2,
                middle,
                select=select,
                avoid_self_collision=True,
            )

    @cached_property
    def self_collision(self) -> SelfCollision:
        return SelfCollision(self.robot)

    @cached_property
    def clearance(self) -> SphereModel:
        return SphereModel(self.robot, self.self_collision)

    def _reference(self, current: np.ndarray | None, batch: int) -> np.ndarray:
        """(B, J) what distances refer to: the current joints, or the middle of the limits."""
        middle = 0.5 * (self.robot.lower + self.robot.upper)
        return np.tile(middle, (batch, 1)) if current is None else current

    def _search_objectives(
        self, objectives: Sequence[Objective], options: SolveOptions, asked: np.ndarray | None
    ) -> SearchObjectives:
        def found(q: np.ndarray, reference: np.ndarray) -> np.ndarray:
            current, known = torch.from_numpy(reference), np.isfinite(q).all(-1)
            near = [objective.near(current) for objective in objectives]
            found = np.full((len(q), len(objectives)), np.nan)
            if known.any():
                found[known] = values(near, torch.from_numpy(q[known])).numpy()
            return found

        def better(
            q: np.ndarray, T_base_tip: np.ndarray, reference: np.ndarray, until: float
        ) -> Refined:
            def refine(starts: Tensor, poses: np.ndarray) -> Refined:
                return self._refine(starts, poses, options, asked)

            steps = options.objective_steps
            return improve(
                self.robot, objectives, q, T_base_tip, reference, refine, steps, asked, until
            )

        weights = np.array([objective.weight for objective in objectives])
        return SearchObjectives(weights, found, better if options.objective_steps else None)

    def _clearance_of(self, objectives: Sequence[Objective], options: SolveOptions) -> Any:
        if not options.avoid_self_collision and "clearance" not in [
            one.name() for one in objectives
        ]:
            return None
        return self.clearance.distance

    def _starts_per_pass(self, objectives: Sequence[Objective]) -> int:
        if self.device.type != "cpu":
            return _STARTS_ON_DEVICE
        return _GUIDED_PER_PASS if objectives else _STARTS_PER_PASS

    def _draw(
        self,
        sampler: str,
        T_base_tip: np.ndarray,
        count: int,
        generator: torch.Generator,
        reference: np.ndarray,
        objectives: Sequence[Objective],
        guidance: Guidance,
        asked: np.ndarray | None,
    ) -> Tensor:
        poses = torch.from_numpy(T_base_tip).to(self.device)
        source = self._samplers[sampler]
        if asked is None and not objectives:
            return source.sample(poses, count, generator)
        current, given = torch.from_numpy(reference).to(self.device), given_from_asked(asked)
        turned = turned_at_random(poses, count, asked, generator)
        each = count if turned is None else 1
        if turned is not None:
            poses, current = turned.flatten(0, 1), current.repeat_interleave(count, 0)
        if objectives:
            q = guided_samples(
                self.robot, source, objectives, current, poses, each, generator, guidance, given
            )
        else:
            q = source.sample(poses, each, generator, given)
        return q.reshape(len(T_base_tip), count, self.robot.num_joints)

    def _sampler_for(self, asked: np.ndarray | None) -> str:
        """The solver's own sampler where it takes such goals, else the uniform one."""
        given = given_from_asked(asked)
        takes_it = given is None or self._samplers[self.sampler].takes_partial_goals
        return self.sampler if takes_it else "uniform"

    def _refine(
        self,
        starts: Tensor,
        T_base_tip: np.ndarray,
        options: SolveOptions,
        asked: np.ndarray | None,
        time_limit: float | None = None,
    ) -> Refined:
        tolerances = options.position_tolerance, options.orientation_tolerance
        weights = None if asked is None else asked.astype(np.float64)
        if options.refinement == "lm" and self.device.type != "cpu":
            starts = starts.to(self.device)
            return refine_lm_torch(
                self.robot, starts, T_base_tip, *tolerances, axis_weights=weights
            )
        refine = REFINEMENTS[options.refinement]
        settings: dict[str, Any] = {"axis_weights": weights}
        if options.refinement == "lm":
            settings |= {"time_limit": time_limit, "recombining": options.recombining}
        q0 = starts.cpu().numpy()
        return refine(self.robot, q0, T_base_tip, *tolerances, **settings)

    def _generator(self, seed: int | None) -> torch.Generator:
        check_seed(seed)
        generator = torch.Generator(self.device)
        if seed is None:
            generator.seed()
        else:
            generator.manual_seed(int(seed))
        return generator


def load_solver(
    robot: str | Path | Robot = "panda",
    checkpoint: str | Path | None = None,
    device: str | torch.device = "cpu",
    sampler: str = "meanflow",
) -> IKSolver:
    """Load a robot, its sampler and the refinement.

    Args:
        robot: a `Robot`, or what `load_robot` takes.
        checkpoint: name or path for a learned sampler; None: the shipped one of the robot.
        device: where samples are drawn, "cpu" or "cuda".
        sampler: "meanflow", or "uniform", which needs no checkpoint.

    Raises:
        RobotError, LinkError: the robot cannot be loaded.
        CheckpointError: the checkpoint is missing, damaged, or of another robot.
        OptionError: unknown sampler or device.
    """
    loaded = robot if isinstance(robot, Robot) else load_robot(robot)
    try:
        where = torch.device(device)
        torch.empty(0, device=where)
    except (RuntimeError, AssertionError) as error:
        raise OptionError(f"device {str(device)!r} is not usable here: {error}") from error
    return IKSolver(loaded, build_sampler(sampler, loaded, checkpoint, where), sampler, where)
