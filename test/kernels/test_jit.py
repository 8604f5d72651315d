# SPDX-License-Identifier: Apache-2.0
"""Compiled functions are found on disk until a source of their folder changes."""

import importlib
import shutil
import sys
from pathlib import Path

import pytest
from numba.core import config

from meanflow_ik_core.kernels import jit

SOURCES = Path(jit.__file__).parent
ENTRY = """
from .callee import scaled
from .jit import cached_jit

@cached_jit
def entry(x):
    return scaled(x)
"""
CALLEE = """
from .jit import jit

@jit
def scaled(x):
    return x * {factor}
"""


@pytest.fixture(params=["beside the sources", "for read-only sources", "NUMBA_CACHE_DIR"])
def folder(request, tmp_path, monkeypatch):
    """A package with `jit`, a function that Python calls, and one in another file that it calls."""
    package = tmp_path / "compiled_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "entry.py").write_text(ENTRY)
    (package / "callee.py").write_text(CALLEE.format(factor=2.0))
    shutil.copy(jit.__file__, package)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(config, "CACHE_DIR", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    if request.param == "for read-only sources":
        (package / "__pycache__").touch()  # no folder can be made there, not even by root
    elif request.param == "NUMBA_CACHE_DIR":
        monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path / "chosen"))
    yield package
    forget(package.name)


def forget(package: str) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        del sys.modules[name]


def outcome(package: Path) -> tuple[float, bool]:
    """What a new process gets for 10, and whether it had to compile for that."""
    forget(package.name)
    importlib.invalidate_caches()
    entry = importlib.import_module(f"{package.name}.entry").entry
    return entry(10.0), not entry.stats.cache_hits


def test_compiled_functions_are_renewed_when_another_file_of_their_folder_changes(folder):
    assert outcome(folder) == (20.0, True)
    assert outcome(folder) == (20.0, False)
    (folder / "callee.py").write_text(CALLEE.format(factor=3.0))
    assert outcome(folder) == (30.0, True)
    assert outcome(folder) == (30.0, False)


def test_nothing_is_cached_that_would_not_be_renewed():
    users = [path.name for path in SOURCES.glob("*.py") if "cache=True" in path.read_text()]
    assert users == ["jit.py"]
