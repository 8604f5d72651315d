# SPDX-License-Identifier: Apache-2.0
"""Peers are asked rightly, judged, and none of them ends a measurement."""

import builtins
import json
import time

import numpy as np
import pytest
from example_robots import draw
from odd_peers import Dying, Hanging, Liar, Missing, Printing, Raising, Unopened
from oracles import Judge as IndependentJudge

import meanflow_ik_core as mik
from meanflow_ik_core.bench import BENCHES, peers, pose_sets
from meanflow_ik_core.bench.judge import Judge, different
from meanflow_ik_core.bench.peer_solvers import peer as peer_module
from meanflow_ik_core.bench.peer_solvers.known import PEERS, build_peers
from meanflow_ik_core.bench.peer_solvers.ours import Network, Tracked, Uniform
from meanflow_ik_core.bench.peer_solvers.peer import COARSE, EXACT, Searcher, Stopwatch
from meanflow_ik_core.bench.peer_solvers.worker import Worker
from meanflow_ik_core.bench.peers_plots import plot_peers
from meanflow_ik_core.bench.peers_tables import BUDGETS_MS, peers_tables, readme_table
from meanflow_ik_core.bench.report import TABLES
from meanflow_ik_core.bench.result import BenchResult
from meanflow_ik_core.commands.printing import plain

SMALL = {"poses": 2, "hard_poses": 1, "many_poses": 1, "arms_poses": 1}
HANDS_OF_OURS = {"uniform", "meanflow"}
HANDS = {*HANDS_OF_OURS, "CLIK", "pink", "mink"}


@pytest.fixture(params=[*PEERS.values(), Uniform, Network], ids=lambda kind: kind.name)
def peer(request, panda, monkeypatch) -> Searcher:
    monkeypatch.setattr(peer_module, "BUDGET", 0.2)  # of a machine that does more
    try:
        return request.param(panda, Judge(panda), 0)
    except ImportError:
        pytest.skip(f"{request.param.name} is not installed")


@pytest.fixture(scope="module")
def result() -> BenchResult:
    return BENCHES["peers"](**SMALL)


def test_a_peer_solves_within_the_limits_and_its_time_is_taken(panda, peer):
    judge, q = IndependentJudge(panda), draw(panda, 10, 1).numpy()
    near = np.clip(q + np.random.default_rng(2).normal(0, 0.02, q.shape), panda.lower, panda.upper)
    starts, targets = draw(panda, 10, 3).numpy(), panda.forward(q)
    for tolerance in (EXACT, COARSE):
        peer.hold_to(tolerance)
        solved = {"one": 0, "near": 0, "nearest": 0}
        for row, target in enumerate(targets):
            for method in solved:
                watch = Stopwatch()
                start = near[row] if method == "near" else starts[row]
                found = getattr(peer, method)(watch, target, start)
                assert watch.busy > 0 and watch.clock > 0
                assert len(found) <= 1
                solved[method] += all(judge.accepts(q, target, max(tolerance)) for q in found)
        # frankik misses some by its sweep, and is wrong at times.
        assert min(solved.values()) >= 7, solved


def test_a_peer_finds_different_solutions(panda, peer):
    target = panda.forward(draw(panda, 1, 3).numpy())[0]
    watch = Stopwatch()
    found = peer.several(watch, target, 0.5 * (panda.lower + panda.upper), 5)
    assert len(found) == len(different(found)) == 5 and watch.busy > 0
    assert all(IndependentJudge(panda).accepts(q, target) for q in found)


def test_a_peer_finds_nothing_beyond_reach(panda, peer):
    target = panda.forward(draw(panda, 1, 3).numpy())[0]
    target[0, :3, 3] += 5.0
    assert peer.one(Stopwatch(), target, panda.upper).shape == (0, 7)


@pytest.mark.parametrize("kind", [one for one in PEERS.values() if one.any_robot])
def test_steppers_solve_two_arms(dual_panda, kind):
    try:
        peer = kind(dual_panda, Judge(dual_panda), 0)
    except ImportError:
        pytest.skip(f"{kind.name} is not installed")
    q = draw(dual_panda, 4, 1).numpy()
    near = q + 0.02 * np.sign(dual_panda.lower + dual_panda.upper - 2 * q)
    judge, targets = IndependentJudge(dual_panda), dual_panda.forward(q)
    for target, start in zip(targets, near, strict=True):
        (found,) = peer.near(Stopwatch(), target, start)
        assert judge.accepts(found, target)


def test_a_tracker_reaches_a_pose_near_to_its_joints_and_no_other(panda):
    q = np.array([0.0, -0.5, 0.0, -2.0, 0.0, 1.6, 0.7])
    tracked, target = Tracked(panda, Judge(panda), 0), panda.forward(q)
    (found,) = tracked.near(Stopwatch(), target, q + 0.02)
    assert IndependentJudge(panda).accepts(found, target)
    target[0, :3, 3] += 5.0
    assert len(tracked.near(Stopwatch(), target, q)) == 0


