# SPDX-License-Identifier: Apache-2.0
"""What a training run shows: progress bar, TensorBoard scalars, the name of the machine."""

import contextlib
import logging
import math
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

logger = logging.getLogger(__name__)


def machine_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"{line.partition(':')[2].strip()}, {torch.get_num_threads()} threads"
    return f"{platform.machine()}, {torch.get_num_threads()} threads"


def event_writer(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        logger.warning("tensorboard is not installed: no scalars are written")
        return None
    return SummaryWriter(str(folder))


def write_scalars(writer: Any, group: str, scalars: dict[str, float], step: int) -> None:
    if writer is not None:
        for name, value in scalars.items():
            writer.add_scalar(f"{group}/{name}", value, step)


@contextlib.contextmanager
def progress_bar(show: bool) -> Iterator[Any]:
    """A function of (share done, loss, samples per second)."""
    if not show:
        yield lambda share, loss, rate: None
        return
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
