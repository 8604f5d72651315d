# SPDX-License-Identifier: Apache-2.0
"""Discrepancy, coverage and total variation against closed forms."""

import numpy as np
import pytest

from meanflow_ik_core.evaluation.distribution import (
    BANDWIDTHS,
    coverage,
    mmd_squared,
    squared_distances,
    total_variation,
)

JOINTS = 7


def mmd_of_gaussians(shift: np.ndarray) -> float:
    """Squared MMD of N(0, 1) and N(shift, 1) in closed form, of the mean of the kernels."""
    s2 = np.square(BANDWIDTHS)
    same = (s2 / (s2 + 2)) ** (len(shift) / 2)
    return float(np.mean(2 * same * (1 - np.exp(-shift @ shift / (2 * (s2 + 2))))))


@pytest.mark.parametrize("length", [0.0, 0.3, 2.0])
def test_mmd_is_that_of_two_gaussians_on_average(length):
    random = np.random.default_rng(0)
    shift = np.full(JOINTS, length / np.sqrt(JOINTS))
    estimates = [
        mmd_squared(random.normal(size=(30, JOINTS)), random.normal(size=(40, JOINTS)) + shift)
        for _ in range(500)
    ]
    error = np.std(estimates) / np.sqrt(len(estimates))
    assert abs(np.mean(estimates) - mmd_of_gaussians(shift)) < 4 * error
    # far from what the estimate with equal pairs, which is biased, would give
    assert error < 0.1 / 30


def test_distances_are_those_of_the_definition():
    random = np.random.default_rng(1)
    a, b = random.normal(size=(5, JOINTS)), random.normal(size=(6, JOINTS))
    expected = np.square(a[:, None] - b).sum(-1)
    np.testing.assert_allclose(squared_distances(a, b), expected, atol=1e-12)
    assert (squared_distances(a, a).diagonal() >= 0).all()


def test_coverage_is_the_weight_of_the_points_near_a_sample():
    points = np.linspace(0, 1, 101)[:, None]
    samples = np.array([[0.2], [0.25], [5.0]])
    assert coverage(points, np.ones(101), samples, 0.1001) == pytest.approx(26 / 101)
    heavy = np.where(points[:, 0] > 0.5, 3.0, 1.0)
    assert coverage(points, heavy, samples, 0.1001) == pytest.approx(26 / (51 + 150))
    assert coverage(points, heavy, np.empty((0, 1)), 0.1) == 0


def test_total_variation_is_half_the_difference():
    assert total_variation(np.array([0.5, 0.5, 0]), np.array([0.25, 0.5, 0.25])) == 0.25
    assert total_variation(np.array([1.0, 0]), np.array([0, 1.0])) == 1
