# SPDX-License-Identifier: Apache-2.0
"""Asks a running node for solutions of a pose, or one per tip, and shows what it answers."""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
import time
from collections.abc import Callable
from typing import Any

import rclpy
from geometry_msgs.msg import Point, PoseArray, PoseStamped, Quaternion
from rclpy.exceptions import InvalidServiceNameException, InvalidTopicNameException
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node, NodeNameNonExistentError
from rclpy.qos import QoSProfile
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args
from rich.console import Console

from meanflow_ik_core.errors import IKError, OptionError
from meanflow_ik_ros.msg import IKSolutionArray
from meanflow_ik_ros.srv import GetIKSolutions
from meanflow_ik_ros.tools.answer_output import show_candidates, show_response

Codes = GetIKSolutions.Response
SOLVED, UNSOLVED, REFUSED, INTERRUPTED = 0, 1, 2, 130
RESEND_S = 1.0
SERVICE_TYPE = "meanflow_ik_ros/srv/GetIKSolutions"
QUATERNION_NORM_TOLERANCE = 1e-3


class ClientError(IKError):
    """The node is not there, or does not answer."""


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
    """One goal per --xyz, stamp zero.

    Raises:
        OptionError: the options do not go together, or a number is none of a pose.
    """
    positions, rotations = options.xyz, options.quat or options.rpy
    if bool(options.quat) and bool(options.rpy):
        raise OptionError("give --rpy or --quat, not both")
    if len(positions) != len(rotations):
        raise OptionError(
            f"{len(positions)} --xyz and {len(rotations)} --rpy or --quat; a pose needs one of each"
        )
    for name, values in (("--tip", options.tip), ("--free-axes", options.free_axes)):
        if values and len(values) != len(positions):
            raise OptionError(f"{len(values)} {name} for {len(positions)} poses")
    return [goal_message(*pose, options) for pose in zip(positions, rotations, strict=True)]


def goal_message(xyz: list[float], rotation: list[float], options: Any) -> PoseStamped:
    if not all(map(math.isfinite, [*xyz, *rotation])):
        raise OptionError(f"the pose {xyz}, {rotation} is not finite")
    if options.quat:
        length = math.hypot(*rotation)
        if abs(length - 1) > QUATERNION_NORM_TOLERANCE:
            raise OptionError(f"--quat has the length {length:g}; a unit quaternion has 1")
        quat_xyzw = [value / length for value in rotation]
    else:
        quat_xyzw = quat_xyzw_from_rpy(*rotation)
    goal = PoseStamped()
    goal.header.frame_id = options.frame
    goal.pose.position = Point(**dict(zip("xyz", xyz, strict=True)))
    goal.pose.orientation = Quaternion(**dict(zip("xyzw", quat_xyzw, strict=True)))
    return goal


