# SPDX-License-Identifier: Apache-2.0
"""Kinematics against Pinocchio and the published Denavit-Hartenberg table; refusals by name."""

import numpy as np
import pytest
import torch
from example_robots import ROBOTS, TORSO, torso_robot, urdf_with_joint
from oracles import Judge

import meanflow_ik_core as mik

# (a, d, alpha) from link i - 1 to link i, Craig's convention; the last row is the flange
PANDA_DH = (
    (0.0, 0.333, 0.0),
    (0.0, 0.0, -np.pi / 2),
    (0.0, 0.316, np.pi / 2),
    (0.0825, 0.0, np.pi / 2),
    (-0.0825, 0.384, -np.pi / 2),
    (0.0, 0.0, np.pi / 2),
    (0.088, 0.0, np.pi / 2),
    (0.0, 0.107, 0.0),
)
PANDA_LIMITS = (
    (-2.8973, 2.8973), (-1.7628, 1.7628), (-2.8973, 2.8973), (-3.0718, -0.0698),
    (-2.8973, 2.8973), (-0.0175, 3.7525), (-2.8973, 2.8973),
)  # fmt: skip


@pytest.fixture(params=ROBOTS)
def robot(request) -> mik.Robot:
    return ROBOTS[request.param]()


def test_forward_and_jacobian_agree_with_pinocchio(robot):
    q = robot.random_configurations(200, torch.Generator().manual_seed(0)).numpy()
    T, J, judge = robot.forward(q), robot.jacobian(q), Judge(robot)
    for row in range(len(q)):
        np.testing.assert_allclose(T[row], judge.poses(q[row]), rtol=0, atol=1e-12)
        np.testing.assert_allclose(J[row], judge.jacobian(q[row]), rtol=0, atol=1e-12)


def test_links_of_arrays_are_where_pinocchio_has_them(robot):
    q = robot.random_configurations(3, np.random.default_rng(0))
    poses, judge = robot.arrays.node_poses(q), Judge(robot)
    for link, (node, T_node_link) in robot.frames.items():
        if node < 0 or link in robot.at_rest:
            continue
        for row in range(len(q)):
            found = poses[row, node] @ T_node_link
            np.testing.assert_allclose(found, judge.link(q[row], link), rtol=0, atol=1e-12)


@pytest.mark.parametrize("turns", [0.0, 1e3, 1e6])
def test_kinematics_of_arrays_are_exact_after_many_turns(torso, turns):
    q = torso.random_configurations(20, np.random.default_rng(1))
    q[:, torso.continuous] += 2 * np.pi * turns
    judge = Judge(torso)
    for row, T, J in zip(q, torso.forward(q), torso.jacobian(q), strict=True):
        # What a turn that far away can be told apart by, in float64.
        np.testing.assert_allclose(T, judge.poses(row), rtol=0, atol=1e-12 + 1e-15 * turns)
        np.testing.assert_allclose(J, judge.jacobian(row), rtol=0, atol=1e-12 + 1e-15 * turns)


def test_arrays_of_any_layout_have_the_same_kinematics_and_unknown_joints_none(panda):
    q = panda.random_configurations(40, np.random.default_rng(2))
    for function in (panda.forward, panda.jacobian):
        expected = function(q)
        np.testing.assert_array_equal(function(np.asfortranarray(q)), expected)
        np.testing.assert_array_equal(function(q[::2]), expected[::2])
        np.testing.assert_array_equal(function(q.tolist()), expected)
        np.testing.assert_array_equal(function(q[7]), expected[7])
        np.testing.assert_allclose(function(q.astype(np.float32)), expected, rtol=0, atol=1e-6)
    q[3, 2], q[20, 0] = np.nan, np.inf
    unknown = np.isnan(panda.forward(q)).any((1, 2, 3))
    assert np.flatnonzero(unknown).tolist() == [3, 20]


def test_a_joint_moves_a_tip_where_its_column_of_the_jacobian_is_not_zero(robot):
    q = robot.random_configurations(5, torch.Generator().manual_seed(7)).numpy()
    judge = Judge(robot)
    columns = np.stack([judge.jacobian(row) for row in q])  # (5, T, 6, J)
    np.testing.assert_array_equal(robot.moves, (np.abs(columns) > 1e-9).any((0, 2)))
    np.testing.assert_array_equal(robot.ancestors.any(0), True)


