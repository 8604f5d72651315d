# SPDX-License-Identifier: Apache-2.0
"""Tables that fit the terminal."""

import math

import pytest
from rich.console import Console

from meanflow_ik_core.commands.printing import (
    SolutionRow,
    print_solutions,
    print_table,
    short_names,
)


def lines_of(capsys) -> list[str]:
    return capsys.readouterr().out.rstrip().splitlines()


def of_width(width: int) -> Console:
    return Console(width=width, markup=False, highlight=False)


def solution(number: int, joints: int, valid: bool = True) -> SolutionRow:
    values = [number + 0.01 * joint for joint in range(joints)]
    return SolutionRow(valid, values, 1e-6, 2e-6, 0.5, 1.5, (), math.nan)


@pytest.mark.parametrize("width", [60, 80, 120, 200])
@pytest.mark.parametrize("joints", [1, 7, 14, 30])
def test_every_value_is_in_lines_no_longer_than_the_terminal(width, joints, capsys):
    names = {f"left_panda_joint{joint}": "rad" for joint in range(joints)}
    rows = [solution(number, joints) for number in range(1, 9)]
    print_solutions("pose 1", names, [], rows, of_width(width))
    lines = lines_of(capsys)
    assert max(map(len, lines)) <= width
    words = " ".join(lines).split()
    for row in rows:
        assert all(f"{value:.4f}" in words for value in row.joints)
    text = "\n".join(lines)
    assert all(name in text for name in ("rank", "valid", "error [m]", "distance [rad]"))
    assert words.count("yes") == 8 and "…" not in text


def test_short_rows_stay_rows(capsys):
    print_table("t", ["steps", "valid [%]"], [["1", "20"], ["2", "90"]], to=of_width(80))
    assert [line.split() for line in lines_of(capsys)[3:]] == [["1", "20"], ["2", "90"]]


def test_long_rows_become_columns(capsys):
    columns = ["steps", *(f"quite a long heading {number}" for number in range(6))]
    print_table("t", columns, [["1", *"abcdef"], ["2", *"ghijkl"]], to=of_width(80))
    lines = lines_of(capsys)
    assert lines[1].split() == ["steps", "1", "2"]
    assert lines[3].split()[-2:] == ["a", "g"] and lines[8].split()[-2:] == ["f", "l"]


def test_a_text_is_wrapped_and_the_rest_stays_whole(capsys):
    print_table("t", ["name", "meaning"], [["depth", "many words " * 20]], True, of_width(40))
    lines = lines_of(capsys)
    assert max(len(line.rstrip()) for line in lines) <= 40
    assert " ".join(lines).split().count("words") == 20


def test_of_misses_only_the_nearest_is_shown_and_of_solutions_no_miss(capsys):
    rows = [solution(number, 2, valid=False) for number in range(1, 33)]
    print_solutions("t", {"a": "rad", "b": "m"}, [], rows, of_width(80))
    text = "\n".join(lines_of(capsys))
    assert "1.0000" in text and "2.0000" not in text
    print_solutions("t", {"a": "rad", "b": "m"}, [], [solution(1, 2), *rows[1:]], of_width(80))
    text = "\n".join(lines_of(capsys))
    assert "1.0000" in text and "2.0000" not in text and "b [m]" in text


def test_cost_and_objectives_are_shown_where_there_are_any(capsys):
    row = solution(1, 2)._replace(objective_values=(0.125, 3.5))
    print_solutions("t", {"a": "rad", "b": "rad"}, ["posture", "clearance"], [row], of_width(80))
    text = "\n".join(lines_of(capsys))
    assert all(word in text for word in ("cost", "1.5", "posture", "0.125", "clearance", "3.5"))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["panda_joint1", "panda_joint2"], ["joint1", "joint2"]),
        (["left_elbow", "right_elbow"], ["left_elbow", "right_elbow"]),
        (["left_panda_joint1", "right_panda_joint1"], ["left_joint1", "right_joint1"]),
        (["a_b_c", "a_b"], ["b_c", "b"]),
        (["joint"], ["joint"]),
    ],
)
def test_joints_are_called_by_what_tells_them_apart(names, expected):
    assert short_names(names) == expected
