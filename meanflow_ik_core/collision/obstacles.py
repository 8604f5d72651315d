# SPDX-License-Identifier: Apache-2.0
"""What a robot must not touch: shapes with a name and a place, and Coal's geometry of them."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import coal
import numpy as np

from ..errors import WorldError
from .mesh_files import Mesh, tree_from_mesh
from .shapes import convex_hull


@dataclass(frozen=True, eq=False)
class Shape:
    """A shape of an obstacle, in its own frame; equal only to itself.

    The sizes of a kind: box: full edges along x, y, z; sphere: radius; cylinder, capsule, cone:
    radius and length along z, without the caps of a capsule, the tip of a cone being at +z;
    half_space: none, it is solid where z < 0; mesh: none; points: edge of a cell. All in metres.
    """

    kind: str
    sizes: tuple[float, ...] = ()
    vertices: np.ndarray | None = None  # (V, 3) of a mesh, or (N, 3) points; not to be written to
    triangles: np.ndarray | None = None  # (F, 3) int64 of a mesh
    convex: bool = False  # a mesh that is solid
    source: str = ""  # what a mesh was read from, where its file is to be named again
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)  # of that file

    def __getstate__(self) -> dict[str, Any]:
        # Coal's is made again: an octree cannot be pickled.
        return {name: value for name, value in self.__dict__.items() if name != "geometry"}

    @cached_property
    def geometry(self) -> coal.CollisionGeometry:
        """Coal's, made once.

        Raises:
            ValueError: the corners of a convex mesh enclose no volume.
            WorldError: a corner is too far away.
        """
        simple = {
            "box": coal.Box, "sphere": coal.Sphere, "cylinder": coal.Cylinder,
            "capsule": coal.Capsule, "cone": coal.Cone,
        }  # fmt: skip
        if self.kind in simple:
            return simple[self.kind](*self.sizes)
        if self.kind == "half_space":
            return coal.Halfspace(np.array((0.0, 0.0, 1.0)), 0.0)
        assert self.vertices is not None
        if self.kind == "points":
            return coal.makeOctree(self.vertices, self.sizes[0])
        assert self.triangles is not None
        # A hull is one of all corners, whatever triangles there are.
        triangles = self.triangles[:1] if self.convex else self.triangles
        mesh = tree_from_mesh(Mesh(self.vertices, triangles), "the mesh", WorldError)
        if not self.convex:
            return mesh
        hull = convex_hull(mesh)
        if hull is None:
            raise ValueError("its corners lie in one plane")
        return hull


@dataclass(frozen=True, eq=False)
class Obstacle:
    """A shape with a name and a place, in the base or on a link."""

    name: str
    shape: Shape
    pose: (
        np.ndarray
    )  # (4, 4) T_base_shape, or T_link_shape of an attached one; not to be written to
    padding: float = 0.0  # m, what comes nearer touches
    link: str | None = None  # that it is attached to
    touch_links: frozenset[str] = frozenset()  # that an attached one may touch
