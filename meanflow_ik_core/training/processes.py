# SPDX-License-Identifier: Apache-2.0
"""Several training processes that act as one, and signals that end them after a step."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

import torch
from torch import distributed as dist


@contextlib.contextmanager
def processes() -> Iterator[tuple[int, int]]:
    """(rank, number of processes) under torchrun, else (0, 1)."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield 0, 1
        return
    ours = not dist.is_initialized()
    if ours:
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield dist.get_rank(), dist.get_world_size()
    finally:
        if ours:
            dist.destroy_process_group()


@contextlib.contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set, so that a step is never cut in half."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, lambda *_: stop.set())
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def shielded_children() -> Iterator[None]:
    """Programs that start inside are not reached by SIGINT.

    Ctrl-C goes to all programs of a terminal. A compiler that it kills leaves half a file in its
    cache, and a page of output.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def agree(progress: float, stopped: bool, world: int) -> tuple[float, bool]:
    """The same progress and the same end in all processes, whose clocks differ."""
    if world == 1:
        return progress, stopped
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    shared = torch.tensor([progress, float(stopped)], dtype=torch.float64, device=device)
    dist.all_reduce(shared, dist.ReduceOp.MAX)
    return shared[0].item(), bool(shared[1])


def average_gradients(parameters: list[torch.nn.Parameter], world: int) -> None:
    """Replace gradients by their mean over all processes, in one message."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= world
    for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))
