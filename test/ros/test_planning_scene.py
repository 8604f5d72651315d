# SPDX-License-Identifier: Apache-2.0
"""MoveIt's planning scene in the node's world: messages do there what they do in MoveIt.

The messages are stand-ins with the fields of moveit_msgs, and the real ones where those exist.
"""

import gc
import time
import weakref
from types import SimpleNamespace

import coal
import numpy as np
import pytest
from geometry_msgs.msg import Point
from meanflow_ik_ros.msg import AllowedContact
from meanflow_ik_ros.srv import ApplyWorld, GetIKSolutions
from moveit_messages import (
    APPEND,
    HAS_MOVEIT,
    KINDS,
    MOVE,
    REMOVE,
    STAND_INS,
    Messages,
    octree_data,
    real,
)
from oracles import Judge
from rclpy.logging import get_logger
from ros_user import Q
from sensor_msgs.msg import JointState
from shape_msgs.msg import MeshTriangle, Plane, SolidPrimitive
from world_messages import box, pose_at, tetrahedron

import meanflow_ik_core as mik
from meanflow_ik_core.bounds import (
    MOST_ATTACHED,
    MOST_ATTACHED_PAIRS,
    MOST_CHANGES,
    MOST_MESSAGE,
    MOST_PROBLEMS,
    MOST_SHAPES,
)
from meanflow_ik_core.geometry import matrix_from_rpy
from meanflow_ik_ros.current_state import CurrentState
from meanflow_ik_ros.messages.errors import FrameError, RequestError
from meanflow_ik_ros.messages.scene import cells_from_octomap
from meanflow_ik_ros.node_world import NodeWorld
from meanflow_ik_ros.parameters import NodeParameters
from meanflow_ik_ros.planning_scene import PlanningScene
from meanflow_ik_ros.services.moveit import world_of_request

Codes = ApplyWorld.Response
SMALL = (0.1, 0.1, 0.1)
FINGERS = ("panda_leftfinger", "panda_rightfinger")


class Log:
    def __init__(self):
        self.lines = []
        self.info = self.warning = self.error = lambda line, **_: self.lines.append(line)


class Around:
    """A scene in a world, what TF knows, and where the robot is."""

    def __init__(self, robot, heard=True):
        self.frames, self.asked_for = {robot.base: np.eye(4)}, []
        self.state, self.log = CurrentState(robot, None), Log()
        if heard:
            self.move(Q)
        self.world = NodeWorld(robot, self.state, self.lookup, ["/camera"])
        self.scene = PlanningScene(self.world, self.log)

    def move(self, q, **others):
        names = [*self.state.robot.joint_names, *others]
        self.state.receive(JointState(name=names, position=[*q.tolist(), *others.values()]))

    def lookup(self, frame_id, stamp):
        self.asked_for.append(frame_id)
        if frame_id not in self.frames:
            raise FrameError(f"no frame {frame_id!r}")
        return self.frames[frame_id]

    def asked(self):
        return self.world.of_request(NodeParameters())

    def place(self, name):
        return self.asked().obstacle(name).pose[:3, 3]

    def names(self):
        world = self.asked()
        return [] if world is None else world.names()

    def refusal(self) -> tuple[int, str]:
        with pytest.raises(RequestError) as error:
            self.asked()
        return error.value.error_code, str(error.value)


@pytest.fixture
def around(panda):
    return Around(panda)


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def messages(request):
    return Messages(request.param)


@pytest.mark.skipif(not HAS_MOVEIT, reason="moveit_msgs is not installed: nothing to compare with")
@pytest.mark.parametrize("kind", STAND_INS, ids=lambda kind: kind.__name__)
def test_stand_ins_have_the_fields_of_moveit_msgs(kind):
    assert set(kind.__dataclass_fields__) == set(real(kind).get_fields_and_field_types())


def test_all_of_the_scene_replaces_what_it_was(around, messages):
    around.scene.take_scene(messages.scene(messages.box("old", SMALL, (1, 0, 0.5))))
    mesh = messages.object("mesh", meshes=[tetrahedron(0.2)], pose=pose_at(0, 1, 0))
    plane = messages.object("floor", planes=[Plane(coef=[0.0, 0.0, 1.0, 0.2])])
    can = messages.attached("panda_hand", messages.box("can", SMALL, (0, 0, 0.1), "panda_hand"))
    table = messages.box("table", SMALL, (1, 0, 0.2))
    around.scene.take_scene(messages.scene(table, mesh, plane, diff=False, attached=[can]))
    world = around.asked()
    assert set(world.names()) == {"table", "mesh", "floor", "can"}
    np.testing.assert_allclose(around.place("mesh"), (0, 1, 0), atol=1e-12)
    np.testing.assert_allclose(around.place("floor"), (0, 0, -0.2), atol=1e-12)
    assert world.obstacle("can").link == "panda_hand"
    around.scene.take_scene(messages.scene(diff=False))
    assert around.names() == []


