# SPDX-License-Identifier: Apache-2.0
"""A search whose starts are drawn, refined, judged and chosen on a GPU.

Starts, steps and choice are those of `kernels.search`, in generated C (see the texts beside this
module); rounds are fewer and larger. Targets go to the device once and rows come back once; where
these do not suffice, a further round does the same for the problems that need it. The same C runs
on the CPU, for tests.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import OptionError
from ..kernels.descent import SLIDE_AFTERWARDS, SLIDE_AT_ONCE, STAY
from ..kernels.refinement import COARSE_ITERATIONS
from ..kernels.search import NOTHING, Plan, Weights
from ..robot.robot import Robot
from ..tensors import array_from
from .goal_kernels import Candidates, GoalKernels, Packed, goal_kernels

# Candidates that are refined at once, some 200 MB for an arm; fewer where the device has less.
_MOST_ROWS = 1 << 20
# A round has so many times the starts of all before it, for rounds are dear and starts are not.
_GROWTH = 8
_ROW = 4  # numbers of a row besides joints and errors, see `choose` in search.h


class Problems(NamedTuple):
    """Problems on the device."""

    target: Tensor  # (B, G, 4, 4) float64, of tips with something asked for
    reference: Tensor  # (B, J) float64
    keys: Tensor  # (B,) int64, the bits of the keys
    seeds: Tensor  # (B, J) float64

    def of(self, which: Any) -> "Problems":
        return Problems(*(tensor[which] for tensor in self))


# Draws starts number ``first`` and on: (problems, their numbers, first, count) -> (b, count, J).
Draw = Callable[[Problems, np.ndarray, int, int], Tensor]


class Chosen(NamedTuple):
    """Rows on the device, as `choose` of search.h writes them."""

    q: Tensor  # (B, M, J)
    position_error: Tensor  # (B, M, T)
    orientation_error: Tensor  # (B, M, T)
    numbers: Tensor  # (B, M, 4) distance, cost, valid, start

    def of(self, which: Any) -> "Chosen":
        return Chosen(*(tensor[which] for tensor in self))


class Rows(NamedTuple):
    """Rows on the host, as `kernels.search.search` returns them."""

    q: np.ndarray
    position_error: np.ndarray
    orientation_error: np.ndarray
    valid: np.ndarray
    distance: np.ndarray
    cost: np.ndarray
    start: np.ndarray


_NO_ROWS = Rows(*(np.empty((0, 0)) for _ in Rows._fields))


class Asked(NamedTuple):
    """What is the same in all rounds of a search."""

    kernels: GoalKernels
    settings: Tensor
    plan: Plan


class Round(NamedTuple):
    """Some starts of all problems that need them."""

    first: int  # number of the first start
    count: int
    seeded: bool
    sliding: int


class DeviceSearch:
    """Searches of a robot on a device.

    Args:
        robot: of any tree.
        device: cuda, or cpu for tests.
    """

    def __init__(self, robot: Robot, device: str | torch.device):
        self._robot, self.device = robot, torch.device(device)
        self._most_rows, self._growth = _MOST_ROWS, _GROWTH

    def search(
        self,
        T_base_tip: np.ndarray,
        reference: np.ndarray,
        arrays: Packed,
        plan: Plan,
        weights: Weights,
        keys: np.ndarray,
        draw: Draw | None = None,
    ) -> tuple[Rows, np.ndarray, np.ndarray]:
        """Search for solutions of B poses.

        Args:
            T_base_tip: (B, T, 4, 4).
            reference: (B, J) rad or m, what distances refer to.
            arrays: the robot and its goal, see `kernels.layout.pack`.
            plan: of which ``starts_per_pass`` means nothing here.
            weights: of costs and choice.
            keys: (B,) uint64, of the uniform starts.
            draw: the sampler's own starts; None: all are uniform.

        Returns:
            The rows, how many starts each problem took (B,), and how many of these were the
            sampler's own (B,).

        Raises:
            ConfigError: the kernels cannot be compiled or loaded.
            OptionError: the device has too little memory for the starts of one problem.
        """
        kernels = goal_kernels(self._robot, arrays, self.device)
        settings, problems = self._upload(kernels, weights, T_base_tip, reference, keys)
        asked = Asked(kernels, settings, plan)
        batch = len(keys)
        waiting, used, own = np.arange(batch), np.zeros(batch, np.int64), np.zeros(batch, np.int64)
        kept, buffer = self._empty_rows(batch, plan.solutions)
        if batch == 0:
            return self._fetched(kept, buffer), used, own
        rows, sliding = _NO_ROWS, STAY
        if plan.sliding:
            seeds = torch.empty_like(problems.reference)
            self._round(asked, problems, Round(0, 0, True, SLIDE_AT_ONCE), None, None, kept, seeds)
            rows = self._fetched(kept, buffer)
            near = rows.valid[:, 0] & (rows.distance[:, 0] <= weights.near)
            waiting = np.flatnonzero(~near) if plan.rounds else waiting[:0]
            problems, sliding = problems._replace(seeds=seeds), SLIDE_AFTERWARDS
        first, count, rounds = 0, plan.first, 0
        while len(waiting):
            by_sampler = np.full(len(waiting), draw is not None and first < plan.own)
            if draw is not None and first == plan.own == plan.first:
                by_sampler = rows.valid[waiting].any(1)  # once more where it found something
            this = Round(first, count, plan.seeded == 1 and first == 0, sliding)
            for which, source in ((waiting[by_sampler], draw), (waiting[~by_sampler], None)):
                if not len(which):
                    continue
                own[which] += count * (source is not None)
                drawing = None if source is None else _of(source, which)
                if len(which) == batch:
                    before = kept if first else None
                    kept, buffer = self._empty_rows(batch, plan.solutions)
                    self._round(asked, problems, this, drawing, before, kept)
                    rows = self._fetched(kept, buffer)
                    continue
                index = torch.from_numpy(which).to(self.device)
                before = kept.of(index) if first else None
                some, some_buffer = self._empty_rows(len(which), plan.solutions)
                self._round(asked, problems.of(index), this, drawing, before, some)
                for ours, theirs in zip(kept, some, strict=True):
                    ours[index] = theirs
                for ours, theirs in zip(rows, self._fetched(some, some_buffer), strict=True):
                    ours[which] = theirs
            used[waiting] += count
            first, rounds, sliding = first + count, rounds + 1, STAY
            if first >= plan.budget or rounds == plan.rounds:
                break
            waiting = waiting[~rows.valid[waiting].all(1)]
            count = min(self._growth * first, plan.largest)
            if first < plan.own:
                count = min(count, plan.own - first)
        return rows, used, own

    def refined(
        self,
        q: Any,
        T_base_tip: np.ndarray,
        reference: np.ndarray,
        arrays: Packed,
        sliding: int,
        recombining: bool,
        iterations: int = COARSE_ITERATIONS,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Refine starts, as `kernels.refinement.refine_starts` does.

        Args:
            q: (B, N, J) tensor or array, left alone.
            T_base_tip, reference, arrays: as for `search`.
            sliding, recombining, iterations: see `kernels.refinement.refine`.

        Returns:
            q (B, N, J), errors in m and rad (B, N, T, 2), and valid (B, N).
        """
        kernels = goal_kernels(self._robot, arrays, self.device)
        starts = torch.as_tensor(q, dtype=torch.float64, device=self.device)
        batch, count = starts.shape[:2]
        keys = np.zeros(batch, np.uint64)
        settings, problems = self._upload(
            kernels, Weights(0.0, 0.0, 0.0, 0.0), T_base_tip, reference, keys
        )
        numbers = torch.empty(0, dtype=torch.int32, device=self.device)
        parts = []

        def work(rows: slice) -> None:
            target, current = problems.target[rows], problems.reference[rows]
            own = starts[rows].clone(memory_format=torch.contiguous_format)
            found = kernels.refine(
                settings, target, current, own, numbers, iterations, sliding, recombining
            )
            parts.append([array_from(tensor) for tensor in (own, found.errors, found.valid)])

        self._in_passes(batch, count, work)
        q, of_active, valid = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        errors = np.zeros((batch, count, self._robot.num_tips, 2))
        errors[:, :, kernels.active] = of_active
        return q, errors, valid != 0

    def _round(
        self, asked: Asked, problems: Problems, this: Round, draw: Callable[..., Tensor] | None,
        before: Chosen | None, results: Chosen, seeds: Tensor | None = None,
    ) -> None:  # fmt: skip
        """Write the rows of problems from the starts of a round and those chosen before it; and
        where the first start of each ends to seeds (B, J)."""
        kernels, settings, plan = asked

        def work(rows: slice) -> None:
            some = problems.of(rows)
            given = None
            if draw is not None:
                given = draw(some, rows, this.first, this.count).float().contiguous()
            q, start = kernels.draw(
                some.keys, some.seeds if this.seeded else None, given, this.first, this.count
            )
            found = kernels.refine(
                settings, some.target, some.reference, q, start, COARSE_ITERATIONS, this.sliding,
                plan.recombining == 1,
            )  # fmt: skip
            if seeds is not None:
                seeds[rows] = q[:, 0]
            if before is not None:
                found = _with(found, before.of(rows), kernels.active)
            kernels.choose(settings, found, plan.diverse == 1, results.of(rows))

        carried = 0 if before is None else plan.solutions
        self._in_passes(len(problems.keys), this.count + this.seeded + carried, work)

    def _in_passes(self, batch: int, count: int, work: Callable[[slice], None]) -> None:
        """Do work for slices of problems with ``count`` candidates each that the memory holds."""
        begin = 0
        while begin < batch:
            size = min(batch - begin, max(1, self._most_rows // count))
            try:
                work(slice(begin, begin + size))
            except torch.OutOfMemoryError as error:
                if size == 1:
                    raise OptionError(
                        f"{self.device} has too little memory for {count} starts of one target; "
                        "ask for fewer num_samples, or use device 'cpu'"
                    ) from error
                self._most_rows = size * count // 2
                torch.cuda.empty_cache()
            else:
                begin += size

    def _upload(
        self, kernels: GoalKernels, weights: Weights, T_base_tip: np.ndarray,
        reference: np.ndarray, keys: np.ndarray,
    ) -> tuple[Tensor, Problems]:  # fmt: skip
        """Settings and problems on the device, in one transfer."""
        parts = (
            kernels.settings(weights),
            T_base_tip if len(kernels.active) == T_base_tip.shape[1] else
            T_base_tip[:, kernels.active],
            reference,
            keys.view(np.float64),
        )  # fmt: skip
        ends = np.cumsum([part.size for part in parts])
        host = _room_on_host(int(ends[-1]), torch.float64, self.device)
        numbers = host.numpy()
        for part, end in zip(parts, ends, strict=True):
            numbers[end - part.size : end] = part.ravel()
        there = host.to(self.device, non_blocking=True)
        settings, target, current, of_keys = (
            there[end - part.size : end].view(part.shape)
            for part, end in zip(parts, ends, strict=True)
        )
        return settings, Problems(target, current, of_keys.view(torch.int64), current)

    def _empty_rows(self, batch: int, most: int) -> tuple[Chosen, Tensor]:
        """Room for rows on the device, and the buffer that it is in."""
        robot = self._robot
        widths = (robot.num_joints, robot.num_tips, robot.num_tips, _ROW)
        buffer = torch.empty(batch * most * sum(widths), dtype=torch.float64, device=self.device)
        parts = buffer.split([batch * most * width for width in widths])
        shaped = zip(parts, widths, strict=True)
        return Chosen(*(part.view(batch, most, width) for part, width in shaped)), buffer

    def _fetched(self, rows: Chosen, buffer: Tensor) -> Rows:
        """Rows on the host, in one transfer."""
        numbers = array_from(buffer)
        ends = np.cumsum([part.numel() for part in rows])
        q, position, orientation, others = (
            numbers[end - part.numel() : end].reshape(part.shape)
            for part, end in zip(rows, ends, strict=True)
        )
        distance, cost = (np.ascontiguousarray(others[..., i]) for i in range(2))
        valid, start = others[..., 2] != 0, others[..., 3].astype(np.int64)
        return Rows(q, position, orientation, valid, distance, cost, start)


def _room_on_host(shape: Any, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.empty(shape, dtype=dtype, pin_memory=device.type == "cuda")


def _of(draw: Draw, which: np.ndarray) -> Callable[..., Tensor]:
    """The drawing of problems by their places among those in ``which``."""
    return lambda problems, rows, first, count: draw(problems, which[rows], first, count)


def _with(found: Candidates, before: Chosen, active: np.ndarray) -> Candidates:
    """Candidates and the rows that were chosen before them."""
    distance, cost, valid, start = before.numbers.unbind(-1)
    cost = torch.where(start == NOTHING, torch.inf, cost)
    errors = torch.stack((before.position_error, before.orientation_error), -1)
    index = torch.from_numpy(active).to(errors.device)
    older = (
        before.q, errors[:, :, index], distance, cost, valid.to(torch.uint8),
        start.to(torch.int32),
    )  # fmt: skip
    return Candidates(*(torch.cat(pair, 1) for pair in zip(older, found, strict=True)))
