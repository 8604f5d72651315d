# SPDX-License-Identifier: Apache-2.0
"""The node's world as messages change it: all of a message or nothing, objects in frames, codes."""

import time

import numpy as np
import pytest
from hostile_meshes import hostile_mesh
from meanflow_ik_ros.msg import AllowedContact, AttachedWorldObject, WorldObject
from meanflow_ik_ros.srv import ApplyWorld
from oracles import Judge
from ros_user import Q
from sensor_msgs.msg import JointState
from shape_msgs.msg import Plane, SolidPrimitive
from world_messages import box, mesh, pose_at, tetrahedron

import meanflow_ik_core as mik
from meanflow_ik_core.bounds import (
    MOST_ATTACHED,
    MOST_ATTACHED_PAIRS,
    MOST_CHANGES,
    MOST_CONTACTS,
    MOST_GRID_POINTS,
    MOST_HULL_CORNERS,
    MOST_MESSAGE,
    MOST_MESSAGE_CORNERS,
    MOST_SHAPES,
    MOST_WORK_MS,
    MOST_WORLD_CORNERS,
)
from meanflow_ik_core.geometry import matrix_from_rpy
from meanflow_ik_ros.current_state import CurrentState
from meanflow_ik_ros.messages.errors import FrameError, RequestError, error_code_of
from meanflow_ik_ros.messages.world import (
    contacts_from_objects,
    held_from_objects,
    messages_from_objects,
)
from meanflow_ik_ros.node_world import NodeWorld
from meanflow_ik_ros.parameters import NodeParameters

Codes = ApplyWorld.Response
FINGERS = ["panda_leftfinger", "panda_rightfinger"]


class Surroundings:
    """A world, what TF knows, and where the robot is."""

    def __init__(self, robot, heard=True):
        self.frames = {robot.base: np.eye(4)}
        self.state = CurrentState(robot, None)
        if heard:
            self.state.receive(JointState(name=list(robot.joint_names), position=Q.tolist()))
        self.world = NodeWorld(robot, self.state, self.lookup)

    def lookup(self, frame_id, stamp):
        if frame_id not in self.frames:
            raise FrameError(f"no frame {frame_id!r}")
        return self.frames[frame_id]

    def apply(self, *objects, is_diff=True, attached=(), allowed=(), held=None):
        request = ApplyWorld.Request(
            objects=list(objects), attached_objects=list(attached),
            allowed_contacts=list(allowed), is_diff=is_diff, held=held or JointState(),
        )  # fmt: skip
        return self.world.apply(request)

    def asked(self):
        """The solver's world as a request finds it."""
        return self.world.of_request(NodeParameters())

    def poses(self):
        """T_base_obstacle, or T_link_obstacle, by name in the solver's world."""
        world = self.asked()
        return {} if world is None else {name: world.obstacle(name).pose for name in world.names()}


@pytest.fixture
def around(panda):
    return Surroundings(panda)


def refused(around, *objects, **fields) -> tuple[int, str]:
    """Code and message of a request that must change nothing."""
    before = around.world.content
    with pytest.raises(mik.IKError) as error:
        around.apply(*objects, **fields)
    assert around.world.content is before
    return error_code_of(error.value), str(error.value)


