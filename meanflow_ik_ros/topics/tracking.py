# SPDX-License-Identifier: Apache-2.0
"""Hears a moving target, and says where the joints go that follow it."""

from __future__ import annotations

import math
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from builtin_interfaces.msg import Duration
from geometry_msgs.msg import PoseArray, PoseStamped
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.time import Time
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from meanflow_ik_core.errors import RobotError
from meanflow_ik_core.solving.inputs import check_free_axes, check_tips
from meanflow_ik_core.solving.solver import load_solver
from meanflow_ik_ros.desk import NOT_ACTIVE, Desk
from meanflow_ik_ros.follower import Followed, Follower, Pursuit
from meanflow_ik_ros.messages.errors import Codes, RequestError
from meanflow_ik_ros.messages.fields import doubles, nanoseconds_from_stamp
from meanflow_ik_ros.messages.joints import joint_state_message
from meanflow_ik_ros.messages.poses import matrices_from_poses, matrix_from_pose
from meanflow_ik_ros.messages.sizes import check_frame
from meanflow_ik_ros.messages.task import task_from_request
from meanflow_ik_ros.messages.tips import TipLinks, tip_links_from_names
from meanflow_ik_ros.msg import TrackStatus
from meanflow_ik_ros.qos import create_publisher, create_subscription

if TYPE_CHECKING:
    from meanflow_ik_core.robot.robot import Robot
    from meanflow_ik_core.solving.solver import IKSolver

POSE, POSES = "~/track_pose", "~/track_poses"
MOST_NAMED = 5  # contacts of a step


