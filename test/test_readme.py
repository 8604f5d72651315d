# SPDX-License-Identifier: Apache-2.0
"""Every command and every line of Python in the README, CONTRIBUTING and the first pages runs.

The Python of other pages runs too. Their commands, of which some take minutes, are parsed.
"""

import importlib
import itertools
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
import typer
import yaml
from oracles import Judge
from rclpy.executors import SingleThreadedExecutor

import meanflow_ik_core as mik
from meanflow_ik_core.bench.report import TABLES, with_tables
from meanflow_ik_core.commands.app import app, main

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "CONTRIBUTING.md", "docs/howto.md", *(
    path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs" / "start").glob("*.md"))
))  # fmt: skip
TEXTS = {name: (ROOT / name).read_text() for name in PAGES}
# What stands for the reader's own robot.
MY_ROBOT = {
    "my_robot.urdf": str(Path(__file__).parent / "robots" / "torso_two_arms.urdf"),
    "base_link": "world",
    "tool0": "left_tool",
    "0.8": "1.6",  # within its reach
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


def test_the_readme_is_short():
    assert len(TEXTS["README.md"].split()) <= 1000


def run_blocks(page: str) -> dict[str, Any]:
    """The names that the Python of a page leaves."""
    names: dict[str, Any] = {}
    for block in blocks((ROOT / page).read_text(), "python"):
        exec(block, names)
    return names


def test_the_python_of_the_readme_runs():
    names = run_blocks("README.md")
    judge = Judge(names["solver"].robot)
    for result in (names["result"], names["spread"]):
        assert result.valid.all()
        assert all(judge.accepts(q, names["T_base_tip"]) for q in result.joint_positions[0])


def test_the_python_of_the_first_page_runs(capsys):
    names = run_blocks("docs/start/python.md")
    assert names["result"].valid.all() and names["spread"].valid.all()
    assert names["raw"].shape == (1, 1000, 7)
    panda, target = Judge(names["robot"]), names["T_base_tip"]
    for name in ("result", "free", "good"):
        result = names[name]
        assert result.valid[0].any()
        rows = result.joint_positions[0][result.valid[0]]
        assert all(panda.accepts(q, target) for q in rows)
    arms, targets = Judge(names["arms"]), names["T_base_tips"]
    assert names["both"].valid[0].all()
    assert all(arms.accepts(q, targets) for q in names["both"].joint_positions[0])
    for name in ("left", "turned"):
        result = names[name]
        reached = names["arms"].forward(result.joint_positions[0][result.valid[0]])
        assert len(reached) and np.allclose(reached[:, 0, :3, 3], targets[0, :3, 3], atol=1e-4)
    path = names["path"]
    assert path.valid and all(
        panda.accepts(q, pose[None])
        for q, pose in zip(path.joint_positions, names["waypoints"], strict=True)
    )
    assert names["step"].status is mik.TrackStatus.REACHED


@pytest.mark.parametrize("page", ["world", "objectives"])
def test_the_python_of_a_subject_runs(page, capsys):
    names = run_blocks(f"docs/{page}.md")
    result, judge = names["result"], Judge(names["solver"].robot)
    assert result.valid[0].any()
    assert all(
        judge.accepts(q, names["target"][0]) for q in result.joint_positions[0][result.valid[0]]
    )


def test_the_python_of_tracking_stops_at_the_table(capsys):
    step = run_blocks("docs/tracking.md")["step"]
    assert step.blocked_by is mik.BlockedBy.WORLD
    assert {touch.other for touch in step.touches} == {"table"}
    assert "table" in capsys.readouterr().out


@pytest.mark.parametrize("path", sorted((ROOT / "docs").rglob("*.md")), ids=lambda path: path.stem)
def test_commands_have_the_options_that_pages_name(path):
    program = typer.main.get_command(app)
    for line in path.read_text().replace("\\\n", " ").splitlines():
        if line.lstrip().startswith("meanflow-ik "):
            command, *options = shlex.split(line, comments=True)[1:]
            if command != "--help":
                program.commands[command].make_context(command, options)


def test_every_how_to_finds_what_it_says(capsys):
    names: dict[str, Any] = {}
    first, *others = blocks(TEXTS["docs/howto.md"], "python")
    exec(first, names)
    for block in others:
        for word, own in MY_ROBOT.items():
            block = block.replace(f'"{word}"', repr(own))
        before = names.get("result")
        exec(block, names)
        if "far = " in block:
            assert "beyond" in names["result"].explain(0).lower()
            assert names["result"].status[0] == mik.Status.BEYOND_REACH
        elif names["result"] is not before:
            assert names["result"].valid.any(-1).all(), block
    assert names["best"].shape == (7,) and names["own"].robot.tips == ("left_tool",)


@pytest.mark.parametrize("words", commands("meanflow-ik"), ids=" ".join)
def test_shell_commands_run(words, tmp_path, monkeypatch, capsys):
    arguments = [MY_ROBOT.get(word, word) for word in words[1:]]
    arguments = [str(ROOT / word) if word.startswith("docs/") else word for word in arguments]
    if "--checkpoint" in arguments:
        place = arguments.index("--checkpoint") + 1
        run = ["train", "--out", "runs/my_robot", *arguments[1:7]]
        run_here(run, tmp_path, monkeypatch)
        (trained,) = (tmp_path / "runs/my_robot").glob("*.safetensors")
        arguments[place] = str(trained)
    if arguments[0] == "evaluate":
        few = {"--poses": "3", "--detail-poses": "1", "--samples": "4"}
        for option in [name for name in few if name in arguments]:
            arguments[arguments.index(option) + 1] = few[option]
        if "--checkpoint" in arguments:
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
    assert named >= {*TABLES, "all", "summary", "ros"}


@pytest.mark.parametrize("words", commands("make"), ids=" ".join)
def test_make_targets_exist(words):
    done = subprocess.run(
        ["make", "--dry-run", *words[1:]], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_launch_command_names_the_launch_file_and_its_arguments():
    (words,) = [words for words in commands("ros2") if words[1] == "launch"]
    text = TEXTS["docs/start/ros2.md"]
    assert words[2] == "meanflow_ik_ros"
    path = ROOT / "launch" / words[3]
    compile(path.read_text(), str(path), "exec")
    declared = set(re.findall(r"^    \"(\w+)\": \(", path.read_text(), re.MULTILINE))
    sentence = text.split("`solver.launch.py` takes")[1].split(";")[0]
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


def test_service_call_of_the_pages_is_answered(node):
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
def test_send_goal_of_the_pages_is_solved(node, words):
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


def test_topics_of_the_pages_are_the_node_s(node):
    (words,) = [words for words in commands("ros2") if words[1:3] == ["topic", "pub"]]
    topic, kind, goal = words[-3:]
    subscribed = {item.topic_name: kind_of(item.msg_type) for item in node.subscriptions}
    assert subscribed[topic] == kind
    fill(message_type(kind)(), yaml.safe_load(goal))
    (words,) = [words for words in commands("ros2") if words[1:3] == ["topic", "echo"]]
    published = {item.topic_name: kind_of(item.msg_type) for item in node.publishers}
    assert words[3] in published
    page = (ROOT / "docs" / "ros.md").read_text().split("## Topics")[1]
    listed = re.findall(r"^\| `~/(\w+)` \| `([\w/]+)`", page, re.MULTILINE)
    assert listed
    for name, kind in listed:
        package, message = kind.split("/")[0], kind.split("/")[-1]
        assert published[f"/meanflow_ik/{name}"] == f"{package}/msg/{message}"


def test_programs_are_remapped_to_a_service_of_the_node_and_parameters_exist(node):
    from meanflow_ik_ros.services.moveit import NAME

    found = [words for words in commands("ros2") if "--ros-args" in words]
    options = [pair for words in found for pair in itertools.pairwise(words)]
    remapped = {value.partition(":=")[2] for option, value in options if option == "-r"}
    assert remapped == {node.resolve_service_name(NAME)}
    named = {value.partition(":=")[0] for option, value in options if option == "-p"}
    assert named and all(node.has_parameter(name) for name in named)


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
