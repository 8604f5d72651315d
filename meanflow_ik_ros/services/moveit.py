# SPDX-License-Identifier: Apache-2.0
"""MoveIt's own service, moveit_msgs/srv/GetPositionIK: the solution that is nearest to the seed.

moveit_msgs is optional: all but `service` works through the fields of the messages.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from meanflow_ik_core.robot.urdf import Mimic, read_joint_elements, resolve_mimics
from meanflow_ik_ros.desk import Desk
from meanflow_ik_ros.messages.errors import Codes, RequestError
from meanflow_ik_ros.messages.fields import doubles
from meanflow_ik_ros.messages.joints import limit_violations
from meanflow_ik_ros.messages.moveit import NOT_INSTALLED, moveit_type
from meanflow_ik_ros.messages.query import IKQuery
from meanflow_ik_ros.messages.sizes import check_joint_state, check_sizes
from meanflow_ik_ros.messages.task import task_from_request
from meanflow_ik_ros.messages.tips import FrameLookup, targets_from_poses, tip_links_from_names
from meanflow_ik_ros.messages.touching import code_of_unsolved, explanation
from meanflow_ik_ros.messages.world_sizes import check_object_sizes, check_world_total
from meanflow_ik_ros.parameters import FIELDS
from meanflow_ik_ros.rare_log import WARN_EVERY_S
from meanflow_ik_ros.scene_change import SceneChange
from meanflow_ik_ros.services import Service

if TYPE_CHECKING:
    from meanflow_ik_core.robot.robot import Robot
    from meanflow_ik_core.solving.solver import IKResult
    from meanflow_ik_core.world.world import World
    from meanflow_ik_ros.parameters import NodeParameters

NAME = "~/solve_ik"
INVALID_GROUP_NAME = -15  # the one code of MoveItErrorCodes that our own services do not have
CONSTRAINTS = (
    "joint_constraints",
    "position_constraints",
    "orientation_constraints",
    "visibility_constraints",
)
LONGEST_TIMEOUT_S = FIELDS["timeout"].metadata["high"]

# Takes a query, parameters, and how many rounds of starts at most: None for as many as it takes.
Solve = Callable[[IKQuery, "NodeParameters", int | None], "IKResult"]


@dataclass(frozen=True, eq=False)
class MoveItQuery:
    """A request that has passed every check.

    ik: what the solver is asked; its seed state is `seed` put within the limits.
    seed: (J,) as it came.
    timeout: s; 0: the node's parameter.
    """

    ik: IKQuery
    seed: np.ndarray
    timeout: float


@dataclass(frozen=True)
class NearestSolution:
    """Where the robot's joints go, or why they do not."""

    error_code: int
    message: str = ""
    positions: Mapping[str, float] = field(default_factory=dict)  # rad or m, of mimic joints too


def service(desk: Desk) -> Service | None:
    """The service where it can be served, else None; the log says whether it is."""
    node, group = desk.node, desk.parameters.moveit_group
    name = node.resolve_service_name(NAME)
    kind = moveit_type("srv", "GetPositionIK")
    if isinstance(kind, str):
        log = node.get_logger().info if kind == NOT_INSTALLED else node.get_logger().warning
        log(f"{name} for MoveIt is off: {kind}")
        return None
    mimics_of(desk.robot)
    node.get_logger().info(f"{name} for MoveIt is on, {f'group {group}' if group else 'any group'}")
    return Service(kind, NAME, partial(answer, desk, group))


def answer(desk: Desk, group: str, request: Any, response: Any) -> Any:
    """The service; whatever goes wrong is an answer."""

    def respond(started: float) -> NearestSolution:
        parameters = desk.parameters
        query = query_from_request(
            request, desk.robot, parameters, desk.T_base_frame, desk.current_state.q, group
        )
        if outside := limit_violations(query.seed, desk.robot):
            desk.node.get_logger().warning(
                f"{NAME}: seed taken at the limit: {outside}",
                throttle_duration_sec=WARN_EVERY_S,
            )
        if query.ik.avoid_self_collision:
            world = world_of_request(desk, request.ik_request, parameters)
            query = replace(query, ik=replace(query.ik, world=world))
        return nearest_solution(query, desk.robot, parameters, desk.solve)

    found = desk.attempt(NAME, respond, NearestSolution(Codes.FAILURE))
    return fill_response(request, found, desk.node.get_fully_qualified_name(), response)


