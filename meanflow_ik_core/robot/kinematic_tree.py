# SPDX-License-Identifier: Apache-2.0
"""From a URDF, read through Pinocchio, to the flat arrays of a kinematic tree."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pinocchio as pin

from ..errors import LinkError, RobotError
from .urdf import (
    MOVING_JOINTS,
    UNSUPPORTED_JOINTS,
    Mimic,
    listing,
    read_joint_elements,
    read_model,
    resolve_mimics,
    unsupported,
)


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
    at_rest: frozenset[str]  # frames behind a joint that is neither solved for nor held, taken at 0
    held: dict[str, float]  # joint -> rad or m


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


def _limits(
    name: str, elements: Mapping[str, ElementTree.Element], model: pin.Model
) -> tuple[float, float]:
    """What the file says of a joint; infinite where it says nothing."""
    limit = elements[name].find("limit")
    silent = limit is None or not {"lower", "upper"} & set(limit.attrib)
    if silent or elements[name].get("type") == "continuous":
        return -np.inf, np.inf
    index = model.joints[model.getJointId(name)].idx_q
    return float(model.lowerPositionLimit[index]), float(model.upperPositionLimit[index])


def _followers_ranges(
    name: str,
    elements: Mapping[str, ElementTree.Element],
    mimics: Mapping[str, Mimic],
    model: pin.Model,
) -> Iterator[tuple[str, float, float]]:
    """For each joint that mimics this one, the values of this one that keep it in its limits."""
    for follower, mimic in mimics.items():
        if mimic.joint != name or elements[follower].get("type") not in MOVING_JOINTS:
            continue
        low, high = _limits(follower, elements, model)
        if mimic.multiplier == 0:
            inside = low <= mimic.offset <= high
            yield (follower, -np.inf, np.inf) if inside else (follower, np.inf, -np.inf)
        else:
            ends = [(limit - mimic.offset) / mimic.multiplier for limit in (low, high)]
            yield follower, min(ends), max(ends)


def _checked_held(
    held: Mapping[str, Any],
    elements: Mapping[str, ElementTree.Element],
    mimics: Mapping[str, Mimic],
    model: pin.Model,
) -> dict[str, float]:
    """The held joints, all of which exist, can be held, and at a value that they can have."""
    checked = {}
    for name, given in held.items():
        if name not in elements:
            raise RobotError(
                f"held joint {name!r} is unknown; joints are {listing(list(elements), name)}"
            )
        if name in mimics:
            raise RobotError(f"held joint {name!r} mimics {mimics[name].joint!r}; hold that one")
        kind = elements[name].get("type")
        if kind not in MOVING_JOINTS:
            raise RobotError(
                f"held joint {name!r} is {kind}; only {', '.join(MOVING_JOINTS)} can be held"
            )
        try:
            value = float(given)
        except (TypeError, ValueError):
            value = np.nan
        if not np.isfinite(value):
            raise RobotError(f"held joint {name!r} is {given!r}; it must be a number [rad or m]")
        low, high = _limits(name, elements, model)
        for _, least, most in _followers_ranges(name, elements, mimics, model):
            low, high = max(low, least), min(high, most)
        if not low - 1e-9 <= value <= high + 1e-9:
            raise RobotError(
                f"held joint {name!r} is {value:.10g}, outside of its limits, those of joints that "
                f"mimic it included: [{low:.10g}, {high:.10g}]"
            )
        checked[name] = value
    return checked


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
    held = _checked_held(held or {}, elements, mimics, model)
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

    def standing(index: int, upward: bool) -> np.ndarray:
        """Through a joint at the value that it is held at, or at rest."""
        T_step = model.jointPlacements[index].homogeneous
        if elements[model.names[index]].get("type") not in UNSUPPORTED_JOINTS:
            moved = owner(index)
            value = moved.multiplier * held.get(moved.joint, 0.0) + moved.offset
            T_step = T_step @ _joint_motion(*_motion_axis(model, index), value)
        return np.linalg.inv(T_step) if upward else T_step

    def cross(index: int, origin: int, upward: bool) -> tuple[int, np.ndarray]:
        node, T_node_here = reached[origin]
        kind = elements[model.names[index]].get("type")
        if kind in UNSUPPORTED_JOINTS:
            raise RobotError(
                unsupported(model.names[index], kind, urdf_path)
                + "; choose a base beyond it, so that it moves no tip"
            )
        moved = owner(index)
        if moved.joint in held:
            return node, T_node_here @ standing(index, upward)
        T_parent_joint = model.jointPlacements[index].homogeneous
        axis, prismatic = _motion_axis(model, index)
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

    def before(index: int) -> tuple[int, int, bool]:
        """The joint before this one on the way from the base, the joint crossed, whether upward."""
        if index in above_base:
            child = next(i for i in above_base if i != 0 and model.parents[i] == index)
            return child, child, True
        return model.parents[index], index, False

    def reach(index: int) -> tuple[int, np.ndarray]:
        if index not in reached:
            origin, crossed, upward = before(index)
            reach(origin)
            reached[index] = cross(crossed, origin, upward)
        return reached[index]

    tip_node, tip_placement = [], []
    for tip, frame in zip(tips, tip_frames, strict=True):
        node, T_node_joint = reach(frame.parentJoint)
        if node < 0:
            raise LinkError(f"no joint moves tip {tip!r} relative to base {base!r}")
        tip_node.append(node)
        tip_placement.append(T_node_joint @ frame.placement.homogeneous)

    moved_names = {node[3] for node in nodes}
    rigid, loose = set(reached), set()

    def stand(index: int) -> None:
        """Reach a joint through such as are not solved for; not possible behind other mimics."""
        if index in reached:
            return
        origin, crossed, upward = before(index)
        stand(origin)
        moved = owner(crossed).joint
        if origin in reached and moved not in moved_names:
            node, T_node_origin = reached[origin]
            reached[index] = node, T_node_origin @ standing(crossed, upward)
            if origin in loose or moved not in held:
                loose.add(index)

    frames, at_rest = {}, set()
    for frame in model.frames:
        if frame.type == pin.FrameType.BODY:
            stand(frame.parentJoint)
            node, T_node_joint = reached.get(frame.parentJoint, (-1, np.eye(4)))
            if node >= 0 or frame.parentJoint in rigid:
                frames[frame.name] = (node, T_node_joint @ frame.placement.homogeneous)
                if frame.parentJoint in loose:
                    at_rest.add(frame.name)

    joint_names = tuple(name for name in model.names if name in moved_names)
    indices = [model.getJointId(name) for name in joint_names]
    continuous = np.array([elements[name].get("type") == "continuous" for name in joint_names])
    lower = np.array([model.lowerPositionLimit[model.joints[i].idx_q] for i in indices])
    upper = np.array([model.upperPositionLimit[model.joints[i].idx_q] for i in indices])
    lower[continuous], upper[continuous] = -np.pi, np.pi
    for place, name in enumerate(joint_names):
        for follower, low, high in _followers_ranges(name, elements, mimics, model):
            if continuous[place] and np.isfinite((low, high)).all():
                lower[place], upper[place], continuous[place] = low, high, False
            lower[place], upper[place] = max(lower[place], low), min(upper[place], high)
            if lower[place] > upper[place]:
                raise RobotError(
                    f"joint {name!r} of {urdf_path} has no value within its limits at which "
                    f"{follower!r}, which mimics it, is within its own"
                )
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
        at_rest=frozenset(at_rest),
        held=held,
    )
