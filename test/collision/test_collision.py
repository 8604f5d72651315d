# SPDX-License-Identifier: Apache-2.0
"""Self-collision against closed forms, plain postures, and Pinocchio on the raw meshes."""

import re
import struct
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pinocchio as pin
import pytest
import torch
from example_robots import NAMES, TORSO
from oracles import Judge

import meanflow_ik_core as mik
from meanflow_ik_core.collision.self_collision import SelfCollision


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


MESHED = """
<robot name="r"><link name="a"><collision><geometry>{first}</geometry></collision></link>
  <link name="b"/><link name="c"><collision><geometry>{second}</geometry></collision></link>
  <joint name="turn" type="revolute"><parent link="a"/><child link="b"/><axis xyz="0 0 1"/>
    <limit lower="-3" upper="3" velocity="1" effort="1"/></joint>
  <joint name="slide" type="prismatic"><parent link="b"/><child link="c"/><axis xyz="1 0 0"/>
    <limit lower="0" upper="3" velocity="1" effort="1"/></joint></robot>
"""
BALL = '<sphere radius="0.1"/>'


def write_stl(path: Path, boxes: list[tuple[tuple, tuple]]) -> None:
    """A binary STL of axis-aligned boxes, each given by its lowest and highest corner."""
    triangles = []
    for low, high in boxes:
        corners = np.array([[(low, high)[i >> k & 1][k] for k in range(3)] for i in range(8)])
        for face in (
            (0, 1, 3, 2),
            (4, 5, 7, 6),
            (0, 1, 5, 4),
            (2, 3, 7, 6),
            (0, 2, 6, 4),
            (1, 3, 7, 5),
        ):
            a, b, c, d = corners[list(face)]
            triangles += [(a, b, c), (a, c, d)]
    body = b"".join(
        struct.pack("<12fH", 0, 0, 0, *np.concatenate(triangle), 0) for triangle in triangles
    )
    path.write_bytes(bytes(80) + struct.pack("<I", len(triangles)) + body)


def meshed_robot(folder: Path, first: str, second: str = BALL) -> mik.Robot:
    path = folder / "meshed.urdf"
    path.write_text(MESHED.format(first=first, second=second))
    return mik.load_robot(path, tips=["c"])


def test_a_convex_mesh_is_solid(tmp_path):
    write_stl(tmp_path / "cube.stl", [((-0.2, -0.2, -0.2), (0.2, 0.2, 0.2))])
    check = SelfCollision(meshed_robot(tmp_path, '<mesh filename="cube.stl" scale="2 2 2"/>'))
    assert check.in_collision(np.array([[0.0, d] for d in (0.0, 0.2, 0.49, 0.51)])).tolist() == [
        True, True, True, False,
    ]  # fmt: skip


def test_the_room_between_the_arms_of_a_mesh_is_free(tmp_path):
    walls = [((-1.0, y, -0.2), (1.0, y + 0.1, 0.2)) for y in (-0.5, 0.4)]
    write_stl(tmp_path / "walls.stl", walls)
    check = SelfCollision(meshed_robot(tmp_path, '<mesh filename="walls.stl"/>'))
    along, across = np.array([0.0, 0.5]), np.array([np.pi / 2, 0.45])
    assert check.in_collision(np.stack((along, across))).tolist() == [False, True]


@pytest.mark.parametrize("name", NAMES)
def test_the_answer_is_that_of_pinocchio_on_the_raw_shapes(name):
    robot = mik.load_robot(name)
    check = SelfCollision(robot)
    judge = Judge(robot)
    model, shapes = judge.model, judge.shapes(pin.GeometryType.COLLISION)
    links = [model.frames[shape.parentFrame].name for shape in shapes.geometryObjects]
    pairs = {frozenset(pair) for pair in check.pairs()}
    for first in range(len(links)):
        for second in range(first):
            if {links[first], links[second]} in pairs:
                shapes.addCollisionPair(pin.CollisionPair(first, second))
    q = robot.random_configurations(100, torch.Generator().manual_seed(3)).numpy()
    expected = judge.collides(shapes, q)
    assert check.in_collision(q).tolist() == expected
    assert check.in_collision(q[::-1]).tolist() == expected[::-1]
    assert check.in_collision(q.reshape(4, 25, -1)).ravel().tolist() == expected


