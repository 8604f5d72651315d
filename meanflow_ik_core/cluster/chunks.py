# SPDX-License-Identifier: Apache-2.0
"""Run a job on chunks of data, in processes of this machine or on a Dask cluster.

A chunk whose worker dies is computed again. An answer depends on the job and its chunk alone, so it
does not matter who computes it, or in which order.
"""

import asyncio
import logging
import os
import pickle
import signal
import threading
from collections.abc import Callable, Generator, Mapping
from concurrent import futures
from concurrent.futures import CancelledError, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from typing import Any

from ..errors import ClusterError, OptionError

Job = Callable[[Any], Any]
Answers = Generator[tuple[int, Any], None, None]  # by number of a chunk

_LOG = logging.getLogger(__name__)

_ANSWERS_S = 5.0  # in which a scheduler answers
_MOST_DEATHS = 3  # of processes, without a chunk that was done in between

_job: Job | None = None  # of a worker process


def computed(
    job: Job, chunks: Mapping[int, Any], scheduler: str | None = None, processes: int | None = None
) -> Answers:
    """Run a job on chunks; yields the number of a chunk and its answer, in the order of their ends.

    Close the iterator to stop early.

    Args:
        job: takes a chunk and returns its answer; all three travel by pickle.
        chunks: by number.
        scheduler: address of a Dask scheduler, such as "tcp://host:8786", whose workers have this
            package installed; None: this machine.
        processes: of this machine; 1: this one. None: one for each core.

    Raises:
        OptionError: the number of processes is no positive integer.
        ClusterError: Dask is not installed, the scheduler does not answer, or workers die again
            and again.
    """
    if scheduler is not None:
        yield from _on_cluster(job, chunks, scheduler)
        return
    count = len(os.sched_getaffinity(0)) if processes is None else processes
    if type(count) is not int or count < 1:
        raise OptionError(f"processes is {processes!r}; it must be an integer of at least 1")
    count = min(count, len(chunks))
    if count > 1:
        yield from _in_processes(job, chunks, count)
        return
    # Ctrl-C reaches the main thread alone, and compiled code must not meet it.
    with ThreadPoolExecutor(1) as thread:
        for number, chunk in chunks.items():
            yield number, thread.submit(job, chunk).result()


def _in_processes(job: Job, chunks: Mapping[int, Any], count: int) -> Answers:
    left, deaths = dict(chunks), 0
    pickled = pickle.dumps(job)
    while left:
        # Spawned, for a fork takes along what other threads hold.
        pool = ProcessPoolExecutor(count, get_context("spawn"), _begin, (pickled,))
        try:
            numbers = {pool.submit(_run, chunk): number for number, chunk in left.items()}
            for future in futures.as_completed(numbers):
                number, answer = numbers.pop(future), future.result()
                del left[number]
                deaths = 0
                yield number, answer
        except (KeyboardInterrupt, GeneratorExit):
            # Who waits for a chunk to end presses Ctrl-C again, which would leave them behind.
            for process in list((pool._processes or {}).values()):
                process.kill()
            raise
        except BrokenProcessPool as error:
            deaths += 1
            if deaths == _MOST_DEATHS:
                raise ClusterError(
                    f"worker processes died {deaths} times in a row, for lack of memory or of "
                    f"`if __name__ == '__main__':`; {len(left)} of {len(chunks)} chunks are left"
                ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _begin(pickled: bytes) -> None:
    """What a worker process does first."""
    global _job
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _job = pickle.loads(pickled)


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _run(chunk: Any) -> Any:
    assert _job is not None
    return _job(chunk)


def _on_cluster(job: Job, chunks: Mapping[int, Any], address: str) -> Answers:
    try:
        from distributed import Client, as_completed
        from distributed.scheduler import KilledWorker
    except ImportError as error:
        raise ClusterError("a scheduler needs Dask: pip install '.[cluster]'") from error
    _check_scheduler(address)
    with Client(address, timeout=_ANSWERS_S, set_as_default=False) as client:
        # The job is a task as well: where the worker that holds it dies, another one makes it.
        there = client.submit(pickle.loads, pickle.dumps(job), pure=False)
        left = {}
        for number, chunk in chunks.items():
            future = client.submit(_apply, there, chunk, pure=False)
            left[future.key] = number, future
        ended = as_completed([future for _, future in left.values()], loop=client.loop)
        try:
            for future in ended:
                number, _ = left.pop(future.key)
                yield number, future.result()
        except (KilledWorker, CancelledError, ImportError) as error:
            raise ClusterError(
                f"the cluster at {address} left {len(left) + 1} of {len(chunks)} chunks undone; "
                f"its workers need this package and enough memory: {error}"
            ) from error


def _apply(job: Job, chunk: Any) -> Any:
    return job(chunk)


def _check_scheduler(address: str) -> None:
    """ClusterError where no Dask scheduler answers; a client would go on asking."""
    with ThreadPoolExecutor(1) as thread:  # for this one may run a loop already
        try:
            answer = thread.submit(asyncio.run, _identity(address)).result()
        except Exception as error:  # servers of other kinds answer anything
            reason = str(error) or f"nothing in {_ANSWERS_S:g} s"
            raise ClusterError(f"no Dask scheduler answers at {address!r}: {reason}") from error
    if answer.get("type") != "Scheduler":
        raise ClusterError(f"{address!r} is a Dask {answer.get('type')}, not a scheduler")
    if not answer.get("workers"):
        _LOG.warning("the scheduler at %s has no workers yet; the work waits for them", address)


async def _identity(address: str) -> Any:
    from distributed import rpc

    async with rpc(address, timeout=_ANSWERS_S) as server:
        return await asyncio.wait_for(server.identity(), _ANSWERS_S)