def test_panda_is_the_published_denavit_hartenberg_table(panda):
    q = panda.random_configurations(100, torch.Generator().manual_seed(1)).numpy()
    for row in q:
        T = np.eye(4)
        for (a, d, alpha), theta in zip(PANDA_DH, [*row, 0.0], strict=True):
            ct, st, ca, sa = np.cos(theta), np.sin(theta), np.cos(alpha), np.sin(alpha)
            T = T @ [
                [ct, -st, 0, a],
                [st * ca, ct * ca, -sa, -d * sa],
                [st * sa, ct * sa, ca, d * ca],
                [0, 0, 0, 1],
            ]
        np.testing.assert_allclose(panda.forward(row)[0], T, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(np.stack((panda.lower, panda.upper), -1), PANDA_LIMITS)
    assert panda.joint_names == tuple(f"panda_joint{i}" for i in range(1, 8))
    assert (panda.base, panda.tips) == ("panda_link0", ("panda_link8",))


def test_jacobian_is_the_derivative_of_forward_by_automatic_differentiation(robot):
    q = robot.random_configurations(1, torch.Generator().manual_seed(2))[0]
    derivative = torch.func.jacrev(robot.forward)(q)  # (T, 4, 4, J)
    J = robot.jacobian(q)
    torch.testing.assert_close(derivative[:, :3, 3], J[:, :3], rtol=0, atol=1e-12)
    rotation = robot.forward(q)[:, :3, :3]
    skew = torch.einsum("tabj,tcb->tacj", derivative[:, :3, :3], rotation)
    angular = torch.stack((skew[:, 2, 1], skew[:, 0, 2], skew[:, 1, 0]), 1)
    torch.testing.assert_close(angular, J[:, 3:], rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(), (3,), (2, 5), (0,)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_kind_type_and_batch_shape_are_kept(robot, shape, dtype):
    count = int(np.prod(shape))
    q = robot.random_configurations(max(count, 1))[:count].numpy().astype(dtype)
    q = q.reshape(*shape, robot.num_joints)
    tips, joints = robot.num_tips, robot.num_joints
    for function, tail in ((robot.forward, (tips, 4, 4)), (robot.jacobian, (tips, 6, joints))):
        array, tensor = function(q), function(torch.from_numpy(q))
        assert isinstance(array, np.ndarray) and isinstance(tensor, torch.Tensor)
        assert array.shape == tuple(tensor.shape) == (*shape, *tail)
        assert array.dtype == dtype and tensor.dtype == torch.from_numpy(q).dtype


def test_continuous_joints_have_a_whole_turn_and_no_limit(torso):
    turn = torso.joint_names.index("turn")
    assert torso.continuous[turn] and (torso.lower[turn], torso.upper[turn]) == (-np.pi, np.pi)
    q = 0.5 * (torso.lower + torso.upper)
    q[turn] = 100.0
    assert torso.within_limits(q)
    q[torso.joint_names.index("lift")] = 0.41
    assert not torso.within_limits(q)


def test_mimic_joints_are_no_joints_of_their_own_and_unmoving_ones_are_left_out():
    assert torso_robot().joint_names == (
        "lift", "turn", "left_shoulder", "left_elbow", "left_pitch", "right_shoulder",
        "right_elbow", "right_slide",
    )  # fmt: skip


def test_a_frame_fixed_to_a_tip_has_its_offset(torso):
    tip, T_tip_hand = torso.tip_offset("left_hand")
    q = torso.random_configurations(1)[0].numpy()
    seen = mik.load_robot(TORSO, tips=["left_hand"], base="world")
    values = dict(zip(torso.joint_names, q, strict=True))
    T_hand = seen.forward([values[name] for name in seen.joint_names])[0]
    np.testing.assert_allclose(torso.forward(q)[tip] @ T_tip_hand, T_hand, atol=1e-12)
    np.testing.assert_allclose(
        torso.base_offset("pedestal")[:3, 3], (0.1, 0.2, 0.3), rtol=0, atol=1e-15
    )
    with pytest.raises(mik.LinkError, match=r"'head'.*left_tool"):
        torso.tip_offset("head")
    with pytest.raises(mik.LinkError, match=r"'left_hand'.*world"):
        torso.base_offset("left_hand")


def test_fingerprint_tells_robots_apart_and_is_stable():
    prints = [make().fingerprint() for make in ROBOTS.values()]
    assert len(set(prints)) == len(prints)
    assert prints == [make().fingerprint() for make in ROBOTS.values()]


@pytest.mark.parametrize("kind", ["floating", "planar", "ball"])
def test_unsupported_joints_are_refused_by_name(tmp_path, kind):
    joint = f'<joint name="odd" type="{kind}"><parent link="a"/><child link="b"/></joint>'
    with pytest.raises(mik.RobotError, match=rf"'odd'.*'{kind}'.*revolute"):
        mik.load_robot(urdf_with_joint(tmp_path, joint))


@pytest.mark.parametrize(
    ("base", "tips", "message"),
    [
        ("nowhere", ["left_tool"], "base 'nowhere' is not a link.*world"),
        ("world", ["left_tol"], "tip 'left_tol' is not a link; links are left_tool"),
        ("world", ["left_tool", "left_tool"], "twice"),
        ("world", ["pedestal"], "no joint moves tip 'pedestal'"),
        ("world", None, "leaf links"),
    ],
)
def test_links_that_cannot_be_tip_or_base_are_refused(base, tips, message):
    with pytest.raises(mik.LinkError, match=message):
        mik.load_robot(TORSO, base=base, tips=tips)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<robot", "not well-formed"),
        ("<html/>", "<html>"),
        ('<robot name="r"><joint name="j" type="fixed"/></robot>', "'j'.*parent ''"),
        ("\x00\x01", "not well-formed"),
    ],
)
def test_files_that_are_no_urdf_are_refused(tmp_path, content, message):
    path = tmp_path / "bad.urdf"
    path.write_text(content)
    with pytest.raises(mik.RobotError, match=message):
        mik.load_robot(path, tips=["tip"])


