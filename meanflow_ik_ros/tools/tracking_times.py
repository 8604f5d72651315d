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


def circle(robot: Robot, q: np.ndarray, count: int) -> np.ndarray:
    """(N, 4, 4) targets that begin where the tip is at q, one for each ms."""
    angle = 2 * np.pi / _ROUND_S * _PERIOD_S * np.arange(count)
    targets = np.tile(robot.forward(q)[0], (count, 1, 1))
    targets[:, 1, 3] += _RADIUS * np.sin(angle)
    targets[:, 2, 3] += _RADIUS * (np.cos(angle) - 1)
    return targets


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
    T_base_tip = circle(robot, q, count)
    messages = [pose_message(pose, robot.base) for pose in T_base_tip]
    state = joint_state_message(q, robot, Time().to_msg())
    try:
        deadline = time.monotonic() + _SEEN_S
        while not (targets.get_subscription_count() and user.count_publishers(joints.topic_name)):
            if time.monotonic() > deadline:
                raise OptionError(f"no tracking topics within {_SEEN_S:g} s")
            time.sleep(0.01)
        time.sleep(1.0)  # Whoever was found last may not know of all others yet.
        states.publish(state)
        time.sleep(0.1)
        clock, sent = user.get_clock(), {}
        began = time.perf_counter()
        for number, message in enumerate(messages):
            while (early := began + number * _PERIOD_S - time.perf_counter()) > 0:
                time.sleep(early)
            message.header.stamp = clock.now().to_msg()
            sent[message.header.stamp.sec, message.header.stamp.nanosec] = (
                time.perf_counter(),
                number,
            )
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
        judge.accepts(np.array([q]), T_base_tip[number][None], TOLERANCE, TOLERANCE).all()
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
