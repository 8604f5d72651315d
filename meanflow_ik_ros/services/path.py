# SPDX-License-Identifier: Apache-2.0
"""A continuous joint path through waypoints in one request; the answer is a JointTrajectory."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from builtin_interfaces.msg import Duration
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from meanflow_ik_core.errors import OptionError
from meanflow_ik_core.paths.path import PathResult, solve_path
from meanflow_ik_ros.desk import Desk
from meanflow_ik_ros.messages.errors import Codes, RequestError
from meanflow_ik_ros.messages.fields import count_from_request, doubles
from meanflow_ik_ros.messages.joints import seed_from_joint_state
from meanflow_ik_ros.messages.sizes import check_sizes
from meanflow_ik_ros.messages.task import Task, task_from_request
from meanflow_ik_ros.messages.tips import (
    FrameLookup,
    targets_from_pose_array,
    tip_links_from_names,
)
from meanflow_ik_ros.services import Service, query_in_world
from meanflow_ik_ros.srv import GetIKPath

if TYPE_CHECKING:
    from meanflow_ik_core.robot.robot import Robot
    from meanflow_ik_core.solving.solver import IKSolver
    from meanflow_ik_core.world.world import World
    from meanflow_ik_ros.parameters import NodeParameters

NAME = "~/get_ik_path"
# A path that begins nearer to the start state than this begins there [rad or m].
AT_START = 1e-3
_LATEST_S = 2**31 - 1  # the largest second that a time_from_start can hold


@dataclass(frozen=True, eq=False)
class IKPathQuery:
    """A path in the solver's terms; `find_path` checks times and step.

    targets: (W, T, 4, 4) T_base_tip in the robot's own order of tips.
    T_tip_link: (T, 4, 4) the links that were asked for, seen from the robot's tips.
    task: which tips and axes.
    start_state: (J,) within the limits, continuous joints as they came; None: begin anywhere.
    times: (W,) s from the start; None: speeds do not matter.
    max_joint_step: rad or m.
    world: that nothing may touch on the way; None: none.
    """

    targets: np.ndarray
    T_tip_link: np.ndarray
    task: Task
    start_state: np.ndarray | None
    times: np.ndarray | None
    num_samples: int
    max_joint_step: float
    avoid_self_collision: bool
    world: World | None = None


def service(desk: Desk) -> Service:
    return Service(GetIKPath, NAME, partial(answer, desk))


def answer(
    desk: Desk, request: GetIKPath.Request, response: GetIKPath.Response
) -> GetIKPath.Response:
    """The service; whatever goes wrong is an answer."""

    def respond(started: float) -> GetIKPath.Response:
        parameters = desk.parameters
        query = query_in_world(desk, request, parameters, query_from_request)
        desk.check_links(query.task)
        with desk.turn(parameters) as turn:
            seed = desk.seed(parameters)
            between = partial(turn.give_way, aside=True)
            result = find_path(desk.solver, query, parameters, seed, between)
        total_time = time.perf_counter() - started
        return response_from_result(query, result, desk.robot, parameters, total_time)

    return desk.attempt(NAME, respond, response)


def query_from_request(
    request: GetIKPath.Request,
    robot: Robot,
    parameters: NodeParameters,
    frame_lookup: FrameLookup,
    current_state: np.ndarray,
) -> IKPathQuery:
    """Check a request and put it into the solver's terms.

    Args:
        current_state: (J,) of joints that the request's start state lacks.

    Raises:
        RequestError: with the code and message of the answer.
    """
    check_sizes(request)
    num_samples = count_from_request(request, "num_samples", parameters)
    if len(request.times) > parameters.max_batch_targets:
        raise RequestError(
            Codes.INVALID_GOAL_CONSTRAINTS,
            f"{len(request.times)} times, the node's parameter max_batch_targets allows "
            f"{parameters.max_batch_targets}",
        )
    if len(request.times) and not max(request.times) <= _LATEST_S:
        raise RequestError(
            Codes.INVALID_GOAL_CONSTRAINTS,
            f"the largest of times is {max(request.times):g}, a trajectory holds up to {_LATEST_S}",
        )
    links = tip_links_from_names(request.tip_links, robot, parameters.tip_link, partial=True)
    return IKPathQuery(
        targets=targets_from_pose_array(
            request.waypoints, links, robot, parameters, frame_lookup, num_samples
        ),
        T_tip_link=links.T_tip_link,
        task=task_from_request(request.free_axes, (), links, robot, parameters),
        start_state=(
            seed_from_joint_state(request.start_state, robot, current_state, "start_state")
            if request.start_state.name or len(request.start_state.position)
            else None
        ),
        times=np.array(request.times) if len(request.times) else None,
        num_samples=num_samples,
        max_joint_step=request.max_joint_step or parameters.max_joint_step,
        avoid_self_collision=bool(request.avoid_self_collision),
    )


def find_path(
    solver: IKSolver,
    query: IKPathQuery,
    parameters: NodeParameters,
    seed: int,
    between: Callable[[], object] | None = None,
) -> PathResult:
    """Solve a query.

    Args:
        between: see `solve_path`.

    Raises:
        RequestError: the times or the step are out of range.
    """
    try:
        goal = query.task.goal(query.targets @ query.T_tip_link)
        return solve_path(
            solver,
            goal.pop("targets"),
            query.start_state,
            query.times,
            query.num_samples,
            query.max_joint_step,
            **goal,
            avoid_self_collision=query.avoid_self_collision,
            world=query.world,
            position_tolerance=parameters.position_tolerance,
            orientation_tolerance=parameters.orientation_tolerance,
            seed=seed,
            between=between,
        )
    except OptionError as error:
        raise RequestError(Codes.INVALID_GOAL_CONSTRAINTS, str(error)) from error


def response_from_result(
    query: IKPathQuery,
    result: PathResult,
    robot: Robot,
    parameters: NodeParameters,
    total_time: float,
) -> GetIKPath.Response:
    """The answer; `total_time` [s] counts from the arrival of the request.

    A path that breaks has no trajectory, so that nobody moves along half of it by accident.
    """
    response = GetIKPath.Response(
        error_code=Codes.GOAL_IN_COLLISION if result.touching else Codes.NO_IK_SOLUTION,
        message=result.message,
        failed_waypoint=result.failed_waypoint,
        largest_step=result.largest_step,
        total_time=float(total_time),
    )
    if not result.valid:
        return response
    response.error_code = Codes.SUCCESS
    response.message = _gap_at_the_start(query, result.joint_positions[0], robot)
    response.trajectory = trajectory_message(result.joint_positions, query.times, robot)
    return response


def _gap_at_the_start(query: IKPathQuery, q: np.ndarray, robot: Robot) -> str:
    """The warning that a path does not begin at its start state; empty where it does."""
    if query.start_state is None:
        return ""
    distance = np.abs(q - query.start_state)
    joint = int(distance.argmax())
    if distance[joint] <= AT_START:
        return ""
    return (
        f"the path begins {distance[joint]:.3g} away from the start state in "
        f"{robot.joint_names[joint]}; the way there is not part of it"
    )


def trajectory_message(q: np.ndarray, times: np.ndarray | None, robot: Robot) -> JointTrajectory:
    """A point per row of q (W, J), at times (W,) s where they are given. Stamp zero: start now."""
    message = JointTrajectory(joint_names=list(robot.joint_names))
    message.header.frame_id = robot.base
    message.points = [JointTrajectoryPoint(positions=doubles(row)) for row in q]
    if times is not None:
        for point, seconds in zip(message.points, times.tolist(), strict=True):
            whole, nanoseconds = divmod(round(seconds * 1e9), 1_000_000_000)
            point.time_from_start = Duration(sec=whole, nanosec=nanoseconds)
    return message
