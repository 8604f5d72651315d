# SPDX-License-Identifier: Apache-2.0
"""The node's world as messages that make the same one."""

from __future__ import annotations

from functools import partial

from meanflow_ik_ros.desk import Desk
from meanflow_ik_ros.messages.errors import WorldCodes
from meanflow_ik_ros.messages.world import (
    contacts_from_objects,
    held_from_objects,
    messages_from_objects,
)
from meanflow_ik_ros.services import Service
from meanflow_ik_ros.srv import GetWorld

NAME = "~/get_world"


def service(desk: Desk) -> Service:
    return Service(GetWorld, NAME, partial(answer, desk))


def answer(desk: Desk, request: GetWorld.Request, response: GetWorld.Response) -> GetWorld.Response:
    """The service; whatever goes wrong is an answer."""

    def respond(started: float) -> GetWorld.Response:
        content = desk.world.content
        objects, attached_objects = messages_from_objects(content)
        return GetWorld.Response(
            error_code=WorldCodes.SUCCESS,
            objects=objects,
            attached_objects=attached_objects,
            allowed_contacts=contacts_from_objects(content),
            held=held_from_objects(content),
            clouds=list(content.clouds),
        )

    return desk.attempt(NAME, respond, response)