def test_objects_stand_in_their_frames(around, messages):
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = matrix_from_rpy((0.1, 0.2, 0.3)), (1.0, 0.0, 0.5)
    around.frames["shelf"] = T
    around.scene.take_object(messages.box("jar", SMALL, (0.1, 0.2, 0.3), "shelf"))
    np.testing.assert_allclose(around.place("jar"), (T @ (0.1, 0.2, 0.3, 1))[:3], atol=1e-12)


def test_changes_are_those_of_moveit(around, messages):
    take = around.scene.take_object
    one = SolidPrimitive(type=SolidPrimitive.SPHERE, dimensions=[0.1])
    # Without a pose of its own, an object of one shape is where that is.
    take(messages.object("ball", primitives=[one], primitive_poses=[pose_at(1, 0, 0.5)]))
    np.testing.assert_allclose(around.place("ball"), (1, 0, 0.5))
    take(messages.object("ball", operation=MOVE, pose=pose_at(0, 1, 0.5), primitives=[one]))
    np.testing.assert_allclose(around.place("ball"), (0, 1, 0.5))
    # Shapes that are appended are placed in the object, whatever pose comes with them.
    more = messages.object("ball", operation=APPEND, pose=pose_at(5, 5, 5))
    more.primitives, more.primitive_poses = [one], [pose_at(0, 0, 0.3)]
    take(more)
    assert around.names() == ["ball[0]", "ball[1]"]
    np.testing.assert_allclose(around.place("ball[1]"), (0, 1, 0.8))
    moved = messages.object("ball", operation=MOVE, pose=pose_at(0, 0, 1))
    moved.primitive_poses = [pose_at(0, 0, 0), pose_at(0, 0, 0.5)]
    take(moved)
    np.testing.assert_allclose(around.place("ball[1]"), (0, 0, 1.5))
    take(messages.object("new", operation=APPEND, primitives=[one], pose=pose_at(2, 0, 0)))
    np.testing.assert_allclose(around.place("new"), (2, 0, 0))
    take(messages.object("ball", operation=REMOVE))
    take(messages.object("never there", operation=REMOVE))
    assert around.names() == ["new"]
    take(messages.object("", operation=REMOVE))
    assert around.names() == []


def test_an_object_that_comes_again_elsewhere_is_moved_and_not_built_anew(around, messages):
    mesh = [tetrahedron(0.2)]
    around.scene.take_object(messages.object("mesh", meshes=mesh, pose=pose_at(0, 1, 0)))
    before = around.asked().snapshot()
    around.scene.take_object(messages.object("mesh", meshes=mesh, pose=pose_at(1, 1, 0)))
    after = around.asked().snapshot()
    assert after.structure is before.structure
    np.testing.assert_allclose(around.place("mesh"), (1, 1, 0))
    around.scene.take_object(messages.object("mesh", meshes=[tetrahedron(0.3)]))
    assert around.asked().snapshot().structure is not before.structure


def test_objects_are_attached_and_left_where_the_robot_is(around, messages, panda):
    T_base_hand = Judge(panda).link(Q, "panda_hand").homogeneous
    around.scene.take_object(messages.box("can", SMALL, tuple(T_base_hand[:3, 3])))
    attach = messages.attached("panda_hand", messages.object("can"), (*FINGERS, "no_link"))
    around.scene.take_attached(attach)
    can = around.asked().obstacle("can")
    assert can.link == "panda_hand" and can.touch_links == set(FINGERS)
    np.testing.assert_allclose(can.pose[:3, 3], 0, atol=1e-9)
    # A change of the scene has the attached object with its shapes.
    shapes = messages.box("can", (0.05, 0.05, 0.2), (0, 0, 0.1), "panda_hand")
    around.scene.take_scene(messages.scene(attached=[messages.attached("panda_hand", shapes)]))
    can = around.asked().obstacle("can")
    assert can.shape.sizes == (0.05, 0.05, 0.2) and can.touch_links == set()
    np.testing.assert_allclose(can.pose[:3, 3], (0, 0, 0.1))
    # What is removed from the world is not what is attached.
    around.scene.take_object(messages.object("can", operation=REMOVE))
    assert around.asked().obstacle("can").link == "panda_hand"

    other = Q + 0.1
    around.move(other)
    detach = messages.attached("", messages.object("can", operation=REMOVE))
    around.scene.take_attached(detach)
    around.scene.take_attached(detach)
    there = Judge(panda).link(other, "panda_hand").homogeneous @ (0, 0, 0.1, 1)
    np.testing.assert_allclose(around.place("can"), there[:3], atol=1e-9)
    assert around.asked().obstacle("can").link is None


