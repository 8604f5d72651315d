# SPDX-License-Identifier: Apache-2.0
"""A file of arrays is whole at every moment, and an interrupted run goes on from it."""

import pickle
import resource
import signal
from pathlib import Path

import numpy as np
import pytest

import meanflow_ik_core as mik
from meanflow_ik_core.cluster.array_file import ArrayFile, fill_arrays, read_arrays

DATA = np.arange(25.0)
QUESTION = {"power": 2, "name": "squares"}


class Job:
    """Squares, until it has seen so many chunks."""

    def __init__(self, chunks: float = np.inf, error: type[BaseException] = KeyboardInterrupt):
        self.seen: list[float] = []
        self.chunks, self.error = chunks, error

    def __call__(self, chunk: np.ndarray) -> dict[str, np.ndarray]:
        if len(self.seen) == self.chunks:
            raise self.error
        self.seen.append(chunk[0])
        return {"square": chunk**2}


def fill(path: Path, job: Job, question: dict = QUESTION, rows: int = 4) -> np.ndarray:
    arrays = {"square": np.zeros(len(DATA))}
    file = ArrayFile(path, question, {"data": DATA})
    fill_arrays(job, DATA, arrays, rows, "squaring", file, processes=1)
    return arrays["square"]


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "squares.npz"


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_run_goes_on(path, error):
    with pytest.raises(error):
        fill(path, Job(3, error))
    question, arrays, done = read_arrays(path)
    assert question == QUESTION and done.tolist() == [True] * 3 + [False] * 4
    np.testing.assert_array_equal(arrays["square"][:12], DATA[:12] ** 2)
    rest = Job()
    np.testing.assert_array_equal(fill(path, rest), DATA**2)
    assert rest.seen == [12.0, 16.0, 20.0, 24.0]
    again = Job()
    np.testing.assert_array_equal(fill(path, again), DATA**2)
    assert again.seen == []
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_a_file_of_another_question_is_refused_and_stays(path):
    fill(path, Job())
    before = path.read_bytes()
    with pytest.raises(mik.OutputError, match="is of power 2, not 3: name another file"):
        fill(path, Job(), {**QUESTION, "power": 3})
    with pytest.raises(mik.OutputError, match="is damaged: done is not as it must be"):
        fill(path, Job(), rows=5)
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"no archive", None])
def test_a_damaged_file_is_refused(path, content):
    fill(path, Job())
    path.write_bytes(path.read_bytes()[:-100] if content is None else content)
    with pytest.raises(mik.OutputError, match="is not a file of results"):
        fill(path, Job())


@pytest.mark.parametrize("write", [
    lambda path: np.savez(path, q=DATA),
    lambda path: np.savez(path, question=np.array([{}], object), done=DATA),  # pickled
    lambda path: path.write_bytes(pickle.dumps({"done": 1})),
    lambda path: path.open("wb").write(np.lib.format.MAGIC_PREFIX),
    lambda path: np.save(path.open("wb"), DATA),
])  # fmt: skip
def test_a_file_of_another_program_is_no_file_of_results(path, write):
    write(path)
    with pytest.raises(mik.OutputError, match=r"damaged, or another program wrote it$"):
        read_arrays(path)


@pytest.mark.parametrize("given, message", [
    (5, "is 5; it must be a path"),
    ("/dev/null", "is no file"),
    ("a" * 300, "can be no file: .*too long"),
    ("a\0b", "can be no file: .*null"),
    ("nowhere/squares.npz", "there is no folder nowhere"),
])  # fmt: skip
def test_a_file_that_cannot_be_is_refused_before_the_work(given, message):
    with pytest.raises(mik.OutputError, match=message):
        ArrayFile(given, QUESTION)


def test_all_that_is_asked_otherwise_is_named(path):
    asked = {**QUESTION, "world": "a" * 64, "box": None}
    fill(path, Job(), asked)
    now = {"power": 3, "name": "squares", "world": None, "box": [1, 2]}
    with pytest.raises(
        mik.OutputError, match=r"of power 2, not 3; of a world; of box None, not \[1, 2\]:"
    ):
        fill(path, Job(), now)
    with pytest.raises(mik.OutputError, match="is a file of results of another kind:"):
        fill(path, Job(), QUESTION)


def test_a_full_disk_leaves_what_was_there(path):
    with pytest.raises(KeyboardInterrupt):
        fill(path, Job(2))
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))  # bytes that a file may have
    try:
        with pytest.raises(mik.OutputError, match=r"cannot be written: .*; what it holds stays"):
            fill(path, Job())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == before
    assert [one.name for one in path.parent.iterdir()] == [path.name]
    np.testing.assert_array_equal(fill(path, Job()), DATA**2)
