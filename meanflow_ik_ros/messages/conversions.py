# SPDX-License-Identifier: Apache-2.0
"""Messages to core types and back; the service and the goal topic both go through here."""

from __future__ import annotations

import array
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from geometry_msgs.msg import Point, PoseStamped, Quaternion
from sensor_msgs.msg import JointState
from std_msgs.msg import Header

from meanflow_ik_core.errors import IKError, LinkError, SeedError, TargetError
from meanflow_ik_core.geometry import pose_errors, quat_xyzw_from_matrix
from meanflow_ik_ros.messages.task import (
    COMPLETE,
    Asked,
    asked_from_request,
    objectives_from_texts,
)
from meanflow_ik_ros.msg import IKSolution, IKSolutionArray
from meanflow_ik_ros.srv import GetIKSolutions
from meanflow_ik_ros.topics.frames import FrameError

if TYPE_CHECKING:
    from meanflow_ik_core.robot.robot import Robot
    from meanflow_ik_core.solving.solver import IKResult
    from meanflow_ik_ros.parameters import NodeParameters

Codes = GetIKSolutions.Response
FrameLookup = Callable[[str, Any], np.ndarray]

# A quaternion printed with four digits is off by up to 1e-4; beyond 1e-3 it is a mistake.
QUATERNION_NORM_TOLERANCE = 1e-3
# Joint states printed with seven digits may pass the limit by a rounding error.
LIMIT_TOLERANCE = 1e-6


class RequestError(IKError):
    """A request cannot be solved as it stands; carries the error code of the answer."""

    def __init__(self, error_code: int, message: str) -> None:
        super().__init__(message)
        self.error_code = error_code


@dataclass(frozen=True, eq=False)
class IKQuery:
    """A request that has passed every check.

    targets: (1, T, 4, 4) T_base_tip in the robot's own order of tips.
    T_tip_frame: (T, 4, 4) the link that was asked for, seen from the robot's tip.
    seed_state: (J,) within the limits.
    goals: the targets as they came, in the order in which they came.
    """

    targets: np.ndarray
    T_tip_frame: np.ndarray
    seed_state: np.ndarray
    num_samples: int
    max_solutions: int
    avoid_self_collision: bool
    stamp: Any
    goals: tuple[PoseStamped, ...]
    asked: Asked = COMPLETE
    objectives: tuple[Any, ...] = ()


def query_from_request(
    request: GetIKSolutions.Request,
    robot: Robot,
    parameters: NodeParameters,
    frame_lookup: FrameLookup,
    current_state: np.ndarray,
) -> IKQuery:
    """Check a request and put it into the solver's terms.

    Args:
        frame_lookup: frame_id, stamp -> T_base_frame (4, 4), or FrameError.
        current_state: (J,) the seed of a request that brings none.

    Raises:
        RequestError: with the code and message of the answer.
    """
    num_samples = count_from_field(
        "num_samples", request.num_samples, parameters.num_samples, parameters.max_num_samples
    )
    max_solutions = count_from_field(
        "max_solutions", request.max_solutions, parameters.max_solutions, parameters.max_num_samples
    )
    order, offsets, links = tips_from_links(
        request.tip_links, robot, parameters.tip_link, partial=True
    )
    targets = targets_at_tips(request.targets, order, offsets, links, robot, frame_lookup)
    asked, objectives = wishes_from_request(request, order, offsets, links, robot, parameters)
    return IKQuery(
        targets=targets[None],
        T_tip_frame=offsets,
        seed_state=seed_from_joint_state(request.seed_state, robot, current_state),
        num_samples=num_samples,
        max_solutions=max_solutions,
        avoid_self_collision=bool(request.avoid_self_collision),
        stamp=request.targets[0].header.stamp,
        goals=tuple(request.targets),
        asked=asked,
        objectives=objectives,
    )


