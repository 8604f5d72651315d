# SPDX-License-Identifier: Apache-2.0
"""Any request, message or file to a running node: an answer in time, and then the next one.

Requests are drawn from the types of what the node itself says that it serves and hears, so that
what is new is found. MEANFLOW_IK_FUZZ sets the number of examples, see `test_fuzz.py`; at the end
the slowest and largest answers are printed (pytest -s).
"""

import importlib
import os
import re
import signal
import time
from collections import Counter
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest
from geometry_msgs.msg import Point, Pose
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from meanflow_ik_ros.msg import AttachedWorldObject, WorldObject
from meanflow_ik_ros.srv import ApplyWorld, GetIKPath, GetIKSolutions, GetIKSolutionsBatch
from oracles import Judge
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.serialization import deserialize_message, serialize_message
from ros_user import DEADLINE_S, MANY, Q, pose_array, start_node, wait_until
from sensor_msgs.msg import JointState
from shape_msgs.msg import SolidPrimitive
from std_msgs.msg import Header
from test_fuzz import EXAMPLES, WORDS, edited, edits, mesh_file, obstacle_meshes, scaled_mesh
from world_messages import mesh as mesh_message

import meanflow_ik_core as mik
from meanflow_ik_core.network.checkpoint import CHECKPOINT_FOLDER
from meanflow_ik_ros.messages.poses import pose_message

pytest.importorskip("hypothesis")
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.usefixtures("ros")
fuzzed = settings(
    max_examples=2 * EXAMPLES if EXAMPLES == 100 else EXAMPLES, deadline=None, database=None,
    derandomize=EXAMPLES == 100,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    phases=[Phase.generate],
)  # fmt: skip
files_fuzzed = settings(fuzzed, max_examples=max(4, EXAMPLES // 20))

TIME_LIMIT_S = 0.5  # of a request at the solver
# What a request may take that is refused, and one that is right and asks for much, with its answer,
# besides twice what rclpy takes to read it.
REFUSED_CPU_S, SOLVED_CPU_S = 0.5, 2.0
MOST_BYTES = 2000  # of an answer that refuses
MOST_VALUES = 3000  # of a request: rclpy takes up to 130 us to read each message of a list
MOST_LOG = 10_000  # bytes of log per request
# A right request of it ends the node, or takes away what it serves.
LEFT_OUT = ("change_state",)
RCLPYS = ("rcl_interfaces", "lifecycle_msgs", "type_description_interfaces")
_CODES = GetIKSolutions.Response
SOLVED = (_CODES.SUCCESS, _CODES.NO_IK_SOLUTION, _CODES.GOAL_IN_COLLISION)

texts = st.one_of(
    st.sampled_from((*WORDS, "panda_link0", "panda_joint1", "rx ry rz", "objectives", "*")),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8),
    st.sampled_from((255, 256, 5000)).map(lambda count: "x" * count),
)
counts = st.sampled_from((0, 1, 1, 2, 3, 65, 300, MOST_VALUES))
KINDS = {
    "double": st.floats() | st.floats(-2, 2),
    "float": st.floats(width=32),
    "boolean": st.booleans(),
    "string": texts,
    "wstring": texts,
    "octet": st.binary(min_size=1, max_size=1),
}
for bits in (8, 16, 32, 64):
    KINDS[f"int{bits}"] = st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) | st.integers(0, 9)
    KINDS[f"uint{bits}"] = st.integers(0, 2**bits - 1) | st.integers(0, 9)
_SEQUENCE = re.compile(r"sequence<([^,>]+)(?:, (\d+))?>")
_ARRAY = re.compile(r"(.+)\[(\d+)\]")


def type_named(name: str) -> type:
    """The class of "package/srv/Name"; of "package/Name", as fields have it, the message."""
    package, *folder, name = name.split("/")
    return getattr(importlib.import_module(".".join([package, *(folder or ["msg"])])), name)


def drawn_field(draw, kind: str, given, room: int):
    """A value for a field of this type in place of the given one, of so many values or texts."""
    if many := _SEQUENCE.fullmatch(kind):
        most = min(int(many[2] or room), room)
        return drawn_list(draw, many[1], given, min(draw(counts), most), room)
    if many := _ARRAY.fullmatch(kind):
        return drawn_list(draw, many[1], given, int(many[2]), room)
    kind = kind.partition("<")[0]  # of a bounded string
    value = draw(KINDS[kind]) if kind in KINDS else damaged(draw, given, room)
    return value[: 100 * room] if isinstance(value, str) else value


