# SPDX-License-Identifier: Apache-2.0
"""The node and its tools as commands of their own, for environments without ``ros2 run``."""

import importlib
import sys
from contextlib import suppress
from pathlib import Path


def _run(module: str) -> None:
    try:
        main = importlib.import_module(module).main
    except ModuleNotFoundError as error:
        missing = str(error.name).partition(".")[0]
        print(
            f"{Path(sys.argv[0]).name}: there is no module {missing!r} here; source a ROS 2, or "
            "install with the extra `ros`: pip install '.[ros]'",
            file=sys.stderr,
        )
        sys.exit(2)
    sys.exit(main())


def node() -> None:
    """``meanflow-ik-node``, as ``ros2 run meanflow_ik_ros solver_node``."""
    with suppress(KeyboardInterrupt):  # of who ends it while it imports
        _run("meanflow_ik_ros.node")


def send_goal() -> None:
    """``meanflow-ik-send-goal``, as ``ros2 run meanflow_ik_ros send_goal``."""
    _run("meanflow_ik_ros.tools.send_goal")


def demo() -> None:
    """``meanflow-ik-demo``, as ``ros2 run meanflow_ik_ros demo``."""
    _run("meanflow_ik_ros.tools.demo")


def bench() -> None:
    """``meanflow-ik-node-bench``, as ``ros2 run meanflow_ik_ros bench``."""
    _run("meanflow_ik_ros.tools.bench")
