# SPDX-License-Identifier: Apache-2.0
"""Normal numbers from counters: each is a function of a key, a sample and a joint.

So what is drawn does not depend on what else is drawn, in which order, or by how many threads.
The generator is splitmix64 (Steele, Lea, Flood 2014): a hash of a key and a counter.
"""

import numpy as np

from .jit import cached_jit, jit

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@jit
def _hashed(key, counter):
    x = key + (np.uint64(counter) + np.uint64(1)) * _GOLDEN
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@cached_jit
def fill_normal(keys, first, out):
    """Fill out (B, N, J) float32 with independent standard normal numbers (Box and Muller 1958).

    keys (B,) uint64 are one per pose, and different where other numbers are wanted; ``first`` is
    the number of the first sample.
    """
    joints = out.shape[2]
    for pose in range(out.shape[0]):
        for sample in range(out.shape[1]):
            key = _hashed(keys[pose], first + sample)
            for j in range(0, joints, 2):
                bits = _hashed(key, j)
                part = np.float32((bits >> np.uint64(40)) + np.uint64(1)) * np.float32(2.0**-24)
                radius = np.sqrt(np.float32(-2.0) * np.log(part))
                turn = np.float32(bits & np.uint64(0xFFFFFF)) * np.float32(2 * np.pi * 2.0**-24)
                out[pose, sample, j] = radius * np.cos(turn)
                if j + 1 < joints:
                    out[pose, sample, j + 1] = radius * np.sin(turn)
