# SPDX-License-Identifier: Apache-2.0
"""Where files named by package:// lie: ROS packages, the example-robot-data wheel, folders."""

import os
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote, urlparse

from ..bounds import is_file, short
from ..errors import RobotError

EXAMPLE_ROBOT_DATA = "example-robot-data"


def _candidates(package: str, near: Path | None) -> Iterator[Path]:
    """Folders that may be the package's share folder, the most specific first."""
    if near is not None:
        for folder in near.resolve().parents:
            if folder.name == package:
                yield folder
            yield folder / package
    for entry in os.environ.get("ROS_PACKAGE_PATH", "").split(os.pathsep):
        if entry:
            yield Path(entry) if Path(entry).name == package else Path(entry) / package
    for entry in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep):
        if entry:
            yield Path(entry) / "share" / package
    # conda
    yield Path(sys.prefix) / "share" / package
    if package == EXAMPLE_ROBOT_DATA:
        try:
            wheel = metadata.distribution(package)
        except metadata.PackageNotFoundError:
            return
        yield Path(str(wheel.locate_file(f"cmeel.prefix/share/{package}")))


def package_folders(package: str) -> Iterator[Path]:
    """Folders that may be an installed package's share folder."""
    return _candidates(package, None)


def resolve_uri(uri: str, near: Path) -> Path:
    """The file that a URDF at ``near`` means by a path, file:// or package:// address.

    Raises:
        RobotError: no such file; it says which package is missing and how to get it.
    """
    scheme, place = uri.partition("://")[::2]
    shown = short(uri)
    if not place:
        path = near.parent / uri
    elif scheme == "file":
        path = Path(unquote(urlparse(uri).path))
    elif scheme in ("package", "model"):
        package, _, rest = place.partition("/")
        for folder in _candidates(package, near):
            if is_file(folder / rest):
                return folder / rest
        if package == EXAMPLE_ROBOT_DATA:
            raise RobotError(
                f"{shown} is part of example-robot-data, which `pip install '.[robots]'` brings"
            )
        raise RobotError(
            f"{shown}, which {near} names, does not exist: no folder of ROS_PACKAGE_PATH or "
            f"AMENT_PREFIX_PATH, and none around that file, is a package {short(package)!r} with it"
        )
    else:
        raise RobotError(f"{shown}, which {near} names, is no path, file:// or package:// address")
    if not is_file(path):
        raise RobotError(f"{short(path)}, which {near} names, does not exist")
    return path
