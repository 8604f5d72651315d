# SPDX-License-Identifier: Apache-2.0
"""Files that commands write: refused before the work, not after it."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from ..bounds import short
from .printing import plain
from .progress import progress_line


def check_folder(option: str, path: Path | None) -> None:
    """Before the work: make the folder; OptionError where it cannot be made or written to."""
    from ..errors import OptionError

    if path is None:
        return
    try:
        there = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            raise OptionError(f"{option} {path}: {there} is no folder that can be written to")
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionError(f"{option} {short(path)}: it cannot be made: {error.strerror}") from error


def check_plots(path: Path | None) -> None:
    """As `check_folder` for --plots; OptionError also where there is nothing to draw with."""
    from ..pictures import new_figure

    check_folder("--plots", path)
    if path is not None:
        new_figure()


def check_file(option: str, path: Path | None) -> None:
    """Before the work: OptionError where a file cannot be written."""
    from ..errors import OptionError

    if path is None:
        return
    try:
        if path.is_dir() or not path.parent.is_dir():
            what = f"{path} is a folder" if path.is_dir() else f"there is no folder {path.parent}"
            raise OptionError(f"{option} {path}: {what}")
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            raise OptionError(f"{option} {path}: it cannot be written")
    except OSError as error:  # a name that is too long
        raise OptionError(f"{option} {short(path)}: {error.strerror}") from error


@contextlib.contextmanager
def going_on(path: Path) -> Iterator[None]:
    """While a file is filled: show how far it is, and say what it has where Ctrl-C ends that."""
    try:
        with progress_line():
            yield
    except KeyboardInterrupt:
        if path.exists():
            print(f"stopped; {path} has what is done, and the same command goes on")
        else:
            print(f"stopped before a part was done; there is no {path} yet")
        raise typer.Exit(130) from None


def write_json(path: Path, content: Any) -> None:
    """Write what `print_json` would print, with indents."""
    path.write_text(json.dumps(plain(content), allow_nan=False, indent=1) + "\n")
