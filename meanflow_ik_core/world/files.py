# SPDX-License-Identifier: Apache-2.0
"""Worlds in files: YAML of our own, and the text that MoveIt saves.

A file of a stranger runs no code, and names no file outside its own folder and of packages.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ..bounds import (
    MOST_CORNERS,
    MOST_OBSTACLES,
    MOST_TRIANGLES,
    MOST_WORLD_BYTES,
    check_file_size,
    is_file,
    short,
)
from ..errors import WorldError
from ..geometry import quat_xyzw_from_matrix
from ..plain_numbers import plain_float, plain_int
from ..plain_yaml import plain_from_file
from ..robot.packages import package_folders
from ..whole_file import whole_file
from .inputs import checked_pose, unknown_name

_PACKAGE = "package://"
_KEYS = ("robot", "padding", "objects", "allowed", "forbidden", "held")
# The methods that add each type, and which keys they take besides those of all.
_TYPES: dict[str, tuple[str, ...]] = {
    "box": ("size",),
    "sphere": ("radius",),
    "cylinder": ("radius", "length"),
    "capsule": ("radius", "length"),
    "cone": ("radius", "length"),
    "half_space": ("normal", "offset"),
    "mesh": ("file", "vertices", "triangles", "scale", "convex"),
    "points": ("points", "resolution"),
}
_PLACE = ("xyz", "quat_xyzw", "padding")
_ATTACHED = ("link", "touch_links")


def load_world(world: Any, path: Path) -> None:
    """Fill an empty world from a YAML file, or from a ``.scene`` of MoveIt.

    Raises:
        WorldError: it cannot be read, or says what no world can be.
    """
    if path.suffix == ".scene":
        check_file_size(path, MOST_WORLD_BYTES, WorldError)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise WorldError(f"cannot read {path}: {error}") from error
        _add_moveit_scene(world, path, text)
        return
    content = plain_from_file(path, WorldError, MOST_WORLD_BYTES)
    content = {} if content is None else content
    if not isinstance(content, Mapping):
        raise WorldError(f"{path} is no file of obstacles: it holds no mapping")
    _known_keys(content, _KEYS, str(path))
    if content.get("robot") not in (None, world.robot.name):
        raise WorldError(
            f"{path} is a world of the robot {content['robot']!r}, not of {world.robot.name!r}"
        )
    if content.get("padding") is not None:
        world.padding = type(world)(world.robot, content["padding"]).padding
    world.hold(_mapping(content.get("held"), "held", path))
    objects = _mapping(content.get("objects"), "objects", path)
    _check_count(len(objects), "objects", path)
    for name, item in objects.items():
        if not isinstance(name, str):
            raise WorldError(f"{path} has an object {name!r}; a name is text: put it in quotes")
        _add_object(world, name, item, path)
    for key, decide in (("allowed", world.allow), ("forbidden", world.forbid)):
        pairs = content.get(key) or []
        if not isinstance(pairs, list):
            raise WorldError(f"{key} of {path} is {pairs!r}; it is a list of pairs")
        for pair in pairs:
            if not (isinstance(pair, list) and len(pair) == 2):
                raise WorldError(f"{key} of {path} has {pair!r}; it is a list of pairs")
            decide(*pair)


def save_world(world: Any, path: Path) -> None:
    """Write a world as YAML.

    Raises:
        WorldError: the file cannot be written, or is named as MoveIt's are.
    """
    if path.suffix == ".scene":
        raise WorldError(f"{path} would be read as MoveIt's text; a world is written as YAML")
    objects: dict[str, Any] = {}
    for name in world.names():
        obstacle = world.obstacle(name)
        objects[name] = _described(obstacle, path)
    decisions = world.decisions()
    content = {
        "robot": world.robot.name,
        "padding": world.padding,
        "held": world.held(),
        "objects": objects,
        "allowed": [list(pair) for pair, allowed in decisions.items() if allowed],
        "forbidden": [list(pair) for pair, allowed in decisions.items() if not allowed],
    }
    try:
        with whole_file(path) as draft:
            text = yaml.dump(
                content, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), sort_keys=False,
                default_flow_style=None, allow_unicode=True,
            )  # fmt: skip
            draft.write_text(text, encoding="utf-8")
    except OSError as error:
        raise WorldError(f"cannot write {path}: {error.strerror}") from error


def _described(obstacle: Any, path: Path) -> dict[str, Any]:
    shape = obstacle.shape
    item: dict[str, Any] = {"type": shape.kind}
    rotation, origin = obstacle.pose[:3, :3], obstacle.pose[:3, 3]
    if shape.kind == "half_space":
        item["normal"] = rotation[:, 2].tolist()
        item["offset"] = float(rotation[:, 2] @ origin)
    else:
        item["xyz"] = origin.tolist()
        item["quat_xyzw"] = quat_xyzw_from_matrix(rotation).tolist()
    if shape.kind == "box":
        item["size"] = list(shape.sizes)
    elif shape.kind == "points":
        item["resolution"], item["points"] = shape.sizes[0], shape.vertices.tolist()
    elif shape.kind == "mesh":
        source = Path(shape.source).resolve() if shape.source else None
        if source is not None and source.is_relative_to(path.parent.resolve()):
            item["file"] = str(source.relative_to(path.parent.resolve()))
            item["scale"] = list(shape.scale)
        else:
            item["vertices"] = shape.vertices.tolist()
            item["triangles"] = shape.triangles.tolist()
        item["convex"] = shape.convex
    else:
        item.update(zip(("radius", "length"), shape.sizes, strict=False))
    if obstacle.padding:
        item["padding"] = obstacle.padding
    if obstacle.link is not None:
        item["link"], item["touch_links"] = obstacle.link, sorted(obstacle.touch_links)
    return item


def _add_object(world: Any, name: str, item: Any, path: Path) -> None:
    where = f"object {name!r} of {path}"
    given = item.get("type") if isinstance(item, Mapping) else item
    if not isinstance(item, Mapping) or not isinstance(given, str) or given not in _TYPES:
        raise unknown_name(given, _TYPES, f"type of {where},")
    kind = item["type"]
    place = ("padding",) if kind == "half_space" else _PLACE
    _known_keys(item, ("type", *_TYPES[kind], *place, *_ATTACHED), where)
    options = {key: value for key, value in item.items() if key not in ("type", *_ATTACHED)}
    for key in _TYPES[kind]:
        if key not in options and key in ("size", "radius", "length", "points"):
            raise WorldError(f"{where} has no {key}; a {kind} needs {', '.join(_TYPES[kind])}")
    if "file" in options:
        options["file"] = _file_beside(options["file"], path, where)
    getattr(world, f"add_{kind}")(name, **options)
    if item.get("link") is not None:
        pose = world.obstacle(name).pose
        world.attach(name, item["link"], pose=pose, touch_links=item.get("touch_links") or ())
    elif item.get("touch_links"):
        raise WorldError(f"{where} has touch_links and no link that it is attached to")


def _file_beside(name: Any, path: Path, where: str) -> Path:
    """The file that a world at a path names, if it lies in its folder or in a package."""
    if not isinstance(name, str):
        raise WorldError(f"file of {where} is {name!r}; it must be a path")
    if name.startswith(_PACKAGE):
        package, _, rest = name[len(_PACKAGE) :].partition("/")
        if not package or package in (".", ".."):
            raise WorldError(f"file of {where} is {short(name)!r}, which names no package")
        folders: Iterator[Path] = package_folders(package)
    else:
        rest, folders = name, iter([path.parent])
    missing, said = None, f"file of {where} is {short(name)!r}"
    for folder in folders:
        try:
            found = (folder / rest).resolve()
        except (OSError, ValueError, RuntimeError) as error:  # a name with a zero, links in circles
            raise WorldError(f"{said}: {error}") from error
        if found.is_relative_to(folder.resolve()):
            if is_file(found):
                return found
            missing = found
    if missing is not None:
        raise WorldError(f"{said}; there is no file {short(missing)}")
    raise WorldError(f"{said}; it must lie in the folder of the world or in a package")


def _mapping(value: Any, key: str, path: Path) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise WorldError(f"{key} of {path} is {value!r}; it must be a mapping")
    return value


def _check_count(count: int, what: str, path: Path, most: int = MOST_OBSTACLES) -> None:
    if count > most:
        raise WorldError(f"{path} has {count} {what}; {most} are the most")


def _known_keys(content: Any, known: tuple[str, ...], where: str) -> None:
    if not isinstance(content, Mapping):
        raise WorldError(f"{where} is {type(content).__name__}; it must be a mapping")
    unknown = sorted(set(map(str, content)) - set(known))
    if unknown:
        raise WorldError(f"{where} has unknown keys {unknown}; keys are {', '.join(known)}")


class _Lines:
    """The lines of a ``.scene``, taken one after another."""

    def __init__(self, path: Path, text: str):
        self._path, self._lines, self.number = path, text.splitlines(), 0

    def take(self) -> str:
        if self.number >= len(self._lines):
            raise WorldError(f"{self._path} ends after line {self.number}, where more must follow")
        self.number += 1
        return self._lines[self.number - 1].strip()

    def peek(self) -> str:
        line = self.take()
        self.number -= 1
        return line

    def numbers(self, count: int, kind: Callable = plain_float) -> list:
        words = self.take().split()
        try:
            if len(words) != count:
                raise ValueError
            return [kind(word) for word in words]
        except ValueError:
            raise WorldError(
                f"line {self.number} of {self._path} is {' '.join(words)!r}; "
                f"{count} numbers must stand there"
            ) from None


def _add_moveit_scene(world: Any, path: Path, text: str) -> None:
    """Add the objects of `PlanningScene::saveGeometryToStream`, of the old form or the new."""
    lines = _Lines(path, text)
    lines.take()  # the name of the scene
    while (marker := lines.take()) != ".":
        if not marker:
            continue
        if not marker.startswith("*"):
            raise WorldError(f"line {lines.number} of {path} is {marker!r}; '*' or '.' must stand")
        name = marker[1:].strip()
        # Since MoveIt 1.1 an object has a pose of its own, and subframes at its end.
        has_pose = len(lines.peek().split()) == 3
        T_base_object = _scene_pose(lines) if has_pose else np.eye(4)
        (count,) = lines.numbers(1, plain_int)
        _check_count(len(world.names()) + count, "shapes", path)
        for index in range(count):
            _add_scene_shape(
                world, name if count == 1 else f"{name}_{index}", lines, path, T_base_object
            )
        if has_pose:
            (subframes,) = lines.numbers(1, plain_int)
            _check_count(subframes, "subframes", path)
            for _ in range(subframes):
                lines.take()
                _scene_pose(lines)


def _add_scene_shape(world: Any, name: str, lines: _Lines, path: Path, T_base_object: Any) -> None:
    kind = lines.take()
    if kind == "box":
        add, options = world.add_box, {"size": lines.numbers(3)}
    elif kind == "sphere":
        add, options = world.add_sphere, dict(zip(("radius",), lines.numbers(1), strict=True))
    elif kind in ("cylinder", "cone"):
        radius, length = lines.numbers(2)
        add, options = getattr(world, f"add_{kind}"), {"radius": radius, "length": length}
    elif kind == "mesh":
        vertices, triangles = lines.numbers(2, plain_int)
        _check_count(vertices, "corners of a mesh", path, MOST_CORNERS)
        _check_count(triangles, "triangles of a mesh", path, MOST_TRIANGLES)
        add, options = (
            world.add_mesh,
            {
                "vertices": [lines.numbers(3) for _ in range(vertices)],
                "triangles": [lines.numbers(3, plain_int) for _ in range(triangles)],
            },
        )
    else:
        raise WorldError(
            f"line {lines.number} of {path} is {kind!r}; shapes are box, sphere, cylinder, cone, "
            "mesh. Give a plane as a half_space in a YAML world"
        )
    pose = T_base_object @ _scene_pose(lines)
    lines.numbers(4)  # the colour
    add(name, pose=pose, **options)


def _scene_pose(lines: _Lines) -> Any:
    first = lines.number + 1
    xyz, quat_xyzw = lines.numbers(3), lines.numbers(4)
    return checked_pose(f"line {first}", None, xyz, quat_xyzw)
