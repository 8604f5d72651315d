# SPDX-License-Identifier: Apache-2.0
"""Compiled code on disk, where other processes find it.

It lies beside the sources, or where these are read-only in the user's cache folder; NUMBA_CACHE_DIR
names another place. Where nothing can be written, every process compiles anew. A file is read only
by the kind of CPU, the versions and the sources that it was made with, is written whole or not at
all, and is made anew where it is damaged. Numba's own cache does not know of the files of the
functions that a function calls, takes a damaged file for a good one, and reads nothing from a
folder that it cannot write to.
"""

import hashlib
import logging
import os
import pickle
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import llvmlite
import numba
from numba.core import config
from numba.core.caching import _Cache
from numba.core.compiler import CompileResult
from numba.core.runtime import rtsys
from numba.core.serialize import dumps

_LOGGER = logging.getLogger(__name__)
_SOURCES = Path(__file__).parent


def _digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()[:16]


_DIGEST = _digest(*(p.name.encode() + p.read_bytes() for p in sorted(_SOURCES.glob("[!.]*.py"))))


def folders() -> list[Path]:
    """Where compiled code is looked for, and written to the first that takes it."""
    if config.CACHE_DIR:
        return [Path(config.CACHE_DIR) / _digest(bytes(_SOURCES))]
    found = [_SOURCES / "__pycache__"]
    home = os.environ.get("XDG_CACHE_HOME")
    with suppress(RuntimeError):  # there is no home
        folder = (Path(home) if home else Path.home() / ".cache") / "meanflow_ik"
        found.append(folder / f"kernels-{_digest(bytes(_SOURCES))}")
    return found


class CodeCache(_Cache):
    """The compiled code of one function, in the way that a dispatcher of numba asks for it."""

    def __init__(self, function):
        self._name = f"{function.__module__.rpartition('.')[2]}.{function.__qualname__}"

    @property
    def cache_path(self) -> str:
        return str(folders()[0])

    def enable(self) -> None: ...

    def disable(self) -> None: ...

    def flush(self) -> None: ...

    def load_overload(self, sig, target_context):
        """The compiled function of a signature, or None; then the compiler begins."""
        # All that loading needs. Numba would import its whole library here, and scipy with it.
        rtsys.initialize(target_context)
        _, name = self._names(sig, target_context.codegen())
        for folder in folders():
            try:
                content = (folder / name).read_bytes()
            except OSError:
                continue
            check, content = content[:32], content[32:]
            if hashlib.sha256(content).digest() == check:
                return CompileResult._rebuild(target_context, *pickle.loads(content))
        _say_that_the_compiler_runs()
        return None

    def save_overload(self, sig, data) -> None:
        machine, name = self._names(sig, data.codegen)
        content = dumps(data._reduce())
        for folder in folders():
            with suppress(OSError):
                folder.mkdir(parents=True, exist_ok=True)
                handle, draft = tempfile.mkstemp(dir=folder, prefix=".", suffix=".nbc")
                try:
                    with open(handle, "wb") as file:
                        file.write(hashlib.sha256(content).digest() + content)
                    os.replace(draft, folder / name)
                except BaseException:
                    os.unlink(draft)
                    raise
                for other in folder.glob(f"{machine}-*.nbc"):
                    if not other.name.startswith(f"{machine}-{_DIGEST}-"):
                        other.unlink(missing_ok=True)  # of sources that have changed
                return

    def _names(self, sig, codegen) -> tuple[str, str]:
        """How the names of a function's files begin on this machine, and the one of a signature."""
        versions = sys.implementation.cache_tag, numba.__version__, llvmlite.__version__
        machine = f"{self._name}-{_digest(repr((codegen.magic_tuple(), versions)).encode())}"
        return machine, f"{machine}-{_DIGEST}-{_digest(repr(sig).encode())}.nbc"


_said = False


def _say_that_the_compiler_runs() -> None:
    global _said
    if _said:
        return
    _said = True
    if any(map(_can_be_written, folders())):
        often = "once on this machine"
    else:
        named = " and ".join(map(str, folders()))
        often = f"at every start, for the result cannot be written to {named}"
    _LOGGER.warning("compiling kernels for this CPU, which takes about a minute, %s", often)


def _can_be_written(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
