# SPDX-License-Identifier: Apache-2.0
"""Clients that no answer reaches, above all those that are gone: they would stop the whole node.

Where rmw_fastrtps does not know the reader of an answer it waits .1 s for it, and rclpy keeps
Python's lock meanwhile. A client that is destroyed with 900 requests under way would take 90 s.
"""

from __future__ import annotations

import ctypes
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from rclpy.duration import Infinite
from rclpy.qos import (
    DurabilityPolicy,
    LivelinessPolicy,
    QoSCompatibility,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
)
from rclpy.utilities import get_rmw_implementation_identifier

if TYPE_CHECKING:
    from rclpy.node import Node

WAIT_S = 0.1  # of rmw_fastrtps
# How long clients are looked for before they are served, once an answer found none. To look takes
# 20 us and more where there are many.
DOUBT_S = 10.0
_LOOK_S = 0.005
# A client that wants more, a deadline for instance, is heard, but answers never reach it.
_OFFERED = QoSProfile(
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.VOLATILE,
    deadline=Infinite,
    lifespan=Infinite,
    liveliness=LivelinessPolicy.AUTOMATIC,
    liveliness_lease_duration=Infinite,
)
_READER = 0x04  # this bit of the last byte of a name in DDS says that it is a reader's


class UnreachableClients:
    """Knows which clients of a node's services no answer reaches."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._may_wait = get_rmw_implementation_identifier().startswith("rmw_fastrtps")
        self._doubt_until = 0.0  # by time.monotonic
        self._gone: set[bytes] = set()  # clients that were waited for in vain

    def guard(self, service: Any) -> None:
        """Have a service that an executor calls answer no client out of reach."""
        service.send_response = partial(self._answer, service)

    def _answer(self, service: Any, response: Any, header: Any) -> None:
        if not self.is_unreachable(service, header):
            self.send(service, response, header)

    def send(self, service: Any, response: Any, header: Any) -> bool:
        """Answer a request; False where that reached nobody."""
        began = time.monotonic()
        type(service).send_response(service, response, header)
        if time.monotonic() - began < WAIT_S or not self._may_wait:
            return True
        client = client_of(header)
        if client is None or self._is_there(service, client):
            return True
        self._gone = {client}
        self._doubt_until = time.monotonic() + DOUBT_S
        return False

    def is_unreachable(self, service: Any, header: Any) -> bool:
        """Whether no answer reaches a client; False where all answers found their clients."""
        if time.monotonic() > self._doubt_until or (client := client_of(header)) is None:
            return False
        # A new client may be known a little later than its request. When it asked is told by its
        # own clock, which may be wrong: so it is waited for once.
        age, began = 1e-9 * (time.time_ns() - header.source_timestamp), time.monotonic()
        while (there := self._is_there(service, client)) is None:
            waited = time.monotonic() - began
            if waited > WAIT_S:
                self._gone.add(client)
            if waited > WAIT_S - age or client in self._gone:
                return True
            time.sleep(_LOOK_S)
        return not there

    def _is_there(self, service: Any, client: bytes) -> bool | None:
        """Whether answers reach a client; None: there is no such client."""
        if not client[-1] & _READER:
            return True  # is no reader's name, and rmw_fastrtps does not wait for it
        topic = f"rr{service.service_name}Reply"  # by ROS 2's rule for DDS
        for reader in self._node.get_subscriptions_info_by_topic(topic, no_mangle=True):
            if bytes(reader.endpoint_gid)[:16] == client:
                fits, _ = qos_check_compatible(_OFFERED, reader.qos_profile)
                return fits != QoSCompatibility.ERROR
        return None


class _ServiceInfo(ctypes.Structure):
    """rmw_service_info_t of rmw/types.h."""

    _fields_ = (
        ("source_timestamp", ctypes.c_int64),
        ("received_timestamp", ctypes.c_int64),
        ("writer_guid", ctypes.c_uint8 * 16),
        ("sequence_number", ctypes.c_int64),
    )


def client_of(header: Any) -> bytes | None:
    """The 16 bytes that tell who asked, of the header of a request; None: they are not found.

    rclpy has them in the header, but shows all fields except them. Its objects have a pointer to
    the fields behind what every object has, as all objects of pybind11 do.
    """
    pointer = ctypes.c_void_p.from_address(id(header) + object.__basicsize__).value
    if pointer is None:
        return None
    info = _ServiceInfo.from_address(pointer)
    found = info.source_timestamp, info.received_timestamp, info.sequence_number
    shown = header.source_timestamp, header.received_timestamp, header.request_id.sequence_number
    return bytes(info.writer_guid) if found == shown else None
