# SPDX-License-Identifier: Apache-2.0
"""The launch file and what it starts, read as text where no `launch` is installed."""

import ast
import importlib.util
import signal
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pinocchio as pin
import pytest
import yaml
from geometry_msgs.msg import PoseStamped
from meanflow_ik_ros.srv import GetIKSolutions

from meanflow_ik_ros.tools.client import Client

ROOT = Path(__file__).parents[2]
LAUNCH_FILE = ROOT / "launch" / "solver.launch.py"
ARGUMENTS = {
    "robot", "checkpoint", "tip_link", "base_frame", "params_file", "namespace", "rviz",
    "log_level", "autostart", "track_command_out_topic", "track_command_out_type",
}  # fmt: skip


class Recorder:
    """Stands for a class of launch: keeps the arguments of its calls."""

    def __init__(self, *args, **kwargs):
        self.args, self.kwargs = args, kwargs


class LaunchConfiguration(Recorder):
    def perform(self, context: dict) -> str:
        return context[self.args[0]]


@pytest.fixture
def launch_file(monkeypatch):
    """The launch file as a module, with recorders in the place of launch and launch_ros."""
    modules = {
        "ament_index_python.packages": {
            "get_package_share_directory": lambda name: str(ROOT),
            "get_package_prefix": str,
            "PackageNotFoundError": KeyError,
        },
        "launch": {"LaunchContext": Recorder, "LaunchDescription": Recorder},
        "launch.actions": {"DeclareLaunchArgument": Recorder, "OpaqueFunction": Recorder},
        "launch.substitutions": {"LaunchConfiguration": LaunchConfiguration},
        "launch_ros": {},
        "launch_ros.actions": {"Node": Recorder},
        "launch_ros.parameter_descriptions": {"ParameterValue": Recorder},
    }
    for name, content in modules.items():
        module = types.ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    spec = importlib.util.spec_from_file_location("solver_launch", LAUNCH_FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def start(launch_file, **values: str) -> list[Recorder]:
    """The nodes that are started with these arguments."""
    description = launch_file.generate_launch_description().args[0]
    defaults = {action.args[0]: action.kwargs["default_value"] for action in description[:-1]}
    return description[-1].kwargs["function"]({**defaults, **values})


def test_the_file_imports_only_what_ros_provides():
    imported = {
        node.module
        for node in ast.walk(ast.parse(LAUNCH_FILE.read_text()))
        if isinstance(node, ast.ImportFrom) and not node.module.startswith("meanflow_ik_core.")
    }
    assert imported == {
        "pathlib",
        "ament_index_python.packages",
        "launch",
        "launch.actions",
        "launch.substitutions",
        "launch_ros.actions",
        "launch_ros.parameter_descriptions",
    }


def test_every_argument_is_declared_with_a_description(launch_file):
    declared = launch_file.generate_launch_description().args[0][:-1]
    assert {action.args[0] for action in declared} == ARGUMENTS
    for action in declared:
        assert isinstance(action.kwargs["default_value"], str)
        assert len(action.kwargs["description"]) > 15


def test_by_default_the_node_alone_is_started_from_the_installed_file(launch_file):
    (node,) = start(launch_file)
    assert node.kwargs["package"] == "meanflow_ik_ros"
    assert (ROOT / "scripts" / node.kwargs["executable"]).is_file()
    assert node.kwargs["name"] == "meanflow_ik"
    assert node.kwargs["output"] == "screen" and node.kwargs["emulate_tty"] is True
    assert node.kwargs["parameters"] == [str(ROOT / "config" / "solver.yaml")]
    assert node.kwargs["arguments"][-1] == "meanflow_ik:=info"


def test_arguments_reach_the_node(launch_file, tmp_path):
    file = tmp_path / "mine.yaml"
    file.touch()
    (node,) = start(
        launch_file,
        robot="ur5",
        checkpoint="a.safetensors",
        tip_link="tool0",
        base_frame="base_link",
        params_file=str(file),
        namespace="left",
        log_level="debug",
    )
    assert node.kwargs["namespace"] == "left"
    assert node.kwargs["arguments"][-1] == "left.meanflow_ik:=debug"
    first, overrides = node.kwargs["parameters"]
    assert first == str(file)
    assert {name: value.args[0] for name, value in overrides.items()} == {
        "robot": "ur5",
        "checkpoint": "a.safetensors",
        "tip_link": "tool0",
        "base_frame": "base_link",
    }
    # A name such as 1e5 or on.yes must not be read as YAML.
    assert all(value.kwargs["value_type"] is str for value in overrides.values())


@pytest.mark.parametrize(("word", "value"), [("false", "False"), ("0", "False"), ("True", "True")])
def test_a_manager_may_start_the_node(launch_file, word, value):
    (node,) = start(launch_file, autostart=word)
    overrides = node.kwargs["parameters"][1]
    assert overrides["autostart"].args == (value,)
    assert overrides["autostart"].kwargs["value_type"] is bool


@pytest.mark.parametrize("word", ["true", "True", "1"])
@pytest.mark.parametrize(("namespace", "prefix"), [("", ""), ("left", "/left"), ("/a/b", "/a/b")])
def test_rviz_is_started_when_asked_on_the_topics_of_the_node(launch_file, word, namespace, prefix):
    *_, rviz = start(launch_file, rviz=word, namespace=namespace)
    assert rviz.kwargs["package"] == rviz.kwargs["executable"] == "rviz2"
    flag, config, *frame = rviz.kwargs["arguments"]
    assert flag == "-d" and Path(config) == ROOT / "config" / "solver.rviz"
    assert frame == ["--fixed-frame", "panda_link0"]
    remapped = dict(rviz.kwargs["remappings"])
    shown = [
        topic
        for display in displays()
        for kind in ("Topic", "Description Topic")
        if (topic := display.get(kind, {}).get("Value", "")).startswith("/meanflow_ik/")
    ]
    assert sorted(remapped) == sorted(shown)
    assert remapped["/meanflow_ik/markers"] == f"{prefix}/meanflow_ik/markers"


@pytest.mark.parametrize(("namespace", "prefix"), [("", ""), ("left", "/left"), ("/a/b", "/a/b")])
def test_with_rviz_the_robot_stands_at_the_best_candidate_apart_from_the_real_one(
    launch_file, namespace, prefix
):
    _, state, base, _ = start(launch_file, rviz="true", namespace=namespace)
    assert state.kwargs["package"] == state.kwargs["executable"] == "robot_state_publisher"
    assert state.kwargs["namespace"] == base.kwargs["namespace"] == f"{prefix}/meanflow_ik"
    assert dict(state.kwargs["remappings"]) == {"joint_states": "best_candidate"}
    (parameters,) = state.kwargs["parameters"]
    assert '<robot name="panda">' in parameters["robot_description"].args[0]
    assert parameters["frame_prefix"] == "best_candidate/"
    assert base.kwargs["arguments"] == [
        "--frame-id", "panda_link0", "--child-frame-id", "best_candidate/panda_link0",
    ]  # fmt: skip
    shown = next(display for display in displays() if display["Name"] == "Best candidate")
    assert shown["TF Prefix"] + "/" == parameters["frame_prefix"] and shown["Enabled"]
    assert shown["Description Topic"]["Durability Policy"] == "Transient Local"


def test_with_rviz_the_urdf_of_any_robot_is_found(launch_file, tmp_path):
    urdf = tmp_path / "crane.urdf"
    urdf.write_text(
        '<robot name="crane"><link name="hook"/><link name="rail"/><joint name="j" type="fixed">'
        '<parent link="rail"/><child link="hook"/></joint></robot>'
    )
    described = tmp_path / "crane.yaml"
    described.write_text("urdf: crane.urdf\n")
    file = tmp_path / "mine.yaml"
    file.write_text(f"/**:\n  ros__parameters:\n    robot: {described}\n")
    for values in ({"robot": str(urdf)}, {"params_file": str(file)}):
        _, state, base, _ = start(launch_file, rviz="true", **values)
        (parameters,) = state.kwargs["parameters"]
        assert parameters["robot_description"].args[0] == urdf.read_text()
        assert base.kwargs["arguments"][1::2] == ["rail", "best_candidate/rail"]


def test_with_rviz_robots_of_several_arms_stand_in_their_base(launch_file, tmp_path):
    _, state, base, rviz = start(launch_file, robot="dual_panda", rviz="true")
    (parameters,) = state.kwargs["parameters"]
    for side in ("left", "right"):
        assert f'"{side}_panda_link8"' in parameters["robot_description"].args[0]
    assert base.kwargs["arguments"][1::2] == ["base", "best_candidate/base"]
    assert rviz.kwargs["arguments"][-2:] == ["--fixed-frame", "base"]
    torso = tmp_path / "torso.yaml"
    urdf = ROOT / "test" / "robots" / "torso_two_arms.urdf"
    torso.write_text(f"urdf: {urdf}\nbase: pedestal\ntips: [left_tool, right_hand]\n")
    *_, rviz = start(launch_file, robot=str(torso), rviz="true", base_frame="world")
    assert rviz.kwargs["arguments"][-1] == "world"
    _, _, base, rviz = start(launch_file, robot=str(torso), rviz="true")
    assert rviz.kwargs["arguments"][-1] == "pedestal"
    arguments = base.kwargs["arguments"]
    assert arguments[:4] == ["--frame-id", "pedestal", "--child-frame-id", "best_candidate/world"]
    placed = dict(zip(arguments[4::2], map(float, arguments[5::2]), strict=True))
    model = pin.buildModelFromUrdf(str(urdf))
    pedestal = model.frames[model.getFrameId("pedestal")].placement.inverse()
    found = [placed[f"--{name}"] for name in ("x", "y", "z", "qx", "qy", "qz", "qw")]
    expected = pin.SE3ToXYZQUAT(pedestal)
    np.testing.assert_allclose(found[:3], expected[:3], atol=1e-9)
    assert abs(abs(np.dot(found[3:], expected[3:])) - 1) < 1e-9


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"rviz": "perhaps"}, "rviz:=perhaps"),
        ({"autostart": "perhaps"}, "autostart:=perhaps"),
        ({"params_file": "/no/such.yaml"}, "/no/such.yaml"),
    ],
)
def test_bad_arguments_are_refused(launch_file, values, words):
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        start(launch_file, **values)


