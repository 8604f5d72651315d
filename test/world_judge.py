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


def pose(rng: np.random.Generator, robot: mik.Robot) -> np.ndarray:
    """A random pose where a robot's tips come by."""
    T = np.eye(4)
    T[:3, :3] = pin.Quaternion(*rng.normal(size=4)).normalized().matrix()
    q = robot.lower + rng.random(robot.num_joints) * (robot.upper - robot.lower)
    T[:3, 3] = robot.forward(q)[rng.integers(robot.num_tips), :3, 3]
    return T


def cube(edge: float) -> tuple[np.ndarray, np.ndarray]:
    """Corners and triangles of a cube."""
    vertices = (np.array(np.meshgrid(*[(-1, 1)] * 3, indexing="ij")).reshape(3, 8).T) * edge / 2
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    triangles = [t for a, b, c, d in quads for t in ((a, b, c), (a, c, d))]
    return vertices, np.array(triangles)


def furnished(robot: mik.Robot, seed: int, padding: float = 0.0):
    """A world with one of each kind, and the same for the judge."""
    rng = np.random.default_rng(seed)
    world, judged = mik.World(robot, padding), {}
    vertices, triangles = cube(0.3)
    points = rng.uniform(-0.1, 0.1, (300, 3))
    T = {name: pose(rng, robot) for name in ("box", "ball", "can", "pill", "cone", "part", "cloud")}
    world.add_box("box", (0.3, 0.2, 0.1), pose=T["box"])
    judged["box"] = coal.Box(0.3, 0.2, 0.1)
    world.add_sphere("ball", 0.12, pose=T["ball"])
    judged["ball"] = coal.Sphere(0.12)
    world.add_cylinder("can", 0.1, 0.3, pose=T["can"])
    judged["can"] = coal.Cylinder(0.1, 0.3)
    world.add_capsule("pill", 0.1, 0.2, pose=T["pill"])
    judged["pill"] = coal.Capsule(0.1, 0.2)
    world.add_cone("cone", 0.15, 0.3, pose=T["cone"])
    judged["cone"] = coal.Cone(0.15, 0.3)
    world.add_mesh("part", vertices=vertices, triangles=triangles, pose=T["part"])
    mesh = coal.BVHModelOBB()
    mesh.beginModel(12, 8)
    mesh.addVertices(vertices)
    mesh.addTriangles(triangles)
    mesh.endModel()
    judged["part"] = mesh
    world.add_points("cloud", points, resolution=0.02, pose=T["cloud"])
    judged["cloud"] = coal.makeOctree(points, 0.02)
    world.add_half_space("wall", normal=(1, 0, 0), offset=-0.6)
    T["wall"] = np.eye(4)
    judged["wall"] = coal.Halfspace(np.array((1.0, 0, 0)), -0.6)
    return world, {name: (geometry, T[name]) for name, geometry in judged.items()}


def solutions(robot: mik.Robot, count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return robot.lower + rng.random((count, robot.num_joints)) * (robot.upper - robot.lower)
