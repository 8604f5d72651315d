# SPDX-License-Identifier: Apache-2.0
"""Where long work has come to: the bar of a training run, and one line for all else."""

import contextlib
import logging
import math
import sys
import time
from collections.abc import Callable, Iterator

from ..progress import LOGGER

_PLAIN_EVERY_S = 5.0


class _OneLine(logging.Handler):
    """Writes to stderr: over the same line on a terminal, else a line every few seconds."""

    _width = 0

    def __init__(self) -> None:
        super().__init__()
        self._last = time.monotonic()

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{text:<{self._width}}")
            self._width = len(text)
        elif time.monotonic() - self._last >= _PLAIN_EVERY_S:
            sys.stderr.write(f"{text}\n")
            self._last = time.monotonic()
        sys.stderr.flush()

    def clear(self) -> None:
        if self._width:
            sys.stderr.write(f"\r{'':<{self._width}}\r")
            sys.stderr.flush()


@contextlib.contextmanager
def progress_line() -> Iterator[None]:
    """Show what `meanflow_ik_core.progress` says meanwhile."""
    handler = _OneLine()
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.DEBUG)
    LOGGER.propagate = False
    try:
        yield
    finally:
        handler.clear()
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(logging.NOTSET)
        LOGGER.propagate = True


@contextlib.contextmanager
def progress_bar() -> Iterator[Callable[[float, float, float], None]]:
    """Draw a bar; it takes the share done, the loss, and samples per second."""
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("loss {task.fields[loss]:.4f}"),
        TextColumn("{task.fields[rate]:.0f} samples/s"),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as bar:
        task = bar.add_task("train", total=1.0, loss=math.nan, rate=0.0)
        yield lambda share, loss, rate: bar.update(task, completed=share, loss=loss, rate=rate)
