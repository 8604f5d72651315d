# SPDX-License-Identifier: Apache-2.0
"""A solver node, or another program, in a process of its own for as long as it is needed."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

READY_S = 300.0  # compiling the kernels for the first time takes about a minute
STOP_S = 20.0


@contextlib.contextmanager
def running_node(
    parameters: Mapping[str, Any], *ros_arguments: str
) -> Iterator[subprocess.Popen[bytes]]:
    """The node as `running_module` starts it.

    Args:
        ros_arguments: what follows --ros-args beside the parameters.
    """
    arguments = ["--ros-args", *ros_arguments]
    for name, value in parameters.items():
        arguments += ["-p", f"{name}:={repr('') if value == '' else value}"]
    with running_module("meanflow_ik_ros.node", *arguments) as process:
        yield process


@contextlib.contextmanager
def running_module(module: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start a module; stop it as by Ctrl-C, and kill it where it has not ended `STOP_S` later."""
    process = subprocess.Popen([sys.executable, "-m", module, *arguments])
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