def test_rviz_without_what_it_needs_starts_nothing(launch_file, monkeypatch):
    def prefix(package):
        if package == "robot_state_publisher":
            raise launch_file.PackageNotFoundError(package)
        return "/opt"

    monkeypatch.setattr(launch_file, "get_package_prefix", prefix)
    with pytest.raises(RuntimeError, match="rviz:=true needs robot_state_publisher"):
        start(launch_file, rviz="true")
    assert len(start(launch_file)) == 1


def command_of(node: Recorder) -> list[str]:
    """The command that launch_ros makes of a node, of programs of this source tree."""
    said = node.kwargs
    command = [sys.executable, str(ROOT / "scripts" / said["executable"]), *said["arguments"]]
    command += ["--ros-args", "-r", f"__node:={said['name']}"]
    if said["namespace"]:
        command += ["-r", f"__ns:=/{said['namespace']}"]
    for parameters in said["parameters"]:
        if isinstance(parameters, str):
            command += ["--params-file", parameters]
        else:
            for name, value in parameters.items():
                command += ["-p", f"{name}:={value.args[0]}"]
    return command


def test_the_node_that_the_launch_file_describes_answers_and_ends_with_code_0(launch_file, ros):
    """Where no launch_ros is installed, a stand-in starts the command that it would make."""
    (node,) = start(launch_file, namespace="launched", robot="dual_panda")
    process = subprocess.Popen(command_of(node))
    try:
        client = Client("/launched/meanflow_ik", 60.0)
        try:
            pose = PoseStamped()
            pose.header.frame_id, pose.pose.position.x = "base", 3.0
            request = GetIKSolutions.Request(targets=[pose], tip_links=["left_panda_link8"])
            response = client.ask(request)
        finally:
            client.close()
        assert response.error_code == GetIKSolutions.Response.NO_IK_SOLUTION
        assert "left_panda_link8 is" in response.message
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0


