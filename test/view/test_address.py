# SPDX-License-Identifier: Apache-2.0
"""Where the viewer listens."""

import socket

import pytest

import meanflow_ik_core as mik
from meanflow_ik_core.view.address import free_port


def test_a_free_port_is_taken_and_a_taken_one_is_not():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        assert taken < free_port("127.0.0.1", taken) <= taken + 100
    assert free_port("127.0.0.1", taken) == taken
    assert free_port("localhost", 0) > 0


@pytest.mark.parametrize(
    "host, port, said",
    [
        ("127.0.0.1", -1, "the port is -1"),
        ("127.0.0.1", 70000, "the port is 70000"),
        ("no.such.host.invalid", 8080, "no host 'no.such.host.invalid'"),
        ("192.0.2.1", 8080, "cannot be listened at"),
    ],
)
def test_what_cannot_be_listened_at_is_refused(host, port, said):
    with pytest.raises(mik.OptionError, match=said):
        free_port(host, port)
