# SPDX-License-Identifier: Apache-2.0
"""MoveIt's own service, moveit_msgs/srv/GetPositionIK: the solution that is nearest to the seed.

moveit_msgs is optional: all but `services` works through the fields of the messages.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from meanflow_ik_core.robot.urdf import Mimic, read_joint_elements, resolve_mimics
from meanflow_ik_ros.current_state import WARN_EVERY_S
from meanflow_ik_ros.messages.conversions import (
    Codes,
    FrameLookup,
    IKQuery,
    RequestError,
    doubles,
    judge_at_frames,
    limit_violations,
    targets_from_poses,
    wrap_continuous,
)
from meanflow_ik_ros.parameters import FIELDS

if TYPE_CHECKING:
    from meanflow_ik_core.robot.robot import Robot
    from meanflow_ik_core.solving.solver import IKResult
    from meanflow_ik_ros.node import MeanFlowIKNode
    from meanflow_ik_ros.parameters import NodeParameters

SERVICE = "~/solve_ik"
INVALID_GROUP_NAME = -15  # the one code of MoveItErrorCodes that our own services do not have
CONSTRAINTS = (
    "joint_constraints",
    "position_constraints",
    "orientation_constraints",
    "visibility_constraints",
)
LONGEST_TIMEOUT_S = FIELDS["timeout"].metadata["high"]

# A query, parameters, and how many rounds of starts at most: None for as many as it takes.
Solve = Callable[[IKQuery, "NodeParameters", int | None], "IKResult"]


@dataclass(frozen=True, eq=False)
class MoveItQuery:
    """A request that has passed every check.

    ik: what the solver is asked; its seed state is `seed` put within the limits.
    seed: (J,) as it came, where continuous joints may have made any number of turns.
    timeout: s; 0: the node's parameter.
    """

    ik: IKQuery
    seed: np.ndarray
    timeout: float


@dataclass(frozen=True)
class Answer:
    """Where the robot's joints go, or why they do not."""

    error_code: int
    message: str = ""
    positions: Mapping[str, float] = field(default_factory=dict)  # rad or m, of mimic joints too


def services(node: MeanFlowIKNode, group: str) -> list[tuple[type, str, Callable[[Any, Any], Any]]]:
    """Type, name and callback of ~/solve_ik where it can be served; the log says whether it is.

    Args:
        group: the planning group that is answered for; empty: any.
    """
    name = node.resolve_service_name(SERVICE)
    if find_spec("moveit_msgs") is None:
        node.get_logger().info(f"{name} for MoveIt is off: moveit_msgs is not installed")
        return []
    try:
        from moveit_msgs.srv import GetPositionIK
        from rclpy.type_support import check_is_valid_srv_type

        check_is_valid_srv_type(GetPositionIK)
    except Exception as error:
        # Built for another Python or ROS, or without what it needs itself.
        reason = f"{type(error).__name__}: {error}"
        node.get_logger().warning(f"{name} for MoveIt is off: moveit_msgs cannot be used: {reason}")
        return []
    mimics_of(node.robot)
    node.get_logger().info(f"{name} for MoveIt is on, {f'group {group}' if group else 'any group'}")
    return [(GetPositionIK, SERVICE, partial(answer, node, group))]


def answer(node: MeanFlowIKNode, group: str, request: Any, response: Any) -> Any:
    """The service; whatever goes wrong is an answer."""

    def attempt(started: float) -> Answer:
        parameters = node.parameters
        query = query_from_request(
            request, node.robot, parameters, node.T_base_frame, node.current_state, group
        )
        seed = wrap_continuous(query.seed, node.robot)
        if outside := limit_violations(seed, node.robot):
            node.get_logger().warning(
                f"{SERVICE}: seed taken at the limit: {outside}",
                throttle_duration_sec=WARN_EVERY_S,
            )
        return nearest_answer(query, node.robot, parameters, node.solve)

    found = node.attempt(SERVICE, attempt, Answer(Codes.FAILURE))
    return fill_response(request, found, node.get_fully_qualified_name(), response)


