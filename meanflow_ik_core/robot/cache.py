# SPDX-License-Identifier: Apache-2.0
"""Files that are made once and found again: composed URDFs, meshes, spheres, compiled code.

Each has its digest in a file beside it. A file that a power cut or a full disk has left damaged is
noticed when it is asked for, and made anew. Where the user's cache takes no file, others last as
long as the process.
"""

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

from ..errors import RobotError

_LOG = logging.getLogger(__name__)
_DIGEST = ".sha256"


@cache
def _process_folder(parent: str | None) -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="meanflow_ik-", dir=parent)


def _user_folder() -> Path:
    home = os.environ.get("XDG_CACHE_HOME")
    folder = (Path(home) if home else Path.home() / ".cache") / "meanflow_ik"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _folders() -> Iterator[Path]:
    """Where files may go: the user's cache, a temporary folder, and one in memory."""
    with suppress(OSError, RuntimeError):  # there is no home
        yield _user_folder()
    for parent in (None, "/dev/shm"):
        with suppress(OSError):
            yield Path(_process_folder(parent).name)


def cached_file(name: str, write: Callable[[Path], object]) -> Path:
    """The file of that name in the cache, made where it is missing or damaged.

    Args:
        name: must change with the content.
        write: writes the file at the path that it gets.

    Raises:
        RobotError: there is no place for the file.
    """
    reason = "there is none"
    for folder in _folders():
        path = folder / name
        if _is_whole(path):
            return path
        try:
            _write_whole(path, write)
        except OSError as error:
            reason = f"{folder}: {error.strerror or error}"
            _say_once(reason)
            continue
        return path
    raise RobotError(f"no folder takes the file {name!r} of the cache; the last tried is {reason}")


def _is_whole(path: Path) -> bool:
    try:
        return _beside(path).read_text() == _digest(path)
    except (OSError, ValueError):
        return False


def _write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file and its digest aside, and give them their names once they are on the disk."""
    drafts = []
    try:
        for _ in range(2):
            handle, draft = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=path.suffix)
            os.close(handle)
            drafts.append(Path(draft))
        content, digest = drafts
        write(content)
        digest.write_text(_digest(content))
        for draft in drafts:
            with draft.open("rb") as file:
                os.fsync(file.fileno())
        os.replace(digest, _beside(path))
        os.replace(content, path)
    finally:
        for draft in drafts:
            draft.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    return path.with_name(path.name + _DIGEST)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@cache
def _say_once(reason: str) -> None:
    _LOG.warning("the cache takes no files (%s): what is made is made anew next time", reason)
