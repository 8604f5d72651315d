# SPDX-License-Identifier: Apache-2.0
"""What the node uses of tf2_ros, for machines without it: same names, same behaviour, no C++.

Two differences: a topic carries single TransformStamped messages, because tf2_msgs is not there
either, and between two stamps the earlier transform holds instead of an interpolated one.
"""

from __future__ import annotations

import bisect
import threading

import numpy as np
import pinocchio as pin
from geometry_msgs.msg import TransformStamped
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.time import Time

TF, TF_STATIC = "/tf", "/tf_static"
MANY = QoSProfile(depth=100)
LATCHED = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class TransformException(Exception):
    pass


class LookupException(TransformException):
    pass


class ConnectivityException(TransformException):
    pass


class ExtrapolationException(TransformException):
    pass


class Buffer:
    def __init__(self, cache_time=None, node=None):
        self._lock = threading.Lock()
        self._parent: dict[str, str] = {}
        self._static: dict[str, pin.SE3] = {}
        self._history: dict[str, list[tuple[int, pin.SE3]]] = {}

    def clear(self) -> None:
        with self._lock:
            self._history.clear()

    def set_transform(self, transform: TransformStamped, authority: str) -> None:
        with self._lock:
            child = transform.child_frame_id
            self._parent[child] = transform.header.frame_id
            entry = (Time.from_msg(transform.header.stamp).nanoseconds, placement(transform))
            bisect.insort(self._history.setdefault(child, []), entry, key=lambda item: item[0])

    def set_transform_static(self, transform: TransformStamped, authority: str) -> None:
        with self._lock:
            self._parent[transform.child_frame_id] = transform.header.frame_id
            self._static[transform.child_frame_id] = placement(transform)

    def lookup_transform(self, target_frame, source_frame, time, timeout=None) -> TransformStamped:
        with self._lock:
            known = {*self._parent, *self._parent.values()}
            for frame in (target_frame, source_frame):
                if frame not in known:
                    raise LookupException(
                        f'"{frame}" passed to lookupTransform argument does not exist.'
                    )
            chains = [self._chain(frame) for frame in (target_frame, source_frame)]
            common = next((frame for frame in chains[0] if frame in chains[1]), None)
            if common is None:
                raise ConnectivityException(
                    f"Could not find a connection between '{target_frame}' and '{source_frame}'"
                )
            chains = [chain[: chain.index(common)] for chain in chains]
            moving = [frame for chain in chains for frame in chain if frame in self._history]
            when = time.nanoseconds
            if when == 0 and moving:
                when = min(self._history[frame][-1][0] for frame in moving)
            below, above = (self._T_common(chain, when) for chain in chains)
        result = TransformStamped(child_frame_id=source_frame)
        result.header.frame_id = target_frame
        result.header.stamp = Time(nanoseconds=when).to_msg()
        write(below.actInv(above), result)
        return result

    def _chain(self, frame: str) -> list[str]:
        """The frame and its ancestors, the root last."""
        chain = [frame]
        while chain[-1] in self._parent:
            chain.append(self._parent[chain[-1]])
        return chain

    def _T_common(self, chain: list[str], when: int) -> pin.SE3:
        """Pose of the first frame of the chain in the parent of its last one."""
        place = pin.SE3.Identity()
        for frame in chain:
            place = (self._static.get(frame) or self._at(frame, when)) * place
        return place

    def _at(self, frame: str, when: int) -> pin.SE3:
        history = self._history[frame]
        if not history[0][0] <= when <= history[-1][0]:
            raise ExtrapolationException(
                f"Lookup would require extrapolation: requested time {when} but the data of "
                f"{frame} are from {history[0][0]} to {history[-1][0]}"
            )
        return history[bisect.bisect_right(history, when, key=lambda item: item[0]) - 1][1]


class TransformListener:
    def __init__(self, buffer: Buffer, node):
        self._node = node
        group = ReentrantCallbackGroup()
        self._subscriptions = [
            node.create_subscription(
                TransformStamped,
                topic,
                lambda message, take=take: take(message, "listener"),
                quality,
                callback_group=group,
            )
            for topic, take, quality in (
                (TF, buffer.set_transform, MANY),
                (TF_STATIC, buffer.set_transform_static, LATCHED),
            )
        ]

    def unregister(self) -> None:
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)


class TransformBroadcaster:
    def __init__(self, node):
        self._publisher = node.create_publisher(TransformStamped, TF, MANY)

    def sendTransform(self, transform: TransformStamped) -> None:
        self._publisher.publish(transform)


class StaticTransformBroadcaster:
    def __init__(self, node):
        self._publisher = node.create_publisher(TransformStamped, TF_STATIC, LATCHED)

    def sendTransform(self, transform: TransformStamped) -> None:
        self._publisher.publish(transform)


def placement(transform: TransformStamped) -> pin.SE3:
    place, turn = transform.transform.translation, transform.transform.rotation
    quaternion = pin.Quaternion(turn.w, turn.x, turn.y, turn.z)
    return pin.SE3(quaternion, np.array([place.x, place.y, place.z]))


def write(place: pin.SE3, transform: TransformStamped) -> None:
    translation, rotation = transform.transform.translation, transform.transform.rotation
    translation.x, translation.y, translation.z = place.translation.tolist()
    quaternion = pin.Quaternion(place.rotation).coeffs().tolist()
    rotation.x, rotation.y, rotation.z, rotation.w = quaternion
