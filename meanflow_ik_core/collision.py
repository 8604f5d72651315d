# SPDX-License-Identifier: Apache-2.0
"""Self-collision of configurations, exact on the URDF's collision shapes, by Pinocchio and Coal."""

import numpy as np
import pinocchio as pin

from .errors import RobotError
from .robot import Robot
from .urdf import Mimic, read_joint_elements, read_model, resolve_mimics

# A pair that overlaps in this share of random configurations says nothing about one of them: its
# shapes are drawn into one another. MoveIt's setup assistant leaves such pairs out as well.
_ALWAYS = 0.95
_SAMPLES = 300


class SelfCollision:
    """Checks whether links of a robot that are not neighbours touch each other.

    Left out are links that a joint connects, and pairs that always overlap. Joints that the robot
    does not solve for stay at the value they are held at, or in the neutral configuration.
    """

    def __init__(self, robot: Robot):
        """Read the collision shapes.

        Raises:
            RobotError: a shape cannot be read, for example a mesh file that does not exist.
        """
        self._robot = robot
        self._model = model = read_model(robot.urdf_path)
        try:
            self._geometry = pin.buildGeomFromUrdf(
                model,
                str(robot.urdf_path),
                pin.GeometryType.COLLISION,
                package_dirs=[str(robot.urdf_path.parent)],
            )
        except Exception as error:
            raise RobotError(
                f"collision shapes of {robot.urdf_path} cannot be read: {error}"
            ) from error
        self._data = model.createData()
        self._bounded, self._unbounded = self._configuration_map()
        self._add_pairs()
        self._geometry_data = self._geometry.createData()

    def pairs(self) -> list[tuple[str, str]]:
        """The pairs of links that are checked, by name."""
        found = {
            tuple(sorted((self._link(pair.first), self._link(pair.second))))
            for pair in self._geometry.collisionPairs
        }
        return sorted((a, b) for a, b in found)

    def in_collision(self, q: np.ndarray) -> np.ndarray:
        """(...) bool for configurations q (..., J)."""
        flat = np.asarray(q, dtype=np.float64).reshape(-1, self._robot.num_joints)
        touching = np.zeros(len(flat), dtype=bool)
        for row, configuration in enumerate(self._full_configurations(flat)):
            touching[row] = pin.computeCollisions(
                self._model, self._data, self._geometry, self._geometry_data, configuration, True
            )
        return touching.reshape(np.shape(q)[:-1])

    def _configuration_map(self) -> tuple[list, list]:
        """(index in Pinocchio's q, index in ours, multiplier, offset) for every moved joint."""
        mimics = resolve_mimics(read_joint_elements(self._robot.urdf_path))
        bounded, unbounded = [], []
        for name, joint in zip(self._model.names, self._model.joints, strict=True):
            moved = mimics.get(name, Mimic(name, 1.0, 0.0))
            if moved.joint in self._robot.held:
                column = -1
            elif moved.joint in self._robot.joint_names:
                column = self._robot.joint_names.index(moved.joint)
            else:
                continue
            shift = moved.offset
            if column < 0:
                shift += moved.multiplier * self._robot.held[moved.joint]
            row = (joint.idx_q, column, moved.multiplier, shift)
            (bounded if joint.nq == 1 else unbounded).append(row)
        return bounded, unbounded

    def _full_configurations(self, q: np.ndarray) -> np.ndarray:
        """Pinocchio's configurations (N, nq) of ours (N, J)."""

        def value(column: int, multiplier: float, shift: float) -> np.ndarray | float:
            return shift if column < 0 else multiplier * q[:, column] + shift

        full = np.tile(pin.neutral(self._model), (len(q), 1))
        for index, column, multiplier, shift in self._bounded:
            full[:, index] = value(column, multiplier, shift)
        for index, column, multiplier, shift in self._unbounded:
            angle = value(column, multiplier, shift)
            full[:, index], full[:, index + 1] = np.cos(angle), np.sin(angle)
        return full

    def _link(self, geometry_index: int) -> str:
        frame = self._geometry.geometryObjects[geometry_index].parentFrame
        return self._model.frames[frame].name

    def _add_pairs(self) -> None:
        objects = self._geometry.geometryObjects
        links = [self._link(index) for index in range(len(objects))]
        joints = [item.parentJoint for item in objects]
        parents = self._model.parents
        by_links: dict[tuple[str, str], list[int]] = {}
        for first in range(len(objects)):
            for second in range(first + 1, len(objects)):
                a, b = joints[first], joints[second]
                if a != b and parents[a] != b and parents[b] != a:
                    key = (links[first], links[second])
                    by_links.setdefault(key, []).append(len(self._geometry.collisionPairs))
                    self._geometry.addCollisionPair(pin.CollisionPair(first, second))
        if not by_links:
            return
        data = self._geometry.createData()
        rng = np.random.default_rng(0)
        unit = rng.random((_SAMPLES, self._robot.num_joints))
        samples = self._robot.lower + unit * (self._robot.upper - self._robot.lower)
        touched = np.zeros((_SAMPLES, len(self._geometry.collisionPairs)), dtype=bool)
        for row, configuration in enumerate(self._full_configurations(samples)):
            pin.computeCollisions(
                self._model, self._data, self._geometry, data, configuration, False
            )
            touched[row] = [result.isCollision() for result in data.collisionResults]
        always = [
            index
            for indices in by_links.values()
            if touched[:, indices].any(1).mean() >= _ALWAYS
            for index in indices
        ]
        kept = [
            pin.CollisionPair(pair.first, pair.second)
            for index, pair in enumerate(self._geometry.collisionPairs)
            if index not in set(always)
        ]
        self._geometry.removeAllCollisionPairs()
        for pair in kept:
            self._geometry.addCollisionPair(pair)
