# SPDX-License-Identifier: Apache-2.0
"""What a message of MoveIt's planning scene changes in the objects of a world."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from meanflow_ik_core.errors import IKError, WorldError
from meanflow_ik_core.world.inputs import unknown_name
from meanflow_ik_ros.messages.errors import RequestError, WorldCodes, error_code_of
from meanflow_ik_ros.messages.scene import cells_from_octomap, matrix_from_message
from meanflow_ik_ros.messages.world import (
    has_shapes,
    matrix_of_pose,
    object_from_message,
    operation_of,
    places_from_message,
)
from meanflow_ik_ros.msg import WorldObject as WorldObjectMessage
from meanflow_ik_ros.world_objects import OCTOMAP, WorldObject, WorldObjects

if TYPE_CHECKING:
    from meanflow_ik_core.robot.robot import Robot
    from meanflow_ik_ros.whereabouts import Whereabouts

ADD, REMOVE = WorldObjectMessage.ADD, WorldObjectMessage.REMOVE
APPEND, MOVE = WorldObjectMessage.APPEND, WorldObjectMessage.MOVE


class SceneChange:
    """Makes the changes of one message in the content of a world.

    has_subframes: whether an object had some.
    """

    def __init__(
        self, content: WorldObjects, whereabouts: Whereabouts, clouds: frozenset[str]
    ) -> None:
        """Nothing is changed yet.

        Args:
            content: that is changed.
            whereabouts: of frames and joints.
            clouds: names of clouds, which objects cannot have.
        """
        self._content, self._where, self._clouds = content, whereabouts, clouds
        self._robot: Robot = content.world.robot
        self.has_subframes = self._hinted = False

    def clear(self, attached: bool) -> None:
        """Remove all objects of the scene that are attached, or all that are not."""
        for id, known in list(self._content.objects.items()):
            if known.of_scene and (known.link is not None) == attached:
                self._content.remove(id)
        self._forget("attached object" if attached else "object")

    def take_matrix(self, message: Any) -> None:
        """Replace the matrix of allowed collisions."""
        with self._attempt("matrix", ""):
            self._content.matrix = matrix_from_message(message)

    def take_octomap(self, message: Any) -> None:
        """Replace the octomap of an OctomapWithPose."""
        content, tree = self._content, message.octomap
        with self._attempt("octomap", ""):
            if not len(tree.data):
                content.remove_cloud(OCTOMAP)
                return
            cells = cells_from_octomap(tree)
            header = message.header
            T_base_frame = self._where.frame("the octomap", header.frame_id, header.stamp)
            pose = T_base_frame @ matrix_of_pose("the octomap", message.origin)
            content.set_cloud(OCTOMAP, cells, float(tree.resolution), time.monotonic(), pose)

    def take_object(self, message: Any) -> None:
        """Make the change of a CollisionObject."""
        content, id, operation = self._content, message.id, operation_of(message)
        with self._attempt("object", id):
            known = content.objects.get(id)
            if operation == REMOVE:
                self._remove(id)
                return
            self._check_id(id)
            if known is not None and known.link:
                raise RequestError(
                    WorldCodes.INVALID_OBJECT_NAME,
                    f"object {id!r} is attached to {known.link!r}; no other can have its id",
                )
            if operation == MOVE:
                self._move(message)
            elif operation == APPEND and known is not None:
                # As in MoveIt, shapes are placed in the object that there is.
                content.append(replace(known, of_scene=True), self._object(message)[0].parts)
            elif operation in (ADD, APPEND):
                added, T_frame_object = self._object(message)
                pose = self._where.frame_of(message) @ T_frame_object
                if known is not None and added.has_shapes_of(known):
                    content.move(added, pose)
                else:
                    content.add(added, pose)
            else:
                raise _unknown_operation(f"object {id!r}", operation)

    def take_attached(self, message: Any) -> None:
        """Make the change of an AttachedCollisionObject."""
        content, inner, operation = self._content, message.object, operation_of(message.object)
        id, link = inner.id, message.link_name
        with self._attempt("attached object", id):
            if operation == REMOVE:
                self._detach(id, link)
                return
            if operation not in (ADD, APPEND):
                raise _unknown_operation(f"attached object {id!r}", operation)
            self._check_id(id)
            if link not in self._robot.frames:
                error = self._unknown(link, self._robot.frames, "link")
                raise RequestError(WorldCodes.INVALID_LINK_NAME, f"object {id!r}: {error}")
            self._attach(message, [one for one in message.touch_links if one in self._robot.frames])
            content.problems.drop("object", id)

    def _attach(self, message: Any, touching: list[str]) -> None:
        content, inner, link = self._content, message.object, message.link_name
        id, known = inner.id, content.objects.get(inner.id)
        if not has_shapes(inner):
            if known is None:
                error = self._unknown(id, content.objects, "object")
                raise RequestError(WorldCodes.INVALID_OBJECT_NAME, str(error))
            if known.link != link:
                if known.link:
                    content.detach(id, self._where.q("attach", id))
                content.attach(id, link, touching, self._where.q("attach", id))
            return
        added, T_frame_object = self._object(inner)
        T_link_frame = self._where.fixed_to(link, inner.header.frame_id)
        q = None if T_link_frame is not None else self._where.q("attach", id)
        pose = (T_link_frame if q is None else self._where.frame_of(inner)) @ T_frame_object
        if known is not None and known.link and operation_of(inner) == APPEND:
            added = replace(added, parts=(*added.parts, *known.parts))
            touching = sorted({*touching, *known.touch_links})
            if _is_empty(inner.pose):
                pose, q = content.pose(id), None
        content.add(added, pose)
        content.attach(id, link, touching, q, None if q is not None else pose)

    def _detach(self, id: str, link: str) -> None:
        """Leave what is attached in the world where it is; what is not need not be detached."""
        for one, known in list(self._content.objects.items()):
            if known.of_scene and known.link and id in ("", one) and link in ("", known.link):
                self._content.detach(one, self._where.q("detach", one))
        if not id and not link:
            self._forget("attached object")

    def _move(self, message: Any) -> None:
        known = self._content.objects.get(message.id)
        if known is None:
            error = self._unknown(message.id, self._content.objects, "object")
            raise RequestError(WorldCodes.INVALID_OBJECT_NAME, str(error))
        places = places_from_message(message, known)
        if places is not None:
            parts = zip(known.parts, places, strict=True)
            known = replace(known, parts=tuple(replace(p, T_object_part=T) for p, T in parts))
        T_frame_object = matrix_of_pose(f"object {message.id!r}", message.pose)
        pose = self._where.frame_of(message) @ T_frame_object
        self._content.move(replace(known, frame="", of_scene=True), pose)

    def _remove(self, id: str) -> None:
        """What is not there need not be removed; what is attached stays, as in MoveIt."""
        content = self._content
        for one, known in list(content.objects.items()):
            if id in ("", one) and known.of_scene and not known.link:
                content.remove(one)
                if content.matrix is not None:
                    content.matrix = content.matrix.without(one)
        if not id:
            self._forget("object")

    def _forget(self, kind: str) -> None:
        """Drop the problems of a kind: there is nothing of it any more."""
        self._content.problems.forget(kind)

    def _object(self, message: Any) -> tuple[WorldObject, np.ndarray]:
        """The object of a message, and T_frame_object (4, 4)."""
        self.has_subframes |= bool(len(message.subframe_names))
        added = replace(object_from_message(message), of_scene=True)
        T_frame_object = matrix_of_pose(f"object {message.id!r}", message.pose)
        if len(added.parts) == 1 and _is_empty(message.pose):
            # As in MoveIt, the pose of the only shape is then that of the object.
            T_frame_object = added.parts[0].T_object_part
            added = replace(added, parts=(replace(added.parts[0], T_object_part=np.eye(4)),))
        return added, T_frame_object

    def _unknown(self, name: str, names: Iterable[str], what: str) -> WorldError:
        """The error about a name; a message pays for one hint alone, however many are wrong."""
        first, self._hinted = not self._hinted, True
        return unknown_name(name, names, what, with_hint=first)

    def _check_id(self, id: str) -> None:
        problem = None
        if not id or id in ("*", OCTOMAP):
            problem = f"must be text, not empty, '*' or {OCTOMAP!r}"
        elif id in self._robot.frames:
            problem = f"is a link of {self._robot.name!r}"
        elif id in self._clouds:
            problem = "is a cloud of a topic"
        if problem:
            raise RequestError(WorldCodes.INVALID_OBJECT_NAME, f"the id {id!r} {problem}")

    @contextmanager
    def _attempt(self, kind: str, id: str) -> Iterator[None]:
        """Changes that are all made, or none and a problem is kept."""
        try:
            with self._content.whole():
                yield
        except IKError as error:
            self._content.problems.add(kind, id, error_code_of(error), error)
        else:
            self._content.problems.drop(kind, id)


def _is_empty(pose: Any) -> bool:
    at, turn = pose.position, pose.orientation
    return (at.x, at.y, at.z, turn.x, turn.y, turn.z, turn.w) == (0, 0, 0, 0, 0, 0, 1)


def _unknown_operation(what: str, operation: int) -> WorldError:
    return WorldError(f"operation of {what} is {operation}, which is not known")
