# SPDX-License-Identifier: Apache-2.0
"""What a robot looks like: meshes where there are any, and never nothing."""

import logging

import numpy as np
import pytest

import meanflow_ik_core as mik

pytest.importorskip("viser")

from meanflow_ik_core.view.robot_shapes import bodies_of

ARM = """<robot name="arm"><link name="base">{0}</link><link name="a">{1}</link><link name="b"/>
<joint name="j" type="revolute"><parent link="base"/><child link="a"/><origin xyz="0 0 0.3"/>
<axis xyz="0 1 0"/><limit lower="-1" upper="1" effort="1" velocity="1"/></joint>
<joint name="k" type="revolute"><parent link="a"/><child link="b"/><origin xyz="0 0 0.4"/>
<axis xyz="0 1 0"/><limit lower="-1" upper="1" effort="1" velocity="1"/></joint></robot>"""
BOX = "<{0}><origin xyz='0 0 0.2'/><geometry><box size='0.1 0.2 0.4'/></geometry></{0}>"
MESH = "<visual><geometry><mesh filename='package://nowhere/a.stl'/></geometry></visual>"


def arm(base="", link=""):
    return mik.load_robot(ARM.format(base, link))


@pytest.mark.parametrize("robot, nodes", [("panda", 7), ("dual_panda", 14)])
def test_a_panda_has_its_makers_meshes(robot, nodes):
    bodies = bodies_of(mik.load_robot(robot))
    assert [body.node for body in bodies] == [-1, *range(nodes)]
    assert all(len(body.whole.faces) > 5000 for body in bodies)


def test_light_meshes_are_small_and_as_large_as_the_robot():
    for body in bodies_of(mik.load_robot("panda")):
        light = body.light(800)
        assert 100 < len(light.faces) <= 800
        assert np.allclose(light.bounds, body.whole.bounds, atol=0.02)
        coarse = body.coarse()
        assert len(coarse.whole.faces) <= 300


@pytest.mark.parametrize("kind", ["visual", "collision"])
def test_shapes_are_drawn_where_the_urdf_puts_them(kind):
    (body,) = bodies_of(arm(link=BOX.format(kind)))
    assert body.node == 0
    # of a node its axis is z, of the joint it is y
    assert np.allclose(np.sort(body.whole.extents), (0.1, 0.2, 0.4))
    assert np.isclose(np.linalg.norm(body.whole.centroid), 0.2)


def test_a_robot_without_shapes_is_drawn_as_lines():
    bodies = bodies_of(arm())
    assert [body.node for body in bodies] == [-1, 0, 1]
    # the base's line leads to the first joint, and that of the first link to the second
    lengths = [body.whole.extents.max() for body in bodies[:2]]
    assert np.allclose(lengths, (0.3, 0.4), atol=0.06)


def test_a_mesh_that_is_missing_is_said_and_its_collision_shape_drawn(caplog):
    with caplog.at_level(logging.WARNING):
        (body,) = bodies_of(arm(link=MESH + BOX.format("collision")))
    assert np.allclose(np.sort(body.whole.extents), (0.1, 0.2, 0.4))
    assert "1 shapes of arm are not drawn" in caplog.text and "nowhere" in caplog.text


def test_a_file_that_is_no_mesh_is_said(tmp_path, caplog):
    (tmp_path / "a.stl").write_text("not a mesh")
    text = ARM.format(
        "", f"<visual><geometry><mesh filename='file://{tmp_path}/a.stl'/></geometry></visual>"
    )
    (tmp_path / "arm.urdf").write_text(text)
    with caplog.at_level(logging.WARNING):
        bodies = bodies_of(mik.load_robot(tmp_path / "arm.urdf"))
    assert len(bodies) == 3 and "not drawn" in caplog.text


def test_a_robot_of_a_file_with_meshes_of_its_own_keeps_them(tmp_path):
    """A link that is called as one of a Panda is, and is none."""
    text = ARM.format("", BOX.format("visual")).replace('"a"', '"panda_link1"')
    (tmp_path / "arm.urdf").write_text(text)
    (body,) = bodies_of(mik.load_robot(tmp_path / "arm.urdf"))
    assert len(body.whole.faces) == 12
