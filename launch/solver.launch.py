# SPDX-License-Identifier: Apache-2.0
"""Start the solver node, and RViz with the robot at the best candidate when asked.

ros2 launch meanflow_ik_ros solver.launch.py rviz:=true
"""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import yaml
from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

import meanflow_ik_core

# A checker takes this folder for the package of that name.
from launch import LaunchContext, LaunchDescription  # pyright: ignore[reportAttributeAccessIssue]

CONFIG = Path(get_package_share_directory("meanflow_ik_ros")) / "config"

ARGUMENTS = {
    "robot": ("", "Shipped robot or path of a URDF; empty: as in params_file."),
    "checkpoint": ("", "Trained network, name or path; empty: as in params_file."),
    "params_file": (str(CONFIG / "solver.yaml"), "YAML file with the node's parameters."),
    "autostart": ("", "false: wait for a manager's transitions; empty: as in params_file."),
    "namespace": ("", "Namespace of the node; joint_states is taken from it too."),
    "rviz": ("false", "true: start RViz as well, with the robot at the best candidate."),
    "log_level": ("info", "debug, info, warn, error or fatal."),
}
# The frames of the robot that stands at the best candidate; those of the real one have no prefix.
PREFIX = "best_candidate/"
TRUE, FALSE = ("true", "1", "yes"), ("false", "0", "no")


def start_nodes(context: LaunchContext) -> list[Node]:
    """The nodes, once the arguments have values."""
    value = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    for name in ("rviz", "autostart"):
        if value[name] and value[name].lower() not in TRUE + FALSE:
            raise ValueError(f"{name}:={value[name]}, expected true or false")
    if not Path(value["params_file"]).is_file():
        raise FileNotFoundError(f"params_file:={value['params_file']} does not exist")
    overrides = {
        name: ParameterValue(value[name], value_type=str)
        for name in ("robot", "checkpoint")
        if value[name]
    }
    if value["autostart"]:
        started = str(value["autostart"].lower() in TRUE)
        overrides["autostart"] = ParameterValue(started, value_type=bool)
    namespace = value["namespace"].strip("/")
    logger = ".".join([*filter(None, namespace.split("/")), "meanflow_ik"])
    solver = Node(
        package="meanflow_ik_ros",
        executable="solver_node",
        name="meanflow_ik",
        namespace=value["namespace"],
        parameters=[value["params_file"], *([overrides] if overrides else [])],
        arguments=["--ros-args", "--log-level", f"{logger}:={value['log_level']}"],
        output="screen",
        emulate_tty=True,
    )
    if value["rviz"].lower() not in TRUE:
        return [solver]
    prefix = f"/{namespace}" if namespace else ""
    description = urdf_of(value["robot"] or robot_of(value["params_file"])).read_text()
    root = root_link(description)
    state_publisher = Node(
        package="robot_state_publisher",
        executable="robot_state_publisher",
        name="best_candidate_state_publisher",
        namespace=f"{prefix}/meanflow_ik",
        parameters=[
            {
                "robot_description": ParameterValue(description, value_type=str),
                "frame_prefix": PREFIX,
                # A goal may carry an old stamp, or none.
                "ignore_timestamp": True,
            }
        ],
        remappings=[("joint_states", "best_candidate")],
        output="screen",
    )
    beside = Node(
        package="tf2_ros",
        executable="static_transform_publisher",
        name="best_candidate_base",
        namespace=f"{prefix}/meanflow_ik",
        arguments=["--frame-id", root, "--child-frame-id", PREFIX + root],
        output="screen",
    )
    topics = ("markers", "goal_pose", "robot_description")
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        name="rviz2",
        arguments=["-d", str(CONFIG / "solver.rviz"), "--fixed-frame", root],
        remappings=[(f"/meanflow_ik/{topic}", f"{prefix}/meanflow_ik/{topic}") for topic in topics],
        output="screen",
    )
    return [solver, state_publisher, beside, rviz]


def robot_of(params_file: str) -> str:
    """The parameter `robot` of a file, the node's default where it has none."""
    nodes = (yaml.safe_load(Path(params_file).read_text()) or {}).values()
    values = [node.get("ros__parameters", {}).get("robot") for node in nodes]
    return next(filter(None, values), "panda")


def urdf_of(robot: str) -> Path:
    """The URDF of a shipped robot, of a robot YAML file, or the file itself."""
    path = Path(robot)
    if not path.suffix:
        path = Path(meanflow_ik_core.__file__).parent / "robots" / f"{robot}.yaml"
    if path.suffix in (".yaml", ".yml"):
        path = path.parent / yaml.safe_load(path.read_text())["urdf"]
    return path


def root_link(description: str) -> str:
    """The link of a URDF that is no joint's child."""
    robot = ElementTree.fromstring(description)
    children = {child.get("link") for child in robot.iterfind("joint/child")}
    return next(
        name for link in robot.iterfind("link") if (name := link.get("name")) not in children
    )


def generate_launch_description() -> LaunchDescription:
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in ARGUMENTS.items()
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=start_nodes)])
