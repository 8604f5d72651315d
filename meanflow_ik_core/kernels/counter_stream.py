# SPDX-License-Identifier: Apache-2.0
"""Random numbers from counters: each is a function of its place, so that any order gives the same.

The generator is splitmix64 (Steele, Lea, Flood 2014): a hash of a key and a counter.
"""

import numpy as np

from .jit import jit

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@jit
def mixed(x):
    """A hash of 64 bits."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@jit
def key_of(seed, numbers):
    """The key of a seed and of float64 numbers."""
    key = mixed(seed + _GOLDEN)
    bits = numbers.view(np.uint64)
    for i in range(bits.size):
        key = mixed((key ^ bits[i]) + _GOLDEN)
    return key


@jit
def draw_uniform(key, start, limits, q):
    """Write q (J,), the configuration number ``start`` that is uniform within limits (J, 2)."""
    num_joints = limits.shape[0]
    for j in range(num_joints):
        counter = np.uint64(start * num_joints + j + 1)
        unit = np.float64(mixed(key + counter * _GOLDEN) >> np.uint64(11)) * 2.0**-53
        q[j] = limits[j, 0] + unit * (limits[j, 1] - limits[j, 0])
