# SPDX-License-Identifier: Apache-2.0
"""Joints that follow a moving target, one small step at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from threading import Lock, current_thread, get_ident
from typing import Any, NamedTuple

import numpy as np

from ..collision.contacts import Contact
from ..collision.self_collision import SelfCollision
from ..errors import OptionError, SeedError, TargetError, TrackerError
from ..kernels.layout import FRAME, unpack
from ..kernels.simd import LANES
from ..kernels.track_state import CONVERGED, JOINT_AT_LIMIT, OFFERED, REACHED_TIPS, state_of
from ..kernels.tracking import (
    AT_LIMIT,
    FOLLOWING,
    REACHED,
    REFUSED,
    SINGULAR,
    compile_track,
    rows_of_tracking,
    track,
)  # fmt: skip
from ..robot.robot import Robot
from ..world.motion import StepGuard
from ..world.scene import Scene
from ..world.world import World
from .inputs import (
    check_free_axes,
    check_seed_state,
    check_targets,
    check_tips,
    check_tolerance,
    check_world,
    is_number,
)
from .result import IKResult
from .robot_arrays import packed

_LARGEST_STEP = 0.1  # rad or m, where neither speeds nor a largest step are given
_DRIFT = 0.1  # share of the largest step that joints drift in one
_MARGIN = 0.1  # share of a joint's range, next to each limit, that joints drift out of
_CACHE_LINE = 64


class TrackStatus(Enum):
    """What became of a step."""

    REACHED = "reached"  #: the target, within the tolerances
    FOLLOWING = "following"  #: as fast as joints may go
    BLOCKED = "blocked"  #: as near as these joints come
    ELSEWHERE = "elsewhere"  #: blocked, and other joints reach the target: `TrackStep.offer`


class BlockedBy(Enum):
    """What keeps joints from their target."""

    LIMIT = "limit"
    SINGULARITY = "singularity"  #: no motion of the joints helps; so it is beyond the reach too
    SELF_COLLISION = "self-collision"
    WORLD = "world"  #: an obstacle: `TrackStep.touches`


class TrackStep(NamedTuple):
    """Where the joints are after a step, and what became of it."""

    joint_positions: np.ndarray  #: (J,) rad or m; continuous joints go on beyond a turn
    position_error: np.ndarray  #: (T,) m
    orientation_error: np.ndarray  #: (T,) rad
    status: TrackStatus
    blocked_by: BlockedBy | None = None  #: where it is blocked or elsewhere
    joint: str | None = None  #: which is at its limit, where that is why
    offer: np.ndarray | None = None  #: (J,) reaches the target, where it is elsewhere
    #: What a step that was not taken touches, the deepest first, where the tracker has a world.
    touches: tuple[Contact, ...] = ()


_OUTCOMES = {
    REACHED: (TrackStatus.REACHED, None),
    FOLLOWING: (TrackStatus.FOLLOWING, None),
    AT_LIMIT: (TrackStatus.BLOCKED, BlockedBy.LIMIT),
    SINGULAR: (TrackStatus.BLOCKED, BlockedBy.SINGULARITY),
}


class Tracker:
    """Follows targets from where the joints are, see `IKSolver.tracker`, which makes it.

    It belongs to the thread of its first step until it is reset.
    """

    def __init__(
        self,
        robot: Robot,
        solve: Callable[..., IKResult],
        self_collision: SelfCollision | None,
        q0: Any,
        max_joint_step: float | None,
        velocity_scale: float,
        dt: float | None,
        *,
        posture: Any,
        away_from_limits: bool,
        position_tolerance: Any,
        orientation_tolerance: Any,
        tips: Sequence[str] | None,
        free_axes: Mapping[str, str] | None,
        world: World | Scene | None,
    ):
        self._robot, self._solve, self._self_collision = robot, solve, self_collision
        self._tips = check_tips(robot, tips)
        asked = check_free_axes(robot, self._tips, free_axes)
        self._options = {
            "tips": tips, "free_axes": free_axes, "position_tolerance": position_tolerance,
            "orientation_tolerance": orientation_tolerance,
            "avoid_self_collision": self_collision is not None,
        }  # fmt: skip
        arrays = packed(
            robot,
            check_tolerance(robot, self._tips, position_tolerance, "position_tolerance"),
            check_tolerance(robot, self._tips, orientation_tolerance, "orientation_tolerance"),
            None if asked is None else asked.astype(np.float64),
        )
        integers, floats, boxed = arrays.integers, arrays.floats64, arrays.floats64.copy()
        views = unpack.py_func(integers, floats)
        joints, active = robot.num_joints, len(views.active)
        rows = rows_of_tracking(len(views.nodes), joints, active, len(views.blocks))
        self._numbers = np.zeros(REACHED_TIPS + active, np.int64)
        floats_of_state = np.zeros(9 * joints + active)
        self._state = state_of(floats_of_state, self._numbers, joints)
        self._own = self._allowed = _allowed(robot, max_joint_step, velocity_scale, dt)
        self._speeds = None if dt is None else robot.velocity_limit * velocity_scale
        self._largest_step = max_joint_step or np.inf
        self._state.allowed[:] = self._allowed
        self._state.drift[:] = _DRIFT * np.minimum(self._allowed, _LARGEST_STEP)
        self._state.margin[:] = (
            np.where(robot.continuous, 0.0, _MARGIN * (robot.upper - robot.lower))
            if away_from_limits
            else 0.0
        )
        wanted = check_seed_state(robot, posture, 1, "posture")
        self._state.posture[:] = np.nan if wanted is None else wanted[0]
        self._poses = np.tile(np.eye(4), (1, robot.num_tips, 1, 1))
        self._shape = (4, 4) if len(self._tips) == 1 else (len(self._tips), 4, 4)
        self._place = self._tips[0] if len(self._tips) == 1 else list(self._tips)
        self._errors = np.zeros((robot.num_tips, 2))
        self._arguments = (
            self._poses, np.empty((1, FRAME * active)), floats_of_state, self._numbers,
            self._errors, _aligned(rows), integers, floats, boxed,
        )  # fmt: skip
        self._turn = Lock()
        self.world = world
        self.reset(q0)
        compile_track()

    @property
    def joint_positions(self) -> np.ndarray:
        """(J,) rad or m, where the joints are."""
        return self._state.joints.copy()

    @property
    def world(self) -> Scene | None:
        """The obstacles as they were when the world was given, by `IKSolver.tracker` or here.

        Whoever changes a `World` gives it again: ``tracker.world = world``. Any thread may; the
        next step sees it. None: no obstacles.

        Raises:
            WorldError: it is no world, or one of another robot.
        """
        return None if self._guard is None else self._guard.scene

    @world.setter
    def world(self, world: World | Scene | None) -> None:
        self._guard = None
        if world is not None:
            scene = check_world(self._robot, world)
            self._guard = StepGuard(scene, self._self_collision is not None)

    def reset(self, q0: Any) -> None:
        """Begin anew from joints (J,), for any thread.

        Raises:
            SeedError: they have the wrong length, are not finite, outside the limits, or the
                robot touches an obstacle there, or itself and shall not.
        """
        given = check_seed_state(self._robot, q0, 1, "q0")
        if given is None:
            raise SeedError(f"q0 is None; it must be ({self._robot.num_joints},)")
        guard = self._guard
        if guard is not None and (touches := guard.contacts(given[0])):
            raise SeedError(f"q0 touches: {', '.join(map(str, touches))}")
        if self._touches(given[0]):
            raise SeedError("q0 is in self-collision")
        limits = unpack.py_func(*self._arguments[6:8]).bounds
        self._state.joints[:] = np.clip(given[0], limits[:, 0], limits[:, 1])
        self._numbers[:] = 0
        self._poses[0] = self._robot.forward(self._state.joints)
        self._thread, self._name = 0, ""

    def step(self, T_base_tip: Any, dt: float | None = None) -> TrackStep:
        """Bring the joints as near to a target as one step may go.

        Args:
            T_base_tip: (4, 4) for one tip, else (G, 4, 4), one for each of the tips.
            dt: seconds that this step has, of a tracker with a ``dt``; None: as many as all.

        Raises:
            TargetError: wrong shape, not finite, or not a rigid transform; the joints stay.
            OptionError: dt is not positive and finite, or the tracker has none.
            TrackerError: another thread has made a step since the last reset.
        """
        if self._thread != get_ident():
            self._enter()
        allowed = self._own if dt is None else self._within(dt)
        if allowed is not self._allowed:
            self._allowed = allowed
            self._state.allowed[:] = allowed
        if (
            type(T_base_tip) is not np.ndarray
            or T_base_tip.dtype != np.float64
            or T_base_tip.shape != self._shape
        ):
            T_base_tip = self._checked(T_base_tip)
        self._poses[0, self._place] = T_base_tip
        code = track(*self._arguments)
        if code == REFUSED:
            raise self._refusal(T_base_tip)
        status, blocked_by = _OUTCOMES[code]
        guard, touches = self._guard, ()
        if guard is not None:
            touches = tuple(guard.contacts_on_way(self._state.before, self._state.joints))
            if touches:
                of_world = guard.is_of_world(touches)
                status, blocked_by = self._stay(
                    BlockedBy.WORLD if of_world else BlockedBy.SELF_COLLISION
                )
        elif self._touches(self._state.joints):
            status, blocked_by = self._stay(BlockedBy.SELF_COLLISION)
        if blocked_by is None:
            return self._result(status, touches=touches)
        return self._blocked(status, blocked_by, guard, touches)

    def alternatives(self, max_solutions: int = 8, **options: Any) -> IKResult:
        """All the solutions of the last target, those that are nearest to the joints first.

        Before the first step, and after a target was refused, they are those of the pose where
        the joints are.

        Args:
            max_solutions: M.
            **options: further ones of `IKSolver.solve`; the tracker's world is the default of one.

        Returns:
            What `IKSolver.solve` returns for one target, (1, M, ...).

        Raises:
            IKError: as `IKSolver.solve`.
            TrackerError: another thread has made a step since the last reset.
        """
        if self._thread != get_ident():
            self._enter()
        targets = self._poses[:, list(self._tips)]
        options = {"error_weight": 0.0, "world": self.world, **self._options, **options}
        return self._solve(
            targets, max_solutions=max_solutions, seed_state=self._state.joints, **options
        )

    def _enter(self) -> None:
        """Make the tracker this thread's."""
        with self._turn:
            if self._thread == 0:
                self._thread, self._name = get_ident(), current_thread().name
            if self._thread != get_ident():
                raise TrackerError(
                    f"a tracker of {self._robot.name!r} is used by the thread "
                    f"{current_thread().name!r}; since its last reset it belongs to "
                    f"{self._name!r}"
                )

    def _within(self, dt: float) -> np.ndarray:
        """How far each joint may go in ``dt`` seconds, (J,)."""
        if not (is_number(dt) and 0 < dt < np.inf):
            raise OptionError(f"dt is {dt!r}; it must be positive and finite, or None")
        if self._speeds is None:
            raise OptionError(f"dt of a step is {dt!r}; the tracker was made without one")
        return np.minimum(self._speeds * dt, self._largest_step)

    def _checked(self, T_base_tip: Any) -> np.ndarray:
        targets = check_targets(self._robot, _as_batch(T_base_tip), self._tips)
        return targets[0, self._place]

    def _refusal(self, T_base_tip: np.ndarray) -> TargetError:
        """Why a target is none. As none is known now, the next is where the joints are."""
        self._poses[0] = self._robot.forward(self._state.joints)
        try:
            self._checked(T_base_tip)
        except TargetError as error:
            return error
        raise AssertionError("the compiled check refused what the other one takes")

    def _result(self, status: TrackStatus, *more: Any, **named: Any) -> TrackStep:
        return TrackStep(
            self._state.joints.copy(), self._errors[:, 0].copy(), self._errors[:, 1].copy(),
            status, *more, **named,
        )  # fmt: skip

    def _blocked(
        self,
        status: TrackStatus,
        blocked_by: BlockedBy,
        guard: StepGuard | None,
        touches: tuple[Contact, ...],
    ) -> TrackStep:
        joint = None
        if blocked_by is BlockedBy.LIMIT:
            joint = self._robot.joint_names[self._numbers[JOINT_AT_LIMIT]]
        offer = self._state.offer
        if self._numbers[OFFERED] == 0 or blocked_by in (BlockedBy.SELF_COLLISION, BlockedBy.WORLD):
            return self._result(status, blocked_by, joint, touches=touches)
        if self._touches(offer) if guard is None else guard.contacts(offer):
            self._numbers[OFFERED] = 0
            return self._result(status, blocked_by, joint)
        return self._result(TrackStatus.ELSEWHERE, blocked_by, joint, offer.copy())

    def _touches(self, q: np.ndarray) -> bool:
        return self._self_collision is not None and bool(self._self_collision.in_collision(q))

    def _stay(self, blocked_by: BlockedBy) -> tuple[TrackStatus, BlockedBy | None]:
        """Take back a step that touches something."""
        self._state.joints[:] = self._state.before
        self._state.allowed[:] = 0.0
        self._numbers[CONVERGED] = 0
        code = track(*self._arguments)
        self._state.allowed[:] = self._allowed
        if code == REACHED:
            return TrackStatus.REACHED, None
        return TrackStatus.BLOCKED, blocked_by


