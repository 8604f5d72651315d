# SPDX-License-Identifier: Apache-2.0
"""From target poses to ranked solutions: sample, refine, select."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .collision import SelfCollision
from .errors import OptionError
from .inputs import check_seed_state, check_targets
from .ranking import SELECTIONS
from .refine import REFINEMENTS, Refined, refine_lm_torch
from .robot import Robot, load_robot
from .samplers import Sampler, build_sampler
from .search import IKResult, Search, SearchParts, SolveOptions

__all__ = ["IKResult", "IKSolver", "load_solver"]


class IKSolver:
    """Draws many starts per target, refines them all, and returns the best different solutions."""

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

    def sample(self, targets: Any, num_samples: int = 1000, seed: int | None = None) -> Any:
        """Raw samples: one call of the sampler, no refinement.

        Args:
            targets: T_base_tip, (B, 4, 4) for one tip or (B, T, 4, 4).
            num_samples: N.
            seed: the same seed gives the same samples; None draws a fresh one.

        Returns:
            (B, N, J) rad or m within the limits; a tensor when ``targets`` is one, else an array.

        Raises:
            TargetError: wrong shape, not finite, or not a rigid transform.
        """
        if num_samples < 1:
            raise OptionError(f"num_samples is {num_samples!r}; it must be at least 1")
        T_base_tip = check_targets(self.robot, targets)
        q = self._draw(self.sampler, T_base_tip, num_samples, self._generator(seed))
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
        position_tolerance: float = 1e-5,
        orientation_tolerance: float = 1e-5,
        error_weight: float = 1000.0,
        distance_weight: float = 1.0,
        min_separation: float = 0.01,
        avoid_self_collision: bool = False,
        refinement: str = "lm",
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
            timeout: seconds that topping up may take until; None: a fixed number of starts.
            position_tolerance: m, of a valid solution.
            orientation_tolerance: rad, of a valid solution.
            error_weight: of the refine error in the ranking, per m and per rad.
            distance_weight: of the distance to the seed state in the ranking, per rad.
            min_separation: rad; solutions whose largest joint difference is smaller are the same.
            avoid_self_collision: only solutions free of self-collision are valid.
            refinement: "lm", damped least squares, or "adam", gradient descent on the pose error.

        Raises:
            TargetError: a target has the wrong shape, is not finite, or is not rigid.
            SeedError: the seed state has the wrong length, is not finite, or outside the limits.
            OptionError: an option is out of its range.
        """
        options = SolveOptions(
            num_samples, max_solutions, select, refinement, timeout, position_tolerance,
            orientation_tolerance, error_weight, distance_weight, min_separation,
            avoid_self_collision,
        )  # fmt: skip
        robot = self.robot
        T_base_tip = check_targets(robot, targets)
        seeds = check_seed_state(robot, seed_state, len(T_base_tip))
        middle = 0.5 * (robot.lower + robot.upper)
        reference = np.tile(middle, (len(T_base_tip), 1)) if seeds is None else seeds
        generator = self._generator(seed)
        parts = SearchParts(
            robot=robot,
            samplers=(self.sampler, "uniform"),
            draw=lambda name, poses, count: self._draw(name, poses, count, generator),
            refine=lambda starts, poses: self._refine(starts, poses, options),
            in_collision=self.self_collision.in_collision if avoid_self_collision else None,
        )
        search = Search(parts, T_base_tip, reference, options)
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

    def _draw(
        self, sampler: str, T_base_tip: np.ndarray, count: int, generator: torch.Generator
    ) -> Tensor:
        poses = torch.from_numpy(T_base_tip).to(self.device)
        return self._samplers[sampler].sample(poses, count, generator)

    def _refine(self, starts: Tensor, T_base_tip: np.ndarray, options: SolveOptions) -> Refined:
        tolerances = options.position_tolerance, options.orientation_tolerance
        if options.refinement == "lm" and self.device.type != "cpu":
            starts = starts.to(self.device)
            return refine_lm_torch(self.robot, starts, T_base_tip, *tolerances)
        refine = REFINEMENTS[options.refinement]
        return refine(self.robot, starts.cpu().numpy(), T_base_tip, *tolerances)

    def _generator(self, seed: int | None) -> torch.Generator:
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
