# SPDX-License-Identifier: Apache-2.0
"""Reads a URDF: its links, its joints, which of them mimic which, and Pinocchio's model of it."""

import difflib
import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pinocchio as pin

from ..errors import RobotError

SUPPORTED_JOINTS = ("revolute", "continuous", "prismatic", "fixed")
XACRO = "`xacro robot.urdf.xacro > robot.urdf`"
MOVING_JOINTS = ("revolute", "continuous", "prismatic")
# Refused where they move a tip, left in their neutral place elsewhere.
UNSUPPORTED_JOINTS = ("floating", "planar")


class Mimic(NamedTuple):
    """Motion = multiplier * q[joint] + offset."""

    joint: str
    multiplier: float
    offset: float


class UrdfModel(NamedTuple):
    """A URDF as Pinocchio reads it, and what Pinocchio leaves out.

    In Pinocchio's model a mimic joint is a joint like any other.
    """

    path: Path
    model: pin.Model
    elements: Mapping[str, ElementTree.Element]  # <joint> by name
    mimics: Mapping[str, Mimic]  # by the name of the joint that mimics

    def kind(self, joint: str) -> str:
        """The type that the file gives a joint."""
        return self.elements[joint].get("type", "")

    def motion(self, joint: str) -> Mimic:
        """Which joint really moves this one: the one that it mimics, or itself."""
        return self.mimics.get(joint, Mimic(joint, 1.0, 0.0))

    def joint(self, name: str) -> pin.JointModel:
        return self.model.joints[self.model.getJointId(name)]


def listing(names: Sequence[str], wanted: str = "", limit: int = 12) -> str:
    """Names that exist for an error message, those most like the wanted one first."""
    close = difflib.get_close_matches(wanted, names, n=limit, cutoff=0.5)
    ordered = [*close, *(name for name in names if name not in close)]
    rest = len(ordered) - limit
    return ", ".join(ordered[:limit]) + (f" and {rest} more" if rest > 0 else "")


def read_model(urdf_path: Path) -> pin.Model:
    """The Pinocchio model, or a `RobotError` that says why there is none."""
    try:
        return pin.buildModelFromUrdf(str(urdf_path))
    except Exception as error:
        raise RobotError(f"{urdf_path} is not a URDF that Pinocchio can read: {error}") from error


def read_urdf_model(urdf_path: Path) -> UrdfModel:
    """All that is known of a URDF's joints.

    Raises:
        RobotError: the file is no URDF, or has a joint that mimics none or closes a loop.
    """
    elements = read_joint_elements(urdf_path)
    mimics = resolve_mimics(elements)
    return UrdfModel(urdf_path, read_model(urdf_path), elements, mimics)


def read_xml(path: Path) -> ElementTree.Element:
    """The root element, or a `RobotError` that says why there is none."""
    try:
        return ElementTree.parse(path).getroot()
    except OSError as error:
        raise RobotError(f"cannot read {path}: {error.strerror}") from error
    except (ElementTree.ParseError, UnicodeDecodeError) as error:
        raise RobotError(f"{path} is not well-formed XML: {error}") from error


def read_urdf(urdf_path: Path) -> ElementTree.Element:
    """The <robot> element, or a `RobotError` that says why there is none."""
    root = read_xml(urdf_path)
    if root.tag != "robot":
        raise RobotError(f"{urdf_path} has the root element <{root.tag}>, a URDF has <robot>")
    for element in root.iter():
        # the namespace is written with and without www
        if "ros.org/wiki/xacro}" in element.tag or any("${" in v for v in element.attrib.values()):
            raise RobotError(f"{urdf_path} is a xacro file; run xacro first: {XACRO}")
    return root


def read_joint_elements(urdf_path: Path) -> dict[str, ElementTree.Element]:
    """The <joint> elements by name; refuses types that no URDF has, and closed loops."""
    joints: dict[str, ElementTree.Element] = {}
    children: dict[str, str] = {}
    for element in read_urdf(urdf_path).findall("joint"):
        name, kind = element.get("name", ""), element.get("type", "")
        if kind not in SUPPORTED_JOINTS + UNSUPPORTED_JOINTS:
            raise RobotError(unsupported(name, kind, urdf_path))
        child = linked_name(element, "child")
        if child in children:
            raise RobotError(
                f"link {child!r} of {urdf_path} is the child of the joints {children[child]!r} and "
                f"{name!r}: closed loops are not supported"
            )
        if kind in MOVING_JOINTS:
            _require_axis(element, urdf_path)
        children[child] = name
        joints[name] = element
    _refuse_cycles(joints, urdf_path)
    return joints


def _require_axis(joint: ElementTree.Element, urdf_path: Path) -> None:
    axis = joint.find("axis")
    text = "1 0 0" if axis is None else axis.get("xyz", "")
    try:
        values = [float(word) for word in text.split()]
    except ValueError:
        values = []
    if len(values) != 3 or not 0 < math.hypot(*values) < math.inf:
        raise RobotError(
            f"joint {joint.get('name')!r} of {urdf_path} has the axis {text!r}; "
            "it must be 3 numbers that are not all 0"
        )


def _refuse_cycles(joints: Mapping[str, ElementTree.Element], urdf_path: Path) -> None:
    parents = {linked_name(e, "child"): linked_name(e, "parent") for e in joints.values()}
    parents.pop("", None)  # Pinocchio says what lacks a child
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
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise RobotError(f"the {key} by which joint {name!r} mimics is {text!r}, no number")
    return value


def link_names(urdf_path: Path) -> list[str]:
    """All links, in the file's order."""
    return [link.get("name", "") for link in read_urdf(urdf_path).findall("link")]


def leaf_links(urdf_path: Path) -> list[str]:
    """Links that are the parent of no joint: the usual candidates for tips."""
    elements = list(read_joint_elements(urdf_path).values())
    parents = {link.get("link") for e in elements if (link := e.find("parent")) is not None}
    children = [link.get("link", "") for e in elements if (link := e.find("child")) is not None]
    return [name for name in children if name not in parents]
