# SPDX-License-Identifier: Apache-2.0
"""How far a robot is from touching itself: fast, in batches and differentiable, on spheres."""

from __future__ import annotations

import hashlib
import threading
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from ..kernels.spheres import least_distances
from ..robot.cache import cached_file
from ..robot.robot import Robot
from ..tensors import is_tensor
from .self_collision import SelfCollision
from .sphere_bodies import (
    SphereBodies,
    exact_distances,
    find_bodies,
    lanes_of_motion,
    moved_centres,
)

if TYPE_CHECKING:
    from torch import Tensor

    from .tensor_clearance import TensorClearance

# A pair's correction is found from at most so many of so many random configurations: those in
# which its links are nearer than this.
_CALIBRATION, _CANDIDATES = 32, 2000
_NEAR = 0.03  # m
_ROWS_PER_PASS = 2048  # as many as stay in the caches
# The bodies of a robot and the corrections of their pairs, found once: other threads wait for it.
_FOUND: WeakKeyDictionary[Robot, tuple[SphereBodies, np.ndarray]] = WeakKeyDictionary()
_FINDING = threading.Lock()


class SphereModel:
    """Spheres instead of the collision shapes of every link; distances over the checked pairs.

    The spheres follow the surfaces, a few millimetres inside in some places and outside in others:
    of uniform configurations of the Panda, 0.4 % touch and are called free, and 0.4 % are free and
    called touching (docs/objectives.md has other robots). With ``distance(q) > 0.01`` as the test,
    0.02 % and 3 %. `SelfCollision` is exact. What the spheres of a pair of links lack on average
    where they are close is made up for by a correction.

    Attributes:
        pairs: (P, 2) int64, the links that are checked against each other, as rows of ``links``.
        links: names of the L links that have collision shapes.
        first: (L + 1,) int64, the spheres first[l]:first[l + 1] belong to link l.
        node: (S,) int64, the robot's node that a sphere moves with; -1 is the base.
        centre: (S, 3) m, in the frame of the node.
        radius: (S,) m.
        correction: (P,) m, added to the distance of a pair's spheres, found where the two links
            are close, from Coal's distances.
    """

    def __init__(self, robot: Robot, check: SelfCollision | None = None):
        """Find the spheres, or take those found before.

        Args:
            robot: whose links.
            check: of the same robot, if there is one already; else it is made.

        Raises:
            RobotError: a collision shape cannot be read or has no surface.
        """
        self.robot = robot
        with _FINDING:
            if robot in _FOUND:
                bodies, correction = _FOUND[robot]
            else:
                usual = check.holding({}) if check else SelfCollision(robot)
                bodies = find_bodies(robot, usual)
                self._take(bodies, np.zeros(len(bodies.pairs)))
                correction = self._calibrated(usual)
                _FOUND[robot] = bodies, correction
        if check:
            centre = moved_centres(
                check, check.usual, bodies.links, bodies.first, bodies.node, bodies.centre
            )
            bodies = bodies._replace(centre=centre)
        self._take(bodies, correction)

    def _take(self, bodies: SphereBodies, correction: np.ndarray) -> None:
        robot = self.robot
        self.links, self.first, self.pairs, self.node, self.centre, self.radius, _ = bodies
        # spheres around whole links, whose centres are means of those of the link's own
        count = np.diff(self.first)
        link = np.repeat(np.arange(len(count)), count)
        self._mean = (link[:, None] == np.arange(len(count))) / np.maximum(count, 1)
        middle = self._mean.T @ self.centre
        around = np.zeros(len(count))
        reach = np.linalg.norm(self.centre - middle[link], axis=-1)
        np.maximum.at(around, link, reach + self.radius)
        self._radii = np.append(self.radius, around).astype(np.float32)
        self._link = link
        node_of_link = np.full(len(count), -1)
        node_of_link[link] = self.node
        # for the kernel: of one type for all robots, so that it is compiled once
        self._moved = (
            np.array(robot.parent, np.int64),
            np.array(robot.prismatic, bool),
            np.array(robot.placement, np.float64, order="C"),
            np.append(self.node, node_of_link).astype(np.int64),
            np.append(self.centre, middle, 0),
            link.astype(np.int64),
        )
        self._correct_by(correction)

    def distance(self, q: Any, cap: float = np.inf) -> Any:
        """Distance of the closest pair of links; negative where two overlap.

        Args:
            q: (..., J) rad or m; torch tensor or array-like, float32 or float64. Gradients flow
                through the closest pair of spheres.
            cap: m; what is farther apart is this far, which saves most of the work.

        Returns:
            (...) m, of the kind of ``q``; infinite for a robot without pairs to check,
            NaN where ``q`` is not finite.
        """
        if is_tensor(q):
            return self._on_tensors.distance(q, cap)
        return self._distance_numpy(np.asarray(q), cap)

    def pair_distances(self, q: Tensor, cap: float = np.inf) -> Tensor:
        """(..., P) m, the distance of every pair of links up to the cap; differentiable."""
        return self._on_tensors.pair_distances(q, cap)

    def smooth_distance(self, q: Tensor, temperature: float = 0.01, cap: float = np.inf) -> Tensor:
        """Soft minimum of the distances of all pairs, at most the true one.

        Args:
            q: (..., J).
            temperature: m; how much farther than the closest pair a pair still counts.
            cap: m; pairs that are farther apart count as if they were this far.

        Returns:
            (...) m, with gradients for all close pairs at once.
        """
        return self._on_tensors.smooth_distance(q, temperature, cap)

    @cached_property
    def _on_tensors(self) -> TensorClearance:
        from .tensor_clearance import TensorClearance

        return TensorClearance(self, self._mean, self._link, self._radii, self._shift)

    def _distance_numpy(self, q: np.ndarray, cap: float) -> np.ndarray:
        dtype = q.dtype if q.dtype == np.float32 else np.float64
        found = np.full(q.shape[:-1], cap, dtype)
        if not len(self.pairs):
            return found
        flat, out = q.reshape(-1, q.shape[-1]), found.reshape(-1)
        known = np.isfinite(flat).all(-1)
        rows = np.flatnonzero(known)
        for begin in range(0, len(rows), _ROWS_PER_PASS):
            some = rows[begin : begin + _ROWS_PER_PASS]
            out[some] = self._least(flat[some], cap)
        out[~known] = np.nan
        return found

    def _least(self, q: np.ndarray, cap: float, pairs: slice = slice(None)) -> np.ndarray:
        """(N,) distances of some of the pairs, of q (N, J), by the kernel."""
        found = least_distances(
            lanes_of_motion(self.robot, q), *self._moved,
            self._shift, self._radii, self.first, self.pairs[pairs], self._correction[pairs],
            np.float32(cap),
        )  # fmt: skip
        return np.minimum(found[: len(q)], cap)

    def _correct_by(self, correction: np.ndarray) -> None:
        self.correction = correction
        self._correction = correction.astype(np.float32)
        self._shift = np.zeros((len(self.links),) * 2)
        first, second = self.pairs.T
        self._shift[first, second] = self._shift[second, first] = correction

    def _calibrated(self, check: SelfCollision) -> np.ndarray:
        """The correction of every pair, in the cache after the first time."""
        digest = hashlib.sha256(f"6 {self.robot.fingerprint()}".encode())
        for part in (self.first, self.pairs, self.node, self.centre.round(6), self.radius.round(6)):
            digest.update(part.tobytes())

        def write(path: Path) -> None:
            q = self.robot.random_configurations(_CANDIDATES, np.random.default_rng(3))
            pairs = range(len(self.pairs))
            gaps = np.array([self._least(q, 2 * _NEAR, slice(i, i + 1)) for i in pairs])
            gaps = gaps.reshape(len(pairs), len(q)).T
            names = [(self.links[a], self.links[b]) for a, b in self.pairs.tolist()]
            rows = [np.flatnonzero(np.abs(gap) < _NEAR)[:_CALIBRATION] for gap in gaps.T]
            used = np.unique(np.concatenate([*rows, np.zeros(0, np.int64)]))
            wanted = {name: np.searchsorted(used, r) for name, r in zip(names, rows, strict=True)}
            exact = exact_distances(check, q[used], wanted)
            found = [_correction(gaps[rows[i], i], exact[name]) for i, name in enumerate(names)]
            np.save(path, np.clip(np.array(found), -_NEAR, _NEAR))

        return np.load(cached_file(f"clearance-{digest.hexdigest()[:32]}.npy", write))


def _correction(gaps: np.ndarray, exact: np.ndarray) -> float:
    """What to add to distances on spheres so that they tell touching from free as Coal's do."""
    if len(gaps) < 5:
        return 0.0
    missing = exact - gaps
    candidates = np.append(np.quantile(missing, (0.5, 0.25, 0.75, 0.1, 0.9)), 0.0)
    moved = gaps + candidates[:, None]
    wrong = ((moved > 0) != (exact > 0)).sum(1)
    apart = np.abs(moved - exact).mean(1)
    return float(candidates[np.lexsort((apart, wrong))[0]])
