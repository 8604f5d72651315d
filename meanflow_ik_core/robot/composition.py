# SPDX-License-Identifier: Apache-2.0
"""One URDF made of several: two arms on one base."""

import copy
import hashlib
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..errors import RobotError
from .cache import cached_file
from .packages import resolve_uri
from .urdf import read_urdf


class MountedUrdf(NamedTuple):
    """A URDF that is fixed to a link, every name in it behind a prefix."""

    urdf_path: Path
    prefix: str = ""
    parent: str | None = None  # None: the part's root link is the root of the whole
    xyz: tuple[float, float, float] = (0.0, 0.0, 0.0)  # m, in the parent link
    rpy: tuple[float, float, float] = (0.0, 0.0, 0.0)  # rad, in the parent link


def compose(name: str, parts: Sequence[MountedUrdf]) -> Path:
    """Write the URDF of all parts to the user's cache; returns its path.

    A parent that no earlier part has becomes the root link, without shape. Meshes are named by
    file:// addresses, so that the file can be read from anywhere. What is no link, joint or
    material is left out: transmissions and simulator settings hold for one robot alone.

    Raises:
        RobotError: a part cannot be read, two links or joints have one name, or there are two
            roots.
    """
    whole = ElementTree.Element("robot", name=name)
    links: set[str] = set()
    for part in parts:
        elements = _prefixed_elements(part)
        root = _root_link(elements, part)
        if part.parent is None:
            if links:
                raise RobotError(f"part {part.urdf_path.name} of {name!r} needs a parent link")
        elif part.parent not in links:
            if links:
                raise RobotError(
                    f"parent {part.parent!r} of a part of {name!r} is no link of the parts before "
                    "it; one root link, named by the first part, is all that is made"
                )
            ElementTree.SubElement(whole, "link", name=part.parent)
            links.add(part.parent)
        whole.extend(elements)
        links.update(e.get("name", "") for e in elements if e.tag == "link")
        if part.parent is not None:
            joint = ElementTree.SubElement(whole, "joint", name=f"{root}_mount", type="fixed")
            ElementTree.SubElement(joint, "origin", xyz=_numbers(part.xyz), rpy=_numbers(part.rpy))
            ElementTree.SubElement(joint, "parent", link=part.parent)
            ElementTree.SubElement(joint, "child", link=root)
    for tag in ("link", "joint"):
        names = [element.get("name", "") for element in whole.findall(tag)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise RobotError(
                f"parts of {name!r} have {tag}s of the same name, {', '.join(twice[:5])}; "
                "give them different prefixes"
            )
    ElementTree.indent(whole)
    content = ElementTree.tostring(whole, xml_declaration=True, encoding="utf-8")
    digest = hashlib.sha256(content).hexdigest()[:16]
    return cached_file(f"{name}-{digest}.urdf", lambda path: _write(path, content))


def portable_urdf(urdf_path: Path) -> str:
    """The text of a URDF with its meshes by file:// addresses, for readers that know no packages.

    A mesh that is not found keeps its address.
    """
    return with_resolved_meshes(read_urdf(urdf_path), urdf_path)


def with_resolved_meshes(root: ElementTree.Element, near: Path) -> str:
    """The text of a URDF at ``near`` with the meshes that are found by file:// addresses."""
    for item in root.iter():
        if item.tag in ("mesh", "texture") and item.get("filename"):
            try:
                path = resolve_uri(item.get("filename", ""), near)
            except RobotError:
                continue
            item.set("filename", path.resolve().as_uri())
    return ElementTree.tostring(root, encoding="unicode")


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _numbers(values: Sequence[float]) -> str:
    return " ".join(repr(float(value)) for value in values)


def _prefixed_elements(part: MountedUrdf) -> list[ElementTree.Element]:
    root = read_urdf(part.urdf_path)
    elements = [copy.deepcopy(e) for e in root if e.tag in ("link", "joint", "material")]
    for element in elements:
        for item in element.iter():
            if item.tag in ("link", "joint", "material") and item.get("name"):
                item.set("name", part.prefix + item.get("name", ""))
            for key in ("link", "joint"):
                if item.get(key):
                    item.set(key, part.prefix + item.get(key, ""))
            if item.tag in ("mesh", "texture") and item.get("filename"):
                path = resolve_uri(item.get("filename", ""), part.urdf_path)
                item.set("filename", path.resolve().as_uri())
    return elements


def _root_link(elements: Sequence[ElementTree.Element], part: MountedUrdf) -> str:
    links = [element.get("name", "") for element in elements if element.tag == "link"]
    children = {child.get("link") for e in elements if (child := e.find("child")) is not None}
    roots = [link for link in links if link not in children]
    if len(roots) != 1:
        raise RobotError(f"{part.urdf_path} has {len(roots)} root links; a part must have one")
    return roots[0]
