# SPDX-License-Identifier: Apache-2.0
"""Starts the node, asks it for real poses, prints what it answers and draws the solutions."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from geometry_msgs.msg import PoseStamped
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rich.console import Console
from sensor_msgs.msg import JointState
from visualization_msgs.msg import Marker, MarkerArray

import meanflow_ik_core as mik
from meanflow_ik_core.commands.printing import output_console
from meanflow_ik_core.plain_numbers import plain_int
from meanflow_ik_ros.messages.errors import Codes
from meanflow_ik_ros.messages.joints import joint_state_message
from meanflow_ik_ros.messages.poses import pose_message
from meanflow_ik_ros.msg import IKSolutionArray
from meanflow_ik_ros.srv import GetIKSolutions
from meanflow_ik_ros.tools.answer_output import print_table
from meanflow_ik_ros.tools.render import write_picture
from meanflow_ik_ros.tools.running_node import READY_S, STOP_S, running_node

TIP_LINK = "panda_hand_tcp"
HOME = np.array([0.0, -0.4, 0.0, -2.2, 0.0, 1.9, 0.785])
# Where the fingertips shall be [m], along which direction they reach, which way the fingers open.
TASKS = {
    "pick from the table in front": ((0.50, 0.00, 0.12), (0, 0, -1), (0, -1, 0)),
    "pick at the right side": ((0.10, -0.52, 0.15), (0, 0, -1), (-1, 0, 0)),
    "take from a high shelf": ((0.48, 0.22, 0.80), (1, 0, 0), (0, -1, 0)),
    "reach into a low shelf": ((0.55, -0.20, 0.22), (1, 0, 0), (0, 1, 0)),
    "hand over to the left": ((0.35, 0.50, 0.50), (0, 1, 0), (-1, 0, 0)),
    "put down behind the arm": ((-0.45, 0.15, 0.20), (0, 0, -1), (0, 1, 0)),
}
PICTURE_TASK = "pick at the right side"
ARMS_IN_PICTURE = 10
ROWS_PER_TASK = 5
ANSWER_S = 30.0


class DemoError(Exception):
    """The demo did not get what it waits for."""


def task_pose(position: Any, approach: Any, opening: Any) -> np.ndarray:
    """T_base_tcp (4, 4): z along `approach`, y along `opening`."""
    pose = np.eye(4)
    pose[:3, 2], pose[:3, 1] = approach, opening
    pose[:3, 0] = np.cross(opening, approach)
    pose[:3, 3] = position
    return pose


class Demo:
    """A user's node with everything that it needs of the solver's interface."""

    def __init__(self, robot: mik.Robot, process: subprocess.Popen[bytes]) -> None:
        self.robot = robot
        self.process = process
        self.node = Node("meanflow_ik_demo")
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        queue = QoSProfile(depth=100)
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.service = self.node.create_client(
            GetIKSolutions, "meanflow_ik/get_ik_solutions", qos_profile=queue
        )
        self.states = self.node.create_publisher(JointState, "joint_states", queue)
        self.goals = self.node.create_publisher(PoseStamped, "meanflow_ik/goal_pose", queue)
        self.candidates: list[IKSolutionArray] = []
        self.best: list[JointState] = []
        self.markers: list[MarkerArray] = []
        subscribe = self.node.create_subscription
        subscribe(IKSolutionArray, "meanflow_ik/candidates", self.candidates.append, queue)
        subscribe(JointState, "meanflow_ik/best_candidate", self.best.append, queue)
        subscribe(MarkerArray, "meanflow_ik/markers", self.markers.append, latched)

    def wait(self, condition: Callable[[], bool], what: str, seconds: float) -> None:
        """Spin until the condition holds; DemoError when time is up or the node has ended."""
        deadline = time.monotonic() + seconds
        while not condition():
            if self.process.poll() is not None:
                raise DemoError(f"the node ended with exit code {self.process.returncode}")
            if time.monotonic() > deadline:
                raise DemoError(f"no {what} within {seconds:g} s")
            self.executor.spin_once(0.05)

    def connect(self) -> None:
        """Wait for the service and until both sides of the topics know each other."""
        self.wait(self.service.service_is_ready, "service", READY_S)
        topics = ("candidates", "best_candidate", "markers")
        self.wait(
            lambda: (
                self.states.get_subscription_count() > 0
                and self.goals.get_subscription_count() > 0
                and all(self.node.count_publishers(f"meanflow_ik/{name}") for name in topics)
            ),
            "topics",
            ANSWER_S,
        )

    def ask(self, pose: np.ndarray, solutions: int) -> tuple[GetIKSolutions.Response, float]:
        """The answer for one pose of the fingertips, and its round trip [s]."""
        request = GetIKSolutions.Request(
            targets=[pose_message(pose, self.robot.base)],
            tip_links=[TIP_LINK],
            max_solutions=solutions,
            avoid_self_collision=True,
        )
        started = time.perf_counter()
        future = self.service.call_async(request)
        self.executor.spin_until_future_complete(future, ANSWER_S)
        round_trip = time.perf_counter() - started
        response = future.result() if future.done() else None
        if response is None:
            raise DemoError(f"no answer within {ANSWER_S:g} s")
        if response.error_code != Codes.SUCCESS:
            raise DemoError(f"error {response.error_code}: {response.message}")
        return response, round_trip

    def show_goal(self, pose: np.ndarray) -> None:
        """Publish a joint state and a goal, and wait for what the node makes of them."""
        stamp = self.node.get_clock().now().to_msg()
        self.states.publish(joint_state_message(HOME, self.robot, stamp))
        goal = pose_message(pose, self.robot.base)
        goal.header.stamp = stamp
        self.goals.publish(goal)
        self.wait(
            lambda: bool(self.candidates and self.best and self.arms_shown()),
            "candidates",
            ANSWER_S,
        )
        if self.candidates[-1].header.stamp != stamp:
            raise DemoError("the candidates carry another stamp than the goal")

    def arms_shown(self) -> bool:
        """Whether the last markers are those of a goal; the first ones only delete."""
        return any(
            marker.action == Marker.ADD for array in self.markers[-1:] for marker in array.markers
        )

    def close(self) -> None:
        self.executor.shutdown()
        self.node.destroy_node()


def check_end(process: subprocess.Popen[bytes]) -> None:
    """DemoError unless the node has stopped when it was told to, and without an error."""
    if process.returncode == -signal.SIGKILL:
        raise DemoError(f"the node did not stop within {STOP_S:g} s of SIGINT")
    if process.returncode != 0:
        raise DemoError(f"the node ended with exit code {process.returncode}")


def print_solutions(
    task: str, response: GetIKSolutions.Response, round_trip: float, console: Console
) -> None:
    """The best of the ranked solutions of one pose."""
    title = (
        f"{task}: {len(response.solutions)} solutions; sample "
        f"{1e3 * response.sample_time:.1f} ms, refine {1e3 * response.refine_time:.1f} ms, "
        f"total {1e3 * response.total_time:.1f} ms, round trip {1e3 * round_trip:.1f} ms"
    )
    print_table(title, response.solutions[:ROWS_PER_TASK], console)


def draw(published: MarkerArray, path: Path) -> int:
    """Write the picture of the array that the node published; returns how many arms it shows."""
    arms = len({marker.ns for marker in published.markers if marker.ns.startswith("candidate")})
    title = f"{arms} of many ways to {PICTURE_TASK}: the best one green, the last one rose"
    write_picture(published, path, title)
    return arms


def run(robot_name: str, sampler: str, solutions: int, output: Path, console: Console) -> None:
    """The whole demo.

    Raises:
        DemoError: something did not come, or the node failed.
    """
    robot = mik.load_robot(robot_name)
    parameters = {
        "robot": robot_name, "sampler": sampler, "tip_link": TIP_LINK, "select": "diverse",
        "max_solutions": ARMS_IN_PICTURE, "marker_count": ARMS_IN_PICTURE,
        "avoid_self_collision": True,
    }  # fmt: skip
    with running_node(parameters) as process:
        demo = Demo(robot, process)
        try:
            demo.connect()
            demo.show_goal(task_pose(*TASKS[PICTURE_TASK]))
            console.print(
                f"goal topic: {len(demo.candidates[-1].solutions)} diverse candidates; best "
                + " ".join(f"{value:+.3f}" for value in demo.best[-1].position)
            )
            for task, where in TASKS.items():
                response, round_trip = demo.ask(task_pose(*where), solutions)
                print_solutions(task, response, round_trip, console)
            arms = draw(demo.markers[-1], output)
            console.print(f"{output}: the arm drawn once for each of {arms} diverse solutions")
        finally:
            demo.close()
    check_end(process)
    console.print("the node stopped with exit code 0")


def main(arguments: list[str] | None = None) -> None:
    """Command line of the demo; exit code 1 with one line when anything fails."""
    parser = argparse.ArgumentParser(
        prog="demo",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.register("type", int, plain_int)
    parser.add_argument(
        "--output", type=Path, default=Path("demo.png"), help="PNG file of the picture to write"
    )
    parser.add_argument(
        "--sampler",
        default="auto",
        help="what proposes the starting points: meanflow (the network), uniform or auto",
    )
    parser.add_argument(
        "--solutions", type=int, default=32, help="how many solutions to ask for per pose"
    )
    options = parser.parse_args(arguments)
    # A domain of its own keeps other nodes of the network out of the demo.
    os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 101))
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    console = output_console()
    rclpy.init(args=[])
    try:
        run("panda", options.sampler, options.solutions, options.output, console)
    except (DemoError, mik.IKError, OSError) as error:
        print(f"demo: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