class Client:
    """A node with a client and publishers for one solver node, and what it has heard of it."""

    def __init__(self, solver: str, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self.candidates: list[IKSolutionArray] = []
        self._node = Node(f"send_goal_{os.getpid()}")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        self._solver = solver.rstrip("/")
        queue = QoSProfile(depth=100)
        try:
            self._service = self._node.create_client(
                GetIKSolutions, f"{self._solver}/get_ik_solutions"
            )
            self._goal = self._node.create_publisher(
                PoseStamped, f"{self._solver}/goal_pose", queue
            )
            self._goals = self._node.create_publisher(
                PoseArray, f"{self._solver}/goal_poses", queue
            )
            self._node.create_subscription(
                IKSolutionArray, f"{self._solver}/candidates", self.candidates.append, queue
            )
        except (InvalidServiceNameException, InvalidTopicNameException) as error:
            self.close()
            raise OptionError(f"--node {solver}: {' '.join(str(error).split())}") from error

    def ask(self, request: GetIKSolutions.Request) -> GetIKSolutions.Response:
        """The service's answer; ClientError where there is none."""
        if not self._wait(self._service.service_is_ready):
            raise ClientError(self._missing(f"no service {self._service.srv_name}"))
        future = self._service.call_async(request)
        if not self._wait(future.done):
            raise ClientError(f"no answer within {self.timeout_s:g} s")
        response = future.result()
        assert response is not None
        return response

    def publish(self, goals: list[PoseStamped], latest: bool) -> IKSolutionArray:
        """The candidates for goals, one for each tip, that went over the topic; ClientError where
        none come."""
        publisher: Any = self._goal if len(goals) == 1 else self._goals
        heard = self._candidates_publishers
        if not self._wait(lambda: publisher.get_subscription_count() > 0 and heard() > 0):
            raise ClientError(self._missing(f"nobody listens to {publisher.topic_name}"))
        if not latest:
            stamp = self._node.get_clock().now().to_msg()
            for goal in goals:
                goal.header.stamp = stamp
        together = PoseArray(header=goals[0].header, poses=[goal.pose for goal in goals])
        message = goals[0] if len(goals) == 1 else together

        def answered() -> bool:
            return any(answers(item, goals) for item in self.candidates)

        publisher.publish(message)
        if not self._wait(answered, min(self.timeout_s, RESEND_S)):
            # the node may not have known of the subscription to its candidates yet
            publisher.publish(message)
            if not self._wait(answered):
                raise ClientError(
                    f"no candidates within {self.timeout_s:g} s; the log of {self._solver} says why"
                )
        found = next(item for item in self.candidates if answers(item, goals))
        self.candidates.remove(found)
        return found

    def watch(self, show: Callable[[IKSolutionArray], None]) -> None:
        """Show candidates as they come, until Ctrl-C."""
        while True:
            while self.candidates:
                show(self.candidates.pop(0))
            self._executor.spin_once(0.1)

    def close(self) -> None:
        self._executor.shutdown()
        self._node.destroy_node()

    def _candidates_publishers(self) -> int:
        return self._node.count_publishers(f"{self._solver}/candidates")

    def _wait(self, condition: Callable[[], bool], seconds: float | None = None) -> bool:
        deadline = time.monotonic() + (self.timeout_s if seconds is None else seconds)
        while not condition() and time.monotonic() < deadline:
            self._executor.spin_once(0.02)
        return condition()

    def _missing(self, what: str) -> str:
        """`what`, followed by the nodes that are there."""
        message = f"{what} within {self.timeout_s:g} s"
        own = self._node.get_name()
        nodes = sorted(set(self._node.get_node_names_and_namespaces()))
        others = [(name, namespace) for name, namespace in nodes if name != own]
        solvers = [name for node in others for name in self._solvers_of(*node)]
        if solvers:
            return f"{message}; --node can be {', '.join(solvers)}"
        names = ", ".join(f"{namespace.rstrip('/')}/{name}" for name, namespace in others)
        return (
            f"{message}; no node offers {SERVICE_TYPE} in ROS_DOMAIN_ID "
            f"{os.environ.get('ROS_DOMAIN_ID', '0')}; nodes there: {names or 'none'}"
        )

    def _solvers_of(self, name: str, namespace: str) -> list[str]:
        try:
            offered = self._node.get_service_names_and_types_by_node(name, namespace)
        except NodeNameNonExistentError:
            return []  # it has just ended
        return [
            service.removesuffix("/get_ik_solutions")
            for service, types in offered
            if SERVICE_TYPE in types
        ]


def answers(candidates: IKSolutionArray, goals: list[PoseStamped]) -> bool:
    return list(candidates.targets) == goals


def command_line() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="send_goal",
        description=__doc__,
        epilog="Exit code 0: solved; 1: no solution; 2: refused, bad use, or no answer. "
        "Several tips: repeat --xyz, --rpy or --quat, and --tip, once for each; tips that are not "
        "named may be anywhere.",
    )
    # of Python before 3.14 takes -1e-3 for the name of an option
    parser._negative_number_matcher = re.compile(r"^-\.?\d")
    pose = {"type": float, "action": "append", "default": []}
    parser.add_argument("--xyz", nargs=3, metavar=("X", "Y", "Z"), help="position [m]", **pose)
    parser.add_argument(
        "--rpy", nargs=3, metavar=("R", "P", "Y"), help="roll, pitch, yaw [rad]", **pose
    )
    parser.add_argument(
        "--quat", nargs=4, metavar=("X", "Y", "Z", "W"), help="unit quaternion", **pose
    )
    parser.add_argument("--frame", default="", help="frame of the pose; default: the robot's base")
    parser.add_argument(
        "--tip", action="append", default=[], help="link that shall be there; default: the node's"
    )
    parser.add_argument(
        "--free-axes",
        action="append",
        default=[],
        metavar="AXES",
        help='of "x y z rx ry rz" of the pose what may be anything; one for each pose, "": nothing',
    )
    parser.add_argument(
        "--num-solutions",
        type=int,
        default=0,
        metavar="N",
        help="at most; 0: the node's",
    )
    parser.add_argument(
        "--avoid-self-collision", action="store_true", help="only solutions free of self-collision"
    )
    parser.add_argument("--node", default="/meanflow_ik", help="which solver; default: %(default)s")
    parser.add_argument(
        "--topic",
        action="store_true",
        help="publish on ~/goal_pose, or several poses on ~/goal_poses, in the order of the "
        "robot's tips, instead of calling the service, and show ~/candidates",
    )
    parser.add_argument(
        "--latest",
        action="store_true",
        help="with --topic: stamp zero, for the latest transform of --frame instead of that of now",
    )
    parser.add_argument(
        "--watch",
        action="store_true",
        help="afterwards, or without a pose: show the candidates of every goal until Ctrl-C",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object per answer, SI units")
    parser.add_argument(
        "--timeout", type=float, default=5.0, metavar="S", help="wait for the node; default: 5 s"
    )
    return parser


def check_options(options: argparse.Namespace) -> None:
    """OptionError where options contradict each other."""
    if not (options.xyz or options.rpy or options.quat or options.watch):
        raise OptionError("give --xyz and one of --rpy and --quat, or --watch")
    if not 0 <= options.num_solutions < 2**32:
        raise OptionError(f"--num-solutions {options.num_solutions}, expected 0 to {2**32 - 1}")
    if not (math.isfinite(options.timeout) and options.timeout > 0):
        raise OptionError(f"--timeout {options.timeout:g}, expected seconds above 0")
    if options.latest and not options.topic:
        raise OptionError("--latest is for --topic; the service takes the latest transform anyway")
    service_only = ("tip", "free_axes", "num_solutions", "avoid_self_collision")
    for name in service_only if options.topic else ():
        if getattr(options, name):
            raise OptionError(
                f"--{name.replace('_', '-')} does not go with --topic: a goal on the topic "
                "is solved with the node's parameters"
            )


def run(options: argparse.Namespace, console: Console) -> int:
    """Send what was asked for and show it; returns the exit code.

    Raises:
        IKError: bad options, or no answer.
    """
    check_options(options)
    goals = goals_from_options(options)
    client = Client(options.node, options.timeout)
    code = SOLVED
    try:
        if goals and options.topic:
            candidates = client.publish(goals, options.latest)
            show_candidates(candidates, options.json, console)
            valid = [solution.valid for solution in candidates.solutions]
            code = SOLVED if any(valid) else UNSOLVED
        elif goals:
            request = GetIKSolutions.Request(
                targets=goals,
                tip_links=options.tip,
                free_axes=options.free_axes,
                max_solutions=options.num_solutions,
                avoid_self_collision=options.avoid_self_collision,
            )
            response = client.ask(request)
            show_response(response, options.json, console)
            codes = {Codes.SUCCESS: SOLVED, Codes.NO_IK_SOLUTION: UNSOLVED}
            code = codes.get(response.error_code, REFUSED)
        if options.watch:
            print(f"watching {options.node}/candidates; Ctrl-C ends", file=sys.stderr, flush=True)
            client.watch(lambda candidates: show_candidates(candidates, options.json, console))
    except KeyboardInterrupt:
        if not options.watch:
            return INTERRUPTED
    finally:
        client.close()
    return code


def main(arguments: list[str] | None = None) -> None:
    """Command line; --ros-args and what follows are for ROS."""
    arguments = sys.argv[1:] if arguments is None else arguments
    code = REFUSED
    try:
        options = command_line().parse_args(remove_ros_args(["send_goal", *arguments])[1:])
        rclpy.init(args=["send_goal", *arguments], signal_handler_options=SignalHandlerOptions.NO)
        code = run(options, Console(width=None if sys.stdout.isatty() else 200))
    except IKError as error:
        print(f"send_goal: {error}", file=sys.stderr)
    except BrokenPipeError:
        # `| head` has read enough; Python would complain once more while it flushes
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        if not type(error).__module__.startswith("rclpy"):
            raise
        print(f"send_goal: {' '.join(str(error).split())}", file=sys.stderr)
    finally:
        rclpy.try_shutdown()
    sys.exit(code)


if __name__ == "__main__":
    main()
