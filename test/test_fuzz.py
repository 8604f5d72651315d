# SPDX-License-Identifier: Apache-2.0
"""Any text or file: an answer or a named error of bounded length, never anything else.

MEANFLOW_IK_FUZZ sets the number of examples of each test; some thousands take minutes.
`ros/test_fuzz_node.py` does the same to a running node.
"""

import os
import resource
import struct
import time
from pathlib import Path

import numpy as np
import pytest
from hostile_meshes import MESH_KINDS, hostile_mesh
from test_hostile_files import robot_text, stl

import meanflow_ik_core as mik
from meanflow_ik_core.bounds import MOST_ERROR
from meanflow_ik_core.collision.self_collision import SelfCollision
from meanflow_ik_core.network.checkpoint import CHECKPOINT_FOLDER, read_checkpoint
from meanflow_ik_core.objectives import available_objectives, build_objectives, spec_from_text
from meanflow_ik_core.robot.robot_file import read_robot_file

pytest.importorskip("hypothesis")
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("MEANFLOW_IK_FUZZ", "100"))
# Each mesh starts a process that reads it.
MESHES = max(20, EXAMPLES // 5)
fuzzed = settings(
    max_examples=EXAMPLES, deadline=5000, derandomize=EXAMPLES == 100, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip

WORDS = (
    "name", "posture", "manipulability", "link_point", "link_direction", "clearance", "weight",
    "reference", "panda_link8", "panda_hand", "urdf", "parts", "tips", "held", "base", "panda.urdf",
    "&a", "*a", "!!python/name:os.system", "<<", ".inf", ".nan", "1e999", "9" * 400, "[", "]", "{",
    "}", ": ", ", ", "- ", "\n", "\n  ", "? ", "'", '"', "|", "%", "\t", "1:2:3", "0x7f", "null",
)  # fmt: skip
yaml_texts = st.lists(st.sampled_from(WORDS) | st.text(max_size=5), max_size=40).map("".join)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
edits = st.lists(
    st.tuples(st.integers(0, 1 << 20), st.binary(max_size=8), st.integers(0, 8)), max_size=6
)


def edited(content: bytes, changes) -> bytes:
    """The content with some bytes replaced, put in or taken out."""
    for place, new, removed in changes:
        at = place % (len(content) + 1)
        content = content[:at] + new + content[at + removed :]
    return content


def only_named_errors(call) -> None:
    try:
        call()
    except mik.IKError as error:
        assert 0 < len(str(error)) <= MOST_ERROR


@fuzzed
@given(yaml_texts)
def test_any_text_of_an_objective(panda, text):
    only_named_errors(lambda: build_objectives([spec_from_text(text)], panda))


@fuzzed
@given(
    st.sampled_from(available_objectives()),
    st.dictionaries(st.sampled_from(WORDS[:9]) | st.text(max_size=6), values, max_size=4),
)
def test_any_arguments_of_an_objective(panda, name, arguments):
    only_named_errors(lambda: build_objectives([{**arguments, "name": name}], panda))


@fuzzed
@given(yaml_texts)
def test_any_text_of_a_robot_file(text):
    only_named_errors(lambda: read_robot_file(Path("any.yaml"), text))


@fuzzed
@given(edits)
def test_any_damage_to_a_urdf(tmp_path, changes):
    path = tmp_path / "r.urdf"
    path.write_bytes(edited(robot_text(joints=3).encode(), changes))
    only_named_errors(lambda: mik.load_robot(path))


@fuzzed
@given(edits)
def test_any_damage_to_a_checkpoint(panda, tmp_path, changes):
    content = (CHECKPOINT_FOLDER / "panda.safetensors").read_bytes()
    # Most of the file is weights; its header is where damage tells.
    header = 8 + struct.unpack("<Q", content[:8])[0]
    path = tmp_path / "c.safetensors"
    path.write_bytes(edited(content[:header], changes) + content[header:])
    only_named_errors(lambda: read_checkpoint(path, panda))


# The same tetrahedron in every kind of file, its corners to be put in.
OBJ = "{}f 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n"
PLY = (
    "ply\nformat ascii 1.0\nelement vertex 4\nproperty float x\nproperty float y\n"
    "property float z\nelement face 4\nproperty list uchar int vertex_indices\nend_header\n"
    "{}3 0 2 1\n3 0 1 3\n3 0 3 2\n3 1 2 3\n"
)
COLLADA = (
    '<?xml version="1.0"?><COLLADA xmlns="http://www.collada.org/2005/11/COLLADASchema" '
    'version="1.4.1"><asset><unit name="meter" meter="1"/><up_axis>Z_UP</up_axis></asset>'
    '<library_geometries><geometry id="g"><mesh><source id="p"><float_array id="a" count="12">'
    '{}</float_array><technique_common><accessor source="#a" count="4" stride="3">'
    '<param name="X" type="float"/><param name="Y" type="float"/><param name="Z" type="float"/>'
    '</accessor></technique_common></source><vertices id="v"><input semantic="POSITION" '
    'source="#p"/></vertices><triangles count="4"><input semantic="VERTEX" source="#v" offset="0"/>'
    "<p>0 2 1 0 1 3 0 3 2 1 2 3</p></triangles></mesh></geometry></library_geometries>"
    '<library_visual_scenes><visual_scene id="s"><node id="n"><matrix>1 0 0 0 0 1 0 0 0 0 1 0 '
    '0 0 0 1</matrix><instance_geometry url="#g"/></node></visual_scene></library_visual_scenes>'
    '<scene><instance_visual_scene url="#s"/></scene></COLLADA>'
)
CORNERS = [(0, 0, 0.1), (0.1, 0, 0), (0, 0.1, 0), (0, 0, 0)]


def mesh_file(kind: str, corners) -> bytes:
    """The content of a file of that kind with these four corners."""
    if kind == "stl":
        return stl(corners)
    rows = [" ".join(map(str, corner)) for corner in corners]
    if kind == "dae":
        return COLLADA.format(" ".join(rows)).encode()
    template, before = (OBJ, "v ") if kind == "obj" else (PLY, "")
    return template.format("".join(f"{before}{row}\n" for row in rows)).encode()


@pytest.mark.parametrize("kind", ["stl", "obj", "ply", "dae"])
def test_a_mesh_is_read_as_long_as_nothing_damages_it(tmp_path, monkeypatch, kind):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / f"m.{kind}").write_bytes(mesh_file(kind, CORNERS))
    (tmp_path / "r.urdf").write_text(robot_text(f"m.{kind}", 2))
    assert len(SelfCollision(mik.load_robot(tmp_path / "r.urdf")).shapes.links) == 3


@settings(fuzzed, max_examples=MESHES)
@given(
    st.sampled_from(["stl", "obj", "ply", "dae"]),
    edits,
    st.lists(st.floats(width=32), min_size=12, max_size=12) | st.none(),
)
def test_any_damage_to_a_mesh(tmp_path, monkeypatch, kind, changes, numbers):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    corners = CORNERS
    if numbers is not None:
        corners = [tuple(numbers[i : i + 3]) for i in range(0, 12, 3)]
    (tmp_path / f"m.{kind}").write_bytes(edited(mesh_file(kind, corners), changes))
    path = tmp_path / "r.urdf"
    path.write_text(robot_text(f"m.{kind}", 2))
    robot = mik.load_robot(path)
    only_named_errors(lambda: SelfCollision(robot).in_collision(np.zeros((1, 2))))


# Of a core, that a world of three meshes of these sizes may take; most of it is Coal's.
MESH_CPU_S, MESH_MB = 1.0, 400
MESH_SIZES = (1, 2, 3, 4, 100, 2000, 15_000)
obstacle_meshes = st.lists(
    st.tuples(
        st.sampled_from(MESH_KINDS),
        st.sampled_from(MESH_SIZES),
        st.integers(0, 9),
        st.tuples(*[st.sampled_from((0.0, 1e-6, 1.0, 5.0, 1e5))] * 3),
        st.booleans(),
    ),
    min_size=1,
    max_size=3,
)


def scaled_mesh(kind: str, count: int, seed: int, scale) -> tuple[np.ndarray, np.ndarray]:
    corners, triangles = hostile_mesh(kind, count, seed)
    return corners * scale, triangles


@settings(fuzzed, max_examples=MESHES)
@given(obstacle_meshes, st.booleans())
def test_any_mesh_of_an_obstacle_takes_little_time_and_memory(panda, drawn, attached):
    def ask(world) -> None:
        snapshot, q = world.snapshot(), panda.lower[None]
        snapshot.in_collision(q, margin=1e-4)
        snapshot.distances().distance(q)

    usual = mik.World(panda)
    usual.add_mesh("usual", vertices=CORNERS, triangles=[[0, 1, 2]])
    ask(usual)  # reads and compiles what is read and compiled once
    world = mik.World(panda)
    began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for index, (*mesh, convex) in enumerate(drawn):
        corners, triangles = scaled_mesh(*mesh)
        name = f"mesh{index}"
        try:
            world.add_mesh(name, vertices=corners, triangles=triangles, convex=convex)
        except mik.WorldError as error:  # flat, or too far away
            assert 0 < len(str(error)) <= MOST_ERROR
            continue
        if attached and index == 0:
            world.attach(name, "panda_hand", pose=np.eye(4))
    only_named_errors(lambda: ask(world))
    assert time.process_time() - began < MESH_CPU_S + attached  # spheres are fitted to it
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MESH_MB * 1024
