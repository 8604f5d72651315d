# SPDX-License-Identifier: Apache-2.0
"""Files that are made once: damaged ones are made anew, and a full disk costs time alone."""

import errno
import os

import pytest

import meanflow_ik_core as mik
from meanflow_ik_core.collision.clearance import SphereModel
from meanflow_ik_core.robot import cache


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "meanflow_ik"


@pytest.mark.parametrize("damage", [b"", b"whol", b"whole thing and more"])
@pytest.mark.parametrize("which", ["thing", "thing.sha256"])
def test_a_damaged_file_is_made_anew_and_a_whole_one_is_not(folder, damage, which):
    made = []

    def write(path):
        made.append(path)
        path.write_bytes(b"whole thing")

    path = cache.cached_file("thing", write)
    assert cache.cached_file("thing", write) == path and len(made) == 1
    (folder / which).write_bytes(damage)
    assert cache.cached_file("thing", write).read_bytes() == b"whole thing" and len(made) == 2
    assert cache.cached_file("thing", write) == path and len(made) == 2


def test_a_robot_with_every_cached_file_cut_short_still_loads_and_finds_clearances(folder):
    q = mik.load_robot("dual_panda")
    q = q.lower + 0.4 * (q.upper - q.lower)
    clearance = SphereModel(mik.load_robot("dual_panda")).distance(q)
    files = sorted(path for path in folder.iterdir() if path.suffix != ".sha256")
    assert {path.suffix for path in files} >= {".npz", ".npy", ".urdf"}
    for path in files:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    robot = mik.load_robot("dual_panda")
    assert SphereModel(robot).distance(q) == clearance


def test_a_full_disk_is_said_once_and_other_folders_serve(folder, monkeypatch, caplog):
    fsync = os.fsync

    def full(handle):
        if os.readlink(f"/proc/self/fd/{handle}").startswith(str(folder)):
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", full)
    for name in ("one", "two", "one"):
        path = cache.cached_file(name, lambda path: path.write_text("content"))
        assert path.read_text() == "content" and not path.is_relative_to(folder)
    assert [record.getMessage().count("No space") for record in caplog.records] == [1]
    assert list(folder.iterdir()) == []
