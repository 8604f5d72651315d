# SPDX-License-Identifier: Apache-2.0
"""Self-motion: connected solutions, exact ones, as far as limits and obstacles let them go."""

import numpy as np
import pytest
from oracles import Judge

import meanflow_ik_core as mik


@pytest.fixture(scope="module", params=["panda", "dual_panda", "g1_upper"])
def solver(request):
    return mik.load_solver(request.param, sampler="uniform")


def configurations(robot, count=6):
    return robot.random_configurations(count, np.random.default_rng(3))


def test_every_solution_of_a_walk_reaches_the_target(solver):
    robot, judge = solver.robot, Judge(solver.robot)
    for q in configurations(robot):
        wanted = judge.poses(q)
        for walk in solver.self_motions(q):
            assert robot.within_limits(walk.joint_positions, 1e-9).all()
            for one in walk.joint_positions:
                assert np.abs(judge.poses(one) - wanted).max() < 2e-5


def test_a_walk_is_connected_and_starts_at_the_solution(solver):
    lengths = []
    for q in configurations(solver.robot):
        for walk in solver.self_motions(q):
            assert np.array_equal(walk.joint_positions[walk.start], q)
            steps = np.linalg.norm(np.diff(walk.joint_positions, axis=0), axis=1)
            assert (steps < 0.1).all()
            lengths.append(len(steps))
    assert np.mean(lengths) > 10


def test_each_arm_walks_alone(solver):
    robot = solver.robot
    walks = solver.self_motions(configurations(robot)[0])
    assert len(walks) == robot.num_tips
    for walk in walks:
        still = ~walk.moving
        assert walk.moving.sum() == 7
        assert (walk.joint_positions[:, still] == walk.joint_positions[0, still]).all()


def test_an_open_walk_ends_at_a_limit(solver):
    robot, ended = solver.robot, 0
    for q in configurations(robot, 10):
        for walk in solver.self_motions(q):
            if not walk.closed:
                last = walk.joint_positions[-1]
                ended += np.minimum(last - robot.lower, robot.upper - last).min() < 1e-3
    assert ended > 5


def test_an_elbow_circle_without_limits_closes():
    """A spherical wrist and shoulder whose joints all turn freely: the elbow's circle."""
    joints = "".join(
        f'<link name="l{n + 1}"/><joint name="j{n}" type="continuous"><parent link="l{n}"/>'
        f'<child link="l{n + 1}"/><origin xyz="0 0 {rise}"/><axis xyz="{axis}"/>'
        '<limit effort="1" velocity="1"/></joint>'
        for n, (rise, axis) in enumerate(
            zip((0.3, 0, 0, 0.4, 0, 0.4, 0), ("0 0 1", "0 1 0") * 3 + ("0 0 1",), strict=True)
        )
    )
    robot = mik.load_robot(f'<robot name="free"><link name="l0"/>{joints}</robot>')
    solver = mik.load_solver(robot, sampler="uniform")
    (walk,) = solver.self_motions([0.3, 0.5, 0.2, -1.2, 0.4, 0.8, 0.1])
    assert walk.closed
    assert (
        np.abs(robot.forward(walk.joint_positions) - robot.forward(walk.joint_positions[0])).max()
        < 1e-5
    )
    # the elbow is everywhere on its circle: opposite to where it began, too
    elbow = robot.arrays.node_poses(walk.joint_positions)[:, 3, :3, 3]
    centre = elbow.mean(0)
    spokes = (elbow - centre) / np.linalg.norm(elbow - centre, axis=1)[:, None]
    assert (spokes @ spokes[0]).min() < -0.99


def test_six_joints_have_none_to_spare_and_a_free_axis_gives_one():
    joints = np.zeros(7)
    joints[3], joints[5] = -1.5, 1.5
    panda = mik.load_robot("panda")
    six = mik.load_solver(
        mik.load_robot(panda.urdf_path, "panda_link0", ["panda_link8"], {"panda_joint3": 0.0}),
        sampler="uniform",
    )
    q = np.delete(joints, 2)
    assert six.self_motions(q) == []
    (walk,) = six.self_motions(q, free_axes={"panda_link8": "rz"})
    poses = six.robot.forward(walk.joint_positions)[:, 0]
    assert np.abs(poses[:, :3, 3] - poses[0, :3, 3]).max() < 2e-5
    assert np.abs(poses[:, :3, 2] - poses[0, :3, 2]).max() < 2e-5
    assert np.abs(poses[:, :3, 0] - poses[0, :3, 0]).max() > 0.5


def test_an_obstacle_ends_a_walk():
    solver = mik.load_solver("panda", sampler="uniform")
    q = np.array([0.0, -0.3, 0.0, -2.2, 0.0, 1.9, 0.8])
    (free,) = solver.self_motions(q)
    world = mik.World(solver.robot)
    elbow = solver.robot.arrays.node_poses(free.joint_positions[[-1]])[0, 3, :3, 3]
    world.add_sphere("ball", 0.05, xyz=elbow)
    assert not world.in_collision(q) and world.in_collision(free.joint_positions[-1])
    (ended,) = solver.self_motions(q, world=world)
    assert 1 < len(ended.joint_positions) < len(free.joint_positions)
    assert not world.in_collision(ended.joint_positions).any()


def test_bad_input_is_refused():
    solver = mik.load_solver("panda", sampler="uniform")
    with pytest.raises(mik.SeedError, match="q is None"):
        solver.self_motions(None)
    with pytest.raises(mik.SeedError, match="shape"):
        solver.self_motions([0.0])
    with pytest.raises(mik.LinkError, match="nowhere"):
        solver.self_motions(configurations(solver.robot)[0], tips=["nowhere"])


def test_a_walk_from_no_solution_is_refused():
    solver = mik.load_solver("panda", sampler="uniform")
    q = np.array([0.0, -0.3, 0.0, -2.2, 0.0, 1.9, 0.8])
    elsewhere = solver.robot.forward(q)[None]
    elsewhere[..., 0, 3] += 0.01
    with pytest.raises(mik.SeedError, match=r"q is 0\.01 m and .* rad from the target"):
        solver.self_motions(q, elsewhere)
    with pytest.raises(mik.TargetError, match="2 poses"):
        solver.self_motions(q, np.tile(elsewhere, (2, 1, 1, 1)))
    assert solver.self_motions(q, elsewhere, free_axes={"panda_link8": "x y z"})
    world = mik.World(solver.robot)
    world.add_sphere("ball", 0.05, xyz=solver.robot.forward(q)[0, :3, 3])
    with pytest.raises(mik.SeedError, match=r"q touches .* and ball by"):
        solver.self_motions(q, world=world)
    folded = [0, 1.7, 0, -3.0, 0, 0.0, 0]
    assert solver.self_motions(folded)
    with pytest.raises(mik.SeedError, match="q touches itself"):
        solver.self_motions(folded, avoid_self_collision=True)
