# SPDX-License-Identifier: Apache-2.0
"""The ROS 2 node: a service and a goal topic in front of one solver."""

from __future__ import annotations

import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
import torch
from geometry_msgs.msg import PoseStamped
from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future
from sensor_msgs.msg import JointState
from visualization_msgs.msg import MarkerArray

import meanflow_ik_core as mik
from meanflow_ik_ros.batch import BatchQuery, batch_from_request, batch_response_from_result
from meanflow_ik_ros.conversions import (
    Codes,
    IKQuery,
    RequestError,
    candidates_from_response,
    known_positions,
    limit_violations,
    pose_message,
    query_from_request,
    response_from_error,
    response_from_result,
    wrap_continuous,
)
from meanflow_ik_ros.frames import Frames
from meanflow_ik_ros.markers import RobotVisuals, markers_from_candidates
from meanflow_ik_ros.msg import IKSolutionArray
from meanflow_ik_ros.parameters import NodeParameters, declare_parameters, values_of
from meanflow_ik_ros.srv import GetIKSolutions, GetIKSolutionsBatch

WARN_EVERY_S = 5.0
# While shutting down: how long without a request until the queue counts as empty, and at most.
QUIET_S = 0.1
LONGEST_DRAIN_S = 2.0


class MeanFlowIKNode(Node):
    """Answers ~/get_ik_solutions and ~/goal_pose; see the README for the whole interface.

    Raises:
        IKError: a parameter, the robot or the checkpoint is wrong; the message says how.
    """

    def __init__(self, **node_arguments: Any) -> None:
        super().__init__("meanflow_ik", **node_arguments)
        try:
            self.start()
        except BaseException:
            self.destroy_node()
            raise

    def start(self) -> None:
        """Load and compile everything, then open the topics and the service."""
        self.parameters = declare_parameters(self)
        self.robot = robot_from_parameters(self.parameters)
        if self.parameters.tip_link:
            self.robot.tip_offset(self.parameters.tip_link)
        if self.parameters.num_threads:
            torch.set_num_threads(self.parameters.num_threads)
        self.frames = Frames(self.robot, self)
        self.visuals = RobotVisuals(self.robot)
        self.solver = mik.load_solver(
            self.robot,
            checkpoint=self.parameters.checkpoint or None,
            device=self.parameters.device,
            sampler=self.parameters.sampler,
        )
        self._random = np.random.default_rng()
        self._solver_lock = threading.Lock()
        self._answered = threading.Event()
        self._closing = False
        self._frame_id_warned = False
        self._positions: dict[str, float] = {}
        self.current_state = 0.5 * (self.robot.lower + self.robot.upper)
        started = time.perf_counter()
        self.warm_up()
        warm_up_time = time.perf_counter() - started

        topics = QoSProfile(depth=self.parameters.qos_depth)
        # RViz gets the last arms even when it is started after them.
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._candidates = self.create_publisher(IKSolutionArray, "~/candidates", topics)
        self._joint_candidates = self.create_publisher(JointState, "~/joint_candidates", topics)
        self._best_candidate = self.create_publisher(JointState, "~/best_candidate", topics)
        self._markers = self.create_publisher(MarkerArray, "~/markers", latched)
        self.add_on_set_parameters_callback(self.check_parameters)
        self.add_post_set_parameters_callback(self.take_parameters)
        # Joint states and parameters have groups of their own: a long solve must not block them.
        solving, listening = MutuallyExclusiveCallbackGroup(), MutuallyExclusiveCallbackGroup()
        self.create_subscription(
            JointState, "joint_states", self.receive_joint_state, topics, callback_group=listening
        )
        self.create_subscription(
            PoseStamped, "~/goal_pose", self.receive_goal, topics, callback_group=solving
        )
        for kind, name, answer in (
            (GetIKSolutions, "~/get_ik_solutions", self.answer_request),
            (GetIKSolutionsBatch, "~/get_ik_solutions_batch", self.answer_batch),
        ):
            self.create_service(
                kind,
                name,
                answer,
                qos_profile=QoSProfile(depth=self.parameters.service_qos_depth),
                callback_group=solving,
            )
        self.get_logger().info(
            f"ready: robot {self.robot.name} with {self.robot.num_joints} joints, "
            f"{self.robot.base} to {', '.join(self.robot.tips)}, sampler "
            f"{self.parameters.sampler} on {self.parameters.device}, warm-up {warm_up_time:.1f} s"
        )

    def warm_up(self) -> None:
        """Go every way through the code once, so that no request waits for a compiler."""
        self.solver.warm_up()
        poses = self.robot.forward(self.current_state)
        request = GetIKSolutions.Request(
            targets=[pose_message(pose, self.robot.base) for pose in poses],
            tip_links=list(self.robot.tips),
        )
        query = query_from_request(
            request, self.robot, self.parameters, self.T_base_frame, self.current_state
        )
        result = self.solve(query, self.parameters)
        response_from_result(
            query, result, self.robot, self.parameters, 0.0, GetIKSolutions.Response()
        )

    def solve(self, query: IKQuery | BatchQuery, parameters: NodeParameters) -> mik.IKResult:
        """Call the solver, one caller at a time."""
        seed = parameters.seed if parameters.seed >= 0 else int(self._random.integers(2**31))
        with self._solver_lock:
            return self.solver.solve(
                query.targets,
                num_samples=query.num_samples,
                max_solutions=query.max_solutions,
                seed_state=query.seed_state,
                seed=seed,
                select=parameters.select,
                timeout=parameters.timeout or None,
                position_tolerance=parameters.position_tolerance,
                orientation_tolerance=parameters.orientation_tolerance,
                error_weight=parameters.error_weight,
                distance_weight=parameters.distance_weight,
                avoid_self_collision=query.avoid_self_collision,
            )

    def answer_request(
        self, request: GetIKSolutions.Request, response: GetIKSolutions.Response
    ) -> GetIKSolutions.Response:
        """The service; whatever goes wrong is an answer."""
        return self.answer(request, response)[1]

    def answer(
        self, request: GetIKSolutions.Request, response: GetIKSolutions.Response
    ) -> tuple[IKQuery | None, GetIKSolutions.Response]:
        """From request to response; the query is None where the request or the solver failed."""
        query: IKQuery | None = None

        def attempt(started: float) -> GetIKSolutions.Response:
            nonlocal query
            parameters = self.parameters
            asked = query_from_request(
                request, self.robot, parameters, self.T_base_frame, self.current_state
            )
            result = self.solve(asked, parameters)
            total_time = time.perf_counter() - started
            query = asked
            return response_from_result(asked, result, self.robot, parameters, total_time, response)

        answered = self.attempt(attempt, response)
        return query, answered

    def answer_batch(
        self, request: GetIKSolutionsBatch.Request, response: GetIKSolutionsBatch.Response
    ) -> GetIKSolutionsBatch.Response:
        """The service for many targets; whatever goes wrong is an answer."""

        def attempt(started: float) -> GetIKSolutionsBatch.Response:
            parameters = self.parameters
            query = batch_from_request(
                request, self.robot, parameters, self.T_base_frame, self.current_state
            )
            result = self.solve(query, parameters)
            total_time = time.perf_counter() - started
            return batch_response_from_result(query, result, self.robot, parameters, total_time)

        return self.attempt(attempt, response)

    def attempt(self, answer: Callable[[float], Any], response: Any) -> Any:
        """What `answer` makes of the time at which it starts, or a response that says why not."""
        try:
            if self._closing:
                raise RequestError(Codes.FAILURE, "the node is shutting down")
            return answer(time.perf_counter())
        except mik.IKError as error:
            self.get_logger().warning(f"request refused: {error}")
            return response_from_error(error, response)
        except Exception as error:
            self.get_logger().error(f"request failed: {traceback.format_exc()}")
            return response_from_error(error, response)
        finally:
            self._answered.set()

    def receive_goal(self, goal: PoseStamped) -> None:
        """The goal topic: the same way as the service, the answer goes to the topics."""
        parameters = self.parameters
        request = GetIKSolutions.Request(
            targets=[goal], avoid_self_collision=parameters.avoid_self_collision
        )
        query, response = self.answer(request, GetIKSolutions.Response())
        if query is None:
            return
        try:
            self.publish_candidates(query, response, parameters)
        except Exception:
            self.get_logger().error(f"publishing failed: {traceback.format_exc()}")

    def publish_candidates(
        self, query: IKQuery, response: GetIKSolutions.Response, parameters: NodeParameters
    ) -> None:
        """Candidates that miss the goal go to ~/candidates only, flagged as not valid."""
        valid = [solution.joint_state for solution in response.solutions if solution.valid]
        if valid:
            self._best_candidate.publish(valid[0])
        else:
            self.get_logger().warning(f"goal: {response.message}")
        self._candidates.publish(candidates_from_response(query, response, self.robot))
        for joint_state in valid:
            self._joint_candidates.publish(joint_state)
        drawn = np.array([state.position for state in valid[: parameters.marker_count]])
        self._markers.publish(
            markers_from_candidates(self.visuals, drawn, parameters.marker_opacity, query.stamp)
        )

    def receive_joint_state(self, state: JointState) -> None:
        """Keep the last position of each joint; several publishers may each know a part."""
        try:
            self._positions.update(known_positions(state, self.robot))
            if any(name not in self._positions for name in self.robot.joint_names):
                return
            q = np.array([self._positions[name] for name in self.robot.joint_names])
            q = wrap_continuous(q, self.robot)
            outside = limit_violations(q, self.robot)
            if outside:
                self.get_logger().warning(
                    f"joint_states: taken at the limit: {outside}",
                    throttle_duration_sec=WARN_EVERY_S,
                )
            self.current_state = np.clip(q, self.robot.lower, self.robot.upper)
        except Exception:
            self.get_logger().error(
                f"joint_states: {traceback.format_exc()}", throttle_duration_sec=WARN_EVERY_S
            )

    def T_base_frame(self, frame_id: str, stamp: Any) -> np.ndarray:
        """Pose (4, 4) of a frame; an empty name is the base, with a warning the first time."""
        if frame_id:
            return self.frames.T_base_frame(frame_id, stamp)
        if not self._frame_id_warned:
            self._frame_id_warned = True
            self.get_logger().warning(
                f"a target has an empty frame_id: taken as {self.robot.base!r} (said once)"
            )
        return np.eye(4)

    def check_parameters(self, parameters: list[Parameter[Any]]) -> SetParametersResult:
        """All of them are taken, or none with the reason."""
        try:
            changed = self.parameters.changed(values_of(parameters))
            if changed.tip_link:
                self.robot.tip_offset(changed.tip_link)
        except mik.IKError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def take_parameters(self, parameters: list[Parameter[Any]]) -> None:
        """The next request is answered with the new values."""
        self.parameters = self.parameters.changed(values_of(parameters))

    def refuse_requests(self) -> None:
        """Refuse what is queued until nothing more comes; the executor still spins."""
        self._closing = True
        deadline = time.monotonic() + LONGEST_DRAIN_S
        while time.monotonic() < deadline:
            self._answered.clear()
            if not self._answered.wait(QUIET_S) and not self._solver_lock.locked():
                return