def wishes_from_request(
    request: Any,
    order: list[int],
    offsets: np.ndarray,
    links: list[str],
    robot: Robot,
    parameters: NodeParameters,
) -> tuple[Asked, tuple[Any, ...]]:
    """What is asked for of the tips, and the objectives; the node's where the request has none."""
    texts = list(request.objectives) or list(parameters.objectives)
    if not request.free_axes and not texts and len(order) == robot.num_tips:
        return COMPLETE, ()
    try:
        asked = asked_from_request(order, links, list(request.free_axes), robot)
        return asked, objectives_from_texts(texts, robot)
    except IKError as error:
        raise RequestError(Codes.INVALID_GOAL_CONSTRAINTS, str(error)) from error


def count_from_field(name: str, value: int, default: int, most: int) -> int:
    """The requested count, or `default` for 0; RequestError above `most`."""
    if value > most:
        raise RequestError(
            Codes.INVALID_GOAL_CONSTRAINTS,
            f"{name} is {value}, the node's parameter max_num_samples allows {most}",
        )
    return int(value) or default


def targets_from_poses(
    poses: list[PoseStamped],
    tip_links: list[str],
    robot: Robot,
    tip_link: str,
    frame_lookup: FrameLookup,
) -> tuple[np.ndarray, np.ndarray]:
    """T_base_tip (T, 4, 4) and T_tip_frame (T, 4, 4), both in the robot's order of tips.

    Args:
        tip_links: one link per pose; empty: `tip_link`, or where that is empty, the robot's tips.

    Raises:
        RequestError: number of poses, link, frame or pose is wrong.
    """
    order, offsets, links = tips_from_links(tip_links, robot, tip_link)
    return targets_at_tips(poses, order, offsets, links, robot, frame_lookup), offsets


def targets_at_tips(
    poses: list[PoseStamped],
    order: list[int],
    offsets: np.ndarray,
    links: list[str],
    robot: Robot,
    frame_lookup: FrameLookup,
) -> np.ndarray:
    """T_base_tip (T, 4, 4) of poses for links, the identity for tips that have none.

    Args:
        order: tips in the order of poses and links.
        offsets: (T, 4, 4) T_tip_frame of the links.

    Raises:
        RequestError: number of poses, frame or pose is wrong.
    """
    if len(poses) != len(links):
        raise RequestError(
            Codes.INVALID_GOAL_CONSTRAINTS,
            f"{len(poses)} targets for {len(links)} tip links ({', '.join(links)}), expected one "
            f"for each; the tips of robot {robot.name} are {', '.join(robot.tips)}",
        )
    targets = np.tile(np.eye(4), (robot.num_tips, 1, 1))
    for tip, pose in zip(order, poses, strict=True):
        T_frame_link = matrix_from_pose(pose)
        T_base_frame = frame_from_lookup(frame_lookup, pose.header)
        targets[tip] = T_base_frame @ T_frame_link @ np.linalg.inv(offsets[tip])
    return targets


def tips_from_links(
    tip_links: list[str], robot: Robot, tip_link: str, partial: bool = False
) -> tuple[list[int], np.ndarray, list[str]]:
    """Tips in the order of the links, T_tip_frame (T, 4, 4) in the robot's order, the links.

    Args:
        tip_links: one link per tip; empty: `tip_link`, or where that is empty, the robot's tips.
        partial: whether some tips may have no link.

    Raises:
        RequestError: a link is unknown, a tip is named twice, or one has no link and may not.
    """
    links = list(tip_links) or ([tip_link] if tip_link else list(robot.tips))
    offsets: dict[int, np.ndarray] = {}
    order = []
    for link in links:
        try:
            tip, offset = robot.tip_offset(link)
        except LinkError as error:
            raise RequestError(Codes.INVALID_LINK_NAME, str(error)) from error
        if tip in offsets:
            raise RequestError(
                Codes.INVALID_LINK_NAME,
                f"tip_links {', '.join(links)} name tip {robot.tips[tip]} more than once",
            )
        offsets[tip] = np.asarray(offset, dtype=np.float64)
        order.append(tip)
    if len(offsets) != robot.num_tips and not partial:
        raise RequestError(
            Codes.INVALID_GOAL_CONSTRAINTS,
            f"{len(links)} tip links ({', '.join(links)}), expected one "
            f"for each tip of robot {robot.name}: {', '.join(robot.tips)}",
        )
    every = [offsets.get(tip, np.eye(4)) for tip in range(robot.num_tips)]
    return order, np.stack(every), links


