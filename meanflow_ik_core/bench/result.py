# SPDX-License-Identifier: Apache-2.0
"""What a measurement returns: numbers, their bars, and where they were made.

Records are read without torch, which is imported where a measurement is made.
"""

from __future__ import annotations

import math
import os
import platform
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import OptionError

if TYPE_CHECKING:
    from ..solving.solver import IKSolver

_PACKAGES = (
    "meanflow-ik-ros", "numpy", "torch", "numba", "pin", "EAIK", "frankik", "optik-py", "pytracik",
    "ssik", "daqp", "mink", "mujoco", "pin-pink", "roboplan-simple-ik", "roboticstoolbox-python",
)  # fmt: skip


class NothingToMeasure(Exception):
    """A suite has nothing to measure on this machine; the message says why."""


@dataclass(frozen=True)
class Measure:
    """One number, and the bar it is held to where there is one."""

    what: str
    value: float
    unit: str = ""
    at_least: float | None = None
    at_most: float | None = None

    @property
    def reached(self) -> bool | None:
        """Whether the bar is reached; None without a bar. NaN reaches none."""
        if self.at_least is None and self.at_most is None:
            return None
        above = self.at_least is None or self.value >= self.at_least
        return above and (self.at_most is None or self.value <= self.at_most)

    @property
    def bar(self) -> str:
        """The bar as text, empty without one."""
        if self.at_least is not None:
            return f">= {self.at_least:g}"
        return "" if self.at_most is None else f"<= {self.at_most:g}"


@dataclass(frozen=True)
class BenchResult:
    """The numbers of one suite."""

    bench: str
    measures: tuple[Measure, ...]
    options: dict[str, Any]
    environment: dict[str, Any]

    COLUMNS = ("measure", "value", "unit", "bar", "reached")

    @property
    def reached(self) -> bool:
        """Whether every bar is reached."""
        return all(measure.reached is not False for measure in self.measures)

    @property
    def notes(self) -> list[str]:
        """Who is missing, with the command that brings it, and who failed how."""
        missing, faults = self.options.get("missing"), self.options.get("faults", {})
        lines = [f"Not installed, and so not asked: {missing}."] if missing else []
        return lines + [f"{who}: {what}." for who, what in faults.items()]

    def __getitem__(self, what: str) -> float:
        """The value of a measure by its name."""
        return {measure.what: measure.value for measure in self.measures}[what]

    def rows(self) -> list[tuple[str, ...]]:
        """A table with `COLUMNS`."""
        words = {None: "", True: "yes", False: "NO"}
        return [
            (
                measure.what,
                f"{measure.value:.4g}",
                measure.unit,
                measure.bar,
                words[measure.reached],
            )
            for measure in self.measures
        ]

    @classmethod
    def of_solver(
        cls, bench: str, measures: Iterable[Measure], solver: IKSolver, **options: Any
    ) -> BenchResult:
        """What was measured of a solver here and now, with its robot and sampler as options too."""
        own = {"robot": solver.robot.name, "sampler": solver.sampler}
        return cls(bench, tuple(measures), own | options, environment())

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> BenchResult:
        """What `as_dict` made; a number that JSON cannot hold comes back as NaN.

        Raises:
            KeyError, TypeError, AttributeError: the content is something else.
        """
        measures = tuple(
            Measure(
                found["what"], math.nan if found["value"] is None else float(found["value"]),
                found["unit"], found["at_least"], found["at_most"],
            )
            for found in content["measures"]
        )  # fmt: skip
        return cls(content["bench"], measures, dict(content["options"]), content["environment"])

    def as_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        measures = [{**asdict(measure), "reached": measure.reached} for measure in self.measures]
        return {
            "bench": self.bench,
            "measures": measures,
            "options": self.options,
            "environment": self.environment,
        }


def environment() -> dict[str, Any]:
    """Versions, hardware, commit, load and time of this process."""
    import torch

    return {
        "commit": _commit(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "load_average": os.getloadavg()[0],
        "torch_threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "platform": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _PACKAGES},
    }


@contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """Let torch use that many threads inside the block."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def at_least_one(**counts: int) -> None:
    """Raise an `OptionError` that names the first count below one."""
    for name, count in counts.items():
        if count < 1:
            raise OptionError(f"{name} is {count!r}; it must be at least 1")


def _commit() -> str | None:
    """The checkout's commit, with "+" when files differ from it; None outside a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        commit, changes = (
            subprocess.run(
                ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True
            ).stdout.strip()
            for arguments in (("rev-parse", "HEAD"), ("status", "--porcelain", "-uno"))
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+" if changes else "")


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
