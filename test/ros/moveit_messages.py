# SPDX-License-Identifier: Apache-2.0
"""Messages of MoveIt's planning scene: the real ones where moveit_msgs is installed, and stand-ins
with the same fields, for which `test_planning_scene.py` vouches. Requests have `RobotState`."""

import importlib.util
import struct
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from geometry_msgs.msg import Pose
from sensor_msgs.msg import JointState, MultiDOFJointState
from shape_msgs.msg import SolidPrimitive
from std_msgs.msg import Header
from trajectory_msgs.msg import JointTrajectory
from world_messages import pose_at

HAS_MOVEIT = importlib.util.find_spec("moveit_msgs") is not None
ADD, REMOVE, APPEND, MOVE = b"\0", b"\1", b"\2", b"\3"  # rclpy has a byte as bytes


@dataclass
class CollisionObject:
    header: Header = field(default_factory=Header)
    pose: Pose = field(default_factory=Pose)
    id: str = ""
    type: Any = None
    primitives: list = field(default_factory=list)
    primitive_poses: list = field(default_factory=list)
    meshes: list = field(default_factory=list)
    mesh_poses: list = field(default_factory=list)
    planes: list = field(default_factory=list)
    plane_poses: list = field(default_factory=list)
    subframe_names: list = field(default_factory=list)
    subframe_poses: list = field(default_factory=list)
    operation: bytes = ADD


@dataclass
class AttachedCollisionObject:
    link_name: str = ""
    object: CollisionObject = field(default_factory=CollisionObject)
    touch_links: list = field(default_factory=list)
    detach_posture: JointTrajectory = field(default_factory=JointTrajectory)
    weight: float = 0.0


@dataclass
class AllowedCollisionEntry:
    enabled: list = field(default_factory=list)


@dataclass
class AllowedCollisionMatrix:
    entry_names: list = field(default_factory=list)
    entry_values: list = field(default_factory=list)
    default_entry_names: list = field(default_factory=list)
    default_entry_values: list = field(default_factory=list)


@dataclass
class RobotState:
    joint_state: JointState = field(default_factory=JointState)
    multi_dof_joint_state: MultiDOFJointState = field(default_factory=MultiDOFJointState)
    attached_collision_objects: list = field(default_factory=list)
    is_diff: bool = False


@dataclass
class LinkPadding:
    link_name: str = ""
    padding: float = 0.0


@dataclass
class LinkScale:
    link_name: str = ""
    scale: float = 0.0


@dataclass
class Octomap:
    header: Header = field(default_factory=Header)
    binary: bool = False
    id: str = ""
    resolution: float = 0.0
    data: list = field(default_factory=list)


@dataclass
class OctomapWithPose:
    header: Header = field(default_factory=Header)
    origin: Pose = field(default_factory=Pose)
    octomap: Octomap = field(default_factory=Octomap)


@dataclass
class PlanningSceneWorld:
    collision_objects: list = field(default_factory=list)
    octomap: OctomapWithPose = field(default_factory=OctomapWithPose)


@dataclass
class PlanningScene:
    name: str = ""
    robot_state: RobotState = field(default_factory=RobotState)
    robot_model_name: str = ""
    fixed_frame_transforms: list = field(default_factory=list)
    allowed_collision_matrix: AllowedCollisionMatrix = field(default_factory=AllowedCollisionMatrix)
    link_padding: list = field(default_factory=list)
    link_scale: list = field(default_factory=list)
    object_colors: list = field(default_factory=list)
    world: PlanningSceneWorld = field(default_factory=PlanningSceneWorld)
    is_diff: bool = False


STAND_INS = (
    CollisionObject, AttachedCollisionObject, AllowedCollisionEntry, AllowedCollisionMatrix,
    RobotState, LinkPadding, LinkScale, Octomap, OctomapWithPose, PlanningSceneWorld, PlanningScene,
)  # fmt: skip


