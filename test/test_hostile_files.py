# SPDX-License-Identifier: Apache-2.0
"""Files that are damaged or made by somebody who means harm: a named error, in bounded time."""

import json
import struct
import time

import numpy as np
import pytest
from safetensors.numpy import save

import meanflow_ik_core as mik
from meanflow_ik_core.collision import mesh_files
from meanflow_ik_core.collision.self_collision import SelfCollision
from meanflow_ik_core.commands.goal_options import read_poses
from meanflow_ik_core.network.checkpoint import CHECKPOINT_FOLDER, FORMAT, read_checkpoint

CORNERS = [(0, 0, 0.1), (0.1, 0, 0), (0, 0.1, 0), (0, 0, 0)]
FACES = [(0, 2, 1), (0, 1, 3), (0, 3, 2), (1, 2, 3)]


def stl(corners=CORNERS, faces=FACES) -> bytes:
    packed = [
        struct.pack("<12fH", 0, 0, 1, *corners[a], *corners[b], *corners[c], 0) for a, b, c in faces
    ]
    return b"\0" * 80 + struct.pack("<I", len(faces)) + b"".join(packed)


def robot_text(mesh: str = "", joints: int = 1) -> str:
    shape = f'<collision><geometry><mesh filename="{mesh}"/></geometry></collision>' if mesh else ""
    links = "".join(f'<link name="l{i}">{shape}</link>' for i in range(joints + 1))
    return (
        f'<robot name="r">{links}'
        + "".join(
            f'<joint name="j{i}" type="revolute"><parent link="l{i}"/><child link="l{i + 1}"/>'
            f'<origin xyz="0 0 0.1"/><axis xyz="{i % 2} {(i + 1) % 2} 0"/>'
            '<limit lower="-2" upper="2" effort="1" velocity="1"/></joint>'
            for i in range(joints)
        )
        + "</robot>"
    )


