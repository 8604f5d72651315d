# SPDX-License-Identifier: Apache-2.0
"""Solutions free of obstacles: the product against the same search that only rejects."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import coal
import numpy as np
import pinocchio as pin

from ..errors import OptionError
from ..progress import tracked
from ..robot.robot import Robot, load_robot
from ..solving.search import Search
from ..solving.solver import IKSolver, load_solver
from ..world.world import World
from .result import BenchResult, Measure, at_least_one, environment

_FORMAT = "mik-world-scenes 1"
_CALLS: dict[str, dict[str, Any]] = {
    "one": {"max_solutions": 1},
    "8 diverse": {"max_solutions": 8, "select": "diverse"},
    "100 diverse": {"max_solutions": 100, "num_samples": 1000, "select": "diverse"},
}


class RejectingSolver(IKSolver):
    """The product without guidance: Coal throws away what touches."""

    def search_in_parts(self, guide: Any, *search: Any) -> Search:
        return Search(*search)


def run(
    *,
    scenes: str = "",
    sampler: str = "uniform",
    robot: str = "panda",
    most: int = 0,
    repetitions: int = 3,
    seed: int = 0,
) -> BenchResult:
    """Shares solved, free rows, wrong rows and CPU times, on problems of a file.

    Args:
        scenes: a file of the form "mik-world-scenes 1"; empty: ten of our own, with goals of the
            robot's first tip.
        sampler: of the starts.
        robot: whose name the problems are for.
        most: how many of the problems; 0: all.
        repetitions: of each call, of which the fastest counts.
    """
    at_least_one(repetitions=repetitions)
    loaded = load_robot(robot)
    problems = read_problems(Path(scenes)) if scenes else own_problems(loaded, 10, seed)
    problems = problems[: most or None]
    guided = load_solver(loaded, sampler=sampler)
    rejecting = RejectingSolver(loaded, guided._samplers[sampler], sampler, guided.device)
    worlds = [world_of_problem(loaded, problem) for problem in problems]
    judges = [_judge(loaded, problem) for problem in problems]
    measures: list[Measure] = []
    for call, options in _CALLS.items():
        found = {"product": [], "rejection": []}
        for problem, world, wrong in tracked(
            list(zip(problems, worlds, judges, strict=True)), f"worlds, {call}"
        ):
            target = _target(loaded, problem)
            for name, solver in (("product", guided), ("rejection", rejecting)):

                def solve(solver=solver, target=target, world=world, options=options):
                    return solver.solve(
                        target, world=world, avoid_self_collision=True, seed=seed, **options
                    )

                result = solve()
                rows = result.joint_positions[0, result.valid[0]]
                seconds = min(_seconds(solve) for _ in range(repetitions))
                found[name].append((len(rows), sum(map(wrong, rows)), seconds))
        for name, values in found.items():
            count, wrong_rows, seconds = np.array(values).T
            measures += [
                Measure(f"{call}, {name}: solved", float((count > 0).mean())),
                Measure(f"{call}, {name}: free rows", float(count.mean())),
                Measure(f"{call}, {name}: wrong rows", float(wrong_rows.sum()), at_most=0),
                Measure(f"{call}, {name}: CPU time", 1e3 * float(seconds.mean()), "ms"),
            ]
    options = {
        "scenes": Path(scenes).name, "sampler": sampler, "robot": robot, "most": most,
        "repetitions": repetitions, "seed": seed,
    }  # fmt: skip
    return BenchResult("world", tuple(measures), options, environment())


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
    """A table, a shelf and cans around a robot, and goals that one configuration reaches freely."""
    rng = np.random.default_rng(seed)
    problems: list[dict[str, Any]] = []
    while len(problems) < count:
        x, y = rng.uniform((0.4, -0.3), (0.6, 0.3))
        boxes = {
            "table": ((0.8, 1.6, 0.04), (x + 0.2, 0, 0.1)),
            "board": ((0.3, 0.8, 0.02), (x + 0.2, y, 0.45)),
            "top": ((0.3, 0.8, 0.02), (x + 0.2, y, 0.8)),
            "left": ((0.3, 0.02, 0.7), (x + 0.2, y + 0.4, 0.45)),
            "right": ((0.3, 0.02, 0.7), (x + 0.2, y - 0.4, 0.45)),
        }
        obstacles: list[dict[str, Any]] = [
            {"name": name, "type": "box", "size": size, "xyz": xyz}
            for name, (size, xyz) in boxes.items()
        ]
        for can in range(6):
            xyz = (x + rng.uniform(-0.1, 0.3), y + rng.uniform(-0.3, 0.3), 0.54)
            obstacles.append(
                {"name": f"can{can}", "type": "cylinder", "radius": 0.04, "length": 0.16,
                 "xyz": xyz}
            )  # fmt: skip
        problem: dict[str, Any] = {"obstacles": obstacles}
        world = world_of_problem(robot, problem)
        q = robot.lower + rng.random((64, robot.num_joints)) * (robot.upper - robot.lower)
        T_base_tip = np.asarray(robot.forward(q))[:, 0]
        near = (T_base_tip[:, 0, 3] > 0.3) & (T_base_tip[:, 2, 3] > 0.15)
        free = np.flatnonzero(near & ~world.snapshot().in_collision(q, True, 0.01))
        if len(free):
            goal = {"frame": robot.tips[0], "T_base_frame": T_base_tip[free[0]].tolist()}
            problems.append({**problem, "goal": goal})
    return problems


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


def _target(robot: Robot, problem: dict[str, Any]) -> np.ndarray:
    """T_base_tip (1, 4, 4) of a problem, a rotation although its digits are few."""
    tip, T_tip_frame = robot.tip_offset(problem["goal"]["frame"])
    if tip != 0 or robot.num_tips != 1:
        raise OptionError(f"the problems have goals of one tip; {robot.name!r} has several")
    T_base_tip = np.array(problem["goal"]["T_base_frame"]) @ np.linalg.inv(T_tip_frame)
    u, _, v = np.linalg.svd(T_base_tip[:3, :3])
    T_base_tip[:3, :3] = u @ v
    return T_base_tip[None]


def _judge(robot: Robot, problem: dict[str, Any]) -> Callable[[np.ndarray], bool]:
    """Whether a configuration (J,) touches an obstacle, by Pinocchio, and Coal for each pair."""
    urdf = str(robot.urdf_path)
    model = pin.buildModelFromUrdf(urdf, mimic=True)
    shapes = pin.buildGeomFromUrdf(model, urdf, pin.GeometryType.COLLISION)
    data, shape_data = model.createData(), shapes.createData()
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
        for shape, place in zip(shapes.geometryObjects, shape_data.oMg, strict=True):
            link = model.frames[shape.parentFrame].name
            T = coal.Transform3s(place.rotation, place.translation)
            for name, geometry, at in obstacles if moves(shape.parentJoint) else ():
                request, result = coal.CollisionRequest(), coal.CollisionResult()
                if (link, name) not in allowed and coal.collide(
                    shape.geometry, T, geometry, at, request, result
                ):
                    return True
        return False

    return touches


def _seconds(call: Callable[[], Any]) -> float:
    began = time.process_time()
    call()
    return time.process_time() - began
