# SPDX-License-Identifier: Apache-2.0
"""The core's modules import one way, and never ROS."""

import ast
from pathlib import Path

import pytest

CORE = Path(__file__).parents[1] / "meanflow_ik_core"
ORDER = (
    "errors", "geometry", "cache", "packages", "urdf", "kinematic_tree", "composition",
    "robot_file", "robot", "simd", "collision_shapes", "collision", "add_robot", "sphere_fit",
    "sphere_bodies", "sphere_kernel", "clearance", "tiles", "kernels", "model", "token_model",
    "networks", "one_step", "configurations", "losses", "checkpoint", "samplers", "partial_goals",
    "objectives", "guidance", "torch_step", "recombination", "refine", "null_space", "ranking",
    "inputs", "search", "solver", "joint_steps", "strands", "path_smoothing", "path_search", "path",
    "validation", "train_config", "train_objective", "train_processes", "train_report", "training",
    "closed_form", "near_limits", "distribution", "posterior", "exactness", "draws", "evaluation",
    "study", "plots", "bench", "printing", "goal_options", "cli",
)  # fmt: skip
FILES = sorted(path for path in CORE.rglob("*.py") if path != CORE / "__init__.py")


def part_of(path: Path) -> str:
    return path.relative_to(CORE).parts[0].removesuffix(".py")


def imported(path: Path) -> tuple[set[str], set[str]]:
    """Parts of the core, and top-level packages, that a file imports anywhere in it."""
    parts, packages = set(), set()
    depth = len(path.relative_to(CORE).parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            packages.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            packages.add((node.module or "").split(".")[0])
        elif isinstance(node, ast.ImportFrom) and node.level == depth:
            names = [node.module] if node.module else [alias.name for alias in node.names]
            parts.update(name.split(".")[0] for name in names)
    return parts - {"__version__"}, packages


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CORE)))
def test_a_module_imports_only_modules_before_it(path):
    parts, packages = imported(path)
    assert part_of(path) in ORDER, "name the new module in ORDER, at its place"
    own = ORDER.index(part_of(path))
    later = [part for part in parts if part in ORDER and ORDER.index(part) > own]
    assert not later, f"{path.name} imports {later}, which come after it"
    ros = {
        "rclpy",
        "geometry_msgs",
        "sensor_msgs",
        "meanflow_ik_ros",
        "tf2_ros",
        "ament_index_python",
    }
    assert not packages & (ros | {"meanflow_ik_core"})
