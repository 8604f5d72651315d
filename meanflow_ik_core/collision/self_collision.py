# SPDX-License-Identifier: Apache-2.0
"""Self-collision of configurations, exact on the URDF's collision shapes, by Pinocchio and Coal."""

import copy
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import NamedTuple

import numpy as np
import pinocchio as pin

from ..robot.pinocchio_model import PinocchioModel
from ..robot.robot import Robot
from ..tensors import imported_torch
from .shapes import neighbours, read_shapes

_LOG = logging.getLogger(__name__)

# A pair that overlaps in this share of random configurations says nothing about one of them: its
# shapes are drawn into one another. MoveIt's setup assistant leaves such pairs out as well.
ALWAYS = 0.95
_SAMPLES = 300
# Configurations checked between two chances for other threads to run.
_CHUNK = 32
_SURVEY_CHUNK = 500


class Survey(NamedTuple):
    """How pairs of links meet in random configurations."""

    pairs: list[tuple[str, str]]
    touching: np.ndarray  # (pairs,) share of the first configurations in which they touch
    near: np.ndarray  # (pairs,) bool: hulls nearer than the margin at least once; where two joints
    # or fewer lie between, touching at least once


class SelfCollision:
    """Checks whether links of a robot that are not neighbours touch each other.

    Left out are neighbours (`neighbours`), links that no solved joint moves relative to each
    other, and the robot's `ignore_collisions`; where it is None, pairs that always overlap in
    random configurations. Joints that the robot does not solve for stay where `PinocchioModel`
    leaves them. A robot without any shape never touches itself.

    Attributes:
        robot: whose links.
        kinematics: places them.
        usual: places them where the robot's file holds joints.
        shapes: that are checked.
    """

    def __init__(self, robot: Robot, ignored: Sequence[tuple[str, str]] | None = None):
        """Read the collision shapes.

        Args:
            robot: whose links.
            ignored: pairs of links that are left out, instead of the robot's own.

        Raises:
            RobotError: a shape cannot be read, for example a mesh file that does not exist.
        """
        self.robot = robot
        self.kinematics = self.usual = PinocchioModel(robot)
        self.shapes = read_shapes(robot.urdf_path, self.kinematics.model)
        self._geometry, self._hulls = self.shapes.exact, self.shapes.hulls
        if ignored is None and not self._geometry.ngeoms:
            _LOG.warning("%s has no collision shapes: it never touches itself", robot.name)
        own = robot.ignore_collisions if ignored is None else ignored
        self._add_pairs({frozenset(pair) for pair in own or ()})
        if own is None and len(self._geometry.collisionPairs):
            survey = self.survey(_SAMPLES, _SAMPLES)
            always = zip(survey.pairs, survey.touching >= ALWAYS, strict=True)
            self._add_pairs({frozenset(pair) for pair, overlaps in always if overlaps})
        # Hulls are quicker than meshes, and where they are free the meshes are.
        stages = [self._hulls, self._geometry] if self.shapes.differ else [self._geometry]
        self._stages = [
            pin.BroadPhaseManagerPool_DynamicAABBTreeCollisionManager(
                self.kinematics.model, stage, 1
            )
            for stage in stages
        ]
        self._turn = Lock()

    def holding(self, held: Mapping[str, float]) -> "SelfCollision":
        """The same check of the same pairs with joints [rad or m] held, which costs nothing."""
        other = copy.copy(self)
        other.kinematics = self.usual.holding(held) if held else self.usual
        return other

    def pairs(self) -> list[tuple[str, str]]:
        """The pairs of links that are checked, by name."""
        return sorted(set(self._link_pairs()))

    def in_collision(self, q: np.ndarray) -> np.ndarray:
        """(...) bool for configurations q (..., J)."""
        flat = np.asarray(q, dtype=np.float64).reshape(-1, self.robot.num_joints)
        touching = np.zeros(len(flat), dtype=bool)
        if not len(self._geometry.collisionPairs):
            return touching.reshape(np.shape(q)[:-1])
        with threads_of_torch_kept():
            for start in range(0, len(flat), _CHUNK):
                rows = np.arange(start, min(start + _CHUNK, len(flat)))
                full = self.kinematics.configurations(flat[rows])
                for stage in self._stages:
                    # Single calls would set no threads, but take up to 1.6 times as long.
                    with self._turn:
                        hit = pin.computeCollisionsInParallel(
                            1, stage, np.asfortranarray(full.T), True
                        )
                    hit = np.asarray(hit, dtype=bool)
                    rows, full = rows[hit], full[hit]
                    if not len(rows):
                        break
                touching[rows] = True
        return touching.reshape(np.shape(q)[:-1])

    def survey(self, first: int, samples: int, margin: float = 0.0, seed: int = 0) -> Survey:
        """See, over random configurations within the limits, which of the pairs meet.

        Args:
            first: number of configurations in which touching is counted.
            samples: number of configurations in which nearness is looked for.
            margin: metres below which the hulls of a pair are near.
            seed: of the configurations.
        """
        links = self._link_pairs()
        pairs = sorted(set(links))
        places = {pair: place for place, pair in enumerate(pairs)}
        column = np.array([places[pair] for pair in links], dtype=np.int64)
        robot, rng = self.robot, np.random.default_rng(seed)
        unit = rng.random((max(first, samples), robot.num_joints))
        full = self.kinematics.configurations(robot.lower + unit * (robot.upper - robot.lower))
        touching = np.zeros(len(pairs))
        for hit in self._hits(self._geometry, full[:first]):
            touching[np.unique(column[hit])] += 1 / first

        def ever(geometry: pin.GeometryModel, asked: np.ndarray, margin: float) -> np.ndarray:
            """(pairs,) bool: which of the pairs asked for are ever nearer than the margin."""
            met = np.zeros(len(pairs), dtype=bool)
            for start in range(0, samples, _SURVEY_CHUNK):
                # A pair that has met needs no further look, and costs the most.
                open_pairs = np.flatnonzero((asked & ~met)[column])
                chunk = full[start : min(start + _SURVEY_CHUNK, samples)]
                for hit in self._hits(geometry, chunk, open_pairs, margin):
                    met[column[hit]] = True
            return met

        near = (touching > 0) | ever(self._hulls, touching == 0, margin)
        # Samples are dense where few joints matter, so that the meshes themselves can be asked.
        few = np.zeros(len(pairs), dtype=bool)
        few[column] = self._joints_between() <= 2
        doubtful = near & few & (touching == 0)
        near[doubtful] = ever(self._geometry, doubtful, 0.0)[doubtful]
        return Survey(pairs, touching, near)

    def _hits(
        self,
        geometry: pin.GeometryModel,
        full: np.ndarray,
        active: np.ndarray | None = None,
        margin: float = 0.0,
    ) -> Iterator[np.ndarray]:
        """For each of Pinocchio's configurations the pairs of shapes nearer than the margin."""
        model = self.kinematics.model
        data, geometry_data = model.createData(), geometry.createData()
        if active is None:
            active = np.arange(len(geometry.collisionPairs))
        for index in set(range(len(geometry.collisionPairs))) - set(active.tolist()):
            geometry_data.deactivateCollisionPair(index)
        for request in geometry_data.collisionRequests:
            request.security_margin = margin
        results = [geometry_data.collisionResults[index] for index in active.tolist()]
        for configuration in full:
            pin.computeCollisions(model, data, geometry, geometry_data, configuration, False)
            yield active[[found.isCollision() for found in results]]

    def _link_pairs(self) -> list[tuple[str, str]]:
        """For each pair of shapes their links, in the order of the alphabet."""
        links = self.shapes.links
        pairs = [(links[p.first], links[p.second]) for p in self._geometry.collisionPairs]
        return [(a, b) if a < b else (b, a) for a, b in pairs]

    def solved_above(self) -> list[frozenset[int]]:
        """For each Pinocchio joint the solved joints on its way to the root, itself included."""
        above: list[frozenset[int]] = [frozenset()]
        for index in range(1, self.kinematics.model.njoints):
            own = {index} if self.kinematics.column[index] >= 0 else set()
            above.append(above[self.kinematics.model.parents[index]] | own)
        return above

    def _joints_between(self) -> np.ndarray:
        """(shape pairs,) how many solved joints move the two relative to each other."""
        above, objects = self.solved_above(), self._geometry.geometryObjects
        return np.array(
            [
                len(
                    above[objects[pair.first].parentJoint] ^ above[objects[pair.second].parentJoint]
                )
                for pair in self._geometry.collisionPairs
            ]
        )

    def _add_pairs(self, ignored: Collection[frozenset[str]]) -> None:
        for geometry in (self._geometry, self._hulls):
            geometry.removeAllCollisionPairs()
        links = self.shapes.links
        joints = [item.parentJoint for item in self._geometry.geometryObjects]
        above, left_out = self.solved_above(), neighbours(self.robot.urdf_path).union(ignored)
        for first in range(len(links)):
            for second in range(first + 1, len(links)):
                moving = above[joints[first]] != above[joints[second]]
                if moving and frozenset((links[first], links[second])) not in left_out:
                    for geometry in (self._geometry, self._hulls):
                        geometry.addCollisionPair(pin.CollisionPair(first, second))


@contextmanager
def threads_of_torch_kept() -> Iterator[None]:
    """Pinocchio sets the number of OpenMP's threads, and torch computes with as many.

    Where nobody has imported torch, there is nothing to be kept.
    """
    torch = imported_torch()
    threads = torch.get_num_threads() if torch else 0
    try:
        yield
    finally:
        if torch and torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
