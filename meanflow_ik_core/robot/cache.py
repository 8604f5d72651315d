# SPDX-License-Identifier: Apache-2.0
"""Files that are made once and found again: composed URDFs and convex hulls."""

import os
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path


@cache
def _process_folder() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="meanflow_ik-")


def cache_folder() -> Path:
    """The user's cache folder, or one that lasts as long as this process if it is read-only."""
    home = os.environ.get("XDG_CACHE_HOME")
    try:
        folder = (Path(home) if home else Path.home() / ".cache") / "meanflow_ik"
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except (OSError, RuntimeError):
        pass
    return Path(_process_folder().name)


def cached_file(name: str, write: Callable[[Path], None]) -> Path:
    """The file of that name in the cache, written whole or not at all when it is missing.

    Args:
        name: must change with the content, for nothing is ever written over.
        write: writes the file at the path that it gets.
    """
    path = cache_folder() / name
    if not path.exists():
        handle, draft = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=path.suffix)
        os.close(handle)
        try:
            write(Path(draft))
            os.replace(draft, path)
        except BaseException:
            os.unlink(draft)
            raise
    return path
