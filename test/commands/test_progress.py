# SPDX-License-Identifier: Apache-2.0
"""The progress bar of a training run, and the line of all else."""

import sys
import time

import pytest

from meanflow_ik_core.bench import BENCHES
from meanflow_ik_core.commands.progress import progress_bar, progress_line
from meanflow_ik_core.evaluation.evaluate import evaluate
from meanflow_ik_core.progress import stage, tracked


def test_the_bar_shows_share_loss_and_rate(capsys):
    with progress_bar() as show:
        show(0.25, 1.5, 300.0)
    printed = capsys.readouterr().out
    assert "25%" in printed and "loss 1.5000" in printed and "300 samples/s" in printed


def test_on_a_terminal_there_is_one_line_that_is_gone_at_the_end(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress_line():
        stage("a long beginning")
        assert list(tracked(range(3), "steps")) == [0, 1, 2]
    printed = capsys.readouterr()
    assert printed.out == "" and "\n" not in printed.err
    assert "\ra long beginning\rsteps: 1 of 3" in printed.err
    assert printed.err.endswith(f"\r{' ' * len('steps: 1 of 3')}\r")


def test_elsewhere_there_are_plain_lines_seconds_apart(capsys, monkeypatch):
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with progress_line():
        for now in (0.5, 6.0, 7.0, 12.0):
            stage(f"at {now:g} s")
    assert capsys.readouterr().err.splitlines() == ["at 6 s", "at 12 s"]


def test_nobody_hears_it_who_does_not_ask(capsys):
    list(tracked(range(3), "steps"))
    assert capsys.readouterr() == ("", "")


SMALL = {
    "clearance": {"robots": "panda", "configurations": 16},
    "kernel": {"batch": 16, "repetitions": 2},
    "kinematics": {"configurations": 4},
    "limits": {"poses": 2, "starts": 16},
    "objectives": {"poses": 1, "max_solutions": 2},
    "path": {"paths": 1, "waypoints": 3},
    "solve": {"poses": 2},
    "unreachable": {"poses": 2},
}


@pytest.mark.parametrize("suite", SMALL)
def test_every_suite_says_how_far_it_is(suite, caplog):
    options = dict(SMALL[suite])
    if "sampler" in BENCHES[suite].defaults():
        options["sampler"] = "uniform"
    with caplog.at_level("DEBUG", "meanflow_ik_core.progress"):
        BENCHES[suite](**options)
    assert caplog.messages


def test_evaluate_says_how_far_it_is(caplog):
    with caplog.at_level("DEBUG", "meanflow_ik_core.progress"):
        evaluate("panda", "uniform", poses=4, samples=4, detail_poses=2)
    said = " ".join(caplog.messages)
    assert "4 poses are sampled" in said and "solutions: 1 of 1" in said
    assert "traced: 1 of 2" in said
