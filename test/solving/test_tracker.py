# SPDX-License-Identifier: Apache-2.0
"""A tracker never goes faster than allowed, says what is true, and stands where it should."""

import threading
from pathlib import Path

import numpy as np
import pytest
from numba.core.runtime import _nrt_python, rtsys
from oracles import Judge

import meanflow_ik_core as mik
from meanflow_ik_core import BlockedBy, TrackStatus

HOME = np.array([0.0, -0.5, 0.0, -2.0, 0.0, 1.6, 0.7])
TOLERANCE = 1e-5


def turned_about_z(pose: np.ndarray, angle: float) -> np.ndarray:
    sine, cosine = np.sin(angle), np.cos(angle)
    turn = np.eye(4)
    turn[:2, :2] = (cosine, -sine), (sine, cosine)
    return pose @ turn


def shifted(pose: np.ndarray, *by: float) -> np.ndarray:
    moved = pose.copy()
    moved[..., :3, 3] += by
    return moved


def straight(robot: mik.Robot, waypoints: int, seed: int, near: float = 0.6) -> np.ndarray:
    """(W, J) between random configurations that are not far from each other."""
    random = np.random.default_rng(seed)
    first = random.uniform(robot.lower, robot.upper)
    last = first + random.uniform(-near, near, robot.num_joints)
    last = np.clip(last, robot.lower, robot.upper)
    return first + np.linspace(0, 1, waypoints)[:, None] * (last - first)


@pytest.fixture(scope="module")
def dual_solver(dual_panda) -> mik.IKSolver:
    return mik.load_solver(dual_panda, sampler="uniform")


@pytest.mark.parametrize("name", ["uniform", "dual_solver", "torso_solver"])
def test_what_is_said_to_be_reached_is_and_no_step_is_faster_than_allowed(name, request):
    solver = request.getfixturevalue(name)
    robot, judge, reached = solver.robot, Judge(solver.robot), 0
    for seed in range(8):
        motion = straight(robot, 60, seed)
        dt = float((np.abs(np.diff(motion, axis=0)) / robot.velocity_limit).max()) / 0.2
        tracker = solver.tracker(motion[0], 0.1, 0.5, dt)  # not all joints have limits of speed
        before = motion[0]
        for q in motion:
            poses = judge.poses(q)
            step = tracker.step(poses if robot.num_tips > 1 else poses[0])
            moved = np.abs(step.joint_positions - before)
            allowed = np.minimum(0.5 * robot.velocity_limit * dt, 0.1)
            assert (moved <= allowed * (1 + 1e-9)).all()
            assert robot.within_limits(step.joint_positions)
            position, rotation = judge.errors(step.joint_positions, poses)
            np.testing.assert_allclose(step.position_error, position, atol=1e-9)
            np.testing.assert_allclose(step.orientation_error, rotation, atol=1e-7)
            claimed = step.status is TrackStatus.REACHED
            assert claimed == judge.accepts(step.joint_positions, poses, TOLERANCE)
            reached += claimed
            before = step.joint_positions
    assert reached >= 0.9 * 8 * 60


def test_a_far_target_is_approached_as_fast_as_joints_may_go(uniform):
    tracker = uniform.tracker(HOME, dt=0.01)
    target = shifted(Judge(uniform.robot).poses(HOME)[0], 0.1, 0.0, -0.1)
    allowed = uniform.robot.velocity_limit * 0.01
    before, errors, statuses = HOME, [], []
    for _ in range(40):
        step = tracker.step(target)
        errors.append(step.position_error[0])
        statuses.append(step.status)
        if step.status is TrackStatus.FOLLOWING:
            share = np.abs(step.joint_positions - before) / allowed
            assert share.max() == pytest.approx(1.0)
        before = step.joint_positions
    arrived = statuses.index(TrackStatus.REACHED)
    assert arrived > 3 and set(statuses[:arrived]) == {TrackStatus.FOLLOWING}
    assert set(statuses[arrived:]) == {TrackStatus.REACHED}
    assert (np.diff(errors[:arrived]) < 0).all()


def test_beyond_the_reach_the_arm_comes_to_rest_and_names_the_singularity(uniform):
    tracker = uniform.tracker(HOME, dt=0.01)
    target = shifted(Judge(uniform.robot).poses(HOME)[0], 1.0, 0.0, 0.5)
    for _ in range(500):
        step = tracker.step(target)
    assert (step.status, step.blocked_by) == (TrackStatus.BLOCKED, BlockedBy.SINGULARITY)
    assert step.offer is None and step.joint is None
    again = tracker.step(target)
    assert np.abs(again.joint_positions - step.joint_positions).max() < 1e-4
    # Nothing near is much nearer, by the square that the steps reduce.
    judge, random = Judge(uniform.robot), np.random.default_rng(0)

    def square(q):
        return sum(float((part**2).sum()) for part in judge.errors(q, target[None]))

    for around in random.normal(0, 0.02, (300, 7)):
        q = np.clip(step.joint_positions + around, uniform.robot.lower, uniform.robot.upper)
        assert square(q) > square(step.joint_positions) - 1e-4