def test_ignored_pairs_and_pairs_that_no_joint_moves_are_not_checked(tmp_path):
    path = tmp_path / "arms.yaml"
    path.write_text(f"urdf: {TORSO}\ntips: [left_tool, right_hand]\n")
    every = SelfCollision(mik.load_robot(path)).pairs()
    path.write_text(path.read_text() + "ignore_collisions: [[right_hand, left_hand]]\n")
    assert set(every) - set(SelfCollision(mik.load_robot(path)).pairs()) == {
        ("left_hand", "right_hand")
    }
    one_arm = mik.load_robot(TORSO, tips=["left_tool"], base="torso", held={"turn": 0.0})
    assert ("right_hand", "torso") in every
    assert ("right_hand", "torso") not in SelfCollision(one_arm).pairs()


@pytest.mark.parametrize("shoulder", [-0.6, -0.4])
def test_links_that_are_held_are_checked_where_they_are_held(shoulder):
    held = {"right_shoulder": shoulder, "right_elbow": -1.6, "right_slide": 0.15}
    robot = mik.load_robot(TORSO, tips=["left_hand"], held=held)
    hands = ("left_hand", "right_hand")
    others = [pair for pair in SelfCollision(robot).pairs() if pair != hands]
    check = SelfCollision(robot, others)
    assert check.pairs() == [hands]
    both = mik.load_robot(TORSO, tips=hands)
    q = robot.random_configurations(20000, torch.Generator().manual_seed(0)).numpy()
    full = np.tile([held.get(name, 0.0) for name in both.joint_names], (len(q), 1))
    full[:, [both.joint_names.index(name) for name in robot.joint_names]] = q
    centres = both.forward(full)[..., :3, 3]
    distance = np.linalg.norm(centres[:, 0] - centres[:, 1], axis=-1)
    clear = np.abs(distance - 0.1) > 1e-6
    assert (check.in_collision(q) == (distance < 0.1))[clear].all()
    assert (distance < 0.1).any()


def test_shapes_that_are_missing_damaged_or_malformed_are_refused_by_name(tmp_path):
    (tmp_path / "torn.stl").write_bytes(b"solid nothing")
    for first, message in (
        ('<mesh filename="package://nowhere/b.stl"/>', r"package://nowhere/b\.stl.*meshed\.urdf"),
        ('<mesh filename="gone.stl"/>', r"gone\.stl.*does not exist"),
        ('<mesh filename="torn.stl"/>', r"torn\.stl.*cannot be read"),
        ('<sphere radius="big"/>', r"link 'a'.*malformed.*big"),
        ('<box size="1 1"/>', r"link 'a'.*malformed.*3 numbers"),
        ('<box size="0 0 0"/>', r"link 'a'.*size of its box is '0 0 0'.*positive"),
        ('<sphere radius="-0.1"/>', r"link 'a'.*radius of its sphere is '-0.1'.*positive"),
        ('<torus radius="1"/>', r"link 'a'.*<torus>"),
    ):
        with pytest.raises(mik.RobotError, match=message):
            SelfCollision(meshed_robot(tmp_path, first))


def adjacent_pairs(urdf: Path) -> set[frozenset[str]]:
    """Links with shapes that meet in one joint, read from the XML: fixed empty links melt away."""
    root = ElementTree.parse(urdf).getroot()
    shaped = {link.get("name") for link in root.iter("link") if link.find("collision") is not None}
    below: dict[str, list[tuple[str, bool]]] = {}
    for joint in root.findall("joint"):
        parent, child = (joint.find(side).attrib["link"] for side in ("parent", "child"))
        below.setdefault(parent, []).append((child, joint.get("type") != "fixed"))
    pairs = set()
    for link in shaped:
        open_ends = [(child, int(moves)) for child, moves in below.get(link, [])]
        while open_ends:
            child, moved = open_ends.pop()
            if moved > 1:
                continue
            if child in shaped:
                pairs.add(frozenset((link, child)))
            else:
                open_ends += [(c, moved + moves) for c, moves in below.get(child, [])]
    return pairs


