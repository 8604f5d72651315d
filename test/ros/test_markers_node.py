# SPDX-License-Identifier: Apache-2.0
"""The arrays that a running node publishes, as a viewer that outlives the node shows them."""

import signal
from collections.abc import Callable

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from drawn import expected_markers, matrix_of
from geometry_msgs.msg import PoseStamped
from meanflow_ik_ros.msg import IKSolutionArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from ros_user import DEADLINE_S, LATCHED, MANY, SHARED, Q, flags, start_node, wait_until
from viewer import Viewer
from visualization_msgs.msg import MarkerArray

import meanflow_ik_core as mik
from meanflow_ik_ros.messages.poses import pose_message
from meanflow_ik_ros.tools import demo
from meanflow_ik_ros.tools.raytrace import Camera
from meanflow_ik_ros.tools.render import render

pytestmark = pytest.mark.usefixtures("ros")
ARMS = SHARED["marker_count"]


class Screen:
    """A node with a viewer, as RViz is one; and what it takes to send goals."""

    def __init__(self, namespace: str, sees: bool = True):
        self.namespace = namespace
        self.node = Node("screen")
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.viewer = Viewer()
        self.met: set[bytes] = set()
        self.arrays: list[MarkerArray] = []
        self.candidates: list[IKSolutionArray] = []
        self.node.create_subscription(
            IKSolutionArray, self.topic("candidates"), self.candidates.append, MANY
        )
        self.goals = self.node.create_publisher(PoseStamped, self.topic("goal_pose"), MANY)
        if sees:
            self.look()

    def topic(self, name: str) -> str:
        return f"{self.namespace}/meanflow_ik/{name}"

    def look(self) -> None:
        self.node.create_subscription(MarkerArray, self.topic("markers"), self.take, LATCHED)

    def take(self, array: MarkerArray) -> None:
        self.arrays.append(array)
        self.viewer.take(array)

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        wait_until(self.executor, condition, what)

    def connect(self) -> None:
        """Wait for a node that has just been started; its first array is always heard."""
        self.arrays.clear()
        self.wait(lambda: bool(self.arrays), "the array of the start")
        self.reach_node()

    def reach_node(self) -> None:
        """Wait for a node that has not been met: one that was killed is known for 20 s more."""

        def reached() -> bool:
            hears = self.node.get_subscriptions_info_by_topic(self.topic("goal_pose"))
            tells = self.node.get_publishers_info_by_topic(self.topic("candidates"))
            new = [{bytes(end.endpoint_gid) for end in ends} - self.met for ends in (hears, tells)]
            if all(new) and self.goals.get_subscription_count() == len(hears):
                self.met.update(*new)
                return True
            return False

        self.wait(reached, "the goal topic and the candidates")

    def close(self) -> None:
        self.executor.shutdown()
        self.node.destroy_node()

    def show(self, goal: PoseStamped) -> IKSolutionArray:
        self.arrays.clear()
        self.candidates.clear()
        self.goals.publish(goal)
        self.wait(lambda: bool(self.arrays and self.candidates), "what comes of a goal")
        return self.candidates[0]


@pytest.fixture(scope="module")
def screen(ros):
    screen = Screen("/drawn")
    yield screen
    screen.close()


def goal_at(robot: mik.Robot, q=Q) -> PoseStamped:
    goal = pose_message(robot.forward(q)[0], "panda_link0")
    goal.header.stamp = Time(sec=17)
    return goal


def test_a_viewer_shows_the_candidates_of_the_goal_and_nothing_of_an_ended_node(
    compiled, screen, panda
):
    for run in range(2):
        node = start_node(*flags("/drawn", **SHARED))
        try:
            screen.connect()
            # the arms of the run before are gone before the first goal comes
            assert not screen.viewer.shown
            shown = screen.show(goal_at(panda, Q + 0.1 * run))
            check_arms(screen.viewer, [s.joint_state.position for s in shown.solutions], panda)
            again = screen.show(goal_at(panda, Q + 0.1 * run + 0.05))
            check_arms(screen.viewer, [s.joint_state.position for s in again.solutions], panda)
            assert not screen.viewer.built and not screen.viewer.dropped
        finally:
            node.send_signal(signal.SIGINT if run else signal.SIGKILL)
            node.wait(DEADLINE_S)
    check_picture(screen.viewer)


def test_a_viewer_that_comes_after_the_goal_is_shown_its_arms(shared_node, panda):
    late = Screen("/own", sees=False)
    try:
        late.reach_node()
        late.goals.publish(goal_at(panda))
        late.wait(lambda: bool(late.candidates), "the candidates")
        late.look()
        late.wait(lambda: bool(late.viewer.namespaces("candidate")), "the arms")
        shown = late.candidates[-1].solutions
        check_arms(late.viewer, [s.joint_state.position for s in shown], panda)
    finally:
        late.close()


def check_arms(viewer: Viewer, positions, robot: mik.Robot) -> None:
    """Every visual of every arm by Pinocchio, with rank, lifetime and opacity."""
    ranks = [f"candidate_{rank:03d}" for rank in range(ARMS)]
    assert sorted(viewer.namespaces("candidate")) == ranks
    assert viewer.texts()[0] == f"{ARMS} of 7 solutions" and len(viewer.texts()) == 1 + ARMS
    for marker in viewer.shown.values():
        assert marker.header.frame_id == "panda_link0" and marker.header.stamp.sec == 17
        assert (marker.lifetime.sec, marker.lifetime.nanosec) == (90, 500_000_000)
    for name, q in zip(ranks, positions, strict=False):
        drawn = [marker for (ns, _), marker in viewer.shown.items() if ns == name]
        assert {marker.color.a for marker in drawn} == {np.float32(SHARED["marker_opacity"])}
        for kind, scale, pose in expected_markers(robot, np.array(q)):
            drawn.remove(
                next(
                    marker
                    for marker in drawn
                    if marker.type == kind
                    and np.allclose([marker.scale.x, marker.scale.y, marker.scale.z], scale)
                    and np.allclose(matrix_of(marker), pose, atol=1e-9)
                )
            )
        assert not drawn


def check_picture(viewer: Viewer) -> None:
    """The picture of the published markers differs from an empty one where they are."""
    camera = Camera(eye=(3.2, -2.4, 1.6), centre=(0.0, 0.1, 0.4), width=300, height=260)
    image = render(viewer.seen(), camera, reach=1e-6)
    changed = np.abs(image - render(MarkerArray(), camera, reach=1e-6)).max(-1) > 0.02
    for (ns, _), marker in viewer.shown.items():
        if ns != "legend":
            column, row = camera.pixels(matrix_of(marker)[:3, 3]).astype(int)
            assert changed[row, column], ns
    assert 0.02 < changed.mean() < 0.5


def test_the_demo_draws_the_very_array_that_was_published(monkeypatch, tmp_path):
    array, drawn = MarkerArray(), []
    monkeypatch.setattr(demo, "write_picture", lambda *given: drawn.append(given))
    demo.draw(array, tmp_path / "demo.png")
    assert drawn[0][0] is array
