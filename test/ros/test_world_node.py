# SPDX-License-Identifier: Apache-2.0
"""The running node over real ROS: its world changed by a service, and in each service's answers."""

import time

import coal
import numpy as np
import pytest
from geometry_msgs.msg import PoseStamped
from meanflow_ik_ros.msg import WorldObject
from meanflow_ik_ros.srv import (
    ApplyWorld,
    GetIKPath,
    GetIKSolutions,
    GetIKSolutionsBatch,
    GetWorld,
)
from oracles import Judge
from rclpy.serialization import serialize_message
from ros_user import MANY, Q, User, pose_array
from world_messages import box, pose_at

import meanflow_ik_core as mik
from meanflow_ik_core.bounds import MOST_SHAPES, MOST_TOUCHES

Codes = ApplyWorld.Response
IKCodes = GetIKSolutions.Response
KINDS = {
    "apply_world": ApplyWorld,
    "get_world": GetWorld,
    "get_ik_solutions": GetIKSolutions,
    "get_ik_solutions_batch": GetIKSolutionsBatch,
    "get_ik_path": GetIKPath,
}
# Beside the pose of Q, where the arm has ways around it.
POST = box("post", (0.06, 0.06, 0.9), (0.35, -0.15, 0.45))


class Client(User):
    def __init__(self):
        super().__init__({})
        self.services = {
            name: self.node.create_client(kind, f"/meanflow_ik/{name}", qos_profile=MANY)
            for name, kind in KINDS.items()
        }
        for name, service in self.services.items():
            self.wait(service.service_is_ready, name)

    def call(self, name, **fields):
        future = self.services[name].call_async(KINDS[name].Request(**fields))
        self.wait(future.done, name)
        return future.result()


@pytest.fixture(scope="module")
def client(running):
    client = Client()
    yield client
    client.close()


@pytest.fixture(autouse=True)
def empty(client):
    yield
    assert client.call("apply_world").error_code == Codes.SUCCESS


@pytest.fixture(scope="module")
def target(panda) -> np.ndarray:
    return Judge(panda).poses(Q)


def stamped(poses, frame_id="panda_link0") -> list:
    message = pose_array(poses, frame_id)
    return [PoseStamped(header=message.header, pose=pose) for pose in message.poses]


def rows(response, joints=7) -> np.ndarray:
    if hasattr(response, "solutions"):
        return np.array([solution.joint_state.position for solution in response.solutions])
    if hasattr(response, "trajectory"):
        return np.array([point.positions for point in response.trajectory.points])
    return np.array(response.positions).reshape(-1, joints)


def touching(robot, q, message) -> np.ndarray:
    """(N,) bool, by Coal on the shapes of the URDF, of one box."""
    judge = Judge(robot)
    shapes = judge.shapes(mik_geometry())
    size = list(message.primitives[0].dimensions)
    place = message.pose.position
    obstacle = coal.Box(*size), coal.Transform3s(np.eye(3), np.array([place.x, place.y, place.z]))
    found = []
    for row in q:
        poses = judge.shape_poses(shapes, row)
        found.append(
            any(
                coal.collide(
                    shape.geometry, coal.Transform3s(pose[:3, :3], pose[:3, 3]), *obstacle,
                    coal.CollisionRequest(), coal.CollisionResult(),
                )
                for shape, pose in zip(shapes.geometryObjects, poses, strict=True)
                if "link0" not in shape.name
            )
        )  # fmt: skip
    return np.array(found)


def mik_geometry():
    import pinocchio as pin

    return pin.GeometryType.COLLISION


def test_solutions_are_free_of_the_world_unless_it_is_not_to_be_avoided(client, panda, target):
    assert client.call("apply_world", objects=[POST]).names == ["post"]
    asked = {"targets": stamped(target), "max_solutions": 32}
    free = client.call("get_ik_solutions", **asked)
    assert free.error_code == IKCodes.SUCCESS and len(free.solutions) >= 8
    assert not touching(panda, rows(free), POST).any()
    assert min(solution.world_clearance for solution in free.solutions) > -0.01
    any_of_them = client.call("get_ik_solutions", **asked, avoid_world=False)
    assert touching(panda, rows(any_of_them), POST).any()
    assert np.isnan([solution.world_clearance for solution in any_of_them.solutions]).all()


def test_batches_and_paths_are_free_of_the_world(client, panda, target):
    client.call("apply_world", objects=[POST])
    line = np.repeat(target, 10, 0)
    line[:, 2, 3] += np.linspace(0, 0.1, 10)
    batch = client.call(
        "get_ik_solutions_batch", targets=pose_array(line, "panda_link0"), max_solutions=8
    )
    assert all(batch.valid) and len(batch.world_clearance) == len(batch.valid)
    assert not touching(panda, rows(batch), POST).any()
    path = client.call("get_ik_path", waypoints=pose_array(line, "panda_link0"))
    assert path.error_code == IKCodes.SUCCESS, path.message
    between = np.linspace(rows(path)[:-1], rows(path)[1:], 20).reshape(-1, 7)
    assert not touching(panda, between, POST).any()


