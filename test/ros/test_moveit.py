# SPDX-License-Identifier: Apache-2.0
"""MoveIt's service: what is taken from a request and what comes back.

The messages are stand-ins with the fields of moveit_msgs, and the real ones where those exist.
"""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import oracles
import pinocchio as pin
import pytest
import yaml
from builtin_interfaces.msg import Duration
from example_robots import TORSO_TIPS, draw
from geometry_msgs.msg import PoseStamped, Transform
from moveit_messages import HAS_MOVEIT, RobotState
from oracles import Judge
from sensor_msgs.msg import JointState, MultiDOFJointState

import meanflow_ik_core as mik
from meanflow_ik_core.collision.self_collision import SelfCollision
from meanflow_ik_ros.messages.errors import Codes, RequestError
from meanflow_ik_ros.parameters import NodeParameters
from meanflow_ik_ros.services import moveit
from meanflow_ik_ros.topics.frames import Frames

PARAMETERS = NodeParameters(num_samples=64, seed=5)
FOLDED = np.array([0, 1.7, 0, -3.0, 0, 0.0, 0])  # the panda touches itself
READY = np.array([0, -0.785, 0, -2.356, 0, 1.571, 0.785])


@dataclass
class Constraints:
    name: str = ""
    joint_constraints: list = field(default_factory=list)
    position_constraints: list = field(default_factory=list)
    orientation_constraints: list = field(default_factory=list)
    visibility_constraints: list = field(default_factory=list)


@dataclass
class PositionIKRequest:
    group_name: str = ""
    robot_state: RobotState = field(default_factory=RobotState)
    constraints: Constraints = field(default_factory=Constraints)
    avoid_collisions: bool = False
    ik_link_name: str = ""
    pose_stamped: PoseStamped = field(default_factory=PoseStamped)
    ik_link_names: list = field(default_factory=list)
    pose_stamped_vector: list = field(default_factory=list)
    timeout: Duration = field(default_factory=Duration)


@dataclass
class MoveItErrorCodes:
    val: int = 0
    message: str = ""
    source: str = ""


@dataclass
class OldErrorCodes:
    val: int = 0


@dataclass
class Request:
    ik_request: PositionIKRequest = field(default_factory=PositionIKRequest)


@dataclass
class Response:
    solution: RobotState = field(default_factory=RobotState)
    error_code: Any = field(default_factory=MoveItErrorCodes)


def stand_ins():
    return SimpleNamespace(
        Request=Request,
        Response=Response,
        attached=lambda: SimpleNamespace(link_name="panda_hand"),
        constraint=lambda kind: object(),
    )


def real_messages():
    from moveit_msgs import msg
    from moveit_msgs.srv import GetPositionIK

    names = {kind: kind.title().replace("_", "")[:-1] for kind in moveit.CONSTRAINTS}
    return SimpleNamespace(
        Request=GetPositionIK.Request,
        Response=GetPositionIK.Response,
        attached=lambda: msg.AttachedCollisionObject(link_name="panda_hand"),
        constraint=lambda kind: getattr(msg, names[kind])(),
    )


KINDS = {"stand-ins": stand_ins} | ({"moveit_msgs": real_messages} if HAS_MOVEIT else {})


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def messages(request):
    return request.param()


class Solve:
    """Calls a solver as the node does, and keeps what it was asked."""

    def __init__(self, solver):
        self.solver, self.asked = solver, []

    def __call__(self, query, parameters, max_rounds):
        self.asked.append((query, parameters, max_rounds))
        return self.solver.solve(
            **query.task.goal(query.targets @ query.T_tip_link),
            num_samples=query.num_samples,
            max_solutions=query.max_solutions,
            seed_state=query.seed_state,
            seed=parameters.seed,
            approximate=query.approximate,
            timeout=parameters.timeout or None,
            avoid_self_collision=query.avoid_self_collision,
            max_rounds=max_rounds,
        )


