# SPDX-License-Identifier: Apache-2.0
"""Many alternative targets in one request; the answer is flat arrays, which ROS moves fast."""

from __future__ import annotations

import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from geometry_msgs.msg import PoseArray

from meanflow_ik_core.geometry import matrix_from_quat_xyzw
from meanflow_ik_ros.messages.conversions import (
    QUATERNION_NORM_TOLERANCE,
    Codes,
    FrameLookup,
    RequestError,
    count_from_field,
    doubles,
    frame_from_lookup,
    judge_at_frames,
    seed_from_joint_state,
    tips_from_links,
    wishes_from_request,
)
from meanflow_ik_ros.messages.task import COMPLETE, Asked
from meanflow_ik_ros.srv import GetIKSolutionsBatch

if TYPE_CHECKING:
    from meanflow_ik_core.robot.robot import Robot
    from meanflow_ik_core.solving.solver import IKResult
    from meanflow_ik_ros.parameters import NodeParameters

# Starts per solution asked for, where the request leaves their number to the node.
STARTS_PER_SOLUTION = 2
_NAMED_TARGETS = 5  # that an answer's message lists


@dataclass(frozen=True, eq=False)
class BatchQuery:
    """A batch that has passed every check.

    targets: (B, T, 4, 4) T_base_tip in the robot's own order of tips.
    T_tip_frame: (T, 4, 4) the links that were asked for, seen from the robot's tips.
    seed_state: (J,) within the limits.
    """

    targets: np.ndarray
    T_tip_frame: np.ndarray
    seed_state: np.ndarray
    num_samples: int
    max_solutions: int
    avoid_self_collision: bool
    asked: Asked = COMPLETE
    objectives: tuple[Any, ...] = ()


def batch_from_request(
    request: GetIKSolutionsBatch.Request,
    robot: Robot,
    parameters: NodeParameters,
    frame_lookup: FrameLookup,
    current_state: np.ndarray,
) -> BatchQuery:
    """Check a request and put it into the solver's terms.

    Args:
        frame_lookup: frame_id, stamp -> T_base_frame (4, 4), or FrameError.
        current_state: (J,) the seed of a request that brings none.

    Raises:
        RequestError: with the code and message of the answer.
    """
    most = parameters.max_num_samples
    max_solutions = count_from_field(
        "max_solutions", request.max_solutions, parameters.max_solutions, most
    )
    default = min(parameters.num_samples, STARTS_PER_SOLUTION * max_solutions)
    num_samples = count_from_field("num_samples", request.num_samples, default, most)
    tips = tips_from_links(request.tip_links, robot, parameters.tip_link, partial=True)
    targets, offsets = targets_from_pose_array(
        request.targets, tips, robot, parameters, frame_lookup, max(num_samples, max_solutions)
    )
    asked, objectives = wishes_from_request(request, *tips, robot, parameters)
    return BatchQuery(
        targets=targets,
        T_tip_frame=offsets,
        seed_state=seed_from_joint_state(request.seed_state, robot, current_state),
        num_samples=num_samples,
        max_solutions=max_solutions,
        avoid_self_collision=bool(request.avoid_self_collision),
        asked=asked,
        objectives=objectives,
    )


def targets_from_pose_array(
    poses: PoseArray,
    tips: tuple[list[int], np.ndarray, list[str]],
    robot: Robot,
    parameters: NodeParameters,
    frame_lookup: FrameLookup,
    rows: int,
) -> tuple[np.ndarray, np.ndarray]:
    """T_base_tip (B, T, 4, 4) and T_tip_frame (T, 4, 4), both in the robot's order of tips.

    Args:
        poses: one per link for each target, link by link.
        tips: as `tips_from_links` has them.
        rows: starts or solutions per target; all of them together are limited.

    Raises:
        RequestError: number of poses, link, frame or pose is wrong, or there are too many.
    """
    order, offsets, links = tips
    T_frame_link = matrices_from_poses(poses)
    if len(T_frame_link) == 0 or len(T_frame_link) % len(links):
        raise RequestError(
            Codes.INVALID_GOAL_CONSTRAINTS,
            f"{len(T_frame_link)} poses, expected one or more for each of the {len(links)} "
            f"tip links: {', '.join(links)}",
        )
    count = len(T_frame_link) // len(links)
    if count > parameters.max_batch_targets:
        raise RequestError(
            Codes.INVALID_GOAL_CONSTRAINTS,
            f"{count} targets, the node's parameter max_batch_targets allows "
            f"{parameters.max_batch_targets}",
        )
    if count * rows > parameters.max_batch_samples:
        raise RequestError(
            Codes.INVALID_GOAL_CONSTRAINTS,
            f"{count} targets with {rows} starts or solutions each, the node's parameter "
            f"max_batch_samples allows {parameters.max_batch_samples} together",
        )
    T_base_frame = frame_from_lookup(frame_lookup, poses.header)
    T_base_link = T_base_frame @ T_frame_link.reshape(-1, len(links), 4, 4)
    targets = np.tile(np.eye(4), (count, robot.num_tips, 1, 1))
    targets[:, order] = T_base_link @ np.linalg.inv(offsets[order])
    return targets, offsets


