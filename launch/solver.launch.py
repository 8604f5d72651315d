# SPDX-License-Identifier: Apache-2.0
"""Start the solver node, and RViz with the robot at the best candidate when asked.

ros2 launch meanflow_ik_ros solver.launch.py rviz:=true
"""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

from ament_index_python.packages import (
    PackageNotFoundError,
    get_package_prefix,
    get_package_share_directory,
)
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

# A checker takes this folder for the package of that name.
from launch import LaunchContext, LaunchDescription  # pyright: ignore[reportAttributeAccessIssue]

CONFIG = Path(get_package_share_directory("meanflow_ik_ros")) / "config"

ARGUMENTS = {
    "robot": ("", "Shipped robot, path of a YAML or URDF file; empty: as in params_file."),
    "checkpoint": ("", "Trained network, name or path; empty: as in params_file."),
    "tip_link": ("", "Tip of a URDF, or link that goals are for; empty: as in params_file."),
    "base_frame": ("", "Link that poses refer to; empty: as in params_file."),
    "track_command_out_topic": ("", "A controller's topic for tracking; empty: as in params_file."),
    "track_command_out_type": (
        "",
        "trajectory_msgs/JointTrajectory or std_msgs/Float64MultiArray; empty: as in params_file.",
    ),
    "params_file": (str(CONFIG / "solver.yaml"), "YAML file with the node's parameters."),
    "autostart": ("", "false: wait for a manager's transitions; empty: as in params_file."),
    "namespace": ("", "Namespace of the node; joint_states is taken from it too."),
    "rviz": ("false", "true: start RViz as well, with the robot at the best candidate."),
    "log_level": ("info", "debug, info, warn, error or fatal."),
}
# Arguments that are parameters of the node.
TEXTS = (
    "robot", "checkpoint", "tip_link", "base_frame", "track_command_out_topic",
    "track_command_out_type",
)  # fmt: skip
# The frames of the robot that stands at the best candidate; those of the real one have no prefix.
PREFIX = "best_candidate/"
# What is started beside the solver for RViz.
BESIDE = ("robot_state_publisher", "tf2_ros", "rviz2")
TRUE, FALSE = ("true", "1", "yes"), ("false", "0", "no")


def start_nodes(context: LaunchContext) -> list[Node]:
    """The nodes, once the arguments have values."""
    value = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    for name in ("rviz", "autostart"):
        if value[name] and value[name].lower() not in TRUE + FALSE:
            raise ValueError(f"{name}:={value[name]}, expected true or false")
    if not Path(value["params_file"]).is_file():
        raise FileNotFoundError(f"params_file:={value['params_file']} does not exist")
    overrides = {name: ParameterValue(value[name], value_type=str) for name in TEXTS if value[name]}
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
    # Before anything starts: launch would leave the solver running alone.
    if missing := [name for name in BESIDE if not installed(name)]:
        raise RuntimeError(f"rviz:=true needs {', '.join(missing)}: install it, or leave rviz out")
    prefix = f"/{namespace}" if namespace else ""
    robot = value["robot"] or robot_of(value["params_file"])
    description = described(urdf_of(robot))
    root = root_link(description)
    wanted = value["base_frame"] or value_of("base_frame", value["params_file"])
    base, placed = base_of(robot, wanted, root)
    state_publisher = Node(
        package="robot_state_publisher",
        executable="robot_state_publisher",
        name="best_candidate_state_publisher",
        namespace=f"{prefix}/meanflow_ik",
        parameters=[
            {
                "robot_description": ParameterValue(description, value_type=str),
                "frame_prefix": PREFIX,
                # The joint states carry the stamp of a goal, which may be old or zero.
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
        arguments=["--frame-id", base, "--child-frame-id", PREFIX + root, *placed],
        output="screen",
    )
    topics = ("markers", "goal_pose", "robot_description")
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        name="rviz2",
        arguments=["-d", str(CONFIG / "solver.rviz"), "--fixed-frame", base],
        remappings=[(f"/meanflow_ik/{topic}", f"{prefix}/meanflow_ik/{topic}") for topic in topics],
        output="screen",
    )
    return [solver, state_publisher, beside, rviz]


def installed(package: str) -> bool:
    """Whether a ROS package is there to start programs of."""
    try:
        get_package_prefix(package)
    except PackageNotFoundError:
        return False
    return True


def value_of(name: str, params_file: str) -> str | None:
    """The value of a parameter in a file; None where the file has none."""
    from meanflow_ik_core.errors import ConfigError
    from meanflow_ik_core.plain_yaml import plain_from_file

    nodes = (plain_from_file(Path(params_file), ConfigError) or {}).values()
    values = [node.get("ros__parameters", {}).get(name) for node in nodes]
    return next(filter(None, values), None)


def robot_of(params_file: str) -> str:
    """The parameter `robot` of a file, the node's default where it has none."""
    return value_of("robot", params_file) or "panda"


def urdf_of(robot: str) -> Path:
    """The URDF of a shipped robot, of a robot YAML file, or the file itself."""
    from meanflow_ik_core.robot.robot_file import find_robot_file

    return find_robot_file(robot).urdf_path


def described(urdf: Path) -> str:
    """The text of a URDF, in which viewers find the meshes of packages that are no ROS packages."""
    text = urdf.read_text()
    if "package://" not in text:
        return text
    from meanflow_ik_core.robot.composition import portable_urdf

    return portable_urdf(urdf)


def base_of(robot: str, wanted: str | None, root: str) -> tuple[str, list[str]]:
    """The link that the markers refer to, by default the robot's own base, and where the root
    link stands in it."""
    from meanflow_ik_core.errors import LinkError
    from meanflow_ik_core.geometry import quat_xyzw_from_matrix
    from meanflow_ik_core.robot.robot import load_robot
    from meanflow_ik_core.robot.robot_file import find_robot_file

    base = wanted or find_robot_file(robot).base or root
    if base == root:
        return base, []
    try:
        T_base_root = load_robot(robot, base=base).base_offset(root)
    except LinkError:  # The base moves; the transforms of the real robot say where it is.
        return root, []
    xyz = T_base_root[:3, 3].tolist()
    xyzw = quat_xyzw_from_matrix(T_base_root[:3, :3]).tolist()
    names = ("--x", "--y", "--z", "--qx", "--qy", "--qz", "--qw")
    return base, [
        text for name, number in zip(names, xyz + xyzw, strict=True) for text in (name, str(number))
    ]


def root_link(description: str) -> str:
    """The link of a URDF that is no joint's child."""
    robot = ElementTree.fromstring(description)
    children = {child.get("link") for child in robot.iterfind("joint/child")}
    names = [link.get("name", "") for link in robot.iterfind("link")]
    return next(name for name in names if name not in children)


def generate_launch_description() -> LaunchDescription:
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in ARGUMENTS.items()
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=start_nodes)])
