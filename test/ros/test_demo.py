# SPDX-License-Identifier: Apache-2.0
"""The demo from start to end, as `make demo` runs it."""

import subprocess
import sys

import numpy as np
import pinocchio as pin
import pytest
from oracles import Judge

import meanflow_ik_core as mik
from meanflow_ik_ros.tools import demo


def run_demo(folder, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "meanflow_ik_ros.tools.demo", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_the_demo_prints_ranked_solutions_and_draws_them(tmp_path):
    from matplotlib import image

    result = run_demo(tmp_path, "--sampler", "uniform", "--solutions", "6")
    assert result.returncode == 0, result.stdout + result.stderr
    for task in demo.TASKS:
        assert f"{task}: 6 solutions" in result.stdout
    assert "ready: robot panda" in result.stderr
    assert "the node stopped with exit code 0" in result.stdout
    picture = image.imread(tmp_path / "demo.png")[..., :3]
    assert min(picture.shape[:2]) > 500
    # The arms are coloured, the ground and the background grey.
    coloured = np.ptp(picture, axis=-1) > 0.1
    assert 0.05 < coloured.mean() < 0.6
    assert not coloured[[0, -1]].any() and not coloured[:, [0, -1]].any()


def test_a_demo_without_a_node_ends_with_one_line_and_exit_code_1(tmp_path):
    result = run_demo(tmp_path, "--sampler", "magic")
    assert result.returncode == 1
    assert "unknown sampler 'magic'" in result.stderr
    assert "demo: the node ended with exit code 1" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "demo.png").exists()


@pytest.mark.parametrize("task", demo.TASKS)
def test_every_task_is_a_rigid_pose_that_the_arm_reaches_without_touching_itself(task):
    position, approach, opening = demo.TASKS[task]
    pose = demo.task_pose(position, approach, opening)
    assert np.linalg.det(pose[:3, :3]) == pytest.approx(1)
    np.testing.assert_allclose(pose[:3, :3].T @ pose[:3, :3], np.eye(3), atol=1e-12)
    robot = mik.load_robot("panda")
    model = pin.buildModelFromUrdf(str(robot.urdf_path))
    flange, tcp = (
        model.frames[model.getFrameId(name)].placement for name in ("panda_link8", demo.TIP_LINK)
    )
    target = (pin.SE3(pose) * tcp.inverse() * flange).homogeneous[None]
    solver = mik.load_solver(robot, sampler="uniform")
    result = solver.solve(target, max_solutions=32, seed=0, avoid_self_collision=True)
    assert result.valid.all()
    assert all(Judge(robot).accepts(q, target) for q in result.joint_positions[0])
