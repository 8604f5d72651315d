# SPDX-License-Identifier: Apache-2.0
"""The documentation as a site: it builds without warnings, and its reference is complete."""

import html
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import meanflow_ik_core as mik
from meanflow_ik_core.commands.app import app
from meanflow_ik_ros.parameters import NodeParameters

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
INTERFACES = sorted([*(ROOT / "msg").iterdir(), *(ROOT / "srv").iterdir()])


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The folder of the built pages; a warning is an error."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "--quiet",
         "--doctree-dir", str(folder / "doctrees"), str(DOCS), str(folder / "pages")],
        capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / "pages"


def text_of(page: Path) -> str:
    return html.unescape(re.sub(r"<[^>]+>", "", page.read_text()))


def test_every_page_is_built(site):
    for page in DOCS.rglob("*.md"):
        assert (site / page.relative_to(DOCS).with_suffix(".html")).is_file()


def test_every_public_name_is_in_the_reference(site):
    page = (site / "reference" / "python.html").read_text()
    missing = [name for name in mik.__all__ if f'id="meanflow_ik_core.{name}"' not in page]
    assert not missing


def test_public_arrays_say_their_shapes(site):
    page = text_of(site / "reference" / "python.html")
    for shape in ("(B, M, J) float64 rad or m", "(P, J) rad or m", "(T,) m"):
        assert shape in page


@pytest.mark.parametrize("path", INTERFACES, ids=lambda path: path.stem)
def test_every_field_and_constant_of_an_interface_is_in_the_reference(site, path):
    page = (site / "reference" / "interfaces.html").read_text()
    section = page.split(f'id="{path.stem.lower()}"')[1].split("</section>")[0]
    found = set(re.findall(r'<span class="pre">(\w+)</span>', section))
    interface = getattr(import_module(f"meanflow_ik_ros.{path.parent.name}"), path.stem)
    parts = [interface] if path.suffix == ".msg" else [interface.Request, interface.Response]
    for part in parts:
        fields = set(part.get_fields_and_field_types()) - {"structure_needs_at_least_one_member"}
        assert fields <= found
        constants = {name for name in dir(type(part)) if name.isupper() and name[0] != "_"}
        assert {name for name in constants if not name.endswith("__DEFAULT")} <= found


def test_every_parameter_and_command_is_in_the_reference(site):
    page = text_of(site / "reference" / "parameters.html")
    assert all(f"\n{name}\n" in page for name in vars(NodeParameters()))
    page = text_of(site / "reference" / "command_line.html")
    for command in app.registered_commands:
        name = command.name or command.callback.__name__.replace("_", "-")
        assert f"Usage: meanflow-ik {name}" in page


@pytest.mark.slow
def test_the_pictures_are_drawn_by_the_command(tmp_path):
    done = subprocess.run(
        [sys.executable, str(DOCS / "figures.py"), "--out", str(tmp_path / "images"),
         "--runs", str(tmp_path / "runs"), "--iterations", "2"],
        capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    drawn = {path.name for path in (tmp_path / "images").iterdir()}
    texts = "".join(
        (DOCS / page).read_text() for page in ("concepts.md", "sampler.md", "training.md")
    )
    shown = set(re.findall(r"\(images/(\w+\.png)\)", texts))
    assert drawn == shown
    assert all((DOCS / "images" / name).stat().st_size < 150_000 for name in shown)
