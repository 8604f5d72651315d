# SPDX-License-Identifier: Apache-2.0
"""The ROS 2 node: its lifecycle, which opens and closes the services and topics of one solver."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import JumpThreshold
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.wait_for_message import wait_for_message
from std_msgs.msg import String

import meanflow_ik_core as mik
from meanflow_ik_core.bounds import short
from meanflow_ik_core.robot.sources import URDF_SUFFIXES
from meanflow_ik_ros.desk import LONGEST_DEACTIVATION_S, Desk
from meanflow_ik_ros.messages.poses import pose_message
from meanflow_ik_ros.messages.task import task_from_request
from meanflow_ik_ros.messages.tips import tip_links_from_names
from meanflow_ik_ros.parameters import NodeParameters, declare_parameters, values_of
from meanflow_ik_ros.process import ProcessNode, run_node
from meanflow_ik_ros.qos import unused_overrides
from meanflow_ik_ros.rare_log import RareLog, trace
from meanflow_ik_ros.services import Service, services_of, solutions
from meanflow_ik_ros.srv import GetIKSolutions
from meanflow_ik_ros.topics.clouds import CloudTopics
from meanflow_ik_ros.topics.diagnostics import Diagnostics
from meanflow_ik_ros.topics.frames import Frames
from meanflow_ik_ros.topics.goals import GoalTopics
from meanflow_ik_ros.topics.joint_states import JointStateTopic
from meanflow_ik_ros.topics.planning_scene import PlanningSceneTopics
from meanflow_ik_ros.topics.tracking import TrackingTopics
from meanflow_ik_ros.topics.world_markers import WorldMarkersTopic

DESCRIPTION_TIMEOUT_S = 30.0
# Requests of a service that have turned out to take long, and are kept until they are answered one
# after another. With 10,000 poses one is some 10 MB.
MOST_ASIDE = 8
TOPICS = (
    JointStateTopic,
    GoalTopics,
    WorldMarkersTopic,
    CloudTopics,
    PlanningSceneTopics,
    TrackingTopics,
)


class MeanFlowIKNode(ProcessNode):
    """A managed node that serves single targets, batches, paths, goals on a topic, and MoveIt.

    With the parameter `autostart` it configures and activates itself before the constructor
    returns; without, it waits for transitions. Configuring loads and compiles everything and opens
    the topics and services; what comes before the node is active is refused.

    Raises:
        IKError: a parameter, the robot or the checkpoint is wrong; the message says how.
    """

    def __init__(self, **node_arguments: Any) -> None:
        super().__init__("meanflow_ik", **node_arguments)
        try:
            self.desk = Desk(self, declare_parameters(self))
            self.add_on_set_parameters_callback(self.check_parameters)
            self.add_post_set_parameters_callback(self.take_parameters)
            self._failure: BaseException | None = None
            self._constructed = not self.desk.parameters.autostart
            self._close: list[Callable[[], Any]] = []
            if self.desk.parameters.diagnostics_period:
                self._diagnostics = Diagnostics(self.desk)
            if not self._constructed:
                self._autostart()
        except BaseException:
            self.destroy_node()
            raise

    def _autostart(self) -> None:
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()
            # What came in the meantime finds an active node.
            self.start_own_threads()
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
            self.get_logger().error(trace())

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            self.configure()
        except BaseException as error:
            self.close()
            self._report(error)
            return TransitionCallbackReturn.FAILURE
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.desk.activate()
        return TransitionCallbackReturn.SUCCESS

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._deactivate()
        return TransitionCallbackReturn.SUCCESS

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.close()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._deactivate()
        self.close()
        return TransitionCallbackReturn.SUCCESS

    def _deactivate(self) -> None:
        if not self.desk.deactivate():
            self.get_logger().warning(
                f"requests are in progress {LONGEST_DEACTIVATION_S:g} s after being told to end"
            )

    def configure(self) -> None:
        """Load and compile everything, then open the topics and the services."""
        desk, parameters = self.desk, self.desk.parameters
        self._close.append(LibraryLog(self.get_logger()).close)
        robot = robot_from_parameters(parameters, self.description(parameters))
        check_with_robot(parameters, robot)
        solver = mik.load_solver(
            robot,
            checkpoint=parameters.checkpoint or None,
            device=parameters.device,
            sampler=parameters.sampler,
        )
        # Before tf2_ros, whose own callback may fail.
        jumps = self.get_clock().create_jump_callback(
            JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1)),
            post_callback=self._forget_places,
        )
        self._close.append(jumps.unregister)
        self.frames = Frames(robot, self, parameters.tf_timeout, parameters.tf_max_age)
        self._close.append(self.frames.close)
        desk.set_solver(solver, self.frames.T_base_frame, self.frames.latest)
        started = time.perf_counter()
        warm_up(desk)
        warm_up_time = time.perf_counter() - started
        for topic in TOPICS:
            self._close.append(topic(desk).close)
        for service in services_of(desk):
            self._serve(service)
        if self._constructed:
            self.start_own_threads()
        self.after_configure()
        if unused := unused_overrides(self):
            self.get_logger().warning(f"nothing has the quality of service of {unused}")
        self.get_logger().info(
            f"ready: robot {robot.name} with {robot.num_joints} joints, "
            f"{robot.base} to {', '.join(robot.tips)}, sampler "
            f"{solver.sampler_summary} on {parameters.device}, warm-up {warm_up_time:.1f} s"
        )

    def _forget_places(self, jump: Any) -> None:
        """After a clock of a simulator or recording went back, all may be elsewhere."""
        if self.desk.configured:
            self.frames.forget()
            self.desk.current_state.expire()

    def description(self, parameters: NodeParameters) -> str:
        """The text of the robot's URDF by parameter or topic; empty: neither.

        Raises:
            RobotError: nothing comes on the topic.
        """
        topic = parameters.robot_description_topic
        if not topic:
            return parameters.robot_description
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        heard, message = wait_for_message(
            String, self, topic, qos_profile=latched, time_to_wait=DESCRIPTION_TIMEOUT_S
        )
        if not heard or message is None:
            raise mik.RobotError(
                f"no URDF came on {self.resolve_topic_name(topic)} in {DESCRIPTION_TIMEOUT_S:g} s"
            )
        return message.data

    def _serve(self, service: Service) -> None:
        """Open a service. One request of it at a time is new, others may have stepped aside."""
        opened = self.create_service(
            service.kind,
            service.name,
            service.answer,
            qos_profile=QoSProfile(depth=self.desk.parameters.service_qos_depth),
            callback_group=self.own_thread(service.name, most_aside=MOST_ASIDE),
        )
        self._close.append(partial(self.destroy_service, opened))

    def close(self) -> None:
        """Take down what `configure` made, once all that was read is answered."""
        self.desk.drain()
        self.stop_own_threads()
        with self.desk.solver_lock:
            self.desk.configured = False
            while self._close:
                self._close.pop()()

    def check_parameters(self, parameters: list[Parameter[Any]]) -> SetParametersResult:
        """All of them are taken, or none with the reason."""
        try:
            changed = self.desk.parameters.changed(values_of(parameters))
            if self.desk.configured:
                check_with_robot(changed, self.desk.robot)
        except mik.IKError as error:
            return SetParametersResult(successful=False, reason=short(error))
        return SetParametersResult(successful=True)

    def take_parameters(self, parameters: list[Parameter[Any]]) -> None:
        """The next request is answered with the new values."""
        self.desk.parameters = self.desk.parameters.changed(values_of(parameters))

    def refuse_requests(self) -> None:
        """Refuse what is queued until nothing more comes; the executor still spins."""
        self.desk.closing = True
        if self.desk.configured:
            self.frames.stop_waiting()
        self.desk.drain()


class LibraryLog(logging.Handler):
    """Brings what the library warns of to a node's log, until it is closed; of each module a line
    now and then, as requests may bring it about."""

    def __init__(self, logger: Any) -> None:
        super().__init__(logging.WARNING)
        self._log = RareLog(logger)
        logging.getLogger(mik.__name__).addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self._log.warning(record.module, self.format(record))

    def close(self) -> None:
        logging.getLogger(mik.__name__).removeHandler(self)
        super().close()


def robot_from_parameters(parameters: NodeParameters, description: str = "") -> mik.Robot:
    """The robot of the text of a URDF, or of the parameter `robot` where that is empty.

    For one from a URDF, `tip_link` and `base_frame` choose the chain.
    """
    tips = None
    from_urdf = description or Path(parameters.robot).suffix.lower() in URDF_SUFFIXES
    if parameters.tip_link and from_urdf:
        tips = [parameters.tip_link]
    robot = description or parameters.robot
    return mik.load_robot(robot, base=parameters.base_frame or None, tips=tips)


def check_with_robot(parameters: NodeParameters, robot: mik.Robot) -> None:
    """Raise an IKError where parameters do not fit the robot."""
    if parameters.tip_link:
        robot.tip_offset(parameters.tip_link)
    links = tip_links_from_names((), robot, parameters.tip_link, partial=True)
    task_from_request((), parameters.objectives, links, robot, parameters)


def warm_up(desk: Desk) -> None:
    """Go every way through the code once, so that no request waits for a compiler."""
    desk.solver.warm_up()
    robot, q = desk.robot, desk.current_state.q
    poses = robot.forward(q)
    request = GetIKSolutions.Request(
        targets=[pose_message(pose, robot.base) for pose in poses],
        tip_links=list(robot.tips),
    )
    query = solutions.query_from_request(request, robot, desk.parameters, desk.T_base_frame, q)
    result = desk.solve(query, desk.parameters)
    solutions.response_from_result(
        query, result, robot, desk.parameters, 0.0, GetIKSolutions.Response()
    )
    mik.solve_path(desk.solver, np.stack([poses, poses]), num_samples=1)
    try:
        desk.solver.self_collision  # noqa: B018
    except mik.RobotError:
        return  # Without shapes no world can be avoided; the solver has said so.
    far_away = mik.World(robot)
    far_away.add_sphere("sphere", radius=0.1, xyz=(0.0, 0.0, 100.0))
    desk.solve(replace(query, world=far_away), desk.parameters)
    mik.solve_path(desk.solver, np.stack([poses, poses]), num_samples=1, world=far_away)


def main(args: list[str] | None = None) -> None:
    sys.exit(run_node(MeanFlowIKNode, args))


if __name__ == "__main__":
    main()
