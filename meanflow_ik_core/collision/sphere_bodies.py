# SPDX-License-Identifier: Apache-2.0
"""The bodies of a robot as spheres: which links, which spheres, which node moves them."""

import hashlib
import io
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from threading import Lock
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import coal
import numpy as np

from ..bounds import MOST_ATTACHED
from ..errors import RobotError
from ..kernels.simd import LANES
from ..robot.cache import cached_file
from ..robot.pinocchio_model import PinocchioModel
from ..robot.robot import Robot, kept_with_robot
from .obstacles import Obstacle, Shape
from .self_collision import SelfCollision
from .sphere_fit import (
    LARGE,
    METHOD,
    MOST_POINTS,
    Spheres,
    body_from_shapes,
    fit_spheres,
    lack_of,
    triangles_from_shape,
)

# Root mean square distance between the surface of a body and its spheres.
_FIT_TOLERANCE = 0.002  # m


class _Recent:
    """What was made for the last keys; any thread may ask."""

    def __init__(self, most: int):
        self._most, self._lock = most, Lock()
        self._kept: OrderedDict[bytes, tuple[Spheres, float]] = OrderedDict()

    def get(self, key: bytes, make: Callable[[], tuple[Spheres, float]]) -> tuple[Spheres, float]:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        made = make()
        with self._lock:
            self._kept[key] = made
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return made


_RECENT = _Recent(MOST_ATTACHED)
# By shape of an obstacle: its spheres, and how far it sticks out of these.
_COVERED: "WeakKeyDictionary[Shape, tuple[Spheres, float]]" = WeakKeyDictionary()
_POINTS_OF_OBSTACLE = 100_000  # see `lack_of`: who attaches it waits
# How long it takes to fit spheres to a small box, to other solids, to hulls and their corners, and
# to small and large meshes and their triangles, with Coal's tree of these.
_BOX_MS, _SOLID_MS, _HULL_MS, _CORNER_MS = 15, 25, 5, 0.006
_MESH_MS, _TRIANGLE_MS = (60, 120), 0.009
_FITTING = Lock()


class SphereBodies(NamedTuple):
    """S spheres of L links, and the P pairs of links that are checked."""

    links: tuple[str, ...]  # L
    first: np.ndarray  # (L + 1,) int64, spheres first[l]:first[l + 1] belong to link l
    pairs: np.ndarray  # (P, 2) int64, rows of links
    node: np.ndarray  # (S,) int64, the robot's node that a sphere moves with; -1 is the base
    centre: np.ndarray  # (S, 3) m, in the frame of the node
    radius: np.ndarray  # (S,) m
    lack: np.ndarray  # (L,) m, how far a link sticks out of its spheres at most


def find_bodies(
    robot: Robot, check: SelfCollision, links: Collection[str] | None = None
) -> SphereBodies:
    """Spheres for the links that are checked; fitted once, then read from the cache.

    Args:
        robot: whose links.
        check: of the same robot.
        links: names of those that get spheres; None: those that are checked against each other.

    Raises:
        RobotError: a collision shape has no surface.
    """
    bodies = _usual_bodies(robot, check, links)
    centre = moved_centres(
        check, check.usual, bodies.links, bodies.first, bodies.node, bodies.centre
    )
    return bodies._replace(centre=centre)


