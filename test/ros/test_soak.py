# SPDX-License-Identifier: Apache-2.0
"""The soak script works: a few seconds of it, judged by all that does not depend on the machine."""

import importlib.util
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "soak" / "soak.py"


@pytest.fixture(scope="module")
def soak():
    spec = importlib.util.spec_from_file_location("soak", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_few_seconds_of_mixed_load_lose_nothing(soak, tmp_path):
    output = tmp_path / "soak.json"
    command = [sys.executable, str(SCRIPT), "--minutes", "0.1", "--sampler", "uniform"]
    command += ["--time-limit", "1"]
    done = subprocess.run(
        [*command, "--output", str(output)], capture_output=True, text=True, timeout=400
    )
    assert output.exists(), done.stdout + done.stderr
    seen = json.loads(output.read_text())
    for name, counts in seen["clients"].items():
        assert counts["asked"] > counts["bad"] or name in ("attacker", "big batches"), name
        assert counts["lost"] == counts["wrong"] == counts["let through"] == 0, (name, counts)
    # The watchdog ends a node that a busy machine keeps from ending in time.
    assert seen["exit code"] in (0, -signal.SIGKILL) and seen["joint_states"]["published"] > 100
    assert seen["diagnostics"]["requests failed"] == "0"
    reached = {name: value <= most for name, value, most in soak.bars(seen)}
    assert done.returncode == (0 if all(reached.values()) else 1)


def test_a_missed_bar_is_seen(soak):
    counts = {"lost": 0, "wrong": 0, "let through": 0}
    seen = {
        "seconds": 60.0,
        "clients": {
            "service": counts,
            "batch": {**counts, "lost": 1},
            "single beside batches": {**counts, "p99 [ms]": 299.0},
        },
        "joint_states": {"longest age [ms]": 20.0},
        "memory growth [%]": 0.1,
        "exit code": 0,
        "diagnostics": {"requests failed": "0"},
    }
    assert not soak.show(seen)
    seen["clients"]["batch"]["lost"] = 0
    assert soak.show(seen)
    assert not soak.show({**seen, "exit code": -11})
    assert not soak.show({**seen, "joint_states": {"longest age [ms]": 1001.0}})
    assert not soak.show({**seen, "memory growth [%]": 5.1})
