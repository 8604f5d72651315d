# SPDX-License-Identifier: Apache-2.0
"""From a URDF, read through Pinocchio, to the flat arrays of a kinematic tree."""

import difflib
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pinocchio as pin

from .errors import LinkError, RobotError

SUPPORTED_JOINTS = ("revolute", "continuous", "prismatic", "fixed")
# Refused where they move a tip, left in their neutral place elsewhere.
UNSUPPORTED_JOINTS = ("floating", "planar")


class KinematicTree(NamedTuple):
    """The joints that move the tips, each turned so that its axis is z (see `Robot`)."""

    base: str
    tips: tuple[str, ...]  # T
    joint_names: tuple[str, ...]  # J
    lower: np.ndarray  # (J,)
    upper: np.ndarray  # (J,)
    velocity_limit: np.ndarray  # (J,)
    continuous: np.ndarray  # (J,) bool
    parent: np.ndarray  # (K,) int64
    placement: np.ndarray  # (K, 4, 4)
    prismatic: np.ndarray  # (K,) bool
    joint: np.ndarray  # (K,) int64
    multiplier: np.ndarray  # (K,)
    offset: np.ndarray  # (K,)
    tip_node: np.ndarray  # (T,) int64
    tip_placement: np.ndarray  # (T, 4, 4)
    frames: dict[str, tuple[int, np.ndarray]]  # name -> (node, T_node_frame); node -1 is the base
    held: dict[str, float]  # joint -> rad or m


class Mimic(NamedTuple):
    """Motion = multiplier * q[joint] + offset."""

    joint: str
    multiplier: float
    offset: float


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
    return root


def read_joint_elements(urdf_path: Path) -> dict[str, ElementTree.Element]:
    """The <joint> elements by name; refuses types that no URDF has, and closed loops."""
    joints: dict[str, ElementTree.Element] = {}
    children: dict[str, str] = {}
    for element in read_urdf(urdf_path).findall("joint"):
        name, kind = element.get("name", ""), element.get("type", "")
        if kind not in SUPPORTED_JOINTS + UNSUPPORTED_JOINTS:
            raise RobotError(_unsupported(name, kind, urdf_path))
        link = element.find("child")
        child = "" if link is None else link.get("link", "")
        if child in children:
            raise RobotError(
                f"link {child!r} of {urdf_path} is the child of the joints {children[child]!r} and "
                f"{name!r}: closed loops are not supported"
            )
        children[child] = name
        joints[name] = element
    return joints


def _unsupported(name: str, kind: str | None, urdf_path: Path) -> str:
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
            factor, shift = mimic.get("multiplier", "1"), mimic.get("offset", "0")
            direct[name] = Mimic(source, float(factor), float(shift))
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


def _axis_alignment(axis: np.ndarray) -> np.ndarray:
    """A transform (4, 4) whose z axis is the given unit axis; exact for the coordinate axes."""
    result = np.eye(4)
    if np.array_equal(axis, (0.0, 0.0, 1.0)):
        return result
    helper = np.eye(3)[int(np.argmin(np.abs(axis)))]
    x = np.cross(helper, axis)
    x /= np.linalg.norm(x)
    result[:3, 0], result[:3, 1], result[:3, 2] = x, np.cross(axis, x), axis
    return result


def _motion_axis(model: pin.Model, index: int) -> tuple[np.ndarray, bool]:
    """Unit axis (3,) in the joint's frame, and whether the joint is prismatic."""
    joint = model.joints[index]
    data = joint.createData()
    joint.calc(data, pin.neutral(model))
    subspace = np.asarray(data.S, dtype=np.float64).reshape(6)
    prismatic = bool(np.any(subspace[:3]))
    axis = subspace[:3] if prismatic else subspace[3:]
    return axis / np.linalg.norm(axis), prismatic


def _joint_motion(axis: np.ndarray, prismatic: bool, value: float) -> np.ndarray:
    result = np.eye(4)
    if prismatic:
        result[:3, 3] = axis * value
    else:
        result[:3, :3] = pin.exp3(axis * value)
    return result


def _require_link(model: pin.Model, name: str, role: str) -> int:
    links = [frame.name for frame in model.frames if frame.type == pin.FrameType.BODY]
    if name not in links:
        raise LinkError(f"{role} {name!r} is not a link; links are {listing(links, name)}")
    return model.getFrameId(name, pin.FrameType.BODY)


def link_names(urdf_path: Path) -> list[str]:
    """All links, in the file's order."""
    return [link.get("name", "") for link in read_urdf(urdf_path).findall("link")]


def leaf_links(urdf_path: Path) -> list[str]:
    """Links that are the parent of no joint: the usual candidates for tips."""
    elements = list(read_joint_elements(urdf_path).values())
    parents = {link.get("link") for e in elements if (link := e.find("parent")) is not None}
    children = [link.get("link", "") for e in elements if (link := e.find("child")) is not None]
    return [name for name in children if name not in parents]


