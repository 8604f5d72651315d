# SPDX-License-Identifier: Apache-2.0
"""Every shipped robot against Pinocchio; robots made of parts; files found by package://."""

import re
import shlex
import sys
import xml.etree.ElementTree as ElementTree
from importlib import metadata
from pathlib import Path

import numpy as np
import pinocchio as pin
import pytest
import torch
from example_robots import JOINTS, NAMES, TORSO, needs_robots
from oracles import Judge

import meanflow_ik_core as mik
from meanflow_ik_core.bench.robots import is_coupled
from meanflow_ik_core.collision.self_collision import SelfCollision
from meanflow_ik_core.commands.app import main
from meanflow_ik_core.robot import cache, packages, robot_file
from meanflow_ik_core.robot.composition import portable_urdf
from meanflow_ik_core.robot.robot_file import KEYS, ROBOT_FOLDER, read_settings

DOCS = Path(__file__).parents[2] / "docs" / "robots.md"


@pytest.fixture(params=NAMES)
def robot(request) -> mik.Robot:
    return mik.load_robot(request.param)


def test_every_shipped_robot_is_counted_here():
    assert set(mik.available_robots()) == set(JOINTS)


def test_forward_and_jacobian_agree_with_pinocchio(robot):
    assert robot.num_joints == JOINTS[robot.name]
    q = robot.random_configurations(20, torch.Generator().manual_seed(0)).numpy()
    judge = Judge(robot)
    for row in q:
        np.testing.assert_allclose(robot.forward(row), judge.poses(row), rtol=0, atol=1e-10)
        np.testing.assert_allclose(robot.jacobian(row), judge.jacobian(row), rtol=0, atol=1e-10)


def test_the_workspace_scale_is_about_the_reach(robot):
    q = robot.random_configurations(2000, torch.Generator().manual_seed(0))
    reach = float(robot.forward(q)[..., :3, 3].norm(dim=-1).max())
    assert 0.8 * reach < robot.workspace_scale < 1.25 * reach


def test_restarts_find_a_solution_of_most_reachable_targets(robot):
    solver = mik.load_solver(robot, sampler="uniform")
    q = robot.random_configurations(5, torch.Generator().manual_seed(1)).numpy()
    targets = robot.forward(q)
    result = solver.solve(targets, num_samples=128, max_solutions=4, seed=0)
    assert result.valid.any(-1).sum() >= 4
    judge = Judge(robot)
    for problem, row in zip(*np.nonzero(result.valid), strict=True):
        T = judge.poses(result.joint_positions[problem, row])
        np.testing.assert_allclose(T, targets[problem], rtol=0, atol=1e-4)


def test_some_and_not_all_random_configurations_touch_themselves(robot):
    q = robot.random_configurations(300, torch.Generator().manual_seed(2)).numpy()
    share = SelfCollision(robot).in_collision(q).mean()
    assert 0.02 < share < 0.9


def test_the_table_of_robots_in_the_documentation_is_true(robot):
    rows = [line.split("|")[1:-1] for line in DOCS.read_text().splitlines() if "|" in line]
    (row,) = [row for row in rows if row[0].strip() == f"`{robot.name}`"]
    assert int(row[1]) == robot.num_joints
    assert re.findall(r"`(.*?)`", row[2]) == list(robot.tips)
    assert row[3].strip() == f"`{robot.base}`"
    if robot.num_tips > 1:
        assert is_coupled(robot) == (row[4].strip() != "no")


