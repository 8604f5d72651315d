# SPDX-License-Identifier: Apache-2.0
"""Files that commands write: refused before the work, not after it."""

import json
import os
from pathlib import Path
from typing import Any

from .printing import plain


def check_folder(option: str, path: Path | None) -> None:
    """Before the work: make the folder; OptionError where it cannot be made or written to."""
    from ..errors import OptionError

    if path is not None:
        there = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            raise OptionError(f"{option} {path}: {there} is no folder that can be written to")
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OptionError(f"{option} {path}: it cannot be made: {error.strerror}") from error


def check_file(option: str, path: Path | None) -> None:
    """Before the work: OptionError where a file cannot be written."""
    from ..errors import OptionError

    if path is None:
        return
    if path.is_dir() or not path.parent.is_dir():
        what = f"{path} is a folder" if path.is_dir() else f"there is no folder {path.parent}"
        raise OptionError(f"{option} {path}: {what}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise OptionError(f"{option} {path}: it cannot be written")


def write_json(path: Path, content: Any) -> None:
    """Write what `print_json` would print, with indents."""
    path.write_text(json.dumps(plain(content), allow_nan=False, indent=1) + "\n")
