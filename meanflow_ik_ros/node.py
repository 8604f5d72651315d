# SPDX-License-Identifier: Apache-2.0
"""The ROS 2 node: services and a goal topic in front of one solver."""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from geometry_msgs.msg import PoseArray, PoseStamped
from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from sensor_msgs.msg import JointState

import meanflow_ik_core as mik
from meanflow_ik_ros.current_state import CurrentState
from meanflow_ik_ros.fair_lock import FairLock
from meanflow_ik_ros.messages.conversions import (
    Codes,
    IKQuery,
    RequestError,
    pose_message,
    query_from_request,
    response_from_error,
    response_from_result,
)
from meanflow_ik_ros.messages.task import objectives_from_texts
from meanflow_ik_ros.parameters import NodeParameters, declare_parameters, values_of
from meanflow_ik_ros.process import run_node
from meanflow_ik_ros.qos import create_subscription, unused_overrides
from meanflow_ik_ros.rare_log import RareLog
from meanflow_ik_ros.services import moveit
from meanflow_ik_ros.services.batch import (
    BatchQuery,
    batch_from_request,
    batch_response_from_result,
)
from meanflow_ik_ros.services.path import (
    find_path,
    path_from_request,
    path_response_from_result,
)
from meanflow_ik_ros.srv import GetIKPath, GetIKSolutions, GetIKSolutionsBatch
from meanflow_ik_ros.topics.diagnostics import (
    Diagnostics,
    RequestStatistics,
    answered_from_response,
)
from meanflow_ik_ros.topics.frames import Frames
from meanflow_ik_ros.topics.goals import GoalTopics

SOLUTIONS, BATCH, PATH = "~/get_ik_solutions", "~/get_ik_solutions_batch", "~/get_ik_path"
GOAL, GOALS = "~/goal_pose", "~/goal_poses"
# While shutting down: how long without a request until the queue counts as empty, and at most.
QUIET_S = 0.1
LONGEST_DRAIN_S = 2.0


