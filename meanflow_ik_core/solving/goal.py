# SPDX-License-Identifier: Apache-2.0
"""What a search is asked for: poses, starts, and which solutions are preferred."""

from dataclasses import dataclass, replace

import numpy as np

from ..errors import OptionError
from .deadline import Deadline
from .inputs import check_count, check_flag, is_number
from .ranking import SELECTIONS

_NEVER = Deadline()
# Starts per target without a timeout. Of uniform starts for poses whose every solution touches a
# limit, at least 1 in 40 converges: this many miss such a pose once in 10^11.
_BUDGET = 1024
MOST_SAMPLES = 10_000_000
# Starts of the first round where one solution is wanted: any one; any one, of starts that are dear
# to draw and mostly converge; any one that may still touch itself; any one, on a GPU, where more
# starts are cheaper than a second round; the nearest to a seed.
_FEW, _DEAR, _SOME, _CHEAP, _FOR_NEAREST = 8, 4, 16, 32, 64


@dataclass(frozen=True)
class Goal:
    """B problems: poses, what is asked of them, and the joints that distances refer to."""

    T_base_tip: np.ndarray  # (B, T, 4, 4)
    reference: np.ndarray  # (B, J) rad or m
    seeded: bool  # whether the reference is the joints' current state, and a start
    asked: np.ndarray | None  # (T, 6) bool, x y z rx ry rz of a target; None: all
    position_tolerance: float | np.ndarray  # m, scalar or (T,)
    orientation_tolerance: float | np.ndarray  # rad
    # (T, 4, 4) from frames that the poses are for to the tips that they are fixed to; None: these
    T_frame_tip: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.T_base_tip)

    @property
    def axis_weights(self) -> np.ndarray | None:
        return None if self.asked is None else self.asked.astype(np.float64)

    @property
    def T_base_sampled(self) -> np.ndarray:
        """(B, T, 4, 4) the poses of the robot's own tips, which samplers know."""
        if self.T_frame_tip is None:
            return self.T_base_tip
        return np.ascontiguousarray(self.T_base_tip @ self.T_frame_tip)

    def on_turn_of_seed(self, q: np.ndarray, continuous: np.ndarray) -> np.ndarray:
        """Configurations (B, M, J) with continuous joints on the turn that is nearest to the seed.

        Without a seed they stay between -pi and pi.
        """
        if not (self.seeded and continuous.any()):
            return q
        turn = 2 * np.pi
        near = q + turn * np.round((self.reference[:, None] - q) / turn)
        return np.where(continuous, near, q)

    def of(self, problems: np.ndarray | slice) -> "Goal":
        """The goal of some problems."""
        return replace(
            self, T_base_tip=self.T_base_tip[problems], reference=self.reference[problems]
        )


@dataclass(frozen=True)
class Preferences:
    """Which solutions are returned, and in which order.

    Raises:
        OptionError: a value does not exist or is out of its range.
    """

    max_solutions: int
    select: str
    error_weight: float
    distance_weight: float
    min_separation: float
    avoid_self_collision: bool

    def __post_init__(self) -> None:
        check_count("max_solutions", self.max_solutions, 1)
        check_flag("avoid_self_collision", self.avoid_self_collision)
        if self.select not in SELECTIONS:
            raise OptionError(
                f"unknown select {self.select!r}; it is one of {', '.join(SELECTIONS)}"
            )
        for name in ("error_weight", "distance_weight", "min_separation"):
            value = getattr(self, name)
            if not (is_number(value) and value >= 0):
                raise OptionError(f"{name} is {value!r}; it must be a number of at least 0")


@dataclass(frozen=True)
class Starts:
    """How many starts there are, in rounds, each as large as all before it.

    Raises:
        OptionError: a value is out of its range.
    """

    num_samples: int  # of the sampler's own
    max_rounds: int | None  # of which the first is `num_samples`, however begun; None: any number
    first: int = 0  # of the first round; 0: all
    sliding: bool = False  # whether those of it slide to the solution nearest to the seed

    def __post_init__(self) -> None:
        check_count("num_samples", self.num_samples, 1, MOST_SAMPLES)
        if self.max_rounds is not None:
            check_count("max_rounds", self.max_rounds, 1)
        if self.first == 0:
            object.__setattr__(self, "first", self.num_samples)

    def planned(
        self, nearest: bool, may_touch: bool, is_drawn: bool, on_device: bool
    ) -> "Starts":  # fmt: skip
        """Fewer starts in the first round, for one solution.

        Args:
            nearest: whether it shall be the nearest to a seed.
            may_touch: whether one that converges may still be refused for self-collision.
            is_drawn: whether a sampler draws the starts, and not the search itself.
            on_device: whether a GPU refines them.
        """
        few = _SOME if may_touch else _DEAR if is_drawn else _FEW
        few = _FOR_NEAREST if nearest else _CHEAP if on_device else few
        if on_device and self.max_rounds is not None:
            few = self.num_samples  # its rounds grow otherwise than `rounds` counts them
        return replace(self, first=min(self.num_samples, few), sliding=nearest)

    @property
    def first_alone(self) -> "Starts":
        """Those of the first round."""
        return replace(self, num_samples=self.first, max_rounds=1)

    @property
    def rounds(self) -> int:
        """How many there may be, with those that `num_samples` is divided into; -1: any number."""
        if self.max_rounds is None:
            return -1
        used, rounds = self.first, self.max_rounds
        while used < self.num_samples:
            used += self.next_round(used)
            rounds += 1
        return rounds

    @property
    def largest(self) -> int:
        """Starts of a later round at most."""
        return max(self.num_samples, _BUDGET)

    @property
    def budget(self) -> int:
        """Starts after which no further round begins, but for a timeout."""
        return max(_BUDGET, 4 * self.num_samples)

    def next_round(self, used: int) -> int:
        """Starts of the round after so many."""
        size = min(used, self.largest)
        return min(size, self.num_samples - used) if used < self.num_samples else size


@dataclass(frozen=True)
class Guidance:
    """How samples are drawn towards objectives.

    First the best of ``choices`` samples for each one wanted are kept, which works for every
    sampler. Then, where the sampler is a map from noise, the noise takes steps down the gradient
    through that map, on the sphere of its own norm, so that it stays as probable as it was.

    Raises:
        OptionError: a value is out of its range.
    """

    choices: int = 4
    steps: int = 2
    step_size: float = 0.6  # of the first step, in standard deviations; later ones are shorter
    deadline: Deadline = _NEVER  # after which no further step is made

    def __post_init__(self) -> None:
        for name, least in (("choices", 1), ("steps", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise OptionError(f"guidance {name} is {value!r}; an integer of at least {least}")
        if not 0 < self.step_size < float("inf"):
            raise OptionError(f"guidance step_size is {self.step_size!r}; it must be positive")
