# SPDX-License-Identifier: Apache-2.0
"""Contexts and nodes that tests share.

A context lasts for a file: send_goal, the demo and the bench, which are tested in this process too,
open and close the default context themselves. The node in a process of its own lasts for a run.
"""

import subprocess
from collections.abc import Iterator

import numpy as np
import pytest
import rclpy
from ros_user import SHARED, Q, make_node, node_process, spun

import meanflow_ik_core as mik
from meanflow_ik_ros.node import MeanFlowIKNode


@pytest.fixture(scope="module")
def ros() -> Iterator[None]:
    rclpy.init()
    yield
    rclpy.try_shutdown()


@pytest.fixture(scope="module")
def panda_node(ros) -> Iterator[MeanFlowIKNode]:
    """The Panda's node in this process."""
    node = make_node()
    yield node
    node.destroy_node()


@pytest.fixture(scope="module")
def running(panda_node) -> Iterator[MeanFlowIKNode]:
    """The Panda's node, spun as its own main function does."""
    with spun(panda_node):
        yield panda_node


@pytest.fixture(scope="session")
def compiled(learned, uniform) -> None:
    """What nodes compile is in the cache, where those in processes of their own find it.

    A node that has to compile first is not there before its users' patience ends.
    """
    for solver in (learned, uniform):
        solver.warm_up()
    poses = uniform.robot.forward(Q[None])
    mik.solve_path(uniform, np.concatenate([poses, poses]), num_samples=1)


@pytest.fixture(scope="session")
def shared_node(compiled) -> Iterator[subprocess.Popen]:
    """A node /own/meanflow_ik in a process of its own, with the parameters `SHARED`."""
    with node_process("/own", **SHARED) as process:
        yield process
