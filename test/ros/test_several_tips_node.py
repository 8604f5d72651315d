# SPDX-License-Identifier: Apache-2.0
"""The running node with two arms: goals for both, for one, and with axes that may be anything."""

import logging
from pathlib import Path

import numpy as np
import pytest
import rclpy
import torch
from geometry_msgs.msg import Pose, PoseArray, PoseStamped
from meanflow_ik_ros.msg import IKSolutionArray
from meanflow_ik_ros.srv import GetIKSolutions, GetIKSolutionsBatch
from oracles import Judge
from rclpy.parameter import Parameter
from ros_user import LATCHED, MANY, User, make_node, spun
from std_msgs.msg import Header
from visualization_msgs.msg import Marker, MarkerArray

from meanflow_ik_core.collision.clearance import SphereModel
from meanflow_ik_core.objectives import build_objectives
from meanflow_ik_ros.messages.poses import pose_message
from meanflow_ik_ros.node import LibraryLog
from meanflow_ik_ros.rare_log import RareLog
from meanflow_ik_ros.services import batch, solutions

Codes = GetIKSolutions.Response
TIPS = ["left_panda_link8", "right_panda_link8"]
SOLVER_YAML = Path(__file__).parents[2] / "config" / "solver.yaml"


@pytest.fixture(scope="module")
def running():
    """The node with the shipped parameter file, spun as its own main function does."""
    rclpy.init(args=["--ros-args", "--params-file", str(SOLVER_YAML)])
    node = make_node(robot="dual_panda", max_solutions=8)
    with spun(node):
        yield node
    node.destroy_node()
    rclpy.try_shutdown()


class Client(User):
    """A user's node: publishes goals, and keeps what it hears."""

    def __init__(self):
        super().__init__({"candidates": (IKSolutionArray, MANY), "markers": (MarkerArray, LATCHED)})
        self.goal = self.node.create_publisher(PoseStamped, "/meanflow_ik/goal_pose", MANY)
        self.goals = self.node.create_publisher(PoseArray, "/meanflow_ik/goal_poses", MANY)


@pytest.fixture(scope="module")
def client(running):
    client = Client()
    client.meet(client.goal, client.goals)
    yield client
    client.close()


@pytest.fixture(scope="module")
def targets(dual_panda) -> np.ndarray:
    rng = np.random.default_rng(0)
    return Judge(dual_panda).poses(0.5 * rng.uniform(dual_panda.lower, dual_panda.upper))


def poses_of(targets: np.ndarray, frame: str) -> list[PoseStamped]:
    return [pose_message(target, frame) for target in targets]


def array_of(targets: np.ndarray, frame: str) -> PoseArray:
    return PoseArray(
        header=Header(frame_id=frame), poses=[p.pose for p in poses_of(targets, frame)]
    )


def positions(solutions) -> np.ndarray:
    return np.array([solution.joint_state.position for solution in solutions])


def spread(judge: Judge, q: np.ndarray, tip: int) -> float:
    """How far apart a tip comes to lie, m."""
    return float(np.linalg.norm(np.ptp([judge.poses(row)[tip, :3, 3] for row in q], axis=0)))


def axes_shown(markers: MarkerArray) -> int:
    return sum(m.ns == "goal" and m.action == Marker.ADD for m in markers.markers)


def test_goal_poses_are_for_all_tips_in_the_order_of_the_robot(client, dual_panda, targets):
    candidates = client.show(client.goals, array_of(targets, dual_panda.base))
    assert len(candidates.targets) == 2
    assert len(candidates.solutions) == 8
    for q in positions(candidates.solutions):
        assert Judge(dual_panda).accepts(q, targets)
    assert axes_shown(client.heard["markers"][0]) == 6


def test_a_wrong_number_of_goal_poses_is_left_unanswered_and_the_next_is_answered(
    client, dual_panda, targets
):
    client.goals.publish(PoseArray(header=Header(frame_id=dual_panda.base), poses=[Pose()] * 3))
    client.goal.publish(poses_of(targets, dual_panda.base)[0])  # which tip is not said
    candidates = client.show(client.goals, array_of(targets, dual_panda.base))
    assert len(candidates.targets) == 2
    assert len(client.heard["candidates"]) == 1


