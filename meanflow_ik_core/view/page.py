# SPDX-License-Identifier: Apache-2.0
"""The page: gizmos, arms and controls, and the loop that keeps them one."""

from __future__ import annotations

import contextlib
import io
import threading
import time
from collections import deque

import numpy as np
import viser
import viser.transforms as tf

from ..errors import IKError
from ..reachability.map import ReachabilityMap
from .arms import Arms, colours_along
from .map_scene import MapScene
from .obstacle_scene import ObstacleScene
from .panel import Panel
from .robot_shapes import bodies_of
from .session import NEAR, Answer, Session

_TICK = 1 / 60  # s, between two steps of what moves by itself, and two updates at least
_BACKGROUND = (214, 221, 229)  # red green blue, darker than white arms
_REST = 0.3  # s without a change, after which what takes longer is found out
_ALONG = 12  # arms that show a connected set of solutions


class LocalServer(viser.ViserServer):
    """A server that never tells the internet of itself, whatever a page asks for."""

    def request_share_url(self, verbose: bool = True) -> str | None:
        return None


class Page:
    """Shows a session in browsers; all of them see the same."""

    def __init__(
        self,
        session: Session,
        host: str,
        port: int,
        coarse: bool = False,
        reachability: ReachabilityMap | None = None,
    ):
        self.session = session
        self._wake, self._stopped = threading.Event(), threading.Event()
        with contextlib.redirect_stdout(io.StringIO()):  # its banner, whatever verbose says
            self.server = LocalServer(host, port, verbose=False)
        self.server.gui.configure_theme(
            control_width="medium", show_logo=False,
            show_share_button=False,
        )  # fmt: skip
        self.server.gui.main_panel.dock_right()
        bodies = bodies_of(session.robot)
        bodies = [body.coarse() for body in bodies] if coarse else bodies
        self._arms = Arms(self.server, session.robot, bodies, self._choose)
        lowest = [body.whole.bounds[0, 2] for body in bodies if body.node < 0]
        self._set_scene(min([0.0, *lowest]), not coarse)
        self._gizmos = [self._gizmo(tip) for tip in range(session.robot.num_tips)]
        obstacles = ObstacleScene(self.server, session.world, self._obstacle_moved)
        self._panel = Panel(self.server, session, obstacles, self._wake.set, self._typed)
        self._map: MapScene | None = None
        if reachability is not None:
            self._map = MapScene(self.server, self._panel.tabs, reachability)
        self._answer: Answer | None = None
        self._seconds: deque[float] = deque(maxlen=20)  # of the last updates
        self._mode, self._walked_to = "", np.empty(0)
        self._along = np.empty((0, session.robot.num_joints))  # what shows connected solutions
        self._at_rest = False
        self._played = 0.0
        self._wake.set()

    def run(self) -> None:
        """Answer to what is changed until `stop`."""
        while not self._stopped.is_set():
            began = time.perf_counter()
            self.turn()
            self._stopped.wait(max(0.0, _TICK - (time.perf_counter() - began)))

    def stop(self) -> None:
        """End `run` and the server, from any thread."""
        self._stopped.set()
        self._wake.set()
        self.server.stop()

    def turn(self) -> None:
        """Wait for a change, but not long, and answer to it."""
        moves = self._mode == "follow" or (self._mode == "self-motion" and self._panel.play.value)
        changed = self._wake.wait(0.0 if moves else _REST)
        self._wake.clear()
        try:
            with self.server.atomic():
                if changed or moves:
                    self._at_rest = False
                    self._update()
                elif not self._at_rest:
                    self._at_rest = True
                    self._rest()
        except IKError as error:
            self._panel.say([], str(error))

    def _update(self) -> None:
        mode = self._panel.show_mode()
        entered, self._mode = mode != self._mode, mode
        self._panel.show_targets()
        if mode == "follow":
            self._follow(entered)
        elif mode == "self-motion":
            self._walk(entered)
        else:
            self._solve()

    def _solve(self) -> None:
        self.session.stop_following()
        self._answer = self._panel.answer = answer = self.session.solve()
        self._arms.show_solid(self.session.current)
        self._arms.show_ghosts(answer.joint_positions[1:])
        self._seconds.append(answer.seconds)
        self._report()

    def _follow(self, entered: bool) -> None:
        if entered:
            self.session.stop_following()
        step = self.session.follow(_TICK)
        offered = np.empty((0, self.session.robot.num_joints))
        self._arms.show_solid(self.session.current)
        offered = offered if step.offer is None else step.offer[None]
        self._arms.show_ghosts(offered)
        self._panel.answer = self.session.answer_of(offered)
        why = "" if step.blocked_by is None else f" by {step.blocked_by.value}"
        why += "" if step.joint is None else f" of {step.joint}"
        self._panel.say(
            [
                ("target", f"{step.status.value}{why}"),
                ("off by", _off(step.position_error, step.orientation_error)),
                *_joints(self.session),
            ]
        )

    def _walk(self, entered: bool) -> None:
        """Show what is connected to the solid arm; find it anew where the target has moved."""
        if entered or not np.array_equal(self._walked_to, self._state()):
            self._answer = answer = self.session.solve()
            self._panel.show_walks(self.session.self_motions() if answer.valid.any() else [])
            self._walked_to, self._played = self._state(), time.perf_counter()
            along = [walk.joint_positions for walk in self._panel.walks]
            shown = [q[np.linspace(0, len(q) - 1, min(len(q), _ALONG)).astype(int)] for q in along]
            colours = [colours_along(len(q)) for q in shown]
            empty = np.empty((0, self.session.robot.num_joints))
            self._along = np.concatenate([empty, *shown])
            self._arms.show_ghosts(
                self._along, np.concatenate([np.empty((0, 3), np.uint8), *colours])
            )
        self.session.current = self._panel.walked(time.perf_counter() - self._played)
        self._walked_to = self._state()
        self._arms.show_solid(self.session.current)
        self._panel.answer = self.session.answer_of(self._along)
        assert self._answer is not None
        solved = bool(self._answer.valid.any())
        sets = [
            f"{len(walk.joint_positions)} {'in a circle' if walk.closed else 'from end to end'}"
            for walk in self._panel.walks
        ]
        none = "none: no joint is to spare" if solved else "none"
        self._panel.say(
            [("connected solutions", "; ".join(sets) or none), *_joints(self.session)],
            "" if solved else self._answer.sentence,
        )

    def _state(self) -> np.ndarray:
        """What a connected set of solutions depends on, in numbers."""
        moving = np.zeros(self.session.robot.num_joints, bool)
        for walk in self._panel.walks:
            moving |= walk.moving
        fixed = np.where(moving, 0.0, self.session.current)
        return np.concatenate([fixed, self.session.targets.ravel()])

    def _rest(self) -> None:
        if self._mode == "solutions" and self._answer is not None:
            answer = self._answer
            shown = answer.joint_positions[answer.valid]
            self._report(self.session.coverage(shown))

    def _report(self, coverage: tuple[float, int] | None = None) -> None:
        assert self._answer is not None
        answer, valid = self._answer, int(self._answer.valid.sum())
        covered = "measured when the target rests"
        if coverage is not None:
            share, known = coverage
            covered = f"{100 * share:.0f} % of {known} solutions have an arm within {NEAR} rad"
        rows = [
            ("solutions", f"{valid} of {answer.asked} asked for"),
            ("solver", f"{1e3 * float(np.median(self._seconds)):.2f} ms"),
            ("off by", _off(answer.position_error, answer.orientation_error)),
            ("coverage", covered),
            *_joints(self.session),
        ]
        self._panel.say(rows, "" if valid else answer.sentence)

    def _choose(self, q: np.ndarray) -> None:
        self.session.current = q
        self._wake.set()

    def _obstacle_moved(self) -> None:
        self.session.stop_following()
        self._wake.set()

    def _typed(self) -> None:
        for gizmo, target in zip(self._gizmos, self.session.targets, strict=True):
            gizmo.wxyz = tf.SO3.from_matrix(target[:3, :3]).wxyz
            gizmo.position = target[:3, 3]
        self._wake.set()

    def _gizmo(self, tip: int) -> viser.TransformControlsHandle:
        target = self.session.targets[tip]
        gizmo = self.server.scene.add_transform_controls(
            f"/target/{tip}", scale=0.18, line_width=4.0, depth_test=False,
            wxyz=tf.SO3.from_matrix(target[:3, :3]).wxyz, position=target[:3, 3],
        )  # fmt: skip

        @gizmo.on_update
        def _(event: viser.TransformControlsEvent) -> None:
            if event.client is not None:
                turn = tf.SO3(event.target.wxyz).normalize()
                place = tf.SE3.from_rotation_and_translation(turn, event.target.position)
                self.session.targets[tip] = place.as_matrix()
                self._wake.set()

        return gizmo

    def _set_scene(self, ground: float, cast_shadow: bool) -> None:
        """Ground, light, and a camera from which the whole reach is seen."""
        robot = self.session.robot
        some = robot.random_configurations(256, np.random.default_rng(0))
        reached = robot.forward(some)[:, :, :3, 3].reshape(-1, 3)
        size = float(np.linalg.norm(np.ptp(reached, axis=0)))
        middle = 0.5 * reached.mean(0) + 0.5 * self.session.targets[:, :3, 3].mean(0)
        scene = self.server.scene
        scene.set_background_image(np.full((8, 8, 3), _BACKGROUND, np.uint8), format="png")
        scene.configure_default_lights(cast_shadow=cast_shadow)
        scene.add_grid(
            "/ground", width=2 * size, height=2 * size, cell_size=0.1, section_size=0.5,
            position=(0.0, 0.0, float(ground) - 0.001), fade_distance=2 * size,
        )  # fmt: skip
        self.server.initial_camera.position = middle + 0.43 * size * np.array([1.0, -0.4, 0.45])
        self.server.initial_camera.look_at = middle
        self.server.initial_camera.fov = 0.75


def _off(position_error: np.ndarray, orientation_error: np.ndarray) -> str:
    """The largest errors, in units that people read."""
    metres, radians = float(np.max(position_error)), float(np.max(orientation_error))
    return f"{1e3 * metres:.2g} mm, {np.rad2deg(radians):.2g} deg"


def _joints(session: Session) -> list[tuple[str, str]]:
    """The solid arm's joints in the robot's order; of several tips, those of each by themselves."""
    moves, tips = session.robot.moves, session.robot.tips
    if len(tips) == 1:
        return [("joints", _numbers(session.current))]
    alone = moves & (moves.sum(0) == 1)
    rows = [("joints of all", _numbers(session.current[~alone.any(0)]))]
    rows += [
        (f"joints of {tip}", _numbers(session.current[alone[at]])) for at, tip in enumerate(tips)
    ]
    return [row for row in rows if row[1]]


def _numbers(values: np.ndarray) -> str:
    return "  ".join(f"{value:+.3f}" for value in values)
