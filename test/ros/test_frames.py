# SPDX-License-Identifier: Apache-2.0
"""Targets in any frame, through tf2_ros: the real one where it is installed, else a stand-in."""

import importlib.util
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pinocchio as pin
import pytest
import rclpy
from builtin_interfaces.msg import Time
from geometry_msgs.msg import TransformStamped
from rclpy.executors import MultiThreadedExecutor
from rclpy.node import Node

import meanflow_ik_core as mik
from meanflow_ik_ros.messages.errors import FrameError
from meanflow_ik_ros.topics.frames import Frames

DEADLINE_S = 60.0
STAND_IN = Path(__file__).parent / "tf2_stand_in"


@pytest.fixture(scope="module", autouse=True)
def tf2():
    """The module tf2_ros; the stand-in is gone again after this file."""
    missing = importlib.util.find_spec("tf2_ros") is None
    if missing:
        sys.path.insert(0, str(STAND_IN))
    import tf2_ros

    yield tf2_ros
    if missing:
        sys.path.remove(str(STAND_IN))
        del sys.modules["tf2_ros"]


@pytest.fixture(scope="module")
def node(tf2) -> Iterator[Node]:
    """A node that is spun as the solver is."""
    rclpy.init()
    node = Node("frames_test")
    executor = MultiThreadedExecutor(num_threads=4)
    executor.add_node(node)
    thread = threading.Thread(target=executor.spin)
    thread.start()
    yield node
    executor.shutdown()
    thread.join(DEADLINE_S)
    node.destroy_node()
    rclpy.try_shutdown()


@pytest.fixture
def frames(node) -> Iterator[Frames]:
    """Nothing known of TF, and long waits: what shall come, comes sooner."""
    frames = Frames(mik.load_robot("panda"), node, timeout_s=DEADLINE_S)
    yield frames
    frames.close()


def transform(parent: str, child: str, place: pin.SE3, stamp: Time | None = None):
    message = TransformStamped(child_frame_id=child)
    message.header.frame_id = parent
    message.header.stamp = stamp or Time()
    translation, rotation = message.transform.translation, message.transform.rotation
    translation.x, translation.y, translation.z = place.translation.tolist()
    rotation.x, rotation.y, rotation.z, rotation.w = (
        pin.Quaternion(place.rotation).coeffs().tolist()
    )
    return message


def places(count: int) -> list[pin.SE3]:
    random = np.random.default_rng(5)
    return [pin.SE3(pin.exp3(random.normal(size=3)), random.normal(size=3)) for _ in range(count)]


def know(frames: Frames, *transforms, static: bool = False) -> None:
    """Put transforms into the buffer as its listener does."""
    for item in transforms:
        if static:
            frames._buffer.set_transform_static(item, "test")
        else:
            frames._buffer.set_transform(item, "test")


def test_a_chain_of_moving_and_fixed_frames_is_composed(frames):
    base, table, camera = places(3)
    know(
        frames,
        transform("world", "panda_link0", base),
        transform("world", "table", table),
        static=True,
    )
    know(frames, transform("table", "camera", camera, Time(sec=100)))
    frames.max_age_s = 0.0
    expected = base.inverse() * table * camera
    for stamp in (None, Time(), Time(sec=100)):
        found = frames.T_base_frame("camera", stamp)
        np.testing.assert_allclose(found, expected.homogeneous, atol=1e-12)
    expected = base.inverse() * table
    np.testing.assert_allclose(frames.T_base_frame("table"), expected.homogeneous, atol=1e-12)


def test_the_stamp_chooses_the_time_and_zero_the_latest(frames):
    frames.max_age_s = 0.0
    early, late = places(2)
    know(frames, transform("panda_link0", "part", early, Time(sec=100)))
    know(frames, transform("panda_link0", "part", late, Time(sec=103)))
    for stamp, place in ((100, early), (103, late), (0, late)):
        found = frames.T_base_frame("part", Time(sec=stamp))
        np.testing.assert_allclose(found, place.homogeneous, atol=1e-12)


def test_frames_fixed_to_the_base_need_no_tf(frames):
    np.testing.assert_array_equal(frames.T_base_frame("panda_link0"), np.eye(4))


def now(node: Node, seconds: float = 0.0) -> Time:
    return rclpy.time.Time(
        nanoseconds=node.get_clock().now().nanoseconds + int(1e9 * seconds)
    ).to_msg()


