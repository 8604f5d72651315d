# SPDX-License-Identifier: Apache-2.0
"""A moving target over real ROS: what the running node says, refuses, and tells a controller."""

import threading
import time

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseArray, PoseStamped
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState
from meanflow_ik_ros.msg import TrackStatus, WorldObject
from meanflow_ik_ros.srv import ApplyWorld, GetIKSolutionsBatch
from oracles import Judge
from ros_user import LATCHED, MANY, User, make_node, pose_array, spun
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory
from world_messages import box

from meanflow_ik_ros.messages.poses import pose_message, poses_from_matrices
from meanflow_ik_ros.services import batch
from meanflow_ik_ros.topics.tracking import TrackingTopics

HOME = np.array([0.0, -0.5, 0.0, -2.0, 0.0, 1.6, 0.7])
STEP_S = 0.005


class Operator(User):
    """Publishes targets and joint states, and hears what follows."""

    def __init__(self, robot, command=()):
        super().__init__(
            {"tracked_joints": (JointState, MANY), "track_status": (TrackStatus, LATCHED)}
        )
        self.robot, self.judge = robot, Judge(robot)
        node = self.node
        self.pose = node.create_publisher(PoseStamped, "/meanflow_ik/track_pose", MANY)
        self.poses = node.create_publisher(PoseArray, "/meanflow_ik/track_poses", MANY)
        self.states = node.create_publisher(JointState, "/joint_states", MANY)
        for topic, kind in command:
            node.create_subscription(kind, topic, self.heard[topic].append, MANY)
        for publisher in (self.pose, self.poses, self.states):
            self.wait(lambda p=publisher: p.get_subscription_count(), publisher.topic_name)
        for topic in ("/meanflow_ik/tracked_joints", "/meanflow_ik/track_status"):
            self.wait(lambda t=topic: node.count_publishers(t), topic)
        self.wait(lambda: self.heard["track_status"], "the status of the start")

    def tell_joints(self, solver_node, q=HOME, names=None):
        """Say where the robot is, until the node has heard it."""
        state = solver_node.desk.current_state
        before = state._heard
        self.states.publish(JointState(name=list(names or self.robot.joint_names), position=[*q]))
        self.wait(lambda: state._heard > before or names, "joint_states")

    def now(self):
        return self.node.get_clock().now()

    def send(self, T_base_tip, stamp=None, frame_id=None):
        goal = pose_message(np.asarray(T_base_tip), frame_id or self.robot.base)
        goal.header.stamp = (stamp or self.now()).to_msg()
        self.pose.publish(goal)
        return goal

    def spin(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.executor.spin_once(max(0.0, end - time.monotonic()))

    def last(self, status) -> TrackStatus:
        """Wait until the node says a status."""
        said = self.heard["track_status"]
        self.wait(lambda: said and said[-1].status == status, f"status {status}")
        return said[-1]

    def is_still(self) -> bool:
        """Whether the last joints have no speed."""
        return not np.any(self.heard["tracked_joints"][-1].velocity)


@pytest.fixture(scope="module")
def running(ros):
    """A node that waits for targets for long, so that a busy machine makes none of them late."""
    node = make_node(track_publish_period=0.25, track_incoming_command_timeout=0.5)
    with spun(node):
        yield node
    node.destroy_node()


@pytest.fixture(scope="module")
def operator(running, panda):
    operator = Operator(panda)
    yield operator
    operator.close()


@pytest.fixture(autouse=True)
def standing(running, operator):
    """Each test begins with a robot at home that follows nothing."""
    (follower,) = [
        close.__self__._follower
        for close in running._close
        if isinstance(getattr(close, "__self__", None), TrackingTopics)
    ]
    operator.wait(lambda: follower.pursuit is None, "the end of what was followed")
    if not running.desk.current_state.missing:
        operator.tell_joints(running)
    for heard in operator.heard.values():
        heard.clear()


def tip_at_home(operator, down=0.0) -> np.ndarray:
    pose = operator.judge.poses(HOME)[0].copy()
    pose[2, 3] -= down
    return pose


def test_nothing_is_followed_before_joint_states_or_by_those_of_another_robot(running, operator):
    assert running.desk.current_state.missing, "this must be the first test of the file"
    operator.send(tip_at_home(operator))
    assert "panda_joint1" in operator.last(TrackStatus.REFUSED).message
    names = [f"ur_{name}" for name in operator.robot.joint_names]
    operator.tell_joints(running, names=names)
    operator.spin(0.1)
    operator.heard["track_status"].clear()
    operator.send(tip_at_home(operator))
    assert "has not told of panda_joint1" in operator.last(TrackStatus.REFUSED).message
    assert not operator.heard["tracked_joints"]
    operator.tell_joints(running)


def test_stale_joint_states_are_said(running, operator):
    operator.spin(0.55)
    operator.send(tip_at_home(operator))
    message = operator.last(TrackStatus.REFUSED).message
    assert "joint_states told of panda_joint" in message and "0.5 s" in message


def test_a_moving_target_is_followed_with_its_stamps_by_pinocchio(running, operator):
    sent = []
    for number in range(60):
        operator.spin(STEP_S)
        sent.append(operator.send(tip_at_home(operator, 0.1 * STEP_S * number)))
    stamps = [(goal.header.stamp.sec, goal.header.stamp.nanosec) for goal in sent]

    def by_stamp():
        heard = operator.heard["tracked_joints"]
        return {(j.header.stamp.sec, j.header.stamp.nanosec): j for j in heard}

    operator.wait(lambda: stamps[-1] in by_stamp(), "the joints of the last target")
    for goal, stamp in zip(sent, stamps, strict=True):
        joints = by_stamp()[stamp]
        assert joints.name == list(operator.robot.joint_names)
        target = tip_at_home(operator)
        target[2, 3] = goal.pose.position.z
        assert operator.judge.accepts(np.array(joints.position), target[None])
    assert operator.heard["track_status"][-1].status == TrackStatus.REACHED
    assert max(operator.heard["track_status"][-1].position_error) < 1e-5


def test_targets_are_followed_while_a_batch_is_solved(running, operator):
    random = np.random.default_rng(0)
    q = random.uniform(operator.robot.lower, operator.robot.upper, (4000, 7))
    poses = np.stack([operator.judge.poses(row)[0] for row in q])
    request = GetIKSolutionsBatch.Request(
        targets=pose_array(poses, operator.robot.base), max_solutions=32
    )
    response = GetIKSolutionsBatch.Response()
    solving = threading.Thread(target=batch.answer, args=(running.desk, request, response))
    solving.start()
    operator.wait(running.desk.solver_lock.locked, "a batch that is being solved")
    operator.tell_joints(running)
    sent = []
    for number in range(20):
        sent.append(operator.send(tip_at_home(operator, 1e-4 * number)))
        operator.spin(STEP_S)
    stamps = {(goal.header.stamp.sec, goal.header.stamp.nanosec) for goal in sent}

    def answered():
        stamped = [joints.header.stamp for joints in operator.heard["tracked_joints"]]
        return stamps <= {(stamp.sec, stamp.nanosec) for stamp in stamped}

    operator.wait(answered, "joints for every target")
    assert solving.is_alive(), "the batch was too short to tell"
    solving.join()


def test_the_watchdog_says_that_it_stopped_and_the_joints_stand(running, operator):
    operator.send(tip_at_home(operator, 0.01))
    operator.last(TrackStatus.REACHED)
    assert "no good target has come" in operator.last(TrackStatus.STANDING).message
    assert operator.is_still()


@pytest.mark.parametrize("what", ["nan", "far", "old", "quaternion", "frame", "negative stamp"])
def test_bad_targets_are_refused_and_the_arm_stands(running, operator, what):
    operator.send(tip_at_home(operator, 0.005))
    operator.last(TrackStatus.REACHED)
    goal, message = pose_message(tip_at_home(operator, 0.01), operator.robot.base), ""
    goal.header.stamp = operator.now().to_msg()
    if what == "nan":
        goal.pose.position.x, message = float("nan"), "not finite"
    if what == "far":
        goal.pose.position.x, message = 5.0, "track_max_distance"
    if what == "old":
        goal.header.stamp.sec, message = goal.header.stamp.sec - 3, "3.0"
    if what == "quaternion":
        goal.pose.orientation.w, message = 5.0, "has length"
    if what == "frame":
        goal.header.frame_id, message = "nowhere", "'nowhere'"
    if what == "negative stamp":
        goal.header.stamp.sec, message = -5, "old"
    operator.pose.publish(goal)
    assert message in operator.last(TrackStatus.REFUSED).message
    operator.wait(operator.is_still, "joints that stand")
    at = operator.heard["tracked_joints"][-1].position
    assert operator.judge.accepts(np.array(at), tip_at_home(operator, 0.005)[None])


def test_what_blocks_the_arm_is_named(running, operator):
    """The target lies beyond the reach, away from the shoulder."""
    stretched = np.array([0.0, 0.3, 0.0, -0.4, 0.0, 1.6, 0.7])
    operator.tell_joints(running, stretched)
    target = operator.judge.poses(stretched)[0].copy()
    shoulder = np.array([0.0, 0.0, 0.333])
    outward = target[:3, 3] - shoulder
    target[:3, 3] += 0.25 * outward / np.linalg.norm(outward)
    said = operator.heard["track_status"]
    deadline = time.monotonic() + 30.0
    while not said or said[-1].status != TrackStatus.BLOCKED:
        assert time.monotonic() < deadline, said and said[-1]
        operator.send(target)
        operator.spin(STEP_S)
    assert said[-1].blocked_by == "singularity" and not said[-1].joint
    operator.wait(lambda: said[-1].status == TrackStatus.STANDING, "the end")
    reached = operator.judge.poses(np.array(operator.heard["tracked_joints"][-1].position))[0]
    error = np.linalg.norm(reached[:3, 3] - target[:3, 3])
    blocked = [status for status in said if status.status == TrackStatus.BLOCKED]
    assert blocked[-1].position_error[0] == pytest.approx(error, abs=1e-6)
    assert error > 0.05


def test_the_arm_stops_before_an_object_of_the_world_and_goes_on_without_it(running, operator):
    """A shelf below the hand, between it and the target."""
    target = tip_at_home(operator, 0.08)
    apply = operator.node.create_client(ApplyWorld, "/meanflow_ik/apply_world")
    operator.wait(apply.service_is_ready, "apply_world")
    x, y, z = tip_at_home(operator)[:3, 3]

    def change(operation):
        shelf = box("shelf", (0.6, 0.6, 0.02), (x, y, z - 0.15), operation=operation)
        future = apply.call_async(ApplyWorld.Request(objects=[shelf], is_diff=True))
        operator.wait(future.done, "the world")
        assert future.result().error_code == ApplyWorld.Response.SUCCESS, future.result()

    def follow_until(is_so):
        deadline = time.monotonic() + 30.0
        while not said or not is_so(said[-1]):
            assert time.monotonic() < deadline, said and said[-1]
            operator.send(target)
            operator.spin(STEP_S)

    said = operator.heard["track_status"]
    change(WorldObject.ADD)
    try:
        follow_until(lambda status: status.blocked_by == "world")
        assert "shelf" in said[-1].message
    finally:
        change(WorldObject.REMOVE)
    follow_until(lambda status: status.status == TrackStatus.REACHED)


def test_several_poses_are_refused_by_a_robot_of_one_tip(running, operator):
    poses = PoseArray(poses=poses_from_matrices(np.stack([tip_at_home(operator)] * 2)))
    poses.header.frame_id = operator.robot.base
    poses.header.stamp = operator.now().to_msg()
    operator.poses.publish(poses)
    assert "2 poses, expected one" in operator.last(TrackStatus.REFUSED).message


def test_deactivation_stops_following(running, operator):
    change = operator.node.create_client(ChangeState, "/meanflow_ik/change_state")
    operator.wait(change.service_is_ready, "change_state")

    def transit(number):
        request = ChangeState.Request(transition=Transition(id=number))
        future = change.call_async(request)
        operator.wait(future.done, "a transition")
        assert future.result().success

    operator.tell_joints(running)
    operator.send(tip_at_home(operator, 0.005))
    operator.last(TrackStatus.REACHED)
    transit(Transition.TRANSITION_DEACTIVATE)
    assert running._state_machine.current_state[0] == State.PRIMARY_STATE_INACTIVE
    operator.last(TrackStatus.STANDING)
    assert "deactivated" in operator.last(TrackStatus.STANDING).message
    operator.send(tip_at_home(operator, 0.005))
    assert "not active" in operator.last(TrackStatus.REFUSED).message
    transit(Transition.TRANSITION_ACTIVATE)
    # So does one between two targets, which nothing else would tell from a short pause.
    operator.tell_joints(running)
    operator.send(tip_at_home(operator, 0.005))
    operator.last(TrackStatus.REACHED)
    operator.wait(operator.is_still, "rest")
    running.trigger_deactivate()
    running.trigger_activate()
    operator.tell_joints(running)
    moved = operator.heard["tracked_joints"]
    moved.clear()
    operator.send(tip_at_home(operator))
    operator.wait(lambda: moved, "a stream of its own")
    operator.last(TrackStatus.REACHED)
    # It begins where joint_states has the robot, which is at the target, not where the last ended.
    assert max(np.abs(one.velocity).max() for one in moved) < 1e-6
    operator.wait(lambda: np.allclose(moved[-1].position, HOME, atol=1e-6), "the end of it")


def test_a_simulation_that_begins_again_is_followed_from_where_the_robot_is_then(ros, panda):
    node = make_node("/simulated", use_sim_time=True)
    user, judge, said = User({}), Judge(panda), []
    prefix = "/simulated/meanflow_ik"
    user.node.create_subscription(TrackStatus, f"{prefix}/track_status", said.append, LATCHED)
    clock = user.node.create_publisher(Clock, "/clock", 1)
    states = user.node.create_publisher(JointState, "/simulated/joint_states", MANY)
    pose = user.node.create_publisher(PoseStamped, f"{prefix}/track_pose", MANY)

    def tell(seconds):
        clock.publish(Clock(clock=Time(sec=seconds)))
        user.wait(lambda: node.get_clock().now().nanoseconds == seconds * 10**9, "the clock")

    def follow(q, status):
        goal = pose_message(judge.poses(q)[0], panda.base)
        goal.header.stamp = node.get_clock().now().to_msg()
        pose.publish(goal)
        user.wait(lambda: said[-1].status == status, f"status {status}")
        return said[-1]

    def stand_at(q):
        before = node.desk.current_state.q
        states.publish(JointState(name=list(panda.joint_names), position=q.tolist()))
        user.wait(lambda: node.desk.current_state.q is not before, "joint_states")

    try:
        with spun(node):
            for publisher in (clock, states, pose):
                user.wait(publisher.get_subscription_count, publisher.topic_name)
            user.wait(lambda: said, "the status of the start")
            tell(1000)
            stand_at(HOME)
            follow(HOME, TrackStatus.REACHED)
            tell(10)
            user.wait(lambda: said[-1].status == TrackStatus.STANDING, "the end of the stream")
            assert "clock went back by 990 s" in said[-1].message
            refused = follow(HOME, TrackStatus.REFUSED)
            assert "since the node's clock went back" in refused.message
            other = HOME + 0.5
            stand_at(other)
            follow(other, TrackStatus.REACHED)
            stand_at(HOME)
            tell(2000)  # forward as well
            follow(HOME, TrackStatus.REACHED)
    finally:
        user.close()
        node.destroy_node()


@pytest.mark.parametrize("kind", [JointTrajectory, Float64MultiArray])
def test_a_controller_gets_the_joints_in_its_own_type(ros, panda, kind):
    package = "trajectory_msgs" if kind is JointTrajectory else "std_msgs"
    node = make_node(
        "/commanding",
        track_command_out_topic="/controller/commands",
        track_command_out_type=f"{package}/{kind.__name__}",
    )
    user = User({})
    try:
        with spun(node):
            heard = []
            user.node.create_subscription(kind, "/controller/commands", heard.append, MANY)
            states = user.node.create_publisher(JointState, "/commanding/joint_states", MANY)
            pose = user.node.create_publisher(
                PoseStamped, "/commanding/meanflow_ik/track_pose", MANY
            )
            for publisher in (states, pose):
                user.wait(publisher.get_subscription_count, publisher.topic_name)
            user.wait(lambda: user.node.count_publishers("/controller/commands"), "commands")
            states.publish(JointState(name=list(panda.joint_names), position=HOME.tolist()))
            user.wait(lambda: not node.desk.current_state.missing, "joint_states")
            judge = Judge(panda)
            target = judge.poses(HOME)[0].copy()
            target[2, 3] -= 0.005
            goal = pose_message(target, panda.base)
            goal.header.stamp = user.node.get_clock().now().to_msg()
            pose.publish(goal)
            user.wait(lambda: heard, "a command")
            command = heard[-1]
            if kind is Float64MultiArray:
                assert judge.accepts(np.array(command.data), target[None])
                return
            assert command.joint_names == list(panda.joint_names)
            assert (command.header.stamp.sec, command.header.stamp.nanosec) == (0, 0)
            (point,) = command.points
            assert judge.accepts(np.array(point.positions), target[None])
            assert 0 < point.time_from_start.nanosec <= 10_000_000
    finally:
        user.close()
        node.destroy_node()
