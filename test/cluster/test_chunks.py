# SPDX-License-Identifier: Apache-2.0
"""Work in chunks: the same answers wherever they are computed, and whoever dies meanwhile."""

import multiprocessing
import os
import signal
import socket
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

import meanflow_ik_core as mik
from meanflow_ik_core.cluster.chunks import computed

CHUNKS = {number: np.full(3, number) for number in range(8)}


def squares(chunk: np.ndarray) -> np.ndarray:
    return chunk**2


class DiesOnce:
    """A job that kills its process the first time that it sees one chunk."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __call__(self, chunk: np.ndarray) -> np.ndarray:
        if chunk[0] == 3 and not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return squares(chunk)


def dies(chunk: np.ndarray) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_chunk_whose_process_dies_is_computed_again(tmp_path):
    answers = dict(computed(DiesOnce(tmp_path / "mark"), CHUNKS, processes=2))
    assert (tmp_path / "mark").exists()
    assert sorted(answers) == sorted(CHUNKS)
    for number, answer in answers.items():
        np.testing.assert_array_equal(answer, number**2)


def test_processes_that_always_die_are_given_up():
    with pytest.raises(mik.ClusterError, match=r"died 3 times in a row.*8 of 8 chunks are left"):
        list(computed(dies, CHUNKS, processes=2))


def test_workers_that_a_job_kills_each_time_are_an_error(cluster):
    with pytest.raises(mik.ClusterError, match="left 1 of 1 chunks undone"):
        list(computed(dies, {0: np.zeros(1)}, cluster.scheduler_address))


def test_an_unknown_scheduler_is_refused_in_time():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        for address in (f"tcp://127.0.0.1:{port}", "nowhere", "x://y", ""):
            began = time.monotonic()
            with pytest.raises(mik.ClusterError, match="no Dask scheduler answers at"):
                list(computed(squares, CHUNKS, address))
            assert time.monotonic() - began < 10


def test_a_worker_is_no_scheduler(cluster):
    worker = next(iter(cluster.scheduler.workers))
    with pytest.raises(mik.ClusterError, match="is a Dask Worker, not a scheduler"):
        list(computed(squares, CHUNKS, worker))


@pytest.mark.parametrize("processes", [0, -1, 1.5, True])
def test_a_number_of_processes_that_is_none_is_refused(processes):
    with pytest.raises(mik.OptionError, match="processes"):
        list(computed(squares, CHUNKS, processes=processes))


def test_an_iterator_that_is_closed_ends_its_processes():
    before = set(multiprocessing.active_children())
    with closing(computed(squares, CHUNKS, processes=2)) as answers:
        next(answers)
        assert len(multiprocessing.active_children()) == len(before) + 2
    assert set(multiprocessing.active_children()) == before
