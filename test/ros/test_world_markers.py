# SPDX-License-Identifier: Apache-2.0
"""What ~/world_markers shows of each kind of object, and who hears of it when."""

import numpy as np
import pytest
from hostile_meshes import hostile_mesh
from meanflow_ik_ros.msg import AllowedContact, AttachedWorldObject, WorldObject
from meanflow_ik_ros.srv import ApplyWorld
from ros_user import LATCHED, Q, User
from sensor_msgs.msg import JointState
from shape_msgs.msg import Plane, SolidPrimitive
from visualization_msgs.msg import Marker, MarkerArray
from world_messages import box, mesh, pose_at, tetrahedron

from meanflow_ik_core.bounds import MOST_SHOWN_TRIANGLES
from meanflow_ik_ros.current_state import CurrentState
from meanflow_ik_ros.markers.world_markers import ALLOWED, ATTACHED, FREE, SOLID, world_markers
from meanflow_ik_ros.node_world import NodeWorld
from meanflow_ik_ros.topics.world_markers import WorldMarkersTopic


@pytest.fixture(scope="module")
def shown(panda) -> dict[tuple[str, int], Marker]:
    """Markers by namespace and id, of a world with one of each."""
    state = CurrentState(panda, None)
    state.receive(JointState(name=list(panda.joint_names), position=Q.tolist()))
    world = NodeWorld(panda, state, lambda frame, stamp: np.eye(4))
    many = WorldObject(id="many", pose=pose_at(1, 0, 0))
    many.primitives = [
        SolidPrimitive(type=SolidPrimitive.SPHERE, dimensions=[0.1]),
        SolidPrimitive(type=SolidPrimitive.CYLINDER, dimensions=[0.4, 0.05]),
        SolidPrimitive(type=SolidPrimitive.CONE, dimensions=[0.3, 0.06]),
    ]
    many.meshes = [tetrahedron(0.1)]
    many.planes = [Plane(coef=[0.0, 0.0, 1.0, 0.5])]
    can = box("can", (0.1, 0.2, 0.3), (0, 0, 0.1), "panda_hand")
    world.apply(
        ApplyWorld.Request(
            objects=[
                many,
                box("cart", (1, 1, 1), (0, 2, 0), "cart", frame_locked=True),
                box("goal", (1, 1, 1), (0, 3, 0)),
            ],
            attached_objects=[AttachedWorldObject(link_name="panda_hand", object=can)],
            allowed_contacts=[AllowedContact(link="panda_hand", id="goal")],
        )
    )
    first, *others = world_markers(world.content).markers
    assert first.action == Marker.DELETEALL
    return {(marker.ns, marker.id): marker for marker in others}


def size(marker) -> tuple:
    return marker.scale.x, marker.scale.y, marker.scale.z


def test_each_shape_has_its_kind_and_size(shown):
    sphere, cylinder, cone, mesh, plane = (shown["many", index] for index in range(5))
    assert (sphere.type, size(sphere)) == (Marker.SPHERE, (0.2, 0.2, 0.2))
    assert (cylinder.type, size(cylinder)) == (Marker.CYLINDER, (0.1, 0.1, 0.4))
    assert cone.type == mesh.type == Marker.TRIANGLE_LIST and len(mesh.points) == 12
    heights = [point.z for point in cone.points]
    assert (min(heights), max(heights)) == (-0.15, 0.15)
    assert max(np.hypot(point.x, point.y) for point in cone.points) == pytest.approx(0.06)
    assert plane.type == Marker.CUBE and plane.pose.position.z + plane.scale.z / 2 == -0.5


def test_objects_are_shown_in_the_frame_that_they_move_with(shown):
    assert shown["many", 0].header.frame_id == "panda_link0"
    assert shown["many", 0].pose.position.x == 1.0
    assert (shown["cart", 0].header.frame_id, shown["cart", 0].pose.position.y) == ("cart", 2.0)
    assert shown["can", 0].header.frame_id == "panda_hand"
    assert shown["can", 0].pose.position.z == pytest.approx(0.1)
    assert all(marker.frame_locked for marker in shown.values())


def test_what_is_attached_or_may_be_touched_looks_different(shown):
    def look(name):
        colour = shown[name, 0].color
        return pytest.approx((colour.r, colour.g, colour.b, colour.a))

    assert look("many") == (*FREE, SOLID)
    assert look("can") == (*ATTACHED, SOLID)
    assert look("goal") == (*FREE, ALLOWED)


def test_meshes_are_shown_as_boxes_where_they_have_too_many_triangles(panda):
    world = NodeWorld(panda, CurrentState(panda, None), lambda frame, stamp: np.eye(4))
    corners, triangles = hostile_mesh("fan", MOST_SHOWN_TRIANGLES - 10)
    disk = mesh(corners + np.array((0.5, 0, 3)), triangles)
    objects = [
        WorldObject(id=id, meshes=[disk], pose=pose_at(1, 0, 0)) for id in ("first", "second")
    ]
    objects.append(WorldObject(id="third", meshes=[tetrahedron(0.1)], pose=pose_at(1, 0, 3)))
    world.apply(ApplyWorld.Request(objects=objects))
    first, second, third = world_markers(world.content).markers[1:]
    assert len(first.points) == 3 * len(triangles) and len(second.points) == 0
    assert third.type == Marker.TRIANGLE_LIST
    assert second.type == Marker.CUBE and size(second) == pytest.approx((1, 1, 1e-3), abs=1e-3)
    place = second.pose.position
    assert (place.x, place.y, place.z) == pytest.approx((1.5, 0, 3), abs=1e-3)


def test_a_change_after_the_topic_is_closed_is_made(running):
    world = running.desk.world
    told = world._changed  # the node's own topic, which goes on
    WorldMarkersTopic(running.desk).close()
    try:
        world.apply(ApplyWorld.Request(objects=[box("table", (1, 1, 1), (0, 2, 0))]))
        assert list(world.content.objects) == ["table"]
    finally:
        world.tell(told)
    world.apply(ApplyWorld.Request())


def test_a_viewer_that_comes_later_is_shown_the_world(running):
    request = ApplyWorld.Request(objects=[box("table", (1, 1, 1), (0, 2, 0))])
    running.desk.world.apply(request)
    viewer = User({"world_markers": (MarkerArray, LATCHED)})
    try:
        heard = viewer.heard["world_markers"]
        viewer.wait(lambda: bool(heard), "the world")
        assert [marker.ns for marker in heard[-1].markers[1:]] == ["table"]
        running.desk.world.apply(ApplyWorld.Request())
        viewer.wait(lambda: len(heard[-1].markers) == 1, "the empty world")
    finally:
        viewer.close()
