# SPDX-License-Identifier: Apache-2.0
"""The controls beside the scene, and what they say."""

from __future__ import annotations

import html
import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import numpy as np
import viser
import viser.transforms as tf

from ..errors import WorldError
from ..geometry import matrix_from_rpy
from ..solving.ranking import SELECTIONS
from ..solving.self_motion import SelfMotion
from .export import as_csv, as_json
from .obstacle_scene import KINDS, ObstacleScene
from .session import Answer, Session

MODES = ("solutions", "self-motion", "follow")
MOST_ARMS = 128
_OBJECTIVES = ("posture", "manipulability", "joint_limits", "clearance")
_NONE = "(none)"
_IN_THE_WAY = (0.6, 0.6, 1.3)  # of a target's place, where a new obstacle stands
_PICTURE = (1080, 1920)  # pixels, height and width
# That a browser may take for it; one without a graphics processor takes many seconds.
_DRAWING_S = 100.0


class Panel:
    """Controls of a session; what they change is said to the page."""

    def __init__(
        self,
        server: viser.ViserServer,
        session: Session,
        obstacles: ObstacleScene,
        changed: Callable[[], None],
        moved: Callable[[], None],
    ):
        """Add all controls.

        Args:
            server: whose page.
            session: what they change.
            obstacles: the scene's.
            changed: called when something was changed.
            moved: called when targets were changed by numbers.
        """
        self._gui, self._session, self._obstacles = server.gui, session, obstacles
        self._changed, self._moved = changed, moved
        self.answer: Answer | None = None
        self.walks: list[SelfMotion] = []
        self._places: list[viser.GuiSliderHandle] = []
        server.gui.set_panel_label(f"meanflow-ik view: {session.robot.name}")
        self._readout = server.gui.add_html("")
        self.mode = server.gui.add_dropdown(
            "show", MODES, hint="Different solutions; what is connected to the solid arm; or the "
            "solid arm alone, which follows the target.",
        )  # fmt: skip
        self.mode.on_update(lambda _: changed())
        self._walk_folder = server.gui.add_folder("self-motion", visible=False)
        with self._walk_folder:
            self.play = server.gui.add_checkbox("move to and fro", False)
            self.play.on_update(lambda _: changed())
        self.tabs = tabs = server.gui.add_tab_group()
        with tabs.add_tab("Solve"):
            self._add_wishes()
        with tabs.add_tab("Target"):
            self._targets = [self._add_target(tip) for tip in range(session.robot.num_tips)]
        with tabs.add_tab("World"):
            self._add_world()
        with tabs.add_tab("Save"):
            self._add_files()

    def say(self, rows: Sequence[tuple[str, str]], warning: str = "") -> None:
        """Show what was found, a line for each name and text."""
        lines = "".join(
            f"<tr><td style='padding-right:1em;opacity:.65;white-space:nowrap'>{html.escape(name)}"
            f"</td><td data-name='{html.escape(name)}'>{html.escape(text)}</td></tr>"
            for name, text in rows
        )
        said = f"<div data-name='warning' style='color:#c22'>{html.escape(warning)}</div>"
        self._readout.content = (
            f"<div style='padding:0 .8em;font-size:.8em'><table>{lines}</table>"
            f"{said if warning else ''}</div>"
        )

    def show_targets(self) -> None:
        """Write where the targets are into their fields."""
        for fields, target in zip(self._targets, self._session.targets, strict=True):
            position, angles = fields
            position.value = tuple(np.round(target[:3, 3], 4).tolist())
            rpy = tf.SO3.from_matrix(target[:3, :3]).as_rpy_radians()
            angles.value = tuple(np.round(np.rad2deg([*rpy]), 2).tolist())

    def show_walks(self, walks: list[SelfMotion]) -> None:
        """Make a slider for each connected set of solutions."""
        self.walks = walks
        for slider in self._places:
            slider.remove()
        self._places = []
        with self._walk_folder:
            for walk in walks:
                slider = self._gui.add_slider(
                    self._name_of(walk), 0, max(len(walk.joint_positions) - 1, 1), 1, walk.start,
                    disabled=len(walk.joint_positions) < 2,
                )  # fmt: skip
                slider.on_update(self._slid)
                self._places.append(slider)

    def show_mode(self) -> str:
        """What is shown; its controls appear."""
        self._walk_folder.visible = self.mode.value == "self-motion"
        return self.mode.value

    def walked(self, turn: float) -> np.ndarray:
        """(J,) the solid arm where the sliders, or the time when they move, put it.

        Args:
            turn: s, since they move.
        """
        q = self._session.current.copy()
        for walk, slider in zip(self.walks, self._places, strict=True):
            last = len(walk.joint_positions) - 1
            if self.play.value and last > 0:
                at = int(turn * 40)
                slider.value = (
                    at % (last + 1) if walk.closed else last - abs(at % (2 * last) - last)
                )
            q[walk.moving] = walk.joint_positions[min(_value(slider), last)][walk.moving]
        return q

    def _slid(self, event: viser.GuiEvent) -> None:
        if event.client is not None:
            self._changed()

    def _name_of(self, walk: SelfMotion) -> str:
        robot = self._session.robot
        moved = [tip for tip, moves in enumerate(robot.moves) if moves[walk.moving].any()]
        return f"arm of {robot.tips[moved[0]]}" if len(moved) == 1 else "whole robot"

    def _wish(self, **change: Any) -> None:
        self._session.wishes = replace(self._session.wishes, **change)
        self._session.stop_following()
        self._changed()

    def _add_wishes(self) -> None:
        gui, wishes = self._gui, self._session.wishes

        def control(handle: Any, name: str) -> None:
            handle.on_update(lambda _: self._wish(**{name: _value(handle)}))

        control(gui.add_slider("arms", 1, MOST_ARMS, 1, wishes.arms), "arms")
        control(
            gui.add_dropdown(
                "selection", tuple(reversed(SELECTIONS)), initial_value=wishes.select,
                hint="diverse: spread over the solution set. best: the nearest to the solid arm.",
            ),
            "select",
        )  # fmt: skip
        control(
            gui.add_dropdown(
                "sampler", self._session.samplers, initial_value=wishes.sampler,
                hint="Where the search starts: from the network, or at random.",
            ),
            "sampler",
        )  # fmt: skip
        control(
            gui.add_slider(
                "seed weight", 0.0, 5.0, 0.1, wishes.seed_weight,
                hint="How much the distance to the solid arm counts in the ranking, per rad.",
            ),
            "seed_weight",
        )  # fmt: skip
        control(
            gui.add_checkbox("avoid self-collision", wishes.avoid_self_collision),
            "avoid_self_collision",
        )
        control(
            gui.add_slider(
                "speed", 0.05, 1.0, 0.05, wishes.speed,
                hint="Share of the joints' speed limits of an arm that follows the target.",
            ),
            "speed",
        )  # fmt: skip
        with gui.add_folder("objectives", expand_by_default=False):
            if find_spec("torch") is None:
                gui.add_markdown("They need torch: `pip install '.[train]'`")
                return
            for name in _OBJECTIVES:
                self._add_objective(name)

    def _add_objective(self, name: str) -> None:
        slider = self._gui.add_slider(name.replace("_", " "), 0.0, 5.0, 0.1, 0.0)

        @slider.on_update
        def _(_: Any) -> None:
            self._wish(objectives={**self._session.wishes.objectives, name: _value(slider)})

    def _add_target(self, tip: int) -> tuple[viser.GuiVector3Handle, viser.GuiVector3Handle]:
        gui, session = self._gui, self._session
        name = session.robot.tips[tip]
        with gui.add_folder(name):
            position = gui.add_vector3("xyz [m]", (0.0, 0.0, 0.0), step=0.01)
            angles = gui.add_vector3("rpy [deg]", (0.0, 0.0, 0.0), step=1.0)
            free = gui.add_text(
                "free axes", "", hint='Those of x y z rx ry rz of the target that may be anything, '
                'such as "rz".',
            )  # fmt: skip

        def typed(event: Any) -> None:
            if event.client is not None:
                session.targets[tip, :3, :3] = matrix_from_rpy(np.deg2rad(angles.value))
                session.targets[tip, :3, 3] = position.value
                self._moved()

        position.on_update(typed)
        angles.on_update(typed)
        free.on_update(
            lambda _: self._wish(free_axes={**session.wishes.free_axes, name: free.value})
        )
        return position, angles

    def _add_world(self) -> None:
        gui, obstacles = self._gui, self._obstacles
        size = gui.add_vector3(
            "size [m]", (0.1, 0.3, 0.3), min=(0.01, 0.01, 0.01), step=0.01,
            hint="Edges of a box; of a sphere and a cylinder the first is the diameter, of a "
            "cylinder the last is the length.",
        )  # fmt: skip
        add = gui.add_button_group("add", KINDS)
        names = gui.add_dropdown("obstacle", self._obstacle_names())
        remove = gui.add_button("remove it")

        def changed() -> None:
            names.options = self._obstacle_names()
            self._session.stop_following()
            self._changed()

        @add.on_click
        def _(_: Any) -> None:
            at = self._session.targets[0, :3, 3] * _IN_THE_WAY
            # One that follows cannot leave what it touches; all others are solved for anew.
            arm = self._session.current if self.mode.value == "follow" else None
            try:
                obstacles.add(add.value, size.value, at, arm)
            except WorldError as error:
                self.say([], str(error))
            else:
                changed()

        @remove.on_click
        def _(_: Any) -> None:
            obstacles.remove(names.value)
            changed()

    def _obstacle_names(self) -> list[str]:
        return self._session.world.names() or [_NONE]

    def _add_files(self) -> None:
        gui, name = self._gui, self._session.robot.name

        def add(label: str, ending: str, content: Callable[[viser.ClientHandle], bytes]) -> None:
            button = gui.add_button(label)

            @button.on_click
            def _(event: viser.GuiEvent) -> None:
                if event.client is None or self.answer is None:
                    return
                try:
                    made = content(event.client)
                except TimeoutError:
                    event.client.add_notification(
                        "no picture", f"The browser has not drawn one in {_DRAWING_S:g} s."
                    )
                else:
                    event.client.send_file_download(f"{name}.{ending}", made, save_immediately=True)

        def answered() -> Answer:
            assert self.answer is not None
            return self.answer

        add("solutions as JSON", "json", lambda _: as_json(self._session, answered()))
        add("solutions as CSV", "csv", lambda _: as_csv(self._session, answered()))
        add("picture as PNG", "png", picture)


def _value(control: Any) -> Any:
    """What a control has; of a slider within its range, also where another number was typed."""
    if isinstance(control, viser.GuiSliderHandle):
        within = min(max(control.value, control.min), control.max)
        if within != control.value:
            control.value = within
    return control.value


def picture(client: viser.ClientHandle) -> bytes:
    """The scene as a client sees it, as a PNG; without the controls."""
    from PIL import Image

    pixels = client.get_render(*_PICTURE, transport_format="png", timeout=_DRAWING_S)
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "png")
    return data.getvalue()