def test_shapes_are_added_to_what_is_attached(around, messages):
    hold = messages.attached
    around.scene.take_attached(
        hold("panda_hand", messages.box("can", SMALL, (0, 0, 0.1), "panda_hand"), FINGERS[:1])
    )
    lid = messages.object("can", "panda_hand", APPEND)
    lid.primitives = [SolidPrimitive(type=SolidPrimitive.SPHERE, dimensions=[0.02])]
    lid.primitive_poses = [pose_at(0, 0, 0.07)]
    lid.pose = pose_at(0, 0, 0.1)
    around.scene.take_attached(hold("panda_hand", lid, FINGERS[1:]))
    world = around.asked()
    assert {world.obstacle(name).link for name in world.names()} == {"panda_hand"}
    places = {world.obstacle(name).shape.kind: world.obstacle(name) for name in world.names()}
    assert places["box"].touch_links == set(FINGERS)
    np.testing.assert_allclose(places["sphere"].pose[:3, 3], (0, 0, 0.17))
    np.testing.assert_allclose(places["box"].pose[:3, 3], (0, 0, 0.1))


def test_a_full_scene_drops_what_was_attached_unless_its_state_is_a_change(around, messages):
    can = messages.attached("panda_hand", messages.box("can", SMALL, (0, 0, 0.1), "panda_hand"))
    around.scene.take_attached(can)
    kept = messages.scene(diff=False)
    kept.robot_state.is_diff = True
    around.scene.take_scene(kept)
    assert around.names() == ["can"]
    around.scene.take_world(messages.scene().world)
    assert around.names() == ["can"]
    around.scene.take_scene(state_of_joints(messages, is_diff=False))
    assert around.names() == []
    around.scene.take_attached(can)
    around.scene.take_scene(messages.scene(diff=False))
    assert around.names() == []


def test_a_frame_that_is_gone_is_an_error_until_the_object_comes_again(around, messages):
    objects = [
        messages.box("cup", SMALL, (1, 0, 0.5), "moon"),
        messages.box("jar", SMALL, (1, 0, 0.5)),
        messages.box("pot", SMALL, (0, 1, 0.5), "mars"),
    ]
    around.scene.take_scene(messages.scene(*objects))
    code, message = around.refusal()
    assert code == Codes.FRAME_TRANSFORM_FAILURE
    assert "'cup'" in message and "'moon'" in message and "1 more" in message
    assert around.asked_for.count("moon") == 1 and "mars" not in around.asked_for  # one wait
    around.scene.take_scene(messages.scene())  # where the joints are; nothing is repaired by it
    around.frames["moon"] = around.frames["mars"] = np.eye(4)
    around.scene.take_object(objects[0])
    assert "'pot'" in around.refusal()[1]
    around.scene.take_object(messages.object("pot", operation=REMOVE))
    assert set(around.names()) == {"cup", "jar"}


def test_what_cannot_be_is_refused_by_its_code_until_all_of_the_scene_comes(around, messages):
    prism = messages.box("prism", SMALL, (1, 0, 0))
    prism.primitives[0].type = SolidPrimitive.PRISM
    cloud = messages.box("/camera", SMALL, (1, 0, 0))
    lost = messages.object("lost", operation=MOVE)
    odd = messages.box("odd", SMALL, (1, 0, 0), operation=b"\x09")
    hant = messages.attached("panda_hant", messages.box("can", SMALL, (0, 0, 0)))
    bad_map = messages.octomap(b"\0" * 7, 0.1, False)
    bad_matrix = messages.matrix(["panda_hand", "a"], [])
    bad_matrix.entry_values = bad_matrix.entry_values[:1]
    for message, code, words in (
        (messages.scene(prism), Codes.COLLISION_CHECKING_UNAVAILABLE, "type 5"),
        (messages.scene(lost), Codes.INVALID_OBJECT_NAME, "unknown object 'lost'"),
        (messages.scene(odd), Codes.COLLISION_CHECKING_UNAVAILABLE, "operation"),
        (messages.scene(cloud), Codes.INVALID_OBJECT_NAME, "is a cloud"),
        (messages.scene(attached=[hant]), Codes.INVALID_LINK_NAME, "did you mean 'panda_hand'"),
        (messages.scene(octomap=bad_map), Codes.COLLISION_CHECKING_UNAVAILABLE, "damaged"),
        (messages.scene(matrix=bad_matrix), Codes.COLLISION_CHECKING_UNAVAILABLE, "2 names"),
    ):
        around.scene.take_scene(message)
        found, said = around.refusal()
        assert found == code and words in said, said
        around.scene.take_scene(messages.scene(messages.box("a", SMALL, (1, 0, 1)), diff=False))
        assert around.names() == ["a"]


