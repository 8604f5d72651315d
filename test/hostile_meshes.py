# SPDX-License-Identifier: Apache-2.0
"""Meshes that ask for much: many triangles over one another, thin ones, round hulls."""

import numpy as np

MESH_KINDS = ("random", "repeated", "slivers", "fan", "points")


def hostile_mesh(kind: str, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Corners (V, 3) [m], V at most ``count`` and 3 at least, and triangles (count, 3)."""
    random = np.random.default_rng(seed)
    size = max(3, count)
    on_sphere = random.normal(size=(size, 3))
    on_sphere *= 0.3 / np.linalg.norm(on_sphere, axis=1)[:, None]
    index = np.arange(count)
    if kind == "random":  # all over one another, and all on the hull
        return on_sphere, random.integers(0, size, (count, 3))
    if kind == "repeated":
        return on_sphere[:3], np.tile([[0, 1, 2]], (count, 1))
    if kind == "slivers":
        half = max(2, size // 2)
        ends = on_sphere[:half]
        corners = np.concatenate((ends, ends + 1e-6 * random.normal(size=ends.shape)))
        first, second = random.integers(0, half, (2, count))
        return corners, np.stack((first, second, second + half), 1)
    if kind == "fan":  # as CAD writes a disk
        around = 2 * np.pi * np.arange(size) / size
        corners = np.stack((0.5 * np.cos(around), 0.5 * np.sin(around), 0 * around), 1)
        return corners, np.stack((0 * index, index % size, (index + 1) % size), 1)
    assert kind == "points"
    return on_sphere, np.stack((index, index, index), 1)
