# SPDX-License-Identifier: Apache-2.0
"""Self-collision-free configurations that processes of the CPU draw ahead of a trainer on a GPU."""

import multiprocessing
import os
import queue
import signal
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import RobotError
from ..robot.robot import Robot
from .configurations import draw_configurations

_BLOCK = 8192  # rows that a process hands over at once
_BLOCKS_WAITING = 16
_MOST_PROCESSES = 8
_PATIENCE = 1.0  # s between two looks whether the processes still live


class FreePool:
    """Rows on a device, the oldest of which are replaced; draws repeat some of them.

    What a run draws from it depends on how fast the processes are, so that a run does not repeat.

    Args:
        robot: whose configurations.
        rows: that are kept at most.
        seed: of the processes' random numbers.
        device: of the rows.
        processes: that draw; None: one less than the machine has cores, at most 8.
    """

    def __init__(
        self,
        robot: Robot,
        rows: int,
        seed: int,
        device: torch.device,
        processes: int | None = None,
    ):
        self._rows = torch.zeros(rows, robot.num_joints, device=device)
        # On the device, so that a captured draw sees how many rows there are at each replay.
        self._filled = torch.zeros((), device=device)
        self.total = 0  # rows that have come so far
        context = multiprocessing.get_context("spawn")
        self._blocks: Any = context.Queue(_BLOCKS_WAITING)
        if processes is None:
            processes = min(max((os.cpu_count() or 1) - 1, 1), _MOST_PROCESSES)
        # Other streams than that of the trainer's own draws.
        seeds = np.random.SeedSequence([seed, processes]).generate_state(processes).tolist()
        self._processes = [
            context.Process(target=_draw_blocks, args=(robot, own, self._blocks), daemon=True)
            for own in seeds
        ]
        for process in self._processes:
            process.start()

    def update(self, least: int = 0) -> None:
        """Take what the processes have ready; wait until ``least`` rows have come.

        Raises:
            RobotError: a process has failed.
        """
        while True:
            wait = self.total < least
            try:
                block = self._blocks.get(wait, _PATIENCE)
            except queue.Empty:
                if not wait:
                    return
                if not any(process.is_alive() for process in self._processes):
                    raise RobotError("the processes that draw configurations have ended") from None
                continue
            if isinstance(block, str):
                raise RobotError(block)
            self._add(torch.from_numpy(block).to(self._rows.device))

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """(count, J) joints as shares of their ranges; `update` has made the first rows come."""
        chance = torch.rand(count, generator=generator, device=self._rows.device)
        index = (chance * self._filled).long()
        return self._rows[index.clamp(max=len(self._rows) - 1)]

    def close(self) -> None:
        """End the processes."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join()
        self._blocks.close()
        self._blocks.cancel_join_thread()

    def _add(self, block: Tensor) -> None:
        size = len(self._rows)
        first = self.total % size
        end = min(first + len(block), size)
        self._rows[first:end] = block[: end - first]
        rest = block[end - first :][:size]
        self._rows[: len(rest)] = rest
        self.total += len(block)
        self._filled.fill_(min(self.total, size))


def _draw_blocks(robot: Robot, seed: int, blocks: Any) -> None:
    """What a process does until it is ended: blocks, or the text of the error that ended it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the trainer ends it
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(seed)
    span = (robot.upper - robot.lower).astype(np.float32)
    try:
        while True:
            q = draw_configurations(robot, _BLOCK, generator, collision_free=True, exact=False)
            share = (q.numpy() - robot.lower.astype(np.float32)) / span
            blocks.put(np.clip(share, 0.0, 1.0))
    except Exception as error:
        blocks.put(f"drawing configurations has failed: {error}")
