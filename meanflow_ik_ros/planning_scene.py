# SPDX-License-Identifier: Apache-2.0
"""MoveIt's planning scene in the node's world: its messages do there what they do in MoveIt.

A message is taken object by object. What cannot be taken is remembered as a problem: until that
object is taken or removed, or all of the scene comes, requests that avoid the world are refused.
moveit_msgs is optional: all works through the fields of the messages.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from meanflow_ik_core.bounds import short
from meanflow_ik_core.errors import IKError, RobotError
from meanflow_ik_core.world.scene import own_check
from meanflow_ik_ros.messages.errors import RequestError, WorldCodes, error_code_of
from meanflow_ik_ros.messages.world_sizes import (
    check_object_sizes,
    check_planning_world_sizes,
    check_scene_sizes,
)
from meanflow_ik_ros.rare_log import WARN_EVERY_S, trace
from meanflow_ik_ros.scene_change import SceneChange
from meanflow_ik_ros.scene_problems import SceneProblems
from meanflow_ik_ros.world_objects import WorldObjects

if TYPE_CHECKING:
    from meanflow_ik_ros.node_world import NodeWorld

_NAMED = 5  # pairs or links that a line of the log names at most


class PlanningScene:
    """Takes messages; whatever is wrong with them, no method raises."""

    def __init__(self, world: NodeWorld, logger: Any) -> None:
        """The scene is empty until messages come.

        Args:
            world: that the scene is part of.
            logger: of the node, which is told once of each kind of thing that is not honoured.
        """
        self._world, self._logger = world, logger
        self._said: set[str] = set()

    @property
    def problems(self) -> SceneProblems:
        """What is not known of the scene now, and why; not to be changed."""
        return self._world.content.problems

    def take_scene(self, scene: Any) -> None:
        """A PlanningScene: changes of the scene, or all of it."""
        state, world = scene.robot_state, scene.world
        matrix = scene.allowed_collision_matrix

        def take(change: SceneChange) -> None:
            if anew:
                change.clear(attached=True)
            for message in state.attached_collision_objects:
                change.take_attached(message)
            if not scene.is_diff or matrix.entry_names:
                change.take_matrix(matrix)
            if not scene.is_diff:
                change.clear(attached=False)
            for message in world.collision_objects:
                change.take_object(message)
            if not scene.is_diff or world.octomap.octomap.id:
                change.take_octomap(world.octomap)

        # As in MoveIt, a state of joints that is no change has no attached objects but its own.
        joints = state.joint_state.name or state.multi_dof_joint_state.joint_names
        anew = not state.is_diff and bool(joints or not scene.is_diff)
        changes = (state.attached_collision_objects, matrix.entry_names, world.collision_objects)
        if scene.is_diff and not (anew or any(changes) or world.octomap.octomap.id):
            return  # it says where the joints are, often
        if self._change(lambda: check_scene_sizes(scene), take, whole=not scene.is_diff):
            self._say_of_links(scene)

    def take_world(self, world: Any) -> None:
        """A PlanningSceneWorld: all objects that are not attached, and the octomap."""

        def take(change: SceneChange) -> None:
            change.clear(attached=False)
            for message in world.collision_objects:
                change.take_object(message)
            change.take_octomap(world.octomap)

        self._change(lambda: check_planning_world_sizes(world), take)

    def take_object(self, message: Any) -> None:
        """A CollisionObject."""
        self._change(
            lambda: check_object_sizes([message]), lambda change: change.take_object(message)
        )

    def take_attached(self, message: Any) -> None:
        """An AttachedCollisionObject."""
        self._change(
            lambda: check_object_sizes([], [message]), lambda change: change.take_attached(message)
        )

    def _change(
        self, check: Callable[[], None], take: Callable[[SceneChange], None], whole: bool = False
    ) -> bool:
        """Make the changes of a message; whether any of it could be taken."""

        def edit(content: WorldObjects) -> None:
            if whole:
                content.problems.clear()
            change = SceneChange(content, self._world.whereabouts(), self._world.clouds)
            take(change)
            if change.has_subframes:
                self._say("subframes of objects are not known here")

        try:
            check()
            self._world.change(edit)
        except Exception as error:
            if not isinstance(error, IKError):
                self._logger.error(f"planning scene: {trace()}", throttle_duration_sec=WARN_EVERY_S)
                error = RequestError(WorldCodes.FAILURE, f"{type(error).__name__}: {short(error)}")
            problem = "message", "", error_code_of(error), error
            self._world.change(lambda content: content.problems.add(*problem))
            return False
        return True

    def _say_of_links(self, scene: Any) -> None:
        """Tell what a scene says of the robot's links that the world cannot be told."""
        padded = [one.link_name for one in scene.link_padding if one.padding > 0]
        padded += [one.link_name for one in scene.link_scale if one.scale != 1]
        if padded:
            self._say(
                f"link_padding and link_scale of {_listed(padded)} are not honoured; `padding` in "
                "the robot's file is"
            )
        matrix = self._world.content.matrix
        if matrix is None or not len(scene.allowed_collision_matrix.entry_names):
            return
        try:
            own = own_check(self._world.robot, {})
        except RobotError:
            return  # without shapes nothing is checked
        stricter = [
            f"{a} and {b}" for a, b in own.pairs() if matrix.knows({a, b}) and matrix.allows(a, b)
        ]
        if stricter:
            self._say(
                f"the matrix of allowed collisions lets {_listed(stricter)} touch; they are "
                "checked here all the same, unless the robot's file has them in ignore_collisions"
            )

    def _say(self, text: str) -> None:
        if text not in self._said and len(self._said) < _NAMED:
            self._said.add(text)
            self._logger.warning(f"planning scene: {short(text)} (said once)")


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
