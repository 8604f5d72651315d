# SPDX-License-Identifier: Apache-2.0
"""Messages to core types and back, judged by Pinocchio and by what was put in."""

import array
import dataclasses
from types import SimpleNamespace

import numpy as np
import pinocchio as pin
import pytest
from builtin_interfaces.msg import Time
from example_robots import TORSO_TIPS
from geometry_msgs.msg import PoseStamped
from meanflow_ik_ros.srv import GetIKSolutions
from oracles import Judge, fixed_offset
from sensor_msgs.msg import JointState

import meanflow_ik_core as mik
from meanflow_ik_ros.current_state import CurrentState
from meanflow_ik_ros.messages import joints, poses
from meanflow_ik_ros.messages.errors import Codes, RequestError, response_from_error
from meanflow_ik_ros.parameters import NodeParameters
from meanflow_ik_ros.services import solutions
from meanflow_ik_ros.topics import goals
from meanflow_ik_ros.topics.frames import Frames

MIDDLE = np.array([0.0, 0.1, 0.2, -1.5, 0.3, 1.8, 0.4])
PARAMETERS = NodeParameters()


def random_pose(random: np.random.Generator) -> pin.SE3:
    return pin.SE3(pin.exp3(random.normal(size=3)), random.normal(size=3))


def stamped(pose: pin.SE3, frame_id: str = "panda_link0") -> PoseStamped:
    message = PoseStamped()
    message.header.frame_id = frame_id
    message.header.stamp = Time(sec=7, nanosec=8)
    position, orientation = message.pose.position, message.pose.orientation
    position.x, position.y, position.z = pose.translation.tolist()
    quaternion = pin.Quaternion(pose.rotation).coeffs().tolist()
    orientation.x, orientation.y, orientation.z, orientation.w = quaternion
    return message


def query(request, robot, parameters=PARAMETERS, current=MIDDLE):
    lookup = Frames(robot).T_base_frame
    return solutions.query_from_request(request, robot, parameters, lookup, current)


def request_of(*targets: PoseStamped, **fields) -> GetIKSolutions.Request:
    return GetIKSolutions.Request(targets=list(targets), **fields)


def refusal(code: int, *words: str):
    """Context that asserts a RequestError with this code and these words in its message."""

    class Refused:
        def __enter__(self):
            return self

        def __exit__(self, kind, error, trace):
            assert kind is RequestError, f"expected RequestError, got {kind}: {error}"
            assert error.error_code == code
            missing = [word for word in words if word not in str(error)]
            assert not missing, f"{missing} not in {error}"
            return True

    return Refused()


def test_a_target_becomes_its_matrix(panda):
    random = np.random.default_rng(0)
    for _ in range(200):
        pose = random_pose(random)
        result = query(request_of(stamped(pose)), panda)
        np.testing.assert_allclose(result.targets, pose.homogeneous[None, None], atol=1e-14)


def test_q_and_minus_q_are_the_same_target(panda):
    message = stamped(random_pose(np.random.default_rng(1)))
    first = query(request_of(message), panda).targets
    turn = message.pose.orientation
    turn.x, turn.y, turn.z, turn.w = -turn.x, -turn.y, -turn.z, -turn.w
    np.testing.assert_array_equal(query(request_of(message), panda).targets, first)


def test_pose_message_is_the_inverse_of_matrix_from_pose():
    random = np.random.default_rng(2)
    for _ in range(200):
        matrix = random_pose(random).homogeneous
        message = poses.pose_message(matrix, "world")
        assert message.header.frame_id == "world"
        np.testing.assert_allclose(poses.matrix_from_pose(message), matrix, atol=1e-14)