def all_pairs_to_check(judge: Judge, robot: mik.Robot) -> pin.GeometryModel:
    """Pinocchio's own reading of the shapes, with all pairs that are neither adjacent nor listed
    and that a joint of the robot moves."""
    model, shapes = judge.model, judge.shapes(pin.GeometryType.COLLISION)
    left_out = adjacent_pairs(robot.urdf_path)
    left_out |= {frozenset(pair) for pair in robot.ignore_collisions or ()}
    solved = {model.getJointId(name) for name in robot.joint_names}

    def movers(shape: pin.GeometryObject) -> set[int]:
        return set(model.supports[shape.parentJoint]) & solved

    objects = shapes.geometryObjects
    links = [model.frames[shape.parentFrame].name for shape in objects]
    for first in range(len(links)):
        for second in range(first + 1, len(links)):
            moving = movers(objects[first]) != movers(objects[second])
            if moving and frozenset((links[first], links[second])) not in left_out:
                shapes.addCollisionPair(pin.CollisionPair(first, second))
    return shapes


def agrees_with_oracle(robot: mik.Robot, q: np.ndarray) -> np.ndarray:
    judge = Judge(robot)
    shapes = all_pairs_to_check(judge, robot)
    links = [judge.model.frames[shape.parentFrame].name for shape in shapes.geometryObjects]
    named = {tuple(sorted((links[p.first], links[p.second]))) for p in shapes.collisionPairs}
    check = SelfCollision(robot)
    assert set(check.pairs()) == named
    expected = judge.collides(shapes, q)
    assert check.in_collision(q).tolist() == expected
    return np.array(expected)


@pytest.mark.parametrize("name", NAMES)
def test_all_links_that_no_joint_connects_and_no_list_names_are_checked(name):
    robot = mik.load_robot(name)
    q = robot.random_configurations(25, torch.Generator().manual_seed(4)).numpy()
    agrees_with_oracle(robot, q)


POLE = """
<robot name="pole"><link name="base"><collision><geometry><box size="0.1 0.1 0.1"/></geometry>
  </collision></link>
  <link name="pole"><collision><origin xyz="0 0 0.3"/><geometry>
    <cylinder radius="0.05" length="0.6"/></geometry></collision></link>
  <link name="boom"><collision><origin xyz="0.3 0 0"/><geometry><box size="0.6 0.04 0.04"/>
    </geometry></collision></link>
  <joint name="foot" type="fixed"><parent link="base"/><child link="pole"/>
    <origin xyz="0.4 0 0"/></joint>
  {mount}
  <joint name="turn" type="revolute"><parent link="{carrier}"/><child link="boom"/>
    <origin xyz="0 0 0.3"/><axis xyz="0 0 1"/>
    <limit lower="-3" upper="3" velocity="1" effort="1"/></joint></robot>
"""
MOUNT = """<link name="mount"/><joint name="bolt" type="{kind}"><parent link="base"/>
  <child link="mount"/><axis xyz="0 0 1"/>
  <limit lower="-3" upper="3" velocity="1" effort="1"/></joint>"""


def test_a_boom_that_swings_into_a_pole_fixed_to_the_base_collides(tmp_path):
    path = tmp_path / "pole.urdf"
    path.write_text(POLE.format(mount="", carrier="base"))
    robot = mik.load_robot(path, tips=["boom"])
    q = np.linspace(-3, 3, 61)[:, None]
    touching = agrees_with_oracle(robot, q)
    assert touching[30] and not touching[0] and SelfCollision(robot).pairs() == [("boom", "pole")]


@pytest.mark.parametrize(("kind", "checked"), [("fixed", False), ("revolute", True)])
def test_links_without_shapes_are_part_of_a_joint_only_where_they_are_fixed(
    tmp_path, kind, checked
):
    path = tmp_path / "pole.urdf"
    path.write_text(POLE.format(mount=MOUNT.format(kind=kind), carrier="mount"))
    robot = mik.load_robot(path, tips=["boom"])
    assert (("base", "boom") in SelfCollision(robot, ()).pairs()) == checked