def _as_batch(T_base_tip: Any) -> Any:
    """One target as a batch of one, whatever it is."""
    return T_base_tip[None] if hasattr(T_base_tip, "ndim") else [T_base_tip]


def _allowed(
    robot: Robot, max_joint_step: float | None, velocity_scale: float, dt: float | None
) -> np.ndarray:
    """How far each joint may go in one step, (J,) rad or m."""
    for name, value in {"max_joint_step": max_joint_step, "dt": dt}.items():
        if value is not None and not (is_number(value) and 0 < value < np.inf):
            raise OptionError(f"{name} is {value!r}; it must be positive and finite, or None")
    if not (is_number(velocity_scale) and 0 < velocity_scale <= 1):
        raise OptionError(f"velocity_scale is {velocity_scale!r}; it must be above 0 and at most 1")
    if dt is None:
        if velocity_scale != 1:
            raise OptionError(f"velocity_scale is {velocity_scale!r}; without dt it has no meaning")
        return np.full(robot.num_joints, max_joint_step or _LARGEST_STEP)
    allowed = np.minimum(robot.velocity_limit * velocity_scale * dt, max_joint_step or np.inf)
    for name, speed, most in zip(robot.joint_names, robot.velocity_limit, allowed, strict=True):
        if not 0 < most < np.inf:
            raise OptionError(
                f"dt is {dt!r}, but the URDF of {robot.name!r} gives {name} the speed limit "
                f"{speed:g}; give max_joint_step {'too' if most > 0 else 'instead'}"
            )
    return allowed


def _aligned(rows: int) -> np.ndarray:
    """Zeros (rows, LANES) that begin with a cache line."""
    size = rows * LANES * 8
    raw = np.zeros(size + _CACHE_LINE, np.uint8)
    first = -raw.ctypes.data % _CACHE_LINE
    return raw[first : first + size].view(np.float64).reshape(rows, LANES)