@pytest.mark.parametrize("link", ["panda_link8", "panda_hand", "panda_hand_tcp"])
def test_a_frame_fixed_to_the_tip_is_a_valid_target(panda, link):
    pose = random_pose(np.random.default_rng(3))
    expected = pose * fixed_offset(panda, link, "panda_link8")
    for fields, parameters in (
        ({"tip_links": [link]}, PARAMETERS),
        ({}, NodeParameters(tip_link=link)),
    ):
        result = query(request_of(stamped(pose), **fields), panda, parameters)
        np.testing.assert_allclose(result.targets[0, 0], expected.homogeneous, atol=1e-14)


def test_targets_of_two_arms_are_put_into_the_order_of_the_robot(torso):
    random = np.random.default_rng(4)
    left, right = random_pose(random), random_pose(random)
    current = 0.5 * (torso.lower + torso.upper)
    messages = [stamped(left, torso.base), stamped(right, torso.base)]
    plain = query(request_of(*messages), torso, current=current)
    swapped = query(request_of(*messages[::-1], tip_links=TORSO_TIPS[::-1]), torso, current=current)
    expected = np.stack([left.homogeneous, right.homogeneous])[None]
    np.testing.assert_allclose(plain.targets, expected, atol=1e-14)
    np.testing.assert_allclose(swapped.targets, expected, atol=1e-14)
    assert list(swapped.poses) == messages[::-1]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("part", ["position", "orientation"])
@pytest.mark.parametrize("axis", ["x", "y", "z"])
def test_a_pose_that_is_not_finite_is_refused(panda, bad, part, axis):
    message = stamped(pin.SE3.Identity())
    setattr(getattr(message.pose, part), axis, bad)
    with refusal(Codes.INVALID_GOAL_CONSTRAINTS, "not finite", str(bad)):
        query(request_of(message), panda)


@pytest.mark.parametrize("length", [0.0, 1e-9, 0.5, 0.9985, 1.0015, 2.0])
def test_a_quaternion_far_from_unit_length_is_refused(panda, length):
    message = stamped(pin.SE3.Identity())
    message.pose.orientation.w = length
    with refusal(Codes.INVALID_GOAL_CONSTRAINTS, "length", "expected 1"):
        query(request_of(message), panda)


@pytest.mark.parametrize("length", [0.9991, 1.0009])
def test_a_quaternion_near_unit_length_is_normalised(panda, length):
    pose = random_pose(np.random.default_rng(5))
    message = stamped(pose)
    turn = message.pose.orientation
    turn.x, turn.y, turn.z, turn.w = (length * v for v in (turn.x, turn.y, turn.z, turn.w))
    np.testing.assert_allclose(
        query(request_of(message), panda).targets[0, 0], pose.homogeneous, atol=1e-14
    )


@pytest.mark.parametrize("count", [0, 2, 3])
def test_a_wrong_number_of_targets_is_refused(panda, count):
    targets = [stamped(pin.SE3.Identity())] * count
    with refusal(Codes.INVALID_GOAL_CONSTRAINTS, f"{count} targets", "panda_link8"):
        query(request_of(*targets), panda)


def test_a_target_for_one_of_two_arms_leaves_the_other_open(torso):
    current = 0.5 * (torso.lower + torso.upper)
    pose = random_pose(np.random.default_rng(6))
    target = stamped(pose, torso.base)
    for tip, link in enumerate(TORSO_TIPS):
        asked = query(request_of(target, tip_links=[link]), torso, current=current)
        np.testing.assert_allclose(asked.targets[0, tip], pose.homogeneous, atol=1e-14)
        assert asked.task.tips == (tip,)
        goal = asked.task.goal(asked.targets)
        assert goal["tips"] == (link,)
        np.testing.assert_array_equal(goal["targets"], asked.targets[:, [tip]])
    for links in ([], TORSO_TIPS):
        with refusal(Codes.INVALID_GOAL_CONSTRAINTS, "1 targets", *TORSO_TIPS):
            query(request_of(target, tip_links=links), torso, current=current)


