# SPDX-License-Identifier: Apache-2.0
"""The YAML file that makes a URDF a robot: its base, tips, held joints and ignored collisions."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import RobotError
from ..plain_numbers import plain_float
from ..plain_yaml import plain_from_file, plain_from_text
from .composition import MountedUrdf, compose
from .packages import resolve_uri
from .sources import URDF_SUFFIXES, is_text, urdf_from_file, urdf_from_text

ROBOT_FOLDER = Path(__file__).parents[1] / "robots"
KEYS = (
    "urdf", "parts", "base", "tips", "held", "ignore_collisions", "padding", "workspace_scale",
    "soft_limits",
)  # fmt: skip
SUFFIXES = (".yaml", ".yml")
_ADDRESSES = ("package://", "file://")
_PART_KEYS = ("urdf", "robot", "prefix", "parent", "xyz", "rpy")


class RobotFile(NamedTuple):
    """What a robot YAML says; None or empty where it is silent, None for the pairs."""

    urdf_path: Path
    base: str | None = None
    tips: tuple[str, ...] = ()
    held: Mapping[str, float] = {}  # rad or m
    ignore_collisions: tuple[tuple[str, str], ...] | None = None
    workspace_scale: float | None = None  # m
    padding: Mapping[str, float] = {}  # m, by link
    soft_limits: bool = True  # whether those of a <safety_controller> count


def available_robots() -> list[str]:
    """Names that `load_robot` knows."""
    return sorted(path.stem for path in ROBOT_FOLDER.glob("*.yaml"))


def find_robot_file(name: str | Path) -> RobotFile:
    """What is known about a robot's name, a file or package:// address of it, or a URDF's text.

    Raises:
        RobotError: unknown name, unreadable file, or a key that is unknown or of the wrong kind.
    """
    if not isinstance(name, str | Path):
        raise RobotError(f"the robot is {name!r}; it must be a name or path")
    path = robot_file_path(name)
    if path is not None:
        return read_robot_file(path)
    text = str(name)
    if is_text(name):
        return RobotFile(urdf_from_text(text))
    if text.startswith(_ADDRESSES):
        return RobotFile(urdf_from_file(resolve_uri(text, Path.cwd() / "here")))
    if Path(name).suffix.lower() in URDF_SUFFIXES:
        return RobotFile(urdf_from_file(Path(name)))
    raise RobotError(
        f"unknown robot {text[:80]!r}; robots are {', '.join(available_robots())}, "
        "or give the path of a .urdf or .yaml file, or the text of a URDF"
    )


def robot_file_path(name: str | Path) -> Path | None:
    """The robot YAML that a name or path means; None when it means no YAML."""
    if is_text(name):
        return None
    if Path(name).suffix.lower() in SUFFIXES:
        text = str(name)
        if text.startswith(_ADDRESSES):
            return resolve_uri(text, Path.cwd() / "here")
        return Path(name)
    return ROBOT_FOLDER / f"{name}.yaml" if str(name) in available_robots() else None


def read_settings(path: Path, text: str | None = None) -> dict[str, Any]:
    """The mapping in a robot YAML, its keys known and its values of the right kinds.

    Args:
        path: of the file.
        text: its content, where it is not written yet.
    """
    if text is None:
        settings = plain_from_file(path, RobotError)
    else:
        settings = plain_from_text(text, str(path), RobotError)
    if not isinstance(settings, dict) or ("urdf" in settings) == ("parts" in settings):
        raise RobotError(f"{path} must be a mapping with one of the keys 'urdf' and 'parts'")
    _refuse_unknown_keys(settings, KEYS, str(path))

    def is_name(value: Any) -> bool:
        return isinstance(value, str)

    def is_number(value: Any) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool)

    def is_list(value: Any) -> bool:
        return isinstance(value, list)

    kinds = {
        "urdf": (is_name, "a path or address"),
        "parts": (
            lambda v: is_list(v) and v and all(isinstance(part, dict) for part in v),
            "a list of mappings",
        ),
        "base": (is_name, "a link"),
        "tips": (lambda v: is_list(v) and all(map(is_name, v)), "a list of links"),
        "held": (
            lambda v: (
                isinstance(v, dict)
                and all(map(is_name, v))
                and all(is_number(value) and np.isfinite(value) for value in v.values())
            ),
            "a mapping from joints to numbers",
        ),
        "ignore_collisions": (
            lambda v: (
                is_list(v)
                and all(is_list(pair) and len(pair) == 2 and all(map(is_name, pair)) for pair in v)
            ),
            "a list of pairs of links",
        ),
        "padding": (
            lambda v: (
                isinstance(v, dict)
                and all(map(is_name, v))
                and all(is_number(value) and 0 <= value < np.inf for value in v.values())
            ),
            "a mapping from links to lengths of at least 0",
        ),
        "workspace_scale": (is_number, "a length in metres"),
        "soft_limits": (lambda v: isinstance(v, bool), "true or false"),
    }
    for key, value in settings.items():
        accepts, kind = kinds[key]
        if value is not None and not accepts(value):
            raise RobotError(f"{key!r} of {path} is {value!r}; it must be {kind}")
    return settings


def read_robot_file(path: Path, text: str | None = None) -> RobotFile:
    """Read a robot YAML, or the text that it is to have; parts are composed into one URDF."""
    settings = read_settings(path, text)
    if settings.get("urdf"):
        urdf_path = urdf_from_file(resolve_uri(settings["urdf"], path))
    else:
        urdf_path = compose(path.stem, [_read_part(part, path) for part in settings["parts"]])
    pairs = settings.get("ignore_collisions")
    return RobotFile(
        urdf_path,
        base=settings.get("base"),
        tips=tuple(settings.get("tips") or ()),
        held=settings.get("held") or {},
        ignore_collisions=None if pairs is None else tuple((a, b) for a, b in pairs),
        workspace_scale=settings.get("workspace_scale"),
        padding=settings.get("padding") or {},
        soft_limits=settings.get("soft_limits") is not False,
    )


def _refuse_unknown_keys(settings: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    unknown = sorted(set(map(str, settings)) - set(known))
    if unknown:
        raise RobotError(f"{where} has unknown keys {unknown}; keys are {list(known)}")


def _read_part(settings: Mapping[str, Any], path: Path) -> MountedUrdf:
    _refuse_unknown_keys(settings, _PART_KEYS, f"a part in {path}")
    if ("urdf" in settings) == ("robot" in settings):
        raise RobotError(f"a part in {path} must have one of the keys 'urdf' and 'robot'")
    robot = ROBOT_FOLDER / f"{settings.get('robot')}.yaml"
    if "urdf" in settings:
        urdf_path = urdf_from_file(resolve_uri(str(settings["urdf"]), path))
    elif settings["robot"] not in available_robots() or path.resolve() == robot.resolve():
        raise RobotError(
            f"a part in {path} is the robot {settings['robot']!r}; "
            f"robots are {', '.join(available_robots())}"
        )
    else:
        urdf_path = read_robot_file(robot).urdf_path
    pose = {}
    for key in ("xyz", "rpy"):
        values = settings.get(key, (0.0, 0.0, 0.0))
        try:
            x, y, z = (plain_float(value) for value in values)
        except (TypeError, ValueError):
            x = y = z = np.nan
        if not np.isfinite((x, y, z)).all():
            raise RobotError(f"{key} of a part in {path} is {values!r}; it must be 3 numbers")
        pose[key] = (x, y, z)
    parent = settings.get("parent")
    return MountedUrdf(
        urdf_path, str(settings.get("prefix", "")), None if parent is None else str(parent), **pose
    )
