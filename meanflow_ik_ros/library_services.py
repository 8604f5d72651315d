# SPDX-License-Identifier: Apache-2.0
"""The services that rclpy opens with every managed node, with bounds on what they are asked.

rcl writes the text of some requests into the log, however long and often.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from meanflow_ik_core.bounds import MOST_PARAMETERS, short
from meanflow_ik_ros.rare_log import RareLog

if TYPE_CHECKING:
    from rclpy.lifecycle import LifecycleNode

_Answer = Callable[[Any, Any], Any]
_PARAMETERS = ("parameters", "names", "prefixes")
_TYPE_HASH = re.compile(r"RIHS01_[0-9a-f]{64}")


def bound_services(node: LifecycleNode) -> None:
    """Put bounds before the services that the node has so far."""
    log = RareLog(node.get_logger())
    bounds = {
        "ChangeState": partial(with_known_transitions, node._state_machine, log),
        "GetTypeDescription": with_type_hash,
    }
    for service in node.services:
        kind = service.srv_type
        of_parameters = kind.__module__.startswith("rcl_interfaces.")
        bound = with_few_parameters if of_parameters else bounds.get(kind.__name__)
        if bound is not None:
            service.callback = bound(service.callback)


def with_few_parameters(answer: _Answer) -> _Answer:
    """The answers of a service for parameters, without exceptions.

    A request that names too many, or that rclpy cannot read, is answered with the reason where the
    response has a place for it, and with nothing elsewhere; rclpy would leave it without an answer.
    """

    def bounded(request: Any, response: Any) -> Any:
        given = max(len(getattr(request, name, ())) for name in _PARAMETERS)
        reason = f"{given} parameters; {MOST_PARAMETERS} are the most"
        if given <= MOST_PARAMETERS:
            try:
                return answer(request, response)
            except Exception as error:  # of a type of a value that does not exist, for instance
                reason = short(error)
        refused = type(response)()
        if hasattr(getattr(refused, "result", None), "reason"):
            refused.result.reason = reason
        return refused

    return bounded


def with_known_transitions(state_machine: Any, log: RareLog, answer: _Answer) -> _Answer:
    """The answers of the service for transitions; it refuses what the state does not allow."""

    def bounded(request: Any, response: Any) -> Any:
        asked = request.transition.label or request.transition.id
        allowed = {one: True for row in state_machine.available_transitions for one in row[:2]}
        if asked in allowed:
            return answer(request, response)
        _, state = state_machine.current_state
        names = ", ".join(one for one in allowed if isinstance(one, str)) or "none"
        log.warning("~/change_state", f"refused: {state} allows {names}; asked for {asked!r}")
        response.success = False
        return response

    return bounded


def with_type_hash(answer: _Answer) -> _Answer:
    """The answers of the service for descriptions of types; it refuses what is no hash."""

    def bounded(request: Any, response: Any) -> Any:
        if _TYPE_HASH.fullmatch(request.type_hash):
            return answer(request, response)
        response.successful = False
        response.failure_reason = "type_hash is not RIHS01_ and 64 digits of base 16"
        return response

    return bounded
