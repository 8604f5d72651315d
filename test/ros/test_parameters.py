# SPDX-License-Identifier: Apache-2.0
"""The table of parameters, the file that shows it, and what is refused."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import yaml

import meanflow_ik_core as mik
from meanflow_ik_ros.desk import Desk
from meanflow_ik_ros.parameters import FIELDS, NodeParameters, check_names, descriptor

SOLVER_YAML = Path(__file__).parents[2] / "config" / "solver.yaml"
NUMBERS = [field for field in FIELDS.values() if field.metadata["low"] is not None]
TEXTS = [field for field in FIELDS.values() if isinstance(field.default, str | tuple)]
CHOICES = [field for field in FIELDS.values() if field.metadata["choices"]]


def test_the_file_shows_every_parameter_with_its_default_and_type():
    values = yaml.safe_load(SOLVER_YAML.read_text())["/**"]["ros__parameters"]
    defaults = dataclasses.asdict(NodeParameters())
    for name in ("objectives", "free_axes", "cloud_topics", "planning_scene_topics"):
        defaults[name] = list(defaults[name])
    assert values == defaults
    assert {name: type(value) for name, value in values.items()} == {
        name: type(value) for name, value in defaults.items()
    }


def test_the_file_explains_every_parameter():
    lines = SOLVER_YAML.read_text().splitlines()
    for name, field in FIELDS.items():
        line = next(i for i, text in enumerate(lines) if text.strip().startswith(f"{name}:"))
        comment = []
        while lines[line - 1].strip().startswith(("#", "error_weight")):
            line -= 1
            comment.insert(0, lines[line].strip())
        assert comment, f"{name} has no comment"
        assert ("(fixed)" in " ".join(comment)) == field.metadata["read_only"], name


def test_the_same_request_gets_the_same_answer_unless_chance_is_asked_for():
    desk = Desk.__new__(Desk)
    desk._random = np.random.default_rng()
    by_default = {desk.seed(NodeParameters()) for _ in range(5)}
    assert by_default == {NodeParameters().seed} and by_default != {-1}
    assert len({desk.seed(NodeParameters(seed=-1)) for _ in range(5)}) > 1
    assert "-1" in FIELDS["seed"].metadata["help"]


@pytest.mark.parametrize("field", NUMBERS, ids=lambda field: field.name)
def test_bounds_are_taken_and_what_lies_beyond_is_refused(field):
    low, high = field.metadata["low"], field.metadata["high"]
    kind = type(field.default)
    step = kind(1) if kind is int else kind(1e-3 * (high - low))
    room = NodeParameters(num_samples=1, max_solutions=1, max_num_samples=1_000_000)
    for value in (kind(low), kind(high)):
        values = {"num_samples": 1, "max_solutions": 1, field.name: value}
        assert getattr(room.changed(values), field.name) == value
    for value in (kind(low) - step, kind(high) + step):
        with pytest.raises(mik.ConfigError, match=f"{field.name} is {value}, expected"):
            room.changed({field.name: value})


@pytest.mark.parametrize(
    "field", [f for f in FIELDS.values() if isinstance(f.default, float)], ids=lambda f: f.name
)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_must_be_finite(field, value):
    with pytest.raises(mik.ConfigError, match=f"{field.name} is {value}, expected a finite"):
        NodeParameters().changed({field.name: value})


@pytest.mark.parametrize("field", CHOICES, ids=lambda field: field.name)
def test_an_unknown_choice_is_refused_with_those_that_exist(field):
    for choice in field.metadata["choices"]:
        assert getattr(NodeParameters().changed({field.name: choice}), field.name) == choice
    with pytest.raises(mik.ConfigError, match=f"'worst'.*{field.metadata['choices'][0]}"):
        NodeParameters().changed({field.name: "worst"})


@pytest.mark.parametrize(
    "values", [{"num_samples": 101}, {"max_solutions": 101}, {"max_num_samples": 31}]
)
def test_counts_above_the_most_are_refused(values):
    parameters = NodeParameters(num_samples=100, max_solutions=32, max_num_samples=100)
    with pytest.raises(mik.ConfigError, match="above max_num_samples"):
        parameters.changed(values)


@pytest.mark.parametrize("value", [1, "1.0", None, True, [1.0]])
def test_another_type_is_refused(value):
    with pytest.raises(mik.ConfigError, match=r"timeout is .*, expected float"):
        NodeParameters().changed({"timeout": value})


@pytest.mark.parametrize("value", [5, "posture", True, [1, 2], [["posture"]]])
def test_what_is_no_list_of_texts_is_refused_as_one(value):
    with pytest.raises(mik.ConfigError, match=r"objectives is .*, expected a list of texts"):
        NodeParameters().changed({"objectives": value})


@pytest.mark.parametrize("field", TEXTS, ids=lambda field: field.name)
def test_texts_and_lists_beyond_their_bounds_are_refused_and_told_by_their_length(field):
    longest, most = field.metadata["longest"], field.metadata["most"]
    long = "/" * longest + "x"
    values = {long: rf"{field.name} has {longest + 1} characters"}
    if isinstance(field.default, tuple):
        values = {(long,): rf"{field.name}\[0\] has {longest + 1} characters"}
        values[("x",) * (most + 1)] = f"{field.name} has {most + 1} entries"
    for value, message in values.items():
        with pytest.raises(mik.ConfigError, match=message):
            NodeParameters().changed({field.name: value})


def test_unknown_names_are_refused_with_the_nearest_or_all():
    check_names([*FIELDS, "use_sim_time", "qos_overrides./x.publisher.depth"])
    with pytest.raises(mik.ConfigError, match=r"nm_samples; did you mean num_samples\?"):
        check_names(["nm_samples"])
    with pytest.raises(mik.ConfigError, match=r"unknown parameter wxyz; there are: robot, .*seed"):
        check_names(["robot", "wxyz"])


def test_descriptors_carry_help_bounds_and_whether_they_are_fixed():
    for name, field in FIELDS.items():
        message = descriptor(field)
        ranges = [*message.integer_range, *message.floating_point_range]
        assert message.name == name
        assert len(message.description) > 15
        assert message.read_only == field.metadata["read_only"]
        assert len(ranges) == (field in NUMBERS)
        for bounds in ranges:
            assert (bounds.from_value, bounds.to_value) == (
                field.metadata["low"],
                field.metadata["high"],
            )


def test_topics_of_the_planning_scene_end_in_names_of_moveit():
    given = NodeParameters(planning_scene_topics=("/left/collision_object", "planning_scene"))
    kinds = [given.planning_scene_kind(topic) for topic in given.planning_scene_topics]
    assert kinds == ["CollisionObject", "PlanningScene"]
    with pytest.raises(mik.ConfigError, match="a name ends in monitored_planning_scene"):
        NodeParameters(planning_scene_topics=("/scene",))
