# SPDX-License-Identifier: Apache-2.0
"""Reads a URDF: its links, its joints, which of them mimic which, and Pinocchio's model of it."""

import difflib
import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pinocchio as pin

from ..bounds import MOST_FREEDOMS, MOST_LINKS, MOST_NAME
from ..errors import RobotError
from ..plain_numbers import plain_float
from .xml_file import read_xml

SUPPORTED_JOINTS = ("revolute", "continuous", "prismatic", "fixed")
XACRO = "`xacro robot.urdf.xacro > robot.urdf`"
MOVING_JOINTS = ("revolute", "continuous", "prismatic")
# Refused where they move a tip, left in their neutral place elsewhere.
UNSUPPORTED_JOINTS = ("floating", "planar")
_FREEDOMS = {"fixed": 0, "floating": 6, "planar": 3}  # of others 1


class Mimic(NamedTuple):
    """Motion = multiplier * q[joint] + offset."""

    joint: str
    multiplier: float
    offset: float


class UrdfModel(NamedTuple):
    """A URDF as Pinocchio reads it, and what Pinocchio leaves out.

    In Pinocchio's model a mimic joint is a joint like any other, and no joint has limits.
    """

    path: Path
    model: pin.Model
    elements: Mapping[str, ElementTree.Element]  # <joint> by name
    mimics: Mapping[str, Mimic]  # by the name of the joint that mimics
    soft_limits: bool = True  # whether those of a <safety_controller> count

    def kind(self, joint: str) -> str:
        """The type that the file gives a joint."""
        return self.elements[joint].get("type", "")

    def motion(self, joint: str) -> Mimic:
        """Which joint really moves this one: the one that it mimics, or itself."""
        return self.mimics.get(joint, Mimic(joint, 1.0, 0.0))

    def joint(self, name: str) -> pin.JointModel:
        """Pinocchio's joint; not its first, which is none and has a name that a file may have."""
        return self.model.joints[list(self.model.names).index(name, 1)]


def listing(names: Sequence[str], wanted: str = "", limit: int = 12) -> str:
    """Names that exist for an error message, those most like the wanted one first."""
    close = difflib.get_close_matches(wanted[:MOST_NAME], names, n=limit, cutoff=0.5)
    ordered = [*close, *(name for name in names if name not in close)]
    rest = len(ordered) - limit
    return ", ".join(ordered[:limit]) + (f" and {rest} more" if rest > 0 else "")


def _model(urdf_path: Path, joints: Mapping[str, ElementTree.Element]) -> pin.Model:
    """Pinocchio's model of links and joints; it is shown nothing else of the file.

    It asks for numbers that kinematics does not need, and `joint_limits` reads limits itself.
    """
    root = ElementTree.Element("robot", name=read_urdf(urdf_path).get("name", "robot"))
    for name in link_names(urdf_path):
        ElementTree.SubElement(root, "link", name=name)
    for name, element in joints.items():
        joint = ElementTree.SubElement(root, "joint", name=name, type=element.get("type", ""))
        joint.extend(part for part in element if part.tag in ("origin", "axis", "parent", "child"))
        ElementTree.SubElement(joint, "limit", lower="0", upper="0", effort="0", velocity="0")
    try:
        return pin.buildModelFromXML(ElementTree.tostring(root, encoding="unicode"))
    except Exception as error:
        raise RobotError(f"{urdf_path} is not a URDF that Pinocchio can read: {error}") from error


def read_urdf_model(urdf_path: Path, soft_limits: bool = True) -> UrdfModel:
    """All that is known of a URDF's joints.

    Args:
        urdf_path: the file.
        soft_limits: whether those of a <safety_controller> count.

    Raises:
        RobotError: the file is no URDF, or has a joint that mimics none or closes a loop.
    """
    elements = read_joint_elements(urdf_path)
    mimics = resolve_mimics(elements)
    return UrdfModel(urdf_path, _model(urdf_path, elements), elements, mimics, soft_limits)


def read_urdf(urdf_path: Path) -> ElementTree.Element:
    """The <robot> element, or a `RobotError` that says why there is none."""
    root = read_xml(urdf_path)
    if root.tag != "robot":
        raise RobotError(f"{urdf_path} has the root element <{root.tag}>, a URDF has <robot>")
    refuse_xacro(root, urdf_path)
    return root


def refuse_xacro(root: ElementTree.Element, path: Path) -> None:
    """RobotError where a file is still to be expanded."""
    for element in root.iter():
        # the namespace is written with and without www
        if "ros.org/wiki/xacro}" in element.tag or any("${" in v for v in element.attrib.values()):
            raise RobotError(f"{path} is a xacro file; run xacro first: {XACRO}")


def read_joint_elements(urdf_path: Path) -> dict[str, ElementTree.Element]:
    """The <joint> elements by name; refuses what no URDF has, and closed loops."""
    joints: dict[str, ElementTree.Element] = {}
    children: dict[str, str] = {}
    links = set(link_names(urdf_path))
    for element in read_urdf(urdf_path).findall("joint"):
        name, kind = element.get("name", ""), element.get("type", "")
        if name in joints:
            raise RobotError(f"{urdf_path} has two joints of the name {name!r}")
        if kind not in SUPPORTED_JOINTS + UNSUPPORTED_JOINTS:
            raise RobotError(unsupported(name, kind, urdf_path))
        for side in ("parent", "child"):
            if (link := linked_name(element, side)) not in links:
                raise RobotError(
                    f"joint {name!r} of {urdf_path} has the {side} {link!r}, which is no link; "
                    f"links are {listing(sorted(links), link)}"
                )
        child = linked_name(element, "child")
        if child in children:
            raise RobotError(
                f"link {child!r} of {urdf_path} is the child of the joints {children[child]!r} and "
                f"{name!r}: closed loops are not supported"
            )
        _check_numbers(element, urdf_path)
        children[child] = name
        joints[name] = element
    freedoms = sum(_FREEDOMS.get(element.get("type", ""), 1) for element in joints.values())
    if freedoms > MOST_FREEDOMS:
        raise RobotError(
            f"{urdf_path} has joints of {freedoms} degrees of freedom; {MOST_FREEDOMS} are the most"
        )
    _refuse_cycles(joints, urdf_path)
    return joints


