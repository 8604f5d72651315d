# SPDX-License-Identifier: Apache-2.0
"""URDFs as they are found: encodings, namespaces, limits that lack, are none, or are soft."""

import importlib.util
import logging

import numpy as np
import pinocchio as pin
import pytest
from chains import FIVE, LIMIT, SIX, chain, write
from oracles import Judge

import meanflow_ik_core as mik

PLAIN = chain(FIVE)
Q = np.array([0.3, -0.4, 0.5, 0.6, -0.7])


def expected() -> np.ndarray:
    """The tip of the plain arm at `Q`, by Pinocchio."""
    model = pin.buildModelFromXML(PLAIN)
    data = model.createData()
    pin.framesForwardKinematics(model, data, Q)
    return data.oMf[model.getFrameId("tip")].homogeneous


@pytest.mark.parametrize(
    ("encoding", "declared"),
    [
        ("utf-8", ""), ("utf-8-sig", "utf-8"), ("utf-16", "utf-16"), ("utf-16", ""),
        ("shift_jis", "shift_jis"), ("gb2312", "gb2312"), ("latin-1", "iso-8859-1"),
    ],
)  # fmt: skip
def test_a_urdf_is_read_in_the_encoding_that_it_is_written_in(tmp_path, encoding, declared):
    head = f'<?xml version="1.0" encoding="{declared}"?>\n' if declared else ""
    name = {"shift_jis": "腕", "gb2312": "臂", "latin-1": "Ärmel"}.get(encoding, "腕")
    text = head + PLAIN.replace('name="tip"', f'name="{name}"')
    text = text.replace('link="tip"', f'link="{name}"')
    robot = mik.load_robot(write(tmp_path, text.encode(encoding)))
    assert robot.tips == (name,)
    np.testing.assert_allclose(robot.forward(Q)[0], expected(), atol=1e-12)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ('<?xml version="1.0" encoding="foo"?>' + PLAIN, "encoding 'foo', which is unknown"),
        (PLAIN.replace("arm", "Ärmel").encode("latin-1"), "not in the encoding 'utf-8'"),
        (b"<robot", "not well-formed"),
    ],
)
def test_what_cannot_be_decoded_is_refused_with_its_encoding(tmp_path, data, words):
    with pytest.raises(mik.RobotError, match=words):
        mik.load_robot(write(tmp_path, data))


def test_a_default_namespace_is_no_part_of_the_names(tmp_path):
    text = chain(
        FIVE, attributes=' xmlns="http://drake.mit.edu" xmlns:a="http://a"', extra="<a:b/>"
    )
    robot = mik.load_robot(write(tmp_path, text))
    np.testing.assert_allclose(robot.forward(Q)[0], expected(), atol=1e-12)


def test_a_suffix_may_be_in_capitals(tmp_path):
    assert mik.load_robot(write(tmp_path, PLAIN, "ARM.URDF")).num_joints == 5
    write(tmp_path, "urdf: ARM.URDF\ntips: [tip]\n", "ARM.YAML")
    assert mik.load_robot(tmp_path / "ARM.YAML").num_joints == 5


def test_the_text_of_a_urdf_is_a_robot():
    robot = mik.load_robot("\n  " + PLAIN)
    assert robot.name == "arm"
    np.testing.assert_allclose(robot.forward(Q)[0], expected(), atol=1e-12)
    with pytest.raises(mik.RobotError, match="not well-formed") as error:
        mik.load_robot(PLAIN[:-3])
    assert len(str(error.value)) < 200


def test_an_unknown_robot_is_echoed_in_part():
    with pytest.raises(mik.RobotError, match="unknown robot") as error:
        mik.load_robot("robot" * 1000)
    assert len(str(error.value)) < 400


def test_a_joint_may_be_called_universe(tmp_path):
    axes = {name.replace("j5", "universe"): axis for name, axis in FIVE.items()}
    robot = mik.load_robot(write(tmp_path, chain(axes)))
    assert robot.joint_names == tuple(axes)
    np.testing.assert_allclose(robot.forward(Q)[0], expected(), atol=1e-12)
    assert mik.load_robot(robot.urdf_path, held={"universe": 0.5}).held == {"universe": 0.5}


@pytest.mark.parametrize(
    ("joint", "limit", "words"),
    [
        ("j3", "", "no usable limits.*neither lower nor upper"),
        ("j3", '<limit effort="1" velocity="1"/>', "no usable limits.*neither lower nor upper"),
        ("j2", '<limit lower="1" upper="-1" effort="1" velocity="1"/>', "no usable limits"),
        ("j2", '<limit lower="-1,5" upper="1" effort="1" velocity="1"/>', "limit lower '-1,5'"),
        ("j4", LIMIT + '<safety_controller soft_lower_limit="x"/>', "soft_lower_limit 'x'"),
    ],
)
def test_a_refusal_names_the_joint_and_what_it_lacks(tmp_path, joint, limit, words):
    path = write(tmp_path, chain(FIVE, {joint: limit}))
    with pytest.raises(mik.RobotError, match=f"'{joint}'.*{words}"):
        mik.load_robot(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (('<parent link="link2"/>', '<parent link="lonk"/>'), "'j3'.*parent 'lonk'.*no link"),
        (('<parent link="link2"/>', ""), "'j3'.*parent ''"),
        (('<link name="link2"/>', '<link name="link1"/>'), "two links of the name 'link1'"),
        (('<joint name="j2"', '<joint name="j1"'), "two joints of the name 'j1'"),
        (('<origin xyz="0 0 0.05"/>', '<origin xyz="0 0"/>'), "'j2'.*origin xyz '0 0'"),
    ],
)
def test_a_refusal_names_what_is_wrong_with_the_tree(tmp_path, change, words):
    path = write(tmp_path, PLAIN.replace(*change, 1))
    with pytest.raises(mik.RobotError, match=words):
        mik.load_robot(path)


