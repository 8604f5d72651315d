# SPDX-License-Identifier: Apache-2.0
"""Every command and every line of Python in the README and CONTRIBUTING runs."""

import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
import yaml
from oracles import Judge
from rclpy.executors import SingleThreadedExecutor

from meanflow_ik_core.bench.report import TABLES, with_tables
from meanflow_ik_core.commands.app import main

ROOT = Path(__file__).parents[1]
TEXTS = {name: (ROOT / name).read_text() for name in ("README.md", "CONTRIBUTING.md")}
# What stands for the reader's own robot.
MY_ROBOT = {
    "my_robot.urdf": str(Path(__file__).parent / "robots" / "torso_two_arms.urdf"),
    "base_link": "world",
    "tool0": "left_tool",
}
TINY_RUN = (
    "iterations=2", "hidden_dim=8", "depth=1", "batch_size=8", "validation_poses=2",
    "warmup_steps=1", "compile=false",
)  # fmt: skip
TINY_BENCH = {"kinematics": "configurations=20"}


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(program: str) -> list[list[str]]:
    """Commands of all texts that start with a program, without comments."""
    found = []
    for text in TEXTS.values():
        for line in "\n".join(blocks(text, "bash")).splitlines():
            words = shlex.split(line, comments=True)
            if words and words[0] == program and words not in found:
                found.append(words)
    return found


def test_no_command_is_left_untested():
    programs = {
        words[0]
        for text in TEXTS.values()
        for line in "\n".join(blocks(text, "bash")).splitlines()
        if (words := shlex.split(line, comments=True))
    }
    assert programs <= {"make", "pip", "meanflow-ik", "meanflow-ik-send-goal", "colcon", "ros2"}


def test_the_python_of_the_readme_runs(capsys):
    names: dict[str, Any] = {}
    for block in blocks(TEXTS["README.md"], "python"):
        exec(block, names)
    assert names["result"].valid.all() and names["spread"].valid.all()
    assert names["raw"].shape == (1, 1000, 7)
    q = names["result"].joint_positions[0, 0]
    assert Judge(names["robot"]).accepts(q, names["T_base_tip"])
    arms, targets = Judge(names["arms"]), names["T_base_tips"]
    for name in ("both", "good"):
        assert names[name].valid[0].all()
        assert all(arms.accepts(q, targets) for q in names[name].joint_positions[0])
    for name in ("left", "turned"):
        result = names[name]
        reached = names["arms"].forward(result.joint_positions[0][result.valid[0]])
        assert len(reached) and np.allclose(reached[:, 0, :3, 3], targets[0, :3, 3], atol=1e-4)


@pytest.mark.parametrize("words", commands("meanflow-ik"), ids=" ".join)
def test_shell_commands_run(words, tmp_path, monkeypatch, capsys):
    arguments = [MY_ROBOT.get(word, word) for word in words[1:]]
    arguments = [str(ROOT / word) if word.startswith("docs/") else word for word in arguments]
    if arguments[0] == "train":
        arguments = [str(ROOT / word) if word.startswith("config/") else word for word in arguments]
    elif arguments[0] == "evaluate" and "--detail-poses" in arguments:
        for option, few in (("--poses", "3"), ("--detail-poses", "1")):
            arguments[arguments.index(option) + 1] = few
    elif arguments[0] == "evaluate" and "--checkpoint" in arguments:
        run_here(["train", "--out", "runs/my_robot", *arguments[1:7]], tmp_path, monkeypatch)
        trained = next((tmp_path / "runs/my_robot").glob("*.safetensors"))
        arguments[arguments.index("--checkpoint") + 1] = str(trained)
        arguments += ["--poses", "3", "--samples", "4"]
    elif arguments[0] == "bench" and arguments[1] in TINY_BENCH:
        arguments += ["--set", TINY_BENCH[arguments[1]]]
    assert run_here(arguments, tmp_path, monkeypatch) == 0, capsys.readouterr().err


