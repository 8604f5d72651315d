# SPDX-License-Identifier: Apache-2.0
"""Files that are there as a whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path to write to, whose file takes the other path's name once it is written.

    Where the writing fails, what stood there before stays, and nothing else is left.
    """
    path = path.resolve()
    if path.exists() and not path.is_file():
        yield path  # a pipe or a terminal
        return
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield draft
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
