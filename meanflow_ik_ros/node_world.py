# SPDX-License-Identifier: Apache-2.0
"""The node's world: changed as a whole by messages, and as requests find it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from meanflow_ik_core.errors import WorldError
from meanflow_ik_core.robot.pinocchio_model import PinocchioModel
from meanflow_ik_core.world.inputs import unknown_name
from meanflow_ik_core.world.scene import GRAZE
from meanflow_ik_core.world.world import World
from meanflow_ik_ros.memory import give_memory_back
from meanflow_ik_ros.messages.errors import RequestError, WorldCodes
from meanflow_ik_ros.messages.tips import FrameLookup
from meanflow_ik_ros.messages.world import (
    has_shapes,
    matrix_of_pose,
    object_from_message,
    operation_of,
    places_from_message,
)
from meanflow_ik_ros.messages.world_sizes import check_world_sizes, check_world_total
from meanflow_ik_ros.msg import WorldObject as WorldObjectMessage
from meanflow_ik_ros.whereabouts import Whereabouts
from meanflow_ik_ros.world_objects import WorldObject, WorldObjects

if TYPE_CHECKING:
    from meanflow_ik_core.robot.robot import Robot
    from meanflow_ik_ros.current_state import CurrentState
    from meanflow_ik_ros.parameters import NodeParameters

# rad or m, by which joints that are not solved for may have moved before the world follows: as near
# as solutions come to what they must not touch.
STILL = GRAZE
_LARGE = 100  # obstacles of a world that takes so much memory that it is worth giving back


class NodeWorld:
    """Objects by id around a robot; a change is made on a copy, which is taken if all of it is."""

    def __init__(
        self,
        robot: Robot,
        state: CurrentState,
        frame_lookup: FrameLookup,
        clouds: Collection[str] = (),
    ) -> None:
        """An empty world.

        Args:
            robot: in the middle of it.
            state: where the robot is.
            frame_lookup: says where frames are.
            clouds: names of clouds that will come.
        """
        self.robot = robot
        self.clouds = frozenset(clouds)
        self._changed: Callable[[WorldObjects], Any] | None = None
        self._state, self._lookup = state, frame_lookup
        self._content = WorldObjects(robot)
        self._held = self._content, {}, self._content
        self._bare = World(robot)
        self._kinematics = PinocchioModel(robot)
        self._changing = threading.Lock()

    @property
    def content(self) -> WorldObjects:
        """What there is now; not to be changed."""
        return self._content

    def whereabouts(self) -> Whereabouts:
        """Where frames and joints are, for one message."""
        return Whereabouts(self.robot, self._state, self._lookup, self.placement)

    def placement(self, link: str, frame: str) -> np.ndarray:
        """T_link_frame (4, 4), with joints that are not solved for where they stand now."""
        kinematics = self._kinematics.holding(self.held().world.held())
        T_base_link, T_base_frame = kinematics.link_poses(self._state.q[None], [link, frame])[0]
        return np.linalg.inv(T_base_link) @ T_base_frame

    def joints_elsewhere(self) -> str:
        """Which joints stand elsewhere than the robot's file has them, and where."""
        held = self.held().world.held()
        usual = self._kinematics.held
        return ", ".join(
            f"{name} is at {at:.3g}"
            for name, at in held.items()
            if abs(at - usual.get(name, 0.0)) > STILL
        )

    def change(self, edit: Callable[[WorldObjects], Any], empty: bool = False) -> WorldObjects:
        """Make a change, all of it or nothing.

        Args:
            edit: changes the copy that it is given; may raise anything.
            empty: whether what there was is forgotten first.

        Returns:
            What there is now.
        """
        with self._changing:
            content = self._content.emptied() if empty else self._content.copy()
            edit(content)
            check_world_total(content.world)
            content.decide_by_matrix()
            if len(content.world):
                self._build(content.world)
            was_large = len(self._content.world) > _LARGE
            self._content, self._held = content, (content, {}, content)
            if was_large:  # all pairs of the world before are free by now
                give_memory_back()
            if self._changed is not None:
                self._changed(content)
            return content

    def tell(self, changed: Callable[[WorldObjects], Any] | None) -> None:
        """Call something with the new content after each change, in place of what was called.

        What was is not called any more when this returns; with None nothing is.
        """
        with self._changing:
            self._changed = changed

    def _build(self, world: World) -> None:
        """Build what solves ask, so that none waits for it, and what cannot be built is refused."""
        scene, q = world.snapshot(), self._state.q[None]
        scene.in_collision(q, margin=GRAZE)
        scene.distances().distance(q)
        scene.distances(scene.structure.rigid_to(tuple(range(self.robot.num_tips)))).distance(q)

    def of_request(self, parameters: NodeParameters) -> World | None:
        """The solver's world as a request finds it; None where it is empty.

        Raises:
            RequestError: see `content_of_request`.
        """
        world = self.content_of_request(parameters).world
        return world if len(world) else None

    def without_objects(self) -> World | None:
        """Where joints stand that are not solved for; None: where the robot's file has them."""
        held = self.held().world.held()
        if held != self._bare.held():
            # A copy keeps what is built, and moves it.
            known = held.keys() >= self._bare.held().keys()
            bare = self._bare.copy() if known else World(self.robot)
            bare.hold(held)
            self._bare = bare
        return self._bare if held else None

    def content_of_request(self, parameters: NodeParameters) -> WorldObjects:
        """What there is as a request finds it; not to be changed.

        Raises:
            RequestError: a frame that an object is locked to is not known, a cloud is too old, or
                something of the planning scene could not be taken.
        """
        content = self.held()
        if content.problems:
            code, text = content.problems.summary()
            raise RequestError(code, f"the planning scene: {text}")
        if parameters.cloud_max_age:
            self._check_age(content, parameters)
        locked = list(content.locked())
        if not locked:
            return content
        moved, whereabouts = content.copy(), self.whereabouts()
        for known in locked:
            T_base_frame = whereabouts.frame(f"object {known.id!r}", known.frame)
            moved.move(known, T_base_frame @ known.T_frame_object)
        return moved

    def held(self) -> WorldObjects:
        """What there is now, with joints that are not solved for where joint_states has them.

        What ApplyWorld has said of them counts more.
        """
        content, (known, held, posed) = self._content, self._held
        told = content.world.held()
        heard = {name: at for name, at in self._state.others.items() if name not in told}
        still = known is content and heard.keys() == held.keys()
        if not still or any(abs(at - held[name]) > STILL for name, at in heard.items()):
            posed = content.copy()
            posed.world.hold(heard)
            self._held = content, heard, posed
        return posed

    def _check_age(self, content: WorldObjects, parameters: NodeParameters) -> None:
        for name in parameters.cloud_topics:
            age_s = time.monotonic() - content.clouds.get(name, -np.inf)
            if age_s > parameters.cloud_max_age:
                said = f"is {age_s:.1f} s old" if name in content.clouds else "has never come"
                raise RequestError(
                    WorldCodes.COLLISION_CHECKING_UNAVAILABLE,
                    f"the cloud {name!r} {said}; the node's parameter cloud_max_age is "
                    f"{parameters.cloud_max_age:g} s",
                )

    def apply(self, request: Any) -> WorldObjects:
        """Make the changes of an ApplyWorld request, all of them or nothing.

        Raises:
            RequestError, WorldError: one of them cannot be made.
        """

        check_world_sizes(request)
        whereabouts = self.whereabouts()

        def edit(content: WorldObjects) -> None:
            for message in request.objects:
                self._take_object(content, message, whereabouts)
            for message in request.attached_objects:
                self._take_attached(content, message, whereabouts)
            # An allowed contact takes 3 us for each pair of shapes. So there must not be too many
            # shapes, and what is said again counts once.
            check_world_total(content.world)
            contacts = {(one.link, one.id): one for one in request.allowed_contacts}
            for contact in contacts.values():
                self._take_contact(content, contact)
            self._take_held(content, request.held)

        return self.change(edit, empty=not request.is_diff)

    def _take_object(self, content: WorldObjects, message: Any, whereabouts: Whereabouts) -> None:
        operation = operation_of(message)
        if operation == WorldObjectMessage.ADD:
            self._check_new(content, message.id)
            added = object_from_message(message)
            T_frame_object, T_base_frame = whereabouts.pose(message)
            if getattr(message, "frame_locked", False):
                added = replace(added, frame=message.header.frame_id, T_frame_object=T_frame_object)
            content.add(added, T_base_frame @ T_frame_object)
        elif operation == WorldObjectMessage.REMOVE and not message.id:
            for id in [id for id, known in content.objects.items() if known.link is None]:
                content.remove(id)
        elif operation == WorldObjectMessage.REMOVE:
            self._free(content, message.id)
            content.remove(message.id)
        elif operation == WorldObjectMessage.APPEND:
            self._append(content, message, whereabouts)
        elif operation == WorldObjectMessage.MOVE:
            known = self._free(content, message.id)
            if has_shapes(message):
                raise WorldError(
                    f"MOVE of object {known.id!r} brings shapes; ADD replaces them, "
                    "APPEND adds some"
                )
            T_frame_object, T_base_frame = whereabouts.pose(message)
            places = places_from_message(message, known)
            if places is not None:
                parts = zip(known.parts, places, strict=True)
                known = replace(
                    known, parts=tuple(replace(part, T_object_part=T) for part, T in parts)
                )
            frame = message.header.frame_id if getattr(message, "frame_locked", False) else ""
            moved = replace(known, frame=frame, T_frame_object=T_frame_object)
            content.move(moved, T_base_frame @ T_frame_object)
        else:
            raise WorldError(
                f"operation of object {message.id!r} is {operation}; there are ADD 0, REMOVE 1, "
                "APPEND 2 and MOVE 3"
            )

    def _append(self, content: WorldObjects, message: Any, whereabouts: Whereabouts) -> None:
        known = self._free(content, message.id)
        T_frame_object, T_base_frame = whereabouts.pose(message)
        T_base_object = content.pose(known.id)
        new = object_from_message(message)
        # They stand where the message says, whatever pose the object has by now.
        shift = np.linalg.inv(T_base_object) @ T_base_frame @ T_frame_object
        parts = [replace(part, T_object_part=shift @ part.T_object_part) for part in new.parts]
        meshes = [part for part in (*known.parts, *parts) if part.kind == "mesh"]
        if len({part.arguments["convex"] for part in meshes}) > 1:
            raise WorldError(
                f"APPEND of object {known.id!r} mixes meshes that are convex and such that are not"
            )
        content.append(known, parts)

    def _take_attached(self, content: WorldObjects, message: Any, whereabouts: Whereabouts) -> None:
        inner, link = message.object, message.link_name
        operation = operation_of(inner)
        if operation == WorldObjectMessage.REMOVE:
            for id in self._attached(content, inner.id, link):
                content.detach(id, whereabouts.q("detach", id))
            return
        if operation != WorldObjectMessage.ADD:
            raise WorldError(
                f"operation of attached object {inner.id!r} is {operation}; there are ADD 0 and "
                "REMOVE 1"
            )
        for name in (link, *message.touch_links):
            if name not in self.robot.frames:
                error = unknown_name(name, self.robot.frames, "link")
                raise RequestError(WorldCodes.INVALID_LINK_NAME, str(error))
        if not has_shapes(inner):
            self._free(content, inner.id)
            q = whereabouts.q("attach", inner.id)
            content.attach(inner.id, link, message.touch_links, q)
            return
        self._check_new(content, inner.id)
        added = object_from_message(inner)
        T_link_frame = whereabouts.fixed_to(link, inner.header.frame_id)
        if T_link_frame is not None:
            pose = T_link_frame @ matrix_of_pose(f"object {inner.id!r}", inner.pose)
            content.add(added, pose)
            content.attach(inner.id, link, message.touch_links, T_link_object=pose)
            return
        q = whereabouts.q("attach", inner.id)
        T_frame_object, T_base_frame = whereabouts.pose(inner)
        content.add(added, T_base_frame @ T_frame_object)
        content.attach(inner.id, link, message.touch_links, q)

    def _attached(self, content: WorldObjects, id: str, link: str) -> list[str]:
        """Ids of what a message detaches."""
        attached = {known.id: known.link for known in content.objects.values() if known.link}
        if not id:
            return [one for one, on in attached.items() if link in ("", on)]
        if id not in attached or link not in ("", attached[id]):
            error = unknown_name(id, attached, f"attached object of {link or 'any link'},")
            raise RequestError(WorldCodes.INVALID_OBJECT_NAME, str(error))
        return [id]

    def _take_contact(self, content: WorldObjects, contact: Any) -> None:
        carried = content.objects.get(contact.link)
        if contact.link not in self.robot.frames and (carried is None or not carried.link):
            attached = [known.id for known in content.objects.values() if known.link]
            error = unknown_name(contact.link, [*self.robot.frames, *attached], "link")
            raise RequestError(WorldCodes.INVALID_LINK_NAME, str(error))
        known = contact.id in content.objects or contact.id in self.clouds
        if contact.id != "*" and not known:
            error = unknown_name(contact.id, [*content.objects, *self.clouds], "object")
            raise RequestError(WorldCodes.INVALID_OBJECT_NAME, str(error))
        content.decide(contact.link, contact.id, bool(contact.allowed))

    def _take_held(self, content: WorldObjects, held: Any) -> None:
        if len(held.name) != len(held.position):
            raise RequestError(
                WorldCodes.INVALID_ROBOT_STATE,
                f"held has {len(held.name)} names and {len(held.position)} positions",
            )
        if held.name:
            try:
                content.world.hold(dict(zip(held.name, map(float, held.position), strict=True)))
            except WorldError as error:
                raise RequestError(WorldCodes.INVALID_ROBOT_STATE, str(error)) from error

    def _check_new(self, content: WorldObjects, id: str) -> None:
        """Raise RequestError unless an object of this id may be added, or replaced."""
        problem = None
        if not id or id == "*":
            problem = "must be text, not empty and not '*'"
        elif id in self.robot.frames:
            problem = f"is a link of {self.robot.name!r}"
        elif id in self.clouds:
            problem = "is a cloud of a topic"
        elif id in content.objects and content.objects[id].link:
            problem = f"is attached to {content.objects[id].link!r}; detach it first"
        elif id in content.world and id not in content.objects:
            problem = "is a part of another object"
        if problem:
            raise RequestError(WorldCodes.INVALID_OBJECT_NAME, f"the id {id!r} {problem}")

    def _free(self, content: WorldObjects, id: str) -> WorldObject:
        """The object of this id; RequestError unless it exists and is not attached."""
        if id not in content.objects:
            error = unknown_name(id, content.objects, "object")
            raise RequestError(WorldCodes.INVALID_OBJECT_NAME, str(error))
        self._check_new(content, id)
        return content.objects[id]
