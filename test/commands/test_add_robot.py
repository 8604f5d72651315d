# SPDX-License-Identifier: Apache-2.0
"""`meanflow-ik add-robot`: the file it writes is a robot, and its list of pairs is right."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pinocchio as pin
import pytest
import torch
import yaml
from example_robots import NAMES, TORSO

import meanflow_ik_core as mik
from meanflow_ik_core.collision.self_collision import SelfCollision
from meanflow_ik_core.commands.app import main
from meanflow_ik_core.commands.robot_file_draft import draft_robot_file, write_robot_file
from meanflow_ik_core.robot.robot_file import ROBOT_FOLDER

# Along a line: the post with its always touching sleeve, a slider 1 m away that never comes near,
# and a hinge whose ball swings into the post.
URDF = """
<robot name="line">
  <link name="ground"/>
  <link name="post"><collision><geometry><box size="0.2 0.2 0.2"/></geometry></collision></link>
  <link name="core"/>
  <link name="sleeve"><collision><geometry><sphere radius="0.15"/></geometry></collision></link>
  <link name="slider"><collision><geometry><sphere radius="0.1"/></geometry></collision></link>
  <link name="upper"/>
  <link name="ball"><collision><geometry><sphere radius="0.1"/></geometry></collision></link>
  <joint name="stand" type="fixed"><parent link="ground"/><child link="post"/></joint>
  <joint name="spin" type="continuous"><parent link="ground"/><child link="core"/></joint>
  <joint name="turn" type="revolute"><parent link="core"/><child link="sleeve"/>
    <axis xyz="0 0 1"/><limit lower="-1" upper="1" velocity="1" effort="1"/></joint>
  <joint name="slide" type="prismatic"><parent link="sleeve"/><child link="slider"/>
    <origin xyz="1 0 0"/><axis xyz="1 0 0"/>
    <limit lower="0" upper="0.5" velocity="1" effort="1"/></joint>
  <joint name="swing" type="revolute"><parent link="core"/><child link="upper"/>
    <origin xyz="0 0.4 0"/><axis xyz="0 0 1"/>
    <limit lower="-3" upper="3" velocity="1" effort="1"/></joint>
  <joint name="bend" type="revolute"><parent link="upper"/><child link="ball"/>
    <origin xyz="0 0.4 0"/><axis xyz="0 0 1"/>
    <limit lower="-3" upper="3" velocity="1" effort="1"/></joint>