def test_a_joint_at_its_limit_is_named_and_what_is_offered_reaches_the_target(uniform):
    robot, judge = uniform.robot, Judge(uniform.robot)
    pose = judge.poses(HOME)[0]
    tracker, angle, offers = uniform.tracker(HOME, dt=0.01), 0.0, 0
    while offers < 50:
        angle += 0.01
        assert angle < 8  # more than a turn, and no joint turns so far
        target = turned_about_z(pose, angle)
        step = tracker.step(target)
        if step.blocked_by is BlockedBy.LIMIT:
            joint = robot.joint_names.index(step.joint)
            assert step.joint_positions[joint] in (robot.lower[joint], robot.upper[joint])
        assert (step.offer is not None) == (step.status is TrackStatus.ELSEWHERE)
        if step.offer is not None:
            assert judge.accepts(step.offer, target[None], TOLERANCE)
            offers += 1
    assert step.blocked_by is BlockedBy.LIMIT
    while angle > 0:  # and back, as if nothing had been
        angle -= 0.01
        step = tracker.step(turned_about_z(pose, angle))
    assert step.status is TrackStatus.REACHED


def test_a_step_of_another_duration_goes_as_far_as_speeds_allow_in_it(uniform):
    robot = uniform.robot
    far = shifted(robot.forward(HOME)[0], -0.2, 0.1, -0.2)
    tracker = uniform.tracker(HOME, 0.02, 0.5, 0.01)
    before = HOME
    for dt in (0.001, 0.004, None, 0.002, None, 0.1):
        q = tracker.step(far, dt=dt).joint_positions
        allowed = np.minimum(0.5 * robot.velocity_limit * (dt or 0.01), 0.02)
        share = (np.abs(q - before) / allowed).max()
        assert share == pytest.approx(1.0, abs=1e-9)
        before = q
    for dt in (0.0, -1.0, np.nan, "1"):
        with pytest.raises(mik.OptionError, match="dt is"):
            tracker.step(far, dt=dt)
    with pytest.raises(mik.OptionError, match="without one"):
        uniform.tracker(HOME).step(far, dt=0.1)
    np.testing.assert_array_equal(tracker.joint_positions, before)


def test_at_rest_nothing_moves(uniform):
    tracker = uniform.tracker(HOME)
    target = shifted(Judge(uniform.robot).poses(HOME)[0], 0.01, 0.0, 0.0)
    for _ in range(20):
        tracker.step(target)
    still = tracker.joint_positions
    for _ in range(500):
        np.testing.assert_array_equal(tracker.step(target).joint_positions, still)


def test_joints_drift_to_a_posture_as_far_as_the_target_leaves_them_free(uniform):
    judge = Judge(uniform.robot)
    poses = judge.poses(HOME)
    posture = HOME + np.array((0.4, 0.0, -0.4, 0.0, 0.3, 0.0, 0.0))
    tracker = uniform.tracker(HOME, dt=0.01, posture=posture)
    distances, before = [], HOME
    for _ in range(2500):
        step = tracker.step(poses[0])
        assert judge.accepts(step.joint_positions, poses, TOLERANCE)
        moved = np.abs(step.joint_positions - before)
        assert (moved <= uniform.robot.velocity_limit * 0.01 * (1 + 1e-9)).all()
        distances.append(np.linalg.norm(step.joint_positions - posture))
        before = step.joint_positions
    assert moved.max() < 1e-6
    assert distances[-1] < 0.8 * np.linalg.norm(HOME - posture)
    # At the end the way to the posture is one that the tip would feel.
    jacobian = judge.jacobian(before)[0]
    free = np.linalg.svd(jacobian)[2][-1]
    assert abs(free @ (posture - before)) < 1e-3


def test_joints_drift_away_from_limits_when_asked(uniform):
    robot, judge = uniform.robot, Judge(uniform.robot)
    q = HOME.copy()
    q[2] = robot.upper[2] - 0.02
    poses = judge.poses(q)
    resting, drifting = (
        uniform.tracker(q, dt=0.01, away_from_limits=away) for away in (False, True)
    )
    for _ in range(300):
        resting.step(poses[0])
        step = drifting.step(poses[0])
        assert judge.accepts(step.joint_positions, poses, TOLERANCE)
    np.testing.assert_array_equal(resting.joint_positions, q)
    assert robot.upper[2] - step.joint_positions[2] > 0.1