def test_an_empty_list_ignores_nothing_and_none_leaves_out_what_always_overlaps(tmp_path):
    robot = meshed_robot(tmp_path, '<sphere radius="5"/>')
    assert SelfCollision(robot).pairs() == []
    path = tmp_path / "all.yaml"
    path.write_text("urdf: meshed.urdf\ntips: [c]\nignore_collisions: []\n")
    assert SelfCollision(mik.load_robot(path)).pairs() == [("a", "c")]


def test_a_robot_without_shapes_is_told_of_and_never_touches(tmp_path, caplog):
    path = tmp_path / "bare.urdf"
    shapes = re.compile("<collision>.*?</collision>", re.DOTALL)
    path.write_text(shapes.sub("", POLE.format(mount="", carrier="base")))
    check = SelfCollision(mik.load_robot(path, tips=["boom"]))
    assert "bare has no collision shapes" in caplog.text
    assert not check.in_collision(np.zeros((3, 1))).any()


SLIDES = """<robot name="m"><link name="a"><collision><geometry><mesh filename="{}"/></geometry>
</collision></link><link name="b"/><link name="c"><collision><geometry><sphere radius="0.01"/>
</geometry></collision></link><joint name="x" type="prismatic"><parent link="a"/><child link="b"/>
<axis xyz="1 0 0"/><limit lower="-9" upper="9" effort="1" velocity="1"/></joint>
<joint name="z" type="prismatic"><parent link="b"/><child link="c"/><axis xyz="0 0 1"/>
<limit lower="-9" upper="9" effort="1" velocity="1"/></joint></robot>"""
BOX = """<COLLADA xmlns="http://www.collada.org/2005/11/COLLADASchema" version="1.4.1"><asset>{}
</asset><library_geometries><geometry id="g"><mesh><source id="p"><float_array id="a" count="24">
-5 -10 -15 -5 -10 15 -5 10 -15 -5 10 15 5 -10 -15 5 -10 15 5 10 -15 5 10 15</float_array>
<technique_common><accessor source="#a" count="8" stride="3"><param name="X" type="float"/>
<param name="Y" type="float"/><param name="Z" type="float"/></accessor></technique_common></source>
<vertices id="v"><input semantic="POSITION" source="#p"/></vertices><triangles count="12">
<input semantic="VERTEX" source="#v" offset="0"/><p>0 1 3 0 3 2 4 6 7 4 7 5 0 4 5 0 5 1 2 3 7 2 7 6
0 2 6 0 6 4 1 5 7 1 7 3</p></triangles></mesh></geometry></library_geometries>
<library_visual_scenes><visual_scene id="s"><node><instance_geometry url="#g"/></node>
</visual_scene></library_visual_scenes><scene><instance_visual_scene url="#s"/></scene></COLLADA>"""


@pytest.mark.parametrize(
    ("unit", "metres"),
    [('<unit meter="0.1"/>', 0.1), ('<unit name="inch" meter="0.0254"/>', 0.0254), ("", 1.0)],
)
def test_a_collada_mesh_has_the_unit_that_it_names(tmp_path, unit, metres):
    (tmp_path / "box.dae").write_text(BOX.format(unit))
    (tmp_path / "m.urdf").write_text(SLIDES.format("box.dae"))
    robot = mik.load_robot(tmp_path / "m.urdf")
    x = np.linspace(-8, 8, 3201)
    hit = SelfCollision(robot, ()).in_collision(np.stack((x, 0 * x), 1))
    assert np.abs(x[hit]).max() == pytest.approx(min(5 * metres + 0.01, 8), abs=0.006)


def test_a_missing_mesh_blocks_only_what_needs_it(tmp_path, caplog):
    (tmp_path / "m.urdf").write_text(SLIDES.format("package://nowhere/gone.stl"))
    solver = mik.load_solver(mik.load_robot(tmp_path / "m.urdf"), sampler="uniform")
    solver.warm_up()
    assert "gone.stl" in caplog.text
    target = solver.robot.forward(np.array([1.0, 0.2]))
    assert solver.solve(target, seed=0).valid.any()
    assert mik.solve_path(solver, target, seed=0).valid
    for options in ({"avoid_self_collision": True}, {"objectives": ["clearance"]}):
        with pytest.raises(mik.RobotError, match=r"gone\.stl"):
            solver.solve(target, seed=0, **options)
