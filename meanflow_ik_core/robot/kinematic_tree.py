# SPDX-License-Identifier: Apache-2.0
"""From a URDF, read through Pinocchio, to the flat arrays of a kinematic tree."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pinocchio as pin

from ..errors import LinkError, RobotError
from .joint_limits import checked_held, fixed_joints, joint_limits, velocity_limits
from .urdf import UNSUPPORTED_JOINTS, UrdfModel, listing, read_urdf_model, unsupported

_Place = tuple[int, np.ndarray]  # a node, -1 being the base, and a transform (4, 4) from it


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
    frames: dict[str, _Place]  # link -> (node, T_node_link)
    at_rest: frozenset[str]  # links behind a joint that is neither solved for nor held, taken at 0
    held: dict[str, float]  # joint -> rad or m


def read_tree(
    urdf_path: Path,
    base: str | None,
    tips: Sequence[str],
    held: Mapping[str, float] | None = None,
    soft_limits: bool = True,
) -> KinematicTree:
    """Read the part of a URDF that moves the tips relative to the base.

    Args:
        urdf_path: the file.
        base: the link that poses refer to, any link of the robot; None for the root link.
        tips: the links that targets are given for, one or more.
        held: joints [rad or m] that stay at a value instead of being solved for. A joint whose two
            limits are one value stays there.
        soft_limits: whether those of a <safety_controller> count.

    Raises:
        RobotError: the URDF does not parse or has a closed loop; a joint that moves a tip is of
            a kind that is not supported, or has no limits; a joint cannot be held so.
        LinkError: the base or a tip does not exist, is named twice, or no joint moves it.
    """
    urdf = read_urdf_model(urdf_path, soft_limits)
    model = urdf.model
    held = {**fixed_joints(urdf), **checked_held(held or {}, urdf)}
    if base is None:
        base = str(_links(model)[0].name)
    if not tips:
        raise LinkError("a robot needs at least one tip link")
    if len(set(tips)) != len(tips):
        raise LinkError(f"tips {list(tips)} name a link twice")
    base_frame = _link(model, base, "base")
    tip_frames = [_link(model, tip, "tip") for tip in tips]

    walk = _Walk(urdf, held, base_frame)
    tip_places = [walk.place_of_tip(frame) for frame in tip_frames]
    frames, at_rest = walk.places_of_links()
    nodes = walk.nodes

    moved = {node.joint for node in nodes}
    joint_names = tuple(name for name in list(model.names)[1:] if name in moved)
    lower, upper, continuous = joint_limits(joint_names, urdf)
    return KinematicTree(
        base=base,
        tips=tuple(tips),
        joint_names=joint_names,
        lower=lower,
        upper=upper,
        velocity_limit=velocity_limits(joint_names, urdf),
        continuous=continuous,
        parent=np.array([node.parent for node in nodes], dtype=np.int64),
        placement=np.stack([node.placement for node in nodes]),
        prismatic=np.array([node.prismatic for node in nodes]),
        joint=np.array([joint_names.index(node.joint) for node in nodes], dtype=np.int64),
        multiplier=np.array([node.multiplier for node in nodes]),
        offset=np.array([node.offset for node in nodes]),
        tip_node=np.array([node for node, _ in tip_places], dtype=np.int64),
        tip_placement=np.stack([T_node_tip for _, T_node_tip in tip_places]),
        frames=frames,
        at_rest=at_rest,
        held=held,
    )


class _Node(NamedTuple):
    """A joint on the way to a tip, as `Robot` describes its nodes."""

    parent: int  # node; -1 is the base
    placement: np.ndarray  # (4, 4)
    prismatic: bool
    joint: str  # that moves it
    multiplier: float
    offset: float


class _Walk:
    """Goes from the base to links, up to the root as far as need be, then down.

    Going up through a joint is its inverse: the same axis, motion reversed.

    Attributes:
        nodes: of the joints that were crossed on the way to tips and are solved for.
    """

    def __init__(self, urdf: UrdfModel, held: Mapping[str, float], base: pin.Frame):
        self._urdf, self._model, self._held, self._base = urdf, urdf.model, held, base.name
        self.nodes: list[_Node] = []
        # Where the frame that moves with a joint is, for Pinocchio's joints reached so far.
        self._places: dict[int, _Place] = {
            base.parentJoint: (-1, base.placement.inverse().homogeneous)
        }
        self._beyond: set[int] = set()  # joints behind mimics of solved ones
        # For each joint above the base's the one below it, through which it is reached.
        self._below: dict[int, int] = {}
        joint = base.parentJoint
        while joint != 0:
            self._below[self._model.parents[joint]] = joint
            joint = self._model.parents[joint]

    def place_of_tip(self, tip: pin.Frame) -> _Place:
        """Where a tip is, with a node for every joint on the way that is solved for.

        Raises:
            RobotError: a joint on the way is of a kind that is not supported.
            LinkError: no joint moves it.
        """
        node, T_node_joint = self._cross_to(tip.parentJoint)
        if node < 0:
            still = f"; these stay at a value: {listing(list(self._held))}" if self._held else ""
            raise LinkError(
                f"no joint moves tip {tip.name!r} relative to base {self._base!r}{still}"
            )
        return node, T_node_joint @ tip.placement.homogeneous

    def places_of_links(self) -> tuple[dict[str, _Place], frozenset[str]]:
        """Where links are, once all tips are reached, and which of them are so at rest only.

        Two kinds of links are left out: such as no solved joint moves, unless they are on the way
        to a tip, and such as are behind a mimic of a solved joint, unless it is a node.
        """
        crossed, resting = set(self._places), set()
        frames, at_rest = {}, set()
        for link in _links(self._model):
            joint = link.parentJoint
            self._stand_at(joint, resting)
            node, T_node_joint = self._places.get(joint, (-1, np.eye(4)))
            if node >= 0 or joint in crossed:
                frames[link.name] = (node, T_node_joint @ link.placement.homogeneous)
                if joint in resting:
                    at_rest.add(link.name)
        return frames, frozenset(at_rest)

    def _step_to(self, joint: int) -> tuple[int, int, bool]:
        """Which joint comes before on the way from the base, which is crossed, whether upward."""
        if joint in self._below:
            return self._below[joint], self._below[joint], True
        return self._model.parents[joint], joint, False

    def _cross_to(self, joint: int) -> _Place:
        """Reach a joint through such as are held, and such as become nodes."""
        for place in self._way_to(joint):
            self._places[place] = self._crossed(*self._step_to(place))
        return self._places[joint]

    def _way_to(self, joint: int, but: Collection[int] = ()) -> list[int]:
        """Joints on the way to one, itself included, after the last that was reached or is in
        ``but``. A loop, for chains may be longer than calls can be deep."""
        way = []
        while joint not in self._places and joint not in but:
            way.append(joint)
            joint = self._step_to(joint)[0]
        return way[::-1]

    def _crossed(self, before: int, crossed: int, upward: bool) -> _Place:
        node, T_node_before = self._places[before]
        name = self._model.names[crossed]
        if self._urdf.kind(name) in UNSUPPORTED_JOINTS:
            raise RobotError(
                unsupported(name, self._urdf.kind(name), self._urdf.path)
                + "; choose a base beyond it, so that it moves no tip"
            )
        motion = self._urdf.motion(name)
        if motion.joint in self._held:
            return node, T_node_before @ self._standing(crossed, upward)
        T_parent_joint = self._model.jointPlacements[crossed].homogeneous
        axis, prismatic = _motion_axis(self._model, crossed)
        align = _axis_alignment(axis)
        onward = np.linalg.inv(align)
        if upward:
            sign, T_before_node, T_node_here = -1.0, align, onward @ np.linalg.inv(T_parent_joint)
        else:
            sign, T_before_node, T_node_here = 1.0, T_parent_joint @ align, onward
        self.nodes.append(
            _Node(
                node, T_node_before @ T_before_node, prismatic,
                motion.joint, sign * motion.multiplier, sign * motion.offset,
            )
        )  # fmt: skip
        return len(self.nodes) - 1, T_node_here

    def _stand_at(self, joint: int, resting: set[int]) -> None:
        """Reach a joint through such as are not solved for; not possible behind other mimics.

        Joints behind one that is not even held are added to those that are resting.
        """
        leaders = {node.joint for node in self.nodes}
        for place in self._way_to(joint, self._beyond):
            before, crossed, upward = self._step_to(place)
            leader = self._urdf.motion(self._model.names[crossed]).joint
            if before not in self._places or leader in leaders:
                self._beyond.add(place)
                continue
            node, T_node_before = self._places[before]
            self._places[place] = node, T_node_before @ self._standing(crossed, upward)
            if before in resting or leader not in self._held:
                resting.add(place)

    def _standing(self, joint: int, upward: bool) -> np.ndarray:
        """(4, 4) through a joint at the value that it is held at, or at rest."""
        T_step = self._model.jointPlacements[joint].homogeneous
        name = self._model.names[joint]
        if self._urdf.kind(name) not in UNSUPPORTED_JOINTS:
            motion = self._urdf.motion(name)
            value = motion.multiplier * self._held.get(motion.joint, 0.0) + motion.offset
            T_step = T_step @ _moved(*_motion_axis(self._model, joint), value)
        return np.linalg.inv(T_step) if upward else T_step


def _links(model: pin.Model) -> list[pin.Frame]:
    """The links, the root first."""
    return [frame for frame in model.frames if frame.type == pin.FrameType.BODY]


def _link(model: pin.Model, name: str, role: str) -> pin.Frame:
    links = {frame.name: frame for frame in _links(model)}
    if name not in links:
        raise LinkError(f"{role} {name!r} is not a link; links are {listing(list(links), name)}")
    return links[name]


def _motion_axis(model: pin.Model, index: int) -> tuple[np.ndarray, bool]:
    """Unit axis (3,) in the joint's frame, and whether the joint is prismatic."""
    joint = model.joints[index]
    data = joint.createData()
    joint.calc(data, pin.neutral(model))
    subspace = np.asarray(data.S, dtype=np.float64).reshape(6)
    prismatic = bool(np.any(subspace[:3]))
    axis = subspace[:3] if prismatic else subspace[3:]
    return axis / np.linalg.norm(axis), prismatic


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


def _moved(axis: np.ndarray, prismatic: bool, value: float) -> np.ndarray:
    result = np.eye(4)
    if prismatic:
        result[:3, 3] = axis * value
    else:
        result[:3, :3] = pin.exp3(axis * value)
    return result
