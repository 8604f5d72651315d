# SPDX-License-Identifier: Apache-2.0
"""Random numbers from counters: each is a function of a key, a sample and a joint.

So what is drawn does not depend on what else is drawn, in which order, or by how many threads.
The generator is splitmix64 (Steele, Lea, Flood 2014): a hash of a key and a counter. Keys are one
per pose, (B,) uint64, and different where other numbers are wanted.
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
def keys_of_poses(T_base_tip, seed):
    """Keys (B,) of poses (B, T, 4, 4) and a seed; equal poses have equal keys."""
    keys = np.empty(T_base_tip.shape[0], np.uint64)
    for b in range(keys.size):
        key = _hashed(seed, 0)
        for t in range(T_base_tip.shape[1]):
            bits = T_base_tip[b, t].view(np.uint64)
            for r in range(3):
                for c in range(4):
                    key = _hashed(key ^ bits[r, c], 0)
        keys[b] = key
    return keys


@jit
def write_uniform(key, sample, limits, q):
    """Write q (J,), the sample of that number, uniform within limits (J, 2)."""
    own = _hashed(key, sample)
    for j in range(q.size):
        unit = np.float64(_hashed(own, j) >> np.uint64(11)) * 2.0**-53
        q[j] = limits[j, 0] + unit * (limits[j, 1] - limits[j, 0])


@cached_jit
def fill_uniform(keys, first, limits, out):
    """Fill out (B, N, J) with samples number ``first`` and on, uniform within limits (J, 2)."""
    for pose in range(out.shape[0]):
        for sample in range(out.shape[1]):
            write_uniform(keys[pose], first + sample, limits, out[pose, sample])


@cached_jit
def fill_normal(keys, first, out):
    """Fill out (B, N, J) float32 with independent standard normal numbers (Box and Muller 1958).

    ``first`` is the number of the first sample.
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
