# SPDX-License-Identifier: Apache-2.0
"""How long a moving target waits for the joints that follow it, from topic to topic."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
from geometry_msgs.msg import PoseStamped
from rclpy.qos import QoSProfile
from rclpy.time import Time
from sensor_msgs.msg import JointState

from meanflow_ik_core.bench.judge import Judge
from meanflow_ik_core.bench.solve import TOLERANCE
from meanflow_ik_core.errors import OptionError
from meanflow_ik_ros.messages.joints import joint_state_message
from meanflow_ik_ros.messages.poses import pose_message
from meanflow_ik_ros.own_thread import OwnThread

if TYPE_CHECKING:
    from rclpy.node import Node

    from meanflow_ik_core.robot.robot import Robot

_ANSWER_S = 10.0
_SEEN_S = 60.0
_PERIOD_S = 1e-3
_RADIUS = 0.05  # of the circle that the target goes round [m]
_ROUND_S = 2.0
_STATES_EVERY = 20  # joint_states are said each so many targets,
_BEFORE = 200  # and so many periods before the first one


def on_circle(start: np.ndarray, seconds: float) -> np.ndarray:
    """(4, 4) of a target that goes round in a circle from pose `start`."""
    angle = 2 * np.pi / _ROUND_S * seconds
    target = start.copy()
    target[1, 3] += _RADIUS * np.sin(angle)
    target[2, 3] += _RADIUS * (np.cos(angle) - 1)
    return target


def follow_times(
    user: Node, robot: Robot, q: np.ndarray, count: int
) -> tuple[np.ndarray, int, float]:
    """Seconds from targets to their joints, how many had none, and the share of right ones.

    Args:
        q: (J,) where the robot is said to be.
        count: targets that are published, one each ms.
    """
    heard: list[tuple[float, JointState]] = []
    deep = QoSProfile(depth=10_000)
    targets = user.create_publisher(PoseStamped, "meanflow_ik/track_pose", deep)
    states = user.create_publisher(JointState, "joint_states", deep)
    thread = OwnThread(user, "tracked_joints")
    joints = user.create_subscription(
        JointState,
        "meanflow_ik/tracked_joints",
        lambda message: heard.append((time.perf_counter(), message)),
        deep,
        callback_group=thread,
    )
    thread.start()
    start, message = robot.forward(q)[0], pose_message(robot.forward(q)[0], robot.base)
    T_base_tip, sent = np.tile(start, (count, 1, 1, 1)), {}
    state = joint_state_message(q, robot, Time().to_msg())
    try:
        deadline = time.monotonic() + _SEEN_S
        while not (targets.get_subscription_count() and user.count_publishers(joints.topic_name)):
            if time.monotonic() > deadline:
                raise OptionError(f"no tracking topics within {_SEEN_S:g} s")
            time.sleep(0.01)
        time.sleep(1.0)  # Whoever was found last may not know of all others yet.
        clock = user.get_clock()
        began = time.perf_counter()
        for number in range(-_BEFORE, count):
            if number % _STATES_EVERY == 0:
                states.publish(state)
            while (early := began + number * _PERIOD_S - time.perf_counter()) > 0:
                time.sleep(early)
            if number < 0:
                continue
            now = time.perf_counter()
            T_base_tip[number, 0] = on_circle(start, now - began)
            position = T_base_tip[number, 0, :3, 3].tolist()
            message.pose.position.x, message.pose.position.y, message.pose.position.z = position
            message.header.stamp = clock.now().to_msg()
            sent[message.header.stamp.sec, message.header.stamp.nanosec] = now, number
            targets.publish(message)
        deadline = time.monotonic() + _ANSWER_S
        while len(_answers(heard, sent)) < count and time.monotonic() < deadline:
            time.sleep(0.1)
    finally:
        thread.stop()
        user.destroy_subscription(joints)
        user.destroy_publisher(targets)
        user.destroy_publisher(states)
    answers, judge = _answers(heard, sent), Judge(robot)
    seconds = np.array([seconds for seconds, _, _ in answers])
    right = sum(
        judge.accepts(np.array([q]), T_base_tip[number], TOLERANCE, TOLERANCE).all()
        for _, q, number in answers
    )
    return seconds, count - len(answers), right / max(1, len(answers))


def _answers(
    heard: list[tuple[float, JointState]], sent: dict[tuple[int, int], tuple[float, int]]
) -> list[tuple[float, np.ndarray, int]]:
    """Of joints that carry the stamp of a target: seconds since then, (J,), the target's number."""
    return [
        (when - sent[stamp][0], np.array(joints.position), sent[stamp][1])
        for when, joints in heard
        if (stamp := (joints.header.stamp.sec, joints.header.stamp.nanosec)) in sent
    ]
