# SPDX-License-Identifier: Apache-2.0
"""What makes no kinematic tree is refused by name; mimics keep their limits; links at rest."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from example_robots import TORSO, draw, urdf_with_joint
from oracles import Judge

import meanflow_ik_core as mik
from meanflow_ik_core.objectives import build_objectives, link_frame

HINGE = (
    '<joint name="{name}" type="{kind}"><parent link="{parent}"/><child link="{child}"/>'
    '<origin xyz="0 0 0.3" rpy="0.1 0.2 0.3"/><axis xyz="{axis}"/>'
    '<limit lower="{low}" upper="{high}" velocity="1" effort="1"/>{more}</joint>'
)


def hinge(name: str, parent: str, child: str, low=-2.0, high=2.0, more="", kind="revolute") -> str:
    return HINGE.format(
        name=name, parent=parent, child=child, low=low, high=high, more=more, kind=kind,
        axis="0 1 0",
    )  # fmt: skip


def write(folder: Path, links: str, *joints: str) -> Path:
    path = folder / "tree.urdf"
    body = "".join(f'<link name="{link}"/>' for link in links) + "".join(joints)
    path.write_text(f'<robot name="tree">{body}</robot>')
    return path


def follower(folder: Path, mimic: str, low: float, high: float, kind="revolute") -> Path:
    """A leader a-b, its follower b-c, and a wrist c-d."""
    return write(
        folder, "abcd",
        hinge("leader", "a", "b", kind=kind),
        hinge("follower", "b", "c", low, high, f'<mimic joint="leader" {mimic}/>'),
        hinge("wrist", "c", "d"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("mimic", "low", "high", "expected"),
    [
        ("", -0.1, 0.1, (-0.1, 0.1)),
        ('multiplier="-2" offset="0.5"', -0.5, 1.5, (-0.5, 0.5)),
        ('multiplier="0.5"', -3.0, 0.4, (-2.0, 0.8)),
        ('multiplier="0"', -1.0, 1.0, (-2.0, 2.0)),
    ],
)
def test_a_leader_moves_as_far_as_its_follower_can(tmp_path, mimic, low, high, expected):
    robot = mik.load_robot(follower(tmp_path, mimic, low, high))
    assert robot.joint_names == ("leader", "wrist")
    np.testing.assert_allclose((robot.lower[0], robot.upper[0]), expected, rtol=0, atol=1e-12)
    solver = mik.load_solver(robot, sampler="uniform")
    q = robot.random_configurations(20, torch.Generator().manual_seed(0))
    result = solver.solve(robot.forward(q).numpy(), max_solutions=4, seed=0)
    assert result.valid.any()
    found = result.joint_positions[result.valid][:, 0]
    assert (found >= expected[0] - 1e-9).all() and (found <= expected[1] + 1e-9).all()


@pytest.mark.parametrize(
    ("mimic", "most"), [("", 1.0), ('multiplier="-4"', 0.25), ('multiplier="0"', 1.0)]
)
def test_a_leader_is_as_fast_as_its_follower_can_be(tmp_path, mimic, most):
    robot = mik.load_robot(follower(tmp_path, mimic, -1.0, 1.0))
    np.testing.assert_array_equal(robot.velocity_limit, (most, 1.0))


def test_a_turning_leader_with_a_limited_follower_does_not_turn_around(tmp_path):
    robot = mik.load_robot(follower(tmp_path, "", -0.1, 4.0, kind="continuous"))
    assert not robot.continuous[0] and (robot.lower[0], robot.upper[0]) == (-0.1, 4.0)


@pytest.mark.parametrize("mimic", ['offset="5"', 'multiplier="0" offset="5"'])
def test_a_leader_without_a_value_for_its_follower_is_refused(tmp_path, mimic):
    with pytest.raises(mik.RobotError, match=r"'leader'.*'follower', which mimics it"):
        mik.load_robot(follower(tmp_path, mimic, -0.1, 0.1))


@pytest.mark.parametrize(
    ("mimic", "message"),
    [
        ('joint="second"', "'first' mimics 'second', which is fixed"),
        ('joint="other" multiplier="two"', "multiplier by which joint 'first' mimics is 'two'"),
        ('joint="other" offset="nan"', "offset by which joint 'first' mimics is 'nan'"),
    ],
)
def test_mimics_that_cannot_move_are_refused(tmp_path, mimic, message):
    joint = hinge("first", "a", "b", more=f"<mimic {mimic}/>")
    more = '<link name="d"/>' + hinge("other", "c", "d")
    with pytest.raises(mik.RobotError, match=message):
        mik.load_robot(urdf_with_joint(tmp_path, joint, more), tips=["d"])


@pytest.mark.parametrize("axis", ["0 0 0", "0 0", "x y z", "nan 0 1"])
def test_joints_without_an_axis_are_refused(tmp_path, axis):
    joint = hinge("odd", "a", "b").replace("0 1 0", axis)
    with pytest.raises(mik.RobotError, match=f"'odd'.*axis '{axis}'"):
        mik.load_robot(urdf_with_joint(tmp_path, joint))


def test_links_in_a_circle_are_a_closed_loop(tmp_path):
    path = write(tmp_path, "abc", hinge("x", "a", "b"), hinge("y", "b", "c"), hinge("z", "c", "a"))
    with pytest.raises(mik.RobotError, match=r"circle: closed loops"):
        mik.load_robot(path)


def test_a_single_link_has_nothing_to_be_a_tip(tmp_path):
    with pytest.raises(mik.LinkError, match="has no joints"):
        mik.load_robot(write(tmp_path, "a"))


@pytest.mark.parametrize(
    "content",
    [
        '<robot name="r" xmlns:xacro="http://www.ros.org/wiki/xacro"><xacro:include filename="x"/>'
        "</robot>",
        '<robot name="r" xmlns:xacro="http://ros.org/wiki/xacro"><xacro:arm/></robot>',
        '<robot name="${name}"/>',
    ],
)
def test_xacro_is_named(tmp_path, content):
    path = tmp_path / "robot.urdf"
    path.write_text(content)
    with pytest.raises(mik.RobotError, match="run xacro first"):
        mik.load_robot(path, tips=["a"])


def test_a_xacro_file_is_named_by_its_suffix_where_xacro_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "xacro", None)
    with pytest.raises(mik.RobotError, match=r"robot\.urdf\.xacro is a xacro file"):
        mik.load_robot("robot.urdf.xacro")


@pytest.mark.parametrize("name", [5, None])
def test_a_robot_that_is_no_name_is_refused(name):
    with pytest.raises(mik.RobotError, match=f"the robot is {name}"):
        mik.load_robot(name)


@pytest.mark.parametrize(
    ("tips", "message"),
    [
        ("left_tool", r"the text 'left_tool'.*\['left_tool'\]"),
        (5, "tips is 5"),
        ([None], r"tips is \[None\]"),
    ],
)
def test_tips_that_are_no_list_of_links_are_refused(tips, message):
    with pytest.raises(mik.LinkError, match=message):
        mik.load_robot(TORSO, tips=tips)


@pytest.mark.parametrize("scale", [0, -1, float("nan"), float("inf"), "x", True])
def test_scales_that_are_no_length_are_refused(tmp_path, scale):
    with pytest.raises(mik.RobotError, match=f"workspace_scale is {scale!r}"):
        mik.load_robot(TORSO, tips=["left_tool"], workspace_scale=scale)
    path = tmp_path / "mine.yaml"
    path.write_text(f"urdf: {TORSO}\ntips: [left_tool]\nworkspace_scale: 0\n")
    with pytest.raises(mik.RobotError, match="workspace_scale is 0"):
        mik.load_robot(path)


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ({"lift": float("nan")}, "'lift' is nan"),
        ({"lift": "a"}, "'lift' is 'a'"),
        ({"lift": None}, "'lift' is None"),
        ({"lift": 9}, r"'lift' is 9.*\[-0.1, 0.4\]"),
        ({"left_mount": 0.1}, "'left_mount' is fixed"),
        ({"left_twist": 0.1}, "'left_twist' mimics 'left_elbow'"),
        ("lift", "held is 'lift'"),
    ],
)
def test_joints_that_cannot_be_held_so_are_refused(held, message):
    with pytest.raises(mik.RobotError, match=message):
        mik.load_robot(TORSO, tips=["left_tool"], held=held)


def test_a_leader_is_not_held_where_its_follower_cannot_be(tmp_path):
    path = follower(tmp_path, 'multiplier="2"', -0.2, 0.2)
    with pytest.raises(mik.RobotError, match=r"'leader' is 0.5.*\[-0.1, 0.1\]"):
        mik.load_robot(path, held={"leader": 0.5})
    assert mik.load_robot(path, held={"leader": 0.1}).held == {"leader": 0.1}


def test_joints_without_limits_are_held_anywhere():
    assert mik.load_robot(TORSO, tips=["left_tool"], held={"turn": 9}).held == {"turn": 9.0}


@pytest.mark.parametrize("held", [{}, {"nod": 0.3}])
def test_links_behind_joints_that_are_not_solved_for_are_where_those_stand(held):
    robot = mik.load_robot(TORSO, tips=["left_tool", "right_hand"], held=held)
    judge, q = Judge(robot), draw(robot, 5)
    rotation, head = link_frame(robot, "head", q)
    for row, origin, turned in zip(q.numpy(), head, rotation, strict=True):
        place = judge.link(row, "head")
        np.testing.assert_allclose(origin, place.translation, rtol=0, atol=1e-12)
        np.testing.assert_allclose(turned, place.rotation, rtol=0, atol=1e-12)
    looks = build_objectives(
        [{"name": "link_direction", "link": "head", "look_at": [1, 0, 1]}], robot
    )
    assert torch.isfinite(looks[0].value(q)).all()
    assert robot.at_rest == (frozenset() if held else {"head"})


def test_links_behind_resting_joints_are_no_frames_of_targets(tmp_path):
    path = write(
        tmp_path, "abcd", hinge("x", "a", "b"), hinge("finger", "b", "c"), hinge("tail", "a", "d")
    )
    robot = mik.load_robot(path, tips=["b"])
    assert "c" in robot.frames
    with pytest.raises(mik.LinkError, match="'c' is not fixed to a tip"):
        robot.tip_offset("c")
    with pytest.raises(mik.LinkError, match="'d' is not fixed to the base"):
        robot.base_offset("d")
    with pytest.raises(mik.LinkError, match="'d' of objective"):
        build_objectives([{"name": "link_direction", "link": "d", "look_at": [1, 0, 1]}], robot)
    assert mik.load_robot(path, tips=["b"], held={"finger": 0.2}).tip_offset("c")[0] == 0


def test_links_behind_a_mimic_of_a_solved_joint_are_unknown(tmp_path):
    gear = hinge("gear", "a", "c", more='<mimic joint="x"/>')
    robot = mik.load_robot(write(tmp_path, "abc", hinge("x", "a", "b"), gear), tips=["b"])
    assert "c" not in robot.frames
