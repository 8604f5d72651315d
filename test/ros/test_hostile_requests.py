# SPDX-License-Identifier: Apache-2.0
"""Requests of somebody who means harm: short refusals with their own code, and the node goes on."""

import time

import numpy as np
import pytest
from geometry_msgs.msg import PoseArray, PoseStamped
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from meanflow_ik_ros.srv import GetIKPath, GetIKSolutions, GetIKSolutionsBatch
from oracles import Judge
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.msg import ParameterValue
from rcl_interfaces.srv import GetParameters, SetParameters, SetParametersAtomically
from rclpy.parameter import Parameter
from ros_user import Q, pose_array
from sensor_msgs.msg import JointState

from meanflow_ik_core.bounds import (
    MOST_JOINT_NAMES,
    MOST_NAME,
    MOST_OBJECTIVES,
    MOST_PARAMETERS,
    MOST_TIPS,
)
from meanflow_ik_ros.library_services import with_few_parameters
from meanflow_ik_ros.messages.poses import pose_message
from meanflow_ik_ros.services import batch, path, solutions

Codes = GetIKSolutions.Response
LONG = "x" * 10_000_000
BOMB = "[&a [x,x,x,x,x,x,x,x,x,x]" + "".join(
    f", &{chr(98 + i)} [" + ",".join([f"*{chr(97 + i)}"] * 10) + "]" for i in range(9)
)

pytestmark = pytest.mark.usefixtures("ros")

# What is sent beside a right target, and the code that refuses it.
REFUSED = {
    "aliases": ({"objectives": [BOMB + "]"]}, Codes.INVALID_GOAL_CONSTRAINTS),
    "deep YAML": ({"objectives": ["[" * 4000]}, Codes.INVALID_GOAL_CONSTRAINTS),
    "a long objective": ({"objectives": [LONG]}, Codes.INVALID_GOAL_CONSTRAINTS),
    "many digits": (
        {"objectives": ["{name: posture, weight: " + "9" * 4000 + "}"]},
        Codes.INVALID_GOAL_CONSTRAINTS,
    ),
    "many objectives": (
        {"objectives": ["manipulability"] * 100_000},
        Codes.INVALID_GOAL_CONSTRAINTS,
    ),
    "one objective too many": (
        {"objectives": ["manipulability"] * (MOST_OBJECTIVES + 1)},
        Codes.INVALID_GOAL_CONSTRAINTS,
    ),
    "a long link": ({"tip_links": [LONG]}, Codes.INVALID_LINK_NAME),
    "many links": ({"tip_links": ["panda_link8"] * (MOST_TIPS + 1)}, Codes.INVALID_LINK_NAME),
    "a link at the bound": ({"tip_links": ["x" * MOST_NAME]}, Codes.INVALID_LINK_NAME),
    "long axes": ({"free_axes": [LONG]}, Codes.INVALID_GOAL_CONSTRAINTS),
    "a long joint": (
        {"seed_state": JointState(name=[LONG], position=[0.0])},
        Codes.INVALID_ROBOT_STATE,
    ),
    "many joints": (
        {"seed_state": JointState(name=["x"] * (MOST_JOINT_NAMES + 1))},
        Codes.INVALID_ROBOT_STATE,
    ),
    "unknown joints": (
        {"seed_state": JointState(name=["x" * 200] * 4000, position=[0.0] * 4000)},
        Codes.INVALID_ROBOT_STATE,
    ),
    "many positions": ({"seed_state": JointState(position=[0.0] * 100_000)}, -17),
}


def right(node, **fields) -> GetIKSolutions.Request:
    robot = node.desk.robot
    target = pose_message(robot.forward(Q)[0], robot.base)
    return GetIKSolutions.Request(targets=[target], **fields)


def refused(node, answer, request, code, most_s=0.5):
    """That a request is answered with a code, in time and in a short line, and the next is."""
    failures = node.desk.statistics.failures()
    began = time.process_time()
    response = answer(node.desk, request, _empty(request))
    assert time.process_time() - began < most_s
    assert response.error_code == code, response.message
    assert 0 < len(response.message) < 300 and "\n" not in response.message
    assert node.desk.statistics.failures() == failures
    after = solutions.answer(node.desk, right(node), Codes())
    assert after.error_code == Codes.SUCCESS
    return response


def _empty(request):
    kinds = {
        GetIKSolutions.Request: GetIKSolutions,
        GetIKSolutionsBatch.Request: GetIKSolutionsBatch,
        GetIKPath.Request: GetIKPath,
    }
    return kinds[type(request)].Response()


@pytest.mark.parametrize("name", REFUSED)
def test_a_hostile_request_is_refused_by_its_code_and_the_next_is_answered(panda_node, name):
    fields, code = REFUSED[name]
    refused(panda_node, solutions.answer, right(panda_node, **fields), code)


def test_a_long_frame_is_refused_before_it_is_looked_up(panda_node):
    robot = panda_node.desk.robot
    single = right(panda_node)
    single.targets[0].header.frame_id = LONG
    many = GetIKSolutionsBatch.Request(targets=pose_array(robot.forward(Q), LONG))
    way = GetIKPath.Request(waypoints=pose_array(robot.forward(Q), LONG))
    code = Codes.FRAME_TRANSFORM_FAILURE
    for answer, request in ((solutions.answer, single), (batch.answer, many), (path.answer, way)):
        assert str(len(LONG)) in refused(panda_node, answer, request, code).message


