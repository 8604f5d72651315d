# SPDX-License-Identifier: Apache-2.0
"""A tracker stops before it touches the world, says what is in its way, and goes on afterwards."""

import coal
import numpy as np
import pytest
from oracles import Judge
from world_judge import WorldJudge

import meanflow_ik_core as mik
from meanflow_ik_core import BlockedBy, TrackStatus

HOME = np.array([0.0, -0.5, 0.0, -2.0, 0.0, 1.6, 0.7])


def near_motion(robot: mik.Robot, judge: WorldJudge, motion: np.ndarray, rng):
    """A world of four obstacles near the links on a motion (W, J), free where it begins."""
    world, judged = mik.World(robot), {}
    moving = np.flatnonzero(judge.moves)
    kinds = [
        ("box", coal.Box(0.1, 0.2, 0.06), {"size": (0.1, 0.2, 0.06)}),
        ("sphere", coal.Sphere(0.07), {"radius": 0.07}),
        ("cylinder", coal.Cylinder(0.04, 0.3), {"radius": 0.04, "length": 0.3}),
        ("capsule", coal.Capsule(0.03, 0.3), {"radius": 0.03, "length": 0.3}),
    ]
    for kind, shape, sizes in kinds:
        for _ in range(20):
            q = motion[rng.integers(len(motion) // 3, len(motion))]
            T = np.eye(4)
            T[:3, 3] = judge.shape_poses(q)[rng.choice(moving)].translation
            T[:3, 3] += rng.normal(size=3) * 0.08
            if judge.distance(motion[0], {kind: (shape, T)}) > 0.01:
                judged[kind] = shape, T
                getattr(world, f"add_{kind}")(kind, pose=T, **sizes)
                break
    return world, judged


@pytest.mark.slow
@pytest.mark.parametrize("name, paths", [("panda", 150), ("dual_panda", 50)])
def test_no_step_touches_what_is_near_a_path(name, paths, request):
    robot = request.getfixturevalue(name)
    solver = mik.load_solver(robot, sampler="uniform")
    judge, poses_of = WorldJudge(robot), Judge(robot)
    rng, stopped, largest = np.random.default_rng(0), 0, 0.05
    for _ in range(paths):
        q = robot.lower + rng.random((2, robot.num_joints)) * (robot.upper - robot.lower)
        motion = q[0] + np.linspace(0, 0.4, 25)[:, None] * (q[1] - q[0])
        world, judged = near_motion(robot, judge, motion, rng)
        tracker = solver.tracker(motion[0], max_joint_step=largest, world=world)
        before = motion[0]
        for q in motion:
            poses = poses_of.poses(q)
            step = tracker.step(poses if robot.num_tips > 1 else poses[0])
            now = step.joint_positions
            assert (np.abs(now - before) <= largest * (1 + 1e-9)).all()
            if not np.array_equal(now, before):
                assert not judge.touching(now, judged)
            assert (step.status is TrackStatus.REACHED) == poses_of.accepts(now, poses)
            if step.blocked_by is BlockedBy.WORLD:
                assert np.array_equal(now, before)
                assert {contact.other for contact in step.touches} <= judged.keys()
                assert step.touches
            if step.offer is not None:
                assert not judge.touching(step.offer, judged)
            before = now
        stopped += step.blocked_by is BlockedBy.WORLD
    assert 0.2 * paths < stopped < 0.95 * paths


def wall(robot: mik.Robot, x: float, thickness: float = 0.02) -> mik.World:
    world = mik.World(robot)
    world.add_box("wall", (thickness, 2.0, 2.0), xyz=(x, 0, 0.5))
    return world


def ahead(robot: mik.Robot, by: float) -> np.ndarray:
    pose = Judge(robot).poses(HOME)[0]
    pose[0, 3] += by
    return pose


def test_it_goes_on_when_the_way_is_free_again(uniform):
    robot, target = uniform.robot, ahead(uniform.robot, 0.15)
    world = wall(robot, target[0, 3] + 0.05)
    tracker = uniform.tracker(HOME, dt=0.01, world=world)
    statuses = [tracker.step(target) for _ in range(60)]
    step = statuses[-1]
    assert (step.status, step.blocked_by) == (TrackStatus.BLOCKED, BlockedBy.WORLD)
    assert {contact.other for contact in step.touches} == {"wall"}
    world.move("wall", xyz=(2.0, 0, 0.5))
    assert tracker.step(target).blocked_by is BlockedBy.WORLD  # the world is what it was
    tracker.world = world
    for _ in range(60):
        step = tracker.step(target)
    assert step.status is TrackStatus.REACHED and not step.touches
    # and backs off by itself from where it stands before an obstacle
    tracker.world = wall(robot, target[0, 3] + 0.18)
    assert tracker.step(ahead(robot, 0.4)).status is TrackStatus.FOLLOWING
    while tracker.step(ahead(robot, 0.4)).status is not TrackStatus.BLOCKED:
        pass
    for _ in range(60):
        step = tracker.step(ahead(robot, 0.0))
    assert step.status is TrackStatus.REACHED


def test_a_large_step_does_not_jump_through_a_thin_wall(uniform):
    robot = uniform.robot
    begin, end = (HOME + np.array((turn, 0, 0, 0, 0, 0, 0)) for turn in (-0.6, 0.6))
    world, T = mik.World(robot), ahead(robot, 0.0)
    T[:3, :3] = np.eye(3)
    world.add_box("sheet", (0.3, 0.001, 0.3), pose=T)
    judged, judge = {"sheet": (coal.Box(0.3, 0.001, 0.3), T)}, WorldJudge(robot)
    assert not judge.touching(begin, judged) and not judge.touching(end, judged)
    assert judge.touching(HOME, judged)
    target = Judge(robot).poses(end)[0]
    free, guarded = (uniform.tracker(begin, max_joint_step=3.0, world=w) for w in (None, world))
    assert free.step(target).status is TrackStatus.REACHED
    step = guarded.step(target)
    assert step.blocked_by is BlockedBy.WORLD
    assert {contact.other for contact in step.touches} == {"sheet"}
    np.testing.assert_array_equal(step.joint_positions, begin)


def test_an_obstacle_that_comes_to_touch_may_be_left_but_not_entered(uniform):
    robot, judge = uniform.robot, WorldJudge(uniform.robot)
    tracker = uniform.tracker(HOME, dt=0.01)
    ball = np.eye(4)
    ball[:3, 3] = ahead(robot, 0.13)[:3, 3] - (0, 0, 0.06)
    judged = {"ball": (coal.Sphere(0.1), ball)}
    world = mik.World(robot)
    world.add_sphere("ball", 0.1, pose=ball)
    assert judge.touching(HOME, judged)
    tracker.world = world
    for _ in range(5):
        step = tracker.step(ahead(robot, 0.1))
        assert step.blocked_by is BlockedBy.WORLD and step.touches
        np.testing.assert_array_equal(step.joint_positions, HOME)
    for _ in range(60):
        step = tracker.step(ahead(robot, -0.2))
    assert step.status is TrackStatus.REACHED
    assert not judge.touching(step.joint_positions, judged)


def test_a_far_world_changes_no_step_and_none_is_the_end_of_it(uniform):
    world = mik.World(uniform.robot)
    world.add_sphere("far", 0.1, xyz=(9, 0, 0))
    with_world = uniform.tracker(HOME, dt=0.01, avoid_self_collision=True, world=world)
    without = uniform.tracker(HOME, dt=0.01, avoid_self_collision=True)
    for k in range(50):
        target = ahead(uniform.robot, 0.004 * k)
        ours, theirs = with_world.step(target), without.step(target)
        np.testing.assert_array_equal(ours.joint_positions, theirs.joint_positions)
        assert ours.status is theirs.status
    assert with_world.world.structure.obstacles[0].name == "far"
    with_world.world = None
    assert with_world.world is None and without.world is None


def test_self_collision_is_named_as_such_with_a_world_too(uniform):
    robot, judge = uniform.robot, Judge(uniform.robot)
    world = mik.World(robot)
    world.add_sphere("far", 0.1, xyz=(9, 0, 0))
    random, seen = np.random.default_rng(3), 0
    while seen < 3:
        ends = random.uniform(robot.lower, robot.upper, (2, 7))
        if list(uniform.self_collision.in_collision(ends)) != [False, True]:
            continue
        motion = ends[0] + np.linspace(0, 1, 150)[:, None] * (ends[1] - ends[0])
        tracker = uniform.tracker(motion[0], avoid_self_collision=True, world=world)
        steps = [tracker.step(judge.poses(q)[0]) for q in motion]
        q = np.stack([step.joint_positions for step in steps])
        assert not uniform.self_collision.in_collision(q).any()
        stopped = [step for step in steps if step.blocked_by is BlockedBy.SELF_COLLISION]
        assert all(step.touches for step in stopped)
        seen += bool(stopped)


def test_a_bad_world_and_a_start_that_touches_are_refused(uniform, dual_panda):
    world = mik.World(uniform.robot)
    world.add_sphere("ball", 0.1, xyz=ahead(uniform.robot, 0.0)[:3, 3])
    with pytest.raises(mik.SeedError, match=r"q0 touches: panda_\w+ and ball by"):
        uniform.tracker(HOME, world=world)
    for wrong in (mik.World(dual_panda), "table"):
        with pytest.raises(mik.WorldError):
            uniform.tracker(HOME, world=wrong)


def test_alternatives_are_free_of_the_world(uniform):
    robot, judge = uniform.robot, WorldJudge(uniform.robot)
    found = uniform.solve(ahead(robot, 0.0)[None], max_solutions=8, seed=0, select="diverse")
    elbows = [
        judge.shape_poses(q)[judge.links.index("panda_link4")] for q in found.joint_positions[0]
    ]
    balls = [{"ball": (coal.Sphere(0.1), elbow.homogeneous)} for elbow in elbows]
    judged = max(balls, key=lambda ball: judge.distance(HOME, ball))
    world = mik.World(robot)
    world.add_sphere("ball", 0.1, pose=judged["ball"][1])
    tracker = uniform.tracker(HOME, world=world)
    tracker.step(ahead(robot, 0.0))
    free, all_of_them = (tracker.alternatives(40, seed=0, **w) for w in ({}, {"world": None}))
    assert free.valid.any()
    assert not any(judge.touching(q, judged) for q in free.joint_positions[free.valid])
    touching = (judge.touching(q, judged) for q in all_of_them.joint_positions[all_of_them.valid])
    assert any(touching)