def test_every_shape_stands_where_its_message_says(around):
    T_base_shelf = np.eye(4)
    T_base_shelf[:3, :3], T_base_shelf[:3, 3] = matrix_from_rpy((0.1, 0.2, 0.3)), (1.0, 0.0, 0.5)
    around.frames["shelf"] = T_base_shelf
    message = WorldObject(id="things", pose=pose_at(0.0, 0.0, 0.1, 0.6, 0.0, 0.0, 0.8))
    message.header.frame_id = "shelf"
    message.primitives = [
        SolidPrimitive(type=SolidPrimitive.SPHERE, dimensions=[0.1]),
        SolidPrimitive(type=SolidPrimitive.CYLINDER, dimensions=[0.4, 0.05]),
        SolidPrimitive(type=SolidPrimitive.CONE, dimensions=[0.3, 0.06]),
    ]
    message.primitive_poses = [pose_at(0.1, 0.0, 0.0), pose_at(0.0, 0.2, 0.0)]
    message.meshes, message.mesh_poses = [tetrahedron(0.1)], [pose_at(0.0, 0.0, 0.3)]
    message.planes = [Plane(coef=[0.0, 0.0, 2.0, 4.0])]
    around.apply(message)

    T_object = np.eye(4)
    T_object[:3, :3] = matrix_from_rpy((2 * np.arctan2(0.6, 0.8), 0.0, 0.0))
    T_object[2, 3] = 0.1
    offsets = ((0.1, 0, 0), (0, 0.2, 0), (0, 0, 0), (0, 0, 0.3), (0, 0, -2.0))
    world = around.asked()
    for index, offset in enumerate(offsets):
        obstacle = world.obstacle(f"things[{index}]")
        expected = T_base_shelf @ T_object @ np.array((*offset, 1.0))
        np.testing.assert_allclose(obstacle.pose[:3, 3], expected[:3], atol=1e-9)
        z_axis = (T_base_shelf @ T_object)[:3, 2]
        np.testing.assert_allclose(obstacle.pose[:3, 2], z_axis, atol=1e-9)
    kinds = [world.obstacle(name).shape.kind for name in world.names()]
    assert kinds == ["sphere", "cylinder", "cone", "mesh", "half_space"]
    assert world.obstacle("things[1]").shape.sizes == (0.05, 0.4)


def test_operations_add_replace_append_move_and_remove(around):
    around.apply(box("a", (0.1, 0.1, 0.1), (1, 0, 0.5)), box("b", (0.1, 0.1, 0.1), (0, 1, 0.5)))
    assert list(around.poses()) == ["a", "b"]
    around.apply(box("a", (0.2, 0.2, 0.2), (1, 0, 0.7)))
    world = around.asked()
    assert world.obstacle("a").shape.sizes == (0.2, 0.2, 0.2) and len(world) == 2

    around.apply(box("a", (0.3, 0.3, 0.3), (1, 1, 1), operation=WorldObject.APPEND))
    places = around.poses()
    np.testing.assert_allclose(places["a[0]"][:3, 3], (1, 0, 0.7))
    np.testing.assert_allclose(places["a[1]"][:3, 3], (1, 1, 1))

    moved = WorldObject(id="a", operation=WorldObject.MOVE, pose=pose_at(2.0, 0.0, 0.7))
    around.apply(moved)
    places = around.poses()
    np.testing.assert_allclose(places["a[0]"][:3, 3], (2, 0, 0.7))
    np.testing.assert_allclose(places["a[1]"][:3, 3], (2, 1, 1))
    around.apply(WorldObject(id="a", operation=WorldObject.REMOVE))
    assert list(around.poses()) == ["b"]
    around.apply(WorldObject(operation=WorldObject.REMOVE))
    assert around.asked() is None


def test_without_is_diff_all_that_was_there_is_forgotten(around):
    held = JointState(name=["panda_finger_joint1"], position=[0.04])
    allowed = [AllowedContact(link="panda_hand", id="*")]
    around.apply(box("a", (0.1, 0.1, 0.1), (1, 0, 0.5)), held=held, allowed=allowed)
    around.apply(box("b", (0.1, 0.1, 0.1), (0, 1, 0.5)), is_diff=False)
    content = around.world.content
    assert list(content.objects) == ["b"] and not content.world.held()
    assert not content.world.decisions()


def test_a_request_is_done_as_a_whole_or_not_at_all(around):
    around.apply(box("a", (0.1, 0.1, 0.1), (1, 0, 0.5)))
    code, message = refused(
        around, box("b", (0.1, 0.1, 0.1), (0, 1, 0.5)), box("c", (0.1, -0.1, 0.1), (0, 1, 0.5))
    )
    assert code == Codes.COLLISION_CHECKING_UNAVAILABLE and "'c'" in message
    assert list(around.poses()) == ["a"]