def test_closed_loops_and_missing_limits_and_unknown_mimics_are_refused(tmp_path):
    hinge = (
        '<joint name="hinge" type="revolute"><parent link="a"/><child link="b"/>'
        '<limit lower="{}" upper="{}" velocity="1" effort="1"/>{}</joint>'
    )
    loop = '<joint name="loop" type="fixed"><parent link="a"/><child link="c"/></joint>'
    with pytest.raises(mik.RobotError, match="'second' and 'loop'"):
        mik.load_robot(urdf_with_joint(tmp_path, hinge.format(-1, 1, ""), loop))
    with pytest.raises(mik.RobotError, match=r"'hinge'.*limits"):
        mik.load_robot(urdf_with_joint(tmp_path, hinge.format(1, -1, "")))
    with pytest.raises(mik.LinkError, match=r"no joint moves.*stay at a value: hinge"):
        mik.load_robot(urdf_with_joint(tmp_path, hinge.format(1, 1, "")))
    with pytest.raises(mik.RobotError, match="mimics 'ghost'"):
        mik.load_robot(urdf_with_joint(tmp_path, hinge.format(-1, 1, '<mimic joint="ghost"/>')))


def test_unknown_robots_and_robot_files_are_refused(tmp_path):
    with pytest.raises(mik.RobotError, match=r"'pand'.*panda"):
        mik.load_robot("pand")
    with pytest.raises(mik.RobotError, match="cannot read"):
        mik.load_robot(tmp_path / "missing.yaml")
    path = tmp_path / "robot.yaml"
    path.write_text("urdf: panda.urdf\ntip: [a]\n")
    with pytest.raises(mik.RobotError, match=r"'tip'.*tips"):
        mik.load_robot(path)
    with pytest.raises(mik.RobotError, match="held joint 'nothing'"):
        torso_robot(held={"nothing": 1.0})


def test_a_robot_file_anywhere_on_disk_is_enough(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(f"urdf: {TORSO}\nbase: torso\ntips: [left_tool]\nheld: {{turn: 0.5}}\n")
    robot = mik.load_robot(path)
    assert (robot.name, robot.base, robot.tips) == ("mine", "torso", ("left_tool",))
    assert robot.joint_names == ("left_shoulder", "left_elbow", "left_pitch")


@pytest.mark.parametrize("q", [np.zeros(6), np.zeros((2, 8)), 1.0])
def test_a_wrong_number_of_joints_is_refused(q):
    with pytest.raises(mik.RobotError, match="7 joints"):
        mik.load_robot("panda").forward(q)


@pytest.mark.parametrize("function", ["forward", "jacobian"])
def test_joints_that_are_no_real_numbers_are_refused(panda, function):
    with pytest.raises(mik.RobotError, match=r"tensor of torch.int64; it must be one of floats"):
        getattr(panda, function)(torch.zeros(7, dtype=torch.int64))
    with pytest.raises(mik.RobotError, match="q is not an array of numbers: they are complex"):
        getattr(panda, function)(np.zeros(7, complex))


def test_configurations_are_of_the_kind_of_their_generator_and_within_the_limits(torso):
    q = torso.random_configurations(500, np.random.default_rng(4))
    assert q.dtype == np.float64 and torso.within_limits(q).all()
    middle, half = 0.5 * (torso.lower + torso.upper), 0.5 * (torso.upper - torso.lower)
    assert (np.abs(q.mean(0) - middle) < 0.15 * half).all()
    assert (np.abs(q - middle).max(0) > 0.95 * half).all()
    tensors = torso.random_configurations(2, torch.Generator().manual_seed(4), torch.float32)
    assert isinstance(tensors, torch.Tensor) and tensors.dtype == torch.float32


def test_a_seed_gives_the_configurations_of_its_generator(torso):
    expected = torso.random_configurations(5, torch.Generator().manual_seed(3))
    torch.testing.assert_close(torso.random_configurations(5, 3), expected, rtol=0, atol=0)
