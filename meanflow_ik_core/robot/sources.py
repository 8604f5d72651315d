# SPDX-License-Identifier: Apache-2.0
"""URDFs that are no files of their own: given as text, or to be made from xacro."""

import hashlib
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

from ..bounds import MOST_XML_BYTES
from ..errors import RobotError
from .cache import cached_file
from .composition import with_resolved_meshes
from .urdf import XACRO
from .xml_file import parse_xml

URDF_SUFFIXES = (".urdf", ".xml", ".xacro")


def is_text(name: str | Path) -> bool:
    """Whether a name is the text of a URDF."""
    return isinstance(name, str) and name.lstrip("\ufeff \t\r\n").startswith("<")


def robot_name(name: str | Path) -> str:
    """What a robot is called: by its file, or by what its text says."""
    if not is_text(name):
        return Path(Path(name).stem).stem if Path(name).suffix == ".xacro" else Path(name).stem
    return _root_of(str(name), "the robot's text").get("name") or "robot"


def urdf_from_text(text: str) -> Path:
    """A file with the text of a URDF; relative paths of meshes are those from where we are.

    Raises:
        RobotError: it is not well-formed XML.
    """
    root = _root_of(text, "the robot's text")
    return _written(root, Path.cwd() / "text.urdf", root.get("name") or "robot")


def urdf_from_file(path: Path) -> Path:
    """The path of a URDF as it is; of a xacro file, that of what it expands to.

    Raises:
        RobotError: xacro is not installed, or cannot expand it.
    """
    if path.suffix.lower() != ".xacro":
        return path
    try:
        import xacro
    except ImportError as error:
        raise RobotError(
            f"{path} is a xacro file; install xacro (`pip install '.[xacro]'`), or "
            f"run it first: {XACRO}"
        ) from error
    try:
        document: Any = xacro.process_file(str(path))
        text = document.toxml()
    except Exception as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise RobotError(f"xacro cannot expand {path}: {said}") from error
    return _written(_root_of(text, f"what {path} expands to"), path, robot_name(path))


def _root_of(text: str, what: str) -> ElementTree.Element:
    if len(text) > MOST_XML_BYTES:
        raise RobotError(f"{what} has {len(text)} characters; {MOST_XML_BYTES} are the most")
    return parse_xml(text.lstrip("\ufeff \t\r\n"), what)


def _written(root: ElementTree.Element, near: Path, name: str) -> Path:
    content = with_resolved_meshes(root, near).encode()
    digest = hashlib.sha256(content).hexdigest()[:16]
    safe = "".join(c if c.isalnum() or c in "-_" else "_" for c in name)[:64]
    return cached_file(f"{safe}-{digest}.urdf", lambda path: _write(path, content))


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
