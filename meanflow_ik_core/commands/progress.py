# SPDX-License-Identifier: Apache-2.0
"""The progress bar of a training run."""

import contextlib
import math
from collections.abc import Callable, Iterator


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
