# SPDX-License-Identifier: Apache-2.0
"""Clouds of points: what is read of a message, what is left out, and how old a cloud may be."""

import time
from array import array

import numpy as np
import pytest
from meanflow_ik_ros.srv import GetIKSolutions
from oracles import Judge
from ros_user import MANY, Q, User, make_node, spun
from sensor_msgs.msg import JointState, PointCloud2, PointField
from test_world_node import stamped

import meanflow_ik_core as mik
from meanflow_ik_ros.messages.cloud import cells_from_cloud

Codes = GetIKSolutions.Response
TOPIC = "/camera/points"


def cloud_of(points, frame="panda_link0", order="<", kind="f4", gap=4, row_gap=0) -> PointCloud2:
    """Points (H, W, 3), with bytes between them as a camera leaves for colours."""
    height, width = points.shape[:2]
    size = int(kind[1])
    rows = []
    for row in points:
        packed = [point.astype(order + kind).tobytes() + b"\x7f" * gap for point in row]
        rows.append(b"".join(packed) + b"\x7f" * row_gap)
    datatype = PointField.FLOAT32 if kind == "f4" else PointField.FLOAT64
    fields = [
        PointField(name=axis, offset=size * index, datatype=datatype, count=1)
        for index, axis in enumerate("xyz")
    ]
    message = PointCloud2(
        height=height, width=width, fields=fields, is_bigendian=order == ">",
        point_step=3 * size + gap, row_step=width * (3 * size + gap) + row_gap,
        data=b"".join(rows),
    )  # fmt: skip
    message.header.frame_id = frame
    return message


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["f4", "f8"])
@pytest.mark.parametrize("row_gap", [0, 5])
def test_points_are_read_whatever_their_layout(order, kind, row_gap):
    points = np.random.default_rng(0).normal(size=(3, 5, 3))
    points[1, 2] = np.nan
    message = cloud_of(points, order=order, kind=kind, row_gap=row_gap)
    found = cells_from_cloud(message, 1e-4, np.eye(4), 10.0)
    expected = points.reshape(-1, 3)[np.isfinite(points).all(-1).ravel()]
    expected = expected[np.lexsort(expected.T[::-1])]  # cells are in this order
    np.testing.assert_allclose(found, expected, atol=0.6e-4)


def test_clouds_that_cannot_be_are_refused():
    def broken(**fields):
        message = cloud_of(np.zeros((2, 3, 3)))
        for name, value in fields.items():
            setattr(message, name, value)
        return message

    no_z = cloud_of(np.zeros((2, 3, 3)))
    no_z.fields = no_z.fields[:2]
    whole = cloud_of(np.zeros((2, 3, 3)))
    whole.fields[0].datatype = PointField.INT16
    for message, words in (
        (broken(width=4), "need more"),
        (broken(row_step=8), "need more"),
        (broken(point_step=8), "z of the cloud is at 8"),
        (broken(height=2**31, width=2**31), "are the most"),
        (no_z, "needs x, y, z"),
        (whole, r"x \(datatype 3\)"),
        (PointCloud2(), "no fields"),
    ):
        with pytest.raises(mik.WorldError, match=words):
            cells_from_cloud(message, 0.02, np.eye(4), 10.0)


def test_a_cell_stands_for_all_points_in_it():
    points = np.array([(0.01, 0.01, 0.01), (0.019, 0.0, 0.0), (-0.001, 0.0, 0.0), (5.0, -5.0, 1.0)])
    cells = cells_from_cloud(cloud_of(points[None]), 0.02, np.eye(4), 10.0)
    expected = {(0.01, 0.01, 0.01), (-0.01, 0.01, 0.01), (5.01, -4.99, 1.01)}
    assert {tuple(cell) for cell in cells.round(6).tolist()} == expected


def test_points_are_moved_into_the_base_and_left_out_where_they_are_far_from_it():
    T_base_cloud = np.array([(0, -1, 0, 0.5), (1, 0, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1.0)])
    points = np.array([(0.0, 0.31, 0.11), (0.0, 2.31, 0.11), (1.51, 0.31, 0.11)])
    cells = cells_from_cloud(cloud_of(points[None]), 0.02, T_base_cloud, 1.6)
    np.testing.assert_allclose(cells, [(0.19, 0.01, 0.11), (0.19, 1.51, 0.11)])


