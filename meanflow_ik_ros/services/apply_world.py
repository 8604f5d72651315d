# SPDX-License-Identifier: Apache-2.0
"""Changes of the node's world, all of a request or nothing of it."""

from __future__ import annotations

from functools import partial

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
        answered.names = [*desk.world.content.objects, *desk.world.content.clouds]
    return answered