def test_the_goal_pose_is_for_the_tip_of_the_parameter(client, running, dual_panda, targets):
    judge = Judge(dual_panda)
    for tip, link in enumerate(TIPS):
        (result,) = running.set_parameters([Parameter("tip_link", value=link)])
        assert result.successful, result.reason
        candidates = client.show(client.goal, poses_of(targets, dual_panda.base)[tip])
        assert len(candidates.targets) == 1
        for q in positions(candidates.solutions):
            errors = np.stack(judge.errors(q, targets))[:, tip]
            assert errors.max() < 1e-5
        assert spread(judge, positions(candidates.solutions), 1 - tip) > 0.1
        assert axes_shown(client.heard["markers"][0]) == 3
        candidates = client.show(client.goals, array_of(targets, dual_panda.base))
        assert len(candidates.targets) == 2
    (result,) = running.set_parameters([Parameter("tip_link", value="")])
    assert result.successful


def test_a_request_for_one_hand_leaves_the_other_open(running, dual_panda, targets):
    judge = Judge(dual_panda)
    for tip, link in enumerate(TIPS):
        request = GetIKSolutions.Request(
            targets=[poses_of(targets, dual_panda.base)[tip]], tip_links=[link]
        )
        response = solutions.answer(running.desk, request, GetIKSolutions.Response())
        assert response.error_code == Codes.SUCCESS, response.message
        q = positions(response.solutions)
        for row, solution in zip(q, response.solutions, strict=True):
            assert np.stack(judge.errors(row, targets))[:, tip].max() < 1e-5
            assert solution.position_error[1 - tip] == solution.orientation_error[1 - tip] == 0
        assert spread(judge, q, 1 - tip) > 0.1


def test_free_axes_of_a_request_are_open(running, dual_panda, targets):
    judge = Judge(dual_panda)
    request = GetIKSolutions.Request(
        targets=poses_of(targets, dual_panda.base), free_axes=["rx ry rz", ""]
    )
    response = solutions.answer(running.desk, request, GetIKSolutions.Response())
    assert response.error_code == Codes.SUCCESS, response.message
    turns = []
    for q in positions(response.solutions):
        position, turn = judge.errors(q, targets)
        assert max(*position, turn[1]) < 1e-5
        turns.append(turn[0])
    assert max(turns) > 0.1


def test_a_batch_takes_partial_goals_too(running, dual_panda, targets):
    judge = Judge(dual_panda)
    request = GetIKSolutionsBatch.Request(
        targets=array_of(np.stack([targets[1]] * 3), dual_panda.base),
        tip_links=TIPS[1:],
        free_axes=["rz"],
        max_solutions=4,
    )
    response = batch.answer(running.desk, request, GetIKSolutionsBatch.Response())
    assert response.error_code == Codes.SUCCESS, response.message
    assert len(response.offsets) == 4
    q = np.array(response.positions).reshape(-1, dual_panda.num_joints)
    for row in q:
        reached = judge.poses(row)[1]
        assert np.linalg.norm(reached[:3, 3] - targets[1, :3, 3]) < 1e-5
        assert reached[:3, 2] @ targets[1, :3, 2] > 1 - 1e-9


def test_objectives_of_a_request_and_of_the_node_move_the_solutions(running, dual_panda, targets):
    seed = 0.5 * (dual_panda.lower + dual_panda.upper)

    def away(**fields) -> float:
        request = GetIKSolutions.Request(targets=poses_of(targets[:1], dual_panda.base), **fields)
        request.tip_links = TIPS[:1]
        response = solutions.answer(running.desk, request, GetIKSolutions.Response())
        assert response.error_code == Codes.SUCCESS, response.message
        other = [name.startswith("right_") for name in dual_panda.joint_names]
        q = positions(response.solutions)
        return float(np.median(np.linalg.norm((q - seed)[:, other], axis=1)))

    plain, wish = away(), "{name: posture, weight: 10.0}"
    assert away(objectives=[wish]) < 0.95 * plain
    (result,) = running.set_parameters([Parameter("objectives", value=[wish])])
    assert result.successful, result.reason
    assert away() < 0.95 * plain
    (result,) = running.set_parameters([Parameter("objectives", value=[])])
    assert result.successful, result.reason
    assert away() == plain


@pytest.mark.parametrize(
    ("fields", "code", "word"),
    [
        ({"tip_links": ["nose"]}, Codes.INVALID_LINK_NAME, "left_panda_link8"),
        ({"tip_links": TIPS}, Codes.INVALID_GOAL_CONSTRAINTS, "1 targets"),
        ({"tip_links": TIPS[:1], "free_axes": ["roll"]}, Codes.INVALID_GOAL_CONSTRAINTS,
         "roll"),
        ({"tip_links": TIPS[:1], "objectives": ["beauty"]}, Codes.INVALID_GOAL_CONSTRAINTS,
         "manipulability"),
    ],
)  # fmt: skip
def test_wrong_requests_are_refused_by_name(running, dual_panda, targets, fields, code, word):
    request = GetIKSolutions.Request(targets=poses_of(targets[:1], dual_panda.base), **fields)
    response = solutions.answer(running.desk, request, GetIKSolutions.Response())
    assert response.error_code == code
    assert word in response.message
    assert not response.solutions


