# SPDX-License-Identifier: Apache-2.0
"""The types of moveit_msgs, which is optional."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

NOT_INSTALLED = "moveit_msgs is not installed"


def moveit_type(folder: str, name: str) -> Any:
    """A type of moveit_msgs, or the text of why it cannot be used.

    Args:
        folder: "msg" or "srv".
        name: of the type in it.
    """
    if find_spec("moveit_msgs") is None:
        return NOT_INSTALLED
    try:
        from rclpy.type_support import check_is_valid_msg_type, check_is_valid_srv_type

        kind = getattr(import_module(f"moveit_msgs.{folder}"), name)
        (check_is_valid_srv_type if folder == "srv" else check_is_valid_msg_type)(kind)
    except Exception as error:
        # It may be built for another Python or ROS, or lack what it needs itself.
        return f"moveit_msgs cannot be used: {type(error).__name__}: {error}"
    return kind
