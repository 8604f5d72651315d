# SPDX-License-Identifier: Apache-2.0
"""Parts of a goal that share no joint are solved together from fewer starts."""

import numpy as np
import pytest
from example_robots import TORSO, TORSO_TIPS
from numba import njit
from oracles import Judge

import meanflow_ik_core as mik
from meanflow_ik_core.kernels import recombination
from meanflow_ik_core.kernels.descent import CONVERGED, FAILED
from meanflow_ik_core.solving.recombination import independent_parts
from meanflow_ik_core.solving.refine import refine_lm


@njit
def recombine(q, found, outcome, joint_parts):
    recombination.recombine(q, found, outcome, joint_parts)


@pytest.fixture(scope="module")
def pair() -> mik.Robot:
    """The torso's arms on a waist that is held: two tips that share no joint."""
    return mik.load_robot(TORSO, tips=TORSO_TIPS, held={"lift": 0.1, "turn": 0.3})


def test_tips_that_share_a_joint_are_one_part(torso, pair):
    assert [part.tips.tolist() for part in independent_parts(torso)] == [[0, 1]]
    assert len(independent_parts(torso)[0].joints) == torso.num_joints
    parts = independent_parts(pair)
    assert sorted(part.tips.tolist() for part in parts) == [[0], [1]]
    joints = np.concatenate([part.joints for part in parts])
    assert sorted(joints.tolist()) == list(range(pair.num_joints))
    alone = independent_parts(pair, np.repeat([[0.0], [1.0]], 6, 1))
    assert [part.tips.tolist() for part in alone] == [[1]]


def test_failed_samples_are_completed_part_by_part_and_others_left(pair):
    parts = independent_parts(pair)
    joint_parts = np.full(pair.num_joints, -1)
    for number, part in enumerate(parts):
        joint_parts[part.joints] = number
    rng = np.random.default_rng(0)
    q = rng.normal(size=(50, pair.num_joints))
    found = rng.random((50, 2)) < 0.3
    outcome = np.where(found.all(1), CONVERGED, FAILED).astype(np.int8)
    failed, before = outcome == FAILED, q.copy()
    recombine(q, found, outcome, joint_parts)
    assert (outcome == CONVERGED).all()
    np.testing.assert_array_equal(q[~failed], before[~failed])
    for row in np.flatnonzero(failed):
        for number, part in enumerate(parts):
            from_whom = (before[:, part.joints] == q[row, part.joints]).all(1)
            assert found[from_whom.argmax(), number]
            if found[row, number]:
                assert from_whom[row]
    found[:, 1] = False
    q = before.copy()
    outcome = np.full(50, FAILED, np.int8)
    recombine(q, found, outcome, joint_parts)
    assert (outcome == FAILED).all()
    np.testing.assert_array_equal(q[:, parts[1].joints], before[:, parts[1].joints])
    taken = (q[:, None, parts[0].joints] == before[None, found[:, 0]][..., parts[0].joints]).all(-1)
    assert taken.any(1).all()


def test_every_start_serves_when_each_part_was_found_once(pair):
    rng = np.random.default_rng(1)
    q0 = rng.uniform(pair.lower, pair.upper, (20, 100, pair.num_joints))
    goals = rng.uniform(pair.lower, pair.upper, (20, pair.num_joints))
    judge = Judge(pair)
    targets = np.stack([judge.poses(q) for q in goals])
    refined = refine_lm(pair, q0, targets)
    arms = [
        refine_lm(pair, q0, targets, axis_weights=np.repeat(np.eye(2)[[tip]].T, 6, 1))
        for tip in range(2)
    ]
    by_chance = (arms[0].converged & arms[1].converged).mean()
    assert refined.converged.mean() > by_chance + 0.1
    assert refined.converged.any(1).all()
    for b, n in np.argwhere(refined.converged)[::50]:
        assert np.abs(judge.poses(refined.q[b, n]) - targets[b]).max() < 1e-5
        assert pair.within_limits(refined.q[b, n])


def test_plain_restarts_are_not_recombined(pair):
    rng = np.random.default_rng(3)
    q0 = rng.uniform(pair.lower, pair.upper, (3, 100, pair.num_joints))
    targets = pair.forward(rng.uniform(pair.lower, pair.upper, (3, pair.num_joints)))
    plain = refine_lm(pair, q0, targets, recombining=False)
    for b, n in np.ndindex(3, 100):
        alone = refine_lm(pair, q0[b : b + 1, n : n + 1], targets[b : b + 1])
        np.testing.assert_array_equal(plain.q[b, n], alone.q[0, 0])


def test_a_solver_finds_more_with_recombining_than_by_plain_restarts():
    solver = mik.load_solver("dual_panda", sampler="uniform")
    q = np.random.default_rng(4).uniform(solver.robot.lower, solver.robot.upper, (3, 14))
    targets = solver.robot.forward(q)
    options = {"num_samples": 100, "max_solutions": 100, "seed": 1, "max_rounds": 1}
    with_parts, without = (
        solver.solve(targets, recombining=recombining, **options) for recombining in (True, False)
    )
    assert with_parts.valid.sum() > 2 * without.valid.sum() > 0


def test_what_cannot_be_reached_stays_so(pair):
    rng = np.random.default_rng(2)
    q0 = rng.uniform(pair.lower, pair.upper, (3, 50, pair.num_joints))
    targets = pair.forward(rng.uniform(pair.lower, pair.upper, (3, pair.num_joints)))
    targets[:, 1, :3, 3] += 5.0
    refined = refine_lm(pair, q0, targets)
    assert not refined.converged.any()
    assert refined.position_error[..., 1].min() > 1.0


@pytest.mark.parametrize("lost", [0, 1])
@pytest.mark.parametrize("rows", [1, 4])
def test_a_tip_out_of_reach_leaves_the_other_exact(pair, lost, rows):
    rng = np.random.default_rng(2)
    goals = rng.uniform(pair.lower, pair.upper, (10, pair.num_joints))
    judge = Judge(pair)
    targets = np.stack([judge.poses(q) for q in goals])
    targets[:, lost, 0, 3] += 5.0
    result = mik.load_solver(pair, sampler="uniform").solve(targets, 128, rows, seed=0)
    assert not result.valid.any()
    other = 1 - lost
    for b, row in np.ndindex(len(targets), rows):
        reached = judge.poses(result.joint_positions[b, row])
        np.testing.assert_allclose(reached[other], targets[b, other], atol=1e-8)
        assert reached[lost, 0, 3] > 0.0  # it leans towards its target


def test_checking_for_collisions_only_until_there_are_enough_changes_no_answer():
    solver = mik.load_solver("dual_panda", sampler="uniform")
    rng = np.random.default_rng(3)
    targets = solver.robot.forward(
        0.7 * rng.uniform(solver.robot.lower, solver.robot.upper, (10, solver.robot.num_joints))
    )
    options = {"seed": 0, "min_separation": 0.0, "max_rounds": 1}
    found = solver.solve(targets, 64, 3, avoid_self_collision=True, **options)
    every = solver.solve(targets, 64, 64, **options)
    touching = solver.self_collision.in_collision(np.nan_to_num(every.joint_positions))
    assert found.valid.any() and touching[every.valid].any()
    for target in range(len(targets)):
        free = every.joint_positions[target][(every.valid & ~touching)[target]]
        expected = free[: found.valid.shape[1]]
        np.testing.assert_array_equal(found.joint_positions[target][found.valid[target]], expected)
