# SPDX-License-Identifier: Apache-2.0
"""Self-collision against distances that are known in closed form, and against plain postures."""

import numpy as np
import pytest
import torch
from judge import TORSO, Judge

import meanflow_ik_core as mik
from meanflow_ik_core.collision import SelfCollision


def test_spheres_touch_exactly_when_their_centres_are_near():
    robot = mik.load_robot(TORSO, tips=["left_hand", "right_hand"])
    check, judge = SelfCollision(robot), Judge(robot)
    assert ("left_hand", "right_hand") in check.pairs()
    q = robot.random_configurations(20000, torch.Generator().manual_seed(0)).numpy()
    hands = robot.forward(q)[..., :3, 3]
    near = np.linalg.norm(hands[:, 0] - hands[:, 1], axis=-1) < 0.25
    seen = [0, 0]
    for row in q[near]:
        left, right = judge.poses(row)[:, :3, 3]
        if np.linalg.norm(left - right) < 0.1:
            assert check.in_collision(row)
            seen[0] += 1
        elif not check.in_collision(row):
            seen[1] += 1
    assert min(seen) > 0


@pytest.mark.parametrize(
    ("posture", "touches"),
    [
        ((0, -0.785, 0, -2.356, 0, 1.571, 0.785), False),
        ((0, 0, 0, -1.5, 0, 1.5, 0), False),
        ((0, 1.7, 0, -3.0, 0, 0.0, 0), True),
    ],
)
def test_the_panda_touches_itself_when_folded_and_not_when_ready(posture, touches):
    check = SelfCollision(mik.load_robot("panda"))
    assert check.in_collision(np.array(posture)) == touches
    assert ("panda_link0", "panda_link7") in check.pairs()
    assert ("panda_link5", "panda_link6") not in check.pairs()


def test_unreadable_shapes_are_refused(tmp_path):
    path = tmp_path / "meshed.urdf"
    path.write_text(
        '<robot name="r"><link name="a"/><link name="b"><collision><geometry>'
        '<mesh filename="package://nowhere/b.stl"/></geometry></collision></link>'
        '<joint name="j" type="revolute"><parent link="a"/><child link="b"/><axis xyz="0 0 1"/>'
        '<limit lower="-1" upper="1" velocity="1" effort="1"/></joint></robot>'
    )
    with pytest.raises(mik.RobotError, match=r"meshed\.urdf"):
        SelfCollision(mik.load_robot(path))