@pytest.mark.parametrize("operation", [WorldObject.MOVE, WorldObject.REMOVE, WorldObject.APPEND])
def test_objects_that_do_not_exist_are_refused_by_name(around, operation):
    around.apply(box("table", (0.1, 0.1, 0.1), (1, 0, 0.5)))
    code, message = refused(around, WorldObject(id="tabel", operation=operation))
    assert code == Codes.INVALID_OBJECT_NAME and "did you mean 'table'" in message


@pytest.mark.parametrize("id", ["", "*", "panda_hand"])
def test_ids_that_cannot_be_are_refused(around, id):
    code, _ = refused(around, box(id, (0.1, 0.1, 0.1), (1, 0, 0.5)))
    assert code == Codes.INVALID_OBJECT_NAME


def test_what_no_world_can_have_is_refused_with_its_reason(around):
    small = (0.1, 0.1, 0.1)
    prism = box("p", small, (1, 0, 0))
    prism.primitives[0].type = SolidPrimitive.PRISM
    few = box("few", small, (1, 0, 0))
    few.primitives[0].dimensions = [0.1, 0.1]
    turned = box("turned", small, (1, 0, 0))
    turned.pose.orientation.w = 0.9
    nowhere = box("nowhere", small, (1, 0, float("nan")))
    poses = box("poses", small, (1, 0, 0))
    poses.primitive_poses = [pose_at(0.0, 0.0, 0.0)] * 2
    flat = WorldObject(id="flat", meshes=[tetrahedron(0.1)])
    flat.meshes[0].triangles = []
    for message, words in (
        (prism, "type 5"),
        (few, "2 dimensions"),
        (turned, "length 0.9"),
        (nowhere, "finite"),
        (poses, "2 poses for 1"),
        (flat, "no triangles"),
        (WorldObject(id="empty"), "no shapes"),
        (box("odd", small, (1, 0, 0), operation=9), "operation"),
        (box("thick", small, (1, 0, 0), padding=-1.0), "padding"),
    ):
        code, said = refused(around, message)
        assert code == Codes.COLLISION_CHECKING_UNAVAILABLE and words in said, said


def test_a_hostile_request_is_refused_in_a_short_line_at_once(around):
    small = box("a", (0.1, 0.1, 0.1), (1, 0, 0))
    corners = WorldObject(id="a", meshes=[tetrahedron(0.1)])
    corners.meshes[0].vertices = corners.meshes[0].vertices * 60_000
    contact = AllowedContact(link="panda_hand", id="*")
    states = JointState(name=["j"] * 5000, position=[0.0] * 5000)
    for words, objects, fields, expected in (
        ("1001 objects", [small] * 1001, {}, Codes.COLLISION_CHECKING_UNAVAILABLE),
        ("240000 vertices", [corners], {}, Codes.COLLISION_CHECKING_UNAVAILABLE),
        ("id[0] has", [box("i" * 10**6, (1, 1, 1), (1, 0, 0))], {}, Codes.INVALID_OBJECT_NAME),
        ("frame_id has", [box("i", (1, 1, 1), (1, 0, 0), "f" * 10**6)], {}, -21),
        ("20001 allowed", [], {"allowed": [contact] * 20_001}, -22),
        ("held has 5000", [], {"held": states}, Codes.INVALID_ROBOT_STATE),
        (
            "touch_links has",
            [],
            {"attached": [AttachedWorldObject(object=small, touch_links=["l"] * 5000)]},
            Codes.INVALID_LINK_NAME,
        ),
    ):
        began = time.process_time()
        code, said = refused(around, *objects, **fields)
        assert time.process_time() - began < 1
        assert code == expected and words in said and len(said) <= MOST_MESSAGE, said


