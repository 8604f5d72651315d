# SPDX-License-Identifier: Apache-2.0
"""Any text, file or request: an answer or a named error of bounded length, never anything else.

MEANFLOW_IK_FUZZ sets the number of examples of each test; some thousands take minutes.
"""

import os
import struct
from pathlib import Path

import numpy as np
import pytest
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


@fuzzed
@given(
    st.sampled_from(["stl", "obj"]),
    edits,
    st.lists(st.floats(width=32), min_size=12, max_size=12) | st.none(),
)
def test_any_damage_to_a_mesh(tmp_path, kind, changes, numbers):
    corners = [(0, 0, 0.1), (0.1, 0, 0), (0, 0.1, 0), (0, 0, 0)]
    if numbers is not None:
        corners = [tuple(numbers[i : i + 3]) for i in range(0, 12, 3)]
    text = "".join("v {} {} {}\n".format(*corner) for corner in corners)
    content = stl(corners) if kind == "stl" else (text + "f 1 3 2\nf 1 2 4\nf 1 4 3\n").encode()
    (tmp_path / f"m.{kind}").write_bytes(edited(content, changes))
    path = tmp_path / "r.urdf"
    path.write_text(robot_text(f"m.{kind}", 2))
    robot = mik.load_robot(path)
    only_named_errors(lambda: SelfCollision(robot).in_collision(np.zeros((1, 2))))