def test_free_axes_belong_to_the_links_in_their_order(torso):
    current = 0.5 * (torso.lower + torso.upper)
    targets = [stamped(random_pose(np.random.default_rng(seed)), torso.base) for seed in (7, 8)]
    request = request_of(*targets, tip_links=TORSO_TIPS[::-1], free_axes=["rx ry rz", ""])
    asked = query(request, torso, current=current).task
    assert asked.free_axes == {TORSO_TIPS[1]: "rx ry rz"}
    assert asked.tips is None
    for free, words in (
        (["rz"], ["1 free_axes", "2 tip links"]),
        (["rz", "roll"], ["'roll'", "x y z rx ry rz"]),
        (["x y z rx ry rz"] * 2, ["nothing is asked for"]),
    ):
        with refusal(Codes.INVALID_GOAL_CONSTRAINTS, *words):
            query(request_of(*targets, free_axes=free), torso, current=current)


def test_free_axes_are_those_of_the_link_and_where_none_are_named_those_of_the_node(panda):
    target = stamped(random_pose(np.random.default_rng(9)))
    for link, free in (("panda_hand_tcp", "rx ry rz"), ("panda_hand", "rx"), ("panda_link8", "x")):
        request = request_of(target, tip_links=[link], free_axes=[free])
        assert query(request, panda).task.free_axes == {link: free}
        request.free_axes = []
        node = dataclasses.replace(PARAMETERS, free_axes=(free,))
        assert query(request, panda, node).task.free_axes == {link: free}
        request.free_axes = [""]
        assert query(request, panda, node).task.free_axes is None
    too_many = dataclasses.replace(PARAMETERS, free_axes=("rz", "rz"))
    with pytest.raises(mik.OptionError, match=r"2 texts.*panda_link8"):
        query(request_of(target), panda, too_many)


def test_objectives_come_as_names_or_yaml(panda):
    target = stamped(random_pose(np.random.default_rng(10)))
    texts = ["manipulability", "{name: posture, weight: 2.0}"]
    asked = query(request_of(target, objectives=texts), panda)
    assert asked.task.objectives == ("manipulability", {"name": "posture", "weight": 2.0})
    assert query(request_of(target), panda).task.objectives == ()
    for text, word in (("beauty", "manipulability"), ("{name: posture, weigth: 2}", "weigth"),
                       ("{name: [", "YAML"), ("17", "17")):  # fmt: skip
        with refusal(Codes.INVALID_GOAL_CONSTRAINTS, word):
            query(request_of(target, objectives=[text]), panda)


@pytest.mark.parametrize("link", ["nose", "", "panda_link3", "panda_link0"])
def test_an_unknown_tip_link_is_refused_with_those_that_exist(panda, link):
    with refusal(Codes.INVALID_LINK_NAME, repr(link), "panda_link8", "panda_hand_tcp"):
        query(request_of(stamped(pin.SE3.Identity()), tip_links=[link]), panda)


def test_a_tip_named_twice_is_refused(panda):
    target = stamped(pin.SE3.Identity())
    with refusal(Codes.INVALID_LINK_NAME, "more than once"):
        query(request_of(target, target, tip_links=["panda_hand", "panda_link8"]), panda)


@pytest.mark.parametrize("frame_id", ["map", "panda_link5", "/panda_link0"])
def test_an_unknown_frame_is_refused_with_those_that_exist(panda, frame_id):
    with refusal(Codes.FRAME_TRANSFORM_FAILURE, repr(frame_id), "panda_link0"):
        query(request_of(stamped(pin.SE3.Identity(), frame_id)), panda)