def ask(solver, request, response, parameters=PARAMETERS, current=None, group="", solve=None):
    """What the node does with a request; a refusal is raised."""
    robot = solver.robot
    current = 0.5 * (robot.lower + robot.upper) if current is None else current
    lookup = Frames(robot).T_base_frame
    query = moveit.query_from_request(request, robot, parameters, lookup, current, group)
    found = moveit.nearest_solution(query, robot, parameters, solve or Solve(solver))
    return moveit.fill_response(request, found, "/arm/meanflow_ik", response)


def stamped(T_frame_link: np.ndarray, frame_id: str) -> PoseStamped:
    """A pose (4, 4), written without the code under test."""
    message = PoseStamped()
    message.header.frame_id = frame_id
    position, orientation = message.pose.position, message.pose.orientation
    position.x, position.y, position.z = T_frame_link[:3, 3].tolist()
    quat_xyzw = pin.Quaternion(T_frame_link[:3, :3]).coeffs().tolist()
    orientation.x, orientation.y, orientation.z, orientation.w = quat_xyzw
    return message


def whole_panda(q: np.ndarray, velocity: bool = False) -> JointState:
    """The state that MoveIt sends: all joints of the robot, in an order of its own."""
    names = ["panda_finger_joint1", *[f"panda_joint{i}" for i in range(7, 0, -1)], "rail"]
    state = JointState(name=names, position=[0.04, *q[::-1].tolist(), 1.5])
    state.header.frame_id = "world"
    state.header.stamp.sec = 12
    if velocity:
        state.velocity = [0.1 * i for i in range(9)]
    return state


def request_for(messages, T_base_tip, q=None, frame_id="panda_link0", link="panda_link8"):
    request = messages.Request()
    request.ik_request.pose_stamped = stamped(T_base_tip, frame_id)
    request.ik_request.ik_link_name = link
    if q is not None:
        request.ik_request.robot_state.joint_state = whole_panda(q)
    return request


def joints_of(response, robot) -> np.ndarray:
    state = response.solution.joint_state
    values = dict(zip(state.name, state.position, strict=True))
    return np.array([values[name] for name in robot.joint_names])


def reachable(robot, count, seed=0) -> tuple[np.ndarray, np.ndarray]:
    """Configurations (count, J) and their poses (count, T, 4, 4)."""
    return draw(robot, count, seed).numpy(), oracles.reachable(robot, count, seed)


def test_the_stand_ins_have_the_fields_of_moveit_msgs():
    if not HAS_MOVEIT:
        # Fields of moveit_msgs 2.6, written down so that a stand-in cannot lose one unseen.
        assert set(PositionIKRequest.__dataclass_fields__) == {
            "group_name", "robot_state", "constraints", "avoid_collisions", "ik_link_name",
            "pose_stamped", "ik_link_names", "pose_stamped_vector", "timeout",
        }  # fmt: skip
        return
    from moveit_msgs import msg, srv

    for stand_in, real in (
        (Constraints, msg.Constraints),
        (PositionIKRequest, msg.PositionIKRequest),
        (MoveItErrorCodes, msg.MoveItErrorCodes),
        (Request, srv.GetPositionIK.Request),
        (Response, srv.GetPositionIK.Response),
    ):
        assert set(stand_in.__dataclass_fields__) == set(real.get_fields_and_field_types())


@pytest.mark.skipif(
    not HAS_MOVEIT, reason="moveit_msgs is not installed: only the stand-ins were tested"
)
def test_the_error_codes_are_moveits():
    from moveit_msgs.msg import MoveItErrorCodes

    assert moveit.INVALID_GROUP_NAME == MoveItErrorCodes.INVALID_GROUP_NAME
    for name in ("SUCCESS", "NO_IK_SOLUTION", "FRAME_TRANSFORM_FAILURE", "INVALID_LINK_NAME",
                 "INVALID_ROBOT_STATE", "INVALID_GOAL_CONSTRAINTS", "FAILURE"):  # fmt: skip
        assert getattr(Codes, name) == getattr(MoveItErrorCodes, name)


