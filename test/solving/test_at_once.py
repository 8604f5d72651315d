# SPDX-License-Identifier: Apache-2.0
"""What holds for a search in one compiled call, judged by searches with many more starts."""

import copy
import functools
import os
import pickle
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields

import numpy as np
import pytest
from oracles import Judge

import meanflow_ik_core as mik
from meanflow_ik_core.solving import at_once


def draw(robot: mik.Robot, count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(robot.lower, robot.upper, (count, robot.num_joints))


@pytest.fixture(params=["uniform", "learned"])
def solver(request) -> mik.IKSolver:
    return request.getfixturevalue(request.param)


def same(a: mik.IKResult, b: mik.IKResult) -> bool:
    """Whether all arrays of two results are equal."""
    names = [one.name for one in fields(a) if isinstance(getattr(a, one.name), np.ndarray)]
    return all(
        np.array_equal(getattr(a, name), getattr(b, name), equal_nan=name == "joint_positions")
        for name in names
    )


OPTIONS = {
    "one": {"max_solutions": 1},
    "many": {"num_samples": 64, "max_solutions": 20},
    "diverse": {"num_samples": 64, "max_solutions": 8, "select": "diverse"},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_an_answer_depends_on_neither_the_batch_nor_the_threads(solver, options):
    targets = solver.robot.forward(draw(solver.robot, 40, 0))
    targets[::9, :, :3, 3] += 3.0  # some are beyond reach
    together = solver.solve(targets, seed=3, **options)
    assert same(together, solver.solve(targets, seed=3, num_threads=3, **options))
    for b in (0, 1, 17, 39):
        alone = solver.solve(targets[b : b + 1], seed=3, **options)
        np.testing.assert_array_equal(alone.joint_positions[0], together.joint_positions[b])
        np.testing.assert_array_equal(alone.origin[0], together.origin[b])


def test_one_solution_takes_as_many_starts_as_it_needs(solver):
    targets = solver.robot.forward(draw(solver.robot, 100, 1))
    result = solver.solve(targets, 1000, 1, seed=0)
    assert result.valid.all()
    assert sum(result.starts.values()) < 40 * 100
    few = solver.solve(targets, 2, 1, seed=0)
    assert few.valid.all() and sum(few.starts.values()) < sum(result.starts.values())


def test_the_solution_nearest_to_a_seed_is_found(solver):
    robot = solver.robot
    targets, seeds = robot.forward(draw(robot, 60, 2)), draw(robot, 60, 3)
    result = solver.solve(targets, seed_state=seeds, max_solutions=1, seed=0)
    many = solver.solve(targets, 3000, 2, seeds, seed=1)
    assert result.valid.all() and many.valid.all()
    distance = np.linalg.norm(result.joint_positions[:, 0] - seeds, axis=1)
    np.testing.assert_allclose(result.distance[:, 0], distance)
    assert (distance <= 1.02 * many.distance[:, 0]).mean() >= 0.95


def test_a_seed_near_the_target_needs_no_other_start(solver):
    robot = solver.robot
    q = draw(robot, 100, 4)
    seeds = np.clip(q + np.random.default_rng(5).normal(0, 0.01, q.shape), robot.lower, robot.upper)
    result = solver.solve(robot.forward(q), seed_state=seeds, max_solutions=1, seed=0)
    assert result.valid.all() and (result.origin == "seed").mean() > 0.95
    assert (result.distance[:, 0] <= np.linalg.norm(q - seeds, axis=1) * (1 + 1e-3)).all()
    assert sum(count for name, count in result.starts.items() if name != "seed") < 1000


def test_continuous_joints_slide_the_short_way_round(torso):
    solver = mik.load_solver(torso, sampler="uniform")
    q = draw(torso, 20, 6)
    seeds = np.where(torso.continuous, np.pi - 1e-3, q)
    q = np.where(torso.continuous, 1e-3 - np.pi, q)
    result = solver.solve(torso.forward(q), seed_state=seeds, max_solutions=1, seed=0)
    assert result.valid.all() and torso.continuous.any()
    assert (result.distance[:, 0] < 0.02).all()


def test_threads_search_at_the_same_time(uniform, monkeypatch):
    spans, search = [], at_once.search

    def timed(*arguments):
        began = time.perf_counter()
        found = search(*arguments)
        spans.append((began, time.perf_counter()))
        return found

    monkeypatch.setattr(at_once, "search", timed)
    targets = uniform.robot.forward(draw(uniform.robot, 2000, 9))
    uniform.solve(targets, seed=0, num_threads=2)
    assert len(spans) == 2
    assert max(began for began, _ in spans) < min(ended for _, ended in spans)


def test_threads_leave_parts_out_of_reach_to_each_other_alone(dual_panda):
    solvers = [mik.load_solver(dual_panda, sampler="uniform") for _ in range(2)]
    targets = dual_panda.forward(draw(dual_panda, 200, 10))
    targets[::2, 1, :3, 3] += 3.0  # the other arm's is refined without it, see `refinement`
    expected = solvers[0].solve(targets, 8, 2, seed=0)
    assert expected.valid[1::2, 0].all() and not expected.valid[::2].any()
    for _ in range(3):
        assert same(solvers[0].solve(targets, 8, 2, seed=0, num_threads=4), expected)
    with ThreadPoolExecutor(2) as pool:
        for found in pool.map(lambda one: one.solve(targets, 8, 2, seed=0), solvers):
            assert same(found, expected)


def test_a_solver_is_shared_by_threads_and_copied(uniform):
    targets = uniform.robot.forward(draw(uniform.robot, 30, 7))
    expected = uniform.solve(targets, 32, 4, seed=0)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: uniform.solve(targets, 32, 4, seed=0), range(8)))
    copies = (copy.deepcopy(uniform), pickle.loads(pickle.dumps(uniform)))
    found += [one.solve(targets, 32, 4, seed=0) for one in copies]
    assert all(same(one, expected) for one in found)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_a_solver_is_copied_after_checks_for_self_collision(solver, copied):
    robot = mik.load_robot("panda")  # one that no other test has checked
    own = mik.load_solver(robot, sampler=solver.sampler)
    targets = robot.forward(draw(robot, 10, 11))
    expected = own.solve(targets, 32, 4, seed=0, avoid_self_collision=True)
    found = copied(own).solve(targets, 32, 4, seed=0, avoid_self_collision=True)
    assert same(found, expected)