def matrices_from_poses(poses: PoseArray) -> np.ndarray:
    """(N, 4, 4); RequestError that names the first pose that is not finite or of unit length."""
    numbers = np.array(
        [
            (p.x, p.y, p.z, o.x, o.y, o.z, o.w)
            for p, o in ((pose.position, pose.orientation) for pose in poses.poses)
        ],
        dtype=np.float64,
    ).reshape(-1, 7)
    norm = np.linalg.norm(numbers[:, 3:], axis=1)
    bad = ~np.isfinite(numbers).all(1) | ~(np.abs(norm - 1) <= QUATERNION_NORM_TOLERANCE)
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        raise RequestError(
            Codes.INVALID_GOAL_CONSTRAINTS,
            f"pose {first} of {len(numbers)}: position {numbers[first, :3].tolist()}, quaternion "
            f"xyzw {numbers[first, 3:].tolist()} of length {norm[first]:.6g}; expected finite "
            f"numbers and length 1 (within {QUATERNION_NORM_TOLERANCE:g})",
        )
    matrices = np.tile(np.eye(4), (len(numbers), 1, 1))
    matrices[:, :3, :3] = matrix_from_quat_xyzw(numbers[:, 3:])
    matrices[:, :3, 3] = numbers[:, :3]
    return matrices


def batch_response_from_result(
    query: BatchQuery,
    result: IKResult,
    robot: Robot,
    parameters: NodeParameters,
    total_time: float,
) -> GetIKSolutionsBatch.Response:
    """The answer; `total_time` [s] counts from the arrival of the request."""
    valid, position_error, orientation_error = judge_at_frames(
        result, query.targets, query.T_tip_frame, robot, parameters, query.asked
    )
    solved = np.count_nonzero(valid, axis=1) > 0
    keep = valid.copy()
    # rows are ranked, so the first of a target without a solution is its nearest miss
    known = np.isfinite(result.joint_positions).min(-1)
    misses = np.flatnonzero(~solved & known.max(1))
    keep[misses, known[misses].argmax(1)] = True
    response = GetIKSolutionsBatch.Response(
        joint_names=list(robot.joint_names),
        offsets=array.array("I", np.append(0, keep.sum(1).cumsum()).tolist()),
        positions=doubles(result.joint_positions[keep].ravel()),
        position_error=doubles(position_error[keep].ravel()),
        orientation_error=doubles(orientation_error[keep].ravel()),
        distance=doubles(result.distance[keep]),
        cost=doubles(result.cost[keep]),
        valid=valid[keep].tolist(),
        sample_time=float(result.timing["sample"]),
        refine_time=float(result.timing["refine"]),
        total_time=float(total_time),
    )
    if result.clearance is not None:
        response.clearance = doubles(result.clearance[keep])
    if result.objective_values is not None:
        response.objective_values = doubles(result.objective_values[keep].ravel())
    response.error_code = Codes.SUCCESS if solved.any() else Codes.NO_IK_SOLUTION
    if not solved.all():
        response.message = _without_solution(np.flatnonzero(~solved), parameters, len(solved))
    return response


def _without_solution(rows: np.ndarray, parameters: NodeParameters, count: int) -> str:
    named = ", ".join(str(row) for row in rows[:_NAMED_TARGETS].tolist())
    more = ", ..." if len(rows) > _NAMED_TARGETS else ""
    limits = "limits and the time" if parameters.timeout else "limits"
    return f"{len(rows)} of {count} targets have no solution within the {limits}: {named}{more}"