def frame_from_lookup(frame_lookup: FrameLookup, header: Header) -> np.ndarray:
    """T_base_frame (4, 4) of a header; RequestError where it is not known."""
    try:
        return frame_lookup(header.frame_id, header.stamp)
    except FrameError as error:
        raise RequestError(Codes.FRAME_TRANSFORM_FAILURE, str(error)) from error


def matrix_from_pose(stamped: PoseStamped) -> np.ndarray:
    """(4, 4) of a pose; RequestError unless it is finite and its quaternion of unit length."""
    position, orientation = stamped.pose.position, stamped.pose.orientation
    xyz = [position.x, position.y, position.z]
    quat_xyzw = [orientation.x, orientation.y, orientation.z, orientation.w]
    if not all(map(math.isfinite, (*xyz, *quat_xyzw))):
        raise RequestError(
            Codes.INVALID_GOAL_CONSTRAINTS,
            f"target is not finite: position {xyz}, quaternion xyzw {quat_xyzw}",
        )
    norm = math.hypot(*quat_xyzw)
    if abs(norm - 1) > QUATERNION_NORM_TOLERANCE:
        raise RequestError(
            Codes.INVALID_GOAL_CONSTRAINTS,
            f"quaternion xyzw {quat_xyzw} has length {norm:.6g}, expected 1 "
            f"(within {QUATERNION_NORM_TOLERANCE:g})",
        )
    # by hand: on four numbers, calls of array libraries take longer than a tenth of a solve
    x, y, z, w = (value / norm for value in quat_xyzw)
    return np.array(
        (
            (1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w), xyz[0]),
            (2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w), xyz[1]),
            (2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y), xyz[2]),
            (0.0, 0.0, 0.0, 1.0),
        )
    )


def seed_from_joint_state(
    state: JointState, robot: Robot, current_state: np.ndarray, field: str = "seed_state"
) -> np.ndarray:
    """(J,) of a request's ``field``, `current_state` where it is empty.

    Raises:
        RequestError: unless it gives every joint of the robot, no other, once, finite and within
            the limits.
    """
    if not state.name and not len(state.position):
        return current_state
    names, expected = list(state.name), list(robot.joint_names)
    problem = None
    if len(names) != len(state.position):
        problem = f"{len(names)} names and {len(state.position)} positions"
    elif unknown := [name for name in names if name not in expected]:
        problem = f"unknown joints {', '.join(unknown)}"
    elif missing := [name for name in expected if name not in names]:
        problem = f"joints missing: {', '.join(missing)}"
    elif len(names) != len(expected):
        problem = "a joint named more than once"
    if problem:
        raise RequestError(
            Codes.INVALID_ROBOT_STATE,
            f"{field} has {problem}; robot {robot.name} has {', '.join(expected)}",
        )
    by_name = dict(zip(names, state.position, strict=True))
    seed = np.array([by_name[name] for name in expected])
    if not np.isfinite(seed).all():
        raise RequestError(Codes.INVALID_ROBOT_STATE, f"{field} is not finite: {seed.tolist()}")
    seed = wrap_continuous(seed, robot)
    if outside := limit_violations(seed, robot):
        raise RequestError(Codes.INVALID_ROBOT_STATE, f"{field} is outside the limits: {outside}")
    return np.clip(seed, robot.lower, robot.upper)