def test_restarts_from_the_same_start_are_no_different_solutions(panda, monkeypatch):
    pytest.importorskip("pytracik")
    peer, middle = PEERS["TRAC-IK"](panda, Judge(panda), 0), 0.5 * (panda.lower + panda.upper)
    monkeypatch.setattr(peer, "_start", lambda: middle)
    assert len(peer.several(Stopwatch(), panda.forward(middle), middle, 3)) == 1


def test_a_stopwatch_tells_work_from_waiting():
    watch = Stopwatch()
    watch(time.sleep, 0.1)
    assert watch.busy < 0.05 < 0.1 <= watch.clock


@pytest.fixture
def worker(panda):
    workers = []

    def made(kind, patience=60.0):
        workers.append(Worker(kind, "panda", 0, patience))
        return workers[-1]

    yield made
    for one in workers:
        one.close()


@pytest.fixture(scope="module")
def questions(panda):
    """Targets to the left and to the right in turn."""
    q = draw(panda, 40, 5).numpy()
    side = panda.forward(q)[:, 0, 1, 3] > 0
    left, right = (np.flatnonzero(where)[:5] for where in (side, ~side))
    return [(panda.forward(q[row]), q[row]) for row in np.stack((left, right), 1).ravel()]


def test_a_worker_answers_as_the_peer_in_this_process_does(panda, worker, questions):
    asked, own = worker(Uniform), Uniform(panda, Judge(panda), 0)
    answers = asked.ask("one", EXACT, questions[:3])
    for answer, question in zip(answers, questions, strict=False):
        np.testing.assert_array_equal(answer.found, own.one(Stopwatch(), *question))
        assert answer.busy > 0 and answer.clock > 0
    assert not asked.faults


def test_a_peer_that_hangs_is_ended_and_goes_on_with_the_next_pose(worker, questions):
    hanging = worker(Hanging, patience=0.5)
    answers = hanging.ask("one", EXACT, questions[:5])
    assert [answer.found is None for answer in answers] == [True, False, True, False, True]
    assert answers[0].clock == 0.5
    assert hanging.faults == {"gave no answer in 0.5 s": 3}
    (last,) = hanging.ask("one", EXACT, questions[1:2])
    assert last.found is None and hanging.faults["was asked no more"] == 1


def test_a_peer_that_dies_is_started_again_three_times(worker, questions):
    dying = worker(Dying)
    answers = dying.ask("one", EXACT, questions[:5])
    assert [answer.found for answer in answers] == [None] * 5
    assert dying.faults == {"died: SIGSEGV": 3, "was asked no more": 2}


def test_an_exception_of_a_peer_fails_one_pose_in_its_own_time(worker, questions):
    raising = worker(Raising)
    answers = raising.ask("one", EXACT, questions[:5])
    assert all(answer.found is None and 0.01 <= answer.clock < 1 for answer in answers)
    assert raising.faults == {"raised RuntimeError: no luck": 5}


def test_a_peer_that_does_not_open_fails_all_poses(worker, questions):
    unopened = worker(Unopened)
    assert unopened.ask("one", EXACT, questions[:1])[0].found is None
    assert "does not open: ValueError: no such robot" in unopened.faults


def test_what_a_peer_prints_is_not_printed(worker, questions, capfd):
    assert worker(Printing).ask("one", EXACT, questions[:1])[0].found.shape == (0, 7)
    assert "noise" not in "".join(capfd.readouterr())


def test_an_uninstalled_peer_is_missing(worker):
    with pytest.raises(ImportError, match="nothing_of_this_name"):
        worker(Missing)


@pytest.mark.slow
def test_all_peers_take_part_and_are_judged(result):
    named = [measure.what.partition(": ") for measure in result.measures]
    solvers = {what.rpartition(", ")[0] for _, _, what in named}
    missing = result.options["missing"]
    there = {kind.name for kind in PEERS.values() if kind.install not in missing}
    assert solvers >= there | {"uniform", "meanflow", "tracked", "uniform, diverse"}
    assert result.options["faults"] == {}
    for ours in ("uniform", "meanflow"):
        for task in ("random", "near limits", "singular", "edge of reach", "two arms"):
            for tolerance in ("1e-5", "1 mm, 0.1 deg"):
                assert result[f"{task}, {tolerance}: {ours}, solved"] == 1
                assert result[f"{task}, {tolerance}: {ours}, wrong"] == 0
        for task in ("beyond reach", "impossible turn"):
            assert result[f"{task}, 1e-5: {ours}, solved"] == 1
        assert 0.5 < result[f"against the exact answer: {ours}, diverse, coverage"] <= 1
    hands = {what.split(", ")[0] for task, _, what in named if task.startswith("two arms")}
    assert hands == HANDS & (there | HANDS_OF_OURS)