def test_answers_reach_the_pose_by_pinocchio(messages, uniform):
    robot = uniform.robot
    q, targets = reachable(robot, 20)
    judge = Judge(robot)
    for seed, target in zip(np.roll(q, 1, axis=0), targets, strict=True):
        response = ask(uniform, request_for(messages, target[0], seed), messages.Response())
        assert response.error_code.val == Codes.SUCCESS
        assert judge.accepts(joints_of(response, robot), target)


def test_joints_of_other_groups_come_back_unchanged_and_in_their_order(messages, uniform):
    _, targets = reachable(uniform.robot, 1, seed=1)
    request = request_for(messages, targets[0, 0])
    state = request.ik_request.robot_state
    state.joint_state = sent = whole_panda(READY, velocity=True)
    state.multi_dof_joint_state = MultiDOFJointState(
        joint_names=["world_joint"], transforms=[Transform()]
    )
    state.attached_collision_objects = [messages.attached()]
    state.is_diff = True
    before = list(sent.position)
    response = ask(uniform, request, messages.Response())
    solution = response.solution
    assert solution.joint_state.name == sent.name
    assert solution.joint_state.header == sent.header
    assert list(solution.joint_state.velocity) == list(sent.velocity)
    values = dict(zip(solution.joint_state.name, solution.joint_state.position, strict=True))
    assert (values["panda_finger_joint1"], values["rail"]) == (0.04, 1.5)
    assert Judge(uniform.robot).accepts(joints_of(response, uniform.robot), targets[0])
    assert solution.multi_dof_joint_state == state.multi_dof_joint_state
    assert solution.attached_collision_objects == state.attached_collision_objects
    assert solution.is_diff
    assert list(sent.position) == before, "the request itself was changed"


def test_joints_that_the_state_lacks_start_at_the_current_ones_and_come_last(messages, uniform):
    robot = uniform.robot
    q, targets = reachable(robot, 1, seed=2)
    request = request_for(messages, targets[0, 0])
    request.ik_request.robot_state.joint_state = JointState(
        name=["rail", "panda_joint3"],
        position=[1.5, float(q[0, 2])],
        velocity=[0.1, 0.2],
        effort=[3.0, 4.0],
    )
    response = ask(uniform, request, messages.Response(), current=q[0])
    state = response.solution.joint_state
    others = [name for name in robot.joint_names if name != "panda_joint3"]
    assert state.name == ["rail", "panda_joint3", *others]
    np.testing.assert_allclose(joints_of(response, robot), q[0], atol=1e-4)
    assert list(state.velocity) == [0.1, 0.2, *[0.0] * 6]
    assert list(state.effort) == [3.0, 4.0, *[0.0] * 6]


@pytest.mark.parametrize("seed", range(5))
def test_a_solution_at_the_seed_is_the_answer(messages, uniform, seed):
    q, targets = reachable(uniform.robot, 1, seed=10 + seed)
    response = ask(uniform, request_for(messages, targets[0, 0], q[0]), messages.Response())
    np.testing.assert_allclose(joints_of(response, uniform.robot), q[0], atol=1e-4)


def test_no_other_solution_that_was_found_is_nearer(uniform):
    robot = uniform.robot
    q, targets = reachable(robot, 10, seed=3)
    for seed, target in zip(np.roll(q, 1, axis=0), targets, strict=True):
        solve = Solve(uniform)
        response = ask(uniform, request_for(stand_ins(), target[0], seed), Response(), solve=solve)
        found = solve(*solve.asked[0])
        others = found.joint_positions[0][found.valid[0]]
        assert len(others) > 5
        step = np.abs(joints_of(response, robot) - seed).max()
        assert step == pytest.approx(np.abs(others - seed).max(1).min(), abs=1e-12)