def read_tree(
    urdf_path: Path,
    base: str | None,
    tips: Sequence[str],
    held: Mapping[str, float] | None = None,
) -> KinematicTree:
    """Read the part of a URDF that moves the tips relative to the base.

    Args:
        urdf_path: the file.
        base: the link that poses refer to, any link of the robot; None for the root link.
        tips: the links that targets are given for, one or more.
        held: joints [rad or m] that stay at a value instead of being solved for.

    Raises:
        RobotError: the URDF does not parse, has a closed loop, or a joint that moves a tip and
            cannot be solved for.
        LinkError: the base or a tip does not exist, is named twice, or no joint moves it.
    """
    elements = read_joint_elements(urdf_path)
    mimics = resolve_mimics(elements)
    model = read_model(urdf_path)
    held = dict(held or {})
    for name in held:
        if name not in elements:
            raise RobotError(
                f"held joint {name!r} is unknown; joints are {listing(list(elements), name)}"
            )
        if name in mimics:
            raise RobotError(f"held joint {name!r} mimics {mimics[name].joint!r}; hold that one")
    if base is None:
        base = str(next(frame.name for frame in model.frames if frame.type == pin.FrameType.BODY))
    if not tips:
        raise LinkError("a robot needs at least one tip link")
    if len(set(tips)) != len(tips):
        raise LinkError(f"tips {list(tips)} name a link twice")
    base_frame = model.frames[_require_link(model, base, "base")]
    tip_frames = [model.frames[_require_link(model, tip, "tip")] for tip in tips]

    def owner(index: int) -> Mimic:
        name = model.names[index]
        return mimics.get(name, Mimic(name, 1.0, 0.0))

    # Walk from the base's joint to each tip's joint over the undirected tree. `reached` holds, for
    # a Pinocchio joint, the node that it hangs on and the transform from that node to the joint's
    # moved frame. Going up through a joint is its inverse: the same axis, motion reversed.
    start = base_frame.parentJoint
    reached: dict[int, tuple[int, np.ndarray]] = {
        start: (-1, base_frame.placement.inverse().homogeneous)
    }
    nodes: list[tuple[int, np.ndarray, bool, str, float, float]] = []

    def cross(index: int, origin: int, upward: bool) -> tuple[int, np.ndarray]:
        node, T_node_here = reached[origin]
        kind = elements[model.names[index]].get("type")
        if kind in UNSUPPORTED_JOINTS:
            raise RobotError(
                _unsupported(model.names[index], kind, urdf_path)
                + "; choose a base beyond it, so that it moves no tip"
            )
        T_parent_joint = model.jointPlacements[index].homogeneous
        axis, prismatic = _motion_axis(model, index)
        moved = owner(index)
        if moved.joint in held:
            value = moved.multiplier * held[moved.joint] + moved.offset
            T_step = T_parent_joint @ _joint_motion(axis, prismatic, value)
            return node, T_node_here @ (np.linalg.inv(T_step) if upward else T_step)
        align = _axis_alignment(axis)
        before = align if upward else T_parent_joint @ align
        after = np.linalg.inv(align)
        if upward:
            after = after @ np.linalg.inv(T_parent_joint)
        sign = -1.0 if upward else 1.0
        nodes.append(
            (
                node,
                T_node_here @ before,
                prismatic,
                moved.joint,
                sign * moved.multiplier,
                sign * moved.offset,
            )
        )
        return len(nodes) - 1, after

    above_base = {start}
    while start != 0:
        start = model.parents[start]
        above_base.add(start)

    def reach(index: int) -> tuple[int, np.ndarray]:
        if index not in reached:
            if index in above_base:
                child = next(i for i in above_base if i != 0 and model.parents[i] == index)
                reach(child)
                reached[index] = cross(child, child, upward=True)
            else:
                parent = model.parents[index]
                reach(parent)
                reached[index] = cross(index, parent, upward=False)
        return reached[index]

    tip_node, tip_placement = [], []
    for tip, frame in zip(tips, tip_frames, strict=True):
        node, T_node_joint = reach(frame.parentJoint)
        if node < 0:
            raise LinkError(f"no joint moves tip {tip!r} relative to base {base!r}")
        tip_node.append(node)
        tip_placement.append(T_node_joint @ frame.placement.homogeneous)

    frames = {}
    for frame in model.frames:
        if frame.type == pin.FrameType.BODY and frame.parentJoint in reached:
            node, T_node_joint = reached[frame.parentJoint]
            frames[frame.name] = (node, T_node_joint @ frame.placement.homogeneous)

    moved_names = {node[3] for node in nodes}
    joint_names = tuple(name for name in model.names if name in moved_names)
    indices = [model.getJointId(name) for name in joint_names]
    continuous = np.array([elements[name].get("type") == "continuous" for name in joint_names])
    lower = np.array([model.lowerPositionLimit[model.joints[i].idx_q] for i in indices])
    upper = np.array([model.upperPositionLimit[model.joints[i].idx_q] for i in indices])
    lower[continuous], upper[continuous] = -np.pi, np.pi
    for name, low, high in zip(joint_names, lower, upper, strict=True):
        if not (np.isfinite(low) and np.isfinite(high) and low < high):
            raise RobotError(
                f"joint {name!r} of {urdf_path} has no usable limits: [{low}, {high}]; "
                "hold it at a value, or give it limits"
            )
    return KinematicTree(
        base=base,
        tips=tuple(tips),
        joint_names=joint_names,
        lower=lower,
        upper=upper,
        velocity_limit=np.array([model.velocityLimit[model.joints[i].idx_v] for i in indices]),
        continuous=continuous,
        parent=np.array([node[0] for node in nodes], dtype=np.int64),
        placement=np.stack([node[1] for node in nodes]),
        prismatic=np.array([node[2] for node in nodes]),
        joint=np.array([joint_names.index(node[3]) for node in nodes], dtype=np.int64),
        multiplier=np.array([node[4] for node in nodes]),
        offset=np.array([node[5] for node in nodes]),
        tip_node=np.array(tip_node, dtype=np.int64),
        tip_placement=np.stack(tip_placement),
        frames=frames,
        held=held,
    )