def test_effort_and_velocity_may_lack_and_so_may_limits_of_what_is_not_solved_for(tmp_path):
    path = write(tmp_path, chain(FIVE, '<limit lower="-2" upper="2"/>'))
    robot = mik.load_robot(path)
    assert robot.upper.tolist() == [2.0] * 5 and np.isinf(robot.velocity_limit).all()
    path = write(tmp_path, chain(FIVE, {"j5": '<mimic joint="j4"/>'}))
    follower = mik.load_robot(path)
    assert follower.joint_names == ("j1", "j2", "j3", "j4") and follower.upper[3] == 2.5
    path = write(tmp_path, chain(FIVE, {"j5": ""}))
    assert mik.load_robot(path, held={"j5": 0.3}).num_joints == 4


@pytest.mark.parametrize("far", [1e6, 1e12])
def test_finite_limits_that_are_meant_as_none_make_a_continuous_joint(tmp_path, caplog, far):
    limit = f'<limit lower="{-far}" upper="{far}" effort="1" velocity="1"/>'
    path = write(tmp_path, chain(SIX, limit))
    with caplog.at_level(logging.WARNING):
        robot = mik.load_robot(path)
    assert "j1, j2, j3, j4, j5, j6" in caplog.text and "continuous" in caplog.text
    assert robot.continuous.all()
    q = np.random.default_rng(0).uniform(-2, 2, (20, 6))
    targets = np.stack([Judge(robot).poses(row) for row in q])
    solver = mik.load_solver(robot, sampler="uniform")
    assert solver.solve(targets, seed=0, max_solutions=1).valid.all()


def test_some_turns_are_limits_and_a_kilometre_to_slide_is_none(tmp_path):
    turns = '<limit lower="-25" upper="25" effort="1" velocity="1"/>'
    robot = mik.load_robot(write(tmp_path, chain(FIVE, {"j5": turns})))
    assert not robot.continuous.any() and robot.upper[4] == 25
    far = '<limit lower="-1e6" upper="1e6" effort="1" velocity="1"/>'
    path = write(tmp_path, chain(FIVE, {"j2": far}, {"j2": "prismatic"}))
    with pytest.raises(mik.RobotError, match=r"'j2'.*no limits"):
        mik.load_robot(path)


def test_a_joint_whose_limits_are_one_value_is_fixed_there(tmp_path):
    limit = '<limit lower="0.4" upper="0.4" effort="1" velocity="1"/>'
    robot = mik.load_robot(write(tmp_path, chain(FIVE, {"j3": limit})))
    held = mik.load_robot(write(tmp_path, PLAIN, "plain.urdf"), held={"j3": 0.4})
    assert robot.joint_names == ("j1", "j2", "j4", "j5") and robot.held == {"j3": 0.4}
    q = np.delete(Q, 2)
    np.testing.assert_array_equal(robot.forward(q), held.forward(q))


def test_soft_limits_count_unless_they_are_switched_off(tmp_path):
    soft = LIMIT + (
        '<safety_controller k_velocity="1" soft_lower_limit="-1" soft_upper_limit="3"/>'
    )
    empty = LIMIT + '<safety_controller k_velocity="1"/>'
    path = write(tmp_path, chain(FIVE, {"j1": soft, "j2": empty}))
    robot = mik.load_robot(path)
    assert (robot.lower[0], robot.upper[0]) == (-1.0, 2.5)
    assert (robot.lower[1], robot.upper[1]) == (-2.5, 2.5)
    assert mik.load_robot(path, soft_limits=False).lower[0] == -2.5
    write(tmp_path, "urdf: arm.urdf\nsoft_limits: false\n", "arm.yaml")
    assert mik.load_robot(tmp_path / "arm.yaml").lower[0] == -2.5
    assert mik.load_robot(tmp_path / "arm.yaml", soft_limits=True).lower[0] == -1
    write(tmp_path, "urdf: arm.urdf\nsoft_limits: 1\n", "arm.yaml")
    with pytest.raises(mik.RobotError, match=r"'soft_limits'.*true or false"):
        mik.load_robot(tmp_path / "arm.yaml")
    with pytest.raises(mik.RobotError, match="soft_limits is 'no'"):
        mik.load_robot(path, soft_limits="no")  # pyright: ignore[reportArgumentType]


XACRO = (
    '<robot xmlns:xacro="http://www.ros.org/wiki/xacro" name="arm">'
    '<xacro:property name="far" value="0.1"/>' + PLAIN[PLAIN.index(">") + 1 :]
).replace('xyz="0 0 0.1"', 'xyz="0 0 ${far}"')


def test_xacro_is_expanded_where_it_is_installed_and_else_named(tmp_path):
    path = write(tmp_path, XACRO, "arm.urdf.xacro")
    write(tmp_path, "urdf: arm.urdf.xacro\n", "arm.yaml")
    if importlib.util.find_spec("xacro") is None:
        with pytest.raises(mik.RobotError, match=r"xacro file; install xacro"):
            mik.load_robot(path)
        return
    for name in (path, tmp_path / "arm.yaml"):
        robot = mik.load_robot(name)
        assert robot.name == "arm"
        np.testing.assert_allclose(robot.forward(Q)[0], expected(), atol=1e-12)
    with pytest.raises(mik.RobotError, match="xacro cannot expand"):
        mik.load_robot(write(tmp_path, XACRO.replace("${far}", "${near}"), "bad.xacro"))
