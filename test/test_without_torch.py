# SPDX-License-Identifier: Apache-2.0
"""Who solves does not import torch: each way in, in a process of its own."""

import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

ROOT = str(Path(__file__).parents[1])

PANDA = """
import numpy as np
import meanflow_ik_core as mik
solver = mik.load_solver("panda", sampler={sampler!r})
robot = solver.robot
q = 0.4 * robot.lower + 0.6 * robot.upper
T = robot.forward(q)
"""
TREE = """
import numpy as np
import meanflow_ik_core as mik
solver = mik.load_solver("dual_panda", sampler={sampler!r})
robot = solver.robot
T = robot.forward(0.4 * robot.lower + 0.6 * robot.upper)[None]
"""
DOORS = {
    "import": (PANDA, "[getattr(mik, name) for name in mik.__all__]"),
    "kinematics": (PANDA, "assert robot.jacobian([q, q]).shape == (2, 1, 6, 7)"),
    "random": (
        PANDA,
        "assert robot.random_configurations(4, np.random.default_rng(0)).shape == (4, 7)",
    ),
    "solve": (PANDA, "assert solver.solve(T).valid.all()"),
    "seeded": (PANDA, "assert solver.solve(T, seed_state=q, max_solutions=1).valid.all()"),
    "diverse": (PANDA, "assert solver.solve(T, select='diverse', timeout=5.0).valid.all()"),
    "several passes": (
        PANDA,
        "solver.starts_per_pass = 8; assert solver.solve(T, timeout=5.0).valid.any()",
    ),
    "self-collision": (
        PANDA,
        "r = solver.solve(T, avoid_self_collision=True, max_solutions=4);"
        "assert r.valid.any() and np.isfinite(r.clearance).any()",
    ),
    "free axes": (
        PANDA,
        "r = solver.solve(T, free_axes={robot.tips[0]: 'rz'}, avoid_self_collision=True);"
        "assert r.valid.all()",
    ),
    "self-motions": (PANDA, "assert len(solver.self_motions(q)) == 1"),
    "sample": (PANDA, "assert isinstance(solver.sample(T, 5, seed=0), np.ndarray)"),
    "path": (
        PANDA,
        "assert mik.solve_path(solver, np.stack([T, T]), seed=0).valid",
    ),
    "several tips": (TREE, "assert solver.solve(T, avoid_self_collision=True).valid.any()"),
    "some tips": (
        TREE,
        "r = solver.solve(T[:, :1], tips=robot.tips[:1], free_axes={robot.tips[0]: 'rz'});"
        "assert r.valid.all()",
    ),
    "partial samples": (
        TREE,
        "r = solver.sample(T, 5, free_axes={robot.tips[0]: 'rz', robot.tips[1]: 'rx ry rz'});"
        "assert r.shape == (1, 5, 14)",
    ),
}
COMMAND = """
import sys
from meanflow_ik_core.commands.app import app
sys.argv = [
    "meanflow-ik", "solve", "--xyz", "0.4", "0", "0.5", "--rpy", "3.14", "0", "0",
    "--sampler", {sampler!r}, "--avoid-self-collision",
]
try:
    app()
except SystemExit as end:
    assert not end.code
"""
NODE = """
import rclpy
from rclpy.parameter import Parameter
from meanflow_ik_ros.messages.poses import pose_message
from meanflow_ik_ros.node import MeanFlowIKNode
from meanflow_ik_ros.services import solutions
from meanflow_ik_ros.srv import GetIKSolutions

rclpy.init()
node = MeanFlowIKNode(
    parameter_overrides=[Parameter("sampler", value={sampler!r}), Parameter("num_threads", value=3)]
)
robot = node.desk.robot
poses = robot.forward(0.4 * robot.lower + 0.6 * robot.upper)
request = GetIKSolutions.Request(targets=[pose_message(pose, robot.base) for pose in poses])
response = solutions.answer(node.desk, request, GetIKSolutions.Response())
assert response.error_code == response.SUCCESS, response.message
"""
AND_WITH_OBJECTIVES = """
request.objectives = ["manipulability"]
response = solutions.answer(node.desk, request, GetIKSolutions.Response())
assert response.error_code == response.SUCCESS, response.message
assert sys.modules["torch"].get_num_threads() == 3
node.destroy_node()
rclpy.shutdown()
"""
LEFT_OUT = """
import sys
assert "torch" not in sys.modules
"""
MISSING = """
import sys


class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, NoTorch())
import importlib.util
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == "torch" else find_spec(name, *more)
from meanflow_ik_core.commands.app import main
sys.argv = ["meanflow-ik", *sys.argv[1:]]
main()
"""
samplers = pytest.mark.parametrize("sampler", ["uniform", "meanflow"])


def run(script: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONFAULTHANDLER": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@samplers
def test_solving_leaves_torch_out(sampler):
    """Door by door in one process, so that the first that imports torch is named."""
    doors = [
        f"{start}\n{call}\nassert 'torch' not in sys.modules, {name!r}"
        for name, (start, call) in DOORS.items()
    ]
    run("import sys\n" + "\n".join(doors).replace("{sampler!r}", repr(sampler)))


@samplers
def test_the_command_solve_leaves_torch_out(sampler):
    run(COMMAND.format(sampler=sampler) + LEFT_OUT)


@samplers
def test_the_node_leaves_torch_out_until_there_are_objectives(sampler):
    """Then torch gets the threads of the parameter."""
    run(NODE.format(sampler=sampler) + LEFT_OUT + AND_WITH_OBJECTIVES)


def test_torch_comes_with_objectives_tensors_and_other_refinements():
    """Lazily, and then everything is as if it had been there before."""
    script = (
        PANDA.format(sampler="meanflow")
        + """
import sys
before = solver.sample(T, 5, seed=0)
assert solver.solve(T, seed=0, objectives=["manipulability"]).valid.all()
assert "torch" in sys.modules
import torch
tensor = solver.sample(torch.from_numpy(T), 5, seed=0)
np.testing.assert_array_equal(tensor.numpy(), before)
assert solver.solve(torch.from_numpy(T), refinement="adam", seed=0).joint_positions.size
"""
    )
    run(script)


@pytest.mark.parametrize(
    "arguments",
    [
        ("solve", "--xyz", "0.4", "0", "0.5", "--rpy", "3", "0", "0", "--objective", "posture"),
        ("evaluate", "--sampler", "uniform", "--poses", "2"),
        ("train", "--set", "iterations=1"),
        ("bench", "kinematics", "--set", "configurations=2"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_where_torch_is_not_installed_one_line_says_how_to_get_it(arguments, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", MISSING, *arguments],
        cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([ROOT, os.environ.get("PYTHONPATH", "")])},
    )  # fmt: skip
    assert done.returncode == 2, done.stdout + done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert "need" in line and "torch" in line and "pip install '.[train]'" in line


def test_torch_that_another_thread_is_importing_is_not_asked(monkeypatch):
    from meanflow_ik_core.tensors import is_tensor, set_num_threads

    monkeypatch.setitem(sys.modules, "torch", types.ModuleType("torch"))
    assert not is_tensor(1.0)
    set_num_threads(3)