def _check_numbers(joint: ElementTree.Element, urdf_path: Path) -> None:
    """Refuse an origin, axis or limit of a joint that is no number, or an axis without length."""
    name, moves = joint.get("name"), joint.get("type") in MOVING_JOINTS
    wanted = [("origin", "xyz", 3), ("origin", "rpy", 3), *([("axis", "xyz", 3)] * moves)]
    soft = "safety_controller"
    if moves:
        wanted += [("limit", key, 1) for key in ("lower", "upper", "velocity")]
        wanted += [(soft, key, 1) for key in ("soft_lower_limit", "soft_upper_limit")]
    for tag, key, count in wanted:
        element = joint.find(tag)
        text = None if element is None else element.get(key)
        if element is None or (text is None and tag != "axis"):
            continue
        values = numbers_of(text or "")
        finite = count == 1 or all(map(math.isfinite, values))
        if len(values) != count or not finite or (tag == "axis" and not any(values)):
            what = tag if tag == "axis" else f"{tag} {key}"
            all_zero = " that are not all 0" if tag == "axis" else ""
            raise RobotError(
                f"joint {name!r} of {urdf_path} has the {what} {text!r}; it must be "
                f"{f'{count} numbers{all_zero}' if count > 1 else 'a number'}"
            )


def numbers_of(text: str) -> list[float]:
    """The numbers in a text; none where a word is no number."""
    try:
        values = [plain_float(word) for word in text.split()]
    except ValueError:
        return []
    return [] if any(map(math.isnan, values)) else values


def _refuse_cycles(joints: Mapping[str, ElementTree.Element], urdf_path: Path) -> None:
    parents = {linked_name(e, "child"): linked_name(e, "parent") for e in joints.values()}
    known: set[str] = set()  # links whose way up ends
    for link in parents:
        way: list[str] = []
        while link in parents and link not in known:
            if link in way:
                raise RobotError(
                    f"links {listing(way[way.index(link) :])} of {urdf_path} hang on each other in "
                    "a circle: closed loops are not supported"
                )
            way.append(link)
            link = parents[link]
        known.update(way)


def linked_name(joint: ElementTree.Element, side: str) -> str:
    """The link that is the "parent" or "child" of a <joint>; empty where it names none."""
    link = joint.find(side)
    return "" if link is None else link.get("link", "")


def unsupported(name: str, kind: str | None, urdf_path: Path) -> str:
    return (
        f"joint {name!r} of {urdf_path} has type {kind!r}; "
        f"supported are {', '.join(SUPPORTED_JOINTS)}, and mimic"
    )


def resolve_mimics(joints: Mapping[str, ElementTree.Element]) -> dict[str, Mimic]:
    """For each mimic joint the joint that is really moved, chains of mimics multiplied out."""
    direct = {}
    for name, element in joints.items():
        mimic = element.find("mimic")
        if mimic is not None:
            source = mimic.get("joint", "")
            if source not in joints:
                raise RobotError(
                    f"joint {name!r} mimics {source!r}, which does not exist; "
                    f"joints are {listing(list(joints), source)}"
                )
            kind = joints[source].get("type")
            if kind not in MOVING_JOINTS:
                raise RobotError(f"joint {name!r} mimics {source!r}, which is {kind}")
            factor, shift = (
                _mimic_number(name, mimic, key, default)
                for key, default in (("multiplier", "1"), ("offset", "0"))
            )
            direct[name] = Mimic(source, factor, shift)
    resolved = {}
    for name, mimic in direct.items():
        seen = {name}
        while mimic.joint in direct:
            if mimic.joint in seen:
                raise RobotError(f"joint {name!r} mimics itself through {sorted(seen)}")
            seen.add(mimic.joint)
            onward = direct[mimic.joint]
            mimic = Mimic(
                onward.joint,
                mimic.multiplier * onward.multiplier,
                mimic.multiplier * onward.offset + mimic.offset,
            )
        resolved[name] = mimic
    return resolved


def _mimic_number(name: str, mimic: ElementTree.Element, key: str, default: str) -> float:
    text = mimic.get(key, default)
    try:
        value = plain_float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise RobotError(f"the {key} by which joint {name!r} mimics is {text!r}, no number")
    return value


def link_names(urdf_path: Path) -> list[str]:
    """All links, in the file's order.

    Raises:
        RobotError: two have one name, or there are too many.
    """
    names = [link.get("name", "") for link in read_urdf(urdf_path).findall("link")]
    if len(names) > MOST_LINKS:
        raise RobotError(f"{urdf_path} has {len(names)} links; {MOST_LINKS} are the most")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise RobotError(f"{urdf_path} has two links of the name {twice!r}")
    return names


def leaf_links(urdf_path: Path) -> list[str]:
    """Links that are the parent of no joint: the usual candidates for tips."""
    elements = list(read_joint_elements(urdf_path).values())
    parents = {link.get("link") for e in elements if (link := e.find("parent")) is not None}
    children = [link.get("link", "") for e in elements if (link := e.find("child")) is not None]
    return [name for name in children if name not in parents]
