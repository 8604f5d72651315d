# SPDX-License-Identifier: Apache-2.0
"""The demo from start to end, as `make demo` runs it."""

import numpy as np
import pinocchio as pin
import pytest
from oracles import Judge, fixed_offset

import meanflow_ik_core as mik
from meanflow_ik_ros.tools import demo


@pytest.fixture
def run_demo(tmp_path, monkeypatch, capfd):
    """The demo in this process, its node in one of its own; exit code, stdout and stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.chdir(tmp_path)
        capfd.readouterr()
        code = 0
        try:
            demo.main(list(arguments))
        except SystemExit as ended:
            code = ended.code
        return code, *capfd.readouterr()

    return run


@pytest.mark.slow
def test_the_demo_prints_ranked_solutions_and_draws_them(run_demo, tmp_path):
    from matplotlib import image

    code, out, err = run_demo("--sampler", "uniform", "--solutions", "6")
    assert code == 0, out + err
    for task in demo.TASKS:
        assert f"{task}: 6 solutions" in out
    assert "ready: robot panda" in err
    assert "the node stopped with exit code 0" in out
    picture = image.imread(tmp_path / "demo.png")[..., :3]
    assert min(picture.shape[:2]) > 500
    # The arms are coloured, the ground and the background grey.
    coloured = np.ptp(picture, axis=-1) > 0.1
    assert 0.05 < coloured.mean() < 0.6
    assert not coloured[[0, -1]].any() and not coloured[:, [0, -1]].any()


def test_a_demo_without_a_node_ends_with_one_line_and_exit_code_1(run_demo, tmp_path):
    code, _, err = run_demo("--sampler", "magic")
    assert code == 1
    assert "unknown sampler 'magic'" in err
    assert "demo: the node ended with exit code 1" in err
    assert "Traceback" not in err
    assert not (tmp_path / "demo.png").exists()


@pytest.mark.parametrize("task", demo.TASKS)
def test_every_task_is_a_rigid_pose_that_the_arm_reaches_without_touching_itself(panda, task):
    position, approach, opening = demo.TASKS[task]
    pose = demo.task_pose(position, approach, opening)
    assert np.linalg.det(pose[:3, :3]) == pytest.approx(1)
    np.testing.assert_allclose(pose[:3, :3].T @ pose[:3, :3], np.eye(3), atol=1e-12)
    offset = fixed_offset(panda, demo.TIP_LINK, "panda_link8")
    target = (pin.SE3(pose) * offset).homogeneous[None]
    solver = mik.load_solver(panda, sampler="uniform")
    result = solver.solve(target, max_solutions=32, seed=0, avoid_self_collision=True)
    assert result.valid.all()
    judge = Judge(panda)
    assert all(judge.accepts(q, target) for q in result.joint_positions[0])