def run_here(arguments: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Exit code of the command line with these arguments in a folder."""
    if arguments[0] == "train":
        arguments = arguments + [part for item in TINY_RUN for part in ("--set", item)]
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["meanflow-ik", *arguments])
    with pytest.raises(SystemExit) as exit_info:
        main()
    return int(exit_info.value.code or 0)


MARKED = [path for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
          if "<!-- bench " in path.read_text()]  # fmt: skip


@pytest.mark.parametrize("path", MARKED, ids=lambda path: path.name)
def test_numbers_are_those_of_the_records(path):
    text = path.read_text()
    assert text.count("<!-- bench ") == text.count("<!-- end -->")
    assert with_tables(text, ROOT) == text, "make tables"


def test_every_table_is_in_the_documentation():
    named = {name for path in MARKED for name in re.findall("<!-- bench (\\S+)", path.read_text())}
    assert named >= {*TABLES, "all", "summary", "ros"} - {"readme"}


@pytest.mark.parametrize("words", commands("make"), ids=" ".join)
def test_make_targets_exist(words):
    done = subprocess.run(
        ["make", "--dry-run", *words[1:]], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_launch_command_names_the_launch_file_and_its_arguments():
    (words,) = [words for words in commands("ros2") if words[1] == "launch"]
    assert words[2] == "meanflow_ik_ros"
    path = ROOT / "launch" / words[3]
    compile(path.read_text(), str(path), "exec")
    declared = set(re.findall(r"^    \"(\w+)\": \(", path.read_text(), re.MULTILINE))
    sentence = TEXTS["README.md"].split("`solver.launch.py` takes")[1].split(";")[0]
    named = set(re.findall(r"`(\w+)`", sentence))
    assert declared == named


@pytest.fixture(scope="module")
def node():
    from meanflow_ik_ros.node import MeanFlowIKNode

    rclpy.init(args=["--ros-args", "-p", "sampler:=uniform"])
    node = MeanFlowIKNode()
    yield node
    node.destroy_node()
    rclpy.try_shutdown()


def message_type(name: str) -> Any:
    package, kind, message = name.split("/")
    return getattr(importlib.import_module(f"{package}.{kind}"), message)


def fill(message: Any, values: dict[str, Any]) -> Any:
    """Set fields as the ros2 command line does from its YAML argument."""
    types = message.get_fields_and_field_types()
    for name, value in values.items():
        assert name in types, f"{type(message).__name__} has no field {name}"
        if isinstance(value, dict):
            fill(getattr(message, name), value)
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            package, element = re.fullmatch(r"sequence<(\w+)/(\w+)>", types[name]).groups()
            kind = message_type(f"{package}/msg/{element}")
            setattr(message, name, [fill(kind(), item) for item in value])
        else:
            setattr(message, name, value)
    return message


def kind_of(message: type) -> str:
    """As `ros2` writes it: meanflow_ik_ros/srv/GetIKSolutions."""
    package, kind = message.__module__.split(".")[:2]
    return f"{package}/{kind}/{message.__name__}"


def test_service_call_of_the_readme_is_answered(node):
    (words,) = [words for words in commands("ros2") if words[1:3] == ["service", "call"]]
    name, kind, request = words[3:]
    served = {service.service_name: kind_of(service.srv_type) for service in node.services}
    assert served[name] == kind
    service = message_type(kind)
    from meanflow_ik_ros.services import solutions

    response = solutions.answer(
        node.desk, fill(service.Request(), yaml.safe_load(request)), service.Response()
    )
    assert response.error_code == service.Response.SUCCESS and len(response.solutions) == 4


def sent_goals() -> list[list[str]]:
    with_ros = [words[4:] for words in commands("ros2") if words[1:4:2] == ["run", "send_goal"]]
    return with_ros + [words[1:] for words in commands("meanflow-ik-send-goal")]


@pytest.mark.parametrize("words", sent_goals(), ids=" ".join)
def test_send_goal_of_the_readme_is_solved(node, words):
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "scripts" / "send_goal"), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    while process.poll() is None:
        executor.spin_once(0.05)
    executor.remove_node(node)
    printed, _ = process.communicate()
    assert process.returncode == 0, printed
    assert "rank" in printed


def test_topics_of_the_readme_are_the_node_s(node):
    (words,) = [words for words in commands("ros2") if words[1:3] == ["topic", "pub"]]
    topic, kind, goal = words[-3:]
    subscribed = {item.topic_name: kind_of(item.msg_type) for item in node.subscriptions}
    assert subscribed[topic] == kind
    fill(message_type(kind)(), yaml.safe_load(goal))
    (words,) = [words for words in commands("ros2") if words[1:3] == ["topic", "echo"]]
    published = {item.topic_name: kind_of(item.msg_type) for item in node.publishers}
    assert words[3] in published
    listed = re.findall(r"publisher `~/(\w+)` \| `([\w/]+)`", TEXTS["README.md"])
    assert listed
    for name, kind in listed:
        package, message = kind.split("/")[0], kind.split("/")[-1]
        assert published[f"/meanflow_ik/{name}"] == f"{package}/msg/{message}"


def test_colcon_builds_the_workspace(tmp_path):
    (words,) = commands("colcon")
    colcon = Path(sys.prefix) / "bin" / "colcon"
    assert colcon.exists(), "the extra `build` is not installed"
    done = subprocess.run(
        [str(colcon), "--log-base", str(tmp_path / "log"), *words[1:], "--base-paths", str(ROOT),
         "--build-base", str(tmp_path / "build"), "--install-base", str(tmp_path / "install")],
        cwd=tmp_path, capture_output=True, text=True, env=colcon_environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    share = tmp_path / "install" / "meanflow_ik_ros" / "share" / "meanflow_ik_ros"
    assert (share / "launch" / "solver.launch.py").is_file()
    program = share.parents[1] / "lib" / "meanflow_ik_ros" / "solver_node"
    assert program.stat().st_mode & 0o100


def colcon_environment() -> dict[str, str]:
    path = f"{Path(sys.prefix) / 'bin'}{os.pathsep}{os.environ['PATH']}"
    prefixes = {"CMAKE_PREFIX_PATH": sys.prefix, "AMENT_PREFIX_PATH": sys.prefix}
    return {**os.environ, "PATH": path, **prefixes}