def test_the_largest_step_counts_first_then_the_distance(uniform):
    near_but_one = np.zeros(7)
    near_but_one[0] = 0.5
    spread = np.full(7, 0.4)  # farther in the Euclidean sense
    choose = moveit.nearest_configuration
    q = np.stack([near_but_one, spread])
    np.testing.assert_array_equal(choose(q, np.zeros(7), uniform.robot), spread)
    same_step = np.stack([np.full(7, 0.5), near_but_one])
    np.testing.assert_array_equal(choose(same_step, np.zeros(7), uniform.robot), near_but_one)


def test_continuous_joints_stay_on_the_seeds_turn(messages, torso_solver):
    robot = torso_solver.robot
    q, targets = reachable(robot, 5, seed=4)
    judge = Judge(robot)
    for turns in (-3, 2):
        for row, target in zip(q, targets, strict=True):
            seed = row + 2 * np.pi * turns * robot.continuous
            request = messages.Request()
            asked = request.ik_request
            asked.pose_stamped_vector = [stamped(pose, robot.base) for pose in target]
            asked.ik_link_names = list(robot.tips)
            asked.robot_state.joint_state = JointState(
                name=list(robot.joint_names), position=seed.tolist()
            )
            found = joints_of(ask(torso_solver, request, messages.Response()), robot)
            np.testing.assert_allclose(found, seed, atol=1e-4)
            assert judge.accepts(found, target)


def test_limits_wider_than_a_turn_let_the_answer_follow_the_seed(uniform):
    # As the joints of a UR: two turns from end to end.
    wide = replace(uniform.robot, lower=np.full(7, -2 * np.pi), upper=np.full(7, 2 * np.pi))
    q, seed = np.full((1, 7), 1.0), np.full(7, -5.0)
    np.testing.assert_allclose(moveit.on_nearest_turn(q, seed, wide), q - 2 * np.pi)
    # Nearer still, but beyond the limit.
    np.testing.assert_allclose(moveit.on_nearest_turn(q, seed - 6, wide), q - 2 * np.pi)
    np.testing.assert_array_equal(moveit.on_nearest_turn(q, seed, uniform.robot), q)
    sliding = replace(wide, prismatic=np.ones(7, dtype=bool))
    np.testing.assert_array_equal(moveit.on_nearest_turn(q, seed, sliding), q)


@pytest.mark.parametrize(
    ("order", "named"),
    [(1, True), (-1, True), (1, False)],
    ids=["own order", "other order", "not named"],
)
def test_several_tips_are_solved_together_and_mimic_joints_follow(
    messages, torso_solver, order, named
):
    robot = torso_solver.robot
    _, targets = reachable(robot, 3, seed=6)
    for target in targets:
        request = messages.Request()
        asked = request.ik_request
        asked.pose_stamped_vector = [stamped(pose, robot.base) for pose in target[::order]]
        asked.pose_stamped = stamped(np.eye(4), "not looked at")
        if named:
            asked.ik_link_names = TORSO_TIPS[::order]
            asked.ik_link_name = "not looked at"
        asked.robot_state.joint_state = JointState(
            name=["left_twist", *robot.joint_names],
            position=[9.9, *(0.5 * (robot.lower + robot.upper)).tolist()],
        )
        response = ask(torso_solver, request, messages.Response())
        assert response.error_code.val == Codes.SUCCESS
        found = joints_of(response, robot)
        assert Judge(robot).accepts(found, target)
        state = response.solution.joint_state
        elbow = found[robot.joint_names.index("left_elbow")]
        assert state.name[0] == "left_twist"
        assert state.position[0] == pytest.approx(0.25 - 0.5 * elbow)


def test_a_link_fixed_to_the_tip_and_a_tip_from_the_parameters(messages, uniform):
    hand = mik.load_robot("panda", tips=["panda_hand_tcp"])
    _, targets = reachable(hand, 3, seed=7)
    for target in targets:
        for link, parameters in (
            ("panda_hand_tcp", PARAMETERS),
            ("", replace(PARAMETERS, tip_link="panda_hand_tcp")),
        ):
            request = request_for(messages, target[0], READY, link=link)
            response = ask(uniform, request, messages.Response(), parameters)
            assert Judge(hand).accepts(joints_of(response, hand), target)


