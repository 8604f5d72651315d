# SPDX-License-Identifier: Apache-2.0
"""The solver of roboplan, with a scene of its own for each problem of `bench world`."""

from __future__ import annotations

from itertools import combinations, product
from typing import Any

import numpy as np

from ..collision.world_check import WorldCheck
from ..geometry import matrix_from_quat_xyzw
from .solve import TOLERANCE

INSTALL = "pip install roboplan-simple-ik"
_GROUP, _ROOT = "arm", "universe"
# Seconds by the clock, which other programs take a part of, and restarts: more than it needs.
_SECONDS, _RESTARTS = 5.0, 100_000


class RoboplanScene:
    """Steps of the damped pseudoinverse with restarts (package roboplan-simple-ik), for one tip.

    Its own check rejects what touches, before it restarts. It looks at the pairs that the product
    looks at: links that move with obstacles, and links with links.
    """

    def __init__(self, check: WorldCheck, problem: dict[str, Any], seed: int):
        """Build the scene.

        Args:
            check: the product's, of the same problem.
            problem: its obstacles.
            seed: of the starts.

        Raises:
            ImportError: roboplan is not installed.
        """
        from roboplan import core, simple_ik

        self._core, self._seed, self._robot = core, seed, check.robot
        robot = self._robot
        scene = core.Scene(robot.name, core.loadUrdfSceneDescription(str(robot.urdf_path)))
        scene.addGroupFromChain(_GROUP, robot.base, robot.tips[0])
        links, kept = sorted(set(check.own.shapes.links)), set(check.own.pairs())
        scene.setCollisions([pair for pair in combinations(links, 2) if pair not in kept], False)
        held = scene.getCurrentJointPositions()
        for name, value in robot.held.items():
            held[scene.getJointPositionIndices([name])] = problem.get("fingers", value)
        scene.setJointPositions(held)
        names = [one["name"] for one in problem["obstacles"]]
        for one in problem["obstacles"]:
            self._add(scene, one)
        still = [link for link in links if link not in check.moving]
        allowed = [tuple(pair) for pair in problem.get("allowed_contacts", ())]
        left_out = [*combinations(names, 2), *product(still, names), *allowed]
        scene.setCollisions(left_out, False)
        options = simple_ik.SimpleIkOptions(
            group_name=_GROUP, max_iters=30, max_time=_SECONDS, max_restarts=_RESTARTS,
            step_size=1.0, max_linear_error_norm=TOLERANCE, max_angular_error_norm=TOLERANCE,
            check_collisions=True,
        )  # fmt: skip
        self._ik = simple_ik.SimpleIk(scene, options)

    def solutions(self, T_base_tip: np.ndarray) -> np.ndarray:
        """(S, J) for a pose (1, 4, 4), S at most 1."""
        robot, names = self._robot, list(self._robot.joint_names)
        start = np.random.default_rng(self._seed).uniform(robot.lower, robot.upper)
        self._ik.setRngSeed(self._seed)
        goal = self._core.CartesianConfiguration(
            robot.base, robot.tips[0], np.asfortranarray(T_base_tip[0])
        )
        begin, found = (self._core.JointConfiguration(names, start) for _ in range(2))
        solved = self._ik.solveIk(goal, begin, found)
        return np.asarray(found.positions)[None][: int(solved)]

    def _add(self, scene: Any, one: dict[str, Any]) -> None:
        core, kind = self._core, one["type"]
        T_base_object = np.eye(4, order="F")
        quat_xyzw = np.array(one.get("quat_xyzw", (0, 0, 0, 1)), np.float64)
        T_base_object[:3, :3] = matrix_from_quat_xyzw(quat_xyzw / np.linalg.norm(quat_xyzw))
        T_base_object[:3, 3] = one["xyz"]
        sizes = one["size"] if kind == "box" else [one[k] for k in ("radius", "length") if k in one]
        shape = {"box": core.Box, "sphere": core.Sphere, "cylinder": core.Cylinder}[kind](*sizes)
        add = getattr(scene, f"add{kind.capitalize()}Geometry")
        add(one["name"], _ROOT, shape, T_base_object, np.ones(4))