def query_from_request(
    request: Any,
    robot: Robot,
    parameters: NodeParameters,
    frame_lookup: FrameLookup,
    current_state: np.ndarray,
    group: str = "",
) -> MoveItQuery:
    """Check a request and put it into the solver's terms.

    Args:
        request: with the fields of GetPositionIK.Request.
        frame_lookup: frame_id, stamp -> T_base_frame (4, 4), or FrameError.
        current_state: (J,) the seed of joints that the request's robot_state lacks.
        group: the only group that is answered for; empty: any.

    Raises:
        RequestError: with the code and message of the answer.
    """
    asked = request.ik_request
    if group and asked.group_name not in ("", group):
        raise RequestError(
            INVALID_GROUP_NAME,
            f"group {asked.group_name!r}: the node's parameter moveit_group is {group!r}",
        )
    if given := [name for name in CONSTRAINTS if len(getattr(asked.constraints, name))]:
        raise RequestError(
            Codes.INVALID_GOAL_CONSTRAINTS,
            f"{', '.join(given)} are given, which this solver does not honour; "
            "leave them empty and check the solution",
        )
    poses, links = poses_and_links(asked)
    targets, offsets = targets_from_poses(poses, links, robot, parameters.tip_link, frame_lookup)
    seed = seed_from_robot_state(asked.robot_state, robot, current_state)
    ik = IKQuery(
        targets=targets[None],
        T_tip_frame=offsets,
        seed_state=np.clip(wrap_continuous(seed, robot), robot.lower, robot.upper),
        num_samples=parameters.num_samples,
        max_solutions=parameters.num_samples + 1,  # all that there can be; the seed is a start too
        avoid_self_collision=bool(asked.avoid_collisions),
        stamp=poses[0].header.stamp,
        goals=tuple(poses),
    )
    seconds = asked.timeout.sec + 1e-9 * asked.timeout.nanosec
    return MoveItQuery(ik, seed, min(max(seconds, 0.0), LONGEST_TIMEOUT_S))


def poses_and_links(asked: Any) -> tuple[list[Any], list[str]]:
    """Poses of a PositionIKRequest, and a link for each of them, or none: the node's own tips."""
    poses = list(asked.pose_stamped_vector) or [asked.pose_stamped]
    links = list(asked.ik_link_names) or ([asked.ik_link_name] if asked.ik_link_name else [])
    if links and len(links) != len(poses):
        raise RequestError(
            Codes.INVALID_LINK_NAME,
            f"{len(links)} links ({', '.join(links)}) for {len(poses)} poses",
        )
    return poses, links


def seed_from_robot_state(state: Any, robot: Robot, current_state: np.ndarray) -> np.ndarray:
    """(J,) of the robot's joints in a RobotState, `current_state` (J,) for those it lacks.

    Raises:
        RequestError: names and values do not pair up, or one of the robot's joints comes twice or
            with a value that is not finite. Values outside the limits are none of these.
    """
    joints = state.joint_state
    names = list(joints.name)
    problem = None
    if len(joints.position) != len(names):
        problem = f"{len(names)} names and {len(joints.position)} positions"
    elif not {len(joints.velocity), len(joints.effort)} <= {0, len(names)}:
        counts = f"{len(joints.velocity)} velocities and {len(joints.effort)} efforts"
        problem = f"{len(names)} names, {counts}"
    elif twice := [name for name in robot.joint_names if names.count(name) > 1]:
        problem = f"{', '.join(twice)} more than once"
    if problem:
        raise RequestError(Codes.INVALID_ROBOT_STATE, f"robot_state has {problem}")
    known = dict(zip(names, joints.position, strict=True))
    seed = np.array(
        [known.get(*pair) for pair in zip(robot.joint_names, current_state, strict=True)]
    )
    if not np.isfinite(seed).all():
        raise RequestError(Codes.INVALID_ROBOT_STATE, f"robot_state is not finite: {seed.tolist()}")
    return seed


def nearest_answer(
    query: MoveItQuery, robot: Robot, parameters: NodeParameters, solve: Solve
) -> Answer:
    """Of all solutions of one round of starts the one nearest to the seed.

    Where that round has none, what a search for a single one finds within what is left of the
    timeout.
    """
    began = time.perf_counter()
    # "diverse" could leave the nearest one out
    parameters = replace(parameters, select="best", timeout=query.timeout or parameters.timeout)
    result = solve(query.ik, parameters, 1)
    found = _answer_from_result(query, result, robot, parameters)
    left = parameters.timeout - (time.perf_counter() - began)
    if found.error_code == Codes.SUCCESS or (parameters.timeout and left <= 0):
        return found
    parameters = replace(parameters, timeout=left if parameters.timeout else 0.0)
    result = solve(replace(query.ik, max_solutions=1), parameters, None)
    return _answer_from_result(query, result, robot, parameters)


