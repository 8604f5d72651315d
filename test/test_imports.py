# SPDX-License-Identifier: Apache-2.0
"""Each wing owns one dependency, and imports go one way: between wings, inside them, in ROS too."""

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# What stands higher may import what stands lower, that is, earlier in this list. A name is a
# folder, or a module beside the folders.
WINGS = {
    "meanflow_ik_core": (
        "bounds", "errors", "whole_file", "plain_numbers", "plain_yaml", "settings", "progress",
        "tensors", "pictures", "geometry", "kernels", "robot", "network", "cuda", "samplers",
        "collision", "world", "objectives", "solving", "paths", "cluster", "reachability",
        "evaluation", "training", "bench", "view", "commands", "cli",
    ),
    "meanflow_ik_ros": (
        "rare_log", "fair_lock", "fair_queue", "qos", "parameters", "scene_problems",
        "world_objects", "messages", "markers", "current_state", "request_statistics",
        "whereabouts", "scene_change", "memory", "node_world", "planning_scene",
        "unreachable_clients", "own_thread", "turn", "watchdog", "library_services", "process",
        "desk", "follower", "services", "topics", "node", "tools", "console",
    ),
}  # fmt: skip
# Solvers that are compared with, and what they stand on.
PEERS = (
    "PyKDL", "daqp", "eaik", "frankik", "mink", "mujoco", "optik", "pink", "pytracik", "roboplan",
    "roboticstoolbox", "ssik",
)  # fmt: skip
# A dependency and the wings that may import it.
OWNERS = {
    "numba": ("kernels",),
    "llvmlite": ("kernels",),
    "pinocchio": ("robot",),
    "coal": ("collision",),
    "torch": ("network", "training", "cuda"),
    "safetensors": ("network",),
    "tensorboard": ("training",),
    "triton": ("cuda",),
    "distributed": ("cluster",),
    "viser": ("view",),
    "yourdfpy": ("view",),
    "trimesh": ("view",),
    "PIL": ("view",),
    "typer": ("commands",),
    "rich": ("commands",),
    "matplotlib": ("pictures",),
    **dict.fromkeys(PEERS, ()),
}
# Where a dependency stands outside its wing, and why.
GUESTS = {
    ("tensors", "torch"): "says which device can be used",
    ("robot/robot", "torch"): "takes tensors as it takes arrays",
    ("robot/tensor_kinematics", "torch"): "kinematics of tensors stay differentiable",
    ("samplers", "torch"): "samples may be tensors of the network's device",
    ("collision/clearance", "torch"): "takes tensors as it takes arrays",
    ("collision/tensor_clearance", "torch"): "distances of tensors stay differentiable",
    ("collision/tensor_distance", "torch"): "distances of tensors stay differentiable",
    ("collision", "pinocchio"): "Coal's shapes come and move in Pinocchio's geometry models",
    ("objectives", "torch"): "gradients",
    ("solving/guidance", "torch"): "gradients",
    ("solving/null_space", "torch"): "gradients",
    ("solving/tensor_drawing", "torch"): "samples for objectives and on devices",
    ("solving/tensor_refine", "torch"): "refinement by gradients",
    ("evaluation", "torch"): "measures networks",
    ("evaluation/closed_form", "eaik"): "the closed form",
    ("bench", "torch"): "measures networks and the steps of a GPU",
    ("bench/world_problems", "coal"): "the judge checks pair by pair",
    ("bench/world_problems", "pinocchio"): "the judge knows nothing of our kinematics",
    ("bench/judge", "pinocchio"): "the judge knows nothing of our kinematics",
    ("bench/roboplan_scene", "roboplan"): "a solver that is compared with",
    ("bench/peer_solvers/closed_forms", "eaik"): "a solver that is compared with",
    ("bench/peer_solvers/closed_forms", "frankik"): "a solver that is compared with",
    ("bench/peer_solvers/closed_forms", "ssik"): "a solver that is compared with",
    ("bench/peer_solvers/compiled", "PyKDL"): "a solver that is compared with",
    ("bench/peer_solvers/compiled", "optik"): "a solver that is compared with",
    ("bench/peer_solvers/compiled", "pytracik"): "a solver that is compared with",
    ("bench/peer_solvers/compiled", "roboplan"): "a solver that is compared with",
    ("bench/peer_solvers/compiled", "roboticstoolbox"): "a solver that is compared with",
    ("bench/peer_solvers/stepping", "daqp"): "solves the programs of pink and mink",
    ("bench/peer_solvers/stepping", "mink"): "a solver that is compared with",
    ("bench/peer_solvers/stepping", "mujoco"): "mink's models",
    ("bench/peer_solvers/stepping", "pink"): "a solver that is compared with",
    (
        "bench/peer_solvers/stepping",
        "pinocchio",
    ): "a solver that is compared with, and pink's models",
    ("tools", "rich"): "programs that print tables",
    ("tools/render", "matplotlib"): "the picture of the demo",
}
# What imports torch when it is imported: wings and modules. Nothing else may, so that who solves
# can do without. Others import these inside functions, where tensors or objectives come.
WITH_TORCH = {
    "network/kinds", "network/model", "network/tensor_sampler", "network/token_model", "cuda",
    "robot/tensor_kinematics", "collision/tensor_clearance", "collision/tensor_distance",
    "solving/guidance",
    "solving/null_space", "solving/tensor_drawing", "solving/tensor_refine", "evaluation",
    "training", "bench", "objectives/custom", "objectives/joint_limits",
    "objectives/link_direction", "objectives/link_point", "objectives/clearance",
    "objectives/manipulability", "objectives/posture",
}  # fmt: skip
ROS = {
    "ament_index_python", "builtin_interfaces", "diagnostic_msgs", "geometry_msgs",
    "meanflow_ik_ros", "moveit_msgs", "rcl_interfaces", "rclpy", "sensor_msgs", "shape_msgs",
    "std_msgs", "tf2_ros", "tf_transformations", "trajectory_msgs", "visualization_msgs",
}  # fmt: skip
GENERATED = ("msg", "srv")
FILES = {
    package: {
        path.relative_to(ROOT / package).with_suffix("").as_posix(): path
        for path in sorted((ROOT / package).rglob("*.py"))
        if path.parent != ROOT / package or path.name != "__init__.py"
    }
    for package in WINGS
}
MODULES = [(package, module) for package, modules in FILES.items() for module in modules]