</robot>
"""


@pytest.fixture
def urdf(tmp_path) -> Path:
    path = tmp_path / "line.urdf"
    path.write_text(URDF)
    return path


def run(monkeypatch, capsys, *arguments: object) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["meanflow-ik", "add-robot", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit_info:
        main()
    printed = capsys.readouterr()
    return int(exit_info.value.code or 0), printed.out, printed.err


def test_the_written_file_is_the_robot_that_was_asked_for(urdf, monkeypatch, capsys):
    path = urdf.with_name("mine.yaml")
    code, out, _ = run(
        monkeypatch, capsys, urdf, "--tip", "slider", "--tip", "ball", "--hold", "turn=-0.5",
        "spin=1e-1", "--base", "post", "--output", path, "--samples", 1000,
    )  # fmt: skip
    assert code == 0 and "mine.yaml" in out and "joints: swing, bend, slide" in out
    content = yaml.safe_load(path.read_text())
    assert content["urdf"] == "line.urdf"
    assert content["held"] == {"turn": -0.5, "spin": 0.1}
    robot = mik.load_robot(path)
    assert (robot.base, robot.tips) == ("post", ("slider", "ball"))
    q = robot.random_configurations(1, torch.Generator().manual_seed(0))[0].numpy()
    model = pin.buildModelFromUrdf(str(urdf))
    full = np.array([np.cos(0.1), np.sin(0.1), q[0], q[1], -0.5, q[2]])
    assert list(model.names)[1:] == ["spin", "swing", "bend", "turn", "slide"]
    data = model.createData()
    pin.framesForwardKinematics(model, data, full)
    for tip, link in enumerate(robot.tips):
        expected = data.oMf[model.getFrameId(link)].homogeneous
        np.testing.assert_allclose(robot.forward(q)[tip], expected, rtol=0, atol=1e-12)


def test_pairs_are_sorted_by_what_sampling_shows(urdf):
    found = draft_robot_file(urdf, urdf.with_suffix(".yaml"), tips=["slider", "ball"])
    assert found.pairs.always == (("post", "sleeve"),)
    assert ("post", "slider") in found.pairs.never
    robot = mik.load_robot(urdf, tips=["slider", "ball"])
    left = SelfCollision(robot, [*found.pairs.always, *found.pairs.never]).pairs()
    assert ("ball", "post") in left and ("ball", "sleeve") in left
    assert len(left) == found.pairs.checked


def test_the_scale_is_the_reach_rounded_up(urdf):
    found = draft_robot_file(urdf, urdf.with_suffix(".yaml"), tips=["slider", "ball"])
    assert 1.45 < found.reach <= 1.5 and found.settings["workspace_scale"] == 1.5
    renewed = draft_robot_file("panda", Path("panda.yaml"), samples=1000)
    assert renewed.settings["workspace_scale"] == mik.load_robot("panda").workspace_scale


def test_a_moveit_srdf_is_taken_over_but_not_what_it_never_saw_touch(urdf):
    srdf = urdf.with_suffix(".srdf")
    srdf.write_text(
        '<robot name="line"><disable_collisions link1="sleeve" link2="ball" reason="User"/>'
        '<disable_collisions link1="ball" link2="post" reason="Never"/></robot>'
    )
    found = draft_robot_file(urdf, urdf.with_suffix(".yaml"), tips=["slider", "ball"], srdf=srdf)
    assert found.pairs.srdf == (("ball", "sleeve"),)
    assert ("ball", "post") not in found.pairs.never


def test_an_existing_file_is_kept_unless_forced(urdf, monkeypatch, capsys):
    path = urdf.with_suffix(".yaml")
    path.write_text("mine")
    ask = (urdf, "--tip", "ball", "--output", path, "--samples", 1000)
    code, _, err = run(monkeypatch, capsys, *ask)
    assert code == 2 and "--force" in err and path.read_text() == "mine"
    assert run(monkeypatch, capsys, *ask, "--force")[0] == 0
    assert mik.load_robot(path).tips == ("ball",)


def test_renewing_a_robot_file_keeps_what_it_says(tmp_path, monkeypatch, capsys):
    path = tmp_path / "both.yaml"
    path.write_text(
        "# Two of them.\nparts:\n"
        f"  - {{urdf: {TORSO}, prefix: a_, parent: base}}\n"
        f"  - {{urdf: {TORSO}, prefix: b_, parent: base, xyz: [2, 0, 0]}}\n"
        "base: base\ntips: [a_left_tool, b_right_hand]\nheld: {a_turn: 0.5}\nworkspace_scale: 3\n"
    )
    before = mik.load_robot(path)
    assert run(monkeypatch, capsys, path, "--output", path, "--force", "--samples", 1000)[0] == 0
    after = mik.load_robot(path)
    assert path.read_text().startswith("# Two of them.\nparts:\n  - {")
    assert after.fingerprint() == before.fingerprint() and after.held == before.held
    assert after.ignore_collisions


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tip", "ball", "ball"], "twice"),
        (["--tip", "bal"], "'bal' is not a link; links are ball"),
        (["--tip", "post"], "no joint moves tip 'post'"),
        ([], "leaf links"),
        (["--tip", "ball", "--hold", "swing"], "JOINT=VALUE"),
        (["--tip", "ball", "--hold", "swing=0_1"], "JOINT=VALUE"),
        (["--tip", "ball", "--hold", "swong=1"], "'swong' is unknown; joints are swing"),
        (["--tip", "ball", "--samples", "10"], "at least 1000"),
        (["--tip", "ball", "--srdf", "/nonexistent.srdf"], "cannot read /nonexistent"),
    ],
)
def test_what_makes_no_robot_is_refused_by_name(urdf, monkeypatch, capsys, arguments, message):
    path = urdf.with_suffix(".yaml")
    code, _, err = run(monkeypatch, capsys, urdf, "--output", path, *arguments)
    assert code == 2 and message in err and not path.exists()


def test_the_command_line_is_a_module_too():
    command = [sys.executable, "-m", "meanflow_ik_core.cli", "add-robot", "--help"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "--tip" in done.stdout


def test_the_shipped_lists_are_what_the_command_writes(tmp_path):
    shipped = (ROBOT_FOLDER / "dual_panda.yaml").read_text()
    assert draft_robot_file("dual_panda", tmp_path / "dual_panda.yaml").text() == shipped


@pytest.mark.parametrize("name", NAMES)
def test_what_a_shipped_list_says_never_touches_does_not(name):
    robot = mik.load_robot(name)
    text = (ROBOT_FOLDER / f"{name}.yaml").read_text()
    never = {
        tuple(sorted(p)) for p in yaml.safe_load(text.split("# never touch")[1].split("\n", 1)[1])
    }
    every = SelfCollision(robot, ()).pairs()
    check = SelfCollision(robot, [pair for pair in every if pair not in never])
    assert set(check.pairs()) == never
    q = robot.random_configurations(2000, torch.Generator().manual_seed(11)).numpy()
    assert not check.in_collision(q).any()


def test_a_renewed_file_elsewhere_finds_the_urdfs_of_its_parts(tmp_path, monkeypatch, capsys):
    source = tmp_path / "here" / "two.yaml"
    (source.parent / "arm").mkdir(parents=True)
    (source.parent / "arm" / "arm.urdf").write_text(TORSO.read_text())
    source.write_text(
        "parts:\n  - {urdf: arm/arm.urdf, prefix: a_, parent: base}\n  - {robot: panda, "
        "prefix: b_, parent: base, xyz: [2, 0, 0]}\ntips: [a_left_tool, b_panda_link8]\n"
    )
    output = tmp_path / "there" / "two.yaml"
    output.parent.mkdir()
    done = run(monkeypatch, capsys, source, "--output", output, "--samples", 1000)
    assert done[0] == 0, done
    moved, before = mik.load_robot(output), mik.load_robot(source)
    q = before.random_configurations(3, torch.Generator().manual_seed(0)).numpy()
    np.testing.assert_array_equal(moved.forward(q), before.forward(q))


def test_an_address_that_only_the_source_finds_becomes_a_path(tmp_path, monkeypatch, capsys):
    urdf = tmp_path / "workspace" / "my_arm" / "urdf" / "arm.urdf"
    urdf.parent.mkdir(parents=True)
    urdf.write_text(URDF)
    source, address = urdf.with_name("arm.yaml"), "package://my_arm/urdf/arm.urdf"
    source.write_text(f"urdf: {address}\ntips: [ball]\n")
    path = "workspace/my_arm/urdf/arm.urdf"
    for output, named in {urdf.with_name("b.yaml"): address, tmp_path / "b.yaml": path}.items():
        done = run(monkeypatch, capsys, source, "--output", output, "--samples", 1000)
        assert done[0] == 0 and yaml.safe_load(output.read_text())["urdf"] == named
        assert mik.load_robot(output).urdf_path.resolve() == urdf.resolve()


def test_names_that_yaml_reads_as_something_else_come_back_as_names(tmp_path):
    names = {"post": "1", "sleeve": "on", "ball": "no, way: #x", "slider": "основа", "turn": "y"}
    text = URDF
    for plain, odd in names.items():
        text = text.replace(f'"{plain}"', f'"{odd}"')
    urdf = tmp_path / "odd.urdf"
    urdf.write_text(text, encoding="utf-8")
    output = tmp_path / "odd.yaml"
    tips = ["основа", "no, way: #x"]
    found = draft_robot_file(urdf, output, tips=tips, held={"y": 0.1}, samples=1000)
    write_robot_file(found, output)
    robot = mik.load_robot(output)
    assert robot.tips == tuple(tips) and robot.held == {"y": 0.1}
    assert set(robot.ignore_collisions or ()) == {*found.pairs.always, *found.pairs.never}
    assert {"1", "основа"} <= {name for pair in found.pairs.never for name in pair}
    assert "основа" in output.read_text(encoding="utf-8")


def test_what_could_not_be_read_back_is_not_written(urdf):
    output = urdf.with_suffix(".yaml")
    found = draft_robot_file(urdf, output, tips=["ball"], samples=1000)
    gone = dataclasses.replace(found, settings={**found.settings, "urdf": "gone.urdf"})
    with pytest.raises(mik.RobotError, match=r"not written.*gone\.urdf.*does not exist"):
        write_robot_file(gone, output)
    other = dataclasses.replace(found, settings={**found.settings, "tips": ["slider"]})
    with pytest.raises(mik.RobotError, match="another robot"):
        write_robot_file(other, output)
    assert not output.exists()


def test_only_a_name_that_can_be_loaded_is_an_output(urdf, monkeypatch, capsys):
    output = urdf.with_suffix(".txt")
    code, _, err = run(monkeypatch, capsys, urdf, "--tip", "ball", "--output", output)
    assert code == 2 and ".yaml or .yml" in err and not output.exists()


def test_where_no_pair_is_ignored_the_list_is_empty_and_complete(tmp_path):
    urdf = tmp_path / "bare.urdf"
    urdf.write_text(re.sub("<collision>.*?</collision>", "", URDF))
    output = tmp_path / "bare.yaml"
    write_robot_file(draft_robot_file(urdf, output, tips=["ball"], samples=1000), output)
    assert mik.load_robot(output).ignore_collisions == ()


def test_a_robot_without_shapes_is_warned_of(tmp_path, caplog):
    urdf = tmp_path / "bare.urdf"
    urdf.write_text(re.sub("<collision>.*?</collision>", "", URDF))
    draft_robot_file(urdf, tmp_path / "bare.yaml", tips=["ball"], samples=1000)
    assert "no collision shapes" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('<sdf><disable_collisions link1="post" link2="ball"/></sdf>', "root element <sdf>"),
        ('<robot name="r2"><disable_collisions link1="post" link2="arm"/></robot>', "'r2'.*'arm'"),
        ('<robot name="line"><disable_collisions link1="leg" link2="arm"/></robot>', "'arm'"),
    ],
)
def test_an_srdf_of_another_robot_is_refused(urdf, text, message):
    srdf = urdf.with_suffix(".srdf")
    srdf.write_text(text)
    with pytest.raises(mik.OptionError, match=message):
        draft_robot_file(urdf, urdf.with_suffix(".yaml"), tips=["ball"], srdf=srdf, samples=1000)


def test_an_srdf_of_a_version_with_more_links_is_taken(urdf):
    srdf = urdf.with_suffix(".srdf")
    srdf.write_text(
        '<robot name="line"><disable_collisions link1="sleeve" link2="ball" reason="User"/>'
        '<disable_collisions link1="leg" link2="ball" reason="User"/></robot>'
    )
    output = urdf.with_suffix(".yaml")
    found = draft_robot_file(urdf, output, tips=["slider", "ball"], srdf=srdf, samples=1000)
    assert found.pairs.srdf == (("ball", "sleeve"),)


@pytest.mark.parametrize(
    ("text", "off"),
    [
        ('<disable_default_collisions link="ball"/>', {"post", "sleeve", "slider"}),
        (
            '<disable_default_collisions link="ball"/>'
            '<enable_collisions link1="ball" link2="post"/>',
            {"sleeve", "slider"},
        ),
        (
            '<enable_collisions link1="ball" link2="post"/>'
            '<disable_collisions link1="post" link2="ball"/>',
            {"post"},
        ),
    ],
)
def test_defaults_of_an_srdf_count_as_in_moveit(urdf, text, off):
    srdf = urdf.with_suffix(".srdf")
    srdf.write_text(f'<robot name="line">{text}</robot>')
    found = draft_robot_file(
        urdf, urdf.with_suffix(".yaml"), tips=["slider", "ball"], srdf=srdf, samples=1000
    )
    assert {frozenset(pair) for pair in found.pairs.srdf} == {frozenset((o, "ball")) for o in off}


def test_an_srdf_that_is_xacro_is_named(urdf):
    srdf = urdf.with_suffix(".srdf")
    srdf.write_text(
        '<robot xmlns:xacro="http://www.ros.org/wiki/xacro" name="line">'
        '<xacro:macro name="m"/></robot>'
    )
    with pytest.raises(mik.RobotError, match="is a xacro file"):
        draft_robot_file(urdf, urdf.with_suffix(".yaml"), tips=["ball"], srdf=srdf, samples=1000)


def test_pairs_that_mostly_touch_are_named_and_left_out_on_request(tmp_path, monkeypatch, capsys):
    """The ball is in the post's sphere where the hinge is turned by more than a quarter."""
    urdf = tmp_path / "line.urdf"
    urdf.write_text(URDF.replace('<box size="0.2 0.2 0.2"/>', '<sphere radius="0.62"/>'))
    ask = (urdf, "--tip", "slider", "ball", "--samples", 1000, "--force")
    code, out, _ = run(monkeypatch, capsys, *ask, "--output", tmp_path / "a.yaml")
    assert code == 0 and re.search(r"ball:post [5-9]\d%", " ".join(out.split()))
    code, out, _ = run(
        monkeypatch, capsys, *ask, "--output", tmp_path / "a.yaml", "--ignore", "post:ball"
    )
    assert code == 0 and "ball:post" not in out
    assert ("ball", "post") in (mik.load_robot(tmp_path / "a.yaml").ignore_collisions or ())
    for pair, words in (("post", "LINK:LINK"), ("post:bal", "'bal'")):
        code, _, err = run(
            monkeypatch, capsys, *ask, "--output", tmp_path / "b.yaml", "--ignore", pair
        )
        assert code == 2 and words in err


def test_a_missing_mesh_leaves_out_the_pairs_alone(tmp_path, monkeypatch, capsys, caplog):
    urdf = tmp_path / "line.urdf"
    urdf.write_text(URDF.replace('<box size="0.2 0.2 0.2"/>', '<mesh filename="gone.stl"/>'))
    output = tmp_path / "line.yaml"
    code, out, _ = run(
        monkeypatch, capsys, urdf, "--tip", "ball", "--samples", 1000, "--output", output
    )
    assert code == 0 and "gone.stl" in caplog.text and "not looked at" in out
    robot = mik.load_robot(output)
    assert robot.tips == ("ball",) and robot.ignore_collisions is None


def test_a_urdf_behind_the_tips_is_pointed_out(urdf, monkeypatch, capsys):
    code, _, err = run(monkeypatch, capsys, "--tip", "slider", "ball", urdf)
    assert code == 2 and "line.urdf' is taken for a value" in err
    output = urdf.with_suffix(".yaml")
    words = ("--tip", "ball", "--output", output, "--samples", 1000, "--", urdf)
    assert run(monkeypatch, capsys, *words)[0] == 0 and mik.load_robot(output).tips == ("ball",)
