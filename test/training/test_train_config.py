# SPDX-License-Identifier: Apache-2.0
"""Settings of training: what exists, what is refused, and what the shipped files say."""

import dataclasses
import math
import re
from pathlib import Path

import pytest

import meanflow_ik_core
from meanflow_ik_core.errors import ConfigError
from meanflow_ik_core.training.config import (
    TrainConfig,
    load_train_config,
    train_config_from_mapping,
)

FOLDER = Path(meanflow_ik_core.__file__).parent / "recipes"
FIELDS = {field.name: field for field in dataclasses.fields(TrainConfig)}
NUMBERS = [name for name, field in FIELDS.items() if field.metadata["low"] is not None]
CHOICES = [name for name, field in FIELDS.items() if field.metadata["choices"]]


@pytest.mark.parametrize("name", FIELDS)
def test_every_setting_has_help_and_a_default_that_is_allowed(name):
    assert FIELDS[name].metadata["help"]
    assert train_config_from_mapping({name: FIELDS[name].default}) == TrainConfig()


def beyond(name, side):
    """A value of the right type just out of range; None where an integer has no upper bound."""
    bound, kind = FIELDS[name].metadata[side], type(FIELDS[name].default)
    if bound == math.inf:
        return math.inf if kind is float else None
    return kind(bound - 1 if side == "low" else bound + 1)


OUT_OF_RANGE = [(name, beyond(name, side)) for name in NUMBERS for side in ("low", "high")]


@pytest.mark.parametrize(("name", "value"), [case for case in OUT_OF_RANGE if case[1] is not None])
def test_a_number_out_of_its_range_is_refused_with_the_bound(name, value):
    with pytest.raises(ConfigError, match=name) as caught:
        train_config_from_mapping({name: value})
    assert repr(value) in str(caught.value)
    assert str(FIELDS[name].metadata["low"]) in str(caught.value)


@pytest.mark.parametrize("name", [n for n in NUMBERS if FIELDS[n].metadata["low_open"]])
def test_an_open_bound_is_refused_itself(name):
    with pytest.raises(ConfigError, match=f"{name}.*above"):
        train_config_from_mapping({name: FIELDS[name].metadata["low"]})


@pytest.mark.parametrize("name", CHOICES)
def test_an_unknown_choice_is_refused_with_the_choices(name):
    with pytest.raises(ConfigError, match=f"{name} is 'other'") as caught:
        train_config_from_mapping({name: "other"})
    for choice in FIELDS[name].metadata["choices"]:
        assert choice in str(caught.value)
        assert getattr(train_config_from_mapping({name: choice}), name) == choice


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("value", ["many", None, [1], float("nan"), {"a": 1}])
def test_a_value_of_another_type_is_refused_by_name(name, value):
    with pytest.raises(ConfigError, match=name):
        train_config_from_mapping({name: value})


@pytest.mark.parametrize("name", ["depth", "iterations"])
@pytest.mark.parametrize("value", [1.5, True])
def test_integers_are_not_made_of_other_numbers(name, value):
    with pytest.raises(ConfigError, match="int"):
        train_config_from_mapping({name: value})


def test_an_unknown_setting_is_refused_with_all_that_exist():
    with pytest.raises(ConfigError, match="learning_rate") as caught:
        train_config_from_mapping({"learning_rate": 1e-3})
    assert set(FIELDS) <= set(re.findall(r"\w+", str(caught.value)))


def test_the_nearest_setting_is_named_where_one_is_near():
    with pytest.raises(
        ConfigError, match=r"unknown setting lamda_disp in a\.yaml; .*lambda_disp\?"
    ):
        train_config_from_mapping({"lamda_disp": 0.1}, "a.yaml")


def test_a_number_that_yaml_reads_as_text_is_a_number(tmp_path):
    path = tmp_path / "train.yaml"
    path.write_text("lr: 1e-4\n")
    assert load_train_config(path).lr == 1e-4
    assert load_train_config(path, lr=2).lr == 2.0


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("lr: [", "not YAML"),
        ("- lr", "mapping"),
        ("7", "mapping"),
        ("speed: 3", "speed"),
        ("depth: 0", "depth"),
        ("1: 2", "unknown setting 1"),
        ("\x00", "not YAML"),
    ],
)
def test_a_wrong_file_is_refused_with_its_reason(tmp_path, text, reason):
    path = tmp_path / "train.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=reason):
        load_train_config(path)


def test_a_missing_file_is_refused_and_an_empty_one_holds_the_defaults(tmp_path):
    with pytest.raises(ConfigError, match="cannot read"):
        load_train_config(tmp_path / "none.yaml")
    path = tmp_path / "empty.yaml"
    path.write_text("# nothing\n")
    assert load_train_config(path) == TrainConfig()


def test_a_recipe_of_the_package_is_found_by_its_name_and_a_file_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_train_config("panda") == load_train_config(FOLDER / "panda.yaml")
    (tmp_path / "panda").write_text("depth: 3")
    assert load_train_config("panda") == TrainConfig(depth=3)
    with pytest.raises(ConfigError, match="no recipe 'pandas'") as caught:
        load_train_config("pandas")
    assert all(name in str(caught.value) for name in ("panda,", "seed", "trees"))


def test_a_file_changes_the_settings_of_the_file_that_it_builds_on(tmp_path):
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "first.yaml").write_text("{depth: 3, hidden_dim: 20, lr: 1e-4}")
    (tmp_path / "second.yaml").write_text("{base: deeper/first.yaml, depth: 4}")
    (tmp_path / "third.yaml").write_text("{base: second.yaml, lr: 2e-4}")
    expected = TrainConfig(depth=4, hidden_dim=20, lr=2e-4)
    assert load_train_config(tmp_path / "third.yaml") == expected
    assert load_train_config(tmp_path / "third.yaml", depth=5).depth == 5


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("base: none.yaml", "cannot read .*none.yaml"),
        ("base: own.yaml", "build on one another"),
        ("base: [a]", r"base in .*own.yaml is \['a'\]"),
    ],
)
def test_a_wrong_base_is_refused_with_its_reason(tmp_path, text, reason):
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=reason):
        load_train_config(path)


def test_the_seed_file_holds_the_published_defaults_and_the_literal_formula():
    config = load_train_config(FOLDER / "seed.yaml")
    published = {
        "hidden_dim": 512,
        "depth": 8,
        "batch_size": 1024,
        "iterations": 50000,
        "lr": 1e-4,
        "mode": "meanflow",
        "alpha_meanflow": 0.1,
        "lambda_disp": 0.01,
        "tau": 0.5,
    }
    literal = {
        "jvp_tangent": "partial",
        "reference_time": "zero",
        "adaptive_power": 0.0,
        "dispersive_normalise": False,
        "lambda_refine": 0.0,
    }
    for name, value in {**published, **literal}.items():
        assert getattr(config, name) == value, name


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_file_loads(path):
    assert load_train_config(path) != TrainConfig()
