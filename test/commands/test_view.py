# SPDX-License-Identifier: Apache-2.0
"""``meanflow-ik view`` as a user meets it, before a browser."""

import socket
import sys

import pytest

import meanflow_ik_core as mik
from meanflow_ik_core.commands import view
from meanflow_ik_core.commands.app import main


@pytest.fixture
def run(monkeypatch, capsys):
    def run_with(*arguments):
        monkeypatch.setattr(sys, "argv", ["meanflow-ik", "view", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return ended.value.code or 0, printed.out, printed.err

    return run_with


@pytest.mark.parametrize(
    "arguments, said",
    [
        (("--port", 70000), "the port is 70000"),
        (("--host", "no.such.host.invalid"), "no host"),
        (("--robot", "nobody"), "unknown robot 'nobody'"),
        (("--frame", "nowhere", "--port", 0), "'nowhere' is not fixed to a tip"),
        (("--world", "nowhere.yaml", "--port", 0), "nowhere.yaml"),
        (("--sampler", "best", "--port", 0), "unknown sampler 'best'"),
    ],
)
def test_bad_input_ends_with_one_line(run, arguments, said):
    code, _, error = run(*arguments)
    assert code == 2 and said in error and error.count("\n") == 1


def test_a_map_of_another_robot_is_refused(run, tmp_path):
    path = tmp_path / "map.npz"
    corner = [(0.4, 0.0, 0.4), (0.5, 0.1, 0.5)]
    mik.reachability_map("panda", 0.1, 1, box=corner, processes=1, output=path)
    for other in (("--robot", "dual_panda"), ("--base", "panda_link1")):
        code, _, error = run(*other, "--map", path, "--port", 0)
        assert code == 2 and "is a map of panda from panda_link0 to panda_link8" in error
    path.write_text("no map")
    code, _, error = run("--map", path, "--port", 0)
    assert code == 2 and "not a file of results" in error


def test_a_missing_library_is_named_with_its_extra(run, monkeypatch):
    monkeypatch.setattr(view, "find_spec", lambda name: None)
    code, _, error = run()
    assert code == 2 and "pip install '.[view]'" in error


def test_the_address_is_said_and_that_a_port_was_taken(run, monkeypatch):
    pytest.importorskip("viser")
    from meanflow_ik_core.view.page import Page

    def until_ctrl_c(page):
        raise KeyboardInterrupt

    monkeypatch.setattr(Page, "run", until_ctrl_c)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        code, said, _ = run("--port", taken, "--sampler", "uniform", "--coarse")
    assert code == 0
    assert f"port {taken} is taken" in said
    assert "panda is shown at http://127.0.0.1:" in said and f":{taken}," not in said
