# SPDX-License-Identifier: Apache-2.0
"""A file that cannot be written leaves what was there, and nothing else."""

import errno
import os

import pytest

import meanflow_ik_core as mik
from meanflow_ik_core.commands.robot_file_draft import draft_robot_file, write_robot_file
from meanflow_ik_core.whole_file import whole_file


@pytest.mark.parametrize("before", [None, "old"])
def test_a_file_appears_whole_or_not_at_all(tmp_path, before):
    path = tmp_path / "file.yaml"
    if before is not None:
        path.write_text(before)
    with pytest.raises(OSError, match="full"), whole_file(path) as draft:
        draft.write_text("half")
        raise OSError(errno.ENOSPC, "full")
    assert (path.read_text() if path.exists() else None) == before
    with whole_file(path) as draft:
        draft.write_text("whole")
        assert (path.read_text() if path.exists() else None) == before
    assert path.read_text() == "whole" and list(tmp_path.iterdir()) == [path]


def test_a_link_and_a_pipe_stay_what_they_are(tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    link.symlink_to(target)
    with whole_file(link) as draft:
        draft.write_text("new")
    assert link.is_symlink() and target.read_text() == "new"
    with whole_file(tmp_path / os.devnull) as draft:
        draft.write_text("gone")
    assert not os.path.isfile(os.devnull)


def test_a_full_disk_leaves_no_robot_file_and_no_world(tmp_path, monkeypatch, panda):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    draft = draft_robot_file(panda.urdf_path, tmp_path / "panda.yaml", panda.base, panda.tips)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(mik.OptionError, match="No space left"):
        write_robot_file(draft, tmp_path / "panda.yaml")
    with pytest.raises(mik.WorldError, match="No space left"):
        mik.World(panda).save(tmp_path / "world.yaml")
    assert not list(tmp_path.iterdir())
