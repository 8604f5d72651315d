# SPDX-License-Identifier: Apache-2.0
"""The running node over real ROS: what it answers, what it refuses, and how it starts and stops."""

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseStamped
from meanflow_ik_ros.msg import IKSolutionArray
from meanflow_ik_ros.srv import GetIKSolutions
from oracles import Judge
from rcl_interfaces.srv import SetParameters, SetParametersAtomically
from rclpy.node import Node
from rclpy.parameter import Parameter
from ros_user import LATCHED, MANY, Q, User
from sensor_msgs.msg import JointState
from visualization_msgs.msg import Marker, MarkerArray

import meanflow_ik_core as mik
from meanflow_ik_ros.messages.poses import pose_message

Codes = GetIKSolutions.Response
SERVICE = "/meanflow_ik/get_ik_solutions"
OUT_OF_REACH = np.array([3.0, 0.0, 0.5])


class Client(User):
    """A user's node: asks, publishes, and keeps what it hears."""

    def __init__(self):
        super().__init__(
            {
                "candidates": (IKSolutionArray, MANY),
                "joint_candidates": (JointState, MANY),
                "best_candidate": (JointState, MANY),
                "markers": (MarkerArray, LATCHED),
            }
        )
        self.service = self.node.create_client(GetIKSolutions, SERVICE, qos_profile=MANY)
        self.goals = self.node.create_publisher(PoseStamped, "/meanflow_ik/goal_pose", MANY)
        self.states = self.node.create_publisher(JointState, "/joint_states", MANY)

    def ask(self, request: GetIKSolutions.Request) -> GetIKSolutions.Response:
        future = self.service.call_async(request)
        self.wait(future.done, "an answer")
        return future.result()

    def set(self, kind, **values):
        """Call the node's parameter service; returns its response."""
        name = "set_parameters" if kind is SetParameters else "set_parameters_atomically"
        service = self.node.create_client(kind, f"/meanflow_ik/{name}")
        self.wait(service.service_is_ready, name)
        parameters = [
            Parameter(key, value=value).to_parameter_msg() for key, value in values.items()
        ]
        future = service.call_async(kind.Request(parameters=parameters))
        self.wait(future.done, "set_parameters")
        self.node.destroy_client(service)
        return future.result()

    def show_goal(self, goal: PoseStamped) -> IKSolutionArray:
        """Publish a goal; returns its candidates, with everything that belongs to them heard."""
        candidates = self.show(self.goals, goal)
        valid = [solution for solution in candidates.solutions if solution.valid]
        self.wait(lambda: len(self.heard["joint_candidates"]) >= len(valid), "joint_candidates")
        return candidates


@pytest.fixture(scope="module")
def client(running):
    client = Client()
    client.wait(client.service.service_is_ready, "the service")
    client.meet(client.goals, client.states)
    yield client
    client.close()


@pytest.fixture
def defaults(running, client):
    """Puts the parameters back after a test that changes them."""
    before = vars(running.desk.parameters).copy()
    yield
    fixed = ("seed", "select", "marker_count", "marker_opacity", "max_solutions", "num_samples")
    names = (*fixed, "tip_link", "max_num_samples", "position_tolerance", "timeout")
    result = client.set(SetParametersAtomically, **{name: before[name] for name in names}).result
    assert result.successful, result.reason


def reachable(robot: mik.Robot, q=Q, stamp: int = 1) -> PoseStamped:
    goal = pose_message(robot.forward(q)[0], "panda_link0")
    goal.header.stamp = Time(sec=stamp)
    return goal


def request_for(robot: mik.Robot) -> GetIKSolutions.Request:
    return GetIKSolutions.Request(targets=[reachable(robot)])


def out_of_reach(stamp: int = 1) -> PoseStamped:
    pose = np.eye(4)
    pose[:3, 3] = OUT_OF_REACH
    goal = pose_message(pose, "panda_link0")
    goal.header.stamp = Time(sec=stamp)
    return goal


def state_of(q, robot: mik.Robot) -> JointState:
    return JointState(name=list(robot.joint_names), position=np.asarray(q).tolist())


def positions(solutions) -> np.ndarray:
    return np.array([solution.joint_state.position for solution in solutions])


def test_every_solution_is_right_by_pinocchio(client, panda):
    random, judge = np.random.default_rng(0), Judge(panda)
    for _ in range(20):
        q = random.uniform(panda.lower, panda.upper)
        request = GetIKSolutions.Request(targets=[reachable(panda, q)], max_solutions=20)
        response = client.ask(request)
        assert response.error_code == Codes.SUCCESS, response.message
        assert 1 <= len(response.solutions) <= 20
        for solution in positions(response.solutions):
            assert judge.accepts(solution, panda.forward(q))
        assert 0 < response.refine_time <= response.total_time


