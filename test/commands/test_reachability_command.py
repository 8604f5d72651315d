# SPDX-License-Identifier: Apache-2.0
"""`meanflow-ik reachability`, and `solve` in chunks, as a user calls them."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress

import numpy as np
import pytest

import meanflow_ik_core as mik

MAP = ("reachability", "--box", "0.4 -0.1 0.4 0.6 0.1 0.6", "--processes", 1, "--orientations", 4)


def test_a_map_is_made_once_and_drawn(run, tmp_path):
    path, picture = tmp_path / "map.npz", tmp_path / "map.png"
    done = run(*MAP, "--voxel", 0.1, "--output", path, "--picture", picture)
    assert done.returncode == 0 and "panda_link8 reaches 8 of 8 voxels" in done.stdout
    assert picture.stat().st_size > 10_000
    before = path.stat().st_mtime_ns
    again = json.loads(run(*MAP, "--voxel", 0.1, "--output", path, "--json").stdout)
    assert path.stat().st_mtime_ns == before
    assert again["voxels_reached"] == 8 and again["volume_reached"] == pytest.approx(8e-3)
    found = mik.ReachabilityMap.load(path)
    assert again["mean_of_voxels_reached"]["branches"] == found.of_voxels("branches").mean()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--voxel", -1), "voxel is -1.0; it must be a positive length"),
        (("--box", "1 2 3"), "--box is '1 2 3'; it must be six numbers"),
        (("--box", "0 0 0 1 1 1_0"), "--box is '0 0 0 1 1 1_0'; it must be six numbers"),
        (("--robot", "dual_panda"), "has the tips left_panda_link8, right_panda_link8"),
        (("--robot", "dual_panda", "--tip", "left"), "'left'"),
        (("--output", "/nowhere/map.npz"), "there is no folder /nowhere"),
        (("--scheduler", "nowhere"), "no Dask scheduler answers at 'nowhere'"),
        (("--processes", 0), "processes is 0"),
        (("--free-axes", "up"), "axes are x y z rx ry rz"),
        (("--starts", -2), "starts is -2"),
        (("--picture", "map.txt"), "the picture is map.txt; its suffix is one of"),
    ],
)
def test_a_map_that_cannot_be_is_said_in_a_line(run, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    done = run(*MAP, "--voxel", 0.1, *arguments)
    assert done.returncode == 2 and message in done.stderr
    assert done.stderr.count("meanflow-ik:") == 1
    assert not (tmp_path / "reachability.npz").exists()


def test_a_picture_is_not_the_map(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run(*MAP, "--voxel", 0.1, "--output", "map.png", "--picture", "./map.png")
    assert done.returncode == 2 and "is the file of --output" in " ".join(done.stderr.split())


def test_ctrl_c_twice_ends_all_processes(tmp_path):
    """The second one comes while the first one is dealt with."""
    command = [sys.executable, "-m", "meanflow_ik_core.cli", "reachability", "--voxel", "0.05"]
    command += ["--output", str(tmp_path / "map.npz"), "--processes", "2"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, process_group=0,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    try:
        time.sleep(6.0)  # in which it has workers
        for _ in range(2):
            os.killpg(process.pid, signal.SIGINT)
            time.sleep(0.3)
        process.communicate(timeout=30)  # workers hold the pipes too
        # The second one ends Python itself where it has forgotten its handlers already.
        assert process.returncode in (130, -signal.SIGINT)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def test_a_picture_needs_matplotlib_before_the_map(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    done = run(*MAP, "--voxel", 0.1, "--picture", "map.png")
    assert done.returncode == 2 and "pip install '.[demo]'" in done.stderr
    assert not (tmp_path / "reachability.npz").exists()


def test_ctrl_c_says_what_is_there_and_the_same_command_goes_on(tmp_path):
    """A part of the map is done at the second line of progress, none of it at the first."""
    path = tmp_path / "map.npz"
    command = [sys.executable, "-m", "meanflow_ik_core.cli", *map(str, MAP), "--voxel", "0.03"]
    command += ["--orientations", "64", "--starts", "16", "--output", str(path)]

    def stopped_at(chunk: int) -> str:
        terminal, end = os.openpty()  # where every line of progress is written at once
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=end, text=True, process_group=0,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )  # fmt: skip
        os.close(end)
        said = ""
        while not any(int(done) >= chunk for done in re.findall(r"voxels: (\d+) of", said)):
            said += os.read(terminal, 1000).decode()
        os.killpg(process.pid, signal.SIGINT)
        stdout, _ = process.communicate(timeout=60)
        os.close(terminal)
        assert process.returncode == 130
        return stdout

    assert stopped_at(1) == f"stopped before a part was done; there is no {path} yet\n"
    assert not path.exists()
    assert stopped_at(2) == f"stopped; {path} has what is done, and the same command goes on\n"
    assert not mik.ReachabilityMap.load(path).complete
    subprocess.run(command, check=True, capture_output=True)
    assert mik.ReachabilityMap.load(path).complete


def test_poses_are_solved_in_chunks_into_a_file(run, tmp_path, panda):
    poses, path = tmp_path / "poses.npy", tmp_path / "solutions.npz"
    targets = panda.forward(panda.random_configurations(5, np.random.default_rng(0)))[:, 0]
    np.save(poses, targets)
    chunked = ("solve", "--poses", poses, "--sampler", "uniform", "--processes", 1)
    done = run(*chunked, "--output", path)
    assert done.returncode == 0 and f"5 of 5 poses have solutions: {path}" in done.stdout
    printed = json.loads(run(*chunked, "--json").stdout)
    plain = json.loads(run(*chunked[:-2], "--seed", 0, "--json").stdout)
    with np.load(path) as kept:
        for answer in (printed, plain):
            np.testing.assert_array_equal(answer["joint_positions"], kept["joint_positions"])


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--xyz", 0.4, 0, 0.5, "--rpy", 3, 0, 0, "--processes", 1), "are for --poses"),
        (("--poses", "poses.npy", "--processes", 1, "--timeout", 1), "no limit of time"),
        (("--poses", "poses.npy", "--output", "/nowhere/a.npz"), "there is no folder /nowhere"),
    ],
)
def test_chunks_that_cannot_be_are_refused(run, tmp_path, monkeypatch, panda, arguments, message):
    monkeypatch.chdir(tmp_path)
    np.save("poses.npy", panda.forward(0.5 * (panda.lower + panda.upper)))
    done = run("solve", "--sampler", "uniform", *arguments)
    assert done.returncode == 2 and message in done.stderr
