# SPDX-License-Identifier: Apache-2.0
"""Measurements of the product, one suite per module; `BENCHES` runs them by name.

    result = BENCHES["solve"](poses=200, sampler="uniform")

Suites are imported when they are run, so that listing them costs nothing. Installed packages add
suites of their own through entry points of the group "meanflow_ik_core.bench": name = module:run.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from ..errors import OptionError

if TYPE_CHECKING:
    from .result import BenchResult


@dataclass(frozen=True)
class Bench:
    """A suite: the function ``run`` of the module of that name, or of another package."""

    name: str
    measures: str
    load: Callable[[], Any] | None = None

    def defaults(self) -> dict[str, Any]:
        """Options of the suite and their default values."""
        return {
            name: parameter.default
            for name, parameter in inspect.signature(self._run()).parameters.items()
        }

    def __call__(self, **options: Any) -> BenchResult:
        """Run the suite.

        Raises:
            OptionError: it has no such option, the value is not of its kind, or a package that it
                compares with is missing.
        """
        defaults = self.defaults()
        for option, value in options.items():
            if option not in defaults:
                raise OptionError(
                    f"bench {self.name!r} has no option {option!r}; it has {', '.join(defaults)}"
                )
            kind = type(defaults[option])
            if kind in (int, float) and (
                isinstance(value, bool) or not isinstance(value, (int, kind))
            ):
                raise OptionError(
                    f"option {option!r} of bench {self.name!r} is {value!r}; it is a number of "
                    f"type {kind.__name__}"
                )
        return self._run()(**options)

    def _run(self) -> Any:
        if self.load is not None:
            return self.load()
        return importlib.import_module(f".{self.name}", __name__).run


BENCHES: dict[str, Bench] = {
    bench.name: bench
    for bench in (
        Bench("kinematics", "forward kinematics and Jacobian against Pinocchio"),
        Bench("solve", "solve on random reachable poses, judged by Pinocchio"),
        Bench("limits", "solve on poses whose every solution is near a joint limit"),
        Bench("unreachable", "false claims and time on poses that have no solution"),
        Bench("kernel", "one step of the SIMD kernel against the same step in eager torch"),
        Bench("tracik", "many different solutions of one pose against TRAC-IK restarts"),
        Bench("raw", "raw samples of one pose in one network call"),
        Bench("path", "joint paths through the poses of random motions, judged by Pinocchio"),
        Bench("clearance", "distances on spheres against Coal's exact check"),
        Bench("objectives", "each objective's value with and without, at equal accuracy"),
        Bench("robots", "every robot: learned samples beside uniform starts, judged with Coal"),
        Bench("training", "training steps against their plain form: float32, not compiled"),
    )
}
BENCHES |= {
    point.name: Bench(point.name, f"from {point.value.partition(':')[0]}", point.load)
    for point in entry_points(group="meanflow_ik_core.bench")
}
