# SPDX-License-Identifier: Apache-2.0
"""The closed form and the near-limit poses, with Pinocchio and the iterative solver as judges."""

import sys

import numpy as np
import pytest
from example_robots import draw
from oracles import Judge, solutions_within_limits

import meanflow_ik_core as mik
from meanflow_ik_core.bench.near_limits import (
    MARGIN,
    largest_margin,
    limit_margin,
    near_limit_poses,
)
from meanflow_ik_core.evaluation.closed_form import ClosedForm
from meanflow_ik_core.solving.refine import refine_lm


@pytest.fixture(scope="module")
def near_limits(panda) -> tuple[np.ndarray, np.ndarray]:
    return near_limit_poses(panda, 6, seed=3)


def iterative_solutions(robot: mik.Robot, T_base_tip: np.ndarray, starts: int) -> np.ndarray:
    refined = refine_lm(robot, draw(robot, starts, 5).numpy()[None], T_base_tip[None, None])
    return refined.q[0][refined.converged[0]]


def test_the_configuration_that_made_a_pose_is_among_its_solutions(panda, closed_form):
    q = draw(panda, 500, 0).numpy()
    rows, solutions = closed_form.solve(panda.forward(q)[:, 0], q[:, 6])
    nearest = np.full(len(q), np.inf)
    np.minimum.at(nearest, rows, np.abs(solutions - q[rows]).max(-1))
    assert nearest.max() < 1e-6


def test_every_solution_reaches_the_pose_within_the_limits_by_pinocchio(panda, closed_form):
    judge = Judge(panda)
    for q in draw(panda, 20, 1).numpy():
        pose = judge.poses(q)
        solutions = solutions_within_limits(closed_form, pose[0], 50)
        assert len(solutions) > 0
        assert all(judge.accepts(solution, pose, 1e-9) for solution in solutions)


def test_what_the_iterative_solver_finds_is_on_the_curve(panda, closed_form):
    for q in draw(panda, 10, 2).numpy():
        pose = panda.forward(q)[0]
        found = iterative_solutions(panda, pose, 200)
        assert len(found) > 10
        rows, exact = closed_form.solve(pose, found[:, 6])
        nearest = np.full(len(found), np.inf)
        np.minimum.at(nearest, rows, np.abs(exact - found[rows]).max(-1))
        # Not those at a limit, which a rounding error puts outside, nor near a turning point.
        clear = limit_margin(panda, found) > 1e-3
        assert (nearest[clear] < 1e-3).mean() > 0.99


def test_a_pose_beyond_the_reach_has_no_solution(closed_form):
    pose = np.eye(4)
    pose[:3, 3] = 0.8, 0.8, 0.8
    assert solutions_within_limits(closed_form, pose, 200).shape == (0, 7)


def test_no_values_of_the_last_joint_give_no_solutions(panda, closed_form):
    rows, solutions = closed_form.solve(np.eye(4), np.empty(0))
    assert rows.shape == (0,)
    assert solutions.shape == (0, 7)


def test_other_robots_are_refused(torso):
    with pytest.raises(mik.RobotError, match="7 revolute joints and one tip"):
        ClosedForm(torso)


def test_a_missing_package_is_named(panda, monkeypatch):
    monkeypatch.setitem(sys.modules, "eaik.IK_Homogeneous", None)
    with pytest.raises(mik.OptionError, match="EAIK"):
        ClosedForm(panda)


def test_near_limit_poses_are_reachable(panda, near_limits):
    judge = Judge(panda)
    for pose, q in zip(*near_limits, strict=True):
        assert judge.accepts(q, pose[None], 1e-9)
        assert 0 <= limit_margin(panda, q) <= MARGIN


def test_no_solution_of_a_near_limit_pose_is_clear_of_the_limits(panda, closed_form, near_limits):
    for pose in near_limits[0]:
        found = iterative_solutions(panda, pose, 2000)
        assert len(found) > 10
        assert limit_margin(panda, found).max() <= MARGIN + 1e-4
        dense = solutions_within_limits(closed_form, pose, 5000)
        assert limit_margin(panda, dense).max(initial=0) <= MARGIN


def test_near_limit_poses_depend_on_the_seed_only(panda, near_limits):
    np.testing.assert_array_equal(near_limit_poses(panda, 2, seed=3)[1], near_limits[1][:2])
    assert np.abs(near_limit_poses(panda, 2, seed=4)[1] - near_limits[1][:2]).max() > 0.1


def test_a_margin_that_a_dense_sweep_finds_is_found(panda, closed_form):
    for q in draw(panda, 10, 6).numpy():
        pose = panda.forward(q)[0]
        dense = limit_margin(panda, solutions_within_limits(closed_form, pose, 5000)).max()
        enough = dense - 1e-3
        assert largest_margin(closed_form, pose, q[6], enough) > enough
        assert largest_margin(closed_form, pose, q[6], dense) < dense + 1e-2


def test_no_solution_of_a_dense_sweep_is_nearer_than_the_nearest(panda, closed_form):
    q, references = draw(panda, 10, 5).numpy(), draw(panda, 10, 6).numpy()
    for pose, solution, reference in zip(panda.forward(q)[:, 0], q, references, strict=True):
        dense = solutions_within_limits(closed_form, pose, 20_000)
        dense_distance = np.linalg.norm(dense - reference, axis=-1).min()
        found = closed_form.nearest_distance(pose, reference)
        assert 0.98 * dense_distance < found < dense_distance * (1 + 1e-3)
        assert found < np.linalg.norm(solution - reference) * (1 + 1e-3)
        assert closed_form.nearest_distance(pose, solution) < 1e-2


def test_there_is_no_nearest_solution_beyond_reach(panda, closed_form):
    pose = np.eye(4)
    pose[2, 3] = 3.0
    assert closed_form.nearest_distance(pose, panda.lower) == np.inf
