# SPDX-License-Identifier: Apache-2.0
"""A stream of stamped targets is followed by the clock of its stamps, and ends as it should.

Times are given, so that nothing here depends on the machine. Pinocchio says where the links are.
"""

from types import SimpleNamespace

import numpy as np
import pytest
from meanflow_ik_ros.msg import TrackStatus
from oracles import Judge

import meanflow_ik_core as mik
from meanflow_ik_core.errors import TargetError
from meanflow_ik_ros.follower import Follower, Pursuit
from meanflow_ik_ros.parameters import NodeParameters

HOME = np.array([0.0, -0.5, 0.0, -2.0, 0.0, 1.6, 0.7])
MS = 1_000_000
START = 1_000_000_000_000


def follower_of(solver, q0=HOME, free_axes=None, **values) -> Follower:
    return Follower(lambda source: pursuit_of(solver, q0, free_axes, **values))


def pursuit_of(solver, q0=HOME, free_axes=None, **values) -> Pursuit:
    parameters = NodeParameters(**values)
    tracker = solver.tracker(
        q0,
        parameters.track_max_joint_step,
        parameters.track_velocity_scale,
        parameters.track_publish_period,
        free_axes=free_axes,
    )
    asked = None if free_axes is None else np.array([[1, 1, 1, 0, 0, 0]], bool)
    return Pursuit(solver.robot, (0,), asked, tracker, parameters)


def line(robot, count: int, speed: float = 0.1) -> np.ndarray:
    """(N, 1, 4, 4) targets of the tip that moves along z with `speed` m/s, one each ms."""
    targets = np.tile(Judge(robot).poses(HOME), (count, 1, 1, 1))
    targets[:, 0, 2, 3] += np.arange(1, count + 1) * speed * 1e-3
    return targets


def take(follower, target, stamp_ms: float, delay_ms: float = 0.3):
    stamp = START + round(stamp_ms * MS)
    return follower.take("a", lambda _: target, stamp, stamp + round(delay_ms * MS))


def test_every_target_in_time_is_answered_with_its_stamp_and_joints_that_reach_it(uniform):
    follower, judge = follower_of(uniform), Judge(uniform.robot)
    for number, target in enumerate(line(uniform.robot, 200), 1):
        followed = take(follower, target, number)
        assert followed.status == TrackStatus.REACHED
        assert followed.stamp_ns == START + number * MS
        assert judge.accepts(followed.q, target)


def test_velocities_are_those_of_the_positions_over_the_time_between_stamps(uniform):
    follower = follower_of(uniform)
    targets = line(uniform.robot, 60)
    before = take(follower, targets[0], 1)
    for number in (2, 4, 5, 9, 10):  # of targets that come unevenly
        followed = take(follower, targets[number], number)
        seconds = (followed.stamp_ns - before.stamp_ns) * 1e-9
        np.testing.assert_allclose(
            followed.velocities, (followed.q - before.q) / seconds, rtol=1e-6
        )
        before = followed


def test_the_motion_does_not_depend_on_when_messages_arrive(uniform):
    random = np.random.default_rng(0)
    motions = []
    for latest_ms in (0.0, 5.0):
        follower, motion = follower_of(uniform), []
        for number, target in enumerate(line(uniform.robot, 50), 1):
            motion.append(take(follower, target, number, random.uniform(0, latest_ms)).q)
        motions.append(motion)
    np.testing.assert_array_equal(*motions)


@pytest.mark.parametrize("scale", [1.0, 0.1])
def test_no_joint_is_faster_than_its_limit_between_two_stamps(uniform, scale):
    """The target flees at 3 m/s, and targets come unevenly."""
    follower = follower_of(uniform, track_velocity_scale=scale)
    targets, random = line(uniform.robot, 80, speed=3.0), np.random.default_rng(1)
    q, stamp, lagged = HOME, START, 0
    for number in np.flatnonzero(random.uniform(size=80) < 0.6):
        followed = take(follower, targets[number], number + 1.0)
        if followed.step is None:
            break
        if q is not HOME:
            seconds = (followed.stamp_ns - stamp) * 1e-9
            allowed = scale * uniform.robot.velocity_limit * seconds
            assert (np.abs(followed.q - q) <= allowed * (1 + 1e-6)).all()
        q, stamp = followed.q, followed.stamp_ns
        lagged += followed.status == TrackStatus.FOLLOWING
    assert lagged > 10


