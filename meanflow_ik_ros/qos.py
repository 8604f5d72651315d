# SPDX-License-Identifier: Apache-2.0
"""Publishers and subscriptions whose quality of service users can override.

With parameters `qos_overrides.<topic>.<publisher|subscription>.<policy>`; see the ROS 2 design
article on QoS configurability.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rclpy.exceptions import ParameterException
from rclpy.qos import QoSPolicyKind, QoSProfile
from rclpy.qos_overriding_options import InvalidQosOverridesError, QoSOverridingOptions

from meanflow_ik_core.errors import ConfigError

if TYPE_CHECKING:
    from rclpy.callback_groups import CallbackGroup
    from rclpy.event_handler import PublisherEventCallbacks
    from rclpy.node import Node
    from rclpy.publisher import Publisher
    from rclpy.subscription import Subscription

POLICIES = (
    QoSPolicyKind.HISTORY,
    QoSPolicyKind.DEPTH,
    QoSPolicyKind.RELIABILITY,
    QoSPolicyKind.DURABILITY,
)


def create_publisher(
    node: Node,
    kind: type,
    topic: str,
    qos: QoSProfile,
    events: PublisherEventCallbacks | None = None,
) -> Publisher[Any]:
    """A publisher with `qos` where no parameter says otherwise; ConfigError for a bad one."""
    with _bad_overrides(node, topic):
        return node.create_publisher(
            kind,
            topic,
            copy.copy(qos),  # rclpy writes the overrides into the profile that it is given.
            event_callbacks=events,
            qos_overriding_options=QoSOverridingOptions(POLICIES),
        )


def create_subscription(
    node: Node,
    kind: type,
    topic: str,
    receive: Callable[[Any], None],
    qos: QoSProfile,
    group: CallbackGroup,
) -> Subscription[Any]:
    """A subscription with `qos` where no parameter says otherwise; ConfigError for a bad one."""
    with _bad_overrides(node, topic):
        return node.create_subscription(
            kind,
            topic,
            receive,
            copy.copy(qos),
            callback_group=group,
            qos_overriding_options=QoSOverridingOptions(POLICIES),
        )


def unused_overrides(node: Node) -> str:
    """Names of overrides that no publisher or subscription of the node has taken."""
    names = (name for name in node._parameter_overrides if name.startswith("qos_overrides."))
    return ", ".join(sorted(name for name in names if not node.has_parameter(name)))


@contextmanager
def _bad_overrides(node: Node, topic: str) -> Iterator[None]:
    try:
        yield
    except (InvalidQosOverridesError, ParameterException, RuntimeError, ValueError) as error:
        name = node.resolve_topic_name(topic)
        raise ConfigError(f"qos_overrides of {name}: {error}") from error