def test_a_frame_fixed_to_the_base_is_transformed(tmp_path):
    urdf = tmp_path / "on_a_table.urdf"
    urdf.write_text(
        """<robot name="on_a_table"><link name="table"/><link name="plate"/><link name="arm"/>
        <joint name="mount" type="fixed"><parent link="table"/><child link="plate"/>
        <origin xyz="0.1 0.2 0.3" rpy="0.4 0.5 0.6"/></joint>
        <joint name="turn" type="revolute"><parent link="plate"/><child link="arm"/>
        <origin xyz="0 0 0.5"/><axis xyz="0 0 1"/>
        <limit lower="-1" upper="1" velocity="1" effort="1"/></joint></robot>"""
    )
    robot = mik.load_robot(urdf, base="plate", tips=["arm"])
    pose = random_pose(np.random.default_rng(6))
    mount = pin.SE3(pin.rpy.rpyToMatrix(0.4, 0.5, 0.6), np.array([0.1, 0.2, 0.3]))
    result = query(request_of(stamped(pose, "table")), robot, current=np.zeros(1))
    np.testing.assert_allclose(
        result.targets[0, 0], (mount.inverse() * pose).homogeneous, atol=1e-14
    )


def seed_of(panda, **changes) -> JointState:
    names, positions = list(panda.joint_names), MIDDLE.tolist()
    for name, value in changes.items():
        positions[names.index(name)] = value
    return JointState(name=names, position=positions)


def test_a_seed_is_put_into_the_order_of_the_robot(panda):
    seed = seed_of(panda)
    order = np.random.default_rng(7).permutation(7).tolist()
    seed.name = [seed.name[i] for i in order]
    seed.position = array.array("d", [seed.position[i] for i in order])
    result = query(request_of(stamped(pin.SE3.Identity()), seed_state=seed), panda)
    np.testing.assert_array_equal(result.seed_state, MIDDLE)


def test_without_a_seed_the_current_state_is_taken(panda):
    current = MIDDLE + 0.05
    result = query(request_of(stamped(pin.SE3.Identity())), panda, current=current)
    np.testing.assert_array_equal(result.seed_state, current)


def test_bad_seeds_are_refused(panda):
    good = seed_of(panda)
    finger, twice, unpaired, nameless = (seed_of(panda) for _ in range(4))
    finger.name, finger.position = ["elbow"], [0.0]
    twice.name, twice.position = [*good.name, good.name[0]], [*good.position, 0.0]
    unpaired.position = good.position[1:]
    nameless.name = []
    cases = [
        (finger, "unknown joints, elbow"),
        (twice, "more than once"),
        (unpaired, "7 names and 6 positions"),
        (nameless, "0 names and 7 positions"),
        (seed_of(panda, panda_joint4=float("nan")), "not finite"),
        (seed_of(panda, panda_joint4=-float("inf")), "not finite"),
        (seed_of(panda, panda_joint4=0.1), "panda_joint4 0.1 (limits -3.0718 to -0.0698)"),
        (seed_of(panda, panda_joint1=-3.0), "panda_joint1 -3 (limits -2.8973 to 2.8973)"),
    ]
    for seed, words in cases:
        with refusal(Codes.INVALID_ROBOT_STATE, words):
            query(request_of(stamped(pin.SE3.Identity()), seed_state=seed), panda)


@pytest.mark.parametrize("beyond", [5e-7, 2e-6, 0.04])
def test_a_seed_a_little_past_its_limit_is_taken_at_the_limit(panda, beyond):
    seed = seed_of(panda, panda_joint6=3.7525 + beyond)
    result = query(request_of(stamped(pin.SE3.Identity()), seed_state=seed), panda)
    assert result.seed_state[5] == 3.7525


def test_joints_that_a_seed_lacks_are_the_current_ones_and_others_are_passed_over(panda):
    seed = JointState(name=["finger", "panda_joint2"], position=[0.04, 0.25])
    current = MIDDLE + 0.05
    result = query(request_of(stamped(pin.SE3.Identity()), seed_state=seed), panda, current=current)
    expected = current.copy()
    expected[1] = 0.25
    np.testing.assert_array_equal(result.seed_state, expected)


def test_continuous_joints_of_a_seed_and_of_joint_states_keep_their_turn(torso):
    assert torso.continuous.any()
    middle = 0.5 * (torso.lower + torso.upper)
    q = middle + 4 * np.pi * torso.continuous
    state = JointState(name=list(torso.joint_names), position=q.tolist())
    np.testing.assert_array_equal(joints.seed_from_joint_state(state, torso, middle), q)
    current = CurrentState(torso, None)
    current.receive(state)
    np.testing.assert_array_equal(current.q, q)


