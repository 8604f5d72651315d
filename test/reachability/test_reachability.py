# SPDX-License-Identifier: Apache-2.0
"""What a reachability map says, against the closed form, Pinocchio, and itself in other parts."""

import numpy as np
import pytest
from oracles import Judge

import meanflow_ik_core as mik
from meanflow_ik_core.evaluation.posterior import trace_solutions
from meanflow_ik_core.geometry import matrix_from_quat_xyzw
from meanflow_ik_core.reachability import measure
from meanflow_ik_core.reachability.branches import count_branches
from meanflow_ik_core.reachability.measure import SOLUTIONS
from meanflow_ik_core.reachability.orientations import spread_orientations
from meanflow_ik_core.reachability.picture import draw_map
from meanflow_ik_core.robot.reach import reach
from meanflow_ik_core.solving.goal import Goal

QUANTITIES = ("reached", "branches", "limit_margin", "singularity_margin")
ARRAYS = ("centers", "orientations", "branches", "limit_margin", "singularity_margin")
# Some poses are reached, some are not.
EDGE = [[0.5, -0.1, 0.7], [0.8, 0.1, 0.9]]


@pytest.fixture(scope="module")
def edge(panda) -> mik.ReachabilityMap:
    return mik.reachability_map(panda, 0.1, 12, box=EDGE, processes=1)