@pytest.fixture
def with_mesh(tmp_path, monkeypatch):
    """Writes a mesh and a robot of it; returns the robot's path."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def write(name: str, content: bytes):
        (tmp_path / name).write_bytes(content)
        (tmp_path / "r.urdf").write_text(robot_text(name, 2))
        return tmp_path / "r.urdf"

    return write


def test_a_sound_mesh_is_read_as_it_is_and_then_from_the_cache(with_mesh, monkeypatch):
    robot = mik.load_robot(with_mesh("a.stl", stl()))
    assert len(SelfCollision(robot).shapes.links) == 3
    monkeypatch.setattr(mesh_files, "_WORKER", None)  # nothing starts any more
    assert len(SelfCollision(robot).shapes.links) == 3


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("far.stl", stl([(0, 0, 1e38), *CORNERS[1:]]), r"1e\+38 m away"),
        ("nan.stl", stl([(0, 0, np.nan), *CORNERS[1:]]), "a.*corner|not finite|cannot be read"),
        (
            "far.obj",
            b"v 0 0 0\nv 0.1 999999999 0\nv 0 0.1 0\nv 0 0 0.1\nf 1 3 2\nf 1 4 3\n",
            "away",
        ),
        ("nan.obj", b"v nan 0 0\nv 0.1 0 0\nv 0 0.1 0\nv 0 0 0.1\nf 1 3 2\nf 1 4 3\n", "finite"),
        ("empty.stl", b"", "cannot be read"),
        ("half.stl", stl()[:150], "cannot be read"),
        ("claims.stl", b"\0" * 80 + struct.pack("<I", 2**32 - 1) + b"\0" * 50, "cannot be read"),
        ("no.dae", b"<COLLADA", "cannot be read"),
    ],
)
def test_a_hostile_mesh_is_an_error_that_names_it(with_mesh, name, content, reason):
    path = with_mesh(name, content)
    with pytest.raises(mik.RobotError, match=reason) as caught:
        SelfCollision(mik.load_robot(path))
    assert name in str(caught.value)


def test_a_reader_that_dies_or_hangs_ends_in_an_error_and_the_next_mesh_is_read(
    with_mesh, tmp_path, monkeypatch
):
    path, worker = with_mesh("a.stl", stl()), mesh_files._WORKER
    robot = mik.load_robot(path)
    monkeypatch.setattr(mesh_files, "MESH_SECONDS", 0.2)
    monkeypatch.setattr(mesh_files, "_START_SECONDS", 0.2)
    for body, reason in (
        ("import os; os.kill(os.getpid(), 11)", "ends what reads it"),
        ("while True: pass", "not within 0.2 s"),
    ):
        bad = tmp_path / "worker.py"
        bad.write_text(f"import sys\nfor _ in sys.stdin: {body}" if "os" in body else body)
        monkeypatch.setattr(mesh_files, "_WORKER", bad)
        began = time.monotonic()
        with pytest.raises(mik.RobotError, match=f"a.stl.*{reason}"):
            SelfCollision(robot)
        assert time.monotonic() - began < 10
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert worker == mesh_files._WORKER and SelfCollision(robot).shapes.links


def test_a_chain_of_250_joints_loads_and_its_middle_is_where_pinocchio_has_it(tmp_path):
    import pinocchio as pin

    path = tmp_path / "chain.urdf"
    path.write_text(robot_text(joints=250))
    robot = mik.load_robot(path)
    q = np.linspace(-1, 1, 250)
    model = pin.buildModelFromUrdf(str(path))
    data = model.createData()
    pin.framesForwardKinematics(model, data, q)
    expected = data.oMf[model.getFrameId("l250")].homogeneous
    np.testing.assert_allclose(robot.forward(q)[0], expected, atol=1e-9)
    # All links are placed as well where their joints are held and nothing moves them.
    held = mik.load_robot(path, held={f"j{i}": 0.1 for i in range(249)})
    assert held.num_joints == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (robot_text(joints=5000), "5001 links"),
        (robot_text(joints=999), "999 degrees of freedom"),
        ('<robot name="r">' + "<a>" * 50_000 + "</a>" * 50_000 + "</robot>", "deep"),
        (robot_text() + "<!--" + "x" * (5 << 20) + "-->", "bytes"),
        (f"<robot>{'<a/>' * 1_000_000}</robot>", "more than 100000 elements and attributes"),
        (
            "<robot " + " ".join(f"a{i}='1'" for i in range(300_000)) + "/>",
            "more than 100000 elements and attributes",
        ),
        (robot_text("x" * 1_000_000), "the filename of an element .* has 1000000 characters"),
        ("<robot", "not well-formed"),
        (
            '<!DOCTYPE r [<!ENTITY a "aaaaaaaaaa">'
            + "".join(f'<!ENTITY a{i} "{f"&a{i - 1 if i else str()};" * 10}">' for i in range(12))
            + ']><robot name="&a11;"/>',
            "not well-formed",
        ),
    ],
)
def test_a_hostile_urdf_is_refused_within_seconds(tmp_path, text, reason):
    path = tmp_path / "r.urdf"
    path.write_text(text)
    began = time.process_time()
    with pytest.raises(mik.RobotError, match=reason):
        mik.load_robot(path)
    assert time.process_time() - began < 3


@pytest.mark.parametrize("name", ["x" * 300, "package://" + "x" * 300, "file://%00", "." * 4000])
def test_names_that_no_file_can_have_are_said_in_a_short_line(tmp_path, monkeypatch, name):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    text, world = robot_text(name), tmp_path / "w.yaml"
    for load in (
        lambda: SelfCollision(mik.load_robot(text)),
        lambda: mik.load_robot(name + ".stl"),
    ):
        with pytest.raises(mik.RobotError) as caught:
            load()
        assert len(str(caught.value)) < 1000
    with pytest.raises(mik.CheckpointError, match="no checkpoint"):
        read_checkpoint(name, mik.load_robot("panda"))
    world.write_text(f'objects: {{a: {{type: mesh, file: "{name}"}}}}')
    with pytest.raises(mik.WorldError, match=r"file of object 'a'"):
        mik.World.load(world, mik.load_robot("panda"))


def test_poses_that_claim_more_than_the_file_has_take_no_memory(tmp_path):
    path = tmp_path / "poses.npy"
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 4, 4), }"
    header += b" " * (117 - len(header)) + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + b"\0" * 128)
    with pytest.raises(mik.TargetError, match="cannot read poses"):
        read_poses(path)


def checkpoint_with(tmp_path, change, weights=None):
    from safetensors import safe_open

    with safe_open(CHECKPOINT_FOLDER / "panda.safetensors", framework="np") as file:
        text = file.metadata()[FORMAT]
        kept = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    path = tmp_path / "c.safetensors"
    path.write_bytes(save(weights(kept) if weights else kept, metadata={FORMAT: change(text)}))
    return path


def with_network(**sizes):
    def change(text):
        record = json.loads(text)
        record["network"].update(sizes)
        return json.dumps(record)

    return change


@pytest.mark.parametrize(
    "change",
    [
        with_network(depth=10**9),
        with_network(context_depth=10**9),
        with_network(hidden_dim=10**12),
        with_network(depth=10**400),
        lambda text: "[" * 100_000,
        lambda text: text[: len(text) // 2],
        lambda text: '{"a": ' + "9" * 10_000 + "}",
    ],
)
def test_a_checkpoint_is_held_against_its_own_size(panda, tmp_path, change):
    path, began = checkpoint_with(tmp_path, change), time.process_time()
    with pytest.raises(mik.CheckpointError):
        read_checkpoint(path, panda)
    assert time.process_time() - began < 3


def test_weights_of_another_type_are_refused(panda, tmp_path):
    path = checkpoint_with(
        tmp_path, lambda text: text,
        lambda kept: {name: weight.astype(np.int16) for name, weight in kept.items()},
    )  # fmt: skip
    with pytest.raises(mik.CheckpointError, match="int16; weights are float16 or float32"):
        read_checkpoint(path, panda)
