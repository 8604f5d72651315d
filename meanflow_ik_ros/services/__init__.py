# SPDX-License-Identifier: Apache-2.0
"""What the node is asked: each module holds one service, in its function ``service(desk)``."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple


class Service(NamedTuple):
    """A service as the node opens it.

    name: relative to the node, with its ~.
    answer: takes a request and an empty response, returns the response; never raises.
    """

    kind: type
    name: str
    answer: Callable[[Any, Any], Any]


def services_of(desk: Any) -> Iterator[Service]:
    """The service of each module, but for those that say None because they cannot be served."""
    for module in pkgutil.iter_modules(__path__):
        service = importlib.import_module(f"{__name__}.{module.name}").service(desk)
        if service is not None:
            yield service
