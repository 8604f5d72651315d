# SPDX-License-Identifier: Apache-2.0
"""The viewer in a real browser: what a user does, and the pictures of the documentation.

Run it to make these: ``python test/view/browser.py docs/images``.
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import Locator, Page, sync_playwright

import meanflow_ik_core as mik

PANEL = 330  # pixels, at the right
SIZE = (1280, 800)  # of the documentation's pictures, in pixels
SOLVES = 5  # pairs, before such a picture, so that its time of the solver is no chance
WORLD = """
objects:
  post: {type: box, size: [0.08, 0.08, 0.7], xyz: [0.3, 0.3, 0.35]}
  ball: {type: sphere, radius: 0.09, xyz: [0.15, -0.3, 0.5]}
"""
SECONDS = 120.0  # that anything may take where a CPU draws, and shares itself with other tests
# Without a graphics processor; and no sandbox, which the root of a container cannot have.
FLAGS = ("--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")


# A CPU draws, and would do nothing else: a few pictures a second are enough.
SELDOM = """
const draw = window.requestAnimationFrame.bind(window);
window.requestAnimationFrame = (then) => setTimeout(() => draw(then), 300);
"""


def chromium() -> str | None:
    """The browser of the system."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


class Viewer:
    """A viewer and a browser that shows it."""

    def __init__(self, *arguments: str, size: tuple[int, int] = (900, 640), scale: float = 0.5):
        """A viewer with further arguments, a page of a size, and so many pixels for each of it."""
        self.arguments, self.size, self.scale = arguments, size, scale
        self.complaints: list[str] = []  # of the page

    def __enter__(self) -> Viewer:
        self.start(0)
        self._playwright = sync_playwright().start()
        self._browser = self._playwright.chromium.launch(
            executable_path=chromium(), args=list(FLAGS)
        )
        self.page = self.open_page()
        return self

    def __exit__(self, *_: Any) -> None:
        self._browser.close()
        self._playwright.stop()
        self.stop()

    def start(self, port: int) -> None:
        """Start the viewer, and wait until it says where it is."""
        command = [sys.executable, "-m", "meanflow_ik_core.cli", "view", "--port", str(port)]
        self._process = subprocess.Popen(
            [*command, *self.arguments], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        found = re.search(r"http://\S+:(\d+)", said)
        if found is None:
            self._process.kill()
            raise RuntimeError(f"the viewer said {said!r}")
        self.address, self.port = found[0], int(found[1])

    def stop(self) -> None:
        """End the viewer."""
        self._process.terminate()
        self._process.wait(60)

    def open_page(self) -> Page:
        """Another tab, when it shows what was found."""
        width, height = self.size
        page = self._browser.new_page(
            viewport={"width": width, "height": height}, device_scale_factor=self.scale
        )
        page.set_default_timeout(1e3 * SECONDS)
        page.add_init_script(SELDOM)
        page.on("console", self._note)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.goto(self.address)
        page.wait_for_selector("[data-name=solver]")
        page.get_by_text("Software WebGL rendering detected").wait_for()
        page.locator(".mantine-Notification-closeButton").first.click()
        return page

    def _note(self, message: Any) -> None:
        if message.type == "error":
            self.complaints.append(message.text)

    def readout(self, name: str) -> str:
        """What the panel says of something; empty where it says nothing."""
        found = self.page.locator(f"[data-name='{name}']")
        return found.first.inner_text() if found.count() else ""

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until a condition holds, a while at most."""
        end = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < end, f"not in {SECONDS:g} s: {what}"
            self.page.wait_for_timeout(100)

    def settle(self) -> None:
        """Wait until the coverage is measured, as it is when nothing has changed for a while."""
        self.wait(lambda: "%" in self.readout("coverage"), "the coverage")

    def inputs(self, label: str, nth: int = 0) -> Locator:
        """The inputs after a label, the nth of its name, in the page's order."""
        place = self.page.locator(f"xpath=(//*[normalize-space(text())='{label}'])[{nth + 1}]")
        return place.locator("xpath=following::input[not(@type='hidden')]")

    def type(self, label: str, *values: float | str, nth: int = 0) -> None:
        """Type values into the fields of a label, of the nth one of its name."""
        for index, value in enumerate(values):
            field = self.inputs(label, nth).nth(index)
            field.fill(str(value))
            field.press("Enter")

    def choose(self, label: str, option: str) -> None:
        """Choose an option of a dropdown."""
        self.inputs(label).first.click()
        self.page.get_by_role("option", name=option, exact=True).click()

    def tab(self, name: str) -> None:
        self.page.get_by_role("tab", name=name).click(force=True)  # do not wait for frames

    def check(self, label: str) -> None:
        """Click a checkbox."""
        self.inputs(label).first.click(force=True)

    def press(self, name: str) -> None:
        """Press a button."""
        self.page.get_by_role("button", name=name, exact=True).click(force=True)

    def target(self, xyz: Sequence[float], rpy: Sequence[float], tip: int = 0) -> None:
        """Type a target, in metres and degrees."""
        self.tab("Target")
        self.type("xyz [m]", *xyz, nth=tip)
        self.type("rpy [deg]", *rpy, nth=tip)

    def download(self, button: str) -> bytes:
        """The file that a button of the tab Save gives."""
        self.tab("Save")
        with self.page.expect_download() as download:
            self.press(button)
        return download.value.path().read_bytes()

    def picture(self, path: Path) -> None:
        """Write what the page shows, when it has drawn the newest."""
        for _ in range(3):
            self.page.evaluate("() => new Promise(requestAnimationFrame)")
        self.page.screenshot(path=path, timeout=1e3 * SECONDS)

    def take(self, path: Path, tab: str = "Solve") -> None:
        """Write a picture of a target at rest, solved for often enough for a fair time.

        The panel shows the median of the last solves.
        """
        self.tab("Solve")
        for weight in SOLVES * (1.1, 1.0):
            self.type("seed weight", weight)
        self.tab(tab)
        self.settle()
        self.picture(path)

    def canvas(self) -> np.ndarray:
        """(H, W, 3) pixels left of the panel."""
        data = io.BytesIO()
        for _ in range(3):
            self.page.evaluate("() => new Promise(requestAnimationFrame)")
        data.write(self.page.screenshot(timeout=1e3 * SECONDS, scale="css"))
        return np.array(Image.open(data).convert("RGB"))[:, : self.size[0] - PANEL]


def write_pictures(folder: Path) -> None:
    """Make the pictures of the documentation."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as made:
        found, world = Path(made) / "map.npz", Path(made) / "world.yaml"
        mik.reachability_map("panda", voxel=0.08, orientations=16, processes=1, output=found)
        world.write_text(WORLD)
        with Viewer("--map", str(found), size=SIZE, scale=1.0) as viewer:
            viewer.type("arms", 1)
            viewer.take(folder / "map.png", "Map")
            viewer.check("show the map")
            viewer.tab("Solve")
            viewer.type("arms", 7)
            viewer.target((0.45, 0.0, 0.3), (180, 0, 0))
            viewer.take(folder / "viewer.png")
            viewer.choose("show", "self-motion")
            viewer.wait(lambda: viewer.readout("connected solutions") != "", "an elbow circle")
            viewer.picture(folder / "self_motion.png")
        with Viewer("--world", str(world), size=SIZE, scale=1.0) as viewer:
            viewer.type("arms", 6)
            viewer.target((0.55, 0.0, 0.3), (180, 0, 0))
            viewer.take(folder / "obstacles.png", "World")
    with Viewer("--robot", "dual_panda", size=SIZE, scale=1.0) as viewer:
        viewer.type("arms", 5)
        viewer.take(folder / "two_arms.png", "Target")


if __name__ == "__main__":
    write_pictures(Path(sys.argv[1]))
