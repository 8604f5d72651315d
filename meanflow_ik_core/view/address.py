# SPDX-License-Identifier: Apache-2.0
"""Where the page is served."""

import socket

from ..errors import OptionError

_TRIED = 100  # ports, from the one that is asked for on


def free_port(host: str, port: int) -> int:
    """The port, or the next one that is not taken; 0: any.

    Raises:
        OptionError: the port is none, the host is not one of this machine, or all are taken.
    """
    if not 0 <= port <= 65535:
        raise OptionError(f"the port is {port}; it must be one of 0 to 65535")
    for tried in range(port, min(port + _TRIED, 65536)):
        try:
            family, *_, address = socket.getaddrinfo(host, tried, type=socket.SOCK_STREAM)[0]
            with socket.socket(family, socket.SOCK_STREAM) as listener:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind(address)
                return listener.getsockname()[1]
        except socket.gaierror as error:
            raise OptionError(f"there is no host {host!r}: {error.strerror}") from error
        except PermissionError:
            continue
        except OSError as error:
            if error.errno != 98:  # EADDRINUSE
                raise OptionError(f"{host!r} cannot be listened at: {error.strerror}") from error
    raise OptionError(f"the ports {port} to {tried} of {host!r} cannot be used")
