# SPDX-License-Identifier: Apache-2.0
"""Why a request is refused, and the codes that tell of it."""

from __future__ import annotations

from typing import Any

from meanflow_ik_core.bounds import short
from meanflow_ik_core.errors import IKError, LinkError, SeedError, TargetError, WorldError
from meanflow_ik_ros.srv import ApplyWorld, GetIKSolutions

# Every service that solves has these codes, and those of the world have the others.
Codes = GetIKSolutions.Response
WorldCodes = ApplyWorld.Response


class RequestError(IKError):
    """A request cannot be solved as it stands; carries the error code of the answer."""

    def __init__(self, error_code: int, message: str) -> None:
        super().__init__(message)
        self.error_code = error_code


class FrameError(IKError):
    """A frame is neither fixed to the base nor known to TF."""


def response_from_error(error: Exception, response: Any) -> Any:
    """A response of the same type to a request that failed, with nothing else in it.

    Its message has no more than `bounds.MOST_MESSAGE` characters.
    """
    refused = type(response)(
        error_code=error_code_of(error), message=short(error) or type(error).__name__
    )
    if hasattr(refused, "failed_waypoint"):
        refused.failed_waypoint = -1  # 0 is the first
    return refused


def error_code_of(error: Exception) -> int:
    """Which of the codes tells of `error`."""
    if isinstance(error, RequestError):
        return error.error_code
    codes = {
        TargetError: Codes.INVALID_GOAL_CONSTRAINTS,
        SeedError: Codes.INVALID_ROBOT_STATE,
        LinkError: Codes.INVALID_LINK_NAME,
        FrameError: Codes.FRAME_TRANSFORM_FAILURE,
        WorldError: Codes.COLLISION_CHECKING_UNAVAILABLE,
    }
    return next((code for kind, code in codes.items() if isinstance(error, kind)), Codes.FAILURE)