def world_of_request(desk: Desk, ik_request: Any, parameters: NodeParameters) -> World | None:
    """The node's world, with what the state of a PositionIKRequest has attached besides.

    Raises:
        RequestError, WorldError: the world is not known or too large, or something cannot be
            attached.
    """
    attached = ik_request.robot_state.attached_collision_objects
    if not len(attached):
        return desk.obstacles(True, True, parameters)
    check_object_sizes([], attached)
    content = desk.world.content_of_request(parameters).copy()
    change = SceneChange(content, desk.world.whereabouts(), desk.world.clouds)
    for message in attached:
        change.take_attached(message)
    if content.problems:
        raise RequestError(*content.problems.summary())
    check_world_total(content.world)
    content.decide_by_matrix()
    return content.world


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
        current_state: (J,) the seed of joints that the request's robot_state lacks.
        group: the only group that is answered for; empty: any.

    Raises:
        RequestError: with the code and message of the answer.
    """
    ik_request = request.ik_request
    check_sizes(ik_request)
    check_joint_state("robot_state", ik_request.robot_state.joint_state)
    if group and ik_request.group_name not in ("", group):
        raise RequestError(
            INVALID_GROUP_NAME,
            f"group {ik_request.group_name!r}: the node's parameter moveit_group is {group!r}",
        )
    if constraints := [name for name in CONSTRAINTS if len(getattr(ik_request.constraints, name))]:
        raise RequestError(
            Codes.INVALID_GOAL_CONSTRAINTS,
            f"{', '.join(constraints)} are given, which this solver does not honour; "
            "leave them empty and check the solution",
        )
    poses, names = poses_and_links(ik_request)
    links = tip_links_from_names(names, robot, parameters.tip_link)
    targets = targets_from_poses(poses, links, robot, frame_lookup)
    seed = seed_from_robot_state(ik_request.robot_state, robot, current_state)
    ik = IKQuery(
        targets=targets,
        T_tip_link=links.T_tip_link,
        seed_state=robot.clipped(seed),
        num_samples=parameters.num_samples,
        max_solutions=parameters.num_samples + 1,  # all that there can be; the seed is a start too
        avoid_self_collision=bool(ik_request.avoid_collisions),
        task=task_from_request((), (), links, robot, parameters),
        approximate=bool(getattr(ik_request, "return_approximate_solution", False)),
        poses=tuple(poses),
    )
    seconds = ik_request.timeout.sec + 1e-9 * ik_request.timeout.nanosec
    return MoveItQuery(ik, seed, min(max(seconds, 0.0), LONGEST_TIMEOUT_S))


def poses_and_links(ik_request: Any) -> tuple[list[Any], list[str]]:
    """Poses of a PositionIKRequest, and a link for each of them, or none: the node's own tips."""
    poses = list(ik_request.pose_stamped_vector) or [ik_request.pose_stamped]
    link = ik_request.ik_link_name
    links = list(ik_request.ik_link_names) or ([link] if link else [])
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


def nearest_solution(
    query: MoveItQuery, robot: Robot, parameters: NodeParameters, solve: Solve
) -> NearestSolution:
    """Of all solutions of one round of starts the one nearest to the seed.

    Where that round has none, what a search for a single one finds within what is left of the
    timeout.
    """
    began = time.perf_counter()
    # The choice "diverse" could leave the nearest one out.
    parameters = replace(parameters, select="best", timeout=query.timeout or parameters.timeout)
    result = solve(replace(query.ik, approximate=False), parameters, 1)
    found = _nearest_from_result(query, result, robot, parameters)
    left = parameters.timeout - (time.perf_counter() - began)
    if found.error_code == Codes.SUCCESS:
        return found
    if parameters.timeout and left <= 0 and not query.ik.approximate:
        return found
    left = max(left, 1e-9)
    parameters = replace(parameters, timeout=left if parameters.timeout else 0.0)
    result = solve(replace(query.ik, max_solutions=1), parameters, None)
    return _nearest_from_result(query, result, robot, parameters)


def _nearest_from_result(
    query: MoveItQuery, result: IKResult, robot: Robot, parameters: NodeParameters
) -> NearestSolution:
    q = result.joint_positions[0][result.valid[0]]
    if len(q) == 0:
        message = explanation(result, parameters)
        if result.approximate is not None and result.approximate[0, 0]:
            positions = joints_by_name(result.joint_positions[0, 0], robot)
            metres = float(result.position_error[0, 0].max())
            radians = float(result.orientation_error[0, 0].max())
            misses = f"approximate: off by {metres:.3g} m and {radians:.3g} rad"
            return NearestSolution(Codes.SUCCESS, f"{misses}; {message}", positions)
        return NearestSolution(code_of_unsolved(result), message)
    nearest = nearest_configuration(q, query.seed, robot)
    return NearestSolution(Codes.SUCCESS, positions=joints_by_name(nearest, robot))


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


def fill_response(request: Any, found: NearestSolution, source: str, response: Any) -> Any:
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
