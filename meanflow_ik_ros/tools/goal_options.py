# SPDX-License-Identifier: Apache-2.0
"""The options of `send_goal`, and the goals that they describe."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence

from geometry_msgs.msg import Point, PoseStamped, Quaternion

from meanflow_ik_core.commands.pose_options import joined, pose_numbers
from meanflow_ik_core.errors import OptionError
from meanflow_ik_core.plain_numbers import plain_float, plain_int


def read_options(arguments: Sequence[str], description: str | None = None) -> argparse.Namespace:
    """What the arguments say; the program ends where they cannot be read."""
    parser = argparse.ArgumentParser(
        prog="send_goal",
        description=description,
        epilog="For several tips, repeat --xyz, --rpy or --quat, and --tip, once for each; tips "
        "that are not named may be anywhere. The exit code is 0 where a solution was found, 1 "
        "where there is none, 2 where the request was refused, the options are wrong or no answer "
        "came.",
    )
    parser.register("type", int, plain_int)
    parser.register("type", float, plain_float)
    for option, metavar, meaning in (
        ("--xyz", "X Y Z", "position of the target [m]"),
        ("--rpy", "R P Y", "orientation: roll, pitch, yaw about the fixed axes x, y, z [rad]"),
        ("--quat", "X Y Z W", "orientation as a unit quaternion, instead of --rpy"),
    ):
        parser.add_argument(option, action="append", default=[], metavar=metavar, help=meaning)
    parser.add_argument(
        "--frame",
        default="",
        help="frame that the target is given in; default: the base of the node's robot",
    )
    parser.add_argument(
        "--tip",
        action="append",
        default=[],
        metavar="LINK",
        help="link that shall reach the target; default: the tips of the node's robot, or its "
        "parameter tip_link",
    )
    parser.add_argument(
        "--free-axes",
        action="append",
        default=[],
        metavar="AXES",
        help='axes of the target that may be anything, out of "x y z rx ry rz"; once for each '
        'target, "" for none; where all have "rx ry rz", no orientation need be given',
    )
    parser.add_argument(
        "--max-solutions",
        type=int,
        default=0,
        metavar="N",
        help="how many solutions to return at most; default: the node's parameter max_solutions",
    )
    parser.add_argument(
        "--avoid-self-collision",
        action="store_true",
        help="return only solutions in which the robot does not touch itself",
    )
    parser.add_argument(
        "--objective",
        action="append",
        default=[],
        metavar="NAME_OR_YAML",
        help="what solutions shall also be good for, such as manipulability or "
        '"{name: posture, weight: 2.0}"; repeat for several; default: the node\'s parameter '
        "objectives",
    )
    parser.add_argument(
        "--node", default="/meanflow_ik", help="name of the solver node; default: %(default)s"
    )
    parser.add_argument(
        "--topic",
        action="store_true",
        help="do not call the service: publish the target on ~/goal_pose, several on ~/goal_poses "
        "in the order of the robot's tips, and show what comes on ~/candidates",
    )
    parser.add_argument(
        "--latest",
        action="store_true",
        help="with --topic: use the latest transform of --frame that is known; without this "
        "option, the transform of the time of sending",
    )
    parser.add_argument(
        "--watch",
        action="store_true",
        help="then, or without a target at once, show the candidates of every goal until Ctrl-C",
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object per answer, in SI units"
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=5.0,
        metavar="S",
        help="how long to wait for the node and for its answer [s]; default: %(default)g",
    )
    return parser.parse_args(joined(arguments))


def check_options(options: argparse.Namespace) -> None:
    """OptionError where options contradict each other."""
    if not 0 <= options.max_solutions < 2**32:
        raise OptionError(f"--max-solutions {options.max_solutions}, expected 0 to {2**32 - 1}")
    if not (math.isfinite(options.timeout) and options.timeout > 0):
        raise OptionError(f"--timeout {options.timeout:g}, expected seconds above 0")
    if options.latest and not options.topic:
        raise OptionError("--latest is for --topic; the service takes the latest transform anyway")
    service_only = ("tip", "free_axes", "max_solutions", "avoid_self_collision", "objective")
    for name in service_only if options.topic else ():
        if getattr(options, name):
            raise OptionError(
                f"--{name.replace('_', '-')} does not go with --topic: a goal on the topic "
                "is solved with the node's parameters"
            )


def quat_xyzw_from_rpy(roll: float, pitch: float, yaw: float) -> tuple[float, ...]:
    """Rotations about the fixed axes x, y, z in this order [rad], as in a URDF."""
    try:
        from tf_transformations import quaternion_from_euler
    except ImportError:
        try:
            from transforms3d.euler import euler2quat
        except ImportError as error:
            raise OptionError(
                "--rpy needs tf_transformations or transforms3d; install one or give --quat"
            ) from error
        w, x, y, z = euler2quat(roll, pitch, yaw, "sxyz")
        return float(x), float(y), float(z), float(w)
    return tuple(float(value) for value in quaternion_from_euler(roll, pitch, yaw, "sxyz"))


def goals_from_options(options: argparse.Namespace) -> list[PoseStamped]:
    """One goal per --xyz, stamp zero; none where candidates are only watched.

    Raises:
        IKError: the options do not go together, or a number is none of a pose.
    """
    xyz, rpy, quat = options.xyz, options.rpy, options.quat
    if options.watch and not (xyz or rpy or quat):
        return []
    positions, rotations = pose_numbers(xyz, rpy, quat, options.free_axes, "--watch")
    for name, values in (("--tip", options.tip), ("--free-axes", options.free_axes)):
        if values and len(values) != len(positions):
            raise OptionError(f"{len(values)} {name} for {len(positions)} poses")
    goals = []
    for position, rotation in zip(positions, rotations, strict=True):
        goal = PoseStamped()
        goal.header.frame_id = options.frame
        goal.pose.position = Point(**dict(zip("xyz", position, strict=True)))
        quat_xyzw = rotation if quat else quat_xyzw_from_rpy(*rotation)
        goal.pose.orientation = Quaternion(**dict(zip("xyzw", quat_xyzw, strict=True)))
        goals.append(goal)
    return goals
