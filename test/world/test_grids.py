# SPDX-License-Identifier: Apache-2.0
"""Distances around meshes: Coal's, to some cells, and found soon whatever the mesh."""

import time

import coal
import numpy as np
import pytest
from hostile_meshes import MESH_KINDS, hostile_mesh
from world_judge import cube

import meanflow_ik_core as mik
from meanflow_ik_core.bounds import MOST_CELLS
from meanflow_ik_core.collision.obstacle_arrays import count_grid_points, shape_grid
from meanflow_ik_core.collision.sphere_fit import Spheres, lack_of, signed_distance
from meanflow_ik_core.kernels.distance_grid import grid_distances
from meanflow_ik_core.world.shape_inputs import filled_cells, mesh_shape

# Edges of a cell that a point of a grid is off at most, see `WorldDistance`.
OFF = 1.32

CPU_S = 0.8  # of a core, that a mesh of as many triangles as a message has may take


# Not a sphere: of a mesh with a triangle that is a line, Coal says that spheres touch it anywhere.
POINT = coal.Box(1e-6, 1e-6, 1e-6)


def coal_distances(geometry, points) -> np.ndarray:
    return np.array([
        coal.distance(
            geometry, coal.Transform3s(), POINT, coal.Transform3s(np.eye(3), point),
            coal.DistanceRequest(), coal.DistanceResult(),
        )
        for point in points
    ])  # fmt: skip


def some_points(grid, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Places of some points of a grid, and their values."""
    random = np.random.default_rng(0)
    places = np.stack([random.integers(0, size, count) for size in grid.values.shape], -1)
    return grid.corner + grid.edge * places, grid.values[tuple(places.T)]


@pytest.fixture(scope="module")
def warm():
    """What a first mesh loads is loaded."""
    for convex in (False, True):
        shape_grid(mesh_shape("a cube", None, *cube(0.1), 1.0, convex))


@pytest.mark.parametrize("count", [1, 3, 50, 400])
@pytest.mark.parametrize("kind", MESH_KINDS)
def test_distances_around_a_mesh_are_coals(kind, count):
    shape = mesh_shape("it", None, *hostile_mesh(kind, count), 1.0, False)
    grid = shape_grid(shape)
    points, found = some_points(grid, 200)
    assert np.abs(found - coal_distances(shape.geometry, points)).max() < OFF * grid.edge


@pytest.mark.parametrize("count", [4, 20, 300, 4000])
def test_inside_a_hull_and_there_alone_distances_are_negative(count):
    shape = mesh_shape("it", None, *hostile_mesh("random", count), 1.0, True)
    grid, hull = shape_grid(shape), shape.geometry
    points, found = some_points(grid, 4000)
    beyond = (points @ np.array(hull.normals()).T + np.array(hull.offsets()).ravel()).max(1)
    clear = np.abs(beyond) > 1e-9
    # of -0.0 too, where a point of the grid stands for the surface
    assert (np.signbit(found) == (beyond < 0))[clear].all() and (beyond < 0).any()
    outside = beyond > 0
    wrong = np.abs(found - coal_distances(hull, points))[outside]
    assert wrong.max() < OFF * grid.edge


@pytest.mark.parametrize("kind", MESH_KINDS)
def test_no_mesh_takes_long(warm, kind):
    corners, triangles = hostile_mesh(kind, 100_000)
    began = time.process_time()
    shape = mesh_shape("it", None, corners, triangles, 1.0, False)
    tree_s = time.process_time() - began  # Coal's
    grid = shape_grid(shape)
    assert time.process_time() - began - tree_s < CPU_S
    assert grid.values.size == count_grid_points(shape) < 1_000_000
    # A crowd gets larger cells, and the same error counted in these.
    points, found = some_points(grid, 20)
    assert np.abs(found - coal_distances(shape.geometry, points)).max() < OFF * grid.edge


def test_no_hull_takes_long(warm):
    shape = mesh_shape("it", None, *hostile_mesh("random", 2000), 1.0, True)
    began = time.process_time()
    shape_grid(shape)
    assert time.process_time() - began < 0.25 * CPU_S


def test_corners_that_no_triangle_has_do_not_make_cells_larger():
    corners, triangles = cube(0.1)
    far = np.concatenate((corners, [[1e4, 0, 0]]))
    shapes = [mesh_shape("it", None, some, triangles, 1.0, False) for some in (corners, far)]
    one, other = map(shape_grid, shapes)
    assert one.edge == other.edge and (one.values == other.values).all()


def test_distances_of_a_grid_are_those_to_the_nearest_mark():
    random = np.random.default_rng(0)
    for shape in ((2, 3, 5), (9, 2, 40), (30, 31, 29)):
        marked = random.random(shape) < 0.01
        marked[-1, 0, 1] = True
        gaps = np.argwhere(np.ones(shape))[:, None] - np.argwhere(marked)
        nearest = np.sqrt((gaps**2).sum(-1).min(1)).reshape(shape)
        np.testing.assert_allclose(grid_distances(marked), nearest, rtol=1e-6)


@pytest.mark.parametrize("kind", MESH_KINDS)
def test_a_surface_sticks_out_of_spheres_no_more_than_is_said_however_crowded_it_is(kind):
    corners, triangles = hostile_mesh(kind, 50_000)
    spheres = Spheres(corners[:3], np.full(3, 0.05))
    began = time.process_time()
    lack = lack_of(spheres, [corners[triangles]], [False])
    assert time.process_time() - began < 2 * CPU_S
    random = np.random.default_rng(0)
    weights = random.dirichlet((1, 1, 1), 20_000)
    chosen = corners[triangles[random.integers(0, len(triangles), 20_000)]]
    on_surface = np.einsum("nk,nkr->nr", weights, chosen)
    assert signed_distance(spheres, on_surface).max() <= lack


def test_points_beyond_the_most_cells_are_not_looked_at():
    random, asked = np.random.default_rng(0), []

    def parts():
        while True:
            asked.append(random.random((MOST_CELLS // 2, 3)))
            yield asked[-1]

    with pytest.raises(mik.WorldError, match=f"{MOST_CELLS} are the most"):
        filled_cells("it", parts(), 1e-4)
    assert len(asked) == 3


def test_cells_are_those_that_a_list_of_all_points_gives():
    random = np.random.default_rng(0)
    points = random.normal(size=(50_000, 3))
    points[::7] = np.nan
    points[1::70] = np.inf
    pose = np.eye(4)
    pose[:3, :3] = np.linalg.qr(random.normal(size=(3, 3)))[0]
    pose[:3, 3] = 0.3, -0.2, 0.1
    found = filled_cells("it", np.array_split(points, 3), 0.1, pose, 1.5)
    moved = points[np.isfinite(points).all(-1)] @ pose[:3, :3].T + pose[:3, 3]
    near = moved[np.linalg.norm(moved, axis=-1) <= 1.5]
    expected = (np.unique(np.floor(near / 0.1), axis=0) + 0.5) * 0.1
    np.testing.assert_allclose(found, expected, atol=1e-9)