def test_between_slow_targets_the_joints_go_on_at_the_period(uniform):
    """A target 10 cm away is approached in steps of 10 ms until it is reached."""
    follower, judge = follower_of(uniform, track_incoming_command_timeout=1.0), Judge(uniform.robot)
    target = line(uniform.robot, 1000)[-1]
    followed = take(follower, target, 0, 0)
    stamps, now = [followed.stamp_ns], START
    for _ in range(90):
        now += round(follower.seconds_to_tick(now) * 1e9)
        followed = follower.tick(now)
        stamps.append(followed.stamp_ns)
        if followed.status != TrackStatus.FOLLOWING:
            break
    np.testing.assert_allclose(np.diff(stamps), 10 * MS)
    assert followed.status == TrackStatus.REACHED and judge.accepts(followed.q, target)


def test_a_target_behind_the_ticks_is_taken_by_the_next_one(uniform):
    follower = follower_of(uniform)
    first, second = line(uniform.robot, 2)
    take(follower, first, 0, 0)
    for now_ms in (20, 30, 40):
        assert follower.tick(START + now_ms * MS) is not None
    assert take(follower, second, 25, 17) is None  # the joints are at 30 ms
    followed = follower.tick(START + 50 * MS)
    assert followed.status == TrackStatus.REACHED
    assert Judge(uniform.robot).accepts(followed.q, second)


def test_the_watchdog_stops_when_targets_stop_coming(uniform):
    follower = follower_of(uniform)
    last = take(follower, line(uniform.robot, 1)[0], 0, 0)
    now, stopped = START, None
    while stopped is None or stopped.status != TrackStatus.STANDING:
        seconds = follower.seconds_to_tick(now)
        assert 0 < seconds <= 0.021
        now += round(seconds * 1e9)
        stopped = follower.tick(now) or stopped
    assert 100 * MS <= now - START < 105 * MS  # to start takes a moment
    assert "0.1 s" in stopped.message
    np.testing.assert_array_equal(stopped.q, last.q)
    np.testing.assert_array_equal(stopped.velocities, 0)
    assert follower.pursuit is None and follower.seconds_to_tick(now) is None
    assert follower.tick(now + 1000 * MS) is None


def test_a_stream_that_takes_long_to_start_is_started_once(uniform, monkeypatch):
    started = []
    # 200 ms pass with each start: twice as long as targets may stay away.
    clock = SimpleNamespace(monotonic_ns=lambda: len(started) * 200 * MS)
    monkeypatch.setattr("meanflow_ik_ros.follower.time", clock)

    def slow_start(source):
        started.append(source)
        return pursuit_of(uniform)

    follower = Follower(slow_start)
    first, second = line(uniform.robot, 2)
    assert take(follower, first, 0, 0).status == TrackStatus.REACHED
    assert take(follower, second, 205).status in (TrackStatus.REACHED, TrackStatus.FOLLOWING)
    assert len(started) == 1


@pytest.mark.parametrize(
    ("what", "stamp_ms", "delay_ms", "message"),
    [
        ("nan", 3, 0, "nan"),
        ("far", 3, 0, "0.5 m"),
        ("turned", 3, 0, "rad away"),
        ("good", -98, 101, "0.101 s old"),
        ("good", 110, -101, "ahead of this node's clock"),
        ("good", 2, 0, "0 s before"),
        ("good", 1, 1, "0.001 s before"),
        ("no frame", 3, 0, "no such frame"),
    ],
)
def test_bad_targets_are_refused_the_arm_stands_and_a_good_one_goes_on(
    uniform, what, stamp_ms, delay_ms, message
):
    follower, targets = follower_of(uniform), line(uniform.robot, 4)
    take(follower, targets[0], 1)
    before = take(follower, targets[1], 2)
    bad = targets[2].copy()
    if what == "nan":
        bad[0, 1, 3] = np.nan
    if what == "far":
        bad[0, 0, 3] += 0.5
    if what == "turned":
        bad[0, :3, :2] *= -1

    def place(_):
        if what == "no frame":
            raise TargetError("no such frame")
        return bad

    stamp = START + stamp_ms * MS
    refused = follower.take("a", place, stamp, stamp + delay_ms * MS)
    assert refused.status == TrackStatus.REFUSED
    assert message in refused.message
    np.testing.assert_array_equal(refused.q, before.q)
    np.testing.assert_array_equal(refused.velocities, 0)
    assert follower.tick(START + 50 * MS) is None, "the arm stands"
    again = take(follower, targets[3], 4)
    assert again.status == TrackStatus.REACHED and again.stamp_ns == START + 4 * MS
    assert np.abs(again.q - before.q).max() < 0.02