def real(kind: type) -> Any:
    """The type of moveit_msgs or octomap_msgs that a stand-in is for."""
    from moveit_msgs import msg
    from octomap_msgs import msg as octomap

    return getattr(octomap if kind in (Octomap, OctomapWithPose) else msg, kind.__name__)


KINDS = {"stand-ins": False} | ({"moveit_msgs": True} if HAS_MOVEIT else {})


class Messages:
    """Makes messages of one of the two."""

    def __init__(self, are_real: bool):
        kinds = {kind.__name__: real(kind) if are_real else kind for kind in STAND_INS}
        self.kinds = SimpleNamespace(**kinds)

    def object(self, id: str, frame: str = "panda_link0", operation: bytes = ADD, **fields: Any):
        message = self.kinds.CollisionObject(id=id, operation=operation, **fields)
        message.header.frame_id = frame
        return message

    def box(self, id: str, size: tuple, xyz: tuple, frame: str = "panda_link0", **fields: Any):
        primitive = SolidPrimitive(type=SolidPrimitive.BOX, dimensions=list(size))
        return self.object(id, frame, primitives=[primitive], pose=pose_at(*xyz), **fields)

    def attached(self, link: str, message: Any, touch_links: tuple = ()):
        kind = self.kinds.AttachedCollisionObject
        return kind(link_name=link, object=message, touch_links=list(touch_links))

    def matrix(self, names: list, allowed: list, **defaults: bool):
        """Of names, the pairs of them that may touch, and defaults."""
        pairs = [set(pair) for pair in allowed]
        entry = self.kinds.AllowedCollisionEntry
        rows = [entry(enabled=[{a, b} in pairs for b in names]) for a in names]
        return self.kinds.AllowedCollisionMatrix(
            entry_names=list(names), entry_values=rows,
            default_entry_names=list(defaults), default_entry_values=list(defaults.values()),
        )  # fmt: skip

    def octomap(self, data: bytes, edge: float, binary: bool, frame: str = "panda_link0"):
        message = self.kinds.OctomapWithPose()
        message.header.frame_id = frame
        message.octomap = self.kinds.Octomap(
            binary=binary,
            id="OcTree",
            resolution=edge,
            data=list(struct.unpack(f"{len(data)}b", data)),
        )
        return message

    def scene(self, *objects: Any, diff=True, attached=(), matrix=None, octomap=None):
        scene = self.kinds.PlanningScene(is_diff=diff)
        scene.robot_state.is_diff = diff
        scene.robot_state.attached_collision_objects = list(attached)
        scene.world.collision_objects = list(objects)
        if matrix is not None:
            scene.allowed_collision_matrix = matrix
        if octomap is not None:
            scene.world.octomap = octomap
        return scene


def octree_data(leaves: dict, binary: bool) -> bytes:
    """What OctoMap writes of a tree of depth 16: leaves by (x, y, z, width) in cells from the
    corner of the tree, and whether each is occupied."""

    def node(corner: tuple, width: int, inside: list) -> bytes:
        half = width // 2
        parts: list[tuple[tuple, list]] = []
        for child in range(8):
            place = tuple(corner[axis] + half * (child >> axis & 1) for axis in range(3))
            own = [
                leaf
                for leaf in inside
                if all(place[axis] <= leaf[axis] < place[axis] + half for axis in range(3))
            ]
            parts.append((place, own))
        deeper, mask, bits = b"", 0, 0
        for child, (place, own) in enumerate(parts):
            if not own:
                continue
            mask |= 1 << child
            if own[0][3] < half:
                bits |= 3 << 2 * child
                deeper += node(place, half, own)
            else:
                bits |= (2 if leaves[own[0]] else 1) << 2 * child
                if not binary:
                    deeper += struct.pack("<fB", 0.85 if leaves[own[0]] else -0.4, 0)
        return (struct.pack("<H", bits) if binary else struct.pack("<fB", 0.85, mask)) + deeper

    return node((0, 0, 0), 1 << 16, list(leaves))
