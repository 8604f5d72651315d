# SPDX-License-Identifier: Apache-2.0
"""Compiled functions are found on disk until a source changes, and who waits for them is told."""

import importlib
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from numba.core import config

from meanflow_ik_core.kernels import code_cache, jit
from meanflow_ik_core.kernels.layout import unpack
from meanflow_ik_core.solving.robot_arrays import packed

SOURCES = Path(jit.__file__).parent
ROOT = SOURCES.parents[1]
ENTRY = """
from .callee import scaled, shifted
from .jit import cached_jit

@cached_jit
def entry(x):
    return shifted(scaled(x))
"""
CALLEE = """
from numba import float64
from .jit import jit, linked_jit

@jit
def scaled(x):
    return x * {factor}

@linked_jit(float64(float64))
def shifted(x):
    return x + 1.0
"""


@pytest.fixture(params=["beside the sources", "for read-only sources", "NUMBA_CACHE_DIR"])
def folder(request, tmp_path, monkeypatch):
    """A package with `jit`, a function that Python calls, and one in another file that it calls."""
    package = tmp_path / "compiled_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "entry.py").write_text(ENTRY)
    (package / "callee.py").write_text(CALLEE.format(factor=2.0))
    for module in (jit, code_cache):
        shutil.copy(module.__file__, package)
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


def kept(package: Path) -> list[Path]:
    """The files that hold compiled code."""
    return sorted(package.parent.rglob("*.nbc"))


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
    assert outcome(folder) == (21.0, True)
    assert outcome(folder) == (21.0, False)
    (folder / "callee.py").write_text(CALLEE.format(factor=3.0))
    assert outcome(folder) == (31.0, True)
    assert outcome(folder) == (31.0, False)
    assert len(kept(folder)) == 2  # what was made of the old sources is gone


@pytest.mark.parametrize("damage", [lambda code: code[:-1], lambda code: code[:99] + code[100:]])
def test_damaged_code_is_made_anew(folder, damage):
    assert outcome(folder) == (21.0, True)
    for path in kept(folder):
        path.write_bytes(damage(path.read_bytes()))
    assert outcome(folder) == (21.0, True)
    assert outcome(folder) == (21.0, False)


def test_who_waits_for_the_compiler_is_told_once_and_nobody_else(folder, caplog):
    outcome(folder)
    (said,) = caplog.messages
    assert said.startswith("compiling") and "once on this machine" in said
    assert caplog.records[0].levelno == logging.WARNING  # which Python shows where nobody asks
    caplog.clear()
    outcome(folder)
    assert not caplog.messages


def test_where_nothing_can_be_written_all_is_compiled_and_that_is_said(folder, caplog, monkeypatch):
    (folder / "file").touch()
    monkeypatch.setattr(code_cache.config, "CACHE_DIR", str(folder / "file"))
    for _ in range(2):
        assert outcome(folder) == (21.0, True)
    assert ["at every start" in message for message in caplog.messages] == [True, True]
    assert str(folder / "file") in caplog.text


def test_processes_that_compile_at_once_leave_whole_code(folder):
    environment = os.environ | {"PYTHONPATH": f"{folder.parent}:{ROOT}"}
    program = f"from {folder.name}.entry import entry; assert entry(10.0) == 21.0"
    processes = [subprocess.Popen([sys.executable, "-c", program], env=environment) for _ in "ab"]
    assert [process.wait(120) for process in processes] == [0, 0]
    assert outcome(folder)[0] == 21.0
    assert not list(folder.rglob(".*.nbc"))


def test_nothing_is_cached_that_would_not_be_renewed():
    assert not [path.name for path in SOURCES.glob("*.py") if "cache=True" in path.read_text()]


def test_python_is_refused_by_name_what_compiled_code_alone_calls(panda, uniform):
    integers, floats, _ = packed(panda, 1e-5, 1e-5, None)
    for _ in range(2):  # before a compiled caller has compiled it, and after that
        with pytest.raises(TypeError, match="compiled code alone calls unpack"):
            unpack(integers, floats)
        uniform.warm_up()
    assert len(unpack.py_func(integers, floats).continuous) == panda.num_joints