def test_one_arm_out_of_reach_leaves_the_other_exact(dual_solver):
    robot, judge = dual_solver.robot, Judge(dual_solver.robot)
    q = np.tile(HOME, 2)
    tracker, poses = dual_solver.tracker(q, dt=0.01), judge.poses(q)
    for k in range(300):
        targets = poses.copy()
        targets[0, :3, 3] += (0.01 * k, 0.0, 0.0)
        targets[1, 2, 3] -= 0.0002 * k
        step = tracker.step(targets)
    assert step.status is TrackStatus.BLOCKED
    position, rotation = judge.errors(step.joint_positions, targets)
    assert position[0] > 1.0 and position[1] < 1e-8 and rotation[1] < 1e-8
    assert robot.within_limits(step.joint_positions)


def test_tips_and_axes_without_a_target_are_free(dual_solver):
    judge = Judge(dual_solver.robot)
    q, other = np.tile(HOME, 2), dual_solver.robot.tips[1]
    target = judge.poses(q)[1]
    tracker = dual_solver.tracker(q, tips=[other], free_axes={other: "rz"})
    for k in range(1, 50):
        wanted = shifted(turned_about_z(target, 0.05 * k), 0.0, 0.001 * k, 0.0)
        step = tracker.step(wanted)
        assert step.status is TrackStatus.REACHED
        reached = judge.poses(step.joint_positions)[1]
        np.testing.assert_allclose(reached[:3, 3], wanted[:3, 3], atol=1e-8)
        np.testing.assert_allclose(reached[:3, 2], wanted[:3, 2], atol=1e-8)
    np.testing.assert_array_equal(step.joint_positions[:7], HOME)
    assert abs(step.joint_positions[13] - HOME[6]) < 0.2  # the turn about z was not followed


def test_continuous_joints_go_on_beyond_a_turn(torso_solver):
    robot, judge = torso_solver.robot, Judge(torso_solver.robot)
    joint = int(np.flatnonzero(robot.continuous)[0])
    q = 0.5 * (robot.lower + robot.upper)
    tracker = torso_solver.tracker(q)
    for angle in np.arange(0, 9, 0.02):
        moved = q.copy()
        moved[joint] += angle
        step = tracker.step(judge.poses(moved))
        assert step.status is TrackStatus.REACHED
    assert abs(step.joint_positions[joint] - moved[joint]) < 1.0


def test_no_step_ends_in_self_collision_where_that_is_asked(uniform):
    robot, judge = uniform.robot, Judge(uniform.robot)
    random, seen = np.random.default_rng(3), 0
    while seen < 3:
        ends = random.uniform(robot.lower, robot.upper, (2, 7))
        if list(uniform.self_collision.in_collision(ends)) != [False, True]:
            continue
        motion = ends[0] + np.linspace(0, 1, 150)[:, None] * (ends[1] - ends[0])
        tracker = uniform.tracker(motion[0], avoid_self_collision=True)
        steps = [tracker.step(judge.poses(q)[0]) for q in motion]
        q = np.stack([step.joint_positions for step in steps])
        assert not uniform.self_collision.in_collision(q).any()
        seen += any(step.blocked_by is BlockedBy.SELF_COLLISION for step in steps)
        for step in steps:
            if step.offer is not None:
                assert not uniform.self_collision.in_collision(step.offer)
    with pytest.raises(mik.SeedError, match="self-collision"):
        uniform.tracker(ends[1], avoid_self_collision=True)
    for flag in ("avoid_self_collision", "away_from_limits"):
        with pytest.raises(mik.OptionError, match=f"{flag} is 1; it must be True or False"):
            uniform.tracker(ends[0], **{flag: 1})


def test_alternatives_are_solutions_ranked_by_their_distance(uniform):
    judge = Judge(uniform.robot)
    tracker = uniform.tracker(HOME)
    target = shifted(judge.poses(HOME)[0], 0.02, 0.0, 0.0)
    step = tracker.step(target)
    result = tracker.alternatives(6, seed=0)
    assert result.valid.all() and result.valid.shape == (1, 6)
    for q in result.joint_positions[0]:
        assert judge.accepts(q, target[None], TOLERANCE)
    distance = np.linalg.norm(result.joint_positions[0] - step.joint_positions, axis=-1)
    np.testing.assert_allclose(result.distance[0], distance, atol=1e-9)
    assert (np.diff(distance) >= 0).all()


def test_a_step_allocates_nothing_in_compiled_code(uniform):
    tracker = uniform.tracker(HOME, dt=0.01)
    pose = Judge(uniform.robot).poses(HOME)[0]
    targets = [shifted(pose, 0.002 * k, 0.0, 0.0) for k in range(400)]
    tracker.step(targets[0])
    _nrt_python.memsys_enable_stats()
    before = rtsys.get_allocation_stats()
    steps = [tracker.step(target) for target in targets]
    assert {step.status for step in steps} >= {TrackStatus.REACHED, TrackStatus.BLOCKED}
    # Numba itself makes a note of each array that Python hands over.
    notes = len(steps) * len(tracker._arguments)
    assert rtsys.get_allocation_stats().alloc - before.alloc == notes