def test_an_object_stays_where_its_frame_was_unless_it_is_locked_to_it(around):
    around.frames["cart"] = np.eye(4)
    around.apply(
        box("left_there", (0.1, 0.1, 0.1), (1, 0, 0.5), "cart"),
        box("carried", (0.1, 0.1, 0.1), (1, 0, 0.5), "cart", frame_locked=True),
    )
    around.frames["cart"] = np.eye(4)
    around.frames["cart"][:3, 3] = 0, 3, 0
    places = around.poses()
    np.testing.assert_allclose(places["left_there"][:3, 3], (1, 0, 0.5))
    np.testing.assert_allclose(places["carried"][:3, 3], (1, 3, 0.5))


def test_a_frame_that_is_gone_is_an_error_and_never_an_object_left_out(around):
    code, message = refused(around, box("a", (0.1, 0.1, 0.1), (1, 0, 0.5), "moon"))
    assert code == Codes.FRAME_TRANSFORM_FAILURE and "'a'" in message and "moon" in message
    around.frames["cart"] = np.eye(4)
    around.apply(box("a", (0.1, 0.1, 0.1), (1, 0, 0.5), "cart", frame_locked=True))
    del around.frames["cart"]
    with pytest.raises(RequestError, match="cart") as error:
        around.asked()
    assert error.value.error_code == Codes.FRAME_TRANSFORM_FAILURE


def test_an_attached_object_moves_with_its_link_and_is_left_where_the_robot_is(around, panda):
    T_base_hand = Judge(panda).link(Q, "panda_hand").homogeneous
    around.apply(box("can", (0.05, 0.05, 0.1), tuple(T_base_hand[:3, 3])))
    attach = AttachedWorldObject(
        link_name="panda_hand", object=WorldObject(id="can"), touch_links=FINGERS
    )
    around.apply(attached=[attach])
    obstacle = around.asked().obstacle("can")
    assert obstacle.link == "panda_hand" and obstacle.touch_links == set(FINGERS)
    np.testing.assert_allclose(obstacle.pose[:3, 3], 0, atol=1e-9)
    assert refused(around, WorldObject(id="can", operation=WorldObject.REMOVE))[0] == (
        Codes.INVALID_OBJECT_NAME
    )

    other = Q + 0.1
    around.state.receive(JointState(name=list(panda.joint_names), position=other.tolist()))
    detach = AttachedWorldObject(object=WorldObject(id="can", operation=WorldObject.REMOVE))
    around.apply(attached=[detach])
    obstacle = around.asked().obstacle("can")
    assert obstacle.link is None
    there = Judge(panda).link(other, "panda_hand").homogeneous[:3, 3]
    np.testing.assert_allclose(obstacle.pose[:3, 3], there, atol=1e-9)


def test_a_shape_in_the_frame_of_its_link_is_attached_before_joint_states(panda):
    around = Surroundings(panda, heard=False)
    can = box("can", (0.05, 0.05, 0.1), (0, 0, 0.1), "panda_hand")
    around.apply(attached=[AttachedWorldObject(link_name="panda_hand", object=can)])
    np.testing.assert_allclose(around.poses()["can"][:3, 3], (0, 0, 0.1), atol=1e-9)
    elsewhere = box("pen", (0.05, 0.05, 0.1), (0.5, 0, 0.1))
    code, message = refused(
        around, attached=[AttachedWorldObject(link_name="panda_hand", object=elsewhere)]
    )
    assert code == Codes.INVALID_ROBOT_STATE and "joint_states" in message


def test_links_and_joints_that_do_not_exist_are_refused(around):
    around.apply(box("can", (0.05, 0.05, 0.1), (1, 0, 0)))
    lost = AttachedWorldObject(link_name="panda_hant", object=WorldObject(id="can"))
    code, message = refused(around, attached=[lost])
    assert code == Codes.INVALID_LINK_NAME and "did you mean 'panda_hand'" in message
    code, _ = refused(around, allowed=[AllowedContact(link="nose", id="can")])
    assert code == Codes.INVALID_LINK_NAME
    code, _ = refused(around, allowed=[AllowedContact(link="panda_hand", id="cup")])
    assert code == Codes.INVALID_OBJECT_NAME
    for held in (
        JointState(name=["panda_joint1"], position=[0.0]),
        JointState(name=["panda_finger_joint1"], position=[]),
    ):
        assert refused(around, held=held)[0] == Codes.INVALID_ROBOT_STATE