class TrackingTopics:
    """Follows what comes on ~/track_pose and ~/track_poses; `close` takes the topics down again.

    All of it is the work of one thread, which has its own tracker, and waits neither for the
    solver nor for TF.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        parameters, node = desk.parameters, desk.node
        qos = QoSProfile(depth=parameters.qos_depth)
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._joints = create_publisher(node, JointState, "~/tracked_joints", qos)
        # Who comes later hears how it stands.
        self._status = create_publisher(node, TrackStatus, "~/track_status", latched)
        self._said = (TrackStatus.STANDING, "nothing has been followed yet")
        self._solvers: dict[tuple[str, ...], IKSolver] = {}
        self._follower = Follower(self._start)
        self._activation = desk.activations
        self._joints_message = joint_state_message(
            desk.current_state.q, desk.robot, Time().to_msg()
        )
        self._command: Any = None
        if parameters.track_command_out_topic:
            kind = command_type(parameters.track_command_out_type)
            topic = parameters.track_command_out_topic
            self._command = create_publisher(node, kind, topic, qos)
        self._warm_up()
        thread = node.own_thread("tracking", tick=self._tick, due=self._due)
        self._subscriptions = [
            create_subscription(node, PoseStamped, POSE, self.receive_pose, qos, thread),
            create_subscription(node, PoseArray, POSES, self.receive_poses, qos, thread),
        ]
        self._status.publish(status_message(Followed(*self._said), desk.robot.base))

    def receive_pose(self, pose: PoseStamped) -> None:
        """A target for one link: the robot's only tip, or that of the parameter `tip_link`."""
        self._follow(POSE, pose.header, partial(self._target, pose))

    def receive_poses(self, poses: PoseArray) -> None:
        """A target for every tip of the robot, in its order."""
        self._follow(POSES, poses.header, partial(self._targets, poses))

    def _follow(self, source: str, header: Any, T_base_link: Any) -> None:
        self._end_with_activation()
        if not self._desk.active:
            self._say(self._follower.stand(TrackStatus.REFUSED, NOT_ACTIVE))
            return
        stamp = nanoseconds_from_stamp(header.stamp)
        followed = self._follower.take(source, T_base_link, stamp, self._now())
        if followed is None:
            return
        if followed.status == TrackStatus.REFUSED:
            self._desk.log.warning(source, f"refused: {followed.message}")
        self._say(followed)

    def _end_with_activation(self) -> None:
        """End the stream where the node is not active, or was not in between."""
        if self._desk.active and self._activation == self._desk.activations:
            return
        self._activation = self._desk.activations
        if self._follower.pursuit is not None:
            self._say(self._follower.stop("the node was deactivated"))

    def _target(self, pose: PoseStamped, pursuit: Pursuit) -> np.ndarray:
        return self._in_base(pose.header, matrix_from_pose(pose)[None], pursuit)

    def _targets(self, poses: PoseArray, pursuit: Pursuit) -> np.ndarray:
        if len(poses.poses) != len(pursuit.places):
            raise RequestError(
                Codes.INVALID_GOAL_CONSTRAINTS,
                f"{len(poses.poses)} poses, expected one for each of "
                f"{', '.join(pursuit.robot.tips)}",
            )
        return self._in_base(poses.header, matrices_from_poses(poses), pursuit)

    def _in_base(self, header: Any, T_frame_link: np.ndarray, pursuit: Pursuit) -> np.ndarray:
        check_frame(header)
        self._see_obstacles(pursuit)
        max_age_s = pursuit.parameters.track_incoming_command_timeout
        return self._desk.T_base_frame_now(header.frame_id, max_age_s) @ T_frame_link

    def _see_obstacles(self, pursuit: Pursuit) -> None:
        """Let the tracker avoid what the node's world holds now."""
        parameters = pursuit.parameters
        world = self._desk.obstacles(True, parameters.avoid_self_collision, parameters)
        scene = None if world is None else world.snapshot()
        if scene is not pursuit.tracker.world:
            pursuit.tracker.world = scene

    def _links(self, source: str) -> TipLinks:
        """The links that targets of a source are for; RequestError where they are ambiguous."""
        desk = self._desk
        names = list(desk.robot.tips) if source == POSES else []
        links = tip_links_from_names(names, desk.robot, desk.parameters.tip_link, partial=True)
        if source == POSE and len(links.names) > 1:
            raise RequestError(
                Codes.INVALID_LINK_NAME,
                f"which of {', '.join(links.names)} is meant? Set the parameter tip_link, or "
                f"publish on {POSES}",
            )
        return links

    def _start(self, source: str) -> Pursuit:
        """What a stream is followed with, from where the robot is.

        Raises:
            IKError: joint_states are not known, or stale; or ~/track_pose is ambiguous.
        """
        desk, parameters = self._desk, self._desk.parameters
        check_joint_states(desk)
        links = self._links(source)
        task = task_from_request((), (), links, desk.robot, parameters)
        desk.check_links(task)
        robot = desk.robot.at_frames(links.names)
        tracker = self._solver(robot).tracker(
            desk.current_state.q,
            parameters.track_max_joint_step,
            parameters.track_velocity_scale,
            parameters.track_publish_period,
            avoid_self_collision=parameters.avoid_self_collision,
            position_tolerance=parameters.position_tolerance,
            orientation_tolerance=parameters.orientation_tolerance,
            tips=links.names,
            free_axes=task.free_axes,
        )
        places = check_tips(robot, links.names)
        asked = check_free_axes(robot, places, task.free_axes)
        return Pursuit(robot, places, asked, tracker, parameters)

    def _solver(self, robot: Robot) -> IKSolver:
        """One for each choice of links: what it knows of self-collision takes long to find out.

        The node's own is not to be shared: its geometry is in use while it solves.
        """
        if robot.tips not in self._solvers:
            self._solvers[robot.tips] = load_solver(robot, sampler="uniform")
        return self._solvers[robot.tips]

    def _warm_up(self) -> None:
        """Compile and read what follows targets before the first one comes."""
        desk = self._desk
        for source in (POSE, POSES):
            with suppress(RequestError):  # which link ~/track_pose is for may be ambiguous
                links = self._links(source)
                solver = self._solver(desk.robot.at_frames(links.names))
                if desk.parameters.avoid_self_collision:
                    with suppress(RobotError):  # the first target is told
                        solver.self_collision  # noqa: B018
                tracker = solver.tracker(desk.current_state.q, tips=links.names)
                places = list(check_tips(solver.robot, links.names))
                poses = solver.robot.forward(desk.current_state.q)[places]
                tracker.step(poses if len(poses) > 1 else poses[0])

    def _due(self) -> float | None:
        return self._follower.seconds_to_tick(self._now())

    def _tick(self) -> None:
        self._end_with_activation()
        if (followed := self._follower.tick(self._now())) is not None:
            self._say(followed)

    def _now(self) -> int:
        return self._desk.node.get_clock().now().nanoseconds

    def _say(self, followed: Followed) -> None:
        stamp = Time(nanoseconds=max(0, followed.stamp_ns)).to_msg()
        if followed.q is not None and followed.velocities is not None:
            if self._command is not None and followed.seconds:
                self._command.publish(command_message(followed, self._desk.robot, self._command))
            if self._joints.get_subscription_count():
                message = self._joints_message
                message.header.stamp = stamp
                message.position = doubles(followed.q)
                message.velocity = doubles(followed.velocities)
                self._joints.publish(message)
        said = (followed.status, followed.message)
        if said != self._said or self._status.get_subscription_count():
            self._said = said
            message = status_message(followed, self._desk.robot.base)
            message.header.stamp = stamp
            self._status.publish(message)

    def close(self) -> None:
        node = self._desk.node
        for subscription in self._subscriptions:
            node.destroy_subscription(subscription)
        for publisher in filter(None, (self._joints, self._status, self._command)):
            node.destroy_publisher(publisher)


