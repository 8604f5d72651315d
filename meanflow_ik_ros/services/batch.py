# SPDX-License-Identifier: Apache-2.0
"""Many alternative targets in one request; the answer is flat arrays, which ROS moves fast."""

from __future__ import annotations

import array
import time
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from meanflow_ik_core.solving.why import Status
from meanflow_ik_ros.desk import Desk
from meanflow_ik_ros.messages.errors import Codes
from meanflow_ik_ros.messages.fields import count_from_request, doubles
from meanflow_ik_ros.messages.joints import seed_from_joint_state
from meanflow_ik_ros.messages.query import IKQuery
from meanflow_ik_ros.messages.sizes import check_sizes
from meanflow_ik_ros.messages.task import task_from_request
from meanflow_ik_ros.messages.tips import (
    FrameLookup,
    targets_from_pose_array,
    tip_links_from_names,
)
from meanflow_ik_ros.messages.touching import explanation
from meanflow_ik_ros.services import Service, query_in_world
from meanflow_ik_ros.srv import GetIKSolutionsBatch

if TYPE_CHECKING:
    from meanflow_ik_core.robot.robot import Robot
    from meanflow_ik_core.solving.solver import IKResult
    from meanflow_ik_ros.parameters import NodeParameters

NAME = "~/get_ik_solutions_batch"
# Starts per solution asked for, where the request leaves their number to the node.
STARTS_PER_SOLUTION = 2
_NAMED_TARGETS = 5  # how many targets an answer's message lists at most


def service(desk: Desk) -> Service:
    return Service(GetIKSolutionsBatch, NAME, partial(answer, desk))


def answer(
    desk: Desk, request: GetIKSolutionsBatch.Request, response: GetIKSolutionsBatch.Response
) -> GetIKSolutionsBatch.Response:
    """The service; whatever goes wrong is an answer."""

    def respond(started: float) -> GetIKSolutionsBatch.Response:
        parameters = desk.parameters
        query = query_in_world(desk, request, parameters, query_from_request)
        result = desk.solve(query, parameters)
        total_time = time.perf_counter() - started
        return response_from_result(query, result, desk.robot, parameters, total_time)

    return desk.attempt(NAME, respond, response)


def query_from_request(
    request: GetIKSolutionsBatch.Request,
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
    max_solutions = count_from_request(request, "max_solutions", parameters)
    enough = min(parameters.num_samples, STARTS_PER_SOLUTION * max_solutions)
    num_samples = count_from_request(request, "num_samples", parameters, enough)
    rows = max(num_samples, max_solutions)
    links = tip_links_from_names(request.tip_links, robot, parameters.tip_link, partial=True)
    return IKQuery(
        targets=targets_from_pose_array(
            request.targets, links, robot, parameters, frame_lookup, rows
        ),
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
    )


def response_from_result(
    query: IKQuery,
    result: IKResult,
    robot: Robot,
    parameters: NodeParameters,
    total_time: float,
) -> GetIKSolutionsBatch.Response:
    """The answer; `total_time` [s] counts from the arrival of the request."""
    valid = result.valid
    solved = np.count_nonzero(valid, axis=1) > 0
    keep = valid.copy()
    # The rows are ranked: the first of a target without a solution is its nearest miss.
    known = np.isfinite(result.joint_positions).min(-1)
    misses = np.flatnonzero(~solved & known.max(1))
    keep[misses, known[misses].argmax(1)] = True
    response = GetIKSolutionsBatch.Response(
        joint_names=list(robot.joint_names),
        offsets=array.array("I", np.append(0, keep.sum(1).cumsum()).tolist()),
        positions=doubles(result.joint_positions[keep].ravel()),
        position_error=doubles(result.position_error[keep].ravel()),
        orientation_error=doubles(result.orientation_error[keep].ravel()),
        distance=doubles(result.distance[keep]),
        cost=doubles(result.cost[keep]),
        valid=valid[keep].tolist(),
        sample_time=float(result.timing["sample"]),
        refine_time=float(result.timing["refine"]),
        total_time=float(total_time),
    )
    own, world = result.clearances(keep)
    if own is not None:
        response.clearance = doubles(own)
    if result.objective_values is not None:
        response.objective_values = doubles(result.objective_values[keep].ravel())
    if world is not None:
        response.world_clearance = doubles(world)
    in_world = bool((result.status == Status.WORLD).any())
    unsolved = Codes.GOAL_IN_COLLISION if in_world else Codes.NO_IK_SOLUTION
    response.error_code = Codes.SUCCESS if solved.any() else unsolved
    response.status = array.array("B", result.status.tobytes())
    response.message = _shortfall(result, parameters)
    return response


def _shortfall(result: IKResult, parameters: NodeParameters) -> str:
    """Which targets have no solution, or fewer than asked for, and why the first of each."""
    fewer = np.flatnonzero(result.status == Status.FEWER_THAN_ASKED).tolist()
    none = np.flatnonzero(~result.valid.any(1)).tolist()
    parts = []
    if none:
        why = explanation(result, parameters, none[0])
        parts.append(_listed(none, len(result.status), "have no solution", why))
    if fewer:
        why = result.explain(fewer[0])
        parts.append(_listed(fewer, len(result.status), "have fewer than asked for", why))
    return "; ".join(parts)


def _listed(targets: list[int], count: int, what: str, why: str) -> str:
    named = ", ".join(str(target) for target in targets[:_NAMED_TARGETS])
    more = ", ..." if len(targets) > _NAMED_TARGETS else ""
    return f"{len(targets)} of {count} targets {what}: {named}{more} ({targets[0]}: {why})"