def robot_from_parameters(parameters: NodeParameters) -> mik.Robot:
    """The robot; for one from a URDF, `tip_link` and `base_frame` choose the chain."""
    tips = None
    if parameters.tip_link and Path(parameters.robot).suffix in (".urdf", ".xml"):
        tips = [parameters.tip_link]
    return mik.load_robot(parameters.robot, base=parameters.base_frame or None, tips=tips)


def run(args: list[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM; returns the exit code."""
    stopped = threading.Event()
    loading = True

    def on_signal(signum: int, frame: Any) -> None:
        stopped.set()
        if loading:
            raise KeyboardInterrupt

    node = None
    # rclpy's own handler would invalidate the context at once, with requests still unanswered.
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, on_signal)
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
        node = MeanFlowIKNode()
        loading = False
        spin_until(node, stopped)
    except KeyboardInterrupt:
        pass
    except Exception as error:
        logger = get_logger("meanflow_ik")
        if isinstance(error, mik.IKError):
            logger.fatal(str(error))
        elif type(error).__module__.startswith("rclpy"):
            # Its own message names the file or the argument; a traceback would only hide it.
            logger.fatal(f"{type(error).__name__}: {' '.join(str(error).split())}")
        else:
            logger.fatal(traceback.format_exc())
        return 1
    finally:
        # Under a launch file Ctrl-C arrives twice; the second one must not hit the clean-up.
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, signal.SIG_IGN)
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()
    return 0


def spin_until(node: MeanFlowIKNode, stopped: threading.Event) -> None:
    """Spin in a thread until `stopped` is set, then answer what is queued and stop spinning."""
    executor = MultiThreadedExecutor(num_threads=4)
    executor.add_node(node)
    # Only the end of a future makes a waiting executor return; `wake` alone does not.
    done: Future[None] = Future()
    failure: list[BaseException] = []

    def spin() -> None:
        try:
            executor.spin_until_future_complete(done)
        except ExternalShutdownException:
            pass
        except BaseException as error:
            failure.append(error)
        finally:
            stopped.set()

    thread = threading.Thread(target=spin, name="executor")
    thread.start()
    try:
        stopped.wait()
    finally:
        if thread.is_alive() and rclpy.ok():
            node.refuse_requests()
        done.set_result(None)
        thread.join()
        executor.shutdown()
    if failure:
        raise failure[0]


def main(args: list[str] | None = None) -> None:
    sys.exit(run(args))


if __name__ == "__main__":
    main()
