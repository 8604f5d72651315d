# SPDX-License-Identifier: Apache-2.0
"""How large a request may be; looked at before anything of it is converted or repeated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from meanflow_ik_core.bounds import (
    MOST_JOINT_NAMES,
    MOST_NAME,
    MOST_OBJECTIVE_TEXT,
    MOST_OBJECTIVES,
    MOST_TIPS,
)
from meanflow_ik_ros.messages.errors import Codes, RequestError

# Of lists of texts: how many, how long, and the code of more.
_TEXTS = (
    ("tip_links", MOST_TIPS, MOST_NAME, Codes.INVALID_LINK_NAME),
    ("ik_link_names", MOST_TIPS, MOST_NAME, Codes.INVALID_LINK_NAME),
    ("free_axes", MOST_TIPS, MOST_NAME, Codes.INVALID_GOAL_CONSTRAINTS),
    ("objectives", MOST_OBJECTIVES, MOST_OBJECTIVE_TEXT, Codes.INVALID_GOAL_CONSTRAINTS),
)
_STATES = ("seed_state", "start_state")
# Of single poses, PoseStamped, or of one PoseArray, whose poses are counted by parameters.
_TARGETS = ("targets", "waypoints", "pose_stamped", "pose_stamped_vector")


def check_sizes(request: Any) -> None:
    """Refuse a request of any of the services that has too many or too long texts, or poses.

    Raises:
        RequestError: with the code and message of the answer.
    """
    for name, most, longest, code in _TEXTS:
        if texts := getattr(request, name, None):
            check_texts(name, texts, most, longest, code)
    for name in _STATES:
        if (state := getattr(request, name, None)) is not None:
            check_joint_state(name, state)
    for name in _TARGETS:
        targets = getattr(request, name, None)
        if isinstance(targets, list):
            check_poses(targets)
        elif targets is not None:
            check_frame(targets.header)


def check_poses(poses: Sequence[Any]) -> None:
    """Refuse more PoseStamped than a robot has tips, and long names of their frames."""
    if len(poses) > MOST_TIPS:
        raise RequestError(
            Codes.INVALID_GOAL_CONSTRAINTS, f"{len(poses)} targets; {MOST_TIPS} are the most"
        )
    for pose in poses:
        check_frame(pose.header)


def check_frame(header: Any) -> None:
    """Refuse a long frame_id."""
    if len(header.frame_id) > MOST_NAME:
        raise RequestError(
            Codes.FRAME_TRANSFORM_FAILURE,
            f"a frame_id has {len(header.frame_id)} characters; {MOST_NAME} are the most",
        )


def check_joint_state(name: str, state: Any) -> None:
    """Refuse a JointState of too many or too long names, or too many positions."""
    check_texts(name, state.name, MOST_JOINT_NAMES, MOST_NAME, Codes.INVALID_ROBOT_STATE)
    if len(state.position) > MOST_JOINT_NAMES:
        raise RequestError(
            Codes.INVALID_ROBOT_STATE,
            f"{name} has {len(state.position)} positions; {MOST_JOINT_NAMES} are the most",
        )


def check_texts(name: str, texts: Sequence[str], most: int, longest: int, code: int) -> None:
    """Refuse too many or too long texts with a code."""
    if len(texts) > most:
        raise RequestError(code, f"{name} has {len(texts)} entries; {most} are the most")
    for place, text in enumerate(texts):
        if len(text) > longest:
            raise RequestError(
                code, f"{name}[{place}] has {len(text)} characters; {longest} are the most"
            )