def test_a_cloud_of_too_many_cells_is_refused_before_all_of_it_is_read():
    points = np.random.default_rng(0).uniform(-1, 1, (3, 500_000, 3))
    message = cloud_of(points[:, :1])  # of all its points, bytes are put in below
    message.width, message.row_step = points.shape[1], 16 * points.shape[1]
    packed = np.zeros((*points.shape[:2], 4), np.float32)
    packed[..., :3] = points
    message.data = array("B", packed.tobytes())
    began = time.process_time()
    with pytest.raises(mik.WorldError, match="fills too many cells"):
        cells_from_cloud(message, 0.005, np.eye(4), 10.0)
    assert time.process_time() - began < 0.1


class Client(User):
    def __init__(self):
        super().__init__({})
        self.service = self.node.create_client(
            GetIKSolutions, "/meanflow_ik/get_ik_solutions", qos_profile=MANY
        )
        self.clouds = self.node.create_publisher(PointCloud2, TOPIC, 1)
        self.states = self.node.create_publisher(JointState, "/joint_states", MANY)
        self.wait(self.service.service_is_ready, "the service")
        for publisher in (self.clouds, self.states):
            self.wait(lambda p=publisher: p.get_subscription_count() == 1, publisher.topic_name)

    def ask(self, target):
        request = GetIKSolutions.Request(targets=stamped(target), avoid_self_collision=True)
        future = self.service.call_async(request)
        self.wait(future.done, "an answer")
        return future.result()


@pytest.fixture(scope="module")
def node(ros):
    node = make_node(cloud_topics=[TOPIC], cloud_max_age=30.0)
    with spun(node):
        yield node
    node.destroy_node()


@pytest.fixture(scope="module")
def client(node):
    client = Client()
    yield client
    client.close()


def test_a_cloud_is_an_obstacle_without_the_robot_and_never_older_than_allowed(node, client, panda):
    desk, judge = node.desk, Judge(panda)
    other = Q + np.array([0.8, 0, 0, 0.2, 0, 0, 0])
    target = judge.poses(other)
    never = client.ask(target)
    assert never.error_code == Codes.COLLISION_CHECKING_UNAVAILABLE
    assert "has never come" in never.message and TOPIC in never.message

    client.states.publish(JointState(name=list(panda.joint_names), position=Q.tolist()))
    client.wait(lambda: not desk.current_state.missing, "the joints")
    # What a camera sees: the robot where it is, a ball where the hand shall go, and a far wall.
    random = np.random.default_rng(0)
    hand = judge.poses(Q)[0, :3, 3]
    middle = target[0, :3, 3]
    seen = [
        hand + random.uniform(-0.02, 0.02, (200, 3)),
        middle + random.uniform(-0.05, 0.05, (2000, 3)),
        np.array((3.0, 0, 0)) + random.uniform(-0.05, 0.05, (200, 3)),
    ]
    client.clouds.publish(cloud_of(np.concatenate(seen)[None]))
    client.wait(lambda: TOPIC in desk.world.content.clouds, "the cloud")
    cells = desk.world.content.world.obstacle(TOPIC).shape.vertices
    assert np.linalg.norm(cells - middle, axis=-1).max() < 0.12
    assert not desk.world.content.world.in_collision(Q)
    blocked = client.ask(target)
    assert blocked.error_code == Codes.GOAL_IN_COLLISION and TOPIC in blocked.message
    assert client.ask(judge.poses(Q)).error_code == Codes.SUCCESS

    before = desk.world.content
    client.clouds.publish(cloud_of(np.full((1, 3, 3), 3.0)))
    client.wait(lambda: desk.world.content is not before, "a cloud of nothing near")
    assert client.ask(target).error_code == Codes.SUCCESS

    before = time.monotonic() - 31.0
    desk.world.change(lambda content: content.clouds.update({TOPIC: before}))
    old = client.ask(target)
    assert old.error_code == Codes.COLLISION_CHECKING_UNAVAILABLE and "31.0 s old" in old.message


def test_a_cloud_from_before_all_time_is_passed_over_with_a_line(node, client, capfd):
    before = node.desk.world.content
    cloud = cloud_of(np.full((1, 3, 3), 1.0))
    cloud.header.stamp.sec = -(2**31)
    said = ""

    def is_said():
        nonlocal said
        said += capfd.readouterr().err
        return "passed over: its stamp is negative" in said

    client.clouds.publish(cloud)
    client.wait(is_said, "the line")
    assert "Traceback" not in said and node.desk.world.content is before
