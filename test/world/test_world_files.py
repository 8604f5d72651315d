# SPDX-License-Identifier: Apache-2.0
"""Worlds in files: what is saved is read again, and a stranger's file reaches nothing else."""

import time

import numpy as np
import pytest
from world_judge import cube, furnished, solutions

import meanflow_ik_core as mik

SCENE = """(noname)+
* table
0.5 0 0.1
0 0 0 1
1
box
0.4 0.6 0.2
0 0 0.1
0 0 0 1
0 0 0 0
0
* two
0 0 0
0 0 0 1
2
cylinder
0.05 0.3
0.1 0.2 0.3
0 0 0.7071067811865476 0.7071067811865476
0 0 0 0
sphere
0.1
0 0 1
0 0 0 1
1 0 0 1
1
grip
0 0 0
0 0 0 1
.
"""


def old_form(text: str) -> str:
    """The same table without a pose of the object and without subframes."""
    lines = text.splitlines()
    return "\n".join([*lines[:2], *lines[4:10], "."])


def test_what_is_saved_is_read_again(panda, tmp_path):
    world, _ = furnished(panda, 1, padding=0.01)
    world.hold({"panda_finger_joint1": 0.03})
    world.add_box("held", (0.05, 0.05, 0.1), padding=0.002)
    world.attach("held", "panda_hand", pose=np.eye(4), touch_links=["panda_leftfinger"])
    world.allow("panda_hand", "*")
    world.forbid("panda_hand", "box")
    path = tmp_path / "scene.yaml"
    world.save(path)
    again = mik.World.load(path, panda)
    assert again.names() == world.names()
    assert again.held() == world.held() and again.decisions() == world.decisions()
    assert again.padding == world.padding
    q = solutions(panda, 100)
    assert again.in_collision(q).tolist() == world.in_collision(q).tolist()
    assert np.abs(again.distance(q) - world.distance(q)).max() < 1e-6


def test_scenes_of_moveit_are_read_in_both_forms(panda, tmp_path):
    path = tmp_path / "it.scene"
    path.write_text(SCENE)
    world = mik.World.load(path, panda)
    assert world.names() == ["table", "two_0", "two_1"]
    assert world.obstacle("table").pose[:3, 3].tolist() == pytest.approx([0.5, 0, 0.2])
    assert world.obstacle("two_0").shape.sizes == (0.05, 0.3)
    path.write_text(old_form(SCENE))
    old = mik.World.load(path, panda)
    assert old.obstacle("table").pose[:3, 3].tolist() == pytest.approx([0, 0, 0.1])


def test_a_mesh_is_read_from_beside_the_file_alone(panda, tmp_path):
    vertices, triangles = cube(0.2)
    text = [f"v {x} {y} {z}" for x, y, z in vertices]
    text += [f"f {a + 1} {b + 1} {c + 1}" for a, b, c in triangles]
    folder = tmp_path / "scenes"
    folder.mkdir()
    for place in (folder, tmp_path):
        (place / "cube.obj").write_text("\n".join(text))
    path = folder / "scene.yaml"

    def load(name: str) -> mik.World:
        path.write_text(f"objects:\n  part: {{type: mesh, file: '{name}', scale: 2}}\n")
        return mik.World.load(path, panda)

    world = load("cube.obj")
    extent = np.ptp(world.obstacle("part").shape.vertices, axis=0)
    assert extent.tolist() == pytest.approx([0.4] * 3)
    world.save(path)
    assert "cube.obj" in path.read_text()
    assert mik.World.load(path, panda).obstacle("part").shape.scale == (2.0, 2.0, 2.0)
    (folder / "link.obj").symlink_to(tmp_path / "cube.obj")
    outside = [
        "../cube.obj", str(tmp_path / "cube.obj"), "link.obj", "package://../cube.obj",
        "package://etc/passwd", f"file://{tmp_path}/cube.obj",
    ]  # fmt: skip
    for name in outside:
        with pytest.raises(mik.WorldError, match=r"must lie in|names no package|there is no file"):
            load(name)