def wing_of(module: str) -> str:
    return module.partition("/")[0]


def imported(package: str, module: str, at_import: bool = False) -> tuple[set[str], set[str]]:
    """What a file imports anywhere in it: modules of its package, and other packages.

    Imports inside functions and for type checkers count as well, unless only those that are made
    when the file is imported are asked for.
    """
    path = FILES[package][module]
    here = path.relative_to(ROOT).parts[:-1]
    own, others = set(), set()
    tree = ast.parse(path.read_text())
    for node in made_at_import(tree) if at_import else ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [(alias.name, []) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = here[: len(here) - node.level + 1] if node.level else ()
            dotted = ".".join([*above, *([node.module] if node.module else [])])
            names = [(dotted, [alias.name for alias in node.names])]
        else:
            continue
        for dotted, parts in names:
            first, *rest = dotted.split(".")
            if first != package:
                others.add(first)
                continue
            if rest[:1] and rest[0] in GENERATED:
                continue
            for part in parts or [""]:
                own |= {module_named(package, [*rest, part]) or module_named(package, rest)}
    return own - {"", module}, others


def made_at_import(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes below one that run when the file is imported."""
    for child in ast.iter_child_nodes(node):
        of_types = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
        if not of_types and not isinstance(child, ast.FunctionDef | ast.Lambda):
            yield child
            yield from made_at_import(child)


def module_named(package: str, parts: list[str]) -> str:
    """The module that dotted parts mean, for a folder its own; empty where there is none."""
    name = "/".join(part for part in parts if part)
    found = (module for module in (name, f"{name}/__init__") if module in FILES[package])
    return next(found, "")


@pytest.mark.parametrize("package, module", MODULES, ids=lambda part: part)
def test_a_wing_imports_only_wings_below_it(package, module):
    order, own = WINGS[package], wing_of(module)
    assert own in order, f"give the wing {own!r} its place in WINGS"
    higher = sorted(
        name
        for name in imported(package, module)[0]
        if order.index(wing_of(name)) > order.index(own)
    )
    assert not higher, f"{module} imports {higher}, which stand higher"


@pytest.mark.parametrize("package", WINGS)
def test_no_imports_go_in_a_circle(package):
    graph = {module: imported(package, module)[0] for module in FILES[package]}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"imports go in a circle: {' <- '.join(error.args[1])}")


@pytest.mark.parametrize("package, module", MODULES, ids=lambda part: part)
def test_a_dependency_is_imported_by_its_owner_alone(package, module):
    others = imported(package, module)[1]
    for dependency in sorted(others & OWNERS.keys()):
        allowed = wing_of(module) in OWNERS[dependency] and package == "meanflow_ik_core"
        allowed |= (module, dependency) in GUESTS or (wing_of(module), dependency) in GUESTS
        assert allowed, f"{module} imports {dependency}, which {OWNERS[dependency]} own"


@pytest.mark.parametrize("package, module", MODULES, ids=lambda part: part)
def test_torch_is_imported_by_what_needs_it_alone(package, module):
    own, others = imported(package, module, at_import=True)
    found = {name for name in own if {name, wing_of(name)} & WITH_TORCH} | (others & {"torch"})
    may = package == "meanflow_ik_core" and {module, wing_of(module)} & WITH_TORCH
    assert may or not found, f"{module} imports {found} when it is imported"


@pytest.mark.parametrize("module", FILES["meanflow_ik_core"])
def test_the_core_does_not_import_itself_from_its_root(module):
    """Its root finds public names in any wing, and so would hide which one is meant."""
    depth = module.count("/") + 1
    for node in ast.walk(ast.parse(FILES["meanflow_ik_core"][module].read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == depth and not node.module:
            names = [alias.name for alias in node.names]
            hidden = [name for name in names if not module_named("meanflow_ik_core", [name])]
            assert not hidden, f"{module} imports {hidden} from the root"


@pytest.mark.parametrize("module", FILES["meanflow_ik_core"])
def test_the_core_knows_nothing_of_ros(module):
    assert not imported("meanflow_ik_core", module)[1] & (ROS | {"meanflow_ik_core"})


@pytest.mark.parametrize("guest", GUESTS, ids=str)
def test_a_guest_is_still_there(guest):
    name, dependency = guest
    users = [
        module
        for package, module in MODULES
        if name in (module, wing_of(module)) and dependency in imported(package, module)[1]
    ]
    assert users, f"nothing of {name} imports {dependency} any more: take it out of GUESTS"
