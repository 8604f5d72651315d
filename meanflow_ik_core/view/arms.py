# SPDX-License-Identifier: Apache-2.0
"""Arms in the scene: the best in its own colours, and others in a colour each."""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Sequence

import numpy as np
import viser

from ..geometry import quat_xyzw_from_matrix
from ..robot.robot import Robot
from .robot_shapes import Body
from .session import joined

_HUES = (0.58, 0.09, 0.38, 0.97, 0.75, 0.49, 0.16, 0.88)  # of a turn, easily told apart
_LEAST_ROOM = 16  # arms
_SLIMMER = 0.98  # than the solid arm, which is seen where another one lies along it
_TRIANGLES = 500_000  # of all translucent arms, about; what graphics processors draw at 60 Hz


class Arms:
    """Draws a robot many times: all its arms in one message for each node of its tree."""

    def __init__(
        self,
        server: viser.ViserServer,
        robot: Robot,
        bodies: Sequence[Body],
        chosen: Callable[[np.ndarray], None],
    ):
        """Draw nothing yet.

        Args:
            server: whose scene.
            robot: whose kinematics.
            bodies: what it looks like.
            chosen: called with the joints (J,) of an arm that is clicked.
        """
        self._server, self._robot, self._chosen = server, robot, chosen
        self._moving = [body for body in bodies if body.node >= 0]
        self._nodes = [body.node for body in self._moving]
        self._solids: dict[int, viser.GlbHandle] = {
            body.node: server.scene.add_glb(solid_name(body.node), _glb(body)) for body in bodies
        }
        self._ghosts: list[viser.BatchedMeshHandle] = []
        self._places = np.empty((0, robot.num_joints))  # (P, J) what is drawn where, or NaN
        self._solid_at = self._poses(0.5 * (robot.lower + robot.upper)[None])

    def show_solid(self, q: np.ndarray) -> None:
        """Draw the solid arm at joints (J,)."""
        self._solid_at = wxyz, positions = self._poses(q[None])
        for index, node in enumerate(self._nodes):
            self._solids[node].wxyz = wxyz[0, index]
            self._solids[node].position = positions[0, index]

    def show_ghosts(self, q: np.ndarray, colours: np.ndarray | None = None) -> None:
        """Draw translucent arms at joints (M, J).

        Args:
            q: rad or m.
            colours: (M, 3) uint8; None: one for each place, which an arm keeps when it moves.
        """
        self._make_room(len(q))
        room = len(self._places)
        places = joined(self._places[: len(q)], q) if colours is None else np.arange(len(q))
        self._places[:] = np.nan
        self._places[places] = q
        shown = np.isfinite(self._places).all(1)
        painted = distinct_colours(room)
        if colours is not None:
            painted[: len(q)] = colours
        wxyz, positions = self._poses(np.nan_to_num(self._places))
        # where all arms are one, as at the target, the solid one is enough
        apart = np.abs(positions - self._solid_at[1]).max(-1) > 1e-3
        apart |= np.abs((wxyz * self._solid_at[0]).sum(-1)) < 0.9999
        scales = np.float32(_SLIMMER) * (np.asarray(shown)[:, None] & apart)
        for index, ghost in enumerate(self._ghosts):
            ghost.batched_wxyzs = wxyz[:, index]
            ghost.batched_positions = positions[:, index]
            ghost.batched_scales = scales[:, index]
            ghost.batched_colors = painted
            if ghost.batched_opacities is not None:
                ghost.batched_opacities = np.full(room, opacity_of(len(q)), np.float32)

    def _poses(self, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Quaternions w x y z (M, N, 4) and positions (M, N, 3) of the N bodies."""
        T_base_node = self._robot.arrays.node_poses(q)[:, self._nodes]
        xyzw = quat_xyzw_from_matrix(T_base_node[..., :3, :3])
        return np.roll(xyzw, 1, -1).astype(np.float32), T_base_node[..., :3, 3].astype(np.float32)

    def _make_room(self, arms: int) -> None:
        """A new set of meshes where there are too many arms for the present one, or few."""
        room = _LEAST_ROOM
        while room < arms:
            room *= 2
        if room == len(self._places):
            return
        for ghost in self._ghosts:
            ghost.remove()
        self._places = np.full((room, self._robot.num_joints), np.nan)
        self._ghosts = []
        most = _TRIANGLES // (room * max(len(self._moving), 1))
        for body in self._moving:
            light = body.light(most)
            ghost = self._server.scene.add_batched_meshes_simple(
                f"/ghosts/{body.node}", light.vertices, light.faces,
                np.tile((1.0, 0.0, 0.0, 0.0), (room, 1)), np.zeros((room, 3)),
                batched_scales=np.zeros(room, np.float32), batched_colors=distinct_colours(room),
                # few arms are opaque: what is drawn of a translucent one depends on its triangles
                batched_opacities=None if room == _LEAST_ROOM else np.ones(room, np.float32),
                lod="off", cast_shadow=False,
                receive_shadow=False,
            )  # fmt: skip
            ghost.on_click(self._clicked)
            self._ghosts.append(ghost)

    def _clicked(self, event: viser.SceneNodePointerEvent) -> None:
        place = event.instance_index
        if place is not None and place < len(self._places):
            q = self._places[place].copy()
            if np.isfinite(q).all():
                self._chosen(q)


def solid_name(node: int) -> str:
    """Where the solid arm's body of a node stands in the scene."""
    return f"/robot/{'base' if node < 0 else node}"


def distinct_colours(count: int) -> np.ndarray:
    """(count, 3) uint8, those that follow each other far apart."""
    rounds = [divmod(index, len(_HUES)) for index in range(count)]
    colours = [
        colorsys.hls_to_rgb((_HUES[hue] + 0.04 * turn) % 1.0, (0.55, 0.4, 0.7)[turn % 3], 0.85)
        for turn, hue in rounds
    ]
    return (255 * np.array(colours)).astype(np.uint8)


def colours_along(count: int) -> np.ndarray:
    """(count, 3) uint8 from blue through violet to orange."""
    stops = np.array([(40, 90, 220), (170, 60, 190), (245, 140, 40)])
    at = np.linspace(0, len(stops) - 1, max(count, 1))
    return np.stack([np.interp(at, range(len(stops)), c) for c in stops.T], 1).astype(np.uint8)


def opacity_of(arms: int) -> float:
    """Of each of so many arms, so that all of them can be seen."""
    return float(np.clip(1.6 / np.sqrt(max(arms, 1)), 0.12, 0.5))


def _glb(body: Body) -> bytes:
    data = body.scene.export(file_type="glb")
    assert isinstance(data, bytes)
    return data