@pytest.mark.parametrize("far", [1.1e5, -1e6, 1e300])
def test_joint_states_farther_than_any_joint_turns_are_passed_over_with_a_line(torso, far):
    said = []
    current = CurrentState(torso, SimpleNamespace(warning=lambda line, **_: said.append(line)))
    q = 0.5 * (torso.lower + torso.upper)
    q[torso.continuous] += 1.0
    current.receive(JointState(name=list(torso.joint_names), position=q.tolist()))
    wrong = np.where(torso.continuous, far, torso.lower)
    current.receive(JointState(name=list(torso.joint_names), position=wrong.tolist()))
    np.testing.assert_array_equal(current.q, q)
    (line,) = said
    assert "joint_states: passed over" in line and f"{far:g}" in line


@pytest.mark.parametrize("name", ["num_samples", "max_solutions"])
def test_counts_of_zero_mean_the_parameter_and_absurd_ones_are_refused(panda, name):
    parameters = NodeParameters(num_samples=11, max_solutions=12, max_num_samples=500)
    target = stamped(pin.SE3.Identity())
    assert getattr(query(request_of(target), panda, parameters), name) == getattr(parameters, name)
    for count in (1, 500):
        assert getattr(query(request_of(target, **{name: count}), panda, parameters), name) == count
    for count in (501, 2**32 - 1):
        with refusal(Codes.INVALID_GOAL_CONSTRAINTS, name, str(count), "500"):
            query(request_of(target, **{name: count}), panda, parameters)


def test_joint_states_of_other_robots_are_passed_over(panda):
    state = JointState(
        name=["finger", "panda_joint2", "panda_joint1"], position=[0.01, 0.2, float("nan")]
    )
    assert joints.known_positions(state, panda.joint_names) == {"panda_joint2": 0.2}
    state.position = [0.01, 0.2]
    assert joints.known_positions(state, panda.joint_names) == {}


def solve(solver, result_query, parameters=PARAMETERS, max_solutions=8):
    result = solver.solve(
        **result_query.task.goal(result_query.targets @ result_query.T_tip_link),
        num_samples=64,
        max_solutions=max_solutions,
        seed_state=result_query.seed_state,
        seed=0,
    )
    robot, empty = solver.robot, GetIKSolutions.Response()
    return solutions.response_from_result(result_query, result, robot, parameters, 0.25, empty)


@pytest.mark.parametrize("link", ["panda_link8", "panda_hand_tcp"])
def test_the_answer_carries_valid_solutions_best_first_with_their_errors(panda, uniform, link):
    judge = Judge(panda)
    goal = judge.link(MIDDLE + 0.1, link)
    result_query = query(request_of(stamped(goal), tip_links=[link]), panda)
    response = solve(uniform, result_query)
    assert (response.error_code, response.message) == (Codes.SUCCESS, "")
    assert response.total_time == 0.25
    assert len(response.solutions) == 8
    costs = [solution.cost for solution in response.solutions]
    assert costs == sorted(costs)
    for solution in response.solutions:
        state = solution.joint_state
        assert solution.valid
        assert state.name == list(panda.joint_names)
        assert state.header.frame_id == "panda_link0"
        assert state.header.stamp == Time(sec=7, nanosec=8)
        q = np.array(state.position)
        miss = judge.link(q, link).actInv(goal)
        np.testing.assert_allclose(
            solution.position_error, [np.linalg.norm(miss.translation)], atol=1e-12
        )
        np.testing.assert_allclose(
            solution.orientation_error, [np.linalg.norm(pin.log3(miss.rotation))], atol=1e-12
        )
        assert max(*solution.position_error, *solution.orientation_error) <= 1e-5
        assert solution.distance == pytest.approx(np.linalg.norm(q - MIDDLE), abs=1e-9)


