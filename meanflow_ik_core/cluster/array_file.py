# SPDX-License-Identifier: Apache-2.0
"""Arrays that chunks fill, kept in an NPZ file from which an interrupted run goes on."""

import json
import logging
import os
import re
import stat
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np

from ..bounds import short
from ..errors import OutputError
from ..progress import tracked
from .chunks import Job, computed

_LOG = logging.getLogger(__name__)

_WRITE_EVERY_S = 10.0
_WRITING_SHARE = 0.05  # of the time, at most
_DIGEST = re.compile("[0-9a-f]{64}")  # of what JSON does not have, see `digests`
_QUESTION, _DONE = "question", "done"  # arrays beside those of the answers


class ArrayFile:
    """An NPZ file of arrays that are not all computed yet.

    It is written aside and renamed, so it is whole at every moment, and a disk that is full leaves
    what was there.
    """

    def __init__(
        self,
        path: str | Path,
        question: Mapping[str, Any],
        fixed: Mapping[str, np.ndarray] | None = None,
    ):
        """Nothing is read or written yet.

        Args:
            path: of the file.
            question: what is asked, in values of JSON.
            fixed: arrays that are kept with the answers.

        Raises:
            OutputError: the path is none, or that of something else than a file.
        """
        self.path = _path(path)
        self._question = json.loads(json.dumps(question))
        self._fixed = dict(fixed or {})
        self._next = time.monotonic() + _WRITE_EVERY_S

    def read_into(self, arrays: Mapping[str, np.ndarray], done: np.ndarray) -> None:
        """Fill arrays, and which chunks are done (C,) bool, with what the file has, if it exists.

        Raises:
            OutputError: the file is damaged, or of another question.
        """
        if not self.path.exists():
            return
        asked, found, was_done = read_arrays(self.path)
        if differences := _differences(asked, self._question):
            raise OutputError(
                f"{self.path} is {differences}: name another file, or remove this one"
            )
        for name, array in (*arrays.items(), (_DONE, done)):
            kept = was_done if name == _DONE else found.get(name)
            if kept is None or kept.shape != array.shape or kept.dtype != array.dtype:
                raise OutputError(f"{self.path} is damaged: {name} is not as it must be")
            array[...] = kept

    def write(self, arrays: Mapping[str, np.ndarray], done: np.ndarray) -> None:
        """Write all arrays.

        Raises:
            OutputError: the file cannot be written; one that was there stays.
        """
        began = time.monotonic()
        draft = self.path.with_name(f".{self.path.name}.part")
        question = np.array(json.dumps(self._question))
        content: dict[str, Any] = {**self._fixed, **arrays, _DONE: done, _QUESTION: question}
        try:
            with draft.open("wb") as file:
                np.savez_compressed(file, **content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, self.path)
        except OSError as error:
            with suppress(OSError):
                draft.unlink(missing_ok=True)
            stays = "; what it holds stays" if self.path.exists() else ""
            raise OutputError(
                f"{self.path} cannot be written: {error.strerror or error}{stays}"
            ) from error
        finally:
            now = time.monotonic()
            self._next = now + max(_WRITE_EVERY_S, (now - began) / _WRITING_SHARE)

    def write_now_and_then(self, arrays: Mapping[str, np.ndarray], done: np.ndarray) -> None:
        """As `write_or_warn`, where that was long ago."""
        if time.monotonic() >= self._next:
            self.write_or_warn(arrays, done)

    def write_or_warn(self, arrays: Mapping[str, np.ndarray], done: np.ndarray) -> None:
        """As `write`; where it fails, the log says so."""
        try:
            self.write(arrays, done)
        except OutputError as error:
            _LOG.warning("%s", error)


def read_arrays(path: str | Path) -> tuple[dict[str, Any], dict[str, np.ndarray], np.ndarray]:
    """The question of a file, its arrays, and which chunks are done (C,) bool.

    Raises:
        OutputError: there is no such file, or it is damaged.
    """
    path = _path(path)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
        question, done = json.loads(str(arrays.pop(_QUESTION))), arrays.pop(_DONE)
    except OSError as error:
        raise OutputError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # NumPy, zip files and JSON raise of every kind
        raise OutputError(
            f"{path} is not a file of results: it is damaged, or another program wrote it"
        ) from error
    if not isinstance(question, dict):
        raise OutputError(f"{path} is not a file of results: it does not say what was asked")
    return question, arrays, done


def _path(given: Any) -> Path:
    """A path at which there is a file or nothing, in a folder that there is.

    Raises:
        OutputError: it is none.
    """
    try:
        path = Path(given)
        with suppress(FileNotFoundError):
            if not stat.S_ISREG(path.stat().st_mode):
                raise OutputError(f"{path} is no file")
    except TypeError as error:
        raise OutputError(f"the file of results is {given!r}; it must be a path") from error
    except (OSError, ValueError) as error:  # a name that is too long, or holds a zero
        raise OutputError(f"{short(given)} can be no file: {error}") from error
    if not path.parent.is_dir():
        raise OutputError(f"{path} can be no file: there is no folder {path.parent}")
    return path


def _differences(asked: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """In words, what a file was asked that is asked otherwise now; empty: nothing."""
    if asked.keys() != now.keys():
        return "a file of results of another kind"
    return "; ".join(
        _difference(key, asked[key], now[key]) for key in now if asked[key] != now[key]
    )


def _difference(key: str, asked: Any, now: Any) -> str:
    if not any(_DIGEST.fullmatch(str(value)) for value in (asked, now)):
        return f"of {key} {short(repr(asked), 60)}, not {short(repr(now), 60)}"
    if asked is None or now is None:
        return f"of {'no' if asked is None else 'a'} {key}"
    return f"not of the same {key}"


def fill_arrays(
    job: Job,
    data: np.ndarray,
    arrays: Mapping[str, np.ndarray],
    rows: int,
    what: str,
    file: ArrayFile | None = None,
    scheduler: str | None = None,
    processes: int | None = None,
) -> None:
    """Run a job on data, some rows at a time, and write its answers into arrays and a file.

    What the file has already is not computed again. It is written every now and then, at the end,
    and when an error or Ctrl-C ends the work.

    Args:
        job: takes rows of the data and returns these arrays for them.
        data: (N, ...).
        arrays: by name, (N, ...) each, filled in place.
        rows: of a chunk, but for the last one.
        what: is done, for messages of progress.
        file: None: none.
        scheduler, processes: see `computed`.

    Raises:
        OutputError: the file is damaged, of another question, or cannot be written.
        ClusterError: see `computed`.
    """
    starts = range(0, len(data), rows)
    done = np.zeros(len(starts), bool)
    if file is not None:
        file.read_into(arrays, done)
    chunks = {number: data[starts[number] :][:rows] for number in np.flatnonzero(~done).tolist()}
    if not chunks:
        return
    try:
        with closing(computed(job, chunks, scheduler, processes)) as answers:
            for _ in tracked(range(len(chunks)), what):
                number, answer = next(answers)
                for name, array in arrays.items():
                    array[starts[number] :][:rows] = answer[name]
                done[number] = True
                if file is not None:
                    file.write_now_and_then(arrays, done)
    except BaseException:
        if file is not None and done.any():
            file.write_or_warn(arrays, done)
        raise
    if file is not None:
        file.write(arrays, done)