def pose(center: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = rotation, center
    return T


def angles(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    trace = np.einsum("aij,bij->ab", one, other)
    return np.arccos(np.clip((trace - 1) / 2, -1, 1))


def test_poses_are_reached_where_the_closed_form_has_a_solution(edge, closed_form):
    reached = edge.branches > 0
    assert 0.2 < reached.mean() < 0.9
    middle = 0.5 * (closed_form.robot.lower + closed_form.robot.upper)
    chosen = np.random.default_rng(0).permutation(reached.size)[:40]
    for voxel, turn in zip(*np.unravel_index(chosen, reached.shape), strict=True):
        T = pose(edge.centers[voxel], edge.orientations[turn])
        assert reached[voxel, turn] == np.isfinite(closed_form.nearest_distance(T, middle))


def test_margins_are_the_best_of_the_solutions(panda, uniform):
    found = mik.reachability_map(panda, 0.1, 3, box=[[0.4, 0, 0.4], [0.5, 0.1, 0.5]], processes=1)
    poses = np.stack([pose(found.centers[0], rotation) for rotation in found.orientations])
    result = uniform.solve(poses, 64, SOLUTIONS, seed=0, select="diverse", max_rounds=1)
    judge, length = Judge(panda), reach(panda, 0)[1]
    half = 0.5 * (panda.upper - panda.lower)
    for turn, (rows, valid) in enumerate(zip(result.joint_positions, result.valid, strict=True)):
        limits, singular = [], []
        for q in rows[valid]:
            limits.append((np.minimum(q - panda.lower, panda.upper - q) / half).min())
            jacobian = judge.jacobian(q)[0]
            jacobian[:3] /= length
            singular.append(np.linalg.svd(jacobian, compute_uv=False).min())
        assert found.limit_margin[0, turn] == pytest.approx(max(limits), rel=1e-6)
        assert found.singularity_margin[0, turn] == pytest.approx(max(singular), rel=1e-5)


def test_solutions_of_an_arm_without_redundancy_are_branches_of_their_own():
    robot = mik.load_robot("panda", held={"panda_joint3": 0.4})
    solver = mik.load_solver(robot, sampler="uniform")
    poses = robot.forward(robot.random_configurations(100, np.random.default_rng(0)))
    result = solver.solve(poses, 64, SOLUTIONS, seed=0, select="diverse", max_rounds=1)
    goal = Goal(poses, np.zeros((100, 6)), False, None, 1e-5, 1e-5)
    count = count_branches(robot, goal, result.joint_positions, result.valid)
    assert count.max() > 2
    np.testing.assert_array_equal(count, result.valid.sum(1))


def test_branches_are_nearly_those_of_the_closed_form(uniform, closed_form):
    robot = uniform.robot
    q = robot.random_configurations(60, np.random.default_rng(1))
    poses = robot.forward(q)
    exact = np.array(
        [
            len(trace_solutions(closed_form, T[0], last).branch_mass)
            for T, last in zip(poses, q[:, 6], strict=True)
        ]
    )
    result = uniform.solve(poses, 64, SOLUTIONS, seed=0, select="diverse", max_rounds=1)
    goal = Goal(poses, q, False, None, 1e-5, 1e-5)
    count = count_branches(robot, goal, result.joint_positions, result.valid)
    assert (np.abs(count - exact) <= 1).mean() > 0.7
    assert 0.8 < count.mean() / exact.mean() < 1.1


def test_a_map_does_not_depend_on_how_it_is_split(panda, edge, monkeypatch):
    monkeypatch.setattr(measure, "_POSES_PER_CHUNK", 50)
    shared = mik.reachability_map(panda, 0.1, 12, box=EDGE, processes=2)
    monkeypatch.setattr(measure, "_POSES_AT_ONCE", 24)
    small = mik.reachability_map(panda, 0.1, 12, box=EDGE, processes=1)
    for other in (shared, small):
        for name in ARRAYS:
            np.testing.assert_array_equal(getattr(other, name), getattr(edge, name))


def test_the_grid_is_all_that_the_links_are_long_enough_for(panda):
    found = mik.reachability_map(panda, 0.4, 1, starts=1, processes=1)
    center, length = reach(panda, 0)
    steps = found.centers / 0.4 - 0.5
    np.testing.assert_allclose(steps, steps.round(), atol=1e-9)
    axis = (np.arange(-10, 10) + 0.5) * 0.4
    grid = np.stack(np.meshgrid(axis, axis, axis), -1).reshape(-1, 3)
    assert len(found.centers) == (np.linalg.norm(grid - center, axis=1) <= length).sum()


def test_a_free_turn_reaches_more(panda, edge):
    free = mik.reachability_map(panda, 0.1, 12, box=EDGE, free_axes="rx", processes=1)
    assert ((free.branches > 0) >= (edge.branches > 0)).all()
    assert free.reached.sum() > edge.reached.sum()
    both = edge.branches > 0
    assert (free.singularity_margin[both] >= edge.singularity_margin[both] - 0.05).all()


def test_an_obstacle_takes_away_what_it_covers(panda):
    world = mik.World(panda)
    world.add_sphere("ball", 0.12, xyz=(0.45, 0.0, 0.45))
    box = [[0.4, -0.5, 0.4], [0.5, 0.5, 0.5]]
    empty = mik.reachability_map(panda, 0.1, 4, box=box, processes=1)
    found = mik.reachability_map(panda, 0.1, 4, box=box, world=world, processes=1)
    inside = np.linalg.norm(found.centers - (0.45, 0.0, 0.45), axis=1) < 0.1
    assert empty.reached[inside].all() and not found.reached[inside].any()
    assert found.reached.any() and (found.reached <= empty.reached).all()


def test_a_map_is_of_one_tip(dual_panda):
    with pytest.raises(mik.OptionError, match=f"has the tips {dual_panda.tips[0]}, .*--tip"):
        mik.reachability_map(dual_panda)
    left = mik.load_robot("dual_panda", tips=[dual_panda.tips[0]])
    found = mik.reachability_map(left, 0.3, 2, processes=1)
    assert found.question["tip"] == dual_panda.tips[0] and found.reached.any()


def test_a_file_of_another_map_is_refused(panda, tmp_path):
    path = tmp_path / "map.npz"
    found = mik.reachability_map(panda, 0.1, 2, box=EDGE, output=path, processes=1)
    loaded = mik.ReachabilityMap.load(path)
    assert loaded.complete and loaded.question == found.question
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(loaded, name), getattr(found, name))
    shorter = mik.load_robot("panda", held={"panda_joint3": 0.0})
    for robot, options, what in (
        (shorter, {}, "kinematics"),
        (panda, {"frame": "panda_hand"}, "tip panda_link8"),
        (panda, {"seed": 1}, "seed 0, not 1"),
        (panda, {"starts": 8}, "starts 64, not 8"),
    ):
        with pytest.raises(mik.OutputError, match=what.split()[0]):
            mik.reachability_map(robot, 0.1, 2, box=EDGE, output=path, processes=1, **options)


@pytest.mark.parametrize(
    "options, match",
    [
        ({"voxel": -0.1}, "voxel is -0.1"),
        ({"voxel": float("nan")}, "voxel is nan"),
        ({"voxel": "5cm"}, "voxel is '5cm'"),
        ({"voxel": 1e-4}, "poses; at most"),
        ({"orientations": 0}, "orientations is 0"),
        ({"starts": 0}, "starts is 0"),
        ({"seed": 0.5}, "seed is 0.5"),
        ({"seed": None}, "seed is None"),
        ({"box": [0, 1]}, "highest corner"),
        ({"box": [[0, 0, 0], [1, 1, -1]]}, "highest corner"),
        ({"box": "all"}, "two corners"),
        ({"box": [[5, 5, 5], [6, 6, 6]]}, "no centre of a voxel"),
        ({"free_axes": "q"}, "axes are x y z rx ry rz"),
        ({"avoid_self_collision": 1}, "avoid_self_collision is 1"),
    ],
)
def test_a_map_that_cannot_be_is_refused(panda, options, match):
    with pytest.raises(mik.OptionError, match=match):
        mik.reachability_map(panda, processes=1, **options)


def test_orientations_are_spread_over_all_rotations():
    spread = spread_orientations(500)
    random = matrix_from_quat_xyzw(np.random.default_rng(0).normal(size=(4000, 4)))
    np.testing.assert_allclose(
        spread @ spread.swapaxes(1, 2), np.tile(np.eye(3), (500, 1, 1)), atol=1e-12
    )
    between = angles(spread, spread) + 9 * np.eye(500)
    assert between.min() > 0.75 * np.median(between.min(1))
    # From anywhere the nearest one is nearer than the nearest of as many at random.
    nearest = angles(random[500:], spread).min(1)
    assert nearest.max() < 0.75 * angles(random[500:], random[:500]).min(1).max()
    turned = spread_orientations(500, seed=1)
    np.testing.assert_allclose(angles(turned, turned), angles(spread, spread), atol=1e-6)
    assert angles(turned, spread).min(1).max() > 0.1


def test_a_cloud_of_points_has_a_colour_for_each_voxel_reached(edge):
    there = edge.reached > 0
    for quantity in QUANTITIES:
        points, colours = edge.points_and_colours(quantity)
        np.testing.assert_array_equal(points, edge.centers[there])
        assert colours.shape == points.shape and colours.dtype == np.uint8
    brightness = edge.points_and_colours()[1].sum(1, dtype=int)
    assert (np.diff(brightness[np.argsort(edge.reached[there])]) >= 0).all()
    with pytest.raises(mik.OptionError, match="unknown quantity 'heat'"):
        edge.points_and_colours("heat")


def test_a_picture_shows_the_map(edge, tmp_path):
    from matplotlib.image import imread

    draw_map(edge, tmp_path / "map.png")
    picture = imread(tmp_path / "map.png")
    assert len(np.unique(picture.reshape(-1, picture.shape[-1]), axis=0)) > 50
    with pytest.raises(mik.OptionError, match=r"its suffix is one of .*png"):
        draw_map(edge, tmp_path / "map.nothing")