def test_the_commands_of_the_documentation_run(tmp_path, monkeypatch):
    """The reader's robot is the torso with two arms."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_robot.urdf").write_text(TORSO.read_text())
    robot = mik.load_robot(TORSO, base="torso", tips=["left_tool", "right_hand"])
    q = robot.random_configurations(1, torch.Generator().manual_seed(0))
    np.save(tmp_path / "poses.npy", robot.forward(q).numpy())
    (block,) = re.findall(r"```bash\n(.*?)```", DOCS.read_text(), re.DOTALL)
    add, solve, train = (shlex.split(line)[1:] for line in block.splitlines())
    for words in (add, solve, [*train, "--list-settings"]):
        monkeypatch.setattr(sys, "argv", ["meanflow-ik", *words])
        with pytest.raises(SystemExit) as exit_info:
            main()
        assert not exit_info.value.code, words
    (example, _) = re.findall(r"```yaml\n(.*?)```", DOCS.read_text(), re.DOTALL)
    path = tmp_path / "example.yaml"
    path.write_text(example.replace("package://my_robot_description/urdf/", ""))
    assert set(read_settings(path)) == set(KEYS) - {"parts"}


def test_shipped_files_name_no_place_on_the_machine_that_made_them():
    for path in ROBOT_FOLDER.glob("*.yaml"):
        for part in read_settings(path).get("parts") or [read_settings(path)]:
            address = part.get("urdf", "")
            assert address.startswith("package://") or not Path(address).is_absolute(), path


def test_the_panda_is_the_robot_that_its_checkpoint_was_made_for():
    assert mik.load_solver("panda", sampler="meanflow").robot.ignore_collisions


def test_arms_of_a_composed_robot_are_the_arm_at_its_place():
    arm, both = mik.load_robot("panda"), mik.load_robot("dual_panda")
    q = both.random_configurations(50, torch.Generator().manual_seed(0)).numpy()
    T = both.forward(q)
    for tip, (columns, y) in enumerate(((slice(0, 7), 0.3), (slice(7, 14), -0.3))):
        T_arm = arm.forward(q[:, columns])[:, 0]
        T_arm[:, 1, 3] += y
        np.testing.assert_allclose(T[:, tip], T_arm, rtol=0, atol=1e-12)
    assert both.joint_names[:7] == tuple(f"left_{name}" for name in arm.joint_names)


PART = """
parts:
  - {{urdf: {torso}, prefix: a_}}
  - {{urdf: {torso}, prefix: b_, parent: a_right_hand, xyz: [0.1, 0.2, 0.3], rpy: [0.4, 0.5, 0.6]}}