def test_clearance_and_objective_values_come_with_the_solutions(running, dual_panda, targets):
    wishes = ["manipulability", "{name: posture, weight: 2.0}"]
    request = GetIKSolutions.Request(
        targets=poses_of(targets, dual_panda.base), avoid_self_collision=True, objectives=wishes
    )
    response = solutions.answer(running.desk, request, GetIKSolutions.Response())
    assert response.error_code == Codes.SUCCESS
    spheres = SphereModel(dual_panda)
    goals = build_objectives(["manipulability", {"name": "posture"}], dual_panda)
    middle = torch.from_numpy(running.desk.current_state.q)
    for solution in response.solutions:
        q = torch.tensor(solution.joint_state.position, dtype=torch.float64)
        assert solution.clearance == pytest.approx(spheres.distance(q.numpy()))
        expected = [goal.near(middle).value(q).item() for goal in goals]
        np.testing.assert_allclose(solution.objective_values, expected)


def test_what_was_not_asked_for_is_not_told(running, dual_panda, targets):
    request = GetIKSolutions.Request(targets=poses_of(targets, dual_panda.base))
    response = solutions.answer(running.desk, request, GetIKSolutions.Response())
    assert all(np.isnan(solution.clearance) for solution in response.solutions)
    assert not any(solution.objective_values for solution in response.solutions)


@pytest.mark.parametrize("asked", [False, True])
def test_a_batch_tells_them_too(running, dual_panda, targets, asked):
    wishes = {"objectives": ["joint_limits", "manipulability"], "avoid_self_collision": True}
    request = GetIKSolutionsBatch.Request(
        targets=array_of(np.concatenate([targets, targets]), dual_panda.base), max_solutions=3,
        **(wishes if asked else {}),
    )  # fmt: skip
    response = batch.answer(running.desk, request, GetIKSolutionsBatch.Response())
    rows = response.offsets[-1] if asked else 0
    assert len(response.clearance) == rows and len(response.objective_values) == 2 * rows
    if asked:
        q = torch.tensor(response.positions, dtype=torch.float64).reshape(rows, -1)
        goals = build_objectives(wishes["objectives"], dual_panda)
        expected = torch.stack([goal.value(q) for goal in goals], 1)
        np.testing.assert_allclose(response.objective_values, expected.ravel())
        np.testing.assert_allclose(response.clearance, SphereModel(dual_panda).distance(q.numpy()))


def test_a_goal_that_is_refused_leaves_a_trace_among_refused_requests(
    client, running, dual_panda, targets, capfd
):
    running.desk.log = RareLog(running.get_logger())
    for _ in range(3):
        solutions.answer(running.desk, GetIKSolutions.Request(), GetIKSolutions.Response())
    client.goals.publish(PoseArray(header=Header(frame_id=dual_panda.base), poses=[Pose()] * 3))
    client.show(client.goals, array_of(targets, dual_panda.base))
    logged = capfd.readouterr().err
    assert logged.count("~/get_ik_solutions: refused") == 1
    assert "~/goal_poses: refused: 3 targets" in logged


def test_a_log_line_says_how_many_were_left_out(monkeypatch):
    class Lines(list):
        warning = error = list.append

    lines = Lines()
    log = RareLog(lines)
    for text in ("one", "two", "three"):
        log.warning("a", text)
    log.error("a", "four")
    monkeypatch.setattr("meanflow_ik_ros.rare_log.WARN_EVERY_S", 0.0)
    log.warning("a", "five")
    assert lines == ["a: one", "a: four", "a: five (2 more were left out)"]


def test_what_the_library_warns_of_is_a_line_now_and_then():
    class Lines(list):
        warning = list.append

    lines = Lines()
    log = LibraryLog(lines)
    for number in range(3):
        logging.getLogger("meanflow_ik_core.world.scene").warning("a%s", "b" * 1000 + str(number))
    log.close()
    (line,) = lines
    assert line.startswith("test_several_tips_node: ab") and len(line) < 400


def test_an_objective_that_does_not_exist_is_no_parameter(running):
    (result,) = running.set_parameters([Parameter("objectives", value=["beauty"])])
    assert not result.successful
    assert "manipulability" in result.reason
