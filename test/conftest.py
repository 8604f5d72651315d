# SPDX-License-Identifier: Apache-2.0
"""Settings that must stand before rclpy and torch are imported for the first time; shared fixtures.

The fixtures are made once a run: a test that changes a robot or a solver makes its own.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import meanflow_ik_core as mik

if TYPE_CHECKING:
    from meanflow_ik_core.evaluation.closed_form import ClosedForm

# Of the processes that share the work, each has a domain of its own.
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")
RUN = os.getppid() + int(WORKER.removeprefix("gw")) if WORKER else os.getpid()
os.environ["ROS_DOMAIN_ID"] = str(1 + RUN % 101)
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ["ROS_PYTHON_CHECK_FIELDS"] = "1"
# Tables are as wide as this says; a worker gets it from nobody's terminal.
os.environ.pop("COLUMNS", None)
os.environ["FASTDDS_DEFAULT_PROFILES_FILE"] = str(Path(__file__).parent / "ros" / "fastdds.xml")
# The tensors of the tests are small: several threads in several processes only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Where processes share the work, file by file, these come first. While one of them builds packages,
# the other one compiles the kernels, which the files after them find in the cache; the next ones
# are the longest.
FIRST = (
    "test_packaging.py", "kernels/test_kernels.py", "network/test_compiled.py",
    "training/test_training.py", "test_readme.py",
    "ros/test_node_process.py", "commands/test_add_robot.py", "ros/test_soak.py",
    "collision/test_clearance.py", "ros/test_demo.py", "ros/test_markers_node.py",
    "ros/test_send_goal.py", "ros/test_ros_bench.py", "commands/test_cli.py", "bench/test_bench.py",
    "bench/test_peers.py",
)  # fmt: skip


def pytest_collection_modifyitems(config, items):
    if hasattr(config, "workerinput"):
        place = {Path(__file__).parent / name: place for place, name in enumerate(FIRST)}
        items.sort(key=lambda item: place.get(item.path, len(FIRST)))


@pytest.fixture(scope="session")
def panda() -> mik.Robot:
    return mik.load_robot("panda")


@pytest.fixture(scope="session")
def dual_panda() -> mik.Robot:
    return mik.load_robot("dual_panda")


@pytest.fixture(scope="session")
def torso() -> mik.Robot:
    """Two arms that share joints, and every kind of joint."""
    from example_robots import torso_robot

    return torso_robot()


@pytest.fixture(scope="session")
def learned(panda) -> mik.IKSolver:
    """Starts from the shipped network."""
    return mik.load_solver(panda)


@pytest.fixture(scope="session")
def uniform(panda) -> mik.IKSolver:
    """The Panda's, without a network."""
    return mik.load_solver(panda, sampler="uniform")


@pytest.fixture(scope="session")
def torso_solver(torso) -> mik.IKSolver:
    return mik.load_solver(torso, sampler="uniform")


@pytest.fixture(scope="session")
def closed_form(panda) -> ClosedForm:
    from meanflow_ik_core.evaluation.closed_form import ClosedForm

    return ClosedForm(panda)