def test_after_the_watchdogs_time_a_target_starts_anew_though_bad_ones_kept_coming(uniform):
    follower, targets = follower_of(uniform), line(uniform.robot, 2)
    take(follower, targets[0], 0)
    first = follower.pursuit
    far = targets[0] + 1.0
    for stamp_ms in range(1, 120, 10):
        assert take(follower, far, stamp_ms).status == TrackStatus.REFUSED
    assert take(follower, targets[1], 121).status == TrackStatus.REACHED
    assert follower.pursuit is not first


def test_a_first_target_that_is_refused_starts_nothing(uniform):
    follower, target = follower_of(uniform), line(uniform.robot, 1)[0]
    target[0, 0, 3] += 0.5
    refused = take(follower, target, 0)
    assert refused.status == TrackStatus.REFUSED and refused.q is None
    assert follower.pursuit is None


def test_a_target_of_another_source_is_refused_while_one_is_followed(uniform):
    follower, targets = follower_of(uniform), line(uniform.robot, 2)
    take(follower, targets[0], 0)
    refused = follower.take("b", lambda _: targets[1], START + MS, START + MS)
    assert refused.status == TrackStatus.REFUSED and "a are being followed" in refused.message


def test_several_tips_are_followed_together_and_the_far_one_is_named(dual_panda):
    solver = mik.load_solver(dual_panda, sampler="uniform")
    q0, judge = np.tile(HOME, 2), Judge(dual_panda)
    tracker = solver.tracker(q0, 0.1, 1.0, 0.01)
    pursuit = Pursuit(dual_panda, (0, 1), None, tracker, NodeParameters())
    follower, targets = Follower(lambda source: pursuit), judge.poses(q0)
    for number in range(1, 20):
        targets[0, 2, 3] -= 1e-4
        targets[1, 2, 3] += 1e-4
        followed = take(follower, targets, number)
        assert followed.status == TrackStatus.REACHED and judge.accepts(followed.q, targets)
    targets[1, 0, 3] += 1.0
    refused = take(follower, targets, 20)
    assert refused.status == TrackStatus.REFUSED and dual_panda.tips[1] in refused.message


def test_what_is_free_is_not_far(uniform):
    """With the orientation free, a target that is turned around is followed."""
    free = {uniform.robot.tips[0]: "rx ry rz"}
    follower, target = follower_of(uniform, free_axes=free), line(uniform.robot, 1)[0]
    target[0, :3, :2] *= -1
    followed = take(follower, target, 0)
    assert followed.status == TrackStatus.REACHED
    reached = Judge(uniform.robot).poses(followed.q)
    np.testing.assert_allclose(reached[0, :3, 3], target[0, :3, 3], atol=1e-5)


def test_a_clock_that_goes_back_ends_the_stream_and_the_next_target_begins_one(uniform):
    follower, targets = follower_of(uniform), line(uniform.robot, 3)
    last, first = take(follower, targets[0], 0), follower.pursuit
    back = START - 990_000 * MS
    assert follower.seconds_to_tick(back) == 0
    stopped = follower.tick(back)
    assert stopped.status == TrackStatus.STANDING and "went back by 990 s" in stopped.message
    np.testing.assert_array_equal(stopped.q, last.q)
    np.testing.assert_array_equal(stopped.velocities, 0)
    assert follower.pursuit is None
    take(follower, targets[0], 0)
    again = take(follower, targets[1], -990_000)  # before any tick
    assert again.status == TrackStatus.REACHED and follower.pursuit is not first
    assert take(follower, targets[2], -989_999).status == TrackStatus.REACHED


def test_a_clock_that_jumps_forward_ends_the_stream_and_the_next_target_begins_one(uniform):
    follower, targets = follower_of(uniform), line(uniform.robot, 3)
    take(follower, targets[0], 0)
    first = follower.pursuit
    assert take(follower, targets[1], 990_000).status == TrackStatus.REACHED
    assert follower.pursuit is not first
    assert take(follower, targets[2], 990_001).status == TrackStatus.REACHED
