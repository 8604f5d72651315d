# SPDX-License-Identifier: Apache-2.0
"""Targets: poses of links, in any frame, to poses of the robot's tips in its base."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from geometry_msgs.msg import PoseArray, PoseStamped
from std_msgs.msg import Header

from meanflow_ik_core.errors import LinkError
from meanflow_ik_ros.messages.errors import Codes, FrameError, RequestError
from meanflow_ik_ros.messages.poses import matrices_from_poses, matrix_from_pose

if TYPE_CHECKING:
    from meanflow_ik_core.robot.robot import Robot
    from meanflow_ik_ros.parameters import NodeParameters

# frame_id, stamp -> T_base_frame (4, 4), or FrameError.
FrameLookup = Callable[[str, Any], np.ndarray]


@dataclass(frozen=True, eq=False)
class TipLinks:
    """The links that a request's poses are for.

    names: of the links, in the order of the poses.
    tips: the tip that each link is fixed to.
    T_tip_link: (T, 4, 4) in the robot's own order of tips; the identity for tips without a link.
    """

    names: list[str]
    tips: list[int]
    T_tip_link: np.ndarray


def tip_links_from_names(
    names: Sequence[str], robot: Robot, tip_link: str, partial: bool = False
) -> TipLinks:
    """The links of a request, with the tips that they are fixed to.

    Args:
        names: one link per tip; empty: `tip_link`, or where that is empty, the robot's tips.
        partial: whether some tips may have no link.

    Raises:
        RequestError: a link is unknown, a tip is named twice, or one has no link and may not.
    """
    links = list(names) or ([tip_link] if tip_link else list(robot.tips))
    tips: list[int] = []
    T_tip_link = np.tile(np.eye(4), (robot.num_tips, 1, 1))
    for link in links:
        try:
            tip, offset = robot.tip_offset(link)
        except LinkError as error:
            raise RequestError(Codes.INVALID_LINK_NAME, str(error)) from error
        if tip in tips:
            raise RequestError(
                Codes.INVALID_LINK_NAME,
                f"tip_links {', '.join(links)} name tip {robot.tips[tip]} more than once",
            )
        T_tip_link[tip] = offset
        tips.append(tip)
    if len(tips) != robot.num_tips and not partial:
        raise RequestError(
            Codes.INVALID_GOAL_CONSTRAINTS,
            f"{len(links)} tip links ({', '.join(links)}), expected one "
            f"for each tip of robot {robot.name}: {', '.join(robot.tips)}",
        )
    return TipLinks(links, tips, T_tip_link)


def targets_from_poses(
    poses: Sequence[PoseStamped], links: TipLinks, robot: Robot, frame_lookup: FrameLookup
) -> np.ndarray:
    """T_base_tip (1, T, 4, 4) of one pose per link; the identity for tips without a link.

    Raises:
        RequestError: number of poses, frame or pose is wrong.
    """
    if len(poses) != len(links.names):
        raise RequestError(
            Codes.INVALID_GOAL_CONSTRAINTS,
            f"{len(poses)} targets for {len(links.names)} tip links ({', '.join(links.names)}), "
            f"expected one for each; the tips of robot {robot.name} are {', '.join(robot.tips)}",
        )
    targets = np.tile(np.eye(4), (1, robot.num_tips, 1, 1))
    for tip, pose in zip(links.tips, poses, strict=True):
        T_frame_link = matrix_from_pose(pose)
        T_base_frame = frame_from_lookup(frame_lookup, pose.header)
        targets[0, tip] = T_base_frame @ T_frame_link @ np.linalg.inv(links.T_tip_link[tip])
    return targets


def targets_from_pose_array(
    poses: PoseArray,
    links: TipLinks,
    robot: Robot,
    parameters: NodeParameters,
    frame_lookup: FrameLookup,
    rows: int,
) -> np.ndarray:
    """T_base_tip (B, T, 4, 4) of B targets; the identity for tips without a link.

    Args:
        poses: one per link for each target, link by link.
        rows: starts or solutions per target; all of them together are limited.

    Raises:
        RequestError: number of poses, frame or pose is wrong, or there are too many.
    """
    width, given = len(links.names), len(poses.poses)
    if given == 0 or given % width:
        raise RequestError(
            Codes.INVALID_GOAL_CONSTRAINTS,
            f"{given} poses, expected one or more for each of the {width} "
            f"tip links: {', '.join(links.names)}",
        )
    count = given // width
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
    T_frame_link = matrices_from_poses(poses)
    T_base_frame = frame_from_lookup(frame_lookup, poses.header)
    T_base_link = T_base_frame @ T_frame_link.reshape(count, width, 4, 4)
    targets = np.tile(np.eye(4), (count, robot.num_tips, 1, 1))
    targets[:, links.tips] = T_base_link @ np.linalg.inv(links.T_tip_link[links.tips])
    return targets


def frame_from_lookup(frame_lookup: FrameLookup, header: Header) -> np.ndarray:
    """T_base_frame (4, 4) of a header; RequestError where it is not known."""
    try:
        return frame_lookup(header.frame_id, header.stamp)
    except FrameError as error:
        raise RequestError(Codes.FRAME_TRANSFORM_FAILURE, str(error)) from error
