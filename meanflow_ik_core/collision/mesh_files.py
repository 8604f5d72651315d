# SPDX-License-Identifier: Apache-2.0
"""Meshes of obstacles from files."""

from pathlib import Path

import coal
import numpy as np

from ..errors import WorldError


def read_mesh(path: Path, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Corners (V, 3) and triangles (F, 3) of a mesh file.

    Raises:
        WorldError: ``where`` names a file that does not exist or holds no mesh.
    """
    if not path.is_file():
        raise WorldError(f"{where} names the file {path}, which does not exist")
    try:
        mesh = coal.MeshLoader().load(str(path), np.ones(3))
    except Exception as error:
        raise WorldError(f"the mesh {path} of {where} cannot be read: {error}") from error
    faces = [mesh.tri_indices(index) for index in range(mesh.num_tris)]
    # Coal's triangles have no end to iterate to
    triangles = np.array([(face[0], face[1], face[2]) for face in faces], np.int64)
    return np.array(mesh.vertices()), triangles.reshape(-1, 3)