def test_what_is_allowed_stays_allowed_when_the_object_is_replaced(around):
    wall = box("wall", (0.3, 0.3, 0.3), tuple(Judge(around.world.robot).poses(Q)[0][:3, 3]))
    around.apply(wall)
    touching = {contact.link for contact in around.asked().contacts(Q)}
    assert touching
    around.apply(allowed=[AllowedContact(link=link, id="wall") for link in touching])
    assert not around.asked().in_collision(Q)
    around.apply(wall)
    assert not around.asked().in_collision(Q)
    around.apply(allowed=[AllowedContact(link=link, id="wall", allowed=False) for link in touching])
    assert around.asked().in_collision(Q)


def test_the_world_as_messages_makes_the_same_world(around):
    around.frames["cart"] = np.eye(4)
    around.frames["cart"][:3, 3] = 0.1, 0.2, 0.3
    floor = WorldObject(id="floor", planes=[Plane(coef=[0.0, 0.3, 1.0, 0.2])])
    around.apply(
        box("a", (0.1, 0.2, 0.3), (1, 0, 0.5), padding=0.01),
        box("c", (0.1, 0.1, 0.1), (1, 0, 0.5), "cart", frame_locked=True),
        WorldObject(id="m", meshes=[tetrahedron(0.2)], convex=True, pose=pose_at(0.5, 0.5, 0.0)),
        floor,
        attached=[
            AttachedWorldObject(
                link_name="panda_hand",
                object=box("can", (0.05, 0.05, 0.1), (0, 0, 0.1), "panda_hand"),
                touch_links=FINGERS,
            )
        ],
        allowed=[AllowedContact(link="panda_hand", id="a")],
        held=JointState(name=["panda_finger_joint1"], position=[0.03]),
    )
    content = around.world.content
    objects, attached = messages_from_objects(content)
    copy = Surroundings(around.world.robot, heard=False)
    copy.frames = around.frames
    copy.apply(
        *objects, attached=attached, allowed=contacts_from_objects(content),
        held=held_from_objects(content), is_diff=False,
    )  # fmt: skip
    first, second = (
        around.asked(),
        copy.asked(),
    )
    assert first.names() == second.names() and first.held() == second.held()
    assert first.decisions() == second.decisions()
    for name in first.names():
        one, other = first.obstacle(name), second.obstacle(name)
        assert (one.shape.kind, one.shape.sizes, one.shape.convex) == (
            other.shape.kind, other.shape.sizes, other.shape.convex,
        )  # fmt: skip
        assert (one.padding, one.link, one.touch_links) == (
            other.padding, other.link, other.touch_links,
        )  # fmt: skip
        # Turns about its normal do not change a half-space.
        columns = slice(2 if one.shape.kind == "half_space" else 0, 4)
        np.testing.assert_allclose(other.pose[:, columns], one.pose[:, columns], atol=1e-9)


def balls(id: str, count: int, frame: str = "panda_link0") -> WorldObject:
    """An object of so many small balls, far away."""
    message = box(id, (1, 1, 1), (0, 0, 5), frame)
    message.primitives = [SolidPrimitive(type=SolidPrimitive.SPHERE, dimensions=[0.01])] * count
    return message


def carried(id: str, count: int = 1) -> AttachedWorldObject:
    return AttachedWorldObject(link_name="panda_hand", object=balls(id, count, "panda_hand"))


def large(id: str, count: int, convex: bool = False) -> WorldObject:
    """A mesh of so many corners and triangles."""
    message = WorldObject(id=id, meshes=[mesh(*hostile_mesh("random", count))], convex=convex)
    message.pose = pose_at(3, 0, 0)
    return message