BAD_TARGETS = {
    "not finite": lambda pose: np.full_like(pose, np.nan),
    "not rigid": lambda pose: pose * 1.1,
    "shape": lambda pose: pose[:3],
    "not an array of numbers": lambda pose: "ahead",
    "complex": lambda pose: pose * 1j,
}


@pytest.mark.parametrize("message", BAD_TARGETS)
def test_what_is_no_target_is_refused_and_the_arm_stands(uniform, message):
    tracker = uniform.tracker(HOME)
    pose = Judge(uniform.robot).poses(HOME)[0]
    tracker.step(shifted(pose, 0.01, 0.0, 0.0))
    before = tracker.joint_positions
    with pytest.raises(mik.TargetError, match=message):
        tracker.step(BAD_TARGETS[message](pose))
    np.testing.assert_array_equal(tracker.joint_positions, before)
    assert tracker.alternatives(1).valid.all()
    assert tracker.step(pose).status is TrackStatus.REACHED


@pytest.mark.parametrize("kind", ["tensor", "list", "float32", "batch of tips"])
def test_a_target_may_be_any_array(uniform, kind):
    import torch

    pose = shifted(Judge(uniform.robot).poses(HOME)[0], 0.01, 0.0, 0.0)
    given = {
        "tensor": torch.from_numpy(pose),
        "list": pose.tolist(),
        "float32": pose.astype(np.float32),
        "batch of tips": pose[None],
    }[kind]
    step = uniform.tracker(HOME).step(given)
    expected = uniform.tracker(HOME).step(pose)
    np.testing.assert_allclose(step.joint_positions, expected.joint_positions, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"dt": 0.0}, mik.OptionError, "dt is 0.0"),
        ({"dt": -1.0}, mik.OptionError, "dt is -1.0"),
        ({"dt": np.inf}, mik.OptionError, "dt is inf"),
        ({"max_joint_step": 0.0}, mik.OptionError, "max_joint_step is 0.0"),
        ({"max_joint_step": np.nan}, mik.OptionError, "max_joint_step is nan"),
        ({"velocity_scale": 0.0, "dt": 0.1}, mik.OptionError, "velocity_scale is 0.0"),
        ({"velocity_scale": 1.5, "dt": 0.1}, mik.OptionError, "velocity_scale is 1.5"),
        ({"velocity_scale": 0.5}, mik.OptionError, "without dt"),
        ({"q0": HOME + 9}, mik.SeedError, "q0 has panda_joint1 = 9"),
        ({"q0": HOME * np.nan}, mik.SeedError, "q0 has values that are not finite"),
        ({"q0": HOME[:6]}, mik.SeedError, "q0 has the shape"),
        ({"q0": None}, mik.SeedError, "q0 is None"),
        ({"posture": HOME + 9}, mik.SeedError, "posture has panda_joint1"),
        ({"tips": ["nothing"]}, mik.LinkError, "unknown tip 'nothing'"),
    ],
    ids=str,
)
def test_bad_options_are_named(uniform, options, error, message):
    with pytest.raises(error, match=message):
        uniform.tracker(**{"q0": HOME, **options})


def test_a_joint_without_a_speed_limit_is_named(panda):
    import dataclasses

    speeds = panda.velocity_limit.copy()
    speeds[3] = 0.0
    robot = dataclasses.replace(panda, velocity_limit=speeds, _on_device={})
    solver = mik.load_solver(robot, sampler="uniform")
    with pytest.raises(mik.OptionError, match="gives panda_joint4 the speed limit 0"):
        solver.tracker(HOME, dt=0.01)
    solver.tracker(HOME, max_joint_step=0.01)


def test_a_second_thread_is_refused_by_name_until_a_reset(uniform):
    tracker = uniform.tracker(HOME)
    pose = Judge(uniform.robot).poses(HOME)[0]
    seen = []

    def use():
        try:
            seen.append(tracker.step(pose).status)
        except mik.TrackerError as error:
            seen.append(str(error))

    def in_thread():
        thread = threading.Thread(target=use, name="second")
        thread.start()
        thread.join()

    tracker.step(pose)
    in_thread()
    assert "'second'" in seen[0] and threading.current_thread().name in seen[0]
    tracker.reset(HOME)
    in_thread()
    assert seen[1] is TrackStatus.REACHED
    with pytest.raises(mik.TrackerError):
        tracker.step(pose)


def test_the_example_of_the_documentation_runs():
    text = (Path(__file__).parents[2] / "docs" / "tracking.md").read_text()
    names = {}
    exec(text.split("```python\n")[1].split("```")[0], names)
    assert names["step"].joint_positions.shape == (7,)