def test_collisions_are_avoided_when_asked(messages, uniform):
    robot, check = uniform.robot, SelfCollision(uniform.robot)
    q, targets = reachable(robot, 120, seed=9)
    touching = np.flatnonzero(check.in_collision(q))[:8]
    answered = 0
    for row in touching:
        request = request_for(messages, targets[row, 0], q[row])
        response = ask(uniform, request, messages.Response())
        assert check.in_collision(joints_of(response, robot))
        request.ik_request.avoid_collisions = True
        response = ask(uniform, request, messages.Response())
        if response.error_code.val == Codes.SUCCESS:
            answered += 1
            assert not check.in_collision(joints_of(response, robot))
            assert Judge(robot).accepts(joints_of(response, robot), targets[row])
    assert len(touching) == 8 and answered >= 3


def test_a_pose_that_only_touching_arms_reach_is_told_from_one_out_of_reach(messages, uniform):
    request = request_for(messages, Judge(uniform.robot).poses(FOLDED)[0], FOLDED)
    request.ik_request.avoid_collisions = True
    response = ask(uniform, request, messages.Response())
    assert response.error_code.val == Codes.NO_IK_SOLUTION
    assert "touches the robot itself" in response.error_code.message


def test_a_pose_out_of_reach_has_no_solution_and_no_state(messages, uniform):
    far = np.eye(4)
    far[:3, 3] = 3.0, 0.0, 0.5
    response = ask(uniform, request_for(messages, far, READY), messages.Response())
    assert response.error_code.val == Codes.NO_IK_SOLUTION
    assert "beyond its reach" in response.error_code.message
    assert response.error_code.source == "/arm/meanflow_ik"
    assert not response.solution.joint_state.name


def test_error_codes_without_a_message_take_the_number_alone(uniform):
    target = Judge(uniform.robot).poses(READY)[0]
    response = Response(error_code=OldErrorCodes())
    ask(uniform, request_for(stand_ins(), target, READY), response)
    assert vars(response.error_code) == {"val": Codes.SUCCESS}


@pytest.mark.parametrize(
    ("requested", "parameter", "searched"),
    [(0.0, 0.0, 0.0), (0.0, 0.4, 0.4), (0.2, 0.0, 0.2), (0.2, 0.4, 0.2), (-1.0, 0.4, 0.4)],
)
def test_the_timeout_bounds_the_search_for_a_first_solution(
    messages, uniform, requested, parameter, searched
):
    far = np.eye(4)
    far[:3, 3] = 3.0, 0.0, 0.5
    request = request_for(messages, far, READY)
    request.ik_request.timeout = Duration(
        sec=math.floor(requested), nanosec=int(1e9 * (requested % 1))
    )
    solve = Solve(uniform)
    ask(
        uniform,
        request,
        messages.Response(),
        replace(PARAMETERS, timeout=parameter),
        solve=solve,
    )
    (_, one_round, first), (query, rest, as_many_as_it_takes) = solve.asked
    assert (first, as_many_as_it_takes) == (1, None)
    assert one_round.timeout == searched
    assert rest.timeout == 0 if searched == 0 else 0 < rest.timeout < searched
    assert query.max_solutions == 1


def test_the_nearest_configuration_is_an_answer_only_where_the_request_asks_for_it(uniform):
    far = Judge(uniform.robot).poses(READY)[0]
    far[2, 3] += 3.0
    request = request_for(stand_ins(), far, READY)
    assert ask(uniform, request, Response()).error_code.val == Codes.NO_IK_SOLUTION
    request.ik_request.return_approximate_solution = True
    response = ask(uniform, request, Response())
    assert response.error_code.val == Codes.SUCCESS
    assert response.error_code.message.startswith("approximate: ")
    state = response.solution.joint_state
    q = np.array([state.position[state.name.index(name)] for name in uniform.robot.joint_names])
    assert uniform.robot.within_limits(q)
    miss = np.linalg.norm(Judge(uniform.robot).poses(q)[0][:3, 3] - far[:3, 3])
    assert f"{miss:.3g} m" in response.error_code.message