def test_a_goal_inside_an_object_is_goal_in_collision_and_says_what_touches(client, target):
    block = box("block", (0.3, 0.3, 0.3), tuple(target[0, :3, 3]))
    client.call("apply_world", objects=[block])
    single = client.call("get_ik_solutions", targets=stamped(target))
    assert single.error_code == IKCodes.GOAL_IN_COLLISION
    assert "block by" in single.message
    assert all("block by" in solution.touches[0] for solution in single.solutions[:1])
    elsewhere = Judge(mik.load_robot("panda")).poses(Q * 0.5 + 0.1)
    both = pose_array(np.concatenate([target, elsewhere]), "panda_link0")
    batch = client.call("get_ik_solutions_batch", targets=pose_array(target, "panda_link0"))
    assert batch.error_code == IKCodes.GOAL_IN_COLLISION and "block by" in batch.message
    assert client.call("get_ik_solutions_batch", targets=both).error_code == IKCodes.SUCCESS
    path = client.call("get_ik_path", waypoints=pose_array(target, "panda_link0"))
    assert path.error_code == IKCodes.GOAL_IN_COLLISION and not path.trajectory.points
    beyond = target.copy()
    beyond[0, :3, 3] = 3, 0, 0
    far = client.call("get_ik_solutions", targets=stamped(beyond))
    assert far.error_code == IKCodes.NO_IK_SOLUTION


def test_the_world_comes_back_as_it_was_given(client):
    floor = box("floor", (2.0, 2.0, 0.1), (0, 0, -0.1), padding=0.01)
    client.call("apply_world", objects=[POST, floor])
    world = client.call("get_world")
    assert world.error_code == Codes.SUCCESS
    assert [message.id for message in world.objects] == ["post", "floor"]
    assert [message.pose for message in world.objects] == [POST.pose, floor.pose]
    assert [message.primitives for message in world.objects] == [POST.primitives, floor.primitives]
    assert world.objects[1].padding == 0.01


def test_a_refused_change_changes_nothing_and_says_why(client):
    client.call("apply_world", objects=[POST])
    lost = WorldObject(id="pots", operation=WorldObject.MOVE, pose=pose_at(0, 0, 0))
    other = box("other", (0.1, 0.1, 0.1), (1, 0, 0))
    refused = client.call("apply_world", objects=[other, lost], is_diff=True)
    assert refused.error_code == Codes.INVALID_OBJECT_NAME
    assert "did you mean 'post'" in refused.message and refused.names == ["post"]
    unseen = box("unseen", (0.1, 0.1, 0.1), (1, 0, 0), "moon")
    refused = client.call("apply_world", objects=[unseen], is_diff=True)
    assert refused.error_code == Codes.FRAME_TRANSFORM_FAILURE and refused.names == ["post"]


def test_a_refusal_is_short_however_much_there_is(client):
    ids = ["\u4e16" * 190 + f"{number}" for number in range(MOST_SHAPES)]
    objects = [box(id, (0.01, 0.01, 0.01), (2, 0, 0)) for id in ids]
    assert client.call("apply_world", objects=objects).names == ids
    lost = WorldObject(id=f"{ids[0]}0", operation=WorldObject.REMOVE)
    refused = client.call("apply_world", objects=[lost], is_diff=True)
    assert refused.error_code == Codes.INVALID_OBJECT_NAME
    assert refused.names == ids[:1] and len(serialize_message(refused)) < 2000


def test_what_touches_is_told_of_the_deepest_alone(client, target):
    blocks = [
        box(f"block{n}", (0.2 + 1e-4 * n,) * 3, tuple(target[0, :3, 3])) for n in range(MOST_SHAPES)
    ]
    client.call("apply_world", objects=blocks)
    began = time.process_time()  # of the node too, which runs in this process
    single = client.call("get_ik_solutions", targets=stamped(target), num_samples=32)
    assert single.error_code == IKCodes.GOAL_IN_COLLISION
    told = [solution.touches for solution in single.solutions if solution.touches]
    assert len(told) > 1 and len(serialize_message(single)) < 100_000
    for touches in told:
        assert len(touches) == MOST_TOUCHES + 1 and touches[-1].endswith(" more")
        depths = [float(text.split()[-2]) for text in touches[:-1]]
        assert depths == sorted(depths, reverse=True) and depths[0] > 0
    assert time.process_time() - began < 2


def test_a_locked_frame_that_goes_makes_requests_fail(client, running, target, monkeypatch):
    known = {"cart": np.eye(4)}

    def lookup(frame_id, stamp):
        from meanflow_ik_ros.messages.errors import FrameError

        if frame_id in known:
            return known[frame_id]
        raise FrameError(f"no frame {frame_id!r}")

    monkeypatch.setattr(running.desk.world, "_lookup", lookup)
    locked = box("locked", (0.1, 0.1, 0.1), (0, 0, 2), "cart", frame_locked=True)
    assert client.call("apply_world", objects=[locked]).error_code == Codes.SUCCESS
    asked = {"targets": stamped(target)}
    assert client.call("get_ik_solutions", **asked).error_code == IKCodes.SUCCESS
    known["cart"] = known["cart"].copy()
    known["cart"][:3, 3] = (*target[0, :2, 3], target[0, 2, 3] - 2)
    assert client.call("get_ik_solutions", **asked).error_code == IKCodes.GOAL_IN_COLLISION
    del known["cart"]
    response = client.call("get_ik_solutions", **asked)
    assert response.error_code == IKCodes.FRAME_TRANSFORM_FAILURE and "locked" in response.message
    asked["avoid_world"] = False
    assert client.call("get_ik_solutions", **asked).error_code == IKCodes.SUCCESS