def test_what_is_attached_from_elsewhere_needs_joint_states(panda, messages):
    around = Around(panda, heard=False)
    around.scene.take_attached(messages.attached("panda_hand", messages.box("a", SMALL, (1, 0, 0))))
    assert around.refusal()[0] == Codes.INVALID_ROBOT_STATE
    around.move(Q)
    around.scene.take_attached(messages.attached("panda_hand", messages.box("a", SMALL, (1, 0, 0))))
    T = np.linalg.inv(Judge(panda).link(Q, "panda_hand").homogeneous)
    np.testing.assert_allclose(around.place("a"), (T @ (1, 0, 0, 1))[:3], atol=1e-9)


def touching(around) -> set:
    return {contact[:2] for contact in around.asked().contacts(Q)}


def test_the_matrix_says_what_may_touch_by_entries_and_by_defaults(around, messages):
    at = tuple(Judge(around.world.robot).poses(Q)[0][:3, 3])
    boxes = [messages.box(name, (0.3, 0.3, 0.3), at) for name in ("wall", "door")]
    around.scene.take_scene(messages.scene(*boxes))
    everything = touching(around)
    links = {link for link, _ in everything}
    assert len(links) > 3
    names = [*sorted(links), "wall"]
    entries = [("panda_hand", "wall"), (FINGERS[0], "wall")]
    matrix = messages.matrix(names, entries, panda_link7=True, door=True, panda_link6=False)
    around.scene.take_scene(messages.scene(matrix=matrix))

    def allowed(link, other):
        if link in names and other in names:
            return (link, other) in entries
        defaults = {"panda_link7": True, "door": True, "panda_link6": False}
        known = [defaults[name] for name in (link, other) if name in defaults]
        return bool(known) and all(known)

    expected = {pair for pair in everything if not allowed(*pair)}
    assert touching(around) == expected and expected < everything
    assert {link for link, other in expected if other == "door"} == {"panda_link6"} & links
    # What comes later is looked up in the same matrix, and what is removed leaves it.
    around.scene.take_object(messages.object("wall", operation=REMOVE))
    around.scene.take_object(boxes[0])
    without = messages.matrix([n for n in names if n != "wall"], [], panda_link7=True)
    assert ("panda_hand", "wall") in touching(around)
    around.scene.take_scene(messages.scene(matrix=without))
    assert ("panda_link7", "wall") not in touching(around)
    assert ("panda_link6", "door") in touching(around)


def test_the_matrix_is_about_what_is_attached_too(around, messages, panda):
    T_base_hand = Judge(panda).link(Q, "panda_hand").homogeneous
    at = tuple((T_base_hand @ (0, 0, 0.2, 1))[:3])
    can = messages.attached("panda_hand", messages.box("can", SMALL, (0, 0, 0.2), "panda_hand"))
    around.scene.take_scene(messages.scene(messages.box("tray", SMALL, at), attached=[can]))
    assert ("can", "tray") in touching(around)
    matrix = messages.matrix(["can", "tray"], [("can", "tray")])
    around.scene.take_scene(messages.scene(matrix=matrix))
    assert ("can", "tray") not in touching(around)


def test_what_apply_world_allows_counts_more_than_the_matrix(around, messages):
    at = tuple(Judge(around.world.robot).poses(Q)[0][:3, 3])
    matrix = messages.matrix(["panda_hand", "wall"], [])
    around.scene.take_scene(messages.scene(messages.box("wall", (0.3, 0.3, 0.3), at)))
    allowed = ApplyWorld.Request(
        is_diff=True, allowed_contacts=[AllowedContact(link="panda_hand", id="*")]
    )
    around.world.apply(allowed)
    around.scene.take_scene(messages.scene(matrix=matrix))
    assert "panda_hand" not in {link for link, _ in touching(around)}