@pytest.mark.parametrize(
    ("frame_id", "stamp", "words"),
    [
        ("mars", Time(), ["mars"]),
        ("island", Time(), ["island"]),
        ("part", Time(sec=99), ["extrapolation"]),
        ("part", Time(sec=104), ["extrapolation"]),
        ("part", Time(sec=-1), ["stamp is negative"]),
        ("part", Time(), ["s old", "at most 10 s"]),
        ("panda_link4", Time(), ["panda_link4"]),
        ("/leading/slash", Time(), []),
    ],
)
def test_what_tf_does_not_know_is_refused_with_both_names(frames, frame_id, stamp, words):
    (place,) = places(1)
    know(frames, transform("panda_link0", "part", place, Time(sec=100)))
    know(frames, transform("panda_link0", "part", place, Time(sec=103)))
    know(frames, transform("sea", "island", place, Time(sec=100)))
    frames.timeout_s = 0.05
    with pytest.raises(FrameError) as refused:
        frames.T_base_frame(frame_id, stamp)
    for word in (f"from frame {frame_id!r} to 'panda_link0'", *words):
        assert word in str(refused.value)


def test_the_latest_transform_may_be_as_old_as_allowed_and_a_static_one_older(frames, node):
    place, other = places(2)
    frames.timeout_s = 0.0
    know(frames, transform("panda_link0", "recent", place, now(node, -5.0)))
    know(frames, transform("panda_link0", "old", place, now(node, -15.0)))
    know(frames, transform("panda_link0", "plate", other, Time(sec=1)), static=True)
    np.testing.assert_allclose(frames.T_base_frame("recent"), place.homogeneous, atol=1e-12)
    np.testing.assert_allclose(frames.T_base_frame("plate"), other.homogeneous, atol=1e-12)
    with pytest.raises(FrameError, match=r"\d s old, at most 10 s"):
        frames.T_base_frame("old")
    frames.max_age_s = 0.0
    np.testing.assert_allclose(frames.T_base_frame("old"), place.homogeneous, atol=1e-12)


def test_transforms_from_before_the_clock_went_back_do_not_count(frames, node):
    before, after = places(2)
    frames.timeout_s = 0.0
    know(frames, transform("panda_link0", "ahead", before, now(node, 5.0)))
    np.testing.assert_allclose(frames.T_base_frame("ahead"), before.homogeneous, atol=1e-12)
    know(frames, transform("panda_link0", "part", before, now(node, 990.0)))
    for max_age_s in (10.0, 0.1):
        with pytest.raises(FrameError, match=r"9[89]\d\.\d s ahead of .* clock, at most 10 s"):
            frames.latest("part", max_age_s)
    frames.forget()
    know(frames, transform("panda_link0", "part", after, now(node)))
    np.testing.assert_allclose(frames.latest("part", 10.0), after.homogeneous, atol=1e-12)


def waiting(frames: Frames, frame_id: str, stamp: Time | None = None):
    """A thread that looks the frame up, and the list that its result or error comes into."""
    outcome: list[np.ndarray | FrameError] = []

    def look_up() -> None:
        try:
            outcome.append(frames.T_base_frame(frame_id, stamp))
        except FrameError as error:
            outcome.append(error)

    thread = threading.Thread(target=look_up)
    thread.start()
    return thread, outcome


def test_a_transform_that_comes_over_the_topic_while_one_waits_is_taken(frames, node, tf2):
    (place,) = places(1)
    stamp = now(node)
    thread, outcome = waiting(frames, "conveyor", stamp)
    broadcaster = tf2.TransformBroadcaster(node)
    deadline = time.monotonic() + DEADLINE_S
    while thread.is_alive() and time.monotonic() < deadline:
        assert not outcome
        # Whether the other side has been discovered yet cannot be seen from here.
        broadcaster.sendTransform(transform("panda_link0", "conveyor", place, stamp))
        thread.join(0.05)
    np.testing.assert_allclose(outcome[0], place.homogeneous, atol=1e-12)


def test_a_static_transform_reaches_a_listener_that_starts_later(node, tf2):
    (place,) = places(1)
    broadcaster = tf2.StaticTransformBroadcaster(node)
    broadcaster.sendTransform(transform("panda_link0", "shelf", place))
    frames = Frames(mik.load_robot("panda"), node, timeout_s=DEADLINE_S)
    np.testing.assert_allclose(frames.T_base_frame("shelf"), place.homogeneous, atol=1e-12)
    frames.close()


def test_a_wait_is_ended_at_once_on_demand(frames):
    thread, outcome = waiting(frames, "nowhere")
    frames.stop_waiting()
    thread.join(0.5 * DEADLINE_S)  # half of how long it would wait
    assert not thread.is_alive()
    assert isinstance(outcome[0], FrameError)


def test_a_closed_one_has_left_the_node(node):
    before = len(list(node.subscriptions))
    frames = Frames(mik.load_robot("panda"), node)
    assert len(list(node.subscriptions)) == before + 2
    frames.close()
    assert len(list(node.subscriptions)) == before


def test_without_tf2_the_refusal_says_so(node, monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2_ros", None)
    frames = Frames(mik.load_robot("panda"), node)
    with pytest.raises(FrameError, match=r"'mars' to 'panda_link0'.*tf2_ros.*not installed"):
        frames.T_base_frame("mars")
