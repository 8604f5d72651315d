# SPDX-License-Identifier: Apache-2.0
"""What a caller says of an obstacle, checked and brought into one form."""

import difflib
from bisect import bisect
from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Any

import numpy as np

from ..bounds import FARTHEST_CORNER, MOST_COMPARED, MOST_COMPARED_NAME
from ..errors import WorldError
from ..geometry import matrix_from_quat_xyzw
from ..kernels.poses import RIGID_TOLERANCE

_UNIT_TOLERANCE = 1e-3  # of the length of a quaternion


def checked_name(name: Any, what: str = "name") -> str:
    """A name that is text and not empty, and not '*', which means all."""
    if not isinstance(name, str) or not name or name == "*":
        raise WorldError(f"the {what} is {name!r}; it must be text, not empty and not '*'")
    return name


def unknown_name(name: Any, names: Iterable[str], what: str, with_hint: bool = True) -> WorldError:
    """The error that says what exists instead of a name.

    Args:
        name: that does not exist.
        names: that exist.
        what: kind of thing that has such names.
        with_hint: name the one that was meant; finding it takes up to 30 ms.
    """
    known = sorted(names)
    hint = (
        f" (did you mean {near!r}?)" if with_hint and (near := _nearest(str(name), known)) else ""
    )
    some = ", ".join(known[:20]) + (f" and {len(known) - 20} more" if len(known) > 20 else "")
    return WorldError(f"unknown {what} {name!r}{hint}; there are {some or 'none'}")


def _nearest(name: str, known: Sequence[str]) -> str | None:
    """Of sorted names the most similar one; None: there is no similar one among those compared."""
    if len(name) > MOST_COMPARED_NAME:
        return None
    first = max(0, bisect(known, name) - MOST_COMPARED // 2)
    some = [one for one in known[first : first + MOST_COMPARED] if len(one) <= MOST_COMPARED_NAME]
    return next(iter(difflib.get_close_matches(name, some, n=1, cutoff=0.4)), None)


def checked_number(
    where: str, key: str, value: Any, *, positive: bool = False, least: float | None = None
) -> float:
    """A number of at most `FARTHEST_CORNER`, where asked above 0 or not below a least one."""
    right = isinstance(value, Real) and not isinstance(value, bool)
    try:
        number = float(value) if right else np.nan
    except OverflowError:  # of an integer
        number = np.inf
    right = abs(number) <= FARTHEST_CORNER and not (positive and number <= 0)
    if not right or (least is not None and number < least):
        wanted = "positive and finite" if positive else "finite"
        wanted += "" if least is None else f" and at least {least:g}"
        raise WorldError(
            f"{key} of {where} is {value!r}; it must be {wanted}, {FARTHEST_CORNER:g} at most"
        )
    return number


def checked_vector(where: str, key: str, value: Any, length: int = 3) -> np.ndarray:
    """So many numbers of at most `FARTHEST_CORNER`."""
    try:
        vector = np.array(value, np.float64)
        right = vector.shape == (length,) and bool((np.abs(vector) <= FARTHEST_CORNER).all())
    except (TypeError, ValueError, OverflowError):
        right = False
    if not right:
        raise WorldError(
            f"{key} of {where} is {value!r}; it must be {length} finite numbers, "
            f"{FARTHEST_CORNER:g} at most"
        )
    return vector


def checked_pose(where: str, pose: Any, xyz: Any = None, quat_xyzw: Any = None) -> np.ndarray:
    """A pose (4, 4) from a matrix, or from a position and a quaternion; neither: the frame itself.

    Raises:
        WorldError: both are given, or it is not rigid, or the quaternion is not of length 1.
    """
    if pose is not None and (xyz is not None or quat_xyzw is not None):
        raise WorldError(f"{where} has pose= and xyz= or quat_xyzw=; give one of the two")
    if pose is None:
        matrix = np.eye(4)
        if xyz is not None:
            matrix[:3, 3] = checked_vector(where, "xyz", xyz)
        if quat_xyzw is not None:
            quaternion = checked_vector(where, "quat_xyzw", quat_xyzw, 4)
            length = float(np.linalg.norm(quaternion))
            if abs(length - 1) > _UNIT_TOLERANCE:
                raise WorldError(f"quat_xyzw of {where} has length {length:.6g}; it must be 1")
            matrix[:3, :3] = matrix_from_quat_xyzw(quaternion / length)
        return frozen(matrix)
    try:
        matrix = np.array(pose, np.float64)
    except (TypeError, ValueError, OverflowError):
        matrix = np.zeros(0)
    if matrix.shape != (4, 4):
        raise WorldError(f"pose of {where} has shape {matrix.shape}; it must be (4, 4)")
    rotation = matrix[:3, :3]
    off = np.abs(rotation @ rotation.T - np.eye(3)).max() if np.isfinite(matrix).all() else np.inf
    last = np.abs(matrix[3] - (0, 0, 0, 1)).max()
    if not (max(off, last) <= RIGID_TOLERANCE and np.linalg.det(rotation) > 0):
        raise WorldError(f"pose of {where} is not rigid: {matrix.tolist()}")
    if (farthest := np.abs(matrix[:3, 3]).max()) > FARTHEST_CORNER:
        raise WorldError(f"pose of {where} is {farthest:.3g} m away; {FARTHEST_CORNER:g} m at most")
    u, _, v = np.linalg.svd(rotation)
    matrix[:3, :3] = u @ v
    matrix[3] = 0, 0, 0, 1
    return frozen(matrix)


def checked_links(links: Any, known: Iterable[str], what: str) -> frozenset[str]:
    """Names of links that exist."""
    if isinstance(links, str) or not isinstance(links, Sequence | set | frozenset):
        raise WorldError(f"{what} are {links!r}; they must be a list of links")
    known = set(known)
    for link in links:
        if link not in known:
            raise unknown_name(link, known, "link")
    return frozenset(links)


def checked_points(where: str, key: str, given: Any) -> np.ndarray:
    """Finite points (N, 3)."""
    try:
        points = np.array(given, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise WorldError(f"{key} of {where} are no array of numbers: {error}") from error
    if points.ndim != 2 or points.shape[1] != 3:
        raise WorldError(f"{key} of {where} have shape {points.shape}; they must be (N, 3)")
    if not np.isfinite(points).all():
        raise WorldError(f"{key} of {where} have numbers that are not finite")
    return points


def frozen(array: np.ndarray) -> np.ndarray:
    """The array, not to be written to any more."""
    array.setflags(write=False)
    return array
