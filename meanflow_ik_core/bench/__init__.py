# SPDX-License-Identifier: Apache-2.0
"""Measurements of the product; `BENCHES` runs them by name.

    result = BENCHES["solve"](poses=200, sampler="uniform")

A module of this folder that has a function ``run`` is a suite of its name, and the first line of
its docstring says what it measures. Its arguments, all with defaults, are the options of the
suite; it returns a `BenchResult`. A literal ``QUICK`` has the options of a short run. Suites are
imported when they are run, so that listing them costs nothing. Installed packages add suites of
their own through entry points of the group "meanflow_ik_core.bench": name = module:run.
"""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import OptionError

if TYPE_CHECKING:
    from .result import BenchResult


@dataclass(frozen=True)
class Bench:
    """A suite: the function ``run`` of the module of that name, or of another package."""

    name: str
    measures: str
    literals: Mapping[str, Any] | None = None  # the options, where its text says what they are
    quick: Mapping[str, Any] | None = None  # options of a short run, where it has one
    load: Callable[[], Any] | None = None

    def defaults(self) -> dict[str, Any]:
        """Options of the suite and their default values."""
        if self.literals is not None:
            return dict(self.literals)
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


def _own_suites() -> Iterator[Bench]:
    """The modules of this folder with a function ``run``, found in their text.

    Importing them all would take seconds, for the sake of a list of names.
    """
    for path in sorted(Path(__file__).parent.glob("*.py")):
        text = path.read_text(encoding="utf-8")
        if "\ndef run(" in text:
            tree = ast.parse(text)
            docstring = ast.get_docstring(tree) or "no docstring"
            measures = docstring.splitlines()[0].rstrip(".")
            yield Bench(path.stem, measures, _literals(tree), _quick(tree))


def _literals(tree: ast.Module) -> dict[str, Any] | None:
    """The defaults of the arguments of ``run``, so that a wrong option is refused unimported."""
    run = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "run")
    pairs = zip(run.args.kwonlyargs, run.args.kw_defaults, strict=True)
    try:
        return {name.arg: ast.literal_eval(default) for name, default in pairs if default}
    except ValueError:
        return None


def _quick(tree: ast.Module) -> dict[str, Any] | None:
    """The literal ``QUICK`` of a suite."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "QUICK":
            return ast.literal_eval(node.value)
    return None


BENCHES: dict[str, Bench] = {suite.name: suite for suite in _own_suites()}
BENCHES |= {
    point.name: Bench(point.name, f"from {point.value.partition(':')[0]}", load=point.load)
    for point in entry_points(group="meanflow_ik_core.bench")
}