def test_what_the_world_cannot_be_told_of_links_is_said_once(around, messages):
    scene = messages.scene(diff=False)
    scene.link_padding = [messages.kinds.LinkPadding(link_name="panda_hand", padding=0.01)]
    scene.link_scale = [messages.kinds.LinkScale(link_name="panda_link7", scale=1.0)]
    pair = mik.load_solver("panda", sampler="uniform").self_collision.pairs()[0]
    scene.allowed_collision_matrix = messages.matrix(list(pair), [pair])
    framed = messages.box("a", SMALL, (1, 0, 0))
    framed.subframe_names, framed.subframe_poses = ["tip"], [pose_at(0, 0, 0)]
    scene.world.collision_objects = [framed]
    for _ in range(3):
        around.scene.take_scene(scene)
    (padding,) = [line for line in around.log.lines if "padding" in line]
    assert "panda_hand" in padding and "panda_link7" not in padding
    (links,) = [line for line in around.log.lines if "matrix" in line]
    assert f"{pair[0]} and {pair[1]}" in links
    assert len([line for line in around.log.lines if "subframes" in line]) == 1
    assert len(around.log.lines) == 3 and around.names() == ["a"]
    # rclpy's own log refuses lines of different levels from one place of the code.
    logged = PlanningScene(around.world, get_logger("planning_scene"))
    logged.take_scene(scene)
    assert not logged.problems


# Cells from the corner of a tree of 2**16 cells along each edge: some near its middle, a pruned
# block of 4 along each edge, and free ones.
MIDDLE = 1 << 15
LEAVES = {
    (MIDDLE + 3, MIDDLE - 5, MIDDLE + 7, 1): True,
    (MIDDLE + 3, MIDDLE - 5, MIDDLE + 6, 1): False,
    (MIDDLE - 1, MIDDLE - 1, MIDDLE - 1, 1): True,
    (MIDDLE + 8, MIDDLE, MIDDLE - 4, 4): True,
    (MIDDLE + 16, MIDDLE, MIDDLE, 16): False,
    (0, 65535, 12345, 1): True,
}
EDGE = 0.05


def occupied() -> set:
    """Cells counted from the middle."""
    cells = set()
    for (*corner, width), full in LEAVES.items():
        if full:
            block = np.stack(np.meshgrid(*[np.arange(width)] * 3), -1).reshape(-1, 3)
            cells |= {tuple(cell) for cell in (np.array(corner) - MIDDLE + block).tolist()}
    return cells


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "full"])
def test_the_occupied_cells_of_an_octomap_are_found(messages, binary):
    data = octree_data(LEAVES, binary)
    cells = cells_from_octomap(messages.octomap(data, EDGE, binary).octomap) / EDGE - 0.5
    found = [tuple(cell) for cell in np.round(cells).astype(int).tolist()]
    assert set(found) == occupied() and len(found) == len(occupied())
    np.testing.assert_allclose(cells, np.round(cells), atol=1e-6)


def test_octomap_reads_the_same_tree(tmp_path):
    """The library's own reader vouches for the bytes of these tests."""
    path = tmp_path / "tree.bt"
    header = f"# Octomap OcTree binary file\nid OcTree\nsize 1\nres {EDGE}\ndata\n"
    path.write_bytes(header.encode() + octree_data(LEAVES, True))
    boxes = np.array(list(coal.MeshLoader().loadOctree(str(path)).toBoxes()))
    corners = np.round((boxes[:, :3] - boxes[:, 3:4] / 2) / EDGE).astype(int)
    width = np.round(boxes[:, 3] / EDGE).astype(int)
    found = {(*(corner + MIDDLE), edge) for corner, edge in zip(corners, width, strict=True)}
    assert found == {leaf for leaf, full in LEAVES.items() if full}


def test_an_octomap_is_an_obstacle_that_the_matrix_can_name(around, messages):
    at = Judge(around.world.robot).poses(Q)[0][:3, 3]
    leaf = (*(np.floor(at / EDGE).astype(int) + MIDDLE).tolist(), 1)
    tree = messages.octomap(octree_data({leaf: True}, False), EDGE, False)
    around.scene.take_scene(messages.scene(octomap=tree))
    hit = touching(around)
    assert {other for _, other in hit} == {"<octomap>"}
    matrix = messages.matrix(["panda_hand"], [], **{"<octomap>": True})
    around.scene.take_scene(messages.scene(matrix=matrix))
    assert not touching(around)
    around.scene.take_scene(messages.scene(matrix=messages.matrix(["panda_hand"], [])))
    assert touching(around) == hit
    cleared = messages.octomap(b"", EDGE, False)
    cleared.octomap.id = "cleared"
    around.scene.take_scene(messages.scene(octomap=cleared))
    assert around.names() == []


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "full"])
@pytest.mark.parametrize("bits", [b"\xff", b"\xaa", b"\x55"])
def test_a_damaged_octomap_is_an_error_soon(messages, binary, bits):
    for data in (bits * 4000, octree_data(LEAVES, binary)[:-2], bits * 5):
        began = time.process_time()
        with pytest.raises(mik.WorldError, match="octomap"):
            cells_from_octomap(messages.octomap(data, EDGE, binary).octomap)
        assert time.process_time() - began < 1


