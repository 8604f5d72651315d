# SPDX-License-Identifier: Apache-2.0
"""Meshes from files, read by another process and checked before a hull or a tree is made of them.

What was read is kept in the cache, so that the process is started for new files alone.
"""

import hashlib
import os
import select
import subprocess
import sys
import zipfile
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import coal
import numpy as np

from ..bounds import (
    FARTHEST_CORNER,
    MESH_MEMORY,
    MESH_SECONDS,
    MOST_CORNERS,
    MOST_MESH_BYTES,
    MOST_TRIANGLES,
    check_file_size,
    short,
)
from ..errors import IKError
from ..robot.cache import cached_file

_WORKER = Path(__file__).with_name("mesh_worker.py")
# Files whose geometry is all in themselves.
_ALONE = (".stl", ".obj", ".dae", ".ply")
_START_SECONDS = 30.0  # that the worker may take to import Coal, on a busy machine


class Mesh(NamedTuple):
    """Corners (V, 3), in the unit of the file, and triangles (F, 3) int64 between them."""

    corners: np.ndarray
    triangles: np.ndarray


class MeshReader:
    """Reads mesh files in a process of its own, which ends with the ``with`` block.

    Args:
        error: class of what is raised for a bad file.
    """

    def __init__(self, error: type[IKError]):
        self._error = error
        self._worker: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "MeshReader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._end()

    def read(self, path: Path, what: str) -> Mesh:
        """The mesh of a file.

        Args:
            path: of the file.
            what: what it is, for messages.

        Raises:
            IKError: of the class of this reader; the file does not exist, cannot be read, takes too
                long, or has corners that are not finite or too far away, or too many of something.
        """
        check_file_size(path, MOST_MESH_BYTES, self._error)
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        suffix = path.suffix.lower()
        if suffix not in _ALONE:
            stat = path.stat()
            content += f"{path.resolve()}{stat.st_mtime_ns}"
        digest = hashlib.sha256(f"1 {suffix} {content}".encode()).hexdigest()
        name = f"mesh-{digest[:32]}.npz"
        kept = cached_file(name, lambda draft: self._ask(path, draft, what))
        try:
            with np.load(kept, allow_pickle=False) as arrays:
                mesh = Mesh(arrays["corners"], arrays["triangles"])
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise self._error(f"{what} cannot be read: {error}") from error
        return checked(mesh, what, self._error)

    def _ask(self, path: Path, draft: Path, what: str) -> None:
        names = f"{path.absolute()}\t{draft}"
        if "\n" in names or names.count("\t") != 1:
            raise self._error(f"{what} has a tab or a line break in its name")
        worker, patience = self._worker, MESH_SECONDS
        if worker is None:
            worker, patience = self._start(), MESH_SECONDS + _START_SECONDS
        assert worker.stdin is not None and worker.stdout is not None
        try:
            worker.stdin.write(f"{names}\n".encode(errors="surrogateescape"))
            worker.stdin.flush()
            ready = select.select([worker.stdout], [], [], patience)[0]
            said = worker.stdout.readline().decode().strip() if ready else ""
        except OSError:
            ready, said = [worker], ""
        if said == "ok":
            return
        if not said:
            self._end()
            said = "it ends what reads it" if ready else f"not within {MESH_SECONDS:g} s"
        raise self._error(f"{what} cannot be read: {short(said)}")

    def _start(self) -> "subprocess.Popen[bytes]":
        command = [sys.executable, str(_WORKER), str(MESH_MEMORY)]
        quiet = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        self._worker = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env=quiet,
        )  # fmt: skip
        return self._worker

    def _end(self) -> None:
        if self._worker is not None:
            self._worker.kill()
            self._worker.communicate()
            self._worker = None


def checked(mesh: Mesh, what: str, error: type[IKError]) -> Mesh:
    """The mesh, if a hull and a tree can be made of it without harm."""
    corners, triangles = mesh
    for count, most, kind in (
        (len(corners), MOST_CORNERS, "corners"), (len(triangles), MOST_TRIANGLES, "triangles"),
    ):  # fmt: skip
        if not count:
            raise error(f"{what} has no {kind}")
        if count > most:
            raise error(f"{what} has {count} {kind}; {most} are the most")
    if not np.isfinite(corners).all():
        raise error(f"{what} has corners that are not finite")
    if triangles.min() < 0 or triangles.max() >= len(corners):
        raise error(f"{what} has triangles of corners that it does not have")
    return mesh


def tree_from_mesh(mesh: Mesh, what: str, error: type[IKError]) -> coal.BVHModelOBBRSS:
    """Coal's model of a mesh in metres.

    Raises:
        IKError: of the given class; a corner is too far away.
    """
    farthest = float(np.abs(mesh.corners).max())
    if not farthest <= FARTHEST_CORNER:
        raise error(
            f"{what} has a corner {farthest:.3g} m away; {FARTHEST_CORNER:g} m is the farthest"
        )
    tree = coal.BVHModelOBBRSS()
    tree.beginModel(len(mesh.triangles), len(mesh.corners))
    tree.addVertices(mesh.corners)
    tree.addTriangles(mesh.triangles)
    tree.endModel()
    return tree
