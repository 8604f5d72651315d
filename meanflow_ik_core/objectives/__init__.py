# SPDX-License-Identifier: Apache-2.0
"""What makes one solution better than another: each module holds one objective, named after it."""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..bounds import MOST_OBJECTIVE_TEXT, MOST_OBJECTIVES
from ..errors import LinkError, OptionError
from ..plain_numbers import plain_float
from ..plain_yaml import plain_from_file, plain_from_text
from ..robot.robot import Robot
from ..robot.urdf import listing
from ..tensors import require_torch
from ..world.scene import Scene

if TYPE_CHECKING:
    from torch import Tensor


class Objective(ABC):
    """A differentiable number per configuration; lower is better.

    Args:
        robot: whose configurations.
        weight: what the objective's value counts in a sum of several, and in the ranking.

    Raises:
        OptionError: the weight is not a finite number of at least 0.
    """

    def __init__(self, robot: Robot, weight: float = 1.0):
        self.robot = robot
        self.weight = number(type(self).name(), "weight", weight, least=0.0)

    @classmethod
    def name(cls) -> str:
        """The name in specifications, which is that of the module."""
        return cls.__module__.rpartition(".")[2]

    @abstractmethod
    def value(self, q: Tensor) -> Tensor:
        """Values (...) of configurations (..., J) rad or m, of their dtype and device."""

    def near(self, reference: Tensor) -> Objective:
        """This objective where the current joints (..., J) are ``reference``.

        It broadcasts against the configurations. Only objectives that speak of the current joints
        return something other than themselves.
        """
        return self

    def within(self, scene: Scene | None) -> Objective:
        """This objective in a world; only objectives that speak of obstacles differ.

        Raises:
            OptionError: the objective needs a world, and there is none.
        """
        return self


