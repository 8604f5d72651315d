# SPDX-License-Identifier: Apache-2.0
"""How large a message about the world may be, before it is converted; and the world after it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from meanflow_ik_core.bounds import (
    MOST_ATTACHED,
    MOST_ATTACHED_PAIRS,
    MOST_CONTACTS,
    MOST_GRID_POINTS,
    MOST_HULL_CORNERS,
    MOST_JOINT_NAMES,
    MOST_MATRIX_NAMES,
    MOST_MESSAGE_CORNERS,
    MOST_NAME,
    MOST_OCTOMAP_BYTES,
    MOST_SHAPES,
    MOST_WORK_MS,
    MOST_WORLD_CORNERS,
)
from meanflow_ik_core.collision.obstacle_arrays import count_grid_points, grid_ms
from meanflow_ik_core.collision.sphere_bodies import fitting_ms
from meanflow_ik_ros.messages.errors import RequestError, WorldCodes
from meanflow_ik_ros.messages.sizes import check_frame, check_joint_state, check_texts

if TYPE_CHECKING:
    from meanflow_ik_core.world.world import World

# That each shape takes, and each pair of an attached one with another.
_SHAPE_MS, _PAIR_MS = 0.5, 0.01
_SHAPES = ("primitives", "meshes", "planes")
_POSES = ("primitive_poses", "mesh_poses", "plane_poses")


def check_world_sizes(request: Any) -> None:
    """Refuse an ApplyWorld request that is too large.

    Raises:
        RequestError: with the code and message of the answer.
    """
    check_object_sizes(request.objects, request.attached_objects)
    contacts, most = request.allowed_contacts, MOST_CONTACTS
    _check_count("allowed_contacts", len(contacts), most)
    links, ids = [contact.link for contact in contacts], [contact.id for contact in contacts]
    check_texts("allowed_contacts.link", links, most, MOST_NAME, WorldCodes.INVALID_LINK_NAME)
    check_texts("allowed_contacts.id", ids, most, MOST_NAME, WorldCodes.INVALID_OBJECT_NAME)
    check_joint_state("held", request.held)


def check_scene_sizes(scene: Any) -> None:
    """Refuse a PlanningScene of MoveIt that is too large; see `check_world_sizes`."""
    check_planning_world_sizes(scene.world, scene.robot_state.attached_collision_objects)
    matrix = scene.allowed_collision_matrix
    for name in ("entry_names", "default_entry_names"):
        check_texts(
            name, getattr(matrix, name), MOST_MATRIX_NAMES, MOST_NAME, WorldCodes.INVALID_LINK_NAME
        )
    rows = matrix.entry_values
    _check_count("entry_values", len(rows), MOST_MATRIX_NAMES)
    _check_count(
        "entries of the matrix", sum(len(row.enabled) for row in rows), MOST_MATRIX_NAMES**2
    )


def check_planning_world_sizes(world: Any, attached: Sequence[Any] = ()) -> None:
    """Refuse a PlanningSceneWorld of MoveIt that is too large; see `check_world_sizes`."""
    check_object_sizes(world.collision_objects, attached)
    check_frame(world.octomap.header)
    _check_count("bytes of the octomap", len(world.octomap.octomap.data), MOST_OCTOMAP_BYTES)


def check_object_sizes(objects: Sequence[Any], attached: Sequence[Any] = ()) -> None:
    """Refuse objects, and attached ones, that are too many or have too much; as above."""
    _check_count("objects", len(objects) + len(attached), MOST_SHAPES)
    for one in attached:
        links = [one.link_name, *one.touch_links[: MOST_JOINT_NAMES + 1]]
        check_texts("touch_links", links, MOST_JOINT_NAMES, MOST_NAME, WorldCodes.INVALID_LINK_NAME)
    everything = [*objects, *(one.object for one in attached)]
    ids = [one.id for one in everything]
    check_texts("id", ids, MOST_SHAPES, MOST_NAME, WorldCodes.INVALID_OBJECT_NAME)
    for one in everything:
        check_frame(one.header)
    for names in (_SHAPES, _POSES):
        count = sum(len(getattr(one, name)) for one in everything for name in names)
        _check_count("shapes" if names is _SHAPES else "poses of shapes", count, MOST_SHAPES)
    meshes = [mesh for one in everything for mesh in one.meshes]
    _check_count("vertices", _total(mesh.vertices for mesh in meshes), MOST_MESSAGE_CORNERS)
    _check_count("triangles", _total(mesh.triangles for mesh in meshes), MOST_MESSAGE_CORNERS)
    convex = [one for one in everything if getattr(one, "convex", False)]  # MoveIt has none
    solid = _total(mesh.vertices for one in convex for mesh in one.meshes)
    _check_count("vertices of convex meshes", solid, MOST_HULL_CORNERS)


def check_world_total(world: World) -> None:
    """Refuse a world that has become too large, before anything is built of it.

    Raises:
        RequestError: with the code and message of the answer.
    """
    obstacles = [world.obstacle(name) for name in world.names()]
    _check_count("shapes", len(obstacles), MOST_SHAPES)
    attached = [one.shape for one in obstacles if one.link]
    _check_count("attached shapes", len(attached), MOST_ATTACHED)
    what = "pairs of attached shapes with all"
    _check_count(what, len(attached) * len(obstacles), MOST_ATTACHED_PAIRS)
    meshes = [one.shape for one in obstacles if one.shape.kind == "mesh"]
    for name in ("vertices", "triangles"):
        count = _total(getattr(mesh, name) for mesh in meshes)
        _check_count(f"{name} in the world", count, MOST_WORLD_CORNERS)
    fixed = {one.shape for one in obstacles if not one.link}
    what = "points of grids around meshes and clouds"
    _check_count(what, sum(map(count_grid_points, fixed)), MOST_GRID_POINTS)
    work = sum(map(grid_ms, fixed)) + sum(map(fitting_ms, attached))
    work += round((_SHAPE_MS + _PAIR_MS * len(attached)) * len(obstacles))
    _check_count("ms of work for one message", work, MOST_WORK_MS)


def _total(lists: Iterable[Sequence[Any]]) -> int:
    return sum(len(one) for one in lists)


def _check_count(what: str, count: int, most: int) -> None:
    if count > most:
        raise RequestError(
            WorldCodes.COLLISION_CHECKING_UNAVAILABLE,
            f"{count} {what}; {most} are the most",
        )
