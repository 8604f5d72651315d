# SPDX-License-Identifier: Apache-2.0
"""Paths that touch nothing, at their waypoints and between them."""

from itertools import pairwise

import coal
import numpy as np
import pytest
from world_judge import WorldJudge

import meanflow_ik_core as mik


@pytest.fixture(scope="module")
def solver() -> mik.IKSolver:
    return mik.load_solver("panda", sampler="uniform")


def line(solver: mik.IKSolver, steps: int) -> np.ndarray:
    """The flange pointing down, moved from one side to the other."""
    down = np.diag((1.0, -1.0, -1.0, 1.0))
    waypoints = np.repeat(down[None], steps, 0)
    waypoints[:, :3, 3] = np.linspace((0.45, -0.3, 0.5), (0.45, 0.3, 0.5), steps)
    return waypoints


def between(q: np.ndarray, most: float = 0.002) -> np.ndarray:
    """Configurations along a path, no joint moving by more than ``most`` from one to the next."""
    parts = [q[:1]]
    for a, b in pairwise(q):
        count = int(np.ceil(np.abs(b - a).max() / most)) + 1
        parts.append(a + np.linspace(0, 1, count + 1)[1:, None] * (b - a))
    return np.concatenate(parts)


def test_nothing_touches_at_waypoints_and_between_them(solver):
    world = mik.World(solver.robot)
    # a post beside the elbow, and a thin pin that a coarse check of the motion would step over
    obstacles = {"post": (0.04, (0.25, 0.35, 0.75)), "pin": (0.01, (0.3, -0.2, 0.9))}
    judged = {}
    for name, (radius, xyz) in obstacles.items():
        world.add_cylinder(name, radius, 0.4, xyz=xyz)
        T = np.eye(4)
        T[:3, 3] = xyz
        judged[name] = (coal.Cylinder(radius, 0.4), T)
    waypoints = line(solver, 9)
    path = solver_path(solver, waypoints, world)
    assert path.valid
    judge = WorldJudge(solver.robot)
    assert not any(judge.touching(q, judged) for q in between(path.joint_positions))
    assert path.position_error.max() <= 1e-5


def solver_path(solver, waypoints, world, **options):
    return mik.solve_path(solver, waypoints, seed=0, world=world, max_joint_step=None, **options)


def test_a_wall_between_waypoints_breaks_the_path(solver):
    world = mik.World(solver.robot)
    # free at both ends, and no way through
    world.add_box("wall", (3.0, 0.02, 3.0), xyz=(1.62, 0, 0))
    waypoints = line(solver, 2)
    path = solver_path(solver, waypoints, world)
    assert not path.valid and path.failed_waypoint == 1
    assert "touches on the way" in path.message
    assert mik.solve_path(solver, waypoints, seed=0, max_joint_step=None).valid


def test_a_waypoint_inside_an_obstacle_has_no_solution(solver):
    world = mik.World(solver.robot)
    world.add_sphere("ball", 0.1, xyz=(0.45, 0, 0.5))
    path = solver_path(solver, line(solver, 5), world)
    assert not path.valid and path.failed_waypoint <= 2
    with pytest.raises(mik.WorldError, match="of the robot"):
        solver_path(solver, line(solver, 3), mik.World(mik.load_robot("dual_panda")))


def test_the_way_from_the_start_state_is_free(solver):
    first, last = line(solver, 2)
    start = solver.solve(last[None], seed=0).joint_positions[0, 0]
    judge, world = WorldJudge(solver.robot), mik.World(solver.robot)

    def way(path):
        return between(np.stack((start, path.joint_positions[0])))

    path = mik.solve_path(solver, first[None], start, seed=0)
    # where the flange passes half way to the nearest solution
    middle = np.asarray(solver.robot.forward(0.5 * (start + path.joint_positions[0])))[0]
    world.add_sphere("ball", 0.05, pose=middle)
    ball = {"ball": (coal.Sphere(0.05), middle)}
    assert any(judge.touching(q, ball) for q in way(path))
    path = mik.solve_path(solver, first[None], start, seed=0, world=world)
    assert path.valid and not any(judge.touching(q, ball) for q in way(path))


def test_a_wall_in_front_of_the_first_waypoint_is_named_as_such(solver):
    world = mik.World(solver.robot)
    first, last = line(solver, 2)
    world.add_box("wall", (3.0, 0.02, 3.0), xyz=(1.62, 0, 0))
    start = solver.solve(last[None], world=world, seed=0).joint_positions[0, 0]
    path = solver_path(solver, first[None], world, start_state=start)
    assert not path.valid and path.failed_waypoint == 0 and not len(path.joint_positions)
    assert path.message.endswith("from the start state")
    world.add_sphere("ball", 0.02, xyz=last[:3, 3])
    path = solver_path(solver, first[None], world, start_state=start)
    assert path.message.endswith("touches ball")
