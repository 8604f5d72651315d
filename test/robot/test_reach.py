# SPDX-License-Identifier: Apache-2.0
"""The bound on how far a tip can be from a point of the base."""

import numpy as np
import pytest
from oracles import reachable

import meanflow_ik_core as mik
from meanflow_ik_core.robot.reach import reach


def stretched(robot: mik.Robot, tip: int, center: np.ndarray) -> float:
    """How far the tip gets from the center, m: the farthest of random poses, by Pinocchio."""
    poses = reachable(robot, 3000)
    return float(np.linalg.norm(poses[:, tip, :3, 3] - center, axis=-1).max())


@pytest.mark.parametrize("name", ["panda", "dual_panda"])
def test_no_configuration_is_beyond_reach_and_one_comes_near_it(name):
    robot = mik.load_robot(name)
    for tip in range(robot.num_tips):
        center, length = reach(robot, tip)
        far = stretched(robot, tip, center)
        assert 0.9 * length < far <= length + 1e-9


def test_shifts_count_with_half_of_their_range(tmp_path):
    """One slider and one hinge: the farthest point is at hand."""
    (tmp_path / "slider.urdf").write_text(
        """<robot name="slider"><link name="base"/><link name="cart"/><link name="arm"/>
        <link name="tip"/>
        <joint name="slide" type="prismatic"><parent link="base"/><child link="cart"/>
          <axis xyz="1 0 0"/><limit lower="-0.2" upper="0.6" effort="1" velocity="1"/></joint>
        <joint name="hinge" type="continuous"><parent link="cart"/><child link="arm"/>
          <axis xyz="0 0 1"/></joint>
        <joint name="end" type="fixed"><parent link="arm"/><child link="tip"/>
          <origin xyz="0.3 0 0.1"/></joint></robot>"""
    )
    robot = mik.load_robot(tmp_path / "slider.urdf")
    center, length = reach(robot, 0)
    np.testing.assert_allclose(center, (0.2, 0, 0.1), atol=1e-6)
    np.testing.assert_allclose(length, 0.4 + 0.3, atol=1e-6)
