# SPDX-License-Identifier: Apache-2.0
"""Normal numbers from counters: where they come from does not matter, and they are normal."""

import numpy as np
import pytest

from meanflow_ik_core.kernels.normal_stream import fill_normal


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
