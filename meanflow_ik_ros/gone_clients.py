# SPDX-License-Identifier: Apache-2.0
"""Answers to clients that are gone, which would stop the whole node.

Where rmw_fastrtps does not know the reader of an answer it waits .1 s for it, and rclpy keeps
Python's lock meanwhile. A client that is destroyed with 900 requests under way would take 90 s.
"""

from __future__ import annotations

import ctypes
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from rclpy.utilities import get_rmw_implementation_identifier

if TYPE_CHECKING:
    from rclpy.node import Node

WAIT_S = 0.1  # of rmw_fastrtps
# How long clients are looked for before they are answered, once an answer found none. To look takes
# 20 us and more where there are many.
DOUBT_S = 10.0
_LOOK_S = 0.005


class GoneClients:
    """Lets services of a node send no answer to a client that is gone."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._doubt_until = 0.0  # by time.monotonic
        self._gone: set[bytes] = set()  # clients that were waited for in vain

    def guard(self, service: Any) -> None:
        """Have a service's `send_response` return False where nobody is there to be answered."""
        if "send_response" not in vars(service) and (
            get_rmw_implementation_identifier().startswith("rmw_fastrtps")
        ):
            topic = f"rr{service.service_name}Reply"  # by ROS 2's rule for DDS
            service.send_response = partial(self._send, service.send_response, topic)

    def _send(self, send: Any, topic: str, response: Any, header: Any) -> bool:
        client = client_of(header)
        if client is None:
            send(response, header)
            return True
        began = time.monotonic()
        if began < self._doubt_until and not self._comes(topic, client, header.source_timestamp):
            return False
        send(response, header)
        if time.monotonic() - began < WAIT_S or self._is_there(topic, client):
            return True
        self._gone = {client}
        self._doubt_until = time.monotonic() + DOUBT_S
        return False

    def _comes(self, topic: str, client: bytes, asked_ns: int) -> bool:
        """Whether a client is there, or is found before its request is as old as `WAIT_S`."""
        # The client's clock tells when it asked, and may be wrong: so it is waited for once.
        age = 1e-9 * (time.time_ns() - asked_ns)
        end = time.monotonic() + min(WAIT_S, WAIT_S - age)
        while not self._is_there(topic, client):
            if client in self._gone or time.monotonic() > end:
                self._gone.add(client)
                return False
            time.sleep(_LOOK_S)
        return True

    def _is_there(self, topic: str, client: bytes) -> bool:
        readers = self._node.get_subscriptions_info_by_topic(topic, no_mangle=True)
        return any(bytes(reader.endpoint_gid)[:16] == client for reader in readers)


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