def check_joint_states(desk: Desk) -> None:
    """Raise a RequestError unless every joint has been heard of, and lately."""
    state, most = desk.current_state, desk.parameters.track_joint_states_max_age
    problem = None
    if state.missing:
        problem = f"joint_states has not told of {', '.join(state.missing)}"
    else:
        name, age = state.oldest()
        if math.isinf(age):
            problem = f"joint_states has not told of {name} since the node's clock went back"
        elif age > most:
            problem = (
                f"joint_states told of {name} {age:.3f} s ago; track_joint_states_max_age allows "
                f"{most:g} s"
            )
    if problem is not None:
        raise RequestError(Codes.INVALID_ROBOT_STATE, f"where the robot is is not known: {problem}")


def command_type(name: str) -> type:
    """The type of a controller's commands by its name."""
    return {
        "trajectory_msgs/JointTrajectory": JointTrajectory,
        "std_msgs/Float64MultiArray": Float64MultiArray,
    }[name]


def command_message(followed: Followed, robot: Any, publisher: Any) -> Any:
    """What a controller is told: the joints, and for a trajectory how long it may take to them.

    Positions alone: joint_trajectory_controller refuses a last point with a velocity by default.
    """
    positions = doubles(followed.q)
    if publisher.msg_type is Float64MultiArray:
        return Float64MultiArray(data=positions)
    point = JointTrajectoryPoint(positions=positions)
    seconds, nanoseconds = divmod(round(followed.seconds * 1e9), 1_000_000_000)
    point.time_from_start = Duration(sec=seconds, nanosec=nanoseconds)
    # The stamp zero means at once.
    return JointTrajectory(joint_names=list(robot.joint_names), points=[point])


def status_message(followed: Followed, base: str) -> TrackStatus:
    """What ~/track_status says, without a stamp."""
    message = TrackStatus(status=followed.status, message=followed.message)
    message.header.frame_id = base
    step = followed.step
    if step is not None:
        message.position_error = doubles(step.position_error)
        message.orientation_error = doubles(step.orientation_error)
        message.joint = step.joint or ""
        message.message = ", ".join(map(str, step.touches[:MOST_NAMED]))
        if step.blocked_by is not None:
            message.blocked_by = step.blocked_by.value
        if step.offer is not None:
            message.offer = doubles(step.offer)
    return message