def test_launch_starts_the_file_where_it_is_installed(ros):
    pytest.importorskip("launch_ros", reason="launch_ros is not installed: only the stand-in ran")
    launched = subprocess.run(
        ["ros2", "launch", str(LAUNCH_FILE), "--show-args"], capture_output=True, text=True
    )
    assert launched.returncode == 0, launched.stderr
    assert all(f"'{name}'" in launched.stdout for name in ARGUMENTS)


def displays() -> list[dict]:
    config = yaml.safe_load((ROOT / "config" / "solver.rviz").read_text())
    return config["Visualization Manager"]["Displays"]


def test_rviz_shows_the_candidates_of_the_node():
    config = yaml.safe_load((ROOT / "config" / "solver.rviz").read_text())
    manager = config["Visualization Manager"]
    assert manager["Global Options"]["Fixed Frame"] == "panda_link0"
    by_class = {display["Class"].rsplit("/", 1)[-1]: display for display in displays()}
    assert set(by_class) == {"Grid", "TF", "RobotModel", "MarkerArray", "Pose"}
    topic = by_class["MarkerArray"]["Topic"]
    assert topic["Value"] == "/meanflow_ik/markers"
    assert topic["Durability Policy"] == "Transient Local"
    assert by_class["Pose"]["Topic"]["Value"] == "/meanflow_ik/goal_pose"