def moved_centres(
    check: SelfCollision, before: PinocchioModel, links: Sequence[str],
    first: np.ndarray, node: np.ndarray, centre: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """Centres (S, 3) of the spheres of bodies, moved from where other joints were held.

    Args:
        check: holds the joints.
        before: held them elsewhere.
        links: L, that the bodies are rigid to.
        first: (L + 1,), spheres first[l]:first[l + 1] belong to the body of link l.
        node: (S,), the robot's node that a sphere moves with.
        centre: (S, 3) m, before.
    """
    after = check.kinematics
    if after.held == before.held or not len(centre):
        return centre
    robot = check.robot
    q = 0.5 * (robot.lower + robot.upper)[None]
    (old,), (new,) = before.link_poses(q, links), after.link_poses(q, links)
    T_base_node = np.concatenate((robot.arrays.node_poses(q)[0], np.eye(4)[None]))
    centre = centre.copy()
    for link in np.flatnonzero((old != new).any((1, 2))).tolist():
        own = slice(first[link], first[link + 1])
        if first[link] < first[link + 1]:
            home = T_base_node[node[own][0]]
            motion = np.linalg.inv(home) @ new[link] @ np.linalg.inv(old[link]) @ home
            centre[own] = centre[own] @ motion[:3, :3].T + motion[:3, 3]
    return centre


@kept_with_robot
def _links_with_spheres(robot: Robot) -> dict[str, tuple[int, Spheres, float]]:
    """By link the node, the spheres, and how far the link sticks out of these, as far as they were
    asked for. To read the triangles of a link takes longer than to use its spheres."""
    return {}


def _usual_bodies(
    robot: Robot, check: SelfCollision, links: Collection[str] | None
) -> SphereBodies:
    """Spheres where the robot's file holds the joints that are not solved for."""
    named = check.pairs()
    needed = {link for pair in named for link in pair} if links is None else set(links)
    with _FITTING:
        known = _links_with_spheres(robot)
        if not needed <= known.keys():
            for link, (node, shapes) in _shapes_by_link(robot, check).items():
                if link in needed and link not in known:
                    known[link] = node, *fitted(shapes, f"link {link!r} of {robot.name!r}")
        bodies = {link: known[link] for link in needed & known.keys()}
    # spheres of one node stand together, so that one product moves them
    order = tuple(sorted(bodies, key=lambda link: (bodies[link][0], link)))
    spheres = [bodies[link][1] for link in order]
    sizes = [len(body.radius) for body in spheres]
    row = {link: index for index, link in enumerate(order)}
    pairs = [(row[a], row[b]) for a, b in named if a in row and b in row]
    return SphereBodies(
        order,
        np.concatenate(([0], np.cumsum(sizes))).astype(np.int64),
        np.array(pairs, np.int64).reshape(-1, 2),
        np.repeat(np.array([bodies[link][0] for link in order], np.int64), sizes),
        np.concatenate([body.centre for body in spheres]) if spheres else np.zeros((0, 3)),
        np.concatenate([body.radius for body in spheres]) if spheres else np.zeros(0),
        np.array([bodies[link][2] for link in order]),
    )


def _shapes_by_link(robot: Robot, check: SelfCollision) -> dict[str, tuple[int, list]]:
    """For each link the node that it moves with, and its shapes as (T_node_shape, shape)."""
    shapes = check.shapes
    q = robot.random_configurations(3, np.random.default_rng(0))
    homes = find_homes(robot, q, check.usual.shape_poses(q, shapes.exact))
    result: dict[str, tuple[int, list]] = {}
    for index, item in enumerate(shapes.exact.geometryObjects):
        node, T_node_shape = homes[index]
        of_link = result.setdefault(shapes.links[index], (node, []))[1]
        of_link.append((T_node_shape, item.geometry))
    return result


def find_homes(
    robot: Robot, q: np.ndarray, T_base_item: np.ndarray
) -> list[tuple[int, np.ndarray]]:
    """The node that each of I items is rigid to, -1 being the base, and T_node_item (4, 4).

    Args:
        robot: whose nodes.
        q: (N, J) configurations, different ones.
        T_base_item: (N, I, 4, 4) there.
    """
    T_base_node = np.tile(np.eye(4), (len(robot.parent) + 1, len(q), 1, 1))  # last: the base
    T_base_node[:-1] = robot.arrays.node_poses(q).swapaxes(0, 1)
    homes = []
    for index in range(T_base_item.shape[1]):
        # rigid to the node in whose frame the item stands still
        relative = np.linalg.inv(T_base_node) @ T_base_item[:, index]
        node = int(np.abs(relative - relative[:, :1]).max((1, 2, 3)).argmin())
        homes.append((-1 if node == len(robot.parent) else node, relative[node, 0]))
    return homes


def fitted_obstacle(obstacle: Obstacle) -> tuple[Spheres, float]:
    """As `fitted`, of an obstacle in the frame of what it is attached to.

    Those of the last ones are kept in memory, not on the disk, for a robot may carry anything.
    """
    shape, pose = obstacle.shape, obstacle.pose
    if shape not in _COVERED:
        _COVERED[shape] = fitted([(np.eye(4), shape.geometry)], f"{obstacle.name!r}", _RECENT)
    spheres, lack = _COVERED[shape]
    return spheres._replace(centre=spheres.centre @ pose[:3, :3].T + pose[:3, 3]), lack


def fitting_ms(shape: Shape) -> int:
    """About how long `fitted_obstacle` takes; 0 where the shape was asked for before."""
    if shape in _COVERED or shape.kind == "sphere":
        return 0
    if shape.vertices is None or shape.triangles is None:
        return _BOX_MS if shape.kind == "box" and max(shape.sizes) <= LARGE else _SOLID_MS
    if shape.convex:
        return _HULL_MS + round(_CORNER_MS * len(shape.vertices))
    is_large = bool(np.ptp(shape.vertices, 0).max() > 2 * LARGE)
    return _MESH_MS[is_large] + round(_TRIANGLE_MS * len(shape.triangles))


def fitted(
    shapes: list[tuple[np.ndarray, Any]], name: str, recent: "_Recent | None" = None
) -> tuple[Spheres, float]:
    """Spheres of Coal's shapes with their poses (4, 4) in a body, and how far [m] these stick out.

    Errors call the body by its ``name``. They are kept in a file, or in what is ``recent``.
    """
    if all(isinstance(shape, coal.Sphere) for _, shape in shapes):
        centres = np.array([placement[:3, 3] for placement, _ in shapes])
        return Spheres(centres, np.array([shape.radius for _, shape in shapes])), 0.0
    try:
        triangles = [
            triangles_from_shape(shape) @ placement[:3, :3].T + placement[:3, 3]
            for placement, shape in shapes
        ]
    except TypeError as error:
        raise RobotError(f"{name}: {error}") from error
    convex = [not isinstance(shape, coal.BVHModelBase) for _, shape in shapes]
    digest = hashlib.sha256(repr((METHOD, _FIT_TOLERANCE)).encode())
    for part in triangles:
        digest.update(np.round(part, 7).tobytes())

    def fit() -> tuple[Spheres, float]:
        spheres = fit_spheres(body_from_shapes(triangles, convex), _FIT_TOLERANCE)
        most = MOST_POINTS if recent is None else _POINTS_OF_OBSTACLE
        return spheres, lack_of(spheres, triangles, convex, most)

    def write(path: Any) -> None:
        spheres, lack = fit()
        buffer = io.BytesIO()
        np.savez(buffer, **spheres._asdict(), lack=lack)
        path.write_bytes(buffer.getvalue())

    if recent is not None:
        return recent.get(digest.digest(), fit)
    with np.load(cached_file(f"spheres-{digest.hexdigest()[:32]}.npz", write)) as found:
        return Spheres(found["centre"], found["radius"]), float(found["lack"])


def lanes_of_motion(robot: Robot, q: np.ndarray) -> np.ndarray:
    """Motions of the nodes, their cosines and their sines, of q (N, J) and as many rows of zeros
    as fill the last vector, for `kernels.spheres.place_nodes`."""
    lanes = np.zeros((-(-len(q) // LANES) * LANES, q.shape[1]))
    lanes[: len(q)] = q
    motion = lanes.T[robot.joint] * robot.multiplier[:, None] + robot.offset[:, None]
    return np.concatenate((motion, np.cos(motion), np.sin(motion))).ravel()


def exact_distances(
    check: SelfCollision, q: np.ndarray, wanted: dict[tuple[str, str], np.ndarray]
) -> dict[tuple[str, str], np.ndarray]:
    """Coal's distances [m] of pairs of links in some rows each of configurations q (N, J)."""
    objects = check.shapes.exact.geometryObjects
    poses = check.kinematics.shape_poses(q, check.shapes.exact)
    by_link: dict[str, list[int]] = {}
    for index, link in enumerate(check.shapes.links):
        by_link.setdefault(link, []).append(index)
    request = coal.DistanceRequest()
    found = {}
    for (a, b), rows in wanted.items():
        gaps = np.full(len(rows), np.inf)
        for place, row in enumerate(rows):
            for i in by_link[a]:
                for j in by_link[b]:
                    T_i, T_j = poses[row, i], poses[row, j]
                    gap = coal.distance(
                        objects[i].geometry,
                        coal.Transform3s(T_i[:3, :3], T_i[:3, 3]),
                        objects[j].geometry,
                        coal.Transform3s(T_j[:3, :3], T_j[:3, 3]),
                        request,
                        coal.DistanceResult(),
                    )
                    gaps[place] = min(gaps[place], gap)
        found[a, b] = gaps
    return found
