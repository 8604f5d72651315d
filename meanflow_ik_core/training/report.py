# SPDX-License-Identifier: Apache-2.0
"""What a training run tells of itself: progress, TensorBoard scalars, the name of the machine."""

import contextlib
import logging
import platform
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

logger = logging.getLogger(__name__)

# Opened for one run; then called with the share of the run that is done, the loss, and samples per
# second.
ProgressBar = Callable[[], AbstractContextManager[Callable[[float, float, float], object]]]


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


def no_progress_bar() -> AbstractContextManager[Callable[[float, float, float], object]]:
    return contextlib.nullcontext(lambda share, loss, rate: None)