@pytest.mark.slow
def test_more_time_solves_no_fewer_poses(result):
    shares = [result[f"random, 1e-5: uniform, within {budget:g} ms"] for budget in BUDGETS_MS]
    assert shares == sorted(shares) and shares[0] == 0 and shares[-1] == 1


@pytest.fixture(scope="module")
def odd() -> BenchResult:
    """Beside ours a liar, and peers that fail in every way."""
    with pytest.MonkeyPatch.context() as patch:
        kinds = {kind.name: kind for kind in (Liar, Dying, Hanging, Missing)}
        patch.setattr(peers, "named_peers", lambda names: kinds)
        return BENCHES["peers"](**SMALL, patience=5.0)


def test_what_the_judge_denies_is_not_solved_but_wrong(odd):
    for task in ("random, 1e-5", "random, 1 mm, 0.1 deg", "singular, 1e-5", "two arms, 1e-5"):
        assert odd[f"{task}: liar, solved"] == 0
        assert odd[f"{task}: liar, wrong"] == 1
    assert odd["3 different: liar, solved"] == 0
    assert odd["random, 1e-5: uniform, solved"] == 1


def test_a_peer_that_fails_has_solved_nothing_not_even_what_has_no_solution(odd):
    for task in ("random, 1e-5", "beyond reach, 1e-5"):
        assert odd[f"{task}: dying, solved"] == 0 and odd[f"{task}: dying, wrong"] == 0
    assert odd["random, 1e-5: dying, median"] == 5000
    assert odd.options["missing"] == "pip install nothing-of-this-name"
    assert "died: SIGSEGV (3 times)" in odd.options["faults"]["dying, panda"]
    assert any("dying, panda: died" in line for line in odd.notes)
    assert "Not installed, and so not asked: pip install nothing" in odd.notes[0]


def test_a_missing_peer_that_is_named_is_an_error(monkeypatch):
    monkeypatch.setattr(peers, "named_peers", lambda names: {"missing": Missing})
    monkeypatch.setattr(peers, "OURS", ())
    with pytest.raises(mik.OptionError, match="pip install nothing-of-this-name"):
        BENCHES["peers"](**SMALL, peers="missing")


def test_a_missing_peer_is_named_with_the_command_that_brings_it(panda, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **options):
        if name.partition(".")[0] in ("ssik", "optik", "PyKDL", "mink", "roboplan"):
            raise ImportError(name)
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    _, missing = build_peers(PEERS.values(), panda, Judge(panda), 0)
    assert missing == [
        "apt install python3-pykdl", "pip install mink daqp", "pip install optik-py",
        "pip install roboplan-simple-ik", "pip install ssik",
    ]  # fmt: skip


@pytest.mark.slow
def test_tables_fit_and_name_all_that_took_part(result, tmp_path):
    one, hard, seeded, many, arms = peers_tables(result)
    for table in (one, hard, seeded, many, arms):
        lines = [table.head, *table.rows]
        assert len({len(line) for line in lines}) == 1
        widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
        assert sum(widths) + len(widths) - 1 <= 80
    value = result["random, 1e-5: uniform, median"]
    assert all(all(row) for table in (one, hard, arms) for row in table.rows)
    assert one.rows[0][:4] == ["ours, uniform", "100", "0", f"{value:.2g}"]
    assert {row[0] for row in arms.rows} <= {
        "ours, uniform",
        "ours, network",
        "CLIK",
        "pink",
        "mink",
    }
    (tmp_path / "peers.json").write_text(json.dumps(plain(result.as_dict())))
    assert one.title in TABLES["peers"](tmp_path)
    readme = readme_table(tmp_path).splitlines()
    assert 4 <= len(readme) <= 12 and f"{value:.2g} / " in readme[2]


@pytest.mark.slow
def test_pictures_are_drawn(result, tmp_path):
    for path in plot_peers(result, tmp_path / "plots"):
        assert path.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(mik.OptionError, match="cannot write plots"):
        plot_peers(result, tmp_path / "plots" / "peers-success.png")


def test_singular_configurations_have_lost_a_rank(panda):
    q = pose_sets.singular_configurations(panda, 20, 0)
    judge = IndependentJudge(panda)
    for row in q:
        assert np.linalg.svd(judge.jacobian(row)[0], compute_uv=False)[-1] < 2e-4
    assert panda.within_limits(q).all() and len(np.unique(q.round(3), axis=0)) == 20


def test_poses_at_the_edge_are_farther_out_than_nearly_all(panda):
    shoulder = panda.placement[0, :3, 3]
    edge = pose_sets.edge_of_reach(panda, 10, 0)[:, 0, :3, 3]
    any_pose = panda.forward(draw(panda, 2000).numpy())[:, 0, :3, 3]
    far = np.quantile(np.linalg.norm(any_pose - shoulder, axis=-1), 0.97)
    assert np.linalg.norm(edge - shoulder, axis=-1).min() > far
