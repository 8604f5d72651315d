# SPDX-License-Identifier: Apache-2.0
"""Start the solver node, and RViz when asked.

ros2 launch meanflow_ik_ros solver.launch.py rviz:=true
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

# A checker takes this folder for the package of that name.
from launch import LaunchContext, LaunchDescription  # pyright: ignore[reportAttributeAccessIssue]

CONFIG = Path(get_package_share_directory("meanflow_ik_ros")) / "config"

ARGUMENTS = {
    "robot": ("", "Shipped robot or path of a URDF; empty: as in params_file."),
    "checkpoint": ("", "Trained network, name or path; empty: as in params_file."),
    "params_file": (str(CONFIG / "solver.yaml"), "YAML file with the node's parameters."),
    "autostart": ("", "false: wait for a manager's transitions; empty: as in params_file."),
    "namespace": ("", "Namespace of the node; joint_states is taken from it too."),
    "rviz": ("false", "true: start RViz as well."),
    "log_level": ("info", "debug, info, warn, error or fatal."),
}
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
    topics = ("/meanflow_ik/markers", "/meanflow_ik/goal_pose")
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        name="rviz2",
        arguments=["-d", str(CONFIG / "solver.rviz")],
        remappings=[(topic, prefix + topic) for topic in topics],
        output="screen",
    )
    return [solver, rviz]


def generate_launch_description() -> LaunchDescription:
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in ARGUMENTS.items()
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=start_nodes)])