@pytest.mark.parametrize(
    "text, message",
    [
        ("!!python/object/apply:os.system ['true']", "not YAML"),
        ("[1, 2]", "is no file of obstacles: it holds no mapping"),
        ("things: {}", "unknown keys"),
        ("objects: {a: {type: bocks}}", "did you mean 'box'"),
        ("objects: {a: {type: [box]}}", "unknown type"),
        ("objects: {a: {type: box}, a: {type: box}}", "'a' twice"),
        ("objects: {on: {type: sphere, radius: 1}}", "put it in quotes"),
        ("objects: {a: {type: mesh, file: none.stl}}", "there is no file"),
        ("objects: {a: {type: sphere, radius: 1, touch_links: [b]}}", "no link"),
        ("allowed: 3", "list of pairs"),
        ("objects: {a: {type: box}}", "has no size"),
        ("objects: {a: {type: box, size: [1, 1]}}", "3 finite numbers"),
        ("objects: {a: {type: sphere, radius: .nan}}", "positive and finite"),
        ("objects: {a: {type: sphere, radius: 1, colour: red}}", "unknown keys"),
        ("objects: {a: {type: sphere, radius: 1, link: hand}}", "unknown link 'hand'"),
        ("robot: dual_panda", "not of 'panda'"),
        ("allowed: [[panda_hand]]", "list of pairs"),
        ("held: {panda_joint1: 0}", "solved for"),
    ],
)
def test_what_no_world_can_be_is_refused(panda, tmp_path, text, message):
    path = tmp_path / "scene.yaml"
    path.write_text(text)
    with pytest.raises(mik.WorldError, match=message):
        mik.World.load(path, panda)


PLACE = "0 0 0\n0 0 0 1\n"
BALL = f"sphere\n0.1\n{PLACE}0 0 0 1\n"
MANY = {
    "objects": ".yaml objects:\n" + "  a{}: {{type: sphere, radius: 0.1}}\n" * 2001,
    "shapes": f".scene x\n* a\n100000\n{BALL * 100_000}.\n",
    "shapes of objects": ".scene x\n" + f"* a{{}}\n1\n{BALL}" * 100_000 + ".\n",
    "subframes": f".scene x\n* a\n{PLACE}0\n100000\n" + f"n\n{PLACE}" * 100_000 + ".\n",
    "corners of a mesh": ".scene x\n* a\n1\nmesh\n1000001 1\n" + "0 0 0\n" * 1_000_001,
}


@pytest.mark.parametrize("name", MANY)
def test_a_file_of_many_obstacles_is_refused_before_they_are_built(panda, tmp_path, name):
    suffix, _, text = MANY[name].partition(" ")
    path = tmp_path / f"many{suffix}"
    path.write_text(text.format(*range(text.count("{}"))))
    began = time.process_time()
    with pytest.raises(mik.WorldError, match=rf"has \d+ {name[:6]}.* are the most"):
        mik.World.load(path, panda)
    assert time.process_time() - began < 2.0


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("box\n", "plane\n", "half_space"),
        ("0.4 0.6 0.2", "0.4 0.6", "3 numbers"),
        ("0 0 0 1\n1\nbox", "0 0 0 2\n1\nbox", "length 2"),
        ("grip\n0 0 0\n0 0 0 1\n.\n", "", "ends after line"),
        ("* two", "two", "must stand"),
    ],
)
def test_a_damaged_scene_says_where(panda, tmp_path, old, new, message):
    path = tmp_path / "it.scene"
    assert old in SCENE
    path.write_text(SCENE.replace(old, new))
    with pytest.raises(mik.WorldError, match=message):
        mik.World.load(path, panda)


def test_a_file_that_is_not_there_is_refused(panda, tmp_path):
    with pytest.raises(mik.WorldError, match="cannot read"):
        mik.World.load(tmp_path / "none.yaml", panda)


def test_a_world_is_not_written_as_what_moveit_writes(panda, tmp_path):
    with pytest.raises(mik.WorldError, match="MoveIt"):
        mik.World(panda).save(tmp_path / "it.scene")
    for path in (None, 3):
        with pytest.raises(mik.WorldError, match="must be a path"):
            mik.World(panda).save(path)
        with pytest.raises(mik.WorldError, match="must be a path"):
            mik.World.load(path, panda)