FORKED = """
import multiprocessing, sys
import torch
import meanflow_ik_core as mik
torch.set_num_threads(2)
solver = mik.load_solver("panda")
robot = solver.robot
targets = robot.forward(0.6 * robot.lower + 0.4 * robot.upper)[None]

def solved(seed):
    return solver.solve(targets, seed=seed, max_solutions=2, num_threads=2).joint_positions.tolist()

if sys.argv[1] == "after":
    solver.warm_up()
    solved(0)
with multiprocessing.get_context("fork").Pool(2) as pool:
    found = pool.map_async(solved, range(4)).get(100)
assert found == [solved(seed) for seed in range(4)]
"""


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_forked_pool_answers_before_and_after_its_parent_has_solved(learned, when):
    learned.warm_up()  # so that the process finds all compiled
    done = subprocess.run([sys.executable, "-c", FORKED, when], timeout=200, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


PLAIN = """
import sys, numpy, meanflow_ik_core as mik
solver = mik.load_solver("panda", sampler="uniform")
result = solver.solve(numpy.load(sys.argv[1]), 16, 2, seed=0)
assert result.valid.all()
numpy.save(sys.argv[2], result.joint_positions)
"""


def test_a_cpu_without_avx_solves_as_well(panda, tmp_path):
    targets = panda.forward(draw(panda, 4, 12))
    np.save(tmp_path / "targets.npy", targets)
    environment = os.environ | {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
    files = str(tmp_path / "targets.npy"), str(tmp_path / "q.npy")
    subprocess.run([sys.executable, "-c", PLAIN, *files], env=environment, check=True)
    judge = Judge(panda)
    for solutions, target in zip(np.load(files[1]), targets, strict=True):
        assert all(judge.accepts(q, target) for q in solutions)


@pytest.mark.parametrize(
    ("name", "value"),
    [("num_samples", 4_000_000_000), ("max_solutions", 10**12), ("max_solutions", 2**40),
     ("num_threads", 0), ("num_threads", 1.5)],
)  # fmt: skip
def test_what_would_fill_the_memory_is_refused_at_once(uniform, name, value):
    with pytest.raises(mik.OptionError, match=name):
        uniform.solve(uniform.robot.forward(draw(uniform.robot, 1, 8)), **{name: value})


def test_samples_that_would_fill_the_memory_are_refused_at_once(solver):
    targets = solver.robot.forward(draw(solver.robot, 2, 8))
    for refused in (solver.sample, functools.partial(mik.solve_path, solver)):
        with pytest.raises(mik.OptionError, match="num_samples is 4000000000"):
            refused(targets, num_samples=4_000_000_000)


def test_complex_targets_and_seeds_are_refused(uniform):
    targets = uniform.robot.forward(draw(uniform.robot, 1, 9))
    with pytest.raises(mik.TargetError, match="complex"):
        uniform.solve(targets + 0j)
    with pytest.raises(mik.SeedError, match="complex"):
        uniform.solve(targets, seed_state=draw(uniform.robot, 1, 9) + 0j)


def test_a_long_search_that_has_a_limit_comes_in_parts_and_finds_the_same(uniform):
    target, parts = uniform.robot.forward(draw(uniform.robot, 1, 0)), []
    asked = {"num_samples": 5000, "max_solutions": 64, "seed": 1}
    whole = uniform.solve(target, **asked)
    limited = uniform.solve(target, **asked, time_limit=60.0, between=lambda: parts.append(1))
    assert len(parts) > 2 and limited.starts == whole.starts and same(limited, whole)