base: a_world
tips: [a_left_tool, b_left_tool]
"""


def test_a_part_may_hang_on_a_moving_link_and_keeps_its_mimics(tmp_path):
    path = tmp_path / "chain.yaml"
    path.write_text(PART.format(torso=TORSO))
    robot = mik.load_robot(path)
    assert "b_left_elbow" in robot.joint_names and "b_left_twist" not in robot.joint_names
    q = robot.random_configurations(10, torch.Generator().manual_seed(0)).numpy()
    judge = Judge(robot)
    for row in q:
        np.testing.assert_allclose(robot.forward(row), judge.poses(row), rtol=0, atol=1e-12)
        np.testing.assert_allclose(robot.jacobian(row), judge.jacobian(row), rtol=0, atol=1e-12)


def test_a_composed_urdf_is_written_once_and_anew_when_a_part_changes(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "chain.yaml"
    path.write_text(PART.format(torso=TORSO))
    first = mik.load_robot(path).urdf_path
    written = first.stat().st_mtime_ns
    assert first.parent == tmp_path / "cache" / "meanflow_ik"
    assert mik.load_robot(path).urdf_path == first and first.stat().st_mtime_ns == written
    path.write_text(PART.format(torso=TORSO).replace("0.1, 0.2, 0.3", "0.1, 0.2, 0.4"))
    assert mik.load_robot(path).urdf_path != first
    assert list(first.parent.glob(".*")) == []


def test_a_cache_that_cannot_be_written_does_no_harm(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    robot = mik.load_robot("dual_panda")
    assert robot.urdf_path.is_file() and not robot.urdf_path.is_relative_to(tmp_path)


def test_a_draft_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def fail(path: Path) -> None:
        path.write_text("half")
        raise OSError("disk full")

    with pytest.raises(mik.RobotError, match=r"no folder takes.*disk full"):
        cache.cached_file("whole.urdf", fail)
    assert list((tmp_path / "meanflow_ik").iterdir()) == []


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ("[{robot: panda}, {robot: panda}]", "needs a parent link"),
        ("[{robot: panda}, {robot: panda, parent: nowhere}]", "'nowhere'.*one root"),
        ("[{robot: panda, parent: base}, {robot: panda, parent: base}]", "same name.*prefix"),
        ("[{robot: pand, parent: base}]", "'pand'; robots are"),
        ("[{robot: panda, urdf: x.urdf}]", "one of the keys 'urdf' and 'robot'"),
        ("[{robot: panda, place: base}]", r"\['place'\]"),
        ("[{robot: panda, parent: base, xyz: [1, 2]}]", "xyz.*3 numbers"),
        ("[{urdf: missing.urdf}]", r"missing\.urdf.*does not exist"),
        ("[]", "'parts'.*list of mappings"),
        ("panda", "'parts'.*list of mappings"),
    ],
)
def test_parts_that_make_no_robot_are_refused(tmp_path, parts, message):
    path = tmp_path / "odd.yaml"
    path.write_text(f"parts: {parts}\ntips: [panda_link8]\n")
    with pytest.raises(mik.RobotError, match=message):
        mik.load_robot(path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("tips: left_tool", "'tips'.*list of links"),
        ("held: [lift]", "'held'.*mapping from joints to numbers"),
        ("held: {lift: .nan}", "'held'.*mapping from joints to numbers"),
        ("held: {left_twist: 0.1}", "'left_twist' mimics 'left_elbow'"),
        ("ignore_collisions: [torso]", "'ignore_collisions'.*pairs of links"),
        ("workspace_scale: big", "'workspace_scale'.*length"),
        ("workspace_scale: -1", "workspace_scale is -1"),
        ("parts: []", "one of the keys 'urdf' and 'parts'"),
    ],
)
def test_values_of_the_wrong_kind_are_refused_by_their_key(tmp_path, line, message):
    path = tmp_path / "odd.yaml"
    tips = "" if line.startswith("tips") else "tips: [left_tool]\n"
    path.write_text(f"urdf: {TORSO}\n{tips}{line}\n")
    with pytest.raises(mik.RobotError, match=message):
        mik.load_robot(path)


def test_ignored_links_must_exist(tmp_path):
    path = tmp_path / "odd.yaml"
    path.write_text(f"urdf: {TORSO}\ntips: [left_tool]\nignore_collisions: [[torso, left_hnad]]\n")
    with pytest.raises(mik.LinkError, match=r"'left_hnad'.*left_hand"):
        mik.load_robot(path)


def test_without_the_extra_it_is_named(monkeypatch):
    def missing(name: str) -> metadata.Distribution:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(packages.metadata, "distribution", missing)
    monkeypatch.delenv("AMENT_PREFIX_PATH", raising=False)
    monkeypatch.delenv("ROS_PACKAGE_PATH", raising=False)
    with pytest.raises(mik.RobotError, match=r"pip install '\.\[robots\]'"):
        mik.load_robot("baxter")


@pytest.mark.parametrize("variable", ["ROS_PACKAGE_PATH", "AMENT_PREFIX_PATH", None])
def test_packages_are_found_as_ros_finds_them(tmp_path, monkeypatch, variable):
    share = tmp_path / "share"
    urdf = share / "my_robot" / "urdf" / "arm.urdf"
    urdf.parent.mkdir(parents=True)
    urdf.write_text(TORSO.read_text())
    monkeypatch.delenv("AMENT_PREFIX_PATH", raising=False)
    monkeypatch.delenv("ROS_PACKAGE_PATH", raising=False)
    near = tmp_path / "elsewhere.yaml"
    if variable is None:
        near = share / "my_robot" / "config" / "arm.yaml"
        near.parent.mkdir()
    else:
        place = share if variable == "ROS_PACKAGE_PATH" else tmp_path
        monkeypatch.setenv(variable, f"/nonexistent:{place}")
    near.write_text("urdf: package://my_robot/urdf/arm.urdf\ntips: [left_tool]\n")
    assert mik.load_robot(near).urdf_path == urdf
    near.write_text("urdf: package://my_robot/urdf/leg.urdf\ntips: [left_tool]\n")
    with pytest.raises(mik.RobotError, match="'my_robot'"):
        mik.load_robot(near)


@needs_robots
def test_a_portable_urdf_is_the_same_robot_and_needs_no_packages(tmp_path):
    robot = mik.load_robot("baxter")
    path = tmp_path / "alone.urdf"
    path.write_text(portable_urdf(robot.urdf_path))
    meshes = ElementTree.parse(path).getroot().iter("mesh")
    addresses = [mesh.get("filename", "") for mesh in meshes]
    assert addresses and all(Path(a.removeprefix("file://")).is_file() for a in addresses)
    alone = mik.load_robot(path, robot.base, robot.tips, workspace_scale=robot.workspace_scale)
    assert alone.fingerprint() == robot.fingerprint()
    gone = tmp_path / "gone.urdf"
    gone.write_text(path.read_text().replace(addresses[0], "package://nowhere/x.stl"))
    assert "package://nowhere/x.stl" in portable_urdf(gone)


def odd_urdf(tmp_path: Path, kind: str) -> Path:
    """A body that floats in the world, with a hinge and a tip on it, and a free arm elsewhere."""
    path = tmp_path / "odd.urdf"
    root = ElementTree.Element("robot", name="odd")
    for link in ("world", "body", "arm", "ball"):
        ElementTree.SubElement(root, "link", name=link)
    joints = (("float", kind, "world", "body"), ("hinge", "revolute", "body", "arm"),
              ("loose", kind, "body", "ball"))  # fmt: skip
    for name, joint_kind, parent, child in joints:
        joint = ElementTree.SubElement(root, "joint", name=name, type=joint_kind)
        ElementTree.SubElement(joint, "parent", link=parent)
        ElementTree.SubElement(joint, "child", link=child)
        ElementTree.SubElement(joint, "axis", xyz="0 0 1")
        ElementTree.SubElement(joint, "limit", lower="-1", upper="1", velocity="1", effort="1")
    transmission = ElementTree.SubElement(root, "transmission", name="t")
    ElementTree.SubElement(transmission, "joint", name="hinge")
    path.write_bytes(ElementTree.tostring(root))
    return path


@pytest.mark.parametrize("kind", ["floating", "planar"])
def test_free_joints_are_refused_only_where_they_move_a_tip(tmp_path, kind):
    path = odd_urdf(tmp_path, kind)
    with pytest.raises(mik.RobotError, match=f"'float'.*'{kind}'.*choose a base"):
        mik.load_robot(path, tips=["arm"])
    with pytest.raises(mik.RobotError, match=f"'loose'.*'{kind}'"):
        mik.load_robot(path, base="body", tips=["arm", "ball"])
    robot = mik.load_robot(path, base="body", tips=["arm"])
    assert robot.joint_names == ("hinge",)
    angle = np.array([0.7])
    expected = np.eye(4)
    expected[:3, :3] = pin.exp3(np.array([0, 0, 0.7]))
    np.testing.assert_allclose(robot.forward(angle)[0], expected, rtol=0, atol=1e-12)
    assert not SelfCollision(robot).in_collision(angle)


def test_a_users_file_may_have_the_name_of_a_shipped_robot_that_is_its_part(tmp_path):
    path = tmp_path / "panda.yaml"
    path.write_text("parts: [{robot: panda, prefix: a_, parent: base}]\ntips: [a_panda_link8]\n")
    assert mik.load_robot(path).num_joints == 7


def test_a_robot_is_no_part_of_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(robot_file, "ROBOT_FOLDER", tmp_path)
    (tmp_path / "me.yaml").write_text("parts: [{robot: me, parent: base}]\ntips: [a]\n")
    with pytest.raises(mik.RobotError, match="is the robot 'me'"):
        mik.load_robot("me")


@pytest.mark.parametrize("xyz", ["[0, .nan, 0]", "[0, .inf, 0]", "0 0 0"])
def test_parts_at_no_place_are_refused(tmp_path, xyz):
    path = tmp_path / "odd.yaml"
    path.write_text(f"parts: [{{robot: panda, parent: b, xyz: {xyz}}}]\ntips: [panda_link8]\n")
    with pytest.raises(mik.RobotError, match=r"xyz of a part.*3 numbers"):
        mik.load_robot(path)
