# SPDX-License-Identifier: Apache-2.0
"""The page without a browser: what is drawn, and what an update costs."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from oracles import Judge

import meanflow_ik_core as mik

pytest.importorskip("viser")

from meanflow_ik_core.geometry import matrix_from_quat_xyzw
from meanflow_ik_core.reachability.map import QUANTITIES
from meanflow_ik_core.view.arms import distinct_colours
from meanflow_ik_core.view.export import as_json
from meanflow_ik_core.view.obstacle_scene import mesh_of_shape
from meanflow_ik_core.view.page import Page
from meanflow_ik_core.view.panel import MOST_ARMS
from meanflow_ik_core.view.session import Session, Wishes


@pytest.fixture(scope="module", params=["panda", "dual_panda"])
def made(request):
    session = Session(mik.load_solver(request.param, sampler="uniform"))
    page = Page(session, "127.0.0.1", 0)
    yield page
    page.stop()


@pytest.fixture
def page(made):
    """A page as it is opened."""
    session = made.session
    session.wishes = Wishes("uniform")
    session.current = 0.5 * (session.robot.lower + session.robot.upper)
    session.targets = session.robot.forward(session.current)
    made._panel.mode.value = "solutions"
    made._wake.set()
    made.turn()
    return made


def drawn(page):
    """(P, N, 4, 4) where the translucent bodies are, NaN where one is not shown."""
    poses = []
    for ghost in page._arms._ghosts:
        pose = np.tile(np.eye(4), (len(ghost.batched_scales), 1, 1))
        pose[:, :3, :3] = matrix_from_quat_xyzw(np.roll(ghost.batched_wxyzs.astype(float), -1, 1))
        pose[:, :3, 3] = ghost.batched_positions
        pose[ghost.batched_scales == 0] = np.nan
        poses.append(pose)
    return np.stack(poses, 1)


def test_every_arm_is_drawn_where_its_joints_put_it(page):
    answer = page._answer
    robot = page.session.robot
    poses = drawn(page)
    shown = np.isfinite(poses).all((2, 3))
    assert shown.any(1).sum() == len(answer.joint_positions) - 1
    wanted = robot.arrays.node_poses(answer.joint_positions[1:])
    for place in np.flatnonzero(shown.any(1)):
        here = shown[place]
        apart = np.abs(wanted[:, here] - poses[place, here]).max((1, 2, 3))
        assert apart.min() < 1e-5
    # at the target all are one, and the solid arm is drawn alone
    assert not shown[:, robot.tip_node].any()


def test_the_room_for_arms_grows_and_shrinks(page):
    for arms, room in ((40, 64), (8, 16)):
        page._panel._wish(arms=arms)
        page.turn()
        assert {len(ghost.batched_scales) for ghost in page._arms._ghosts} == {room}


def test_a_wish_that_cannot_be_met_is_said_and_the_page_goes_on(page):
    tip = page.session.robot.tips[0]
    page._panel._wish(free_axes={tip: "up"})
    page.turn()
    assert "up" in page._panel._readout.content and "<script" not in page._panel._readout.content
    page._panel._wish(free_axes={tip: "<script>"})
    page.turn()
    assert "<script" not in page._panel._readout.content
    page._panel._wish(free_axes={})
    page.turn()
    assert "12 of 12" in page._panel._readout.content


def test_a_number_that_is_typed_stays_within_the_range_of_its_slider(page):
    arms = page._panel._gui._gui_input_handle_from_uuid
    arms = next(one for one in arms.values() if getattr(one, "max", None) == MOST_ARMS)
    for typed, taken in ((100_000, MOST_ARMS), (0, 1), (12, 12)):
        arms.value = typed
        page.turn()
        assert arms.value == page.session.wishes.arms == taken
        assert f"of {taken} asked for" in page._panel._readout.content


def test_an_arm_that_is_clicked_becomes_the_solid_one(page):
    place = int(np.flatnonzero(np.isfinite(page._arms._places).all(1))[3])
    q = page._arms._places[place].copy()
    page._arms._clicked(SimpleNamespace(instance_index=place))
    page.turn()
    assert np.abs(page.session.current - q).max() < 1e-4


def test_self_motions_have_sliders_which_keep_the_pose(page):
    page._panel.mode.value = "self-motion"
    page.turn()
    robot = page.session.robot
    assert len(page._panel._places) == robot.num_tips
    before = page.session.current
    for slider in page._panel._places:
        slider.value = 0
    page._wake.set()
    page.turn()
    assert np.abs(page.session.current - before).max() > 0.1
    assert np.abs(robot.forward(page.session.current) - page.session.targets).max() < 2e-5


def test_the_solid_arm_follows_alone(page):
    page._panel.mode.value = "follow"
    for _ in range(3):
        page.turn()
    assert not np.isfinite(drawn(page)).any()
    assert "reached" in page._panel._readout.content
    # What is exported are the arm that is shown and its target, not what was solved for before.
    page.session.targets[0, 0, 3] += 0.1
    page.turn()
    content = json.loads(as_json(page.session, page._panel.answer))
    assert content["joint_positions"] == [page.session.current.tolist()]
    assert content["targets"] == page.session.targets.tolist()
    judge = Judge(page.session.robot)
    off = judge.poses(page.session.current)[0, :3, 3] - page.session.targets[0, :3, 3]
    assert abs(content["position_error"][0][0] - np.linalg.norm(off)) < 1e-9
    assert content["valid"] == [False]


def test_an_answer_keeps_the_targets_that_it_is_for(page):
    before = page.session.targets.copy()
    tip = page.session.robot.tips[0]
    page._panel._wish(free_axes={tip: "up"})
    page.session.targets[0, 2, 3] += 0.3
    page.turn()
    assert json.loads(as_json(page.session, page._panel.answer))["targets"] == before.tolist()


def test_without_a_solution_there_is_no_self_motion_and_the_panel_says_why(page):
    page.session.targets[0, 2, 3] = 3.0
    page._panel.mode.value = "self-motion"
    page.turn()
    assert "beyond its reach" in page._panel._readout.content
    assert "no joint is to spare" not in page._panel._readout.content


def test_an_arm_that_touches_something_does_not_follow_and_says_so(page):
    tip = page.session.robot.forward(page.session.current)[0, :3, 3]
    page.session.world.add_sphere("ball", 0.1, xyz=tip)
    try:
        page._panel.mode.value = "follow"
        page.turn()
        said = page._panel._readout.content
        assert "the solid arm touches something: drag that away, or show solutions (touches" in said
    finally:
        page.session.world.remove("ball")


def test_the_page_never_tells_the_internet(page):
    assert page.server.request_share_url() is None


def test_obstacles_of_every_kind_are_drawn():
    solver = mik.load_solver("panda", sampler="uniform")
    world = mik.World(solver.robot)
    world.add_box("box", (0.1, 0.2, 0.3), xyz=(1.0, 0.0, 0.0))
    world.add_sphere("sphere", 0.1, xyz=(1.0, 0.5, 0.0))
    world.add_cylinder("cylinder", 0.1, 0.3, xyz=(1.0, -0.5, 0.0))
    world.add_capsule("capsule", 0.1, 0.3, xyz=(-1.0, -0.5, 0.0))
    world.add_cone("cone", 0.1, 0.3, xyz=(-1.0, 0.5, 0.0))
    world.add_half_space("floor", offset=-0.5)
    corners = np.eye(4)[:, :3] + (2.0, 0.0, 0.0)
    world.add_mesh("mesh", vertices=corners, triangles=[[0, 1, 2], [0, 1, 3]])
    world.add_points("cloud", corners, 0.05)
    world.add_box("held", (0.02, 0.02, 0.1), xyz=(0.0, 0.0, 0.0))
    world.attach("held", "panda_hand", pose=np.eye(4), touch_links=["panda_leftfinger"])
    page = Page(Session(solver, world=world), "127.0.0.1", 0)
    try:
        page.turn()
        assert "solutions" in page._panel._readout.content
        for kind, extents in (
            ("box", (0.1, 0.2, 0.3)),
            ("sphere", (0.2, 0.2, 0.2)),
            ("cylinder", (0.2, 0.2, 0.3)),
            ("capsule", (0.2, 0.2, 0.5)),
            ("cone", (0.2, 0.2, 0.3)),
        ):
            mesh = mesh_of_shape(world.obstacle(kind).shape)
            assert np.allclose(mesh.extents, extents, atol=0.01), kind
            assert np.allclose(mesh.bounds.mean(0), 0, atol=0.01), kind
    finally:
        page.stop()


def test_a_map_is_cut_open_and_coloured():
    found = mik.reachability_map("panda", 0.3, 4, starts=8, processes=1)
    page = Page(Session(mik.load_solver("panda", sampler="uniform")), "127.0.0.1", 0, False, found)
    try:
        shown = page._map
        assert shown is not None
        points = found.centers[found.reached > 0]
        assert len(shown._cloud.points) == (points[:, 1] > 0).sum() > 0
        for cut in shown._cuts:
            cut.value = (cut.min, cut.max)
        for quantity in QUANTITIES:
            shown._quantity.value, shown._least.value = quantity, 0.0
            shown.redraw()
            assert np.allclose(shown._cloud.points, points, atol=1e-6)
            shown._least.value = 0.5
            shown.redraw()
            values, (low, high) = found.of_voxels(quantity), found.bounds(quantity)
            assert len(shown._cloud.points) == (values >= 0.5 * (low + high) - 1e-9).sum()
    finally:
        page.stop()


def test_obstacles_are_added_and_removed():
    page = Page(Session(mik.load_solver("panda", sampler="uniform")), "127.0.0.1", 0)
    try:
        obstacles = page._panel._obstacles
        for kind in ("box", "sphere", "cylinder", "box"):
            obstacles.add(kind, (0.1, 0.1, 0.2), np.array((0.3, 0.0, 0.3)), page.session.current)
        world = page.session.world
        assert not world.in_collision(page.session.current)
        assert world.names() == ["box 1", "sphere 1", "cylinder 1", "box 2"]
        assert world.obstacle("cylinder 1").shape.sizes == (0.05, 0.2)
        obstacles.remove("box 1")
        obstacles.remove("box 1")
        assert "box 1" not in world and list(obstacles._gizmos) == world.names()
    finally:
        page.stop()


def test_colours_are_told_apart():
    colours = distinct_colours(24).astype(int)
    apart = np.abs(colours[:, None] - colours).max(-1) + 255 * np.eye(24, dtype=int)
    assert apart.min() > 15 and apart[:8, :8].min() > 60
