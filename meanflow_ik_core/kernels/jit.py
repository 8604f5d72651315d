# SPDX-License-Identifier: Apache-2.0
"""How the kernels are compiled, and when numba's cache of them on disk is out of date."""

import hashlib
from pathlib import Path

from numba import njit
from numba.core.caching import FunctionCache

jit = njit(nogil=True, error_model="numpy")
inline_jit = njit(nogil=True, error_model="numpy", forceinline=True)


def cached_jit(function, signature=None):
    """Compile a function that Python calls; another process finds it on disk.

    The cache lies beside the sources, or in the user's cache folder where these are read-only, or
    in NUMBA_CACHE_DIR. With a signature it is compiled at once and for that alone, else when it is
    called.
    """
    dispatcher = njit(cache=True, nogil=True, error_model="numpy")(function)
    dispatcher._cache = _FolderCache(function)
    if signature is not None:
        dispatcher.compile(signature)
        dispatcher.disable_compile()
    return dispatcher


def _digest_of_folder() -> str:
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("[!.]*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


_DIGEST = _digest_of_folder()


class _FolderCache(FunctionCache):
    """Numba's cache of a function, out of date when any source of this folder has changed.

    Numba compares the file of the function alone, and knows nothing of the files of the functions
    that it calls.
    """

    def _index_key(self, sig, codegen):
        return (*super()._index_key(sig, codegen), _DIGEST)