def test_the_free_axes_of_the_node_count(uniform):
    judge = Judge(uniform.robot)
    target = judge.poses(READY)[0]
    target[:3, 3] += 0.05
    request = request_for(stand_ins(), target, READY)
    free = replace(PARAMETERS, free_axes=("rx ry rz",))
    state = ask(uniform, request, Response(), free).solution.joint_state
    q = np.array([state.position[state.name.index(name)] for name in uniform.robot.joint_names])
    reached = judge.poses(q)[0]
    np.testing.assert_allclose(reached[:3, 3], target[:3, 3], atol=1e-5)
    assert np.abs(reached[:3, :3] - target[:3, :3]).max() > 1e-3


def test_a_pose_that_is_reached_takes_one_round(uniform):
    target = Judge(uniform.robot).poses(READY)[0]
    solve = Solve(uniform)
    request = request_for(stand_ins(), target, READY)
    request.ik_request.timeout = Duration(sec=5)
    ask(uniform, request, Response(), solve=solve)
    assert len(solve.asked) == 1
    query, _, max_rounds = solve.asked[0]
    found = uniform.solve(query.targets, 64, 1000, query.seed_state, max_rounds=max_rounds)
    assert found.starts == {"seed": 1, "uniform": 64}


def test_what_one_round_misses_the_search_finds(uniform):
    q, targets = reachable(uniform.robot, 10, seed=8)
    rounds = []
    for seed, target in zip(np.roll(q, 1, axis=0), targets, strict=True):
        solve, parameters = Solve(uniform), replace(PARAMETERS, num_samples=1)
        request = request_for(stand_ins(), target[0], seed)
        response = ask(uniform, request, Response(), parameters, solve=solve)
        assert Judge(uniform.robot).accepts(joints_of(response, uniform.robot), target)
        rounds.append(len(solve.asked))
    assert set(rounds) == {1, 2}


def test_a_timeout_longer_than_the_parameter_allows_is_cut(messages, uniform):
    request = request_for(messages, np.eye(4), READY)
    request.ik_request.timeout = Duration(sec=10**6)
    lookup = Frames(uniform.robot).T_base_frame
    query = moveit.query_from_request(request, uniform.robot, PARAMETERS, lookup, READY)
    assert query.timeout == moveit.LONGEST_TIMEOUT_S == 60.0


def test_a_seed_beyond_the_limits_starts_at_the_limit(messages, uniform):
    robot = uniform.robot
    beyond = READY.copy()
    beyond[3] = robot.lower[3] - 0.2
    request = request_for(messages, Judge(robot).poses(READY)[0], beyond)
    lookup = Frames(robot).T_base_frame
    query = moveit.query_from_request(request, robot, PARAMETERS, lookup, READY)
    assert query.seed[3] == beyond[3] and query.ik.seed_state[3] == robot.lower[3]
    assert ask(uniform, request, messages.Response()).error_code.val == Codes.SUCCESS


@pytest.mark.parametrize(
    ("group", "served", "accepted"),
    [("panda_arm", "", True), ("", "panda_arm", True), ("panda_arm", "panda_arm", True),
     ("hand", "panda_arm", False)],
)  # fmt: skip
def test_only_the_nodes_group_is_answered_for(messages, uniform, group, served, accepted):
    request = request_for(messages, Judge(uniform.robot).poses(READY)[0], READY)
    request.ik_request.group_name = group
    if accepted:
        response = ask(uniform, request, messages.Response(), group=served)
        assert response.error_code.val == Codes.SUCCESS
        return
    with pytest.raises(RequestError, match=r"'hand'.*'panda_arm'") as refusal:
        ask(uniform, request, messages.Response(), group=served)
    assert refusal.value.error_code == -15


