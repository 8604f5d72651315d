# SPDX-License-Identifier: Apache-2.0
"""Every parameter of the node: type, default, bounds, help, and whether it may change later."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

from meanflow_ik_core import settings
from meanflow_ik_core.bounds import (
    MOST_OBJECTIVE_TEXT,
    MOST_OBJECTIVES,
    MOST_PATH,
    MOST_TIPS,
    MOST_TOPICS,
    MOST_XML_BYTES,
)
from meanflow_ik_core.errors import ConfigError
from meanflow_ik_core.settings import setting

if TYPE_CHECKING:
    from rclpy.node import Node
    from rclpy.parameter import Parameter

# Parameters that rclpy itself declares or reads on every node.
BUILT_IN = ("use_sim_time", "start_type_description_service")
BUILT_IN_PREFIXES = ("qos_overrides.",)
# Topics of MoveIt, and their types in moveit_msgs/msg.
SCENE_TOPICS = {
    "monitored_planning_scene": "PlanningScene",
    "planning_scene": "PlanningScene",
    "planning_scene_world": "PlanningSceneWorld",
    "collision_object": "CollisionObject",
    "attached_collision_object": "AttachedCollisionObject",
}


@dataclasses.dataclass(frozen=True)
class NodeParameters:
    """One consistent set of values; a request is answered with the set it started with."""

    robot: str = setting(
        "panda",
        "Name of a shipped robot, or path of a robot .yaml, .urdf or .xacro file.",
        longest=MOST_PATH,
        read_only=True,
    )
    robot_description: str = setting(
        "",
        "The text of a URDF, as robot_state_publisher has it, instead of `robot`; `tip_link` and "
        "`base_frame` choose the chain. Empty: none.",
        longest=MOST_XML_BYTES,
        read_only=True,
    )
    robot_description_topic: str = setting(
        "",
        "Topic that has the text of a URDF, such as /robot_description, instead of `robot`. "
        "Empty: none.",
        read_only=True,
    )
    checkpoint: str = setting(
        "",
        "Trained network: a name, or path of a .safetensors file. "
        "Empty: the one shipped for the robot, if any.",
        longest=MOST_PATH,
        read_only=True,
    )
    device: str = setting(
        "cpu", "Torch device of the network: cpu, cuda, cuda:0, ...", read_only=True
    )
    num_threads: int = setting(
        1,
        "Threads of torch, which computes objectives; all else of a request is one thread. More "
        "are faster only where that many cores are idle. 0: what torch chooses.",
        low=0,
        high=1024,
        read_only=True,
    )
    sampler: str = setting(
        "auto",
        "What proposes the starting points of the refinement: meanflow (the network), uniform (at "
        "random), or auto: meanflow where the robot has a network, else uniform.",
        read_only=True,
    )
    num_samples: int = setting(
        128, "Starting points per request, where the request says 0.", low=1, high=1_000_000
    )
    max_num_samples: int = setting(
        20_000,
        "A request for more starting points or more solutions than this is refused.",
        low=1,
        high=1_000_000,
    )
    max_batch_samples: int = setting(
        1_000_000,
        "A batch with more starting points, or more solutions asked for, than this for all its "
        "targets together is refused.",
        low=1,
        high=100_000_000,
    )
    max_batch_targets: int = setting(
        20_000,
        "A batch of more targets, or a path of more waypoints, than this is refused.",
        low=1,
        high=10_000_000,
    )
    max_solutions: int = setting(
        32, "Most solutions per answer, where the request says 0.", low=1, high=1_000_000
    )
    position_tolerance: float = setting(
        1e-5, "Position error up to which a solution is valid [m].", low=1e-9, high=0.1
    )
    orientation_tolerance: float = setting(
        1e-5, "Orientation error up to which a solution is valid [rad].", low=1e-9, high=1.0
    )
    avoid_self_collision: bool = setting(
        False,
        "Whether candidates for ~/goal_pose(s), and joints that follow ~/track_pose(s), must be "
        "free of self-collision.",
    )
    objectives: tuple[str, ...] = setting(
        (),
        "What solutions shall also be good for, where the request says nothing: a name or YAML "
        "each, for example '{name: posture, weight: 2.0}'.",
        longest=MOST_OBJECTIVE_TEXT,
        most=MOST_OBJECTIVES,
    )
    select: str = setting(
        "best",
        "best: lowest cost first. diverse: spread over the solution set.",
        choices=("best", "diverse"),
    )
    error_weight: float = setting(
        1000.0, "Ranking: weight of the error left after refinement.", low=0.0, high=1e9
    )
    distance_weight: float = setting(
        1.0, "Ranking: weight of the distance to the seed state.", low=0.0, high=1e9
    )
    timeout: float = setting(
        0.0,
        "How long a solve may take [s]: it goes on looking while there are fewer solutions than "
        "asked for, and then answers with what it has. 0.0: until a fixed number of starting "
        "points.",
        low=0.0,
        high=60.0,
    )
    time_limit: float = setting(
        10.0,
        "How long one request may hold the solver [s], others not counted that get their turn "
        "between the parts of a batch or path. A single target is then answered with what was "
        "found, a batch or path refused.",
        low=0.1,
        high=3600.0,
    )
    seed: int = setting(
        0,
        "Seed of the random numbers: the same request gets the same answer. "
        "-1 asks for chance: new ones per request.",
        low=-1,
        high=2**31 - 1,
    )
    tip_link: str = setting(
        "",
        "Link that ~/goal_pose, and a request without tip_links, are about: a tip of the robot or "
        "a frame rigidly fixed to it; other tips may then be anywhere. Empty: the robot's own "
        "tips; with several, ~/goal_pose needs one here.",
    )
    free_axes: tuple[str, ...] = setting(
        (),
        'Axes of targets that may be anything, of "x y z rx ry rz", where the request names none: '
        '"rx ry rz" asks for positions only. One text for all tips, or one for each.',
        most=MOST_TIPS,
    )
    base_frame: str = setting(
        "",
        "Link that poses without frame_id and all answers refer to. Empty: the robot's own base.",
        read_only=True,
    )
    tf_timeout: float = setting(
        0.2,
        "How long a request waits for a transform of TF [s].",
        low=0.0,
        high=10.0,
        read_only=True,
    )
    tf_max_age: float = setting(
        10.0,
        "The latest transform of TF is refused once it is older than this [s]. 0.0: it never is.",
        low=0.0,
        high=1e6,
        read_only=True,
    )
    moveit_group: str = setting(
        "",
        "Planning group that ~/solve_ik answers for; others are refused. Empty: any.",
        read_only=True,
    )
    max_joint_step: float = setting(
        0.5,
        "Most that a joint may move from one waypoint of a path to the next [rad or m], where the "
        "request says 0.",
        low=1e-6,
        high=1e3,
    )
    cloud_topics: tuple[str, ...] = setting(
        (),
        "Topics of sensor_msgs/PointCloud2: each is an obstacle with the name of its topic.",
        most=MOST_TOPICS,
        read_only=True,
    )
    cloud_resolution: float = setting(
        0.02, "Edge of the cells that a point of a cloud fills [m].", low=1e-3, high=1.0
    )
    cloud_range: float = setting(
        2.0,
        "Points of clouds that are farther than this from the origin of the base are left out [m].",
        low=0.01,
        high=1000.0,
    )
    cloud_body_margin: float = setting(
        0.03,
        "Points of clouds that are nearer than this to the robot's links, or to what is attached "
        "to them, are taken for the robot itself and left out [m].",
        low=0.0,
        high=1.0,
    )
    cloud_max_age: float = setting(
        1.0,
        "Requests are refused while a cloud is older than this, or has never come [s]. 0.0: the "
        "last one counts, however old, and one that never came is free.",
        low=0.0,
        high=1e6,
    )
    planning_scene_topics: tuple[str, ...] = setting(
        tuple(SCENE_TOPICS),
        "Topics of MoveIt's planning scene, which is part of the world where moveit_msgs is "
        "installed; the last part of a name is one of these. Empty: none.",
        most=MOST_TOPICS,
        read_only=True,
    )
    planning_scene_service: str = setting(
        "get_planning_scene",
        "Service that is asked for all of MoveIt's planning scene, once it is there and the node "
        "active. Empty: none.",
        read_only=True,
    )
    track_publish_period: float = setting(
        0.01,
        "Longest time between two outputs while a target is followed [s]; each target has an "
        "output of its own, however fast they come.",
        low=1e-4,
        high=1.0,
    )
    track_incoming_command_timeout: float = setting(
        0.1,
        "The joints stand once no good target has come for this long; older targets, and "
        "transforms of TF that they need, are refused [s].",
        low=1e-3,
        high=10.0,
    )
    track_joint_states_max_age: float = setting(
        0.5,
        "Nothing is followed from joint_states that are older than this for any joint [s].",
        low=1e-3,
        high=60.0,
    )
    track_velocity_scale: float = setting(
        1.0, "Share of the joints' speed limits for following.", low=1e-3, high=1.0
    )
    track_max_joint_step: float = setting(
        0.1,
        "Most that a joint may move in one step while following [rad or m].",
        low=1e-6,
        high=1.0,
    )
    track_max_distance: float = setting(
        0.3,
        "A target that is farther than this from its link is refused [m].",
        low=1e-3,
        high=100.0,
    )
    track_max_angle: float = setting(
        1.0, "A target that is turned by more than this is refused [rad].", low=1e-3, high=3.2
    )
    track_command_out_topic: str = setting(
        "",
        "Topic of a controller's commands, such as /panda_arm_controller/joint_trajectory; it gets "
        "the joints that follow. Empty: none, ~/tracked_joints alone.",
        read_only=True,
    )
    track_command_out_type: str = setting(
        "trajectory_msgs/JointTrajectory",
        "What the controller takes: trajectory_msgs/JointTrajectory (joint_trajectory_controller), "
        "or std_msgs/Float64MultiArray, positions (forward_command_controller).",
        choices=("trajectory_msgs/JointTrajectory", "std_msgs/Float64MultiArray"),
        read_only=True,
    )
    autostart: bool = setting(
        True,
        "true: the node configures and activates itself. false: it waits for the transitions of a "
        "managed (lifecycle) node.",
        read_only=True,
    )
    qos_depth: int = setting(
        100, "Queue depth of every topic.", low=1, high=100_000, read_only=True
    )
    service_qos_depth: int = setting(
        1000,
        "Requests that can wait for an answer; more at once than this are lost.",
        low=1,
        high=100_000,
        read_only=True,
    )
    diagnostics_period: float = setting(
        1.0,
        "Time between two messages on /diagnostics [s]. 0.0: none.",
        low=0.0,
        high=3600.0,
        read_only=True,
    )
    marker_count: int = setting(
        12, "Most candidates drawn on ~/markers. 0: none.", low=0, high=1000
    )
    marker_opacity: float = setting(0.35, "Opacity of the drawn arms.", low=0.0, high=1.0)
    marker_lifetime: float = setting(
        0.0, "How long ~/markers are shown [s]. 0.0: until the next goal.", low=0.0, high=1e6
    )

    def __post_init__(self) -> None:
        settings.check_settings(self)
        if self.num_samples > self.max_num_samples:
            raise ConfigError(
                f"num_samples {self.num_samples} is above max_num_samples {self.max_num_samples}"
            )
        if self.robot_description and self.robot_description_topic:
            raise ConfigError("robot_description and robot_description_topic exclude each other")
        if self.max_solutions > self.max_num_samples:
            raise ConfigError(
                f"max_solutions {self.max_solutions} is above "
                f"max_num_samples {self.max_num_samples}"
            )

        for topic in self.planning_scene_topics:
            self.planning_scene_kind(topic)

    @staticmethod
    def planning_scene_kind(topic: str) -> str:
        """The type of moveit_msgs/msg that a topic of the planning scene has.

        Raises:
            ConfigError: its name does not end in one that MoveIt has.
        """
        name = topic.rpartition("/")[2]
        if name not in SCENE_TOPICS:
            raise ConfigError(
                f"planning_scene_topics has {topic!r}; a name ends in {', '.join(SCENE_TOPICS)}. "
                "Others are remapped from one of these"
            )
        return SCENE_TOPICS[name]

    def changed(self, values: Mapping[str, Any]) -> NodeParameters:
        """Copy with `values`; parameters of other owners (`use_sim_time`) are passed over.

        Raises:
            ConfigError: a value is out of range, or two values contradict each other.
        """
        mine = {
            name: entries_of(FIELDS[name], value)
            for name, value in values.items()
            if name in FIELDS
        }
        return dataclasses.replace(self, **mine)


FIELDS = {field.name: field for field in dataclasses.fields(NodeParameters)}


def entries_of(field: dataclasses.Field[Any], value: Any) -> Any:
    """A list of ROS as a tuple, for fields that are one; an empty list may come as None."""
    if isinstance(field.default, tuple) and not isinstance(value, str | bool | int | float):
        return tuple(value or ())
    return value


def descriptor(field: dataclasses.Field[Any]) -> ParameterDescriptor:
    """What `ros2 param describe` shows."""
    message = ParameterDescriptor(
        name=field.name,
        description=field.metadata["help"],
        read_only=field.metadata["read_only"],
        # the type of an empty list could not be told
        dynamic_typing=isinstance(field.default, tuple),
    )
    if field.metadata["choices"]:
        message.additional_constraints = "one of " + ", ".join(field.metadata["choices"])
    low, high = field.metadata["low"], field.metadata["high"]
    if low is not None and isinstance(field.default, float):
        message.floating_point_range = [
            FloatingPointRange(from_value=float(low), to_value=float(high))
        ]
    elif low is not None:
        message.integer_range = [IntegerRange(from_value=int(low), to_value=int(high))]
    return message


def check_names(names: Iterable[str]) -> None:
    """Raise ConfigError for a name that no parameter has: rclpy would ignore it without a word."""
    ours = [n for n in names if n not in BUILT_IN and not n.startswith(BUILT_IN_PREFIXES)]
    settings.check_names(ours, FIELDS, "parameter")


def declare_parameters(node: Node) -> NodeParameters:
    """Declare all of them on `node` and return the values from its arguments and files.

    Raises:
        ConfigError: an unknown name, a wrong type, a value out of range.
    """
    from rclpy.exceptions import ParameterException

    check_names(node._parameter_overrides)
    values = {}
    for field in FIELDS.values():
        default: Any = field.default
        try:
            default = list(default) if isinstance(default, tuple) else default
            declared = node.declare_parameter(field.name, default, descriptor(field))
        except ParameterException as error:
            raise ConfigError(f"parameter {field.name}: {error}") from error
        values[field.name] = entries_of(field, declared.value)
    return NodeParameters(**values)


def values_of(parameters: Iterable[Parameter[Any]]) -> dict[str, Any]:
    """Name -> value of rclpy parameters."""
    return {parameter.name: parameter.value for parameter in parameters}
