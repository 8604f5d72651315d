# SPDX-License-Identifier: Apache-2.0
"""What the node is asked: each module holds one service, in its function ``service(desk)``."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import replace
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


def query_in_world(desk: Any, request: Any, parameters: Any, query_from_request: Any) -> Any:
    """The query that a function makes of a request, in the world that the request wants avoided.

    Raises:
        RequestError: with the code and message of the answer.
    """
    query = query_from_request(
        request, desk.robot, parameters, desk.T_base_frame, desk.current_state.q
    )
    return replace(
        query, world=desk.obstacles(request.avoid_world, query.avoid_self_collision, parameters)
    )