@pytest.mark.parametrize("kind", moveit.CONSTRAINTS)
def test_constraints_are_refused_rather_than_ignored(messages, uniform, kind):
    request = request_for(messages, Judge(uniform.robot).poses(READY)[0], READY)
    request.ik_request.constraints.name = "a name alone constrains nothing"
    assert ask(uniform, request, messages.Response()).error_code.val == Codes.SUCCESS
    setattr(request.ik_request.constraints, kind, [messages.constraint(kind)])
    with pytest.raises(RequestError, match=kind) as refusal:
        ask(uniform, request, messages.Response())
    assert refusal.value.error_code == Codes.INVALID_GOAL_CONSTRAINTS


def pose_of(request):
    return request.ik_request.pose_stamped


def state_of(request):
    return request.ik_request.robot_state.joint_state


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (lambda r: setattr(r.ik_request, "ik_link_name", "nose"), Codes.INVALID_LINK_NAME, "nose"),
        (
            lambda r: setattr(r.ik_request, "ik_link_names", ["panda_link8", "panda_hand"]),
            Codes.INVALID_LINK_NAME,
            "2 links .* 1 poses",
        ),
        (
            lambda r: setattr(pose_of(r).header, "frame_id", "moon"),
            Codes.FRAME_TRANSFORM_FAILURE,
            "moon",
        ),
        (
            lambda r: setattr(pose_of(r).pose.orientation, "w", 9.0),
            Codes.INVALID_GOAL_CONSTRAINTS,
            "length",
        ),
        (
            lambda r: setattr(pose_of(r).pose.position, "x", math.nan),
            Codes.INVALID_GOAL_CONSTRAINTS,
            "not finite",
        ),
        (
            lambda r: state_of(r).position.pop(),
            Codes.INVALID_ROBOT_STATE,
            "9 names and 8 positions",
        ),
        (
            lambda r: setattr(state_of(r), "velocity", [0.0]),
            Codes.INVALID_ROBOT_STATE,
            "9 names, 1 velocities and 0 efforts",
        ),
        (
            lambda r: state_of(r).position.__setitem__(1, math.inf),
            Codes.INVALID_ROBOT_STATE,
            "not finite",
        ),
        (
            lambda r: state_of(r).name.__setitem__(0, "panda_joint1"),
            Codes.INVALID_ROBOT_STATE,
            "panda_joint1 more than once",
        ),
    ],
    ids=["link", "links", "frame", "quaternion", "position", "lengths", "velocity", "inf", "twice"],
)
def test_bad_requests_are_refused_with_a_code_and_a_reason(messages, uniform, change, code, words):
    request = request_for(messages, Judge(uniform.robot).poses(READY)[0], READY)
    change(request)
    with pytest.raises(RequestError, match=words) as refusal:
        ask(uniform, request, messages.Response())
    assert refusal.value.error_code == code


def test_a_bad_joint_of_another_group_is_none_of_our_business(messages, uniform):
    request = request_for(messages, Judge(uniform.robot).poses(READY)[0], READY)
    state_of(request).position[0] = math.nan
    response = ask(uniform, request, messages.Response())
    assert response.error_code.val == Codes.SUCCESS
    assert math.isnan(response.solution.joint_state.position[0])


def test_kinematics_yaml_names_the_plugin_and_the_service():
    folder = Path(__file__).parents[2] / "config" / "moveit"
    groups = yaml.safe_load((folder / "kinematics.yaml").read_text())
    assert list(groups) == ["panda_arm"]
    settings = groups["panda_arm"]
    assert settings["kinematics_solver"] == "srv_kinematics_plugin/SrvKinematicsPlugin"
    name = settings["kinematics_solver_service_name"]
    assert name == moveit.NAME.replace("~", "/meanflow_ik")