def _answer_from_result(
    query: MoveItQuery, result: IKResult, robot: Robot, parameters: NodeParameters
) -> Answer:
    valid, *errors = judge_at_frames(
        result, query.ik.targets, query.ik.T_tip_frame, robot, parameters
    )
    q = result.joint_positions[0][valid[0]]
    if len(q) == 0:
        metres, radians = (error[0, 0].max() for error in errors)
        if metres <= parameters.position_tolerance and radians <= parameters.orientation_tolerance:
            return Answer(
                Codes.NO_IK_SOLUTION,
                "every configuration found that reaches the target touches the robot itself",
            )
        return Answer(
            Codes.NO_IK_SOLUTION,
            "no configuration within the limits reaches the target; the nearest one found misses "
            f"it by {metres:.3g} m and {radians:.3g} rad",
        )
    nearest = nearest_configuration(q, query.seed, robot)
    return Answer(Codes.SUCCESS, positions=joints_by_name(nearest, robot))


def nearest_configuration(q: np.ndarray, seed: np.ndarray, robot: Robot) -> np.ndarray:
    """(J,) Of configurations q (N, J) the one with the smallest largest joint step from `seed` (J,)
    [rad or m]; of equal ones the one with the smallest Euclidean distance.

    Joints that may turn by more than one revolution are taken on the turn nearest to the seed.
    """
    q = on_nearest_turn(q, seed, robot)
    step = np.abs(q - seed)
    return q[np.lexsort((np.linalg.norm(step, axis=1), step.max(1)))[0]]


def on_nearest_turn(q: np.ndarray, seed: np.ndarray, robot: Robot) -> np.ndarray:
    """q (N, J) within the limits, with whole revolutions added where that is nearer to `seed` (J,)
    and within the limits; the poses of all links stay the same."""
    turn = 2 * np.pi
    turning = np.ones(robot.num_joints, dtype=bool)
    whole = ~robot.prismatic & (robot.multiplier == np.round(robot.multiplier))
    np.logical_and.at(turning, robot.joint, whole)
    least = np.where(robot.continuous, -np.inf, np.ceil((robot.lower - q) / turn))
    most = np.where(robot.continuous, np.inf, np.floor((robot.upper - q) / turn))
    turns = np.clip(np.round((seed - q) / turn), np.minimum(least, 0), np.maximum(most, 0))
    return np.where(turning, q + turn * turns, q)


def joints_by_name(q: np.ndarray, robot: Robot) -> dict[str, float]:
    """Positions of the robot's joints q (J,), then of the joints that mimic them."""
    positions = dict(zip(robot.joint_names, q.tolist(), strict=True))
    for name, mimic in mimics_of(robot).items():
        if mimic.joint in robot.joint_names:
            positions[name] = mimic.multiplier * positions[mimic.joint] + mimic.offset
    return positions


@lru_cache(maxsize=4)
def mimics_of(robot: Robot) -> dict[str, Mimic]:
    """Mimic joints of a robot's URDF by name."""
    return resolve_mimics(read_joint_elements(robot.urdf_path))


def fill_response(request: Any, found: Answer, source: str, response: Any) -> Any:
    """`response`, with the fields of GetPositionIK.Response, filled in; `source` is the node."""
    response.error_code.val = found.error_code
    # Fields since moveit_msgs 2.4.
    for name, text in (("message", found.message), ("source", source)):
        if hasattr(response.error_code, name):
            setattr(response.error_code, name, text)
    if found.error_code == Codes.SUCCESS:
        response.solution = state_with(request.ik_request.robot_state, found.positions)
    return response


def state_with(state: Any, positions: Mapping[str, float]) -> Any:
    """Copy of a RobotState with `positions` by joint; all else, and the order, stays as it is.

    Joints that the state lacks come last, with velocity and effort 0 where there are such.
    """
    solution = copy.copy(state)
    joints = solution.joint_state = copy.copy(state.joint_state)
    missing = [name for name in positions if name not in joints.name]
    values = {**dict(zip(joints.name, joints.position, strict=True)), **positions}
    for part in ("velocity", "effort"):
        if len(getattr(joints, part)):
            setattr(joints, part, doubles([*getattr(joints, part), *[0.0] * len(missing)]))
    joints.name = [*joints.name, *missing]
    joints.position = doubles([values[name] for name in joints.name])
    return solution
