# SPDX-License-Identifier: Apache-2.0
"""The exact posterior: judged by Pinocchio, finite differences, and what uniform joints imply."""

from functools import partial

import numpy as np
import pytest
from example_robots import draw
from oracles import Judge

import meanflow_ik_core as mik
from meanflow_ik_core.bench.near_limits import near_limit_poses
from meanflow_ik_core.evaluation.posterior import SolutionCurve, density_per_length, trace_solutions
from meanflow_ik_core.solving.refine import refine_lm

POSES = 100


@pytest.fixture(scope="module")
def q_true(panda) -> np.ndarray:
    return draw(panda, POSES, 11).numpy()


@pytest.fixture(scope="module")
def curves(panda, closed_form, q_true) -> list[SolutionCurve]:
    return [trace_solutions(closed_form, pose) for pose in panda.forward(q_true)[:, 0]]


def ranks(curves, q_true, feature, weight) -> np.ndarray:
    """(POSES,) probability, by the weights of links, of a lower feature than the true joints'."""
    found = []
    for curve, q in zip(curves, q_true, strict=True):
        weights = weight(curve)
        lower = feature(curve.middle) < feature(q[None])
        found.append(weights[lower].sum() / weights.sum())
    return np.sort(found)


def kolmogorov_smirnov(ranks: np.ndarray) -> float:
    """Scaled distance to the uniform distribution; above 1.95 with probability 0.001."""
    n = len(ranks)
    above, below = np.arange(1, n + 1) / n - ranks, ranks - np.arange(n) / n
    return float(np.sqrt(n) * max(above.max(), below.max()))


def test_uniform_joints_are_a_fair_draw_from_the_posterior_of_their_own_pose(panda, curves, q_true):
    # Talts et al. 2018, "Validating Bayesian inference algorithms with simulation-based
    # calibration": then every feature's rank is uniform.
    features = [partial(np.take, indices=joint, axis=-1) for joint in range(7)]
    for feature in (*features, partial(density_per_length, panda)):
        statistic = kolmogorov_smirnov(ranks(curves, q_true, feature, lambda curve: curve.mass))
        assert statistic < 1.95


def test_the_calibration_finds_a_wrong_density_out(panda, curves, q_true):
    def deviation(weight):
        """Of the mean rank of the density, in standard errors."""
        found = ranks(curves, q_true, lambda q: density_per_length(panda, q), weight)
        return abs(found.mean() - 0.5) * np.sqrt(12 * len(found))

    assert deviation(lambda curve: curve.mass) < 2.5
    assert deviation(lambda curve: curve.length) > 2.5
    assert deviation(lambda curve: curve.mass**2 / curve.length) > 2.5
    assert deviation(lambda curve: np.abs(curve.end - curve.start)[:, 6]) > 2.5


def test_density_per_length_is_that_of_the_first_six_joints_per_last_joint(panda, closed_form):
    q, step = draw(panda, 200, 3).numpy(), 1e-5
    ends = []
    for sign in (-1, 1):
        rows, found = closed_form.solve(panda.forward(q)[:, 0], q[:, 6] + sign * step)
        distance = np.abs(found - q[rows]).max(-1)
        end = np.full_like(q, np.nan)
        for row in np.unique(rows):
            end[row] = found[rows == row][distance[rows == row].argmin()]
        ends.append(end)
    slope = np.linalg.norm(ends[1] - ends[0], axis=-1) / (2 * step)
    six = 1 / np.abs(np.linalg.det(panda.jacobian(q)[:, 0, :, :6]))
    smooth = slope < 50  # elsewhere a turning point is near
    assert smooth.mean() > 0.8
    np.testing.assert_allclose(
        density_per_length(panda, q)[smooth] * slope[smooth], six[smooth], rtol=1e-3
    )


def test_samples_are_solutions_within_the_limits_by_pinocchio(panda, curves):
    judge = Judge(panda)
    random = np.random.default_rng(0)
    for curve in curves[:20]:
        q, branch = curve.sample(20, random)
        assert all(judge.accepts(row, curve.T_base_tip[None], 1e-7) for row in q)
        assert len(np.unique(q, axis=0)) == 20
        assert set(branch) <= set(range(len(curve.branch_mass)))


def test_samples_fall_on_the_branches_by_their_masses(curves):
    random = np.random.default_rng(1)
    for curve in curves[:10]:
        count = 4000
        q, branch = curve.sample(count, random)
        share = np.bincount(branch, minlength=len(curve.branch_mass)) / count
        error = np.sqrt(curve.branch_mass * (1 - curve.branch_mass) / count)
        assert (np.abs(share - curve.branch_mass) < 4.5 * error + 1e-12).all()
        # Where two branches cross, up to a link's length, the nearest one may be the other.
        nearest, distance = curve.nearest_branch(q)
        assert (nearest == branch).mean() > 0.97
        assert distance.max() < 0.06


def test_what_the_iterative_solver_finds_is_on_the_curve(panda, curves):
    starts = np.tile(draw(panda, 200, 5).numpy(), (len(curves), 1, 1))
    poses = np.stack([curve.T_base_tip for curve in curves])[:, None]
    refined = refine_lm(panda, starts, poses)
    near = [
        curve.nearest_branch(q[valid])[1] < 0.05
        for curve, q, valid in zip(curves, refined.q, refined.converged, strict=True)
    ]
    assert np.concatenate(near).size > 5000
    assert np.concatenate(near).mean() > 0.99


def test_branches_end_at_limits_only(panda, curves):
    loose = 0
    for curve in curves:
        ends = np.round(np.concatenate((curve.start, curve.end)), 9)
        points, count = np.unique(ends, axis=0, return_counts=True)
        inside = np.minimum(points - panda.lower, panda.upper - points).min(-1)
        loose += ((count == 1) & (inside > 1e-6)).any()
    assert loose <= 0.03 * len(curves)


def test_links_are_short_and_masses_are_probabilities(curves):
    for curve in curves:
        assert curve.length.max() <= 0.1
        assert curve.mass.sum() == pytest.approx(1)
        assert (np.diff(curve.branch_mass) <= 1e-12).all()
        np.testing.assert_allclose(np.linalg.norm(curve.end - curve.start, axis=-1), curve.length)


def test_a_reachable_pose_has_solutions_however_short_their_branches(panda, closed_form):
    # Every solution has a joint within 0.002 rad of its limit, so that the branches are short.
    judge, random = Judge(panda), np.random.default_rng(0)
    for pose, q in zip(*near_limit_poses(panda, 4, seed=1, margin=2e-3), strict=True):
        curve = trace_solutions(closed_form, pose, q[6])
        assert all(judge.accepts(row, pose[None], 1e-7) for row in curve.sample(10, random)[0])


def test_a_pose_beyond_the_reach_has_no_posterior(closed_form):
    pose = np.eye(4)
    pose[:3, 3] = 0.8, 0.8, 0.8
    with pytest.raises(mik.TargetError, match="no solution"):
        trace_solutions(closed_form, pose)