def available_objectives() -> list[str]:
    """Names that `build_objectives` knows."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def build_objectives(specs: Any, robot: Robot, *, trusted: bool = False) -> list[Objective]:
    """Objectives from names, mappings or instances.

    Args:
        specs: a sequence of names ("manipulability"), of mappings with the key ``name`` and the
            arguments of that objective ({"name": "posture", "weight": 2.0}), or of `Objective`.
        robot: whose configurations they speak of.
        trusted: "module:function" may name the function of a custom objective.

    Raises:
        OptionError: an objective, a key or a value does not exist; the message says which exist.
        LinkError: a link does not exist.
    """
    if isinstance(specs, str | Mapping | Objective) or not isinstance(specs, Sequence):
        raise OptionError(f"objectives are {specs!r}; they must be a list, even of only one")
    if len(specs) > MOST_OBJECTIVES:
        raise OptionError(f"{len(specs)} objectives; {MOST_OBJECTIVES} are the most")
    return [_build(spec, robot, trusted) for spec in specs]


def spec_from_text(text: str) -> Any:
    """A name, or a mapping in YAML such as "{name: posture, weight: 2.0}", for `build_objectives`.

    Raises:
        OptionError: the text is not YAML, or too long or deep.
    """
    what = f"objective {text[:80]!r}"
    return plain_from_text(text, what, OptionError, MOST_OBJECTIVE_TEXT)


def read_objectives(path: str | Path, robot: Robot) -> list[Objective]:
    """Objectives from a YAML file: a list, or a mapping with the key ``objectives``.

    The file is trusted: custom objectives import the module that it names, from wherever Python
    finds modules or else from the file's own folder.

    Raises:
        OptionError: the file cannot be read, or see `build_objectives`.
    """
    try:
        specs = plain_from_file(Path(path), OptionError)
    except TypeError as error:
        raise OptionError(f"the file of objectives is {path!r}; it must be a path") from error
    if isinstance(specs, Mapping):
        unknown = [str(key) for key in specs if key != "objectives"]
        if unknown:
            raise OptionError(f"{path} has the keys {unknown}; it has only 'objectives'")
        specs = specs.get("objectives", [])
    with _importable(Path(path).resolve().parent):
        return build_objectives(specs, robot, trusted=True)


def weighted_sum(objectives: Sequence[Objective], q: Tensor) -> Tensor:
    """Sum (...) over the objectives of weight times value, of q (..., J)."""
    total = q.new_zeros(q.shape[:-1])
    for objective in objectives:
        if objective.weight > 0:
            total = total + objective.weight * objective.value(q)
    return total


def link_frame(robot: Robot, link: str, q: Tensor) -> tuple[Tensor, Tensor]:
    """Rotation (..., 3, 3) and origin (..., 3) of a link in the base, of q (..., J)."""
    node, T_node_link = robot.frames[link]
    rotation, origin = q.new_tensor(T_node_link[:3, :3]), q.new_tensor(T_node_link[:3, 3])
    if node < 0:
        shape = q.shape[:-1]
        return rotation.expand(*shape, 3, 3), origin.expand(*shape, 3)
    rotations, origins = robot.node_poses(q)
    return rotations[node] @ rotation, origins[node] + rotations[node] @ origin


def number(
    owner: str, key: str, given: Any, least: float = -float("inf"), above: float | None = None
) -> float:
    """A finite number, or an `OptionError` that names the objective and the key."""
    wanted = f"at least {least:g}" if above is None else f"above {above:g}"
    wanted = "finite" if least == -float("inf") and above is None else wanted
    try:
        value = plain_float(given)
        right = abs(value) < float("inf") and value >= least and (above is None or value > above)
    except (TypeError, ValueError, OverflowError):
        right = False
    if not right or isinstance(given, bool):
        raise OptionError(f"{key} of objective {owner!r} is {given!r}; it must be {wanted}")
    return value


def vector(owner: str, key: str, given: Any, length: int = 3) -> list[float]:
    """So many finite numbers, or an `OptionError`."""
    try:
        entries = [plain_float(value) for value in given]
        right = len(entries) == length and all(abs(value) < float("inf") for value in entries)
    except (TypeError, ValueError, OverflowError):
        right = False
    if not right:
        raise OptionError(f"{key} of objective {owner!r} is {given!r}; it must be {length} numbers")
    return entries


def unit_vector(owner: str, key: str, given: Any) -> list[float]:
    """Three numbers scaled to length 1, or an `OptionError`."""
    x = vector(owner, key, given)
    length = sum(value * value for value in x) ** 0.5
    if length < 1e-9:
        raise OptionError(f"{key} of objective {owner!r} is {given!r}; it must have a length")
    return [value / length for value in x]


def known_link(robot: Robot, owner: str, link: Any) -> str:
    """The link, or a `LinkError` that lists those that exist."""
    if not isinstance(link, str) or link not in robot.frames:
        raise LinkError(
            f"link {link!r} of objective {owner!r} is unknown to {robot.name!r}; "
            f"links are {listing(list(robot.frames), str(link))}"
        )
    return link


def _build(spec: Any, robot: Robot, trusted: bool) -> Objective:
    if isinstance(spec, Objective):
        if spec.robot.joint_names != robot.joint_names:
            raise OptionError(
                f"objective {spec.name()!r} was made for {spec.robot.name!r}, not {robot.name!r}"
            )
        return spec
    if isinstance(spec, str):
        spec = {"name": spec}
    if not isinstance(spec, Mapping) or not isinstance(spec.get("name"), str):
        raise OptionError(
            f"objective {spec!r} is none; it must be a name, a mapping with the key 'name', "
            "or an Objective"
        )
    keys = {str(key): value for key, value in spec.items()}
    name = keys.pop("name")
    if name not in available_objectives():
        raise OptionError(
            f"unknown objective {name!r}{_hint(name, available_objectives())}; "
            f"objectives are {', '.join(available_objectives())}"
        )
    require_torch("objectives")
    kind = importlib.import_module(f".{name}", __name__).OBJECTIVE
    parameters = list(inspect.signature(kind).parameters.values())[1:]
    known = [parameter.name for parameter in parameters]
    for key in keys:
        if key not in known:
            raise OptionError(
                f"objective {name!r} has no key {key!r}{_hint(key, known)}; "
                f"its keys are {', '.join(known)}"
            )
    missing = [p.name for p in parameters if p.default is p.empty and p.name not in keys]
    if missing:
        raise OptionError(f"objective {name!r} needs the key {missing[0]!r}")
    if isinstance(keys.get("function"), str) and not trusted:
        raise OptionError(
            f"objective {name!r} names the function {keys['function']!r}; only a file read with "
            "read_objectives may, elsewhere it must be a function"
        )
    return kind(robot, **keys)


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Modules of the folder can be imported; those that Python finds elsewhere come first."""
    sys.path.append(str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def _hint(wrong: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(wrong, names, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
