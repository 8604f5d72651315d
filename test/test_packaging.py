# SPDX-License-Identifier: Apache-2.0
"""What pip and colcon install, and what the packages import."""

import importlib.metadata
import importlib.util
import os
import re
import stat
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as ElementTree
import zipfile
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("meanflow_ik_core", "meanflow_ik_ros")


def source_files(*folders):
    """Paths below the root of all files in `folders` that are not made by Python itself."""
    return {
        path.relative_to(ROOT).as_posix()
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def run_python(code, path, cwd):
    environment = {**os.environ, "PYTHONPATH": str(path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=cwd, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_setup(*arguments):
    command = [sys.executable, "setup.py", "--quiet", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Folder with the Python packages as setuptools builds them."""
    folder = tmp_path_factory.mktemp("built")
    run_setup("build_py", "--build-lib", folder)
    return folder


@pytest.fixture(scope="module")
def setup_script():
    spec = importlib.util.spec_from_file_location("setup_script", ROOT / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_one_version_everywhere():
    manifest = ElementTree.parse(ROOT / "package.xml").findtext("version")
    changelog = re.search(r"^(\d+\.\d+\.\d+) \(", (ROOT / "CHANGELOG.rst").read_text(), re.M)
    core = run_python("import meanflow_ik_core as m; print(m.__version__)", ROOT, ROOT).strip()
    installed = importlib.metadata.version("meanflow-ik-ros")
    assert changelog is not None
    assert {changelog[1], core, installed} == {manifest}


def test_build_ships_every_file_of_both_packages(built):
    shipped = {path.relative_to(built).as_posix() for path in built.rglob("*") if path.is_file()}
    assert shipped == source_files(*PACKAGES)


def test_built_core_finds_its_robots_and_their_urdf(built, tmp_path):
    code = (
        "import meanflow_ik_core as mik\n"
        "print(mik.load_robot('panda').urdf_path, mik.load_robot('dual_panda').num_joints)\n"
        "print(*mik.available_robots())\n"
    )
    first, second = run_python(code, built, tmp_path).splitlines()
    urdf, joints = first.rsplit(" ", 1)
    assert Path(urdf).is_relative_to(built) and joints == "14"
    assert {"panda", "dual_panda", "baxter", "tiago_pro", "g1"} <= set(second.split())


def test_core_imports_nothing_of_ros(built, tmp_path):
    code = (
        "import importlib, pkgutil, sys\n"
        "import meanflow_ik_core as core\n"
        "for module in pkgutil.walk_packages(core.__path__, 'meanflow_ik_core.'):\n"
        "    importlib.import_module(module.name)\n"
        "print(*{name.partition('.')[0] for name in sys.modules})\n"
    )
    loaded = set(run_python(code, built, tmp_path).split())
    assert {"meanflow_ik_core", "torch"} <= loaded
    ros = {"rclpy", "meanflow_ik_ros", "ament_index_python", "tf2_ros", "launch", "rosidl_parser"}
    assert not loaded & ros
    assert not [name for name in loaded if name.endswith("_msgs")]


def test_pip_is_told_to_install_from_here_with_extras_that_exist():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = extras["optional-dependencies"]
    texts = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "Makefile"]
    texts += [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    named = set()
    for path in texts:
        text = path.read_text()
        assert not re.search(r"pip install '?meanflow", text), f"{path} names a package index"
        named |= set(re.findall(r"pip install '\.\[(\w+)\]'", text))
    assert {"ros", "train", "robots", "bench", "demo"} <= named <= set(extras)


def test_solving_is_installed_without_torch():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert not any(name.startswith("torch") for name in project["dependencies"])
    assert any(n.startswith("torch") for n in project["optional-dependencies"]["train"])


def test_import_of_the_core_package_is_light(built, tmp_path):
    code = "import sys, meanflow_ik_core; print(*sys.modules)"
    loaded = set(run_python(code, built, tmp_path).split())
    assert "meanflow_ik_core" in loaded
    assert not loaded & {"torch", "numpy", "numba", "pinocchio", "safetensors", "typer"}


def test_sdist_holds_what_a_build_needs(tmp_path):
    run_setup("egg_info", "--egg-base", tmp_path, "sdist", "--dist-dir", tmp_path)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    needed = source_files(*PACKAGES, "config", "docs", "launch", "msg", "scripts", "srv", "test")
    needed |= {"CHANGELOG.rst", "CMakeLists.txt", "LICENSE", "package.xml", "pyproject.toml"}
    needed |= {"README.md", "CONTRIBUTING.md", "QUALITY_DECLARATION.md", "Makefile", "setup.py"}
    assert needed <= names
    assert not [name for name in names if name.endswith((".pyc", ".so"))]


@pytest.mark.slow
def test_wheel_holds_interfaces_programs_and_the_ament_index(tmp_path):
    offline = ("--quiet", "--no-deps", "--no-index", "--no-build-isolation")
    command = [sys.executable, "-m", "pip", "wheel", *offline, "--wheel-dir", tmp_path, ROOT]
    subprocess.run(command, check=True)
    (wheel,) = tmp_path.glob("meanflow_ik_ros-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        modes = {info.filename: info.external_attr >> 16 for info in archive.infolist()}
    data = f"{'-'.join(wheel.name.split('-')[:2])}.data/data"
    for name in (
        "meanflow_ik_ros/msg/_ik_solution_array.py",
        "meanflow_ik_ros/srv/_get_ik_solutions.py",
        "meanflow_ik_ros/meanflow_ik_ros_s__rosidl_typesupport_c.so",
        "meanflow_ik_core/robots/panda.urdf",
        "meanflow_ik_core/recipes/panda.yaml",
        "meanflow_ik_core/recipes/study/base/small.yaml",
        f"{data}/lib/libmeanflow_ik_ros__rosidl_typesupport_c.so",
        f"{data}/share/ament_index/resource_index/packages/meanflow_ik_ros",
        f"{data}/share/meanflow_ik_ros/srv/GetIKSolutions.srv",
        f"{data}/share/meanflow_ik_ros/package.xml",
    ):
        assert name in modes
    for name in ("solver_node", "demo", "bench", "send_goal", "meanflow-ik"):
        assert modes[f"{data}/lib/meanflow_ik_ros/{name}"] & stat.S_IXUSR
    for name in source_files("config", "launch"):
        assert f"{data}/share/meanflow_ik_ros/{name}" in modes
    assert not [name for name in modes if "egg-info" in name or "__pycache__" in name]


def test_run_time_wheels_in_ament_prefix_path_are_not_built_with(
    setup_script, monkeypatch, tmp_path
):
    run_time, overlay, build = tmp_path / "run_time", tmp_path / "overlay", tmp_path / "build"
    (run_time / "share/rclpy/cmake").mkdir(parents=True)
    (build / "share/ament_cmake/cmake").mkdir(parents=True)
    package = tmp_path / "wheels/lib/python3/site-packages/ament_package"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    monkeypatch.setattr(sys, "path", [str(package.parent), *sys.path])
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(run_time))
    assert setup_script.ros_prefixes() == [tmp_path / "wheels"]
    monkeypatch.delenv("AMENT_PREFIX_PATH")
    assert setup_script.ros_prefixes() == [tmp_path / "wheels"]
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"{overlay}{os.pathsep}{build}")
    assert setup_script.ros_prefixes() == [overlay, build]


def test_extra_build_covers_the_build_requirements():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extra = set(project["project"]["optional-dependencies"]["build"])
    assert extra >= set(project["build-system"]["requires"])


def test_jazzy_has_everything_that_is_named_of_kilted():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    named = [*extras["ros"], *extras["build"]]
    lines = (ROOT / ".ci" / "jazzy.txt").read_text().splitlines()
    listed = {re.split("==|>", line)[0] for line in lines if not line.startswith("#")}
    wanted = {re.split("==|>", name)[0].replace("-kilted-", "-jazzy-") for name in named}
    # It is a part of that before Kilted.
    wanted.remove("ros-jazzy-ament-cmake-ros-core")
    assert wanted | {"ros-jazzy-ament-cmake-ros"} <= listed


INTERFACES = {
    "msg.IKSolution": {
        "joint_state": "sensor_msgs/JointState",
        "position_error": "sequence<double>",
        "orientation_error": "sequence<double>",
        "distance": "double",
        "cost": "double",
        "valid": "boolean",
        "clearance": "double",
        "world_clearance": "double",
        "touches": "sequence<string>",
        "objective_values": "sequence<double>",
    },
    "msg.IKSolutionArray": {
        "header": "std_msgs/Header",
        "targets": "sequence<geometry_msgs/PoseStamped>",
        "solutions": "sequence<meanflow_ik_ros/IKSolution>",
    },
    "srv.GetIKSolutions.Request": {
        "targets": "sequence<geometry_msgs/PoseStamped>",
        "tip_links": "sequence<string>",
        "free_axes": "sequence<string>",
        "seed_state": "sensor_msgs/JointState",
        "num_samples": "uint32",
        "max_solutions": "uint32",
        "avoid_self_collision": "boolean",
        "avoid_world": "boolean",
        "objectives": "sequence<string>",
    },
    "srv.GetIKSolutions.Response": {
        "error_code": "int32",
        "message": "string",
        "solutions": "sequence<meanflow_ik_ros/IKSolution>",
        "sample_time": "double",
        "refine_time": "double",
        "total_time": "double",
    },
    # As moveit_msgs/CollisionObject, but for its type and subframes; the last three are ours.
    "msg.WorldObject": {
        "header": "std_msgs/Header",
        "pose": "geometry_msgs/Pose",
        "id": "string",
        "primitives": "sequence<shape_msgs/SolidPrimitive>",
        "primitive_poses": "sequence<geometry_msgs/Pose>",
        "meshes": "sequence<shape_msgs/Mesh>",
        "mesh_poses": "sequence<geometry_msgs/Pose>",
        "planes": "sequence<shape_msgs/Plane>",
        "plane_poses": "sequence<geometry_msgs/Pose>",
        "operation": "uint8",
        "padding": "double",
        "convex": "boolean",
        "frame_locked": "boolean",
    },
}


@pytest.mark.parametrize("name", INTERFACES)
def test_interface_has_its_fixed_fields(name):
    module, *attributes = name.split(".")
    message = importlib.import_module(f"meanflow_ik_ros.{module}")
    for attribute in attributes:
        message = getattr(message, attribute)
    assert message.get_fields_and_field_types() == INTERFACES[name]


def test_error_codes_are_those_of_moveit():
    from meanflow_ik_ros.srv import ApplyWorld, GetIKPath, GetIKSolutions, GetIKSolutionsBatch

    codes = {
        "SUCCESS": 1,
        "GOAL_IN_COLLISION": -12,
        "NO_IK_SOLUTION": -31,
        "FRAME_TRANSFORM_FAILURE": -21,
        "INVALID_LINK_NAME": -18,
        "INVALID_ROBOT_STATE": -17,
        "INVALID_GOAL_CONSTRAINTS": -16,
        "COLLISION_CHECKING_UNAVAILABLE": -22,
        "FAILURE": 99999,
    }
    for service in (GetIKSolutions, GetIKSolutionsBatch, GetIKPath):
        assert {name: getattr(service.Response, name) for name in codes} == codes
    assert ApplyWorld.Response.INVALID_OBJECT_NAME == -19
    shared = [name for name in codes if hasattr(ApplyWorld.Response, name)]
    assert {name: getattr(ApplyWorld.Response, name) for name in shared} == {
        name: codes[name] for name in shared
    }
