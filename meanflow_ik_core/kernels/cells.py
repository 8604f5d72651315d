# SPDX-License-Identifier: Apache-2.0
"""Which cells of a grid points lie in, found without a list of all points."""

import numpy as np

from .jit import cached_jit, jit

BITS = 21  # of a cell's number along each axis, in one integer
_NONE = -1  # where a table has no cell


@jit
def _place(table, number):
    """Where a number stands in a table, or would."""
    mixed = np.uint64(number) * np.uint64(0x9E3779B97F4A7C15)
    place = np.int64(mixed >> np.uint64(33)) & (len(table) - 1)
    while table[place] != _NONE and table[place] != number:
        place = (place + 1) & (len(table) - 1)
    return place


@cached_jit
def add_cells(points, pose, farthest, edge, table, count, most):
    """Add the cells that points lie in to a table.

    Args:
        points: (N, 3) float64; those that are not finite are left out.
        pose: (4, 4) float64 that they are moved by.
        farthest: from 0 after that; farther ones are left out. At most 2**20 cells.
        edge: of a cell.
        table: (2**n,) int64 of numbers of cells, -1 where it has none; is written to.
        count: how many it has.
        most: how many it may have, less than all of its places.

    Returns:
        How many it has now; most + 1 as soon as there are more than these.
    """
    half = np.int64(1) << (BITS - 1)
    for n in range(len(points)):
        number, square = np.int64(0), 0.0
        for r in range(3):
            at = pose[r, 3]
            for s in range(3):
                at += pose[r, s] * points[n, s]
            square += at * at
            # what is too far away, or not finite, has no number; it is left out below
            cell = np.int64(np.floor(at / edge)) + half if abs(at) <= farthest else np.int64(0)
            number = number << BITS | cell
        if not square <= farthest * farthest:
            continue
        place = _place(table, number)
        if table[place] == _NONE:
            count += 1
            if count > most:
                return count
            table[place] = number
    return count