def test_the_seed_state_of_the_request_is_what_the_distance_refers_to(client, panda):
    seed = Q + 0.2
    response = client.ask(
        GetIKSolutions.Request(targets=[reachable(panda)], seed_state=state_of(seed, panda))
    )
    found = positions(response.solutions)
    np.testing.assert_allclose(
        [solution.distance for solution in response.solutions],
        np.linalg.norm(found - seed, axis=-1),
        atol=1e-9,
    )


def test_the_same_request_gets_the_same_answer_with_a_fixed_seed_only(client, panda, defaults):
    request = request_for(panda)
    first, second = (positions(client.ask(request).solutions) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    client.set(SetParameters, seed=-1)
    first, second = (positions(client.ask(request).solutions) for _ in range(2))
    assert not np.array_equal(first, second)


def test_self_collision_is_avoided_when_asked(client, panda):
    """Some of the solutions of this pose collide; with the wish, none of those that come does."""
    q = np.array([-2.03, -0.06, 2.29, -1.8, 0.52, 0.07, 1.01])
    collides = mik.load_solver(panda, sampler="uniform").self_collision.in_collision
    counts = []
    for avoid in (False, True):
        response = client.ask(
            GetIKSolutions.Request(
                targets=[reachable(panda, q)],
                num_samples=1000,
                max_solutions=300,
                avoid_self_collision=avoid,
            )
        )
        found = positions(response.solutions)
        assert len(found) > 10
        counts.append(int(np.sum(collides(found))))
    assert counts[0] > 0
    assert counts[1] == 0


def test_an_unreachable_target_is_answered_with_honest_near_misses(client, panda):
    response = client.ask(GetIKSolutions.Request(targets=[out_of_reach()]))
    assert response.error_code == Codes.NO_IK_SOLUTION
    assert "beyond its reach" in response.message
    assert response.solutions
    judge = Judge(panda)
    target = np.eye(4)
    target[:3, 3] = OUT_OF_REACH
    for solution, q in zip(response.solutions, positions(response.solutions), strict=True):
        position, orientation = judge.errors(q, target[None])
        assert not solution.valid
        np.testing.assert_allclose(solution.position_error, position, atol=1e-9)
        np.testing.assert_allclose(solution.orientation_error, orientation, atol=1e-6)


def bad_requests(robot: mik.Robot) -> dict[str, tuple[GetIKSolutions.Request, int, str]]:
    """Every way to ask wrongly, the code, and words of the message."""

    def request(**fields) -> GetIKSolutions.Request:
        return GetIKSolutions.Request(**{"targets": [reachable(robot)], **fields})

    def pose(**changes) -> GetIKSolutions.Request:
        goal = reachable(robot)
        for path, value in changes.items():
            part, axis = path.split("_")
            setattr(getattr(goal.pose, part), axis, value)
        return request(targets=[goal])

    def framed(frame_id: str) -> GetIKSolutions.Request:
        goal = reachable(robot)
        goal.header.frame_id = frame_id
        return request(targets=[goal])

    def seed(names, values) -> GetIKSolutions.Request:
        return request(seed_state=JointState(name=list(names), position=list(values)))

    nan, names = float("nan"), robot.joint_names
    zero = {f"orientation_{axis}": 0.0 for axis in "xyzw"}
    long = {f"orientation_{axis}": 1.0 for axis in "xyzw"}
    goal, state = Codes.INVALID_GOAL_CONSTRAINTS, Codes.INVALID_ROBOT_STATE
    return {
        "nan position": (pose(position_x=nan), goal, "not finite"),
        "infinite position": (pose(position_z=float("inf")), goal, "not finite"),
        "nan quaternion": (pose(orientation_y=nan), goal, "not finite"),
        "zero quaternion": (pose(**zero), goal, "length 0, expected 1"),
        "quaternion of length 2": (pose(**long), goal, "length 2, expected 1"),
        "no target": (request(targets=[]), goal, "0 targets"),
        "two targets": (request(targets=[reachable(robot)] * 2), goal, "2 targets"),
        "unknown tip": (request(tip_links=["nose"]), Codes.INVALID_LINK_NAME, "panda_link8"),
        "moving link": (request(tip_links=["panda_link4"]), Codes.INVALID_LINK_NAME, "panda_link8"),
        "unknown frame": (framed("mars"), Codes.FRAME_TRANSFORM_FAILURE, "panda_link0"),
        "moving frame": (framed("panda_link4"), Codes.FRAME_TRANSFORM_FAILURE, "panda_link0"),
        "seed of another robot": (seed(["x"], [0.0]), state, "only unknown joints, x"),
        "seed of wrong length": (seed(names, Q[:6]), state, "7 names and 6 positions"),
        "seed outside limits": (seed(names, [9.0, *Q[1:]]), state, "panda_joint1 9"),
        "seed with nan": (seed(names, [nan, *Q[1:]]), state, "not finite"),
        "absurd num_samples": (request(num_samples=2**32 - 1), goal, "max_num_samples"),
        "absurd max_solutions": (request(max_solutions=2**32 - 1), goal, "max_num_samples"),
    }


BAD_REQUESTS = list(bad_requests(mik.load_robot("panda")))


@pytest.mark.parametrize("name", BAD_REQUESTS)
def test_a_bad_request_gets_its_code_and_message_and_the_node_lives_on(client, panda, name):
    request, code, words = bad_requests(panda)[name]
    response = client.ask(request)
    assert response.error_code == code
    assert words in response.message
    assert not response.solutions
    assert client.ask(request_for(panda)).error_code == Codes.SUCCESS


def test_an_empty_frame_id_is_the_base_with_one_warning(client, panda, running, capfd):
    running.desk._empty_frame_id_said = False
    named = reachable(panda)
    nameless = reachable(panda)
    nameless.header.frame_id = ""
    expected = positions(client.ask(GetIKSolutions.Request(targets=[named])).solutions)
    for _ in range(3):
        response = client.ask(GetIKSolutions.Request(targets=[nameless]))
        np.testing.assert_array_equal(positions(response.solutions), expected)
    assert capfd.readouterr().err.count("empty frame_id") == 1


def test_an_exception_in_the_solver_is_an_answer(client, panda, running, monkeypatch, capfd):
    def fail(*args, **kwargs):
        raise ZeroDivisionError("no such thing")

    monkeypatch.setattr(running.desk.solver, "solve", fail)
    response = client.ask(request_for(panda))
    assert (response.error_code, response.message) == (Codes.FAILURE, "no such thing")
    assert "Traceback" in capfd.readouterr().err
    monkeypatch.undo()
    assert client.ask(request_for(panda)).error_code == Codes.SUCCESS


def test_a_goal_gives_candidates_joint_states_and_markers(client, panda, running):
    candidates = client.show_goal(reachable(panda, stamp=17))
    judge = Judge(panda)
    assert candidates.header.stamp == Time(sec=17)
    assert candidates.header.frame_id == "panda_link0"
    assert candidates.targets == [reachable(panda, stamp=17)]
    found = positions(candidates.solutions)
    assert len(found) == running.desk.parameters.max_solutions
    assert all(judge.accepts(q, panda.forward(Q)) for q in found)
    costs = [solution.cost for solution in candidates.solutions]
    assert costs == sorted(costs)
    np.testing.assert_array_equal(
        [state.position for state in client.heard["joint_candidates"]], found
    )
    client.wait(lambda: bool(client.heard["best_candidate"]), "best_candidate")
    (best,) = client.heard["best_candidate"]
    np.testing.assert_array_equal(best.position, found[0])
    assert best.name == list(panda.joint_names)
    assert best.header.stamp == Time(sec=17)
    (markers,) = client.heard["markers"]
    arms = {marker.ns for marker in markers.markers if marker.ns.startswith("candidate")}
    assert len(arms) == running.desk.parameters.marker_count


def test_a_goal_out_of_reach_gives_flagged_candidates_and_clears_the_markers(client):
    candidates = client.show_goal(out_of_reach(stamp=18))
    assert candidates.solutions
    assert not any(solution.valid for solution in candidates.solutions)
    assert not client.heard["best_candidate"] and not client.heard["joint_candidates"]
    (markers,) = client.heard["markers"]
    drawn = {marker.ns for marker in markers.markers if marker.action == Marker.ADD}
    assert drawn == {"goal", "legend"}


def test_a_bad_goal_is_passed_over_and_the_next_one_answered(client, panda):
    bad = reachable(panda, stamp=19)
    bad.pose.position.x = float("nan")
    client.goals.publish(bad)
    assert client.show_goal(reachable(panda, stamp=20)).header.stamp == Time(sec=20)
    assert len(client.heard["candidates"]) == 1


def test_markers_reach_a_viewer_that_starts_later(client, panda, running):
    client.show_goal(reachable(panda))
    viewer, heard = Node("viewer"), []
    viewer.create_subscription(MarkerArray, "/meanflow_ik/markers", heard.append, LATCHED)
    client.executor.add_node(viewer)
    client.wait(lambda: bool(heard), "the last markers")
    assert len(heard[0].markers) > running.desk.parameters.marker_count
    client.executor.remove_node(viewer)
    viewer.destroy_node()


def test_joint_states_are_the_default_seed(client, panda, running):
    q = Q + 0.1
    gripper = JointState(name=["finger"], position=[0.02])
    mixed = JointState(name=["finger", *panda.joint_names], position=[0.02, *q.tolist()])
    client.states.publish(mixed)
    client.states.publish(gripper)
    client.wait(lambda: np.array_equal(running.desk.current_state.q, q), "the state")
    response = client.ask(request_for(panda))
    np.testing.assert_allclose(
        [solution.distance for solution in response.solutions],
        np.linalg.norm(positions(response.solutions) - q, axis=-1),
        atol=1e-9,
    )


def test_joint_states_may_come_in_parts(client, panda, running):
    q = Q - 0.1
    names = list(panda.joint_names)
    client.states.publish(JointState(name=names[:3], position=q[:3].tolist()))
    client.states.publish(JointState(name=names[3:], position=q[3:].tolist()))
    client.wait(lambda: np.array_equal(running.desk.current_state.q, q), "both parts")


def test_bad_joint_states_are_passed_over(client, panda, running):
    before = Q.copy()
    client.states.publish(state_of(before, panda))
    client.wait(lambda: np.array_equal(running.desk.current_state.q, before), "the state")
    names = list(panda.joint_names)
    client.states.publish(JointState(name=names, position=[float("nan")] * 7))
    client.states.publish(JointState(name=names, position=[0.0] * 3))
    outside = before.copy()
    outside[1] = 1.9
    client.states.publish(state_of(outside, panda))
    expected = before.copy()
    expected[1] = 1.7628
    client.wait(
        lambda: np.array_equal(running.desk.current_state.q, expected), "the state at the limit"
    )


def test_a_long_solve_does_not_block_joint_states(client, panda, running, defaults):
    assert client.set(SetParametersAtomically, max_num_samples=200_000).result.successful
    request = GetIKSolutions.Request(targets=[out_of_reach()], num_samples=200_000)
    future = client.service.call_async(request)
    client.wait(running.desk.solver_lock.locked, "the solve")
    for step in range(3):
        q = Q + 0.01 * step
        client.states.publish(state_of(q, panda))
        client.wait(lambda q=q: np.array_equal(running.desk.current_state.q, q), "the state")
    assert running.desk.solver_lock.locked() and not future.done(), "the solve was too short"
    client.wait(future.done, "the answer")
    assert future.result().error_code == Codes.NO_IK_SOLUTION


def test_parameters_changed_at_run_time_are_used(client, panda, running, defaults):
    changes = {"max_solutions": 5, "marker_count": 2, "marker_opacity": 0.75, "select": "diverse"}
    results = client.set(SetParameters, **changes).results
    assert all(result.successful for result in results)
    candidates = client.show_goal(reachable(panda))
    assert len(candidates.solutions) == 5
    drawn = [item for item in client.heard["markers"][0].markers if item.action == Marker.ADD]
    arms = [marker for marker in drawn if marker.ns.startswith("candidate")]
    assert {marker.ns for marker in arms} == {"candidate_000", "candidate_001"}
    assert {marker.color.a for marker in arms} == {0.75}
    client.set(SetParameters, tip_link="panda_hand_tcp")
    response = client.ask(request_for(panda))
    hand = response.solutions[0].joint_state.position
    _, T_tip_tcp = panda.tip_offset("panda_hand_tcp")
    reached = Judge(panda).poses(np.array(hand))[0] @ T_tip_tcp
    np.testing.assert_allclose(reached, panda.forward(Q)[0], atol=2e-5)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"max_solutions": 7, "num_samples": 0}, "out of range"),
        ({"max_solutions": 7, "timeout": float("nan")}, "timeout"),
        ({"max_solutions": 7, "select": "worst"}, "best, diverse"),
        ({"max_solutions": 7, "robot": "ur5"}, "read-only"),
        ({"max_solutions": 7, "timeout": 1}, "type"),
        ({"max_solutions": 7, "max_num_samples": 6}, "above max_num_samples 6"),
        ({"max_solutions": 7, "tip_link": "nose"}, "panda_link8"),
        ({"max_solutions": 7, "nonsense": 1}, "undeclared"),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else list(value)[1],
)
def test_a_bad_change_is_refused_as_a_whole_with_its_reason(client, running, values, words):
    before = running.desk.parameters
    result = client.set(SetParametersAtomically, **values).result
    assert not result.successful
    assert words in result.reason
    assert running.desk.parameters is before
    assert running.get_parameter("max_solutions").value == before.max_solutions
