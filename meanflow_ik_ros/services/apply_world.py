# SPDX-License-Identifier: Apache-2.0
"""Changes of the node's world, all of a request or nothing of it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import accumulate

from meanflow_ik_core.bounds import MOST_LISTED_BYTES
from meanflow_ik_ros.desk import Desk
from meanflow_ik_ros.messages.errors import WorldCodes
from meanflow_ik_ros.services import Service
from meanflow_ik_ros.srv import ApplyWorld

NAME = "~/apply_world"


def service(desk: Desk) -> Service:
    return Service(ApplyWorld, NAME, partial(answer, desk))


def answer(
    desk: Desk, request: ApplyWorld.Request, response: ApplyWorld.Response
) -> ApplyWorld.Response:
    """The service; whatever goes wrong is an answer, which names what there is all the same."""

    def respond(started: float) -> ApplyWorld.Response:
        desk.world.apply(request)
        return ApplyWorld.Response(error_code=WorldCodes.SUCCESS)

    answered = desk.attempt(NAME, respond, response)
    if desk.configured:
        names = [*desk.world.content.objects, *desk.world.content.clouds]
        refused = answered.error_code != WorldCodes.SUCCESS
        answered.names = _first(names) if refused else names
    return answered


def _first(names: Sequence[str]) -> list[str]:
    """As many of the names as an answer lists that refuses."""
    # each with its length, its end, and what makes it a multiple of four
    ends = accumulate(len(name.encode(errors="replace")) + 8 for name in names)
    return [name for name, end in zip(names, ends, strict=True) if end <= MOST_LISTED_BYTES]
