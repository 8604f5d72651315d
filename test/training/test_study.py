# SPDX-License-Identifier: Apache-2.0
"""Recipes side by side: what is trained, what is judged, and what is not done twice."""

import json
from pathlib import Path

import numpy as np
import pytest

from meanflow_ik_core.errors import ConfigError
from meanflow_ik_core.evaluation.evaluate import evaluate
from meanflow_ik_core.network.kinds import load_checkpoint
from meanflow_ik_core.training.study import COLUMNS, markdown, read_records, study, table

ROOT = Path(__file__).parents[2]
TINY = """
hidden_dim: 8
depth: 1
context_dim: 4
batch_size: 16
iterations: 3
validation_poses: 2
validation_samples: 2
"""


@pytest.fixture
def recipes(tmp_path):
    folder = tmp_path / "recipes"
    folder.mkdir()
    (folder / "b_short.yaml").write_text(TINY)
    (folder / "a_long.yaml").write_text("base: b_short.yaml\niterations: 5\n")
    return folder


def test_every_recipe_is_trained_and_judged_as_evaluate_does(panda, recipes, tmp_path):
    out = tmp_path / "out"
    records = study(panda, recipes, out, poses=5, detail_poses=2)
    assert [(r["recipe"], r["steps"]) for r in records] == [("a_long", 5), ("b_short", 3)]
    checkpoint = out / "a_long" / "panda.safetensors"
    assert load_checkpoint(checkpoint, panda)[1]["training"]["steps"] == 5
    expected = evaluate(panda, checkpoint=checkpoint, poses=5, detail_poses=2)
    metrics = {**records[0]["metrics"], "sample_time": expected.metrics["sample_time"]}
    assert metrics == expected.metrics
    assert records[0]["draws"]["raw"] == pytest.approx(expected.exact.draws["raw"], nan_ok=True)
    row = dict(zip(COLUMNS, table(records)[0], strict=True))
    assert row["recipe"] == "a_long"
    mean = expected.metrics["orientation_error_mean"]
    assert float(row["rotation [deg]"]) == pytest.approx(np.degrees(mean), abs=0.05)


def test_a_study_goes_on_where_it_stopped(panda, recipes, tmp_path, monkeypatch):
    out = tmp_path / "out"
    monkeypatch.setattr("meanflow_ik_core.training.study.evaluate", None)  # nothing can be judged
    with pytest.raises(TypeError):
        study(panda, recipes, out, poses=3, detail_poses=0)
    monkeypatch.setattr("meanflow_ik_core.training.study.evaluate", evaluate)
    first = study(panda, recipes, out, poses=3, detail_poses=0)
    assert [r["recipe"] for r in first] == ["a_long", "b_short"]
    assert first[0]["draws"] == {}
    assert dict(zip(COLUMNS, table(first)[0], strict=True))["MMD^2 raw"] == "-"

    monkeypatch.setattr("meanflow_ik_core.training.study.evaluate", None)  # nothing is judged again
    assert study(panda, recipes, out, poses=3, detail_poses=0) == first
    stored = json.loads((out / "a_long" / "judged.json").read_text())
    assert stored == first[0]


def test_a_folder_without_recipes_and_a_wrong_one_are_refused(panda, recipes, tmp_path):
    with pytest.raises(ConfigError, match=r"no \.yaml file"):
        study(panda, tmp_path, tmp_path / "out")
    (recipes / "c.yaml").write_text("depht: 3")
    with pytest.raises(ConfigError, match="depht"):
        study(panda, recipes, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_table_of_the_page_is_that_of_its_record_and_each_recipe_has_a_file():
    records = read_records(ROOT / "docs" / "training" / "study.json")
    assert markdown(records) in (ROOT / "docs" / "training.md").read_text()
    files = sorted(
        path.stem for path in (ROOT / "meanflow_ik_core" / "recipes" / "study").glob("*.yaml")
    )
    assert [record["recipe"] for record in records] == files


@pytest.mark.parametrize("text", ["", "{", "[1]", '[{"recipe": "a"}]'])
def test_a_file_that_is_no_record_is_refused(tmp_path, text):
    path = tmp_path / "record.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"record\.json is not a record"):
        read_records(path)
    with pytest.raises(ConfigError, match="cannot read"):
        read_records(tmp_path / "none.json")