class MeanFlowIKNode(LifecycleNode):
    """A managed node that serves single targets, batches, paths, goals on a topic, and MoveIt.

    With the parameter `autostart` it configures and activates itself before the constructor
    returns; without, it waits for transitions. Configuring loads and compiles everything and opens
    the topics and services; what comes before the node is active is refused.

    Raises:
        IKError: a parameter, the robot or the checkpoint is wrong; the message says how.
    """

    robot: mik.Robot
    solver: mik.IKSolver

    def __init__(self, **node_arguments: Any) -> None:
        super().__init__("meanflow_ik", **node_arguments)
        try:
            self.parameters = declare_parameters(self)
            self.add_on_set_parameters_callback(self.check_parameters)
            self.add_post_set_parameters_callback(self.take_parameters)
            self.statistics = RequestStatistics()
            self._log = RareLog(self.get_logger())
            self._random = np.random.default_rng()
            self._solver_lock = FairLock()
            self._answered = threading.Event()
            self._failure: BaseException | None = None
            self._constructed = not self.parameters.autostart
            self.configured = self._active = self._closing = False
            self._frame_id_warned = False
            self._close: list[Callable[[], Any]] = []
            self.after_configure: Callable[[], None] = lambda: None
            # One of each kind of request may wait for the solver, joint states wait for nothing.
            self._listening = MutuallyExclusiveCallbackGroup()
            if self.parameters.diagnostics_period:
                self._diagnostics = Diagnostics(self, self.statistics, self._listening)
            if not self._constructed:
                self._autostart()
        except BaseException:
            self.destroy_node()
            raise

    def _autostart(self) -> None:
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()
        self._constructed = True
        if self._failure is not None:
            raise self._failure

    def _report(self, failure: BaseException) -> None:
        """To the caller of the constructor while it runs, later to the log."""
        if not self._constructed:
            self._failure = failure
        elif isinstance(failure, mik.IKError):
            self.get_logger().error(f"cannot be configured: {failure}")
        else:
            self.get_logger().error("".join(traceback.format_exception(failure)))

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            self.configure()
        except BaseException as error:
            self.close()
            self._report(error)
            return TransitionCallbackReturn.FAILURE
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._active = True
        return TransitionCallbackReturn.SUCCESS

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._active = False
        with self._solver_lock:  # what is being solved is still answered
            return TransitionCallbackReturn.SUCCESS

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.close()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._active = False
        self.close()
        return TransitionCallbackReturn.SUCCESS

    def configure(self) -> None:
        """Load and compile everything, then open the topics and the services."""
        parameters = self.parameters
        self.robot = robot_from_parameters(parameters)
        check_with_robot(parameters, self.robot)
        if parameters.num_threads:
            torch.set_num_threads(parameters.num_threads)
        self.solver = mik.load_solver(
            self.robot,
            checkpoint=parameters.checkpoint or None,
            device=parameters.device,
            sampler=parameters.sampler,
        )
        self.joints = CurrentState(self.robot, self.get_logger())
        self.frames = Frames(self.robot, self, parameters.tf_timeout, parameters.tf_max_age)
        self._close.append(self.frames.close)
        self.configured = True
        started = time.perf_counter()
        self.warm_up()
        warm_up_time = time.perf_counter() - started
        self._open()
        self.after_configure()
        if unused := unused_overrides(self):
            self.get_logger().warning(f"nothing has the quality of service of {unused}")
        self.get_logger().info(
            f"ready: robot {self.robot.name} with {self.robot.num_joints} joints, "
            f"{self.robot.base} to {', '.join(self.robot.tips)}, sampler "
            f"{parameters.sampler} on {parameters.device}, warm-up {warm_up_time:.1f} s"
        )

    def _open(self) -> None:
        topics = QoSProfile(depth=self.parameters.qos_depth)
        self.goal_topics = GoalTopics(self, self.robot, topics)
        self._close.append(self.goal_topics.close)
        goals = MutuallyExclusiveCallbackGroup()
        listen: list[tuple[type, str, Callable[[Any], None], Any]] = [
            (JointState, "joint_states", self.joints.receive, self._listening),
            (PoseStamped, GOAL, self.receive_goal, goals),
            (PoseArray, GOALS, self.receive_goals, goals),
        ]
        for kind, topic, receive, group in listen:
            subscription = create_subscription(self, kind, topic, receive, topics, group)
            self._close.append(partial(self.destroy_subscription, subscription))
        serve: list[tuple[type, str, Callable[[Any, Any], Any]]] = [
            (GetIKSolutions, SOLUTIONS, self.answer_request),
            (GetIKSolutionsBatch, BATCH, self.answer_batch),
            (GetIKPath, PATH, self.answer_path),
            *moveit.services(self, self.parameters.moveit_group),
        ]
        for kind, name, answer in serve:
            service = self.create_service(
                kind,
                name,
                answer,
                qos_profile=QoSProfile(depth=self.parameters.service_qos_depth),
                callback_group=MutuallyExclusiveCallbackGroup(),
            )
            self._close.append(partial(self.destroy_service, service))

    def close(self) -> None:
        """Take down what `configure` made, once nothing is being solved."""
        with self._solver_lock:
            self.configured = False
            while self._close:
                self._close.pop()()

    @property
    def state_name(self) -> str:
        """Of the managed node: unconfigured, inactive, active, finalized or a transition's."""
        return self._state_machine.current_state[1]

    @property
    def current_state(self) -> np.ndarray:
        """(J,) The last joint_states, else the middle of the limits."""
        return self.joints.q

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
        mik.solve_path(self.solver, np.stack([poses, poses]), num_samples=1)

    def _seed(self, parameters: NodeParameters) -> int:
        return parameters.seed if parameters.seed >= 0 else int(self._random.integers(2**31))

    def solve(
        self,
        query: IKQuery | BatchQuery,
        parameters: NodeParameters,
        max_rounds: int | None = None,
    ) -> mik.IKResult:
        """Call the solver, one caller at a time."""
        with self._solver_lock:
            return self.solver.solve(
                **query.asked.arguments(query.targets, self.robot),
                objectives=query.objectives,
                num_samples=query.num_samples,
                max_solutions=query.max_solutions,
                seed_state=query.seed_state,
                seed=self._seed(parameters),
                select=parameters.select,
                timeout=parameters.timeout or None,
                position_tolerance=parameters.position_tolerance,
                orientation_tolerance=parameters.orientation_tolerance,
                error_weight=parameters.error_weight,
                distance_weight=parameters.distance_weight,
                avoid_self_collision=query.avoid_self_collision,
                max_rounds=max_rounds,
            )

    def answer_request(
        self, request: GetIKSolutions.Request, response: GetIKSolutions.Response
    ) -> GetIKSolutions.Response:
        """The service; whatever goes wrong is an answer."""
        return self.answer(SOLUTIONS, request, response)[1]

    def answer(
        self, source: str, request: GetIKSolutions.Request, response: GetIKSolutions.Response
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

        answered = self.attempt(source, attempt, response)
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

        return self.attempt(BATCH, attempt, response)

    def answer_path(
        self, request: GetIKPath.Request, response: GetIKPath.Response
    ) -> GetIKPath.Response:
        """The service for a path through waypoints; whatever goes wrong is an answer."""

        def attempt(started: float) -> GetIKPath.Response:
            parameters = self.parameters
            query = path_from_request(request, self.robot, parameters, self.T_base_frame)
            with self._solver_lock:
                result = find_path(self.solver, query, parameters, self._seed(parameters))
            total_time = time.perf_counter() - started
            return path_response_from_result(query, result, self.robot, parameters, total_time)

        return self.attempt(PATH, attempt, response)

    def attempt(self, source: str, answer: Callable[[float], Any], response: Any) -> Any:
        """What `answer` makes of the time at which it starts, or a response that says why not.

        The log then tells it of the source, the name of a service or topic.
        """
        started = time.perf_counter()
        failed = False
        try:
            if self._closing:
                raise RequestError(Codes.FAILURE, "the node is shutting down")
            if not self._active:
                raise RequestError(Codes.FAILURE, "the node is not active; activate it first")
            response = answer(started)
        except mik.IKError as error:
            self._log.warning(source, f"refused: {error}")
            response = response_from_error(error, response)
        except Exception as error:
            failed = True
            self._log.error(source, f"failed: {traceback.format_exc()}")
            response = response_from_error(error, response)
        self.statistics.add(answered_from_response(response, time.perf_counter() - started, failed))
        self._answered.set()
        return response

    def receive_goal(self, goal: PoseStamped) -> None:
        """A goal for one tip: the robot's only one, or that of the parameter `tip_link`."""
        self._answer_goal(GOAL, [goal], [])

    def receive_goals(self, goals: PoseArray) -> None:
        """A goal for every tip of the robot, in its order."""
        targets = [PoseStamped(header=goals.header, pose=pose) for pose in goals.poses]
        self._answer_goal(GOALS, targets, list(self.robot.tips))

    def _answer_goal(self, source: str, targets: list[PoseStamped], tip_links: list[str]) -> None:
        """The same way as the service; the answer goes to the topics."""
        parameters = self.parameters
        request = GetIKSolutions.Request(
            targets=targets,
            tip_links=tip_links,
            avoid_self_collision=parameters.avoid_self_collision,
        )
        query, response = self.answer(source, request, GetIKSolutions.Response())
        if query is None:
            return
        if response.error_code != Codes.SUCCESS:
            self._log.warning(source, response.message)
        try:
            self.goal_topics.publish(query, response, parameters)
        except Exception:
            self._log.error(source, f"publishing failed: {traceback.format_exc()}")

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
            if self.configured:
                check_with_robot(changed, self.robot)
        except mik.IKError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def take_parameters(self, parameters: list[Parameter[Any]]) -> None:
        """The next request is answered with the new values."""
        self.parameters = self.parameters.changed(values_of(parameters))

    def refuse_requests(self) -> None:
        """Refuse what is queued until nothing more comes; the executor still spins."""
        self._closing = True
        if self.configured:
            self.frames.stop_waiting()
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


def check_with_robot(parameters: NodeParameters, robot: mik.Robot) -> None:
    """Raise an IKError where parameters do not fit the robot."""
    if parameters.tip_link:
        robot.tip_offset(parameters.tip_link)
    objectives_from_texts(parameters.objectives, robot)


def main(args: list[str] | None = None) -> None:
    sys.exit(run_node(MeanFlowIKNode, args))


if __name__ == "__main__":
    main()
