# SPDX-License-Identifier: Apache-2.0
"""A robot: the joints that move its tips, their limits, forward kinematics and Jacobian."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

import numpy as np

from ..errors import LinkError, RobotError
from ..tensors import array_from, is_tensor
from .array_kinematics import ArrayKinematics
from .kinematic_tree import read_tree
from .robot_file import RobotFile, find_robot_file
from .robot_file import available_robots as available_robots
from .sources import robot_name
from .urdf import leaf_links, link_names, listing

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from .tensor_kinematics import TensorKinematics


_Function = TypeVar("_Function", bound=Callable[..., Any])


def kept_with_robot(function: _Function) -> _Function:
    """A function of a robot whose results are kept as long as the robot, which they may refer to.

    Its other arguments are hashable. Threads that ask at a time may each compute the result.
    """

    @wraps(function)
    def kept(robot: Robot, *arguments: Any) -> Any:
        key = (function, *arguments)
        if key not in robot._kept:
            robot._kept[key] = function(robot, *arguments)
        return robot._kept[key]

    return cast(_Function, kept)


@dataclass(frozen=True, eq=False)
class Robot:
    """A kinematic tree between a base and T tips, moved by J actuated joints.

    The tree has K >= J moving nodes in topological order, each with z as its axis:
    T_base_node = T_base_parent @ placement @ motion_z(multiplier * q[joint] + offset),
    where motion_z turns about z, or shifts along z when the node is prismatic. Mimic joints are
    nodes that share a joint. T_base_tip = T_base_node[tip_node] @ tip_placement.
    """

    name: str
    urdf_path: Path
    workspace_scale: float  #: m; positions are divided by it for the network
    base: str
    tips: tuple[str, ...]  #: T
    joint_names: tuple[str, ...]  #: J
    lower: np.ndarray  #: (J,) float64, rad or m; -pi for continuous joints
    upper: np.ndarray  #: (J,) float64
    velocity_limit: np.ndarray  #: (J,) float64, rad/s or m/s
    continuous: np.ndarray  #: (J,) bool
    parent: np.ndarray  #: (K,) int64, -1 is the base
    placement: np.ndarray  #: (K, 4, 4) float64
    prismatic: np.ndarray  #: (K,) bool
    joint: np.ndarray  #: (K,) int64
    multiplier: np.ndarray  #: (K,) float64
    offset: np.ndarray  #: (K,) float64
    tip_node: np.ndarray  #: (T,) int64
    tip_placement: np.ndarray  #: (T, 4, 4) float64
    #: link -> (node, T_node_link); node -1 is the base
    frames: Mapping[str, tuple[int, np.ndarray]]
    held: Mapping[str, float]  #: joints that stay at a value, rad or m
    #: links behind a joint that is neither solved for nor held; in `frames` it stands at 0
    at_rest: frozenset[str] = frozenset()
    #: pairs of links that are not checked for touching; None: those that always overlap
    ignore_collisions: tuple[tuple[str, str], ...] | None = None
    #: m, what comes nearer to a link than this touches it, where its shapes do not cover it
    padding: Mapping[str, float] = field(default_factory=dict)
    _on_device: dict = field(default_factory=dict, repr=False)
    _at_frames: dict = field(default_factory=dict, repr=False)
    _kept: dict = field(default_factory=dict, init=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": {}}  # a copy finds out for itself

    @property
    def num_joints(self) -> int:
        return len(self.joint_names)

    @property
    def num_tips(self) -> int:
        return len(self.tips)

    @cached_property
    def ancestors(self) -> np.ndarray:
        """(T, K) bool: the node stands between the base and the tip, or carries the tip."""
        between = np.zeros((self.num_tips, len(self.parent)), bool)
        for tip, node in enumerate(self.tip_node):
            while node >= 0:
                between[tip, node] = True
                node = self.parent[node]
        return between

    @cached_property
    def moves(self) -> np.ndarray:
        """(T, J) bool: the joint moves the tip."""
        own = self.joint[:, None] == np.arange(self.num_joints)  # (K, J)
        return self.ancestors @ own

    @cached_property
    def arrays(self) -> ArrayKinematics:
        """The kinematics of arrays, compiled."""
        return ArrayKinematics(self)

    def forward(self, q: Any) -> Any:
        """Forward kinematics, compiled for arrays, differentiable for tensors.

        Args:
            q: (..., J) rad or m; torch tensor or array-like, float32 or float64.

        Returns:
            T_base_tip (..., T, 4, 4), of the kind, dtype and device of ``q``.
        """
        self._check_joints(q)
        if is_tensor(q):
            return self._kinematics(q.dtype, q.device).forward(q)
        return _of_rows(self.arrays.forward, q)

    def jacobian(self, q: Any) -> Any:
        """Geometric Jacobian at the tips, in the axes of the base; compiled for arrays.

        Args:
            q: (..., J) rad or m; torch tensor or array-like, float32 or float64.

        Returns:
            (..., T, 6, J), rows linear [m/rad or m/m] then angular, of the kind of ``q``.
        """
        self._check_joints(q)
        if is_tensor(q):
            return self._kinematics(q.dtype, q.device).jacobian(q)
        return _of_rows(self.arrays.jacobian, q)

    def node_poses(self, q: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Rotations (..., 3, 3) and origins (..., 3) in the base of each of the K nodes.

        Args:
            q: (..., J) rad or m.
        """
        return self._kinematics(q.dtype, q.device).node_poses(q)

    @overload
    def random_configurations(self, count: int, generator: np.random.Generator) -> np.ndarray: ...

    @overload
    def random_configurations(
        self,
        count: int,
        generator: torch.Generator | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor: ...

    def random_configurations(
        self, count: int, generator: Any = None, dtype: torch.dtype | None = None
    ) -> Any:
        """Configurations that are uniform within the limits.

        Args:
            count: N.
            generator: of the random numbers: numpy's, or torch's, or a seed of torch's; None:
                torch's own.
            dtype: of a tensor; None: float64.

        Returns:
            (N, J) rad or m: an array where the generator is numpy's, else a tensor on its device.
        """
        if isinstance(generator, np.random.Generator):
            unit = generator.random((count, self.num_joints))
            return self.lower + unit * (self.upper - self.lower)
        from .tensor_kinematics import random_configurations

        return random_configurations(self, count, generator, dtype)

    def limits(
        self, dtype: torch.dtype, device: torch.device | None = None
    ) -> tuple[Tensor, Tensor]:
        """Lower and upper limits (J,) as tensors."""
        kinematics = self._kinematics(dtype, device)
        return kinematics.lower, kinematics.upper

    def clipped(self, q: np.ndarray) -> np.ndarray:
        """q (..., J) within the limits; continuous joints stay on their turn."""
        return np.where(self.continuous, q, np.clip(q, self.lower, self.upper))

    def within_limits(self, q: Any, tolerance: float = 0.0) -> Any:
        """(...) bool: every joint of q (..., J) lies in its limits; continuous joints always do."""
        q = array_from(q)
        inside = (q >= self.lower - tolerance) & (q <= self.upper + tolerance)
        return np.asarray(inside | self.continuous).all(-1)

    def tip_offset(self, frame: str) -> tuple[int, np.ndarray]:
        """Which tip a frame is rigidly fixed to, and T_tip_frame (4, 4).

        Raises:
            LinkError: the frame does not exist, or is fixed to no tip.
        """
        if not isinstance(frame, str):
            raise LinkError(f"the frame is {frame!r}; it must be the name of a link")
        node, T_node_frame = self._rigid_frames().get(frame, (-1, np.eye(4)))
        for tip in range(self.num_tips):
            if frame == self.tips[tip]:
                return tip, np.eye(4)
        for tip in range(self.num_tips):
            if node >= 0 and self.tip_node[tip] == node:
                return tip, np.linalg.inv(self.tip_placement[tip]) @ T_node_frame
        fixed = [name for name, (node, _) in self._rigid_frames().items() if node in self.tip_node]
        raise LinkError(
            f"link {frame!r} is not fixed to a tip of {self.name!r}; "
            f"links that are: {listing(fixed, frame)}"
        )

    def at_frames(self, frames: Sequence[str]) -> Robot:
        """This robot with frames in place of the tips that they are rigidly fixed to.

        Raises:
            LinkError: a frame does not exist, is fixed to no tip, or two are fixed to one.
        """
        tips, placement = list(self.tips), self.tip_placement.copy()
        taken: dict[int, str] = {}
        for frame in frames:
            tip, T_tip_frame = self.tip_offset(frame)
            if taken.get(tip, frame) != frame:
                raise LinkError(
                    f"tip {self.tips[tip]!r} is named twice: {taken[tip]!r} and {frame!r} are "
                    "fixed to it"
                )
            taken[tip] = tips[tip] = frame
            placement[tip] = placement[tip] @ T_tip_frame
        if tuple(tips) == self.tips:
            return self
        if tuple(tips) not in self._at_frames:
            self._at_frames[tuple(tips)] = replace(
                self, tips=tuple(tips), tip_placement=placement, _on_device={}, _at_frames={}
            )
        return self._at_frames[tuple(tips)]

    def base_offset(self, frame: str) -> np.ndarray:
        """T_base_frame (4, 4) of a frame that is rigidly fixed to the base.

        Raises:
            LinkError: the frame does not exist, or moves relative to the base.
        """
        if not isinstance(frame, str):
            raise LinkError(f"the frame is {frame!r}; it must be the name of a link")
        node, T_base_frame = self._rigid_frames().get(frame, (0, np.eye(4)))
        if node != -1:
            fixed = [name for name, (node, _) in self._rigid_frames().items() if node == -1]
            raise LinkError(
                f"frame {frame!r} is not fixed to the base of {self.name!r}; "
                f"frames that are: {listing(fixed, frame)}"
            )
        return T_base_frame

    def _rigid_frames(self) -> dict[str, tuple[int, np.ndarray]]:
        """Frames whose place does not depend on joints that are not known."""
        return {name: place for name, place in self.frames.items() if name not in self.at_rest}

    def fingerprint(self) -> str:
        """SHA-256 of everything that a solution depends on, numbers rounded to 1e-9."""
        digest = hashlib.sha256()
        digest.update(repr((self.base, self.tips, self.joint_names, self.workspace_scale)).encode())
        for name in ("lower", "upper", "continuous", "parent", "placement", "prismatic", "joint"):
            digest.update(_rounded_bytes(getattr(self, name)))
        for name in ("multiplier", "offset", "tip_node", "tip_placement"):
            digest.update(_rounded_bytes(getattr(self, name)))
        return digest.hexdigest()

    def _kinematics(self, dtype: torch.dtype, device: torch.device | None) -> TensorKinematics:
        from .tensor_kinematics import kinematics_of

        return kinematics_of(self, dtype, device)

    def _check_joints(self, q: Any) -> None:
        try:
            shape = tuple(np.shape(q))
        except ValueError as error:
            raise RobotError(f"q is not an array of numbers: {error}") from error
        if shape[-1:] != (self.num_joints,):
            raise RobotError(
                f"q has shape {shape}; the last axis must have {self.num_joints} joints"
            )
        if is_tensor(q) and not q.is_floating_point():
            raise RobotError(f"q is a tensor of {q.dtype}; it must be one of floats")


def load_robot(
    name: str | Path,
    base: str | None = None,
    tips: Sequence[str] | None = None,
    held: Mapping[str, float] | None = None,
    workspace_scale: float | None = None,
    soft_limits: bool | None = None,
) -> Robot:
    """Load a robot by its name, from a robot YAML file, or from a URDF or xacro.

    Args:
        name: one of `available_robots`, the path or package:// address of a ``.yaml``, ``.urdf`` or
            ``.xacro`` file, or the text of a URDF, as in a ``robot_description``.
        base: link that poses refer to; default: the file's, or the URDF's root link.
        tips: links that targets are given for; default: the file's, or the only leaf link.
        held: joints [rad or m] that stay at a value.
        workspace_scale: metres that positions are divided by for the network, default 1.
        soft_limits: whether limits of a <safety_controller> count, as in MoveIt; default: what the
            robot file says, else True.

    Raises:
        RobotError: unknown name, or a file that cannot be read; a key or value of the robot file
            that is unknown or of the wrong kind; a joint that moves a tip and is not supported or
            has no limits; a joint that cannot be held so; a scale that is no positive length.
        LinkError: base or tip does not exist or is named twice, or no joint moves the tip; no tip
            is named where there are several leaf links; an ignored link does not exist.
    """
    file = find_robot_file(name)
    return robot_from_file(
        robot_name(name), file, base, tips, held, workspace_scale, soft_limits
    )  # fmt: skip


def robot_from_file(
    name: str,
    file: RobotFile,
    base: str | None = None,
    tips: Sequence[str] | None = None,
    held: Mapping[str, float] | None = None,
    workspace_scale: float | None = None,
    soft_limits: bool | None = None,
) -> Robot:
    """As `load_robot`, from what the robot's file says."""
    tips, held = _checked_tips(tips, file), {} if held is None else held
    if not isinstance(held, Mapping):
        raise RobotError(f"held is {held!r}; it must be a mapping from joints to numbers")
    scale = file.workspace_scale if workspace_scale is None else workspace_scale
    scale = 1.0 if scale is None else scale
    if (
        isinstance(scale, bool)
        or not isinstance(scale, int | float | np.number)
        or not (0 < scale < np.inf)
    ):
        raise RobotError(f"workspace_scale is {scale!r}; it must be a positive length in metres")
    if not isinstance(soft_limits, bool | None):
        raise RobotError(f"soft_limits is {soft_limits!r}; it must be True or False")
    paired = {link for pair in file.ignore_collisions or () for link in pair}
    links = link_names(file.urdf_path) if paired or file.padding else []
    for link in (paired | set(file.padding)) - set(links):
        key = "ignore_collisions" if link in paired else "padding"
        raise LinkError(
            f"{key} of {name} name {link!r}, which is no link; links are {listing(links, link)}"
        )
    soft = file.soft_limits if soft_limits is None else soft_limits
    tree = read_tree(file.urdf_path, base or file.base, tips, {**file.held, **held}, soft)
    return Robot(
        name=name,
        urdf_path=file.urdf_path,
        workspace_scale=float(scale),
        ignore_collisions=file.ignore_collisions,
        padding=dict(file.padding),
        **tree._asdict(),
    )


def _checked_tips(tips: Any, file: RobotFile) -> list[str]:
    """The tips that are given, those of the file, or the only leaf link."""
    if isinstance(tips, str):
        raise LinkError(f"tips is the text {tips!r}; it must be a list of links, [{tips!r}]")
    if not isinstance(tips, Sequence | None) or not all(isinstance(t, str) for t in tips or ()):
        raise LinkError(f"tips is {tips!r}; it must be a list of links")
    named = list(tips or file.tips)
    leaves = [] if named else leaf_links(file.urdf_path)
    if not named and not leaves:
        raise LinkError(f"{file.urdf_path} has no joints, and so no link that can be a tip")
    if len(leaves) > 1:
        raise LinkError(
            f"{file.urdf_path} has {len(leaves)} leaf links; name the tips among {listing(leaves)}"
        )
    return named or leaves


def _of_rows(function: Callable[[np.ndarray], np.ndarray], q: Any) -> np.ndarray:
    """A function of rows (N, J) in float64, of q (..., J); float32 where ``q`` is."""
    try:
        given = np.asarray(q)
        if given.dtype.kind == "c":
            raise TypeError("they are complex")
        rows = np.ascontiguousarray(given, np.float64).reshape(-1, given.shape[-1])
    except (TypeError, ValueError) as error:
        raise RobotError(f"q is not an array of numbers: {error}") from error
    found = function(rows)
    found = found.reshape(*given.shape[:-1], *found.shape[1:])
    return found.astype(np.float32) if given.dtype == np.float32 else found


def _rounded_bytes(array: np.ndarray) -> bytes:
    if array.dtype == np.float64:
        # + 0.0 turns -0.0 into 0.0
        array = np.round(array, 9) + 0.0
    return np.ascontiguousarray(array).tobytes()