def said_soon(around, *objects, **fields) -> str:
    """What refuses a request within a second."""
    began = time.process_time()
    said = refused(around, *objects, **fields)[1]
    assert time.process_time() - began < 1
    return said


def test_a_world_is_bounded_in_all_and_not_only_what_a_message_brings(around):
    count = MOST_WORLD_CORNERS * 24 // 100
    for id in "abcd":
        around.apply(large(id, count))
    assert f"{5 * count} vertices in the world" in said_soon(around, large("e", count))
    assert f"{MOST_SHAPES} are the most" in said_soon(around, balls("many", MOST_SHAPES - 1))
    hull = large("hull", MOST_HULL_CORNERS + 1, convex=True)
    assert f"{MOST_HULL_CORNERS} are the most" in said_soon(around, hull)
    attached = [carried(f"ball{n}") for n in range(MOST_ATTACHED + 1)]
    assert f"{MOST_ATTACHED} are the most" in said_soon(around, attached=attached)
    free = MOST_SHAPES * 9 // 10
    some = MOST_ATTACHED_PAIRS // free + 1
    many = said_soon(around, balls("many", free), attached=attached[:some])
    assert f"{MOST_ATTACHED_PAIRS} are the most" in many
    wide = mesh(np.array([(0, 0, 0), (1, 0, 1), (0, 1, 1.0)]), np.array([[0, 1, 2]]))
    walls = WorldObject(id="walls", meshes=[wide] * 100)
    assert f"{MOST_GRID_POINTS} are the most" in said_soon(around, walls)
    around.apply(WorldObject(operation=WorldObject.REMOVE))
    walls.meshes = walls.meshes[:20]
    around.apply(walls)
    walls.id = "others"
    around.apply(walls)
    assert len(around.asked()) == 40


