# SPDX-License-Identifier: Apache-2.0
"""Pairs of shapes, and which of them touch, and how deep, in one configuration."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import coal
import numpy as np
import pinocchio as pin


class Contact(NamedTuple):
    """Two things that touch, and how deep: they come apart by a shift of so many metres."""

    link: str
    other: str  # an obstacle, or a second link
    depth: float

    def __str__(self) -> str:
        return f"{self.link} and {self.other} by {1e3 * self.depth:.1f} mm"


class Pairs(NamedTuple):
    """P pairs, in the order in which Pinocchio has them."""

    first: np.ndarray  # (P,) shapes of the geometry model
    second: np.ndarray  # (P,)
    margin: np.ndarray  # (P,) m
    own: np.ndarray  # (P,) bool, whether both belong to the robot or what it carries

    def some(self, wanted: np.ndarray) -> "Pairs":
        return Pairs(*(column[wanted] for column in self))

    def table(self, values: Any, size: int) -> np.ndarray:
        """(size, size) with values of the pairs above its diagonal, as Pinocchio reads them."""
        table = np.zeros((size, size), np.asarray(values).dtype)
        table[np.minimum(self.first, self.second), np.maximum(self.first, self.second)] = values
        return table


Placed = tuple[coal.CollisionGeometry, coal.Transform3s]


class Bodies:
    """All shapes, with balls around them: what is asked of a few pairs needs no pool of all.

    A pool takes 13 kB and 7 us for each pair.
    """

    def __init__(
        self, model: pin.Model, joints: Sequence[int], shapes: Sequence[coal.CollisionGeometry]
    ):
        """Take S shapes that are fixed to joints of a model."""
        self._model, self._data = model, model.createData()
        self._joints, self.shapes = list(joints), shapes
        for shape in shapes:
            shape.computeLocalAABB()
        self._middle = np.array([shape.aabb_center for shape in shapes]).reshape(-1, 3, 1)
        self._radius = np.array([shape.aabb_radius for shape in shapes])

    def poses(self, configuration: np.ndarray, T_joint_shape: np.ndarray) -> np.ndarray:
        """Where all shapes are, T_root_shape (S, 4, 4)."""
        pin.forwardKinematics(self._model, self._data, configuration)
        T_root_joint = np.array([pose.homogeneous for pose in self._data.oMi])
        return T_root_joint[self._joints] @ T_joint_shape

    def near(self, poses: np.ndarray, pairs: Pairs, margin: float) -> np.ndarray:
        """Numbers of the pairs whose balls come nearer than their margins."""
        with np.errstate(invalid="ignore", over="ignore"):  # half-spaces have no middle
            centre = (poses[:, :3, :3] @ self._middle)[:, :, 0] + poses[:, :3, 3]
            between = centre[pairs.first] - centre[pairs.second]
            reach = self._radius[pairs.first] + self._radius[pairs.second] + pairs.margin + margin
            return np.flatnonzero(~((between**2).sum(-1) > reach**2))


def distance_if_touching(first: Placed, second: Placed, gap: float) -> float | None:
    """How far apart two shapes are [m], below 0 where they overlap; None: farther than a gap."""
    request, result = coal.CollisionRequest(), coal.CollisionResult()
    request.security_margin, request.distance_upper_bound = gap, gap + 1e-6
    coal.collide(*first, *second, request, result)
    return result.getContact(0).penetration_depth if result.isCollision() else None


def transform(pose: np.ndarray) -> coal.Transform3s:
    return coal.Transform3s(pose[:3, :3], pose[:3, 3])
