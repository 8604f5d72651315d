# SPDX-License-Identifier: Apache-2.0
"""What was asked, in values of JSON, so that a file of results is recognised."""

import hashlib
import pickle
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..world.world import World


def described(value: Any) -> Any:
    """A value as JSON has it, or the SHA-256 of what JSON does not have."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): described(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [described(item) for item in value]
    if isinstance(value, World):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "world.yaml"
            value.save(path)
            return hashlib.sha256(path.read_bytes()).hexdigest()
    if isinstance(value, np.ndarray):
        value = value.shape, value.dtype.str, value.tobytes()
    return hashlib.sha256(pickle.dumps(value)).hexdigest()