def test_poses_and_times_are_counted_before_they_are_converted(panda_node):
    robot = panda_node.desk.robot
    (pose,) = pose_array(robot.forward(Q), robot.base).poses
    poses = PoseArray(poses=[pose] * 1_000_000)
    poses.header.frame_id = robot.base
    code = Codes.INVALID_GOAL_CONSTRAINTS
    many = GetIKSolutionsBatch.Request(targets=poses)
    assert "max_batch_targets" in refused(panda_node, batch.answer, many, code).message
    way = GetIKPath.Request(waypoints=poses)
    assert "max_batch_targets" in refused(panda_node, path.answer, way, code).message
    timed = GetIKPath.Request(
        waypoints=pose_array(robot.forward(Q), robot.base), times=np.arange(1e6)
    )
    assert "1000000 times" in refused(panda_node, path.answer, timed, code).message


def test_more_targets_than_a_robot_has_tips_are_counted_alone(panda_node):
    request = GetIKSolutions.Request(targets=[PoseStamped()] * 100_000)
    code = Codes.INVALID_GOAL_CONSTRAINTS
    assert "100000 targets" in refused(panda_node, solutions.answer, request, code).message


@pytest.mark.parametrize(
    "name, value",
    [
        ("objectives", [BOMB + "]"]),
        ("objectives", ["manipulability"] * 1000),
        ("objectives", [LONG]),
        ("free_axes", ["x " * 50_000_000]),
        ("free_axes", ["rx"] * 1_000_000),
        ("free_axes", LONG),
        ("tip_link", LONG),
        ("select", LONG),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 20 else "",
)
def test_a_hostile_parameter_is_refused_in_a_short_line(panda_node, name, value):
    began = time.process_time()
    (result,) = panda_node.set_parameters([Parameter(name, value=value)])
    assert not result.successful and 0 < len(result.reason) < 300
    assert time.process_time() - began < 2
    response = solutions.answer(panda_node.desk, right(panda_node), Codes())
    q = np.array(response.solutions[0].joint_state.position)
    assert Judge(panda_node.desk.robot).accepts(q, panda_node.desk.robot.forward(Q))


def test_requests_for_many_parameters_are_not_answered(panda_node):
    asked, most = [], MOST_PARAMETERS

    def answer(request, response):
        asked.append(request)
        return response

    bounded = with_few_parameters(answer)
    many = [ParameterMessage(name="seed")] * (most + 1)
    together = SetParametersAtomically
    refused = bounded(together.Request(parameters=many), together.Response())
    assert not refused.result.successful and str(most) in refused.result.reason
    bounded(SetParameters.Request(parameters=many), SetParameters.Response())
    bounded(GetParameters.Request(names=["x"] * (most + 1)), GetParameters.Response())
    assert not asked
    bounded(SetParameters.Request(parameters=many[:most]), SetParameters.Response())
    assert len(asked) == 1
    # They are the node's own services, which answer what rclpy cannot read as well.
    (own,) = [one for one in panda_node.services if one.srv_type is together]
    unknown = [ParameterMessage(name="seed", value=ParameterValue(type=229))]
    for given in (many, unknown):
        refused = own.callback(together.Request(parameters=given), together.Response())
        assert not refused.result.successful and refused.result.reason


def test_the_checks_cost_an_ordinary_request_under_20_us(panda_node):
    from meanflow_ik_ros.messages.sizes import check_sizes

    robot = panda_node.desk.robot
    seed = JointState(name=list(robot.joint_names), position=Q)
    request = right(panda_node, seed_state=seed, tip_links=["panda_link8"])
    spent = []
    for _ in range(50):
        began = time.process_time()
        for _ in range(100):
            check_sizes(request)
        spent.append((time.process_time() - began) / 100)
    assert min(spent) < 20e-6


@pytest.mark.parametrize(
    "label, number",
    [(LONG, 0), (LONG, 1), ("a\n[FATAL] [0] [n]: forged", 0), ("", 200), ("activate", 0)],
    ids=["long", "long and an id", "two lines", "id", "not now"],
)
def test_a_transition_that_is_not_allowed_is_refused_in_a_short_line(
    panda_node, capfd, label, number
):
    (service,) = [one for one in panda_node.services if one.srv_type is ChangeState]
    asked = ChangeState.Request(transition=Transition(label=label, id=number))
    for _ in range(3):
        assert not service.callback(asked, ChangeState.Response()).success
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) <= 1 and all(len(line) < 400 for line in lines)
    assert panda_node.desk.state_name == "active"


@pytest.mark.parametrize(
    "text", [LONG, "", "RIHS01_\n[FATAL] [0] [n]: forged", "RIHS01_" + "0" * 64]
)
def test_a_type_hash_is_not_repeated_in_the_log(panda_node, capfd, text):
    service = next(s for s in panda_node.services if s.service_name.endswith("type_description"))
    request = service.srv_type.Request(type_name="x", type_hash=text)
    response = service.callback(request, service.srv_type.Response())
    assert not response.successful and 0 < len(response.failure_reason) < 300
    assert not capfd.readouterr().err
