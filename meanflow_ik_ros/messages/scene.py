# SPDX-License-Identifier: Apache-2.0
"""Of a planning scene of MoveIt: its matrix of allowed collisions, and its octomap."""

from __future__ import annotations

from typing import Any

import numpy as np

from meanflow_ik_core.bounds import MOST_CELLS
from meanflow_ik_core.errors import WorldError
from meanflow_ik_ros.world_objects import AllowedMatrix

_DEPTH = 16  # levels of an OcTree, whose root has 2**16 cells along each edge
_FULL = np.dtype([("log_odds", "<f4"), ("children", "u1")])


def matrix_from_message(message: Any) -> AllowedMatrix | None:
    """The matrix of an AllowedCollisionMatrix; None where it says nothing.

    Raises:
        WorldError: its names and values do not pair up.
    """
    names, rows = list(message.entry_names), list(message.entry_values)
    defaults = list(message.default_entry_names), list(message.default_entry_values)
    widths = {len(row.enabled) for row in rows}
    if len(rows) != len(names) or widths - {len(names)}:
        raise WorldError(
            f"allowed_collision_matrix has {len(names)} names and {len(rows)} rows of "
            f"{', '.join(map(str, sorted(widths)[:3])) or 'no'} values"
        )
    if len(defaults[0]) != len(defaults[1]):
        raise WorldError(
            f"allowed_collision_matrix has {len(defaults[0])} default names and "
            f"{len(defaults[1])} values"
        )
    if not names and not defaults[0]:
        return None
    given = np.array([row.enabled for row in rows], bool).reshape(len(names), len(names))
    above = np.triu(given)  # MoveIt reads this half
    place = {name: index for index, name in enumerate(names)}
    by_name = dict(zip(defaults[0], map(bool, defaults[1]), strict=True))
    return AllowedMatrix(place, above | above.T, by_name)


def cells_from_octomap(message: Any) -> np.ndarray:
    """Middles (C, 3) of the occupied cells [m], in the frame of the tree.

    A cell is occupied where its probability is at least one half.

    Raises:
        WorldError: it is no OcTree, damaged, or has more cells than a world takes.
    """
    edge = float(message.resolution)
    if message.id != "OcTree" or not (np.isfinite(edge) and edge > 0):
        raise WorldError(f"the octomap is {message.id!r} of {edge} m; it must be an 'OcTree'")
    data = np.asarray(message.data, np.int8).tobytes()
    try:
        leaves = _binary_leaves(data) if message.binary else _full_leaves(data)
    except (IndexError, ValueError) as error:
        raise WorldError(f"the octomap of {len(data)} bytes is damaged: {error}") from error
    count = sum(width**3 for *_, width in leaves)
    if count > MOST_CELLS:
        raise WorldError(f"the octomap has {count} occupied cells; {MOST_CELLS} are the most")
    table = np.array(leaves, np.int64).reshape(-1, 4)
    cells = [np.zeros((0, 3), np.int64)]
    for width in np.unique(table[:, 3]).tolist():
        inside = np.stack(np.meshgrid(*[np.arange(width)] * 3), -1).reshape(-1, 3)
        corners = table[table[:, 3] == width, None, :3]
        cells.append((corners + inside).reshape(-1, 3))
    return (np.concatenate(cells) + 0.5 - (1 << (_DEPTH - 1))) * edge


def _full_leaves(data: bytes) -> list[tuple[int, int, int, int]]:
    """(x, y, z, width) in cells of occupied leaves: each node has a number and its children."""
    nodes = np.frombuffer(data, _FULL)
    leaves, todo = [], [(0, 0, 0, 1 << _DEPTH)]
    occupied = (~(nodes["log_odds"] < 0)).tolist()
    for full, children in zip(occupied, nodes["children"].tolist(), strict=True):
        node = todo.pop()
        if children:
            todo += _children(node, [i for i in range(7, -1, -1) if children >> i & 1])
        elif full:
            leaves.append(node)
    return _checked(leaves, todo)


def _binary_leaves(data: bytes) -> list[tuple[int, int, int, int]]:
    """(x, y, z, width) in cells of occupied leaves: each inner node has two bits per child."""
    leaves, todo = [], [(0, 0, 0, 1 << _DEPTH)]
    for children in np.frombuffer(data, "<u2").tolist():
        node = todo.pop()
        kinds = [children >> 2 * i & 3 for i in range(8)]
        leaves += _children(node, [i for i, kind in enumerate(kinds) if kind == 2])
        todo += _children(node, [i for i in range(7, -1, -1) if kinds[i] == 3])
    return _checked(leaves, todo)


def _children(node: tuple[int, int, int, int], which: list[int]) -> list:
    x, y, z, width = node
    half = width // 2
    if which and not half:
        raise ValueError("deeper than a tree can be")
    return [
        (x + half * (i & 1), y + half * (i >> 1 & 1), z + half * (i >> 2 & 1), half) for i in which
    ]


def _checked(leaves: list, todo: list) -> list:
    if todo:
        raise ValueError("it ends too early")
    return leaves
