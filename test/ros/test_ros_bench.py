# SPDX-License-Identifier: Apache-2.0
"""The round trip is measured against a real node in a process of its own."""

import json

import pytest

from meanflow_ik_core.errors import OptionError
from meanflow_ik_ros.tools import bench


def test_a_small_run_gets_right_solutions_and_answers_to_all(tmp_path, capsys):
    output = tmp_path / "bench.json"
    arguments = ["--sampler", "uniform", "--requests", "8", "--burst", "20", "--solutions", "4"]
    arguments += ["--batch", "20", "--batch-solutions", "2", "--batches", "2"]
    arguments += ["--waypoints", "10", "--paths", "2", "--goals", "5"]
    arguments += ["--flood", "30", "--tracked-targets", "50"]
    with pytest.raises(SystemExit) as ended:
        bench.main([*arguments, "--num-samples", "64", "--output", str(output)])
    content = json.loads(output.read_text())
    numbers = {measure["what"]: measure["value"] for measure in content["measures"]}
    assert numbers["share of answers with 4 right solutions"] == 1
    assert numbers["burst of 20: answered"] == 20
    assert numbers["batch of 20 x 2: targets solved"] == 1
    assert numbers["batch of 20 x 2: median round trip"] > 0
    assert numbers["path of 10 waypoints: followed"] == 1
    assert numbers["goal topic to best_candidate, median"] > 0
    assert numbers["burst of 30: answered"] == 30
    assert numbers["one solution: median round trip"] > 0
    assert numbers["the same of an empty service with these messages"] > 0
    for beside in ("", " beside batches of 20 x 2"):
        assert numbers[f"tracking at 1 kHz{beside}: median, topic to topic"] > 0
        assert numbers[f"tracking at 1 kHz{beside}: right"] > 0
    assert numbers["echo at 1 kHz: median, topic to topic"] > 0
    assert 0 < numbers["of it inside the node, median"] < numbers["median round trip"]
    assert ended.value.code == (
        0 if all(m["reached"] is not False for m in content["measures"]) else 1
    )
    assert "median round trip" in capsys.readouterr().out


def test_a_node_that_does_not_start_is_reported():
    with pytest.raises(OptionError, match="exit code 1"):
        bench.run(checkpoint="divine.safetensors", requests=1, burst=1)


def test_bad_numbers_end_with_a_message(capsys):
    with pytest.raises(SystemExit) as ended:
        bench.main(["--requests", "0"])
    assert ended.value.code == 2
    assert "requests is 0" in capsys.readouterr().err
