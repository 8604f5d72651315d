# SPDX-License-Identifier: Apache-2.0
"""The node and its tools as console scripts."""

import re
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = dict(
    re.findall(r'^(meanflow-ik[\w-]*) = "([\w.:]+)"$', (ROOT / "pyproject.toml").read_text(), re.M)
)
TOOLS = sorted(set(SCRIPTS) - {"meanflow-ik"})


def run(name: str, *arguments: str, before: str = "pass") -> subprocess.CompletedProcess:
    """A script as pip makes it, which imports a function and calls it."""
    module, function = SCRIPTS[name].split(":")
    text = f"import sys; sys.argv[0] = {name!r}; {before}; from {module} import {function} as main"
    return subprocess.run(
        [sys.executable, "-c", f"{text}; sys.exit(main())", *arguments],
        capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip


def test_there_is_one_for_the_node_and_for_each_of_its_tools():
    assert TOOLS == [
        "meanflow-ik-demo", "meanflow-ik-node", "meanflow-ik-node-bench", "meanflow-ik-send-goal",
    ]  # fmt: skip
    for target in SCRIPTS.values():
        module, function = target.split(":")
        assert callable(getattr(import_module(module), function))


@pytest.mark.parametrize("name", [name for name in TOOLS if name != "meanflow-ik-node"])
def test_a_tool_says_what_it_takes(name):
    done = run(name, "--help")
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout


@pytest.mark.parametrize("name", TOOLS)
def test_without_ros_one_line_says_what_to_install(name):
    done = run(name, before="sys.modules['rclpy'] = None")
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith(f"{name}: there is no module 'rclpy'") and "'.[ros]'" in line


def test_ctrl_c_while_the_node_imports_ends_it_without_a_traceback():
    # Of each module that it imports Python writes a line.
    command = [sys.executable, "-X", "importtime", ROOT / "scripts" / "solver_node"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    next(line for line in process.stderr if "numpy" in line)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0 and "Traceback" not in errors, errors
    assert "meanflow_ik_ros.desk" not in errors  # that comes late


@pytest.mark.parametrize("text", ["docs/start/ros2.md", "Makefile"])
def test_the_first_page_and_make_help_name_them(text):
    named = (ROOT / text).read_text()
    assert all(name in named for name in TOOLS)