def limit_violations(q: np.ndarray, robot: Robot) -> str:
    """Text that names the joints of q (J,) outside their limits, empty where there are none."""
    return ", ".join(
        f"{name} {value:.6g} (limits {low:.6g} to {high:.6g})"
        for name, value, low, high in zip(
            robot.joint_names, q, robot.lower, robot.upper, strict=True
        )
        if not low - LIMIT_TOLERANCE <= value <= high + LIMIT_TOLERANCE
    )


def wrap_continuous(q: np.ndarray, robot: Robot) -> np.ndarray:
    """q (J,), finite, with the angles of continuous joints in [-pi, pi]."""
    wrapped = np.remainder(q + np.pi, 2 * np.pi) - np.pi
    return np.where(robot.continuous & (np.abs(q) > np.pi), wrapped, q)


def known_positions(state: JointState, robot: Robot) -> Mapping[str, float]:
    """Finite positions of the robot's joints in a message of the joint_states topic.

    Grippers, other arms and joints without a position are normal there and passed over; a
    message whose names and positions do not pair up says nothing.
    """
    if len(state.name) != len(state.position):
        return {}
    mine = set(robot.joint_names)
    return {
        name: float(position)
        for name, position in zip(state.name, state.position, strict=True)
        if name in mine and math.isfinite(position)
    }


def doubles(values: Any) -> array.array:
    """What a float64[] field takes; from bytes it is 50 times faster than from a list."""
    return array.array("d", np.ascontiguousarray(values, dtype=np.float64).tobytes())


def doubles_by_row(values: np.ndarray) -> list[array.array]:
    """`doubles` of each row of (N, D)."""
    flat, width = doubles(values), values.shape[1]
    return [flat[start : start + width] for start in range(0, len(flat), width)]


def pose_message(T_frame_link: np.ndarray, frame_id: str) -> PoseStamped:
    """A pose (4, 4) in frame `frame_id`, stamp zero."""
    message = PoseStamped()
    message.header.frame_id = frame_id
    x, y, z = T_frame_link[:3, 3].tolist()
    message.pose.position = Point(x=x, y=y, z=z)
    x, y, z, w = quat_xyzw_from_matrix(T_frame_link[:3, :3]).tolist()
    message.pose.orientation = Quaternion(x=x, y=y, z=z, w=w)
    return message


def joint_state_message(q: np.ndarray, robot: Robot, stamp: Any) -> JointState:
    """q (J,) as a message in the robot's base frame."""
    header = Header(stamp=stamp, frame_id=robot.base)
    return JointState(header=header, name=list(robot.joint_names), position=doubles(q))