def test_a_world_at_its_bounds_is_built_soon(around):
    around.apply(balls("first", 1))  # loads what a first world needs
    attached = [carried(f"ball{n}") for n in range(MOST_ATTACHED_PAIRS // MOST_SHAPES)]
    walls = [balls(f"wall{n}", 1) for n in range(MOST_SHAPES - len(attached) - 1)]
    part = large("part", MOST_MESSAGE_CORNERS)
    began = time.process_time()
    around.apply(*walls, part, attached=attached, is_diff=False)
    assert time.process_time() - began < 3
    assert len(around.asked()) == MOST_SHAPES
    began = time.process_time()
    assert around.asked().snapshot().in_collision(Q[None], True, 1e-4).shape == (1,)
    assert time.process_time() - began < 0.1  # nothing is built


def test_what_is_allowed_is_bounded_over_all_requests(around):
    balls_held, ids = [f"ball{n}" for n in range(20)], [f"wall{n}" for n in range(720)]
    around.apply(*(balls(id, 1) for id in ids), attached=[carried(id) for id in balls_held])
    links = [*balls_held, *around.world.robot.frames]
    contacts = [AllowedContact(link=link, id=id) for link in links for id in ids]
    around.apply(allowed=contacts[:MOST_CONTACTS])
    around.apply(allowed=contacts[:MOST_CONTACTS])  # the same ones count once
    began = time.process_time()
    around.apply(*(balls(id, 1) for id in ids))  # all is decided again
    assert time.process_time() - began < 1.5
    assert f"{MOST_CONTACTS} are the most" in said_soon(around, allowed=contacts[MOST_CONTACTS:])
    around.apply(WorldObject(operation=WorldObject.REMOVE))
    assert not around.world.content.decisions and not around.world.content.world.decisions()


def test_a_contact_of_many_shapes_counts_once_however_often_it_is_told(around):
    around.apply(balls("wall", 720), attached=[carried("tool", 20)])
    began = time.process_time()
    around.apply(allowed=[AllowedContact(link="tool", id="wall")] * MOST_CONTACTS)
    assert time.process_time() - began < 1.5
    assert len(around.asked().decisions()) == 720 * 20


def again(id: str, operation: int, **fields) -> WorldObject:
    return WorldObject(id=id, operation=operation, **fields)


def test_shapes_that_are_changed_again_and_again_are_bounded_in_a_message(around):
    around.apply(balls("wall", 700), attached=[carried("tool", 18)])
    moves = [again("wall", WorldObject.MOVE, pose=pose_at(0, 0, 4))] * MOST_SHAPES
    assert f"{MOST_CHANGES} are the most" in said_soon(around, *moves)
    around.apply(*moves[:2])
    ends = (WorldObject.REMOVE, WorldObject.ADD)
    turns = [
        AttachedWorldObject(link_name="panda_hand", object=again("tool", operation))
        for _ in range(MOST_SHAPES // 2)
        for operation in ends
    ]
    assert f"{MOST_CHANGES} are the most" in said_soon(around, attached=turns)
    around.apply(attached=turns[: MOST_CHANGES // 18])
    replaced = [balls("wall", 1)] * (MOST_SHAPES // 2)
    around.apply(*replaced)


def test_an_append_builds_and_checks_no_shape_again(around):
    around.apply(large("tree", MOST_HULL_CORNERS // 2, convex=True))
    hull = around.asked().obstacle("tree").shape
    twig = SolidPrimitive(type=SolidPrimitive.SPHERE, dimensions=[0.1])
    twigs = [again("tree", WorldObject.APPEND, primitives=[twig])] * 700
    allowed = AllowedContact(link="panda_hand", id="tree")
    around.apply(allowed=[allowed])
    began = time.process_time()
    around.apply(*twigs)
    assert time.process_time() - began < 1.5
    world = around.asked()
    assert world.obstacle("tree[0]").shape is hull and len(world) == 701
    assert all(world.decisions()["panda_hand", name] for name in world.names())


def test_names_are_compared_only_where_that_takes_no_time(around):
    rng = np.random.default_rng(0)
    for length in (14, 60, 190):
        letters = rng.choice(["a", "b"], (MOST_SHAPES, length))
        ids = [f"{''.join(some)}{number}" for number, some in enumerate(letters)]
        around.apply(*(balls(id, 1) for id in ids), is_diff=False)
        began = time.process_time()
        code, said = refused(around, again(ids[0] + "x", WorldObject.REMOVE))
        assert time.process_time() - began < 0.3
        assert code == Codes.INVALID_OBJECT_NAME
        hint = f"did you mean {ids[0]!r}"
        assert f"and {MOST_SHAPES - 20} more" in said and (hint in said) == (length < 190)


def test_shapes_that_are_attached_get_spheres_in_time(around):
    def parts(kind: str, size: float, count: int) -> list[AttachedWorldObject]:
        corners, triangles = hostile_mesh("random", 300)
        made = []
        for n in range(count):
            item = AttachedWorldObject(link_name="panda_hand")
            item.object = WorldObject(id=f"{kind}{n}")
            item.object.header.frame_id = "panda_hand"
            if kind == "mesh":
                item.object.meshes = [mesh(corners * (size + 0.001 * n), triangles)]
            else:
                item.object.primitives = [
                    SolidPrimitive(type=SolidPrimitive.BOX, dimensions=[size + 0.001 * n] * 3)
                ]
            made.append(item)
        return made

    around.apply(attached=[*parts("mesh", 0.1, 1), *parts("box", 0.1, 1)])  # compiles
    for kind, size, most in (("mesh", 1.0, 8), ("mesh", 0.2, 15), ("box", 0.5, 38)):
        wanted = parts(kind, size, most + 1)
        message = said_soon(around, attached=wanted, is_diff=False)
        assert f"ms of work for one message; {MOST_WORK_MS} are" in message
        began = time.process_time()
        around.apply(attached=wanted[:most], is_diff=False)
        assert time.process_time() - began < 4
        around.apply(attached=wanted[most:])  # the others are known
        assert len(around.asked()) == most + 1
