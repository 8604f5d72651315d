# SPDX-License-Identifier: Apache-2.0
"""Problems of `bench world`: obstacles, goals of all tips, and Coal's opinion of answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import coal
import numpy as np
import pinocchio as pin

from ..errors import OptionError
from ..robot.packages import EXAMPLE_ROBOT_DATA, package_folders
from ..robot.robot import Robot
from ..world.world import World

_FORMAT = "mik-world-scenes 1"
# m, of the table's top, where hands work on it; of other robots, that stand on their table, 0.12.
_TABLE = {"tiago_pro": 0.7}


def read_problems(path: Path) -> list[dict[str, Any]]:
    """The problems of a file.

    Raises:
        OptionError: it cannot be read, or has another form.
    """
    try:
        content = json.loads(path.read_text())
        if content["format"] != _FORMAT:
            raise OptionError(f"{path} has the format {content['format']!r}, not {_FORMAT!r}")
        return content["problems"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OptionError(f"{path} is no file of scenes: {error}") from error


def own_problems(robot: Robot, count: int, seed: int) -> list[dict[str, Any]]:
    """A shelf or a table with cans in front of a robot, in turns, and goals of all tips there.

    One configuration reaches the goals with 1 cm to spare.
    """
    rng = np.random.default_rng(seed)
    problems: list[dict[str, Any]] = []
    top = _TABLE.get(robot.name, 0.12)
    while len(problems) < count:
        in_shelf = len(problems) % 2 == 0
        problem: dict[str, Any] = {"obstacles": _furniture(rng, top, in_shelf)}
        snapshot = world_of_problem(robot, problem).snapshot()
        q = robot.lower + rng.random((20_000, robot.num_joints)) * (robot.upper - robot.lower)
        T_base_tip = np.asarray(robot.forward(q))
        x, _, z = np.moveaxis(T_base_tip[..., :3, 3], -1, 0)
        there = ((x > 0.35) & (z > top + 0.03) & (z < top + 0.7)).all(1)
        q, T_base_tip = q[there], T_base_tip[there]
        free = np.flatnonzero(~snapshot.in_collision(q, True, 0.01))
        if len(free):
            goals = zip(robot.tips, T_base_tip[free[0]].tolist(), strict=True)
            problem["goals"] = [{"frame": tip, "T_base_frame": T} for tip, T in goals]
            problems.append(problem)
    return problems


def _furniture(rng: np.random.Generator, top: float, shelf: bool) -> list[dict[str, Any]]:
    x, y = rng.uniform((0.4, -0.3), (0.6, 0.3))
    boxes = {"table": ((0.8, 1.6, 0.04), (x + 0.2, 0, top - 0.02))}
    if shelf:
        boxes |= {
            "board": ((0.3, 0.8, 0.02), (x + 0.2, y, top + 0.33)),
            "top": ((0.3, 0.8, 0.02), (x + 0.2, y, top + 0.68)),
            "left": ((0.3, 0.02, 0.7), (x + 0.2, y + 0.4, top + 0.33)),
            "right": ((0.3, 0.02, 0.7), (x + 0.2, y - 0.4, top + 0.33)),
        }
    obstacles: list[dict[str, Any]] = [
        {"name": name, "type": "box", "size": size, "xyz": xyz}
        for name, (size, xyz) in boxes.items()
    ]
    for can in range(6 if shelf else 12):
        high = top + (0.42 if shelf else 0.08)
        xyz = (x + rng.uniform(-0.1, 0.3), y + rng.uniform(-0.3, 0.3), high)
        obstacles.append(
            {"name": f"can{can}", "type": "cylinder", "radius": 0.04, "length": 0.16, "xyz": xyz}
        )
    return obstacles


def world_of_problem(robot: Robot, problem: dict[str, Any]) -> World:
    """The world of a problem."""
    world = World(robot)
    if "fingers" in problem:
        world.hold({"panda_finger_joint1": problem["fingers"]})
    for one in problem["obstacles"]:
        place = {"xyz": one["xyz"], "quat_xyzw": one.get("quat_xyzw", (0, 0, 0, 1))}
        sizes = {key: one[key] for key in ("size", "radius", "length") if key in one}
        getattr(world, f"add_{one['type']}")(one["name"], **sizes, **place)
    for link, obstacle in problem.get("allowed_contacts", ()):
        world.allow(link, obstacle)
    return world


def targets_of_problem(robot: Robot, problem: dict[str, Any]) -> np.ndarray:
    """T_base_tip (1, T, 4, 4) of a problem, rotations although their digits are few."""
    goals = problem.get("goals") or [problem["goal"]]
    T_base_tip = np.full((robot.num_tips, 4, 4), np.nan)
    for goal in goals:
        tip, T_tip_frame = robot.tip_offset(goal["frame"])
        T_base_tip[tip] = np.array(goal["T_base_frame"]) @ np.linalg.inv(T_tip_frame)
    if not np.isfinite(T_base_tip).all():
        raise OptionError(f"a problem has goals of {len(goals)} tips; {robot.name!r} has others")
    u, _, v = np.linalg.svd(T_base_tip[:, :3, :3])
    T_base_tip[:, :3, :3] = u @ v
    return T_base_tip[None]


def touching_by_coal(robot: Robot, problem: dict[str, Any]) -> Callable[[np.ndarray], bool]:
    """Whether a configuration (J,) touches an obstacle, by Pinocchio, and Coal for each pair."""
    urdf = str(robot.urdf_path)
    model = pin.buildModelFromUrdf(urdf, mimic=True)
    folders = [str(folder.parent) for folder in package_folders(EXAMPLE_ROBOT_DATA)]
    shapes = pin.buildGeomFromUrdf(model, urdf, pin.GeometryType.COLLISION, package_dirs=folders)
    data, shape_data = model.createData(), shapes.createData()
    base = model.getFrameId(robot.base)
    index = [model.joints[model.getJointId(name)].idx_q for name in robot.joint_names]
    solved = {model.getJointId(name) for name in robot.joint_names}
    neutral = pin.neutral(model)
    for name, value in robot.held.items():
        neutral[model.joints[model.getJointId(name)].idx_q] = value
    if "fingers" in problem:
        neutral[model.joints[model.getJointId("panda_finger_joint1")].idx_q] = problem["fingers"]
    kinds = {"box": coal.Box, "sphere": coal.Sphere, "cylinder": coal.Cylinder}
    obstacles = []
    for one in problem["obstacles"]:
        sizes = one["size"] if "size" in one else [one[k] for k in ("radius", "length") if k in one]
        x, y, z, w = one.get("quat_xyzw", (0, 0, 0, 1))
        rotation = pin.Quaternion(w, x, y, z).normalized().matrix()
        place = coal.Transform3s(rotation, np.array(one["xyz"], np.float64))
        obstacles.append((one["name"], kinds[one["type"]](*sizes), place))
    allowed = {tuple(pair) for pair in problem.get("allowed_contacts", ())}

    def moves(joint: int) -> bool:
        while joint:
            if joint in solved:
                return True
            joint = model.parents[joint]
        return False

    def touches(q: np.ndarray) -> bool:
        full = neutral.copy()
        full[index] = q
        pin.forwardKinematics(model, data, full)
        pin.updateGeometryPlacements(model, data, shapes, shape_data)
        T_root_base = pin.updateFramePlacement(model, data, base)
        for shape, T_root_shape in zip(shapes.geometryObjects, shape_data.oMg, strict=True):
            link = model.frames[shape.parentFrame].name
            place = T_root_base.actInv(T_root_shape)
            T = coal.Transform3s(place.rotation, place.translation)
            for name, geometry, at in obstacles if moves(shape.parentJoint) else ():
                request, result = coal.CollisionRequest(), coal.CollisionResult()
                if (link, name) not in allowed and coal.collide(
                    shape.geometry, T, geometry, at, request, result
                ):
                    return True
        return False

    return touches
