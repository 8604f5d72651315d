# SPDX-License-Identifier: Apache-2.0
"""Ranked solutions for one target, which has a pose per tip or for some of the tips."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from meanflow_ik_core.solving.why import Status
from meanflow_ik_ros.desk import Desk
from meanflow_ik_ros.messages.errors import Codes
from meanflow_ik_ros.messages.fields import count_from_request
from meanflow_ik_ros.messages.joints import seed_from_joint_state
from meanflow_ik_ros.messages.query import IKQuery
from meanflow_ik_ros.messages.sizes import check_sizes
from meanflow_ik_ros.messages.solutions import solutions_from_result
from meanflow_ik_ros.messages.task import task_from_request
from meanflow_ik_ros.messages.tips import FrameLookup, targets_from_poses, tip_links_from_names
from meanflow_ik_ros.messages.touching import code_of_unsolved, explanation
from meanflow_ik_ros.services import Service, query_in_world
from meanflow_ik_ros.srv import GetIKSolutions

if TYPE_CHECKING:
    from meanflow_ik_core.robot.robot import Robot
    from meanflow_ik_core.solving.solver import IKResult
    from meanflow_ik_ros.parameters import NodeParameters

NAME = "~/get_ik_solutions"


def service(desk: Desk) -> Service:
    return Service(GetIKSolutions, NAME, partial(answer, desk))


def answer(
    desk: Desk, request: GetIKSolutions.Request, response: GetIKSolutions.Response
) -> GetIKSolutions.Response:
    """The service; whatever goes wrong is an answer."""
    return answer_from(desk, NAME, request, response)[1]


def answer_from(
    desk: Desk, source: str, request: GetIKSolutions.Request, response: GetIKSolutions.Response
) -> tuple[IKQuery | None, GetIKSolutions.Response]:
    """The answer to a request from any source, which the log names.

    The query is None where the request or the solver failed.
    """
    solved: IKQuery | None = None

    def respond(started: float) -> GetIKSolutions.Response:
        nonlocal solved
        parameters = desk.parameters
        query = query_in_world(desk, request, parameters, query_from_request)
        result = desk.solve(query, parameters)
        total_time = time.perf_counter() - started
        solved = query
        return response_from_result(query, result, desk.robot, parameters, total_time, response)

    answered = desk.attempt(source, respond, response)
    return solved, answered


def query_from_request(
    request: GetIKSolutions.Request,
    robot: Robot,
    parameters: NodeParameters,
    frame_lookup: FrameLookup,
    current_state: np.ndarray,
) -> IKQuery:
    """Check a request and put it into the solver's terms.

    Args:
        current_state: (J,) the seed of a request that brings none.

    Raises:
        RequestError: with the code and message of the answer.
    """
    check_sizes(request)
    num_samples = count_from_request(request, "num_samples", parameters)
    max_solutions = count_from_request(request, "max_solutions", parameters)
    links = tip_links_from_names(request.tip_links, robot, parameters.tip_link, partial=True)
    return IKQuery(
        targets=targets_from_poses(request.targets, links, robot, frame_lookup),
        T_tip_link=links.T_tip_link,
        task=task_from_request(
            request.free_axes,
            request.objectives or parameters.objectives,
            links,
            robot,
            parameters,
        ),
        seed_state=seed_from_joint_state(request.seed_state, robot, current_state),
        num_samples=num_samples,
        max_solutions=max_solutions,
        avoid_self_collision=bool(request.avoid_self_collision),
        poses=tuple(request.targets),
    )


def response_from_result(
    query: IKQuery,
    result: IKResult,
    robot: Robot,
    parameters: NodeParameters,
    total_time: float,
    response: GetIKSolutions.Response,
) -> GetIKSolutions.Response:
    """Fill the answer; `total_time` [s] counts from the arrival of the request."""
    response.solutions = solutions_from_result(query, result, robot)
    response.sample_time = float(result.timing["sample"])
    response.refine_time = float(result.timing["refine"])
    response.total_time = float(total_time)
    if response.solutions and response.solutions[0].valid:
        response.error_code = Codes.SUCCESS
        if result.status[0] != Status.SOLVED:
            response.message = result.explain()
        return response
    response.error_code = code_of_unsolved(result)
    response.message = explanation(result, parameters)
    return response