def judge_at_frames(
    result: IKResult,
    targets: np.ndarray,
    T_tip_frame: np.ndarray,
    robot: Robot,
    parameters: NodeParameters,
    asked: Asked = COMPLETE,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which rows are valid (B, M), and their errors [m], [rad] (B, M, T) at the links asked for."""
    errors = result.position_error, result.orientation_error
    if not np.array_equal(T_tip_frame, np.broadcast_to(np.eye(4), T_tip_frame.shape)):
        # The solver measures at the tip; a lever arm to the link asked for can add to the error.
        errors = errors_at_frames(result.joint_positions, targets, T_tip_frame, robot, asked.axes)
    valid = result.valid & (errors[0] <= parameters.position_tolerance).all(-1)
    return valid & (errors[1] <= parameters.orientation_tolerance).all(-1), *errors


def errors_at_frames(
    q: np.ndarray,
    targets: np.ndarray,
    T_tip_frame: np.ndarray,
    robot: Robot,
    axes: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Distance [m] and angle [rad], each (B, M, T), between the links asked for and their targets.

    Args:
        q: (B, M, J), targets: (B, T, 4, 4), T_tip_frame: (T, 4, 4).
        axes: (T, 6) bool, what is asked for; None: everything.
    """
    reached = np.asarray(robot.forward(q)) @ T_tip_frame
    wanted = (targets @ T_tip_frame)[:, None]
    return pose_errors(reached, wanted, axes)


def solutions_from_result(
    query: IKQuery, result: IKResult, robot: Robot, parameters: NodeParameters
) -> list[IKSolution]:
    """The valid solutions, best first; where there are none, the nearest misses, `valid` False."""
    q = result.joint_positions[0]
    valid, position_error, orientation_error = (
        part[0]
        for part in judge_at_frames(
            result, query.targets, query.T_tip_frame, robot, parameters, query.asked
        )
    )
    rows = np.flatnonzero(valid if valid.any() else np.isfinite(q).all(-1))
    header, names = Header(stamp=query.stamp, frame_id=robot.base), list(robot.joint_names)
    clearance = [math.nan] * len(rows)
    if result.clearance is not None:
        clearance = result.clearance[0, rows].tolist()
    solutions = [
        IKSolution(
            joint_state=JointState(header=header, name=names, position=positions),
            position_error=positions_off,
            orientation_error=orientations_off,
            distance=distance,
            cost=cost,
            valid=is_valid,
            clearance=gap,
        )
        for positions, positions_off, orientations_off, distance, cost, is_valid, gap in zip(
            doubles_by_row(q[rows]),
            doubles_by_row(position_error[rows]),
            doubles_by_row(orientation_error[rows]),
            result.distance[0, rows].tolist(),
            result.cost[0, rows].tolist(),
            valid[rows].tolist(),
            clearance,
            strict=True,
        )
    ]
    if result.objective_values is not None:
        values = doubles_by_row(result.objective_values[0, rows])
        for solution, found in zip(solutions, values, strict=True):
            solution.objective_values = found
    return solutions


def response_from_result(
    query: IKQuery,
    result: IKResult,
    robot: Robot,
    parameters: NodeParameters,
    total_time: float,
    response: GetIKSolutions.Response,
) -> GetIKSolutions.Response:
    """Fill the answer; `total_time` [s] counts from the arrival of the request."""
    response.solutions = solutions_from_result(query, result, robot, parameters)
    response.sample_time = float(result.timing["sample"])
    response.refine_time = float(result.timing["refine"])
    response.total_time = float(total_time)
    if response.solutions and response.solutions[0].valid:
        response.error_code = Codes.SUCCESS
    else:
        response.error_code = Codes.NO_IK_SOLUTION
        response.message = "no configuration within the limits reaches the target"
        if response.solutions:
            nearest = response.solutions[0]
            response.message += (
                f"; the nearest one found misses it by {max(nearest.position_error):.3g} m "
                f"and {max(nearest.orientation_error):.3g} rad"
            )
    return response


def response_from_error(error: Exception, response: Any) -> Any:
    """A response of the same service to a request that failed, with nothing else in it."""
    refused = type(response)(
        error_code=error_code_of(error), message=str(error) or type(error).__name__
    )
    if hasattr(refused, "failed_waypoint"):
        refused.failed_waypoint = -1  # 0 is the first
    return refused


def error_code_of(error: Exception) -> int:
    """Which of the service's codes tells of `error`."""
    if isinstance(error, RequestError):
        return error.error_code
    codes = {
        TargetError: Codes.INVALID_GOAL_CONSTRAINTS,
        SeedError: Codes.INVALID_ROBOT_STATE,
        LinkError: Codes.INVALID_LINK_NAME,
        FrameError: Codes.FRAME_TRANSFORM_FAILURE,
    }
    return next((code for kind, code in codes.items() if isinstance(error, kind)), Codes.FAILURE)


def candidates_from_response(
    query: IKQuery, response: GetIKSolutions.Response, robot: Robot
) -> IKSolutionArray:
    """What ~/candidates carries for an answered goal."""
    message = IKSolutionArray(targets=list(query.goals), solutions=response.solutions)
    message.header.stamp = query.stamp
    message.header.frame_id = robot.base
    return message
