# SPDX-License-Identifier: Apache-2.0
"""Numbers from counters: where they come from does not matter, and they have their distribution."""

import numpy as np
import pytest

from meanflow_ik_core.kernels.counter_stream import fill_normal, fill_uniform, keys_of_poses


def normal(keys, samples, joints, first=0):
    out = np.full((len(keys), samples, joints), np.nan, np.float32)
    fill_normal(np.array(keys, np.uint64), first, out)
    return out


def test_a_number_depends_on_its_key_sample_and_joint_alone():
    keys = np.arange(20) ** 3
    whole = normal(keys, 30, 7)
    np.testing.assert_array_equal(normal(keys, 30, 7), whole)
    np.testing.assert_array_equal(normal(keys[4:7], 11, 7, first=5), whole[4:7, 5:16])
    np.testing.assert_array_equal(normal(keys, 30, 4), whole[..., :4])
    assert np.isin(normal(keys + 10_000, 30, 7), whole).mean() < 1e-2


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_numbers_are_normal_and_independent_along_every_axis(axis):
    shape = [3, 5, 8]
    shape[axis] = 20_000
    numbers = normal(np.arange(shape[0]), *shape[1:])
    numbers = np.moveaxis(numbers, axis, -1).reshape(-1, 20_000).astype(float)
    noise = numbers.size**-0.5
    moments = [(numbers**n).mean() for n in (1, 2, 3, 4)]
    assert np.abs(np.subtract(moments, [0, 1, 0, 3])).max() < 4 * np.sqrt(96) * noise
    assert np.abs((numbers[:, 1:] * numbers[:, :-1]).mean()) < 4 * noise
    correlation = np.corrcoef(numbers) - np.eye(len(numbers))
    assert np.abs(correlation).max() < 5 * 20_000**-0.5
    quantiles = np.quantile(numbers, [0.001, 0.16, 0.5, 0.84, 0.999])
    np.testing.assert_allclose(quantiles, [-3.09, -0.994, 0, 0.994, 3.09], atol=0.08)


def test_numbers_are_finite_for_any_key():
    assert np.isfinite(normal([0, 1, 2**63, 2**64 - 1], 10_000, 9)).all()


def test_uniform_samples_depend_on_key_and_number_alone_and_fill_the_limits():
    limits = np.array([[-1.0, 3.0], [0.0, 0.5], [-2.0, -1.0]])
    keys = np.arange(10, dtype=np.uint64)
    whole = np.empty((10, 5000, 3))
    fill_uniform(keys, 0, limits, whole)
    part = np.empty((3, 20, 3))
    fill_uniform(keys[4:7], 30, limits, part)
    np.testing.assert_array_equal(part, whole[4:7, 30:50])
    unit = (whole - limits[:, 0]) / (limits[:, 1] - limits[:, 0])
    grid = np.linspace(0, 1, 11)
    np.testing.assert_allclose(
        np.quantile(unit, grid, axis=(0, 1)), grid[:, None] + [0] * 3, atol=0.01
    )
    correlation = np.corrcoef(unit[:, :, 0]) - np.eye(10)
    assert np.abs(correlation).max() < 5 * 5000**-0.5


def test_keys_are_those_of_a_pose_and_a_seed():
    T_base_tip = np.random.default_rng(0).normal(size=(50, 2, 4, 4))
    keys = keys_of_poses(T_base_tip, np.uint64(3))
    assert len(set(keys.tolist())) == 50
    np.testing.assert_array_equal(keys_of_poses(T_base_tip[7:9], np.uint64(3)), keys[7:9])
    assert not np.isin(keys_of_poses(T_base_tip, np.uint64(4)), keys).any()
