# SPDX-License-Identifier: Apache-2.0
"""YAML of strangers: plain values are read, and what costs more than its length is refused."""

import time
from pathlib import Path

import pytest
import yaml

import meanflow_ik_core as mik
from meanflow_ik_core.bounds import MOST_ERROR, MOST_MESSAGE, MOST_YAML_DEPTH, short
from meanflow_ik_core.objectives import spec_from_text
from meanflow_ik_core.plain_yaml import plain_from_file, plain_from_text


def bomb(levels: int, width: int = 10) -> str:
    """A text whose value has ``width ** levels`` entries."""
    lines = [f"a0: &a0 [{', '.join('x' * width)}]"]
    for level in range(1, levels):
        names = ", ".join([f"*a{level - 1}"] * width)
        lines.append(f"a{level}: &a{level} [{names}]")
    return "\n".join(lines)


HOSTILE = {
    "aliases": (bomb(40), "alias"),
    "an anchor alone": ("&a 1", "alias or anchor"),
    "a tag of python": ("!!python/object/apply:os.system [ls]", "tag"),
    "a tag": ("a: !thing 3", "tag !thing"),
    "deep lists": ("[" * (MOST_YAML_DEPTH + 1) + "]" * (MOST_YAML_DEPTH + 1), "nested"),
    "very deep lists": ("[" * 500_000, "nest"),
    "very deep mappings": ("{a: " * 100_000, "nested"),
    "deep dashes": ("- " * 100_000, "nested"),
    "a long value": ("a: " + "9" * 100_000, "100000 characters"),
    "no date": ("2001-99-99", "month"),
    "an underscore": ("a: [1, 1_0]", r"number 1_0 with an underscore \(line 1\)"),
    "an underscore after a dot": ("a: -1.5_0", "number -1.5_0 with an underscore"),
    "a list as key": ("{[a]: 1}", "unhashable"),
    "many texts": ("[" + "a," * 200_000 + "]", "more than 100000 values and keys"),
    "no end": ("'" + "a" * 3000, "end of"),
    "a zero": ("\0", "not allowed"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_text_is_refused_at_once_in_a_short_line(name):
    text, reason = HOSTILE[name]
    began = time.process_time()
    with pytest.raises(mik.RobotError, match=reason) as caught:
        plain_from_text(text, "it", mik.RobotError)
    assert time.process_time() - began < 1.0
    assert len(str(caught.value)) < 400 and "\n" not in str(caught.value)


def test_a_file_is_not_read_beyond_its_bound(tmp_path):
    path = tmp_path / "large.yaml"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # takes no place on the disk
    with pytest.raises(mik.ConfigError, match="1099511627776 bytes"):
        plain_from_file(path, mik.ConfigError)


@pytest.mark.parametrize("path", ["", "a\0b", "x" * 5000, "/", "/dev/zero"])
def test_what_is_no_file_is_refused(path):
    with pytest.raises(mik.ConfigError, match="cannot read"):
        plain_from_file(Path(path), mik.ConfigError)


@pytest.mark.parametrize(
    "value",
    [
        {"name": "posture", "weight": 2.0, "reference": [0.1, -2, 3e-4]},
        "manipulability",
        "joint_1",
        "1_0",
        3,
    ],
)
def test_plain_values_are_read_as_they_were_written(value):
    assert plain_from_text(yaml.safe_dump(value), "it", mik.OptionError) == value


def test_an_objective_has_its_own_bound():
    with pytest.raises(mik.OptionError, match="5000 characters; 4096"):
        spec_from_text("x" * 5000)


def test_no_error_is_longer_than_its_bound_and_all_keep_beginning_and_end():
    error = mik.LinkError("begin " + "x" * 1_000_000 + " end")
    assert len(str(error)) <= MOST_ERROR
    assert str(error).startswith("begin ") and str(error).endswith(" end")


@pytest.mark.parametrize("length", [0, 1, 289, 290, 291, 1159, 1160, 1161, 10_000_000])
def test_a_short_text_is_one_line_within_its_bound(length):
    text = short("ab\n " * (length // 4) + "c" * (length % 4))
    assert len(text) <= MOST_MESSAGE and "\n" not in text
    assert (" ... " in text) == (len(text) == MOST_MESSAGE and length > MOST_MESSAGE)
    assert short(" ".join("ok")) == "o k"