def test_an_answer_with_fewer_solutions_than_asked_for_says_how_many_and_why(panda, uniform):
    request = request_of(stamped(Judge(panda).link(MIDDLE, "panda_link8")))
    request.max_solutions = 2000
    asked = query(request, panda)
    result = uniform.solve(asked.targets, max_solutions=2000, seed=0)
    response = solutions.response_from_result(
        asked, result, panda, NodeParameters(), 0.0, GetIKSolutions.Response()
    )
    assert response.error_code == Codes.SUCCESS
    count = len(response.solutions)
    assert response.message.startswith(f"{count} solutions of the 2000 asked for: 1024 starts")


def test_an_unreachable_target_is_answered_with_near_misses_and_honest_errors(panda, uniform):
    far = pin.SE3(np.eye(3), np.array([2.0, 0.0, 0.5]))
    response = solve(uniform, query(request_of(stamped(far)), panda), max_solutions=64)
    assert response.error_code == Codes.NO_IK_SOLUTION
    assert "beyond its reach" in response.message
    assert len(response.solutions) == 32  # of 64
    for solution in response.solutions:
        reached = panda.forward(np.array(solution.joint_state.position))[0]
        assert not solution.valid
        # The arm is 0.855 m long from the shoulder, and the target 2 m away.
        assert solution.position_error[0] > 1.0
        miss = np.linalg.norm(reached[:3, 3] - far.translation)
        assert solution.position_error[0] == pytest.approx(miss, abs=1e-12)


def test_tolerances_are_those_at_the_link_that_was_asked_for(panda, uniform):
    """A tip may be within tolerance where a link at the end of a lever is not."""
    goal = Judge(panda).link(MIDDLE + 0.1, "panda_hand_tcp")
    rough = NodeParameters(position_tolerance=1e-4, orientation_tolerance=0.2)
    turned = goal * pin.SE3(pin.exp3(np.array([0.15, 0.0, 0.0])), np.zeros(3))
    asked = query(request_of(stamped(turned), tip_links=["panda_hand_tcp"]), panda, rough)
    result = uniform.solve(
        **asked.task.goal(asked.targets @ asked.T_tip_link), seed=0,
        position_tolerance=1e-4, orientation_tolerance=0.2,
    )  # fmt: skip
    response = solutions.response_from_result(
        asked, result, panda, rough, 0.0, GetIKSolutions.Response()
    )
    assert response.error_code == Codes.SUCCESS
    for solution in response.solutions:
        reached = Judge(panda).link(np.array(solution.joint_state.position), "panda_hand_tcp")
        miss = np.linalg.norm(reached.translation - turned.translation)
        assert solution.position_error[0] == pytest.approx(miss, abs=1e-12) and miss <= 1e-4


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (mik.TargetError("t"), Codes.INVALID_GOAL_CONSTRAINTS),
        (mik.SeedError("s"), Codes.INVALID_ROBOT_STATE),
        (mik.LinkError("l"), Codes.INVALID_LINK_NAME),
        (mik.OptionError("o"), Codes.FAILURE),
        (ZeroDivisionError("z"), Codes.FAILURE),
        (RequestError(-16, "r"), -16),
    ],
)
def test_errors_of_the_core_have_their_code(error, code):
    response = response_from_error(error, GetIKSolutions.Response())
    assert (response.error_code, response.message) == (code, str(error))
    assert not response.solutions


def test_candidates_carry_the_goals_stamp_and_the_solutions(panda, uniform):
    message = stamped(pin.SE3(panda.forward(MIDDLE)[0]))
    result_query = query(request_of(message), panda)
    response = solve(uniform, result_query)
    candidates = goals.candidates_from_response(result_query, response, panda)
    assert candidates.header.stamp == message.header.stamp
    assert candidates.header.frame_id == "panda_link0"
    assert candidates.targets == [message]
    assert candidates.solutions == response.solutions
