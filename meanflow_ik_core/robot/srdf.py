# SPDX-License-Identifier: Apache-2.0
"""Reads of a MoveIt SRDF which pairs of links are not checked for touching."""

import xml.etree.ElementTree as ElementTree
from itertools import combinations
from pathlib import Path

from ..errors import OptionError
from .urdf import link_names, listing, read_urdf, refuse_xacro
from .xml_file import read_xml


def disabled_pairs(path: Path, urdf_path: Path) -> set[frozenset[str]]:
    """The pairs that an SRDF of a URDF switches off, but for those that it holds never to touch.

    As in MoveIt, a link whose default is off is checked against none but those that it is enabled
    with, and a pair that is both enabled and disabled is off.

    Raises:
        OptionError: the file is no SRDF, or that of another robot.
        RobotError: it cannot be read, or is still to be expanded by xacro.
    """
    root, urdf = read_xml(path), read_urdf(urdf_path)
    refuse_xacro(root, path)
    if root.tag != "robot":
        raise OptionError(f"{path} has the root element <{root.tag}>, an SRDF has <robot>")
    disabled = _pairs(root.findall("disable_collisions"))
    enabled = _pairs(root.findall("enable_collisions"))
    by_default = {item.get("link", "") for item in root.findall("disable_default_collisions")}
    links = link_names(urdf_path)
    named = by_default.union(*disabled, *enabled)
    unknown = sorted(named - set(links))
    # one of the same name may be of a version with more links, one of a part has another name
    if unknown and (root.get("name") != urdf.get("name") or len(unknown) == len(named)):
        raise OptionError(
            f"{path} is the SRDF of {root.get('name')!r} and names the link {unknown[0]!r}, which "
            f"{urdf.get('name')!r} lacks; links are {listing(links, unknown[0])}"
        )
    never = [e for e in root.findall("disable_collisions") if e.get("reason") == "Never"]
    defaults = {frozenset(pair) for pair in combinations(links, 2) if by_default & set(pair)}
    return (defaults - enabled) | (disabled - _pairs(never))


def _pairs(elements: list[ElementTree.Element]) -> set[frozenset[str]]:
    return {frozenset((item.get("link1", ""), item.get("link2", ""))) for item in elements}
