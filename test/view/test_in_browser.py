# SPDX-License-Identifier: Apache-2.0
"""The viewer as a user has it: the command, and a real Chromium that shows its page."""

import io
import json
import os

import numpy as np
import pytest
from PIL import Image

import meanflow_ik_core as mik

if __import__("importlib.util").util.find_spec("viser") is None:
    pytest.skip("the viewer needs the extra `view`", allow_module_level=True)

from view.browser import Viewer, chromium

INSTALL = "no chromium is on PATH: apt-get install chromium"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def viewer(tmp_path_factory):
    if chromium() is None and not os.environ.get("CI"):
        pytest.skip(INSTALL)
    assert chromium() is not None, INSTALL
    path = tmp_path_factory.mktemp("map") / "map.npz"
    mik.reachability_map(
        "panda", 0.1, 4, box=[(-1, -1, 0), (1, 1, 0.5)], starts=8, processes=1, output=path
    )
    with Viewer("--coarse", "--sampler", "uniform", "--map", str(path)) as running:
        running.settle()
        yield running


@pytest.fixture(scope="module")
def panda():
    return mik.load_robot("panda").at_frames(["panda_hand_tcp"])


def solutions(viewer):
    return json.loads(viewer.download("solutions as JSON"))


def test_the_page_shows_the_robot_without_complaints(viewer):
    pixels = viewer.canvas().reshape(-1, 3)
    assert len(np.unique(pixels // 16, axis=0)) > 30, "the canvas shows next to nothing"
    assert viewer.readout("solutions") == "12 of 12 asked for"
    assert viewer.complaints == []


def test_a_map_is_hidden(viewer):
    def yellow():  # where all orientations are reached
        return (np.abs(viewer.canvas().astype(int) - (240, 220, 40)).max(-1) < 40).mean()

    assert yellow() > 0.02
    viewer.tab("Map")
    viewer.check("show the map")
    viewer.wait(lambda: yellow() < 0.001, "a map that is hidden")


def test_a_target_that_is_typed_is_reached(viewer, panda):
    before = viewer.readout("joints"), viewer.canvas()
    viewer.target((0.45, 0.15, 0.4), (180, 0, 30))
    viewer.wait(lambda: viewer.readout("joints") != before[0], "other joints")
    viewer.settle()
    found = solutions(viewer)
    reached = panda.forward(found["joint_positions"])[:, 0]
    assert np.allclose(reached[:, :3, 3], (0.45, 0.15, 0.4), atol=1e-4)
    assert np.abs(viewer.canvas().astype(int) - before[1]).max(-1).mean() > 1
    table = viewer.download("solutions as CSV").decode().splitlines()
    assert len(table) == 1 + len(found["joint_positions"]) and table[0].startswith("panda_joint1,")


def test_a_gizmo_is_dragged(viewer):
    """By the mouse, along the arrow that leads down from where the tool is."""
    viewer.tab("Target")
    height = viewer.inputs("xyz [m]").nth(2)
    before = float(height.input_value())
    mouse = viewer.page.mouse

    def drag() -> bool:
        """Whether it was taken: a page that draws too slowly misses the mouse."""
        blue = np.argwhere(np.abs(viewer.canvas().astype(int) - (51, 143, 230)).max(-1) < 40)
        assert len(blue), "no arrow along z"
        row, column = blue[blue[:, 0].argmax()].tolist()  # its end
        mouse.move(column, row)
        viewer.page.wait_for_timeout(1000)
        mouse.down()
        for further in range(1, 6):
            mouse.move(column, row + 8 * further)
            viewer.page.wait_for_timeout(400)
        mouse.up()
        viewer.page.wait_for_timeout(2000)
        return float(height.input_value()) < before - 0.01

    viewer.wait(drag, "a lower target")
    viewer.settle()


def test_an_unreachable_target_is_said_to_be_one(viewer):
    viewer.target((1.5, 0, 0.4), (180, 0, 0))
    viewer.wait(lambda: viewer.readout("warning") != "", "a warning")
    assert viewer.readout("solutions") == "0 of 12 asked for"
    assert "reach" in viewer.readout("warning")


def test_an_obstacle_changes_the_arms(viewer, panda):
    viewer.target((0.5, 0.0, 0.35), (180, 0, 0))
    viewer.wait(lambda: viewer.readout("solutions").startswith("12 of"), "solutions")
    viewer.settle()
    before = np.array(solutions(viewer)["joint_positions"])
    coverage = viewer.readout("coverage")
    viewer.tab("World")
    viewer.type("size [m]", 0.1, 0.1, 0.3)
    viewer.press("box")
    viewer.wait(lambda: viewer.readout("coverage") != coverage, "other arms")
    viewer.settle()
    after = np.array(solutions(viewer)["joint_positions"])
    world = mik.World(mik.load_robot("panda"))
    world.add_box("box", (0.1, 0.1, 0.3), xyz=(0.3, 0.0, 0.455))
    assert world.in_collision(before).any() and not world.in_collision(after).any()
    viewer.tab("World")
    viewer.press("remove it")
    viewer.settle()


def test_the_elbow_is_walked(viewer):
    viewer.choose("show", "self-motion")
    viewer.wait(lambda: viewer.readout("connected solutions") != "", "connected solutions")
    joints = viewer.readout("joints")
    place = viewer.inputs("move to and fro").nth(1)  # after the checkbox, the slider's number
    place.fill("0")
    place.press("Enter")
    viewer.wait(lambda: viewer.readout("joints") != joints, "another elbow")


def test_the_arm_follows_the_target(viewer):
    viewer.choose("show", "follow")
    viewer.wait(lambda: viewer.readout("target") == "reached", "the target")
    viewer.target((0.45, -0.1, 0.4), (180, 0, 0))
    viewer.wait(lambda: viewer.readout("target") == "reached", "the new target")
    viewer.choose("show", "solutions")
    viewer.settle()


def test_an_arm_that_is_clicked_becomes_the_solid_one(viewer):
    pixels = viewer.canvas().astype(int)
    colourful = (pixels.max(-1) - pixels.min(-1) > 60) & (pixels.max(-1) < 200)
    rows, columns = np.nonzero(colourful)
    rng = np.random.default_rng(0)
    joints = viewer.readout("joints")
    for at in rng.permutation(len(rows))[:20]:
        viewer.page.mouse.click(int(columns[at]), int(rows[at]))
        viewer.page.wait_for_timeout(1500)
        if viewer.readout("joints") != joints:
            return
    pytest.fail("no click chose an arm")


def test_the_picture_is_saved(viewer):
    picture = Image.open(io.BytesIO(viewer.download("picture as PNG")))
    assert (
        picture.size == (1920, 1080)
        and len(np.unique(np.array(picture).reshape(-1, 4), axis=0)) > 50
    )


def test_a_lost_connection_comes_back(viewer):
    viewer.stop()
    viewer.start(viewer.port)
    viewer.wait(lambda: viewer.page.locator("[data-name=solver]").count() == 1, "the page again")
    viewer.settle()
    assert viewer.readout("solutions") == "12 of 12 asked for"
