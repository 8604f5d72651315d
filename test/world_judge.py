# SPDX-License-Identifier: Apache-2.0
"""The independent judge of obstacles: Pinocchio places the URDF's shapes, Coal checks each pair."""

from collections.abc import Mapping

import coal
import numpy as np
import pinocchio as pin
from oracles import Judge

import meanflow_ik_core as mik

Obstacles = Mapping[str, tuple[coal.CollisionGeometry, np.ndarray]]  # by name, with T_base_obstacle


class WorldJudge:
    """Every link that moves against every obstacle, pair by pair, without a broad phase."""

    def __init__(self, robot: mik.Robot, held: Mapping[str, float] | None = None):
        self._judge = Judge(robot)
        self._held = dict(held or {})
        self.model = self._judge.model
        urdf = str(robot.urdf_path)
        self.shapes = pin.buildGeomFromUrdf(self.model, urdf, pin.GeometryType.COLLISION)
        self._data, self._shape_data = self.model.createData(), self.shapes.createData()
        self.links = [self.model.frames[s.parentFrame].name for s in self.shapes.geometryObjects]
        solved = {self.model.getJointId(name) for name in robot.joint_names}
        self.moves = []
        for shape in self.shapes.geometryObjects:
            joint, above = shape.parentJoint, False
            while joint:
                above, joint = above or joint in solved, self.model.parents[joint]
            self.moves.append(above)

    def shape_poses(self, q: np.ndarray) -> list[pin.SE3]:
        full = self._judge.configuration(q)
        for name, value in self._held.items():
            joint = self.model.joints[self.model.getJointId(name)]
            full[joint.idx_q] = value
        pin.forwardKinematics(self.model, self._data, full)
        pin.updateGeometryPlacements(self.model, self._data, self.shapes, self._shape_data)
        return list(self._shape_data.oMg)

    def touching(
        self, q: np.ndarray, obstacles: Obstacles, margin: float = 0.0
    ) -> set[tuple[str, str]]:
        """Links and obstacles nearer than the margin, of q (J,)."""
        request = coal.CollisionRequest()
        request.security_margin = margin
        return {
            (link, name)
            for link, name, shape, place, geometry, T in self._pairs(q, obstacles)
            if coal.collide(shape, place, geometry, T, request, coal.CollisionResult())
        }

    def distance(self, q: np.ndarray, obstacles: Obstacles) -> float:
        """m between the nearest pair, of q (J,)."""
        return min(
            coal.distance(shape, place, geometry, T, coal.DistanceRequest(), coal.DistanceResult())
            for _, _, shape, place, geometry, T in self._pairs(q, obstacles)
        )

    def _pairs(self, q: np.ndarray, obstacles: Obstacles):
        places = self.shape_poses(q)
        for index, shape in enumerate(self.shapes.geometryObjects):
            if self.moves[index]:
                place = coal.Transform3s(places[index].rotation, places[index].translation)
                for name, (geometry, T) in obstacles.items():
                    T_obstacle = coal.Transform3s(T[:3, :3], T[:3, 3])
                    yield self.links[index], name, shape.geometry, place, geometry, T_obstacle