def drawn_list(draw, kind: str, given, size: int, room: int) -> list:
    """So many values, of which three are drawn; the others are the same again."""
    own = list(given[:3]) if len(given) else []
    if not own and kind not in KINDS:
        own = [type_named(kind)()]
    some = [
        drawn_field(draw, kind, own[place % len(own)] if own else None, room // size)
        for place in range(min(size, 3))
    ]
    return [some[place % len(some)] for place in range(size)]


def damaged(draw, message, room: int = MOST_VALUES):
    """The message with up to three of its fields drawn anew."""
    kinds = message.get_fields_and_field_types()
    values = {name: getattr(message, name) for name in kinds}
    if kinds:
        for name in draw(st.sets(st.sampled_from(sorted(kinds)), max_size=3)):
            values[name] = drawn_field(draw, kinds[name], values[name], room)
    return type(message)(**values)


def right_request(kind: type, robot):
    """A request or message that is right, where it takes more than none at all."""
    poses = pose_array(robot.forward(Q + np.linspace(0, 0.1, 3)[:, None])[:, 0], robot.base)
    seed = JointState(name=list(robot.joint_names), position=Q)
    target = pose_message(robot.forward(Q)[0], robot.base)
    if kind is GetIKSolutions.Request:
        return kind(targets=[target], seed_state=seed, objectives=["manipulability"])
    if kind is GetIKSolutionsBatch.Request:
        return kind(targets=poses, seed_state=seed, max_solutions=4)
    if kind is GetIKPath.Request:
        return kind(waypoints=poses, start_state=seed)
    if kind is ApplyWorld.Request:
        return kind(is_diff=True, objects=[right_box(WorldObject, robot)])
    if kind.__module__.startswith("moveit_msgs."):
        return right_of_moveit(kind, robot, target, seed)
    if kind is SetParameters.Request:
        value = ParameterValue(type=ParameterType.PARAMETER_STRING_ARRAY, string_array_value=["{"])
        return kind(parameters=[Parameter(name="objectives", value=value)])
    if kind is type(target):
        return target
    return poses if kind is type(poses) else seed if kind is JointState else kind()


def right_box(kind: type, robot):
    """A message of a box that the robot reaches, though not from where it is asked to be."""
    box = SolidPrimitive(type=SolidPrimitive.BOX, dimensions=[0.1, 0.1, 0.1])
    header, pose = Header(frame_id=robot.base), Pose(position=Point(x=-0.5, z=0.5))
    return kind(id="box", header=header, primitives=[box], primitive_poses=[pose])


def right_of_moveit(kind: type, robot, target, seed: JointState):
    """What MoveIt asks and tells, where moveit_msgs is installed."""
    message = kind()
    if isinstance(message, type_named("moveit_msgs/srv/GetPositionIK").Request):
        asked = message.ik_request
        asked.pose_stamped, asked.robot_state.joint_state = target, seed
        asked.avoid_collisions = True
        return message
    box = right_box(type_named("moveit_msgs/CollisionObject"), robot)
    if isinstance(message, type(box)):
        return box
    kinds = kind.get_fields_and_field_types()
    if "object" in kinds:
        return kind(link_name=robot.tips[0], object=box)
    world = message.world if "world" in kinds else message
    world.collision_objects = [box]
    return message


def reading(message) -> float:
    """CPU time [s] that rclpy takes to make Python objects of a message."""
    data, began = serialize_message(message), time.process_time()
    deserialize_message(data, type(message))
    return time.process_time() - began


class Attacker:
    """Somebody who sends anything to a node in a process of its own, and asks rightly after it."""

    def __init__(self, namespace: str, log: Path, **parameters):
        self.name, self.log = f"{namespace}/meanflow_ik", log
        words = [word for name, value in parameters.items() for word in ("-p", f"{name}:={value}")]
        with log.open("wb") as file:
            self.process = start_node("-r", f"__ns:={namespace}", *words, stderr=file, stdout=file)
        self.node = Node("attacker", namespace=namespace)
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.robot = mik.load_robot("panda")
        self.judge, self.clients, self.publishers = Judge(self.robot), {}, {}
        self.seen: Counter[object] = Counter()
        self.worst: dict[str, float] = {}  # the largest value of each kind
        target = pose_message(self.robot.forward(Q)[0], self.robot.base)
        self.right = GetIKSolutions.Request(targets=[target], avoid_world=False)

    def client(self, kind: type, name: str):
        if name not in self.clients:
            self.clients[name] = self.node.create_client(kind, name, qos_profile=MANY)
            assert self.clients[name].wait_for_service(DEADLINE_S), name
        return self.clients[name]

    def call(self, kind: type, name: str, request):
        future = self.client(kind, name).call_async(request)
        wait_until(self.executor, lambda: future.done() or self.process.poll() is not None, name)
        assert self.process.poll() is None, f"the node ended with {self.process.poll()}"
        return future.result()

    def publisher(self, kind: type, name: str):
        if name not in self.publishers:
            made = self.publishers[name] = self.node.create_publisher(kind, name, MANY)
            wait_until(self.executor, lambda: made.get_subscription_count() > 0, name)
        return self.publishers[name]

    @cached_property
    def served_and_heard(self) -> list[tuple[str, type, str]]:
        """Of all services and topics of the node: which of these, type and name; those that are not
        rclpy's own three times."""
        space, _, node = self.name.rpartition("/")
        found = [
            (what, type_named(kinds[0]), name)
            for what, names in (
                ("service", self.node.get_service_names_and_types_by_node(node, space)),
                ("topic", self.node.get_subscriber_names_and_types_by_node(node, space)),
            )
            for name, kinds in sorted(names)
            if not name.endswith(LEFT_OUT)
        ]
        return found + 2 * [one for one in found if not one[1].__module__.startswith(RCLPYS)]

    def memory_mb(self) -> float:
        """The most of the node so far."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024

    def cpu_s(self) -> float:
        """Of the node so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def send(self, what: str, kind: type, name: str, message) -> None:
        """Send it and ask rightly after it; the node holds all of its bounds."""
        most, reading_s, began = SOLVED_CPU_S, reading(message), time.monotonic()
        log, cpu_s = self.log.stat().st_size, self.cpu_s()
        if what == "topic":
            self.publisher(kind, name).publish(message)
            self.seen[name] += 1
        else:
            response = self.call(kind, name, message)
            self.note("answer within [s]", time.monotonic() - began)
            code = getattr(response, "error_code", SOLVED[0])
            response, code = (code, code.val) if hasattr(code, "val") else (response, code)
            self.seen[name, "solved" if code in SOLVED else "refused"] += 1
            if code not in SOLVED:
                size = self.note("refusal [bytes]", len(serialize_message(response)))
                assert size <= MOST_BYTES and len(response.message) < 300, response.message
                most = REFUSED_CPU_S
        self.undo(kind)
        self.ask_rightly()
        self.note("memory [MB]", self.memory_mb())
        assert self.note("log [bytes]", self.log.stat().st_size - log) <= MOST_LOG
        what = "refused" if most == REFUSED_CPU_S else "solved or heard"
        took = self.note(f"CPU of one {what} [s]", self.cpu_s() - cpu_s)
        assert took <= most + 2 * reading_s, f"{took} s, of which reading takes {reading_s}"

    def note(self, name: str, value: float) -> float:
        self.worst[name] = max(self.worst.get(name, 0.0), value)
        return value

    def undo(self, kind: type) -> None:
        """Take back what a request has changed that was right."""
        if "World" in kind.__name__ or "Scene" in kind.__name__:
            self.call(ApplyWorld, f"{self.name}/apply_world", ApplyWorld.Request())
        if kind.__module__.startswith("moveit_msgs.msg."):
            scene = type_named("moveit_msgs/PlanningScene")
            self.publisher(scene, f"{self.node.get_namespace()}/planning_scene").publish(scene())
        if kind.__name__.startswith("SetParameters"):
            empty = ParameterValue(type=ParameterType.PARAMETER_STRING_ARRAY)
            request = SetParameters.Request(parameters=[Parameter(name="objectives", value=empty)])
            self.call(SetParameters, f"{self.name}/set_parameters", request)

    def ask_rightly(self) -> None:
        response = self.call(GetIKSolutions, f"{self.name}/get_ik_solutions", self.right)
        assert response.error_code == response.SUCCESS, response.message
        q = np.array(response.solutions[0].joint_state.position)
        assert self.judge.accepts(q, self.robot.forward(Q))

    def close(self) -> None:
        print(f"\n{dict(self.seen)}\n{dict(self.worst)}")
        self.executor.shutdown()
        self.node.destroy_node()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(DEADLINE_S)


@pytest.fixture(scope="module")
def attacker(ros, compiled, tmp_path_factory):
    made = Attacker(
        "/fuzz", tmp_path_factory.mktemp("fuzz") / "log", sampler="uniform",
        time_limit=TIME_LIMIT_S, cloud_topics="[cloud]", cloud_max_age=0.0,
    )  # fmt: skip
    try:
        made.ask_rightly()
        with_objective = right_request(GetIKSolutions.Request, made.robot)
        made.call(GetIKSolutions, f"{made.name}/get_ik_solutions", with_objective)  # loads torch
        yield made
    finally:
        made.close()


@fuzzed
@given(st.data())
def test_any_request_or_message_is_answered_and_so_is_the_next(attacker, data):
    what, kind, name = data.draw(st.sampled_from(attacker.served_and_heard))
    right = right_request(kind.Request if what == "service" else kind, attacker.robot)
    attacker.send(what, kind, name, damaged(data.draw, right))


@settings(fuzzed, max_examples=max(10, EXAMPLES // 10))
@given(obstacle_meshes, st.booleans())
def test_any_mesh_is_answered_and_so_is_the_next_request(attacker, drawn, attached):
    objects = []
    for index, (*mesh, convex) in enumerate(drawn):
        header = Header(frame_id=attacker.robot.tips[0] if attached else attacker.robot.base)
        shapes = [mesh_message(*scaled_mesh(*mesh))]
        objects.append(WorldObject(id=f"{index}", header=header, meshes=shapes, convex=convex))
    request = ApplyWorld.Request(is_diff=True)
    if attached:
        link = attacker.robot.tips[0]
        request.attached_objects = [
            AttachedWorldObject(link_name=link, object=one) for one in objects
        ]
    else:
        request.objects = objects
    attacker.send("service", ApplyWorld, f"{attacker.name}/apply_world", request)


def test_all_of_our_services_and_topics_are_among_what_is_drawn(attacker):
    names = {name.removeprefix(f"{attacker.name}/") for _, _, name in attacker.served_and_heard}
    ours = {"get_ik_solutions", "get_ik_solutions_batch", "get_ik_path", "apply_world", "get_world"}
    assert names >= ours | {"goal_pose", "goal_poses", "set_parameters", "/fuzz/joint_states"}


@pytest.fixture(scope="module")
def loader(ros, compiled, tmp_path_factory):
    """A node that reads a robot's YAML, URDF, mesh and checkpoint each time it is configured."""
    folder = tmp_path_factory.mktemp("files")
    urdf = Path(mik.load_robot("panda").urdf_path).read_text()
    shape = '<mesh filename="m.obj"/>'
    whole = {
        "r.yaml": b"urdf: r.urdf\nbase: panda_link0\ntips: [panda_link8]\n",
        "r.urdf": re.sub(r"<(box|cylinder|sphere) [^>]*>", shape, urdf, count=1).encode(),
        "m.obj": mesh_file("obj", [(0, 0, 0.05), (0.05, 0, 0), (0, 0.05, 0), (0, 0, 0)]),
        "c.safetensors": (CHECKPOINT_FOLDER / "panda.safetensors").read_bytes(),
    }
    for name, content in whole.items():
        (folder / name).write_bytes(content)
    made = Attacker(
        "/files", folder / "log", robot=folder / "r.yaml", checkpoint=folder / "c.safetensors",
        autostart="false",
    )  # fmt: skip
    yield made, whole
    made.close()


def change(made: Attacker, *transitions: int) -> bool:
    """Whether the node goes through these transitions, and so far as it does."""
    name = f"{made.name}/change_state"
    requests = [ChangeState.Request(transition=Transition(id=number)) for number in transitions]
    return all(made.call(ChangeState, name, request).success for request in requests)


@files_fuzzed
@given(st.data())
def test_any_damage_to_a_file_is_survived_and_the_whole_one_is_read(loader, data):
    made, whole = loader
    name = data.draw(st.sampled_from(sorted(whole)))
    file, content, log = made.log.with_name(name), whole[name], made.log.stat().st_size
    # Most of a checkpoint is weights; its header is where damage tells.
    some = 4000 if name == "c.safetensors" else len(content)
    file.write_bytes(edited(content[:some], data.draw(edits)) + content[some:])
    change(made, Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_CLEANUP)
    file.write_bytes(content)
    assert change(made, Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE)
    made.ask_rightly()
    assert change(made, Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP)
    assert made.note("log [bytes]", made.log.stat().st_size - log) <= MOST_LOG