def test_apply_world_and_the_scene_forget_nothing_of_each_other(around, messages):
    around.scene.take_scene(messages.scene(messages.box("theirs", SMALL, (1, 0, 0))))
    can = messages.attached("panda_hand", messages.box("can", SMALL, (0, 0, 0.1), "panda_hand"))
    around.scene.take_attached(can)
    around.world.apply(ApplyWorld.Request(objects=[box("ours", SMALL, (0, 1, 0))]))
    assert set(around.names()) == {"theirs", "can", "ours"}
    np.testing.assert_allclose(around.place("can"), (0, 0, 0.1))
    around.scene.take_scene(messages.scene(diff=False))
    assert around.names() == ["ours"]
    around.scene.take_object(messages.object("", operation=REMOVE))
    assert around.names() == ["ours"]
    around.scene.take_scene(messages.scene(messages.box("theirs", SMALL, (1, 0, 0))))
    around.world.apply(ApplyWorld.Request())
    assert around.names() == ["theirs"]


def hostile(messages) -> dict:
    """Messages of which nothing may be converted, and words of their refusal."""
    many = [messages.box(f"{i}", SMALL, (1, 0, 0)) for i in range(1001)]
    shapes = messages.object("a", primitives=[many[0].primitives[0]] * 1001)
    poses = messages.box("a", SMALL, (1, 0, 0), primitive_poses=[pose_at(0, 0, 0)] * 1001)
    corners = messages.object("a", meshes=[tetrahedron(0.1)])
    corners.meshes[0].vertices = [Point()] * 200_001
    faces = messages.object("a", meshes=[tetrahedron(0.1)])
    faces.meshes[0].triangles = [MeshTriangle()] * 200_001
    links = messages.attached("panda_hand", many[0], ("l",) * 5000)
    tree = messages.octomap(b"", 0.1, True)
    tree.octomap.data = [0] * (6 << 20)
    matrix = messages.matrix([], [])
    matrix.entry_names = ["n"] * 2001
    return {
        "1001 objects": messages.scene(*many),
        "1001 shapes": messages.scene(shapes),
        "1001 poses": messages.scene(poses),
        "200001 vertices": messages.scene(corners),
        "200001 triangles": messages.scene(faces),
        "touch_links has": messages.scene(attached=[links]),
        "id[0] has 100000 char": messages.scene(messages.box("i" * 100_000, SMALL, (1, 0, 0))),
        "frame_id has 100000": messages.scene(messages.box("i", SMALL, (1, 0, 0), "f" * 100_000)),
        "bytes of the octomap": messages.scene(octomap=tree),
        "entry_names has 2001": messages.scene(matrix=matrix),
    }


def test_a_hostile_scene_is_refused_in_a_short_line_at_once(around, messages):
    for words, scene in hostile(messages).items():
        scene.is_diff = True
        began = time.process_time()
        around.scene.take_scene(scene)
        _, said = around.refusal()
        assert time.process_time() - began < 1
        assert words in said and len(said) <= MOST_MESSAGE, said
        around.scene.take_scene(messages.scene(diff=False))


