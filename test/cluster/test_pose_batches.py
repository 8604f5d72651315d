# SPDX-License-Identifier: Apache-2.0
"""Many poses in chunks: the answers of one call, wherever they are computed."""

import os
import signal
import threading
import time

import numpy as np
import pytest

import meanflow_ik_core as mik
from meanflow_ik_core.cluster import pose_batches
from meanflow_ik_core.cluster.pose_batches import solve_in_chunks, solve_into_file


@pytest.mark.slow
def test_a_cluster_of_which_a_worker_is_killed_answers_as_one_process_does(cluster, panda):
    solver = mik.load_solver(panda, sampler="uniform")
    poses = panda.forward(panda.random_configurations(1500, np.random.default_rng(0)))
    options = {"max_solutions": 4, "seed": 5}
    victims = [worker.process.pid for worker in cluster.workers.values()]
    killed = threading.Event()

    def kill_one_at_work():
        # The scheduler knows which worker computes.
        while not any(state.processing for state in cluster.scheduler.workers.values()):
            time.sleep(0.01)
        os.kill(victims[0], signal.SIGKILL)
        killed.set()

    killer = threading.Thread(target=kill_one_at_work)
    killer.start()
    shared = solve_in_chunks(solver, poses, options, scheduler=cluster.scheduler_address)
    killer.join()
    assert killed.is_set()
    alone = solver.solve(poses, **options)
    np.testing.assert_array_equal(shared.joint_positions, alone.joint_positions)
    np.testing.assert_array_equal(shared.valid, alone.valid)
    np.testing.assert_array_equal(shared.status, alone.status)
    assert shared.starts == alone.starts


def test_work_in_chunks_needs_a_seed_and_no_limit_of_time(uniform):
    poses = np.eye(4)[None]
    with pytest.raises(mik.OptionError, match="seed"):
        solve_in_chunks(uniform, poses, {"seed": None})
    with pytest.raises(mik.OptionError, match="timeout is 1"):
        solve_in_chunks(uniform, poses, {"seed": 0, "timeout": 1.0})


def test_no_poses_make_an_empty_result(uniform):
    result = solve_in_chunks(uniform, np.empty((0, 4, 4)), {"seed": 0}, processes=1)
    assert result.valid.shape == (0, 32)


def test_a_file_of_solutions_has_what_one_call_answers(uniform, tmp_path, monkeypatch):
    monkeypatch.setattr(pose_batches, "_POSES_PER_CHUNK", 7)
    robot, path = uniform.robot, tmp_path / "solutions.npz"
    poses = robot.forward(robot.random_configurations(20, np.random.default_rng(0)))[:, 0]
    poses[3, :3, 3] = 9.0  # out of reach
    options = {"max_solutions": 3, "seed": 1}
    arrays = solve_into_file(uniform, poses, options, path, processes=1)
    whole = uniform.solve(poses, **options)
    with np.load(path) as kept:
        for name, array in arrays.items():
            np.testing.assert_array_equal(array, getattr(whole, name))
            np.testing.assert_array_equal(array, kept[name])
    assert arrays["status"][3] == mik.Status.BEYOND_REACH
    with pytest.raises(mik.OutputError, match="is of seed 1, not 2"):
        solve_into_file(uniform, poses, {**options, "seed": 2}, path, processes=1)
