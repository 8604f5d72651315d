# SPDX-License-Identifier: Apache-2.0
"""Memory that is free, and that the C library would keep."""

import ctypes


def give_memory_back() -> None:
    """Give the system what a large request or world took; .04 s where it was a gigabyte."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it
    if trim is not None:
        trim(0)