def test_as_many_objects_as_may_be_are_taken_soon(around, messages):
    far = [
        messages.box(f"{i}", (0.01,) * 3, (2 + i % 50, 2 + i // 50, 0)) for i in range(MOST_SHAPES)
    ]
    lost = [messages.box(f"{i}", SMALL, (0, 0, 0), f"frame {i}") for i in range(MOST_SHAPES)]
    began = time.process_time()
    around.scene.take_scene(messages.scene(*lost))
    code, said = around.refusal()
    assert code == Codes.FRAME_TRANSFORM_FAILURE and len(said) <= MOST_MESSAGE
    assert len(around.asked_for) == 1
    lost_s = time.process_time() - began
    around.scene.take_scene(messages.scene(*far, diff=False))
    assert len(around.names()) == MOST_SHAPES and lost_s < 1
    around.scene.take_object(messages.box("one more", SMALL, (1, 0, 0)))
    assert f"{MOST_SHAPES + 1} shapes" in around.refusal()[1]


def test_changes_without_end_and_unknown_names_are_problems_soon(around, messages):
    far = [messages.box("a" * 50 + f"{i}", (0.01,) * 3, (2, 2, 0)) for i in range(300)]
    parts = {"primitives": [far[0].primitives[0]] * 400}
    around.scene.take_scene(messages.scene(messages.object("wall", **parts), *far))
    moves = [messages.object("wall", operation=MOVE)] * MOST_SHAPES
    lost = [messages.object("b" * 50 + f"{i}", operation=MOVE) for i in range(MOST_SHAPES)]
    unknown = [messages.attached("panda_hant", one) for one in far]
    for scene, words in (
        (messages.scene(*moves), f"{MOST_CHANGES} are the most"),
        (messages.scene(*lost), "unknown object 'bbb"),
        (messages.scene(attached=unknown), "unknown link 'panda_hant' (did you mean"),
    ):
        began = time.process_time()
        around.scene.take_scene(scene)
        assert time.process_time() - began < 2
        assert words in around.refusal()[1]
        around.scene.take_object(far[0])  # keeps the problems
        around.world.change(lambda content: content.problems.clear())
    assert len(around.names()) == 700


def test_what_a_request_attaches_is_bounded_as_the_world_is(around, messages):
    free = MOST_SHAPES * 9 // 10
    parts = {"primitives": [messages.box("", SMALL, (0, 0, 0)).primitives[0]] * free}
    around.scene.take_object(messages.object("wall", pose=pose_at(3, 0, 0), **parts))
    boxes = [
        messages.box(f"{number}", SMALL, (0, 0, 0.1), "panda_hand")
        for number in range(MOST_ATTACHED + 1)
    ]
    for many, most in (
        (MOST_ATTACHED + 1, MOST_SHAPES),
        (MOST_ATTACHED_PAIRS // free + 1, MOST_ATTACHED_PAIRS),
    ):
        attached = [messages.attached("panda_hand", one) for one in boxes[:many]]
        state = SimpleNamespace(attached_collision_objects=attached)
        began = time.process_time()
        with pytest.raises(RequestError, match=f"{most} are the most"):
            world_of_request(
                SimpleNamespace(world=around.world),  # type: ignore
                SimpleNamespace(robot_state=state),
                NodeParameters(),
            )
        assert time.process_time() - began < 0.5


def test_a_change_of_all_else_builds_nothing_of_the_scene_and_of_clouds_again(around, messages):
    around.scene.take_object(messages.object("mesh", meshes=[tetrahedron(0.2)]))
    around.world.change(lambda content: content.set_cloud("/camera", np.ones((1, 3)), 0.1, 0.0))
    shapes = [around.asked().obstacle(name).shape for name in around.names()]
    around.world.apply(ApplyWorld.Request())
    assert around.names() == ["/camera", "mesh"]
    assert [around.asked().obstacle(name).shape for name in around.names()] == shapes[::-1]


def test_states_alone_change_nothing(around, messages):
    around.scene.take_scene(messages.scene(messages.box("a", SMALL, (1, 0, 0))))
    before = around.world.content
    around.scene.take_scene(state_of_joints(messages, is_diff=True))
    assert around.world.content is before


def state_of_joints(messages, is_diff):
    scene = messages.scene()
    scene.robot_state.joint_state = JointState(name=["panda_joint1"], position=[0.3])
    scene.robot_state.is_diff = is_diff
    return scene


def test_the_fingers_are_where_joint_states_have_them(around, messages, panda):
    tcp = Judge(panda).link(Q, "panda_hand").homogeneous @ (0, 0, 0.1034, 1)
    ball = messages.object("ball", pose=pose_at(*tcp[:3]))
    ball.primitives = [SolidPrimitive(type=SolidPrimitive.SPHERE, dimensions=[0.03])]
    around.scene.take_object(ball)
    assert not touching(around)  # open, as the robot's file has them
    around.move(Q, panda_finger_joint1=0.02, panda_finger_joint2=0.02, wheel=3.0)
    assert {link for link, _ in touching(around)} == set(FINGERS)
    around.move(Q, panda_finger_joint1=0.04)
    assert not touching(around)
    around.move(Q, panda_finger_joint1=0.02)
    told = JointState(name=["panda_finger_joint1"], position=[0.04])
    around.world.apply(ApplyWorld.Request(is_diff=True, held=told))
    assert not touching(around)  # what is said counts more than what is heard


def test_fingers_beyond_their_limits_are_at_them(around, panda):
    said = []
    logger = SimpleNamespace(warning=lambda text, **_: said.append(text))
    around.state = CurrentState(panda, logger)
    world = NodeWorld(panda, around.state, around.lookup, [])
    for heard, at in ((0.0403, 0.04), (-0.0003, 0.0), (0.03, 0.03)):
        around.move(Q, panda_finger_joint1=heard)
        assert world.held().world.held() == {"panda_finger_joint1": at}
    assert not said
    around.move(Q, panda_finger_joint1=1e300)
    assert world.held().world.held() == {"panda_finger_joint1": 0.04}
    assert said == [
        "joint_states: taken at the limit: panda_finger_joint1 1e+300 (limits 0 to 0.04)"
    ]


def test_openings_that_change_build_nothing_and_keep_nothing(around, messages, monkeypatch):
    from meanflow_ik_core.collision import self_collision, sphere_bodies, world_check

    around.scene.take_object(messages.box("a", SMALL, (0.5, 0, 0.5)))
    around.move(Q, panda_finger_joint1=0.04)
    around.asked().distance(Q)

    def fail(*_, **__):
        raise AssertionError("built anew")

    monkeypatch.setattr(self_collision, "read_shapes", fail)
    monkeypatch.setattr(sphere_bodies, "fit_spheres", fail)
    monkeypatch.setattr(world_check.WorldCheck, "_all_pairs", fail)
    for opening in np.linspace(0.04, 0.0, 20):
        around.move(Q, panda_finger_joint1=opening)
        around.asked().in_collision(Q)
        around.asked().distance(Q)
    world = around.asked()
    around.move(Q, panda_finger_joint1=5e-5)  # the noise of a gripper at rest
    assert around.asked() is world


def test_a_goal_in_collision_has_its_code(around, messages, uniform):
    poses = Judge(uniform.robot).poses(Q)
    around.scene.take_object(messages.box("block", (0.3, 0.3, 0.3), tuple(poses[0, :3, 3])))
    result = uniform.solve(poses, seed=0, world=around.asked())
    from meanflow_ik_ros.messages.touching import code_of_unsolved

    assert code_of_unsolved(result) == GetIKSolutions.Response.GOAL_IN_COLLISION


def test_what_could_not_be_taken_is_remembered_without_its_message(around, messages):
    scene = messages.scene(*(messages.object(f"bad {n}") for n in range(20)))
    around.scene.take_object(messages.box("good", SMALL, (1, 0, 0.5)))
    kept = weakref.ref(around.world.content)
    around.scene.take_scene(scene)
    gc.collect()
    assert kept() is None, "tracebacks keep what their frames refer to"
    code, message = around.refusal()
    assert code == Codes.COLLISION_CHECKING_UNAVAILABLE
    assert "object 'bad 0' has no shapes" in message and "(and 19 more)" in message
    for number in range(20):
        around.scene.take_object(messages.object(f"bad {number}", operation=REMOVE))
    assert around.names() == ["good"]


def test_problems_beyond_their_bound_are_counted_until_there_is_nothing_of_their_kind(
    around, messages
):
    for first in range(0, 3 * MOST_PROBLEMS, MOST_PROBLEMS):
        bad = (messages.object(f"bad {first + n}") for n in range(MOST_PROBLEMS))
        around.scene.take_scene(messages.scene(*bad))
    problems = around.scene.problems
    assert len(problems) == 3 * MOST_PROBLEMS and len(problems._kept) == MOST_PROBLEMS
    assert f"(and {3 * MOST_PROBLEMS - 1} more)" in around.refusal()[1]
    # Those that are kept are over one by one. Whose the others are is not known.
    for number in range(MOST_PROBLEMS):
        around.scene.take_object(messages.object(f"bad {number}", operation=REMOVE))
    assert len(problems._kept) == MOST_PROBLEMS, "what was read before is not changed"
    assert len(around.scene.problems) == 2 * MOST_PROBLEMS
    assert around.refusal()[0] == Codes.COLLISION_CHECKING_UNAVAILABLE
    around.scene.take_attached(messages.attached("panda_hand", messages.object("bad", frame="x")))
    around.scene.take_object(messages.object("", operation=REMOVE))  # all objects, none attached
    assert len(around.scene.problems) == 1
    around.scene.take_scene(messages.scene(diff=False))
    assert around.names() == []
